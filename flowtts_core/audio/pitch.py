"""Pitch as a row of features: the logarithm of F0, interpolated where speech has none.

F0 comes from SwiftF0 (MIT, `swift-f0`), a small network that hears it every 16 ms. One of 16 cents is the median of its
distance to the F0 from which hibari makes its sound.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowtts_core.audio.spec import AudioSpec

MIDDLE_HZ = 150.0  # has the value 0
SCALE = 16.0  # of the natural logarithm: a semitone is 0.92, so that the row weighs as several bands do
LOW_HZ, HIGH_HZ = 50.0, 600.0  # of voices
_VOICED = 0.5  # SwiftF0's confidence from which a frame has a pitch


def pitch_rows(waveform: Tensor, spec: AudioSpec, frames: int) -> Tensor:
    """Return the pitch [B, 1, frames] of waveforms [B, S], float32, at the first sample of each frame."""
    rows = [_pitch_row(one, spec, frames) for one in waveform.cpu().float().numpy()]
    return torch.from_numpy(np.stack(rows))[:, None].to(waveform.device)


def pitch_hz(row: Tensor) -> Tensor:
    """Return F0 in Hz from a row of pitch, within what voices have."""
    return (MIDDLE_HZ * (row / SCALE).exp()).clamp(LOW_HZ, HIGH_HZ)


def _pitch_row(waveform: np.ndarray, spec: AudioSpec, frames: int) -> np.ndarray:
    found = _detector().detect(waveform, spec.sample_rate, LOW_HZ, HIGH_HZ)
    voiced = found.confidence >= _VOICED
    if not voiced.any():
        return np.zeros(frames, np.float32)
    times = np.arange(frames) * (spec.hop_length / spec.sample_rate)
    values = SCALE * np.log(found.pitch_hz[voiced] / MIDDLE_HZ)
    return np.interp(times, found.timestamps[voiced], values).astype(np.float32)


@lru_cache(maxsize=1)
def _detector() -> Any:
    from swift_f0 import SwiftF0

    return SwiftF0(threads=1)
