"""Validation of a training: which clips are held out for it, and what it has shown so far."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FEWEST, MOST = 8, 128  # clips that are held out: fewer say little, more cost time and no longer say more
FEWEST_CLIPS = 20  # of smaller data nothing is held out
_LARGEST_PART = 5  # at most a fifth of the clips, where FEWEST would be more


def held_out_places(ids: Sequence[str], share: float) -> np.ndarray:
    """Return the places of the clips that are held out, in ascending order.

    They are those whose id has a hash below `share`; or the `FEWEST` or `MOST` lowest hashes (a fifth of the clips at most)
    where that would be fewer or more. So each worker chooses alike, and clips that are added later change nothing for these.
    """
    if share <= 0 or len(ids) < FEWEST_CLIPS:
        return np.empty(0, dtype=np.int64)
    hashes = np.array([_hash(name) for name in ids])
    fewest = min(FEWEST, len(ids) // _LARGEST_PART)
    count = min(MOST, max(fewest, int((hashes < share).sum())))
    return np.sort(np.argsort(hashes, kind="stable")[:count])


def _hash(name: str) -> float:
    """Return a number in [0, 1) of an id."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48


@dataclass(frozen=True)
class Validated:
    """The last validation of a training, and the best.

    Attributes:
        loss, best: losses of the held-out clips by the averaged weights of `step` and `best_step`.
        since: validations since the best one.
    """

    step: int
    loss: float
    best_step: int
    best: float
    since: int

    def scalars(self) -> dict[str, float]:
        """Return what is logged and shown."""
        return {"validation/loss": self.loss, "validation/best": self.best, "validation/best_step": self.best_step}


def validated(before: Validated | None, step: int, loss: float) -> Validated:
    """Return what is known after one more validation; a loss that is not a number is never the best."""
    best_step, best, since = (0, math.inf, 0) if before is None else (before.best_step, before.best, before.since)
    if loss < best:
        return Validated(step, loss, step, loss, 0)
    return Validated(step, loss, best_step, best, since + 1)
