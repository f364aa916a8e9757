"""Vocoders by name: each turns a log-mel into a waveform."""

from flowtts_core.vocoder.base import Vocoder
from flowtts_core.vocoder.griffin_lim import GriffinLim, GriffinLimConfig
from flowtts_core.vocoder.vocos import Vocos, VocosConfig

VOCODERS = {
    "griffin_lim": (GriffinLimConfig, GriffinLim),
    "vocos": (VocosConfig, Vocos),
}

__all__ = ["VOCODERS", "GriffinLim", "GriffinLimConfig", "Vocoder", "Vocos", "VocosConfig"]
