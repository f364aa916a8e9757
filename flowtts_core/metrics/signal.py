"""Brings a waveform to the 16 kHz that every judge here listens at."""

from __future__ import annotations

import numpy as np
import soxr

from flowtts_core.errors import AudioError

RATE = 16_000


def to_16k(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """The waveform [S] at 16 kHz, float32, at its own level.

    Raises:
        AudioError: when it is not one channel, is empty, or holds NaN or infinity.
    """
    if waveform.ndim != 1 or waveform.size == 0:
        raise AudioError(f"a judge takes one channel [S] with samples in it, this has shape {waveform.shape}")
    if not np.isfinite(waveform).all():
        raise AudioError("the waveform holds NaN or infinity")
    return np.asarray(soxr.resample(waveform.astype(np.float32), sample_rate, RATE), dtype=np.float32)
