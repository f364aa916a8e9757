"""The lecture's tiny task, whole: two phonemes, two pitches, flow matching on the raw waveform."""

from __future__ import annotations

from flowtts_core.tiny.model import TinyConfig, TinyModel
from flowtts_core.tiny.spectrum import SpectralPeak, spectral_peak
from flowtts_core.tiny.task import TinyBatch, TinyBatches, TinyTask, ToneConfig
from flowtts_core.tiny.voice import TinyCard, TinyVoice, load_tiny, save_tiny

__all__ = [
    "SpectralPeak",
    "TinyBatch",
    "TinyBatches",
    "TinyCard",
    "TinyConfig",
    "TinyModel",
    "TinyTask",
    "TinyVoice",
    "ToneConfig",
    "load_tiny",
    "save_tiny",
    "spectral_peak",
]
