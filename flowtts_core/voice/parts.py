"""A voice: the one artefact that training writes and everything else reads, a folder with a JSON card and safetensors weights."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from flowtts_core.acoustic import ACOUSTIC_MODELS
from flowtts_core.acoustic.base import SPEEDS, AcousticModel
from flowtts_core.config import Table, build, fingerprint
from flowtts_core.errors import ConfigError, VoiceError
from flowtts_core.text.frontends import PhonemeConfig
from flowtts_core.vocoder import VOCODERS
from flowtts_core.vocoder.base import Vocoder
from flowtts_core.voice.card import CARD, VoiceCard, find_voice, load_card, write_card

WEIGHTS = {"acoustic": "acoustic.safetensors", "vocoder": "vocoder.safetensors"}
_REMEDY = "take the voice again from where it came from"


@dataclass(frozen=True)
class Voice:
    """A loaded voice, ready to run on the device it was loaded to."""

    card: VoiceCard
    acoustic: AcousticModel
    vocoder: Vocoder


def load_voice(voice: str | os.PathLike[str] | None = None, device: torch.device | str = "cpu") -> Voice:
    """Load a voice by its bundled name or folder.

    Raises:
        VoiceError: for a missing, truncated or altered weight file, weights that do not fit their spec, parts that do not
            fit each other (the mels of acoustic model and vocoder, what the card says of them), or settings out of range.
    """
    folder = find_voice(voice)
    card = load_card(folder)
    parts: dict[str, nn.Module] = {}
    for part, table, spec in (("acoustic", ACOUSTIC_MODELS, card.acoustic), ("vocoder", VOCODERS, card.vocoder)):
        module = _built(table, spec, f"{folder / CARD}: {part}")
        if module.state_dict():
            _load_weights(module, folder / WEIGHTS[part], card.sha256.get(WEIGHTS[part]))
        parts[part] = module.to(device).eval()
    acoustic, vocoder = parts["acoustic"], parts["vocoder"]
    assert isinstance(acoustic, AcousticModel) and isinstance(vocoder, Vocoder)
    require_same_mel(acoustic, vocoder, str(folder))
    _check_card(card, acoustic, folder / CARD)
    return Voice(card, acoustic, vocoder)


def _built(table: Table, spec: Mapping[str, Any], where: str) -> nn.Module:
    try:
        module: nn.Module = build(table, spec)
    except ConfigError as error:
        raise VoiceError(f"{where}: {error.message}", error.remedy) from error
    except Exception as error:  # a size that no check foresees: 0 divides, a million layers do not fit into memory
        raise VoiceError(f"{where}: cannot be built ({type(error).__name__}: {error})", _REMEDY) from error
    return module


def _check_card(card: VoiceCard, acoustic: AcousticModel, path: Path) -> None:
    """Raise VoiceError unless what the card says of the voice is what its parts say, and its settings can be followed."""
    mel = acoustic.features
    # as the spec spells it too: there a float field may hold an integer
    mels = (mel.fingerprint, fingerprint(card.acoustic.get("mel")))
    checks = {
        f"sample_rate {card.sample_rate}, but the mel has {mel.sample_rate}": card.sample_rate == mel.sample_rate,
        f"mel_fingerprint {card.mel_fingerprint}, but the mel's is {mels[0]}": card.mel_fingerprint in mels,
        f"{len(card.speakers)} speakers, but the model has {acoustic.n_speakers}": not card.speakers
        or len(card.speakers) == acoustic.n_speakers,
        f"steps {card.steps}": 0 <= card.steps <= 1000,
        f"temperature {card.temperature}": 0 <= card.temperature <= 2,
        f"speed {card.speed}": SPEEDS[0] <= card.speed <= SPEEDS[1],
    }
    wrong = [what for what, holds in checks.items() if not holds]
    if wrong:
        raise VoiceError(f"{path}: does not fit: {'; '.join(wrong)}", _REMEDY)


def require_same_mel(acoustic: AcousticModel, vocoder: Vocoder, who: str) -> None:
    """Raise VoiceError, naming what differs, unless the vocoder reads the mel that the acoustic model makes."""
    try:
        acoustic.features.require(vocoder.features, f"{who}: acoustic model and vocoder do not fit")
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
    frontend: PhonemeConfig,
    half: bool = False,
    **card_fields: Any,
) -> VoiceCard:
    """Write a voice folder; the card comes last, so a folder without it is not a voice.

    A voice that stood there is whole until the new one is written; from then to the new card, its card refuses the weights.

    Args:
        half: store parameters as float16 (half the size; they are computed with in float32 all the same).
        card_fields: further fields of `VoiceCard` (licence, source, scores, steps, ...).
    """
    require_same_mel(acoustic, vocoder, name)
    folder.mkdir(parents=True, exist_ok=True)
    hashes = {}
    for part, module in (("acoustic", acoustic), ("vocoder", vocoder)):
        weights = {k for k, _ in module.named_parameters()}  # buffers (statistics, windows) keep their precision
        tensors = {k: _stored(v, half and k in weights) for k, v in module.state_dict().items()}
        if tensors:
            path = folder / f"{WEIGHTS[part]}.part"
            save_file(tensors, path)
            path.chmod(0o644)  # safetensors makes it readable by its owner alone
            hashes[WEIGHTS[part]] = hashlib.sha256(path.read_bytes()).hexdigest()
    for name_of_weights in hashes:
        (folder / f"{name_of_weights}.part").replace(folder / name_of_weights)
    card = VoiceCard(
        name=name,
        acoustic=dict(acoustic_spec),
        vocoder=dict(vocoder_spec),
        frontend=frontend,
        mel_fingerprint=acoustic.features.fingerprint,
        sample_rate=acoustic.features.sample_rate,
        sha256=hashes,
        **card_fields,
    )
    write_card(folder, card)
    return card


def _stored(tensor: torch.Tensor, half: bool) -> torch.Tensor:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.half() if half and tensor.is_floating_point() else tensor


def _load_weights(module: nn.Module, path: Path, sha256: str | None) -> None:
    if not path.is_file():
        raise VoiceError(f"{path}: missing", _REMEDY)
    if sha256 is None:
        raise VoiceError(f"{path}: the card has no SHA-256 of it", _REMEDY)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise VoiceError(f"{path}: cannot be read, perhaps truncated ({error})", _REMEDY) from error
    if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise VoiceError(f"{path}: is not the file that the card names (its SHA-256 differs)", _REMEDY)
    wanted = module.state_dict()
    tensors = {k: v.to(wanted[k].dtype) if k in wanted else v for k, v in tensors.items()}
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise VoiceError(f"{path}: does not fit the card's spec ({error})", _REMEDY) from error
