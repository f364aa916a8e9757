"""Vocoders by name: each turns a log-mel into a waveform."""

from flowtts_core.vocoder.band_split import BandSplit, BandSplitConfig
from flowtts_core.vocoder.base import Vocoder
from flowtts_core.vocoder.diffusion import Diffusion, DiffusionConfig
from flowtts_core.vocoder.griffin_lim import GriffinLim, GriffinLimConfig
from flowtts_core.vocoder.hifigan import HiFiGAN, HiFiGANConfig
from flowtts_core.vocoder.rfwave import RFWave, RFWaveConfig
from flowtts_core.vocoder.source_filter import SourceFilter, SourceFilterConfig
from flowtts_core.vocoder.vocos import Vocos, VocosConfig
from flowtts_core.vocoder.wavefm import WaveFM, WaveFMConfig

VOCODERS = {
    "band_split": (BandSplitConfig, BandSplit),
    "diffusion": (DiffusionConfig, Diffusion),
    "griffin_lim": (GriffinLimConfig, GriffinLim),
    "hifigan": (HiFiGANConfig, HiFiGAN),
    "rfwave": (RFWaveConfig, RFWave),
    "source_filter": (SourceFilterConfig, SourceFilter),
    "vocos": (VocosConfig, Vocos),
    "wavefm": (WaveFMConfig, WaveFM),
}

__all__ = [
    "VOCODERS",
    "BandSplit",
    "BandSplitConfig",
    "Diffusion",
    "DiffusionConfig",
    "GriffinLim",
    "GriffinLimConfig",
    "HiFiGAN",
    "HiFiGANConfig",
    "RFWave",
    "RFWaveConfig",
    "SourceFilter",
    "SourceFilterConfig",
    "Vocoder",
    "Vocos",
    "VocosConfig",
    "WaveFM",
    "WaveFMConfig",
]
