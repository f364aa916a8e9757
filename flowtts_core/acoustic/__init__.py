"""Acoustic models: tokens in, log-mel out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flowtts_core import config as _config
from flowtts_core.acoustic.base import AcousticBatch, AcousticModel, Condition, Generated
from flowtts_core.acoustic.cosyvoice.model import CosyVoice, CosyVoiceConfig
from flowtts_core.acoustic.f5.config import F5Config
from flowtts_core.acoustic.f5.model import F5TTS
from flowtts_core.acoustic.matcha.config import MatchaConfig
from flowtts_core.acoustic.matcha.model import MatchaTTS
from flowtts_core.acoustic.zipvoice.config import ZipVoiceConfig
from flowtts_core.acoustic.zipvoice.model import ZipVoice

ACOUSTIC_MODELS: dict[str, tuple[type, Callable[[Any], AcousticModel]]] = {
    "f5": (F5Config, F5TTS),
    "matcha": (MatchaConfig, MatchaTTS),
    "zipvoice": (ZipVoiceConfig, ZipVoice),
}

# of voices of kind "tokens": what they say, and how long it takes, is drawn by their seed
TOKEN_MODELS: dict[str, tuple[type, Callable[[Any], AcousticModel]]] = {"cosyvoice": (CosyVoiceConfig, CosyVoice)}


def build(spec: Mapping[str, Any]) -> AcousticModel:
    """The acoustic model of a spec, `{"name": "matcha", **fields of MatchaConfig}`; see `flowtts_core.config.build`."""
    model: AcousticModel = _config.build(ACOUSTIC_MODELS, spec)
    return model


__all__ = [
    "ACOUSTIC_MODELS",
    "F5TTS",
    "TOKEN_MODELS",
    "AcousticBatch",
    "AcousticModel",
    "Condition",
    "CosyVoice",
    "CosyVoiceConfig",
    "F5Config",
    "Generated",
    "MatchaConfig",
    "MatchaTTS",
    "ZipVoice",
    "ZipVoiceConfig",
    "build",
]
