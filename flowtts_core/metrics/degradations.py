"""Known damage to real speech, each kind alone and by a known amount: what a judge that measures what it says must see.

All take a waveform [S] of one channel and return one, float32, without change to what they were given; none cuts at full
scale except `clipping`, so values may lie a little over 1.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import soxr

from flowtts_core.errors import AudioError, ConfigError

SPEEDS = (0.5, 2.0)  # what WSOLA still does cleanly


def white_noise(waveform: np.ndarray, snr_db: float, seed: int = 0) -> np.ndarray:
    """With white noise whose energy lies exactly `snr_db` below the waveform's.

    Raises:
        AudioError: for what is no waveform, or silence, which has no signal-to-noise ratio.
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
    """As if recorded at `2 * top_hz`: nothing above `top_hz` is left, rate and length stay.

    Raises:
        AudioError: for what is no waveform.
        ConfigError: for a top that is not between 0 and half the sample rate.
    """
    _require_waveform(waveform)
    if not 0 < top_hz < sample_rate / 2:
        raise ConfigError(f"top_hz = {top_hz} at {sample_rate} Hz", f"give a frequency below {sample_rate / 2:.0f} Hz")
    narrow = soxr.resample(waveform.astype(np.float32), sample_rate, 2 * top_hz)
    return _of_length(soxr.resample(narrow, 2 * top_hz, sample_rate), len(waveform))


def stretch(waveform: np.ndarray, sample_rate: int, speed: float) -> np.ndarray:
    """At `speed` times the pace with its pitch kept: WSOLA (Verhelst and Roelands, 1993) as FFmpeg's `atempo` does it.

    The length becomes about S / speed, to within some 10 ms.

    Raises:
        AudioError: for what is no waveform.
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
    """Played at `speed` times the pace as a tape is: pitch and timbre move by the same factor. Length about S / speed.

    Raises:
        AudioError: for what is no waveform.
        ConfigError: for a speed outside `SPEEDS`.
    """
    _require_waveform(waveform)
    _require_speed(speed)
    return np.asarray(soxr.resample(waveform.astype(np.float32), speed, 1.0), dtype=np.float32)


def shift_pitch(waveform: np.ndarray, sample_rate: int, semitones: float) -> np.ndarray:
    """Higher by `semitones` (lower where negative), formants with it, at its own pace and length.

    Raises:
        AudioError: for what is no waveform.
        ConfigError: beyond an octave.
    """
    factor = 2 ** (semitones / 12)
    return _of_length(stretch(play_at(waveform, factor), sample_rate, 1 / factor), len(waveform))


def truncate(waveform: np.ndarray, share: float = 1 / 3) -> np.ndarray:
    """Without its last `share`.

    Raises:
        AudioError: for what is no waveform, or where nothing would be left.
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
    """Recorded too loud: its peak brought `drive_db` above full scale, then cut off at ±1.

    Raises:
        AudioError: for what is no waveform, or silence.
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
    """Return the first word and the second change places, the third and the fourth, and so on; spaces become single ones."""
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
    """Cut, or filled with zeros, at the end."""
    return np.pad(waveform[:length], (0, max(0, length - len(waveform)))).astype(np.float32)
