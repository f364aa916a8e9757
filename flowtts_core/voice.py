"""A voice: the one artefact that training writes and everything else reads, a folder with a JSON card and safetensors weights."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from flowtts_core.acoustic import ACOUSTIC_MODELS
from flowtts_core.acoustic.base import AcousticModel
from flowtts_core.config import build, fingerprint, from_dict, to_dict
from flowtts_core.errors import ConfigError, VoiceError
from flowtts_core.text.frontend import FrontendConfig
from flowtts_core.vocoder import VOCODERS
from flowtts_core.vocoder.base import Vocoder

CARD = "voice.json"
WEIGHTS = {"acoustic": "acoustic.safetensors", "vocoder": "vocoder.safetensors"}
FORMAT = 1
BUNDLED = Path(__file__).parent / "voices"
DEFAULT_VOICE = "rms"


@dataclass(frozen=True)
class VoiceCard:
    """What a voice is; `voice.json`.

    Attributes:
        acoustic, vocoder: specs, as `flowtts_core.config.build` takes them.
        mel_fingerprint: of the mel that both parts must share.
        speakers: names of the speakers of a model with several, in the order of its embedding.
        steps, temperature, speed: sampling defaults.
        licence, source: of the weights, and of the speech they were trained on.
        scores: what was measured of it (name -> number or text), with the command in `scores["command"]`.
        sha256: of each weight file.
    """

    name: str
    acoustic: dict[str, Any]
    vocoder: dict[str, Any]
    frontend: FrontendConfig
    mel_fingerprint: str
    sample_rate: int
    language: str = "en-us"
    description: str = ""
    licence: str = ""
    source: str = ""
    speakers: tuple[str, ...] = ()
    steps: int = 4
    temperature: float = 0.667
    speed: float = 1.0
    scores: dict[str, Any] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def fingerprint(self) -> str:
        """Equal for voices that make the same sound: weights, specs, front end and sampling defaults, not names or scores."""
        return fingerprint(to_dict(replace(self, name="", description="", licence="", source="", scores={})), 16)


@dataclass(frozen=True)
class Voice:
    """A loaded voice, ready to run on the device it was loaded to."""

    card: VoiceCard
    acoustic: AcousticModel
    vocoder: Vocoder


def bundled_voices() -> dict[str, Path]:
    """Voices that come with the package: name -> folder."""
    return {card.parent.name: card.parent for card in sorted(BUNDLED.glob(f"*/{CARD}"))}


def find_voice(voice: str | os.PathLike[str] | None = None) -> Path:
    """The folder of a bundled voice's name, or of a path; None is the default voice.

    Raises:
        VoiceError: where neither exists; lists the bundled names.
    """
    bundled = bundled_voices()
    name = DEFAULT_VOICE if voice is None else os.fspath(voice)
    if name in bundled:
        return bundled[name]
    if (Path(name) / CARD).is_file():
        return Path(name)
    what = f"{name}: no {CARD} in that folder" if Path(name).is_dir() else f"no voice {name!r}"
    raise VoiceError(what, f"give a voice's folder or one of the bundled voices: {', '.join(bundled) or '(none)'}")


def load_card(voice: str | os.PathLike[str] | None = None) -> VoiceCard:
    """The card alone, without weights.

    Raises:
        VoiceError: when it is damaged or of another format.
    """
    path = find_voice(voice) / CARD
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.get("format") != FORMAT:
            raise VoiceError(f"{path}: format {values.get('format')!r}, this version reads {FORMAT}", "update flowtts")
        card: VoiceCard = from_dict(VoiceCard, values)
    except (ValueError, AttributeError, ConfigError) as error:
        raise VoiceError(
            f"{path}: not a voice card ({error})", "write the voice again, or take it from a backup"
        ) from error
    return card


def load_voice(voice: str | os.PathLike[str] | None = None, device: torch.device | str = "cpu") -> Voice:
    """Load a voice by its bundled name or folder.

    Raises:
        VoiceError: for a missing, truncated or altered weight file, weights that do not fit their spec, or an acoustic
            model and a vocoder with different mels.
    """
    folder = find_voice(voice)
    card = load_card(folder)
    parts: dict[str, nn.Module] = {}
    for part, table, spec in (("acoustic", ACOUSTIC_MODELS, card.acoustic), ("vocoder", VOCODERS, card.vocoder)):
        try:
            module: nn.Module = build(table, spec)
        except ConfigError as error:
            raise VoiceError(f"{folder / CARD}: {part}: {error.message}", error.remedy) from error
        if module.state_dict():
            _load_weights(module, folder / WEIGHTS[part], card.sha256.get(WEIGHTS[part]))
        parts[part] = module.to(device).eval()
    acoustic, vocoder = parts["acoustic"], parts["vocoder"]
    assert isinstance(acoustic, AcousticModel) and isinstance(vocoder, Vocoder)
    require_same_mel(acoustic, vocoder, str(folder))
    return Voice(card, acoustic, vocoder)


def require_same_mel(acoustic: AcousticModel, vocoder: Vocoder, who: str) -> None:
    """Raise VoiceError, naming what differs, unless the vocoder reads the mel that the acoustic model makes."""
    try:
        acoustic.mel_config.require(vocoder.mel_config, f"{who}: acoustic model and vocoder do not fit")
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
    frontend: FrontendConfig,
    half: bool = False,
    **card_fields: Any,
) -> VoiceCard:
    """Write a voice folder; the card comes last, so a folder without it is not a voice.

    Args:
        half: store parameters as float16 (half the size; they are computed with in float32 all the same).
        card_fields: further fields of `VoiceCard` (licence, source, scores, steps, ...).
    """
    require_same_mel(acoustic, vocoder, name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CARD).unlink(missing_ok=True)
    hashes = {}
    for part, module in (("acoustic", acoustic), ("vocoder", vocoder)):
        weights = {k for k, _ in module.named_parameters()}  # buffers (statistics, windows) keep their precision
        tensors = {k: _stored(v, half and k in weights) for k, v in module.state_dict().items()}
        if tensors:
            path = folder / WEIGHTS[part]
            save_file(tensors, path)
            hashes[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    card = VoiceCard(
        name=name,
        acoustic=dict(acoustic_spec),
        vocoder=dict(vocoder_spec),
        frontend=frontend,
        mel_fingerprint=acoustic.mel_config.fingerprint,
        sample_rate=acoustic.mel_config.sample_rate,
        sha256=hashes,
        **card_fields,
    )
    write_card(folder, card)
    return card


def write_card(folder: Path, card: VoiceCard) -> None:
    """Replace a folder's card atomically (also to add scores)."""
    part = folder / (CARD + ".part")
    part.write_text(json.dumps(to_dict(card), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(folder / CARD)


def _stored(tensor: torch.Tensor, half: bool) -> torch.Tensor:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.half() if half and tensor.is_floating_point() else tensor


def _load_weights(module: nn.Module, path: Path, sha256: str | None) -> None:
    remedy = "take the file from where the voice came from"
    if not path.is_file():
        raise VoiceError(f"{path}: missing", remedy)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise VoiceError(f"{path}: cannot be read, perhaps truncated ({error})", remedy) from error
    if sha256 is not None and hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise VoiceError(f"{path}: is not the file that the card names (its SHA-256 differs)", remedy)
    wanted = module.state_dict()
    tensors = {k: v.to(wanted[k].dtype) if k in wanted else v for k, v in tensors.items()}
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise VoiceError(f"{path}: does not fit the card's spec ({error})", remedy) from error
