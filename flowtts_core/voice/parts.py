"""The parts of a flow voice: acoustic model, vocoder and front end, in a folder with a JSON card and safetensors weights."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from flowtts_core.acoustic import ACOUSTIC_MODELS, TOKEN_MODELS
from flowtts_core.acoustic.base import AcousticModel
from flowtts_core.audio.mel import MelConfig
from flowtts_core.config import Table, build, spec_of
from flowtts_core.errors import ConfigError, VoiceError
from flowtts_core.files import write_whole
from flowtts_core.flow import SOLVERS, TIME_GRIDS
from flowtts_core.nn.graph import Runners
from flowtts_core.sampling import SPEEDS
from flowtts_core.text.frontends import FRONTENDS, Frontend
from flowtts_core.vocoder import VOCODERS, GriffinLimConfig
from flowtts_core.vocoder.base import Vocoder
from flowtts_core.vocoder.files import CARD as VOCODER_CARD
from flowtts_core.vocoder.files import LoadedVocoder, bundled_vocoder, bundled_vocoders, load_vocoder
from flowtts_core.voice.card import CARD, FLOW_VOICE, VoiceCard, bundled_voices, find_voice, load_card, write_card

GRIFFIN_LIM = "griffin_lim"
WEIGHTS = {"acoustic": "acoustic.safetensors", "vocoder": "vocoder.safetensors"}
_REMEDY = "take the voice again from where it came from"


@dataclass(frozen=True)
class FlowVoice:
    """A loaded flow voice, ready to run on the device it was loaded to."""

    card: VoiceCard
    acoustic: AcousticModel
    vocoder: Vocoder
    frontend: Frontend


def load_parts(voice: str | os.PathLike[str] | None = None, device: torch.device | str = "cpu") -> FlowVoice:
    """Load a flow voice by its bundled name or folder; None is the bundled one.

    On a CPU its networks run by ONNX Runtime, where the voice was saved with graphs.

    Raises:
        VoiceError: for a missing, truncated or altered file of weights, weights that do not fit their spec, parts that do not
            fit each other (features of acoustic model and vocoder, what the card says of them), or settings out of range.
    """
    folder = find_voice(FLOW_VOICE if voice is None else voice)
    return parts_of(folder, load_card(folder), device)


def parts_of(folder: Path, card: VoiceCard, device: torch.device | str = "cpu") -> FlowVoice:
    """Load the parts of a folder as its card says; raises as `load_parts`."""
    parts: dict[str, nn.Module] = {}
    models = TOKEN_MODELS if card.kind == "tokens" else ACOUSTIC_MODELS
    for part, table in (("acoustic", models), ("vocoder", VOCODERS)):
        module = _built(table, card, part, folder)
        if module.state_dict():
            _load_weights(module, folder / WEIGHTS[part], card.sha256.get(WEIGHTS[part]))
        parts[part] = module.to(device).eval()
    acoustic, vocoder = parts["acoustic"], parts["vocoder"]
    assert isinstance(acoustic, AcousticModel) and isinstance(vocoder, Vocoder)
    if torch.device(device).type == "cpu":
        for part, model in (("acoustic", acoustic), ("vocoder", vocoder)):
            model.runners = _runners(folder, card, part)
    require_same_features(acoustic, vocoder, str(folder))
    frontend: Frontend = _built(FRONTENDS, card, "frontend", folder)
    _check_card(card, acoustic, frontend, folder / CARD)
    return FlowVoice(card, acoustic, vocoder, frontend)


def find_vocoder(choice: str, mel: MelConfig) -> LoadedVocoder:
    """Load what a `--vocoder` names: a vocoder's or a voice's folder, a bundled vocoder or voice, or "griffin_lim".

    None is the bundled vocoder for any speaker that reads this mel, or else Griffin-Lim.

    Raises:
        VoiceError: where there is none; `require_same_features` tells whether it reads the mel of a model.
    """
    if not choice and (bundled := bundled_vocoder(mel)) is not None:
        return bundled
    if choice in ("", GRIFFIN_LIM):
        spec = spec_of(GRIFFIN_LIM, GriffinLimConfig(mel=mel))
        return LoadedVocoder(build(VOCODERS, spec), spec)
    if choice in bundled_vocoders():
        return load_vocoder(bundled_vocoders()[choice])
    folder = Path(choice)
    if (folder / VOCODER_CARD).is_file():
        return load_vocoder(folder)
    if folder.is_dir() and not (folder / CARD).is_file() and choice not in bundled_voices():
        raise VoiceError(
            f"{choice}: neither {VOCODER_CARD} nor {CARD} in that folder", "give the folder of a vocoder or of a voice"
        )
    card = load_card(choice)
    if "vocoder" not in card.parts:
        raise VoiceError(f"voice {choice} is of kind {card.kind}: it has no vocoder", "give a flow voice or a vocoder")
    return LoadedVocoder(load_parts(choice).vocoder, dict(card.parts["vocoder"]))


def _graph_file(part: str, name: str) -> str:
    return f"{part}-{name}.onnx"


def graph_files(card: VoiceCard) -> dict[tuple[str, str], str]:
    """Return the files of a voice's graphs by part and name; none for a voice that was saved without."""
    found = {}
    for file in card.sha256:
        part, dash, name = file.removesuffix(".onnx").partition("-")
        if dash and part in WEIGHTS and file == _graph_file(part, name):
            found[part, name] = file
    return found


def _runners(folder: Path, card: VoiceCard, part: str) -> Runners:
    from flowtts_core.engines.runtime import open_runners

    files = {name: file for (own, name), file in graph_files(card).items() if own == part}
    for file in files.values():
        _require_digest(folder / file, card.sha256[file])
    return open_runners(folder, files)


