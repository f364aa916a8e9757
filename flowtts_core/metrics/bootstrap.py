"""Bootstrap intervals over utterances: of a ratio of sums (WER), a mean (scores), a quantile (latency), and differences.

The bootstrap resamples utterances, since errors within one depend on each other. It is the percentile method (Efron and
Tibshirani, 1993, chapter 13) with a fixed seed: the same scores give the same interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

ROUNDS = 2000
SEED = 20_240_607
_DRAWN = 1 << 22  # row numbers drawn at once, 32 MiB; all rounds of 100,000 utterances would take 1.6 GB


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % interval, over `n` utterances."""

    value: float
    low: float
    high: float
    n: int

    def to_json(self) -> dict[str, float]:
        return asdict(self)


def mean(values: Sequence[float]) -> Interval:
    """Return the mean of the values [N] and its interval."""
    array = _filled(values)
    return _interval(len(array), lambda rows: array[rows].mean(axis=-1))


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Interval:
    """Return `sum(numerators) / sum(denominators)` over N utterances and its interval, as for a corpus's WER."""
    top, bottom = _filled(numerators), _filled(denominators, len(numerators))
    if bottom.sum() <= 0:
        raise ValueError("the denominators sum to 0: nothing to measure against")
    return _interval(len(top), lambda rows: _divide(top, bottom, rows))


def quantile(values: Sequence[float], q: float) -> Interval:
    """Return the quantile `q` in [0, 1] of the values [N] and its interval. Of few values a high one is about the maximum."""
    array = _filled(values)
    return _interval(len(array), lambda rows: np.quantile(array[rows], q, axis=-1))


def mean_difference(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """Return the mean of `ours - theirs` and its interval. Row i of both is the same utterance."""
    return mean(_filled(ours, len(theirs)) - _filled(theirs))


def ratio_difference(ours: Sequence[float], theirs: Sequence[float], denominators: Sequence[float]) -> Interval:
    """Return `(sum(ours) - sum(theirs)) / sum(denominators)` and its interval. Row i of all three is the same utterance."""
    difference = _filled(ours, len(theirs)) - _filled(theirs)
    return ratio(difference, denominators)


def _filled(values: Sequence[float] | np.ndarray, length: int | None = None) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"{array.size} values, all of which must be finite and at least one present")
    if length is not None and len(array) != length:
        raise ValueError(f"rows must pair: {len(array)} against {length}")
    return array


def _divide(top: np.ndarray, bottom: np.ndarray, rows: np.ndarray) -> np.ndarray:
    sums = bottom[rows].sum(axis=-1)
    return np.divide(top[rows].sum(axis=-1), sums, out=np.full(sums.shape, np.nan), where=sums > 0)


def _interval(n: int, statistic: Callable[[np.ndarray], np.ndarray]) -> Interval:
    """Return the interval of `statistic`, which takes row numbers [..., N] and returns [...]."""
    generator, at_once = np.random.default_rng(SEED), max(1, _DRAWN // n)
    drawn = [
        statistic(generator.integers(0, n, size=(min(at_once, ROUNDS - done), n))) for done in range(0, ROUNDS, at_once)
    ]
    low, high = np.nanpercentile(np.concatenate(drawn), [2.5, 97.5])
    return Interval(float(statistic(np.arange(n))), float(low), float(high), n)
