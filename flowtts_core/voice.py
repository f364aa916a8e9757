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
from flowtts_core.acoustic.base import AcousticModel
from flowtts_core.config import build
from flowtts_core.errors import ConfigError, VoiceError
from flowtts_core.text.frontend import FrontendConfig
from flowtts_core.vocoder import VOCODERS
from flowtts_core.vocoder.base import Vocoder
from flowtts_core.voice_card import CARD, VoiceCard, find_voice, load_card, write_card

WEIGHTS = {"acoustic": "acoustic.safetensors", "vocoder": "vocoder.safetensors"}


@dataclass(frozen=True)
class Voice:
    """A loaded voice, ready to run on the device it was loaded to."""

    card: VoiceCard
    acoustic: AcousticModel
    vocoder: Vocoder


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
            path.chmod(0o644)  # safetensors makes it readable by its owner alone
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
