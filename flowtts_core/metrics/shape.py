"""Measure a waveform without a model: length, silence, clipping, and the statistics of its log-mel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from flowtts_core.audio.mel import LogMel, MelConfig
from flowtts_core.metrics.signal import RATE, to_16k

SILENT_DB = 40.0  # below the loudest frame
_FULL_SCALE = 0.999
_RUN = 3  # successive samples at full scale; a single one may be a true peak


@dataclass(frozen=True)
class Shape:
    """Length in `seconds`, of which `silent_s` are silent, and the number of `clipped` samples.

    `sounding` is how many whole frames of 10 ms are not silent: none in a clip of zeros, or of less than a frame.
    """

    seconds: float
    silent_s: float
    clipped: int
    sounding: int


def shape_of(waveform: np.ndarray, sample_rate: int) -> Shape:
    """Measure a waveform [S]. Silence is counted in frames of 10 ms."""
    frame = max(1, sample_rate // 100)
    power = np.square(waveform[: len(waveform) // frame * frame].astype(np.float64)).reshape(-1, frame).mean(axis=1)
    loudest = power.max(initial=0.0)
    silent = len(power) if loudest == 0 else int((power < loudest * 10 ** (-SILENT_DB / 10)).sum())
    high = np.abs(waveform) >= _FULL_SCALE
    edges = np.flatnonzero(np.diff(np.concatenate([[False], high, [False]])))
    runs = edges[1::2] - edges[::2]
    clipped = int(runs[runs >= _RUN].sum())
    return Shape(len(waveform) / sample_rate, silent * frame / sample_rate, clipped, len(power) - silent)


def mel_statistics(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return mean and standard deviation over time of 64 log-mel bands at 16 kHz, [128]: an embedding without a model.

    It tells level, timbre and noise, but no words or melody. For music and effects use a trained embedder.
    """
    frames = mel_frames(waveform, sample_rate).astype(np.float64)
    return np.concatenate([frames.mean(axis=0), frames.std(axis=0)]).astype(np.float32)


def mel_frames(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return 64 log-mel bands [T, 64] at 16 kHz, a frame each 10 ms."""
    frames: np.ndarray = _log_mel()(torch.from_numpy(to_16k(waveform, sample_rate))[None])[0].T.numpy()
    return frames


@lru_cache(maxsize=1)
def _log_mel() -> LogMel:
    return LogMel(
        MelConfig(
            sample_rate=RATE, n_fft=512, win_length=400, hop_length=160, n_mels=64, f_max=RATE / 2, padding="center"
        )
    )
