"""Degrade real speech in known ways and by known amounts, to test the judges.

Each function takes a waveform [S] and returns a new one in float32. None but `clipping` limits samples to full scale, so
values may lie a little over 1.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import soxr

from flowtts_core.errors import AudioError, ConfigError

SPEEDS = (0.5, 2.0)  # beyond, WSOLA leaves artefacts


def white_noise(waveform: np.ndarray, snr_db: float, seed: int = 0) -> np.ndarray:
    """Add white noise whose energy lies exactly `snr_db` below the waveform's.

    Raises:
        AudioError: for an invalid waveform, or silence, which has no signal-to-noise ratio.
        ConfigError: for a ratio that is not a finite number.
    """
    _require_waveform(waveform)
    if not np.isfinite(snr_db):
        raise ConfigError(f"snr_db = {snr_db}", "give a finite number of decibels")
    energy = float(np.square(waveform, dtype=np.float64).sum())
    if energy == 0:
        raise AudioError("a silent waveform has no signal-to-noise ratio")
    noise = np.random.default_rng(seed).standard_normal(len(waveform))
    noise *= np.sqrt(energy / np.square(noise).sum()) * 10 ** (-snr_db / 20)
    return (waveform + noise).astype(np.float32)


def band_limit(waveform: np.ndarray, sample_rate: int, top_hz: float) -> np.ndarray:
    """Remove what lies above `top_hz`, as if recorded at `2 * top_hz`. Sample rate and length stay.

    Raises:
        AudioError: for an invalid waveform.
        ConfigError: for a top that is not between 0 and half the sample rate.
    """
    _require_waveform(waveform)
    if not 0 < top_hz < sample_rate / 2:
        raise ConfigError(f"top_hz = {top_hz} at {sample_rate} Hz", f"give a frequency below {sample_rate / 2:.0f} Hz")
    narrow = soxr.resample(waveform.astype(np.float32), sample_rate, 2 * top_hz)
    return _of_length(soxr.resample(narrow, 2 * top_hz, sample_rate), len(waveform))


def stretch(waveform: np.ndarray, sample_rate: int, speed: float) -> np.ndarray:
    """Change the pace by `speed` and keep the pitch, by FFmpeg's `atempo` (WSOLA; Verhelst and Roelands, 1993).

    The length becomes S / speed, to within some 10 ms.

    Raises:
        AudioError: for an invalid waveform.
        ConfigError: for a speed outside `SPEEDS`.
    """
    _require_waveform(waveform)
    _require_speed(speed)
    import av

    graph = av.filter.Graph()
    nodes = [
        graph.add_abuffer(format="flt", sample_rate=sample_rate, layout="mono", time_base=Fraction(1, sample_rate)),
        graph.add("atempo", f"{speed:.9f}"),
        graph.add("abuffersink"),
    ]
    nodes[0].link_to(nodes[1])
    nodes[1].link_to(nodes[2])
    graph.configure()
    samples = np.ascontiguousarray(waveform[None], dtype=np.float32)
    frame = av.AudioFrame.from_ndarray(samples, format="flt", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = sample_rate, 0, Fraction(1, sample_rate)
    graph.push(frame)
    graph.push(None)  # the end
    pieces = []
    while True:
        try:
            pieces.append(graph.pull().to_ndarray()[0].copy())
        except EOFError:
            break
    return np.concatenate(pieces)


def play_at(waveform: np.ndarray, speed: float) -> np.ndarray:
    """Change the pace by `speed` as a tape does, with pitch and timbre. The length becomes about S / speed.

    Raises:
        AudioError: for an invalid waveform.
        ConfigError: for a speed outside `SPEEDS`.
    """
    _require_waveform(waveform)
    _require_speed(speed)
    return np.asarray(soxr.resample(waveform.astype(np.float32), speed, 1.0), dtype=np.float32)


def shift_pitch(waveform: np.ndarray, sample_rate: int, semitones: float) -> np.ndarray:
    """Raise pitch and formants by `semitones` (negative lowers). Pace and length stay.

    Raises:
        AudioError: for an invalid waveform.
        ConfigError: beyond an octave.
    """
    factor = 2 ** (semitones / 12)
    return _of_length(stretch(play_at(waveform, factor), sample_rate, 1 / factor), len(waveform))


def truncate(waveform: np.ndarray, share: float = 1 / 3) -> np.ndarray:
    """Cut off the last `share` of the samples.

    Raises:
        AudioError: for an invalid waveform, or where nothing would be left.
        ConfigError: for a share outside 0 to 1.
    """
    _require_waveform(waveform)
    if not 0 <= share < 1:
        raise ConfigError(f"share = {share}", "give a share from 0 up to, not with, 1")
    kept = round(len(waveform) * (1 - share))
    if kept == 0:
        raise AudioError(f"of {len(waveform)} samples nothing is left")
    return waveform[:kept].astype(np.float32)


def clipping(waveform: np.ndarray, drive_db: float) -> np.ndarray:
    """Amplify until the peak lies `drive_db` above full scale, and clip at ±1.

    Raises:
        AudioError: for an invalid waveform, or silence.
        ConfigError: for a drive below 0 or not finite.
    """
    _require_waveform(waveform)
    if not (np.isfinite(drive_db) and drive_db >= 0):
        raise ConfigError(f"drive_db = {drive_db}", "give a finite number of decibels from 0")
    peak = float(np.abs(waveform).max())
    if peak == 0:
        raise AudioError("a silent waveform does not clip")
    return np.clip(waveform * (10 ** (drive_db / 20) / peak), -1, 1).astype(np.float32)


def swap_words(text: str) -> str:
    """Swap the first word with the second, the third with the fourth, and so on. Spaces become single ones."""
    words = text.split()
    for i in range(0, len(words) - 1, 2):
        words[i], words[i + 1] = words[i + 1], words[i]
    return " ".join(words)


def _require_waveform(waveform: np.ndarray) -> None:
    if waveform.ndim != 1 or waveform.size == 0:
        raise AudioError(f"one channel [S] with samples in it is wanted, this has shape {waveform.shape}")
    if not np.isfinite(waveform).all():
        raise AudioError("the waveform holds NaN or infinity")


def _require_speed(speed: float) -> None:
    low, high = SPEEDS
    if not low <= speed <= high:
        raise ConfigError(f"speed = {speed}", f"give one from {low} to {high}")


def _of_length(waveform: np.ndarray, length: int) -> np.ndarray:
    """Cut the end off, or fill it with zeros."""
    return np.pad(waveform[:length], (0, max(0, length - len(waveform)))).astype(np.float32)
