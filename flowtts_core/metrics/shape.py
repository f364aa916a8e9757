"""What a waveform shows without any model: its length, silence and clipping, and the statistics of its log-mel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from flowtts_core.audio.mel import LogMel, MelConfig
from flowtts_core.metrics.signal import RATE, to_16k

SILENT_DB = 40.0  # below the loudest frame
_FULL_SCALE = 0.999
_RUN = 3  # samples in a row at full scale: one alone may be a true peak


@dataclass(frozen=True)
class Shape:
    """`seconds` in all, `silent_s` of them silent, and how many samples are `clipped`."""

    seconds: float
    silent_s: float
    clipped: int


def shape_of(waveform: np.ndarray, sample_rate: int) -> Shape:
    """Of a waveform [S]; silence is counted in frames of 10 ms."""
    frame = max(1, sample_rate // 100)
    power = np.square(waveform[: len(waveform) // frame * frame].astype(np.float64)).reshape(-1, frame).mean(axis=1)
    loudest = power.max(initial=0.0)
    silent = len(power) if loudest == 0 else int((power < loudest * 10 ** (-SILENT_DB / 10)).sum())
    high = np.abs(waveform) >= _FULL_SCALE
    edges = np.flatnonzero(np.diff(np.concatenate([[False], high, [False]])))
    runs = edges[1::2] - edges[::2]
    return Shape(len(waveform) / sample_rate, silent * frame / sample_rate, int(runs[runs >= _RUN].sum()))


def mel_statistics(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Mean and standard deviation over time of 64 log-mel bands at 16 kHz, [128]: an embedding that needs no model.

    It knows level, timbre and noise, not words or melody; for music and effects give a trained embedder.
    """
    frames = mel_frames(waveform, sample_rate).astype(np.float64)
    return np.concatenate([frames.mean(axis=0), frames.std(axis=0)]).astype(np.float32)


def mel_frames(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return the 64 log-mel bands themselves, [T, 64], a frame each 10 ms."""
    frames: np.ndarray = _log_mel()(torch.from_numpy(to_16k(waveform, sample_rate))[None])[0].T.numpy()
    return frames


@lru_cache(maxsize=1)
def _log_mel() -> LogMel:
    return LogMel(
        MelConfig(
            sample_rate=RATE, n_fft=512, win_length=400, hop_length=160, n_mels=64, f_max=RATE / 2, padding="center"
        )
    )
