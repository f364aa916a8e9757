"""Dynamic time warping: which frame of one sound goes with each frame of another that says the same."""

from __future__ import annotations

import numpy as np


def warp(distances: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the cheapest way from the first pair of frames to the last, which never goes back.

    A step goes on in one sound, in the other, or in both (Sakoe and Chiba 1978). It is computed by anti-diagonals, each at once.

    Args:
        distances: [T, U] of each frame of one sound from each of the other.

    Returns:
        [T], the frame of the other that goes with each frame (the middle one of several), and the mean distance on the way.
    """
    rows, columns = distances.shape
    steps = np.empty((rows, columns), np.int8)  # 0 in both, 1 in the first sound, 2 in the other
    before, last = np.full(rows + 1, np.inf), np.full(rows + 1, np.inf)  # cost of anti-diagonals, by row + 1
    before[0] = 0.0  # the pair before the first one
    for diagonal in range(rows + columns - 1):
        row = np.arange(max(0, diagonal - columns + 1), min(rows, diagonal + 1))
        ways = np.stack([before[row], last[row], last[row + 1]])
        best = ways.argmin(0)
        steps[row, diagonal - row] = best
        cost = np.full(rows + 1, np.inf)
        cost[row + 1] = ways[best, np.arange(len(row))] + distances[row, diagonal - row]
        before, last = last, cost
    return _walked(steps, distances)


def _walked(steps: np.ndarray, distances: np.ndarray) -> tuple[np.ndarray, float]:
    row, column = steps.shape[0] - 1, steps.shape[1] - 1
    first, end = np.zeros(row + 1, np.int64), np.zeros(row + 1, np.int64)
    end[row], total, count = column, 0.0, 0
    while True:
        first[row], total, count = column, total + float(distances[row, column]), count + 1
        if row == 0 and column == 0:
            return (first + end) // 2, total / count
        step = steps[row, column]
        column -= step != 1
        if step != 2:
            row -= 1
            end[row] = column
