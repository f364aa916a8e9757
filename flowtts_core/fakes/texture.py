"""The texture of speech: statistics of the spectrum within a second, by bands, which is what the net sees.

Vocoders and articulators differ in how levels are distributed and how they change from frame to frame and from bin to bin,
whoever speaks and whatever is said.
"""

from __future__ import annotations

import numpy as np

from flowtts_core.fakes.spectra import BINS, WINDOW

BANDS = 60
SPANS = tuple((begin, begin + 62) for begin in (0, 31, 63, 94, 126))  # frames of a window: five seconds, by halves
LEAST = 12  # frames of a span that must sound for its texture to be told
FEATURES = 10 * BANDS
_TINY = 1e-3

assert SPANS[-1][1] == WINDOW


def texture_of(seen: np.ndarray, sounding: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the texture of each span of a window, over its frames that sound.

    Of each band: the mean, deviation and skewness of its bins' levels; the deviation of its own level; how much bins differ
    from one frame to the next and the one after, from bin to bin (first and second difference), and from frame to frame
    and bin to bin; and how much the band does from frame to frame.

    Args:
        seen: [WINDOW, BINS] as `seen_of` gives it.
        sounding: [WINDOW].

    Returns:
        [SPANS, FEATURES] float32, and the number of frames that sound [SPANS].
    """
    x = seen.astype(np.float32)
    later = np.diff(x, axis=0, prepend=x[:1])
    two_later = np.concatenate([np.zeros_like(x[:2]), x[2:] - x[:-2]])
    higher = np.diff(x, axis=1, append=x[:, -1:])
    bend = np.zeros_like(x)
    bend[:, 1:-1] = x[:, :-2] + x[:, 2:] - 2 * x[:, 1:-1]
    both = np.diff(later, axis=1, append=later[:, -1:])
    levels = _banded(x)
    changes = [_banded(np.abs(part)) for part in (later, two_later, higher, bend, both)]
    changes.append(np.abs(np.diff(levels, axis=0, prepend=levels[:1])))
    parts = [levels, _banded(x * x), _banded(x**3), levels * levels, *changes]
    sums = np.cumsum(np.stack(parts, 1) * sounding[:, None, None], axis=0, dtype=np.float64)  # [WINDOW, parts, BANDS]
    sums = np.concatenate([np.zeros_like(sums[:1]), sums])
    counts = np.concatenate([[0], np.cumsum(sounding)])
    begins, ends = np.array(SPANS).T
    frames = counts[ends] - counts[begins]
    means = (sums[ends] - sums[begins]) / np.maximum(frames, 1)[:, None, None]
    mean, square, cube, own_square = (means[:, part] for part in range(4))
    variance = np.maximum(square - mean**2, 1e-6)
    skewness = (cube - 3 * mean * square + 2 * mean**3) / (variance**1.5 + 1e-4)
    own = np.log(np.maximum(own_square - mean**2, 1e-6)) / 2
    kept = [
        mean.clip(-2, 2),
        np.log(variance) / 2,
        skewness.clip(-4, 4),
        own,
        *np.log(means[:, 4:] + _TINY).swapaxes(0, 1),
    ]
    return np.concatenate(kept, axis=1).astype(np.float32), frames


def _banded(values: np.ndarray) -> np.ndarray:
    """Return the means [T, BANDS] of neighbouring bins [T, BINS]."""
    return values.reshape(len(values), BANDS, BINS // BANDS).mean(2)