def _built(table: Table, card: VoiceCard, part: str, folder: Path) -> Any:
    where = f"{folder / CARD}: {part}"
    if part not in card.parts:
        raise VoiceError(f"{where}: no such part", _REMEDY)
    try:
        return build(table, card.parts[part])
    except ConfigError as error:
        raise VoiceError(f"{where}: {error.message}", error.remedy) from error
    except Exception as error:  # a size that no check foresees: 0 divides, a million layers do not fit into memory
        raise VoiceError(f"{where}: cannot be built ({type(error).__name__}: {error})", _REMEDY) from error


def _check_card(card: VoiceCard, acoustic: AcousticModel, frontend: Frontend, path: Path) -> None:
    """Raise VoiceError unless what the card says of the voice is what its parts say, and its settings can be followed."""
    rate, sampling = acoustic.features.sample_rate, card.sampling
    checks = {
        f"sample_rate {card.sample_rate}, but the features have {rate}": card.sample_rate == rate,
        f"{len(card.speakers)} speakers, but the model has {acoustic.n_speakers}": not card.speakers
        or len(card.speakers) == acoustic.n_speakers,
        f"{frontend.n_symbols} symbols, but the model has {acoustic.n_symbols}": frontend.n_symbols
        <= acoustic.n_symbols,
        f"prompt {card.prompt!r}, but the model has {acoustic.prompted!r}": card.prompt == acoustic.prompted,
        f"steps {sampling.steps}": 0 <= sampling.steps <= 1000,
        f"temperature {sampling.temperature}": 0 <= sampling.temperature <= 2,
        f"speed {sampling.speed}": SPEEDS[0] <= sampling.speed <= SPEEDS[1],
        f"guidance {sampling.guidance}": 0 <= sampling.guidance <= 20,
    }
    wrong = [what for what, holds in checks.items() if not holds]
    if wrong:
        raise VoiceError(f"{path}: does not fit: {'; '.join(wrong)}", _REMEDY)
    try:
        build(SOLVERS, {"name": sampling.solver})
        build(TIME_GRIDS, sampling.grid or {"name": "uniform"})
    except ConfigError as error:
        raise VoiceError(f"{path}: sampling: {error.message}", error.remedy) from error


def require_same_features(acoustic: AcousticModel, vocoder: Vocoder, who: str) -> None:
    """Raise VoiceError, naming what differs, unless the vocoder reads the features that the acoustic model makes.

    It may read quieter ones too; see `MelConfig.as_read_by`.
    """
    try:
        made = acoustic.features.as_read_by(vocoder.features)
        made.require(vocoder.features, f"{who}: acoustic model and vocoder do not fit")
    except ConfigError as error:
        raise VoiceError(error.message, error.remedy) from error


def save_voice(
    folder: Path,
    *,
    name: str,
    acoustic: AcousticModel,
    acoustic_spec: Mapping[str, Any],
    vocoder: Vocoder,
    vocoder_spec: Mapping[str, Any],
    frontend: Mapping[str, Any],
    half: bool = False,
    **card_fields: Any,
) -> VoiceCard:
    """Write the folder of a flow voice; the card comes last, so a folder without it is not a voice.

    A voice that stood there is whole until the new one is written; from then to the new card, its card refuses the weights.

    Args:
        frontend: spec of the front end.
        half: store parameters as float16 (half the size; they are computed with in float32 all the same).
        card_fields: further fields of `VoiceCard` (licence, source, scores, sampling, ...).
    """
    require_same_features(acoustic, vocoder, name)
    from flowtts_core.engines.runtime import export_graph

    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for part, module in (("acoustic", acoustic), ("vocoder", vocoder)):
        weights = {k for k, _ in module.named_parameters()}  # buffers (statistics, windows) keep their precision
        tensors = {k: _stored(v, half and k in weights) for k, v in module.state_dict().items()}
        if tensors:
            files[WEIGHTS[part]] = save(tensors)
        for graph_name, graph in copy.deepcopy(module).cpu().eval().graphs().items():
            files[_graph_file(part, graph_name)] = export_graph(graph, WEIGHTS[part], files[WEIGHTS[part]])
    for file, data in files.items():
        write_whole(folder / file, data)
    card = VoiceCard(
        name=name,
        parts={"acoustic": dict(acoustic_spec), "vocoder": dict(vocoder_spec), "frontend": dict(frontend)},
        sample_rate=acoustic.features.sample_rate,
        prompt=acoustic.prompted,
        sha256={file: hashlib.sha256(data).hexdigest() for file, data in files.items()},
        **card_fields,
    )
    write_card(folder, card)
    return card


def _stored(tensor: torch.Tensor, half: bool) -> torch.Tensor:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.half() if half and tensor.is_floating_point() else tensor


def _require_digest(path: Path, sha256: str) -> None:
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise VoiceError(f"{path}: missing", _REMEDY) from error
    if found != sha256:
        raise VoiceError(f"{path}: is not the file that the card names (its SHA-256 differs)", _REMEDY)


def _load_weights(module: nn.Module, path: Path, sha256: str | None) -> None:
    if not path.is_file():
        raise VoiceError(f"{path}: missing", _REMEDY)
    if sha256 is None:
        raise VoiceError(f"{path}: the card has no SHA-256 of it", _REMEDY)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise VoiceError(f"{path}: cannot be read, perhaps truncated ({error})", _REMEDY) from error
    _require_digest(path, sha256)
    wanted = module.state_dict()
    tensors = {k: v.to(wanted[k].dtype) if k in wanted else v for k, v in tensors.items()}
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise VoiceError(f"{path}: does not fit the card's spec ({error})", _REMEDY) from error
