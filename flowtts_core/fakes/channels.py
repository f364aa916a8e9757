"""What happens to recordings before anybody hears them, at random: microphones, rooms, noise, band limits, codecs, marks.

Sample rate, bandwidth, loudness, noise and codecs differ from corpus to corpus, and would be learnt in place of speech. So human
and synthetic speech go through the same changes, drawn alike for both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flowtts_core.fakes.spectra import RATE
from flowtts_core.watermark import attacks
from flowtts_core.watermark.marking import Marking
from flowtts_core.watermark.message import LARGEST

LEVEL = 0.05  # of full scale, that all windows are brought to
MARKED, EQUALISED, ROOM, NOISE, BAND, CLIPPED, CODED = 0.5, 0.6, 0.3, 0.8, 0.5, 0.1, 0.6  # shares of the windows
_CODECS = (("mp3", 128_000), ("mp3", 64_000), ("mp3", 32_000), ("aac", 64_000), ("opus", 32_000), ("opus", 16_000))
_AT_ONCE = 8  # windows coded in one file, since to begin one takes longest


def changed(sounds: Sequence[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Return windows [S] at 16 kHz after random changes; order them so that both kinds of speech share files of codecs."""
    made = [_changed(levelled(sound), rng) for sound in sounds]
    rows = np.flatnonzero(rng.random(len(made)) < CODED)
    for part in np.array_split(rows, -(-len(rows) // _AT_ONCE)) if len(rows) else ():
        codec, bit_rate = _CODECS[int(rng.integers(len(_CODECS)))]
        joined = attacks.coded(np.concatenate([made[row] for row in part]), RATE, codec, bit_rate)
        ends = np.cumsum([len(made[row]) for row in part])[:-1]
        for row, sound in zip(part, np.split(joined, ends), strict=True):
            made[row] = sound
    return made


def levelled(sound: np.ndarray) -> np.ndarray:
    """Return [S] at LEVEL; silence stays."""
    return (sound * (LEVEL / max(float(np.sqrt(np.square(sound, dtype=np.float64).mean())), 1e-5))).astype(np.float32)


def marked(sound: np.ndarray, number: int) -> np.ndarray:
    """Return [S] at 16 kHz with the open watermark."""
    return Marking(number).marked(sound, RATE)


def _changed(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if rng.random() < MARKED:
        sound = marked(sound, int(rng.integers(LARGEST + 1)))
    if rng.random() < EQUALISED:
        sound = _equalised(sound, rng)
    if rng.random() < ROOM:
        sound = _in_a_room(sound, rng)
    if rng.random() < NOISE:
        sound = _with_noise(sound, rng)
    if rng.random() < BAND:
        sound = attacks.band_limited(sound, RATE, rng.uniform(0, 300), rng.uniform(3000, 8000))
    if rng.random() < CLIPPED:
        loudest = float(np.abs(sound).max()) * 10 ** (-rng.uniform(1, 9) / 20)
        sound = sound.clip(-loudest, loudest)
    return sound.astype(np.float32)


def _equalised(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Raise and lower broad bands by up to 10 dB."""
    hertz = np.fft.rfftfreq(len(sound), 1 / RATE)
    knots = np.linspace(0, RATE / 2, 7)
    decibels = np.interp(hertz, knots, rng.uniform(-10, 10, len(knots)))
    return np.fft.irfft(np.fft.rfft(sound) * 10 ** (decibels / 20), len(sound))


def _in_a_room(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add the late sound of a room: noise that fades by 60 dB in 0.1 to 0.6 s, 0 to 15 dB below the direct sound."""
    seconds = rng.uniform(0.1, 0.6)
    times = np.arange(int(seconds * RATE)) / RATE
    late = rng.standard_normal(len(times)) * 10 ** (-3 * times / seconds)
    late *= 10 ** (-rng.uniform(0, 15) / 20) / np.sqrt(np.square(late).sum())
    late[0] += 1
    size = len(sound) + len(late)
    return np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(late, size), size)[: len(sound)]


def _with_noise(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add noise 10 to 50 dB below the sound, whose power falls with the frequency by a random power."""
    spectrum = np.fft.rfft(rng.standard_normal(len(sound)))
    spectrum /= np.maximum(np.arange(len(spectrum)), 50) ** rng.uniform(0, 1)
    noise = np.fft.irfft(spectrum, len(sound))
    level = np.sqrt(np.square(sound).mean()) * 10 ** (-rng.uniform(10, 50) / 20)
    return np.asarray(sound + noise * level / max(float(np.sqrt(np.square(noise).mean())), 1e-9))
