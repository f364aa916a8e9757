"""What the net sees of speech: short spectra at 16 kHz, in windows of three seconds, in numpy."""

from __future__ import annotations

import numpy as np

RATE = 16_000
HOP, SIZE = 256, 512
BINS = 240  # up to 7.5 kHz: above, resamplers differ
WINDOW = 188  # frames of a window: three seconds
SAMPLES = (WINDOW - 1) * HOP + SIZE  # of a window
_FLOOR = 1e-5  # of the window's power: how silent pauses are would tell the studio, not the speaker
_QUIET = 1e-3  # of the window's power: frames below are pauses, which nobody speaks
_SILENT = 1e-10  # of full scale's power


def seen_of(waveform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what the net sees of a window [SAMPLES] at 16 kHz, and which of its frames sound.

    It sees logarithms of power, less the mean of each bin over the frames that sound: what a microphone, a room or a band
    limit does to all frames alike, and how loud the whole is, would tell the recording, and is left out.

    Returns:
        [WINDOW, BINS] float32, and [WINDOW] bool.
    """
    pieces = np.lib.stride_tricks.sliding_window_view(waveform, SIZE)[::HOP] * np.hanning(SIZE + 1)[:-1]
    power = np.square(np.abs(np.fft.rfft(pieces, axis=1)[:, 1 : BINS + 1])) / SIZE
    level = power.mean(1)
    mean = max(float(level.mean()), _SILENT)
    sounding = (level > _QUIET * mean) & (level > _SILENT)
    seen = np.log(power / mean + _FLOOR)
    if sounding.any():
        seen = seen - seen[sounding].mean(0)
    return (seen / 4).astype(np.float32), sounding


def windows_of(sound: np.ndarray) -> tuple[list[np.ndarray], list[int]]:
    """Return windows [SAMPLES] that cover a sound [S] at 16 kHz, overlapping by half, and the frame that each begins at.

    A sound shorter than a window is repeated; of a longer one the last window ends with it.
    """
    if len(sound) <= SAMPLES:
        return [np.resize(sound, SAMPLES)], [0]
    last = (len(sound) - SAMPLES) // HOP
    begins = [*range(0, last, WINDOW // 2), last]
    return [sound[begin * HOP : begin * HOP + SAMPLES] for begin in begins], begins
