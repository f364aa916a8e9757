"""Resample a waveform to the rate of a judge, which is 16 kHz for all but some pretrained ones."""

from __future__ import annotations

import numpy as np
import soxr

from flowtts_core.errors import AudioError

RATE = 16_000


def to_16k(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return the waveform [S] at 16 kHz. Raise as `to_rate` does."""
    return to_rate(waveform, sample_rate, RATE)


def to_rate(waveform: np.ndarray, sample_rate: int, rate: int) -> np.ndarray:
    """Return the waveform [S] at `rate` Hz in float32; its level stays.

    Raises:
        AudioError: when it is not one channel, is empty, or holds NaN or infinity.
    """
    if waveform.ndim != 1 or waveform.size == 0:
        raise AudioError(f"a judge takes one channel [S] with samples in it, this has shape {waveform.shape}")
    if not np.isfinite(waveform).all():
        raise AudioError("the waveform holds NaN or infinity")
    heard = np.asarray(soxr.resample(waveform.astype(np.float32), sample_rate, rate), dtype=np.float32)
    if heard.size == 0:
        raise AudioError(f"{waveform.size} samples at {sample_rate} Hz leave none at {rate} Hz")
    return heard
