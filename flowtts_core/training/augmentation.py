"""Change recordings that a vocoder learns from: noise, level and band, by draws of (seed, step, item)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from flowtts_core.errors import ConfigError

_LOWEST_HZ = 500.0  # of a band: speech ends below
_FLAT_HZ = 100.0  # below, noise falls no further: else all of brown noise would lie where nobody hears it
_FALL = 0.1  # of the edge of a band, below which it falls to nothing


@dataclass(frozen=True)
class Augmentation:
    """How recordings are changed before a vocoder's mel is computed of them. By default nothing is.

    The vocoder learns to make the changed sound of the changed mel: what it is given, also where that is noisier, louder or
    narrower than its corpus. Each kind has a range (lowest, highest), or none where it is empty.

    Attributes:
        noise_db: how far the noise lies below the speech, in dB, as (10, 40). Its colour lies between white and brown.
        gain_db: change of the level, as (-20, 6); full scale is not passed.
        band_hz: frequency above which nothing is left, as (3000, 8000), drawn on a logarithmic scale.
        share: of the crops, that each kind changes.

    Raises:
        ConfigError: for what is no range, or out of range.
    """

    noise_db: tuple[float, ...] = ()
    gain_db: tuple[float, ...] = ()
    band_hz: tuple[float, ...] = ()
    share: float = 0.5

    def __post_init__(self) -> None:
        for name in ("noise_db", "gain_db", "band_hz"):
            limits = getattr(self, name)
            if limits and not (len(limits) == 2 and np.isfinite(limits).all() and limits[0] <= limits[1]):
                raise ConfigError(
                    f"augmentation.{name} = {list(limits)}", "give the lowest and the highest, as [10, 40], or []"
                )
        if self.band_hz and self.band_hz[0] < _LOWEST_HZ:
            raise ConfigError(f"augmentation.band_hz = {list(self.band_hz)}", f"begin at {_LOWEST_HZ:g} Hz or above")
        if not 0 < self.share <= 1:
            raise ConfigError(f"augmentation.share = {self.share}", "use a number above 0, up to 1")

    @property
    def changes(self) -> bool:
        """Return whether any of the three changes is asked for."""
        return bool(self.noise_db or self.gain_db or self.band_hz)


def augmented(waveform: np.ndarray, sample_rate: int, how: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """Return the waveform [S] float32 changed: its band first, then noise, then its level."""
    changed = waveform.astype(np.float64)
    if how.band_hz and rng.random() < how.share:
        changed = _narrowed(changed, sample_rate, math.exp(_drawn(tuple(map(math.log, how.band_hz)), rng)))
    if how.noise_db and rng.random() < how.share:
        level = np.sqrt(np.square(changed).mean()) * 10 ** (-_drawn(how.noise_db, rng) / 20)
        changed = changed + level * _noise(len(changed), sample_rate, rng.uniform(0, 2), rng)
    if how.gain_db and rng.random() < how.share:
        changed = changed * 10 ** (_drawn(how.gain_db, rng) / 20)
    return (changed / max(1.0, np.abs(changed).max(initial=0.0))).astype(np.float32)


def _drawn(limits: tuple[float, ...], rng: np.random.Generator) -> float:
    lowest, highest = limits
    return rng.uniform(lowest, highest)


def _narrowed(waveform: np.ndarray, sample_rate: int, edge_hz: float) -> np.ndarray:
    hertz = np.fft.rfftfreq(len(waveform), 1 / sample_rate)
    kept = np.clip((edge_hz - hertz) / (_FALL * edge_hz), 0, 1)
    return np.fft.irfft(np.fft.rfft(waveform) * kept, len(waveform))


def _noise(samples: int, sample_rate: int, slope: float, rng: np.random.Generator) -> np.ndarray:
    """Return noise [S] of power 1 whose power falls as 1 / f^slope from 100 Hz on: white at 0, pink at 1, brown at 2."""
    hertz = np.fft.rfftfreq(samples, 1 / sample_rate)
    noise = np.fft.irfft(
        np.fft.rfft(rng.standard_normal(samples)) * np.maximum(hertz, _FLAT_HZ) ** (-slope / 2), samples
    )
    return noise / max(np.sqrt(np.square(noise).mean()), 1e-12)
