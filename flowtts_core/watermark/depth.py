"""How deep a mark is: shallow in loud bins, where the sound's energy lies, and deep in quiet ones, where changes are not heard.

A bin is compared with the loudest frame of the last moments, whose level fades. So pauses, and what lies between harmonics, carry
most of the mark, and the whole of it stays 25 dB below the sound.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:  # marking needs no torch
    from torch import Tensor

Sizes = TypeVar("Sizes", np.ndarray, "Tensor")

HELD = 100  # frames that a level is remembered for
_FADING = 0.98  # of a level, from a frame to the next: half of it after a third of a second
_KNEE = 0.25  # of that level; a bin as large lies in the middle between both depths


@dataclass(frozen=True)
class Depth:
    """Gains of a mark, up or down.

    Attributes:
        loud, quiet: decibels of bins far above the knee, and far below.
    """

    loud: float
    quiet: float

    def of(self, relative: Sizes) -> Sizes:
        """Return the decibels of bins of these sizes, relative to the level."""
        return self.loud + (self.quiet - self.loud) / (1 + (relative / _KNEE) ** 2)

    def times(self, factor: float) -> Depth:
        """Return it so many times as deep."""
        return Depth(factor * self.loud, factor * self.quiet)


@lru_cache(maxsize=1)
def fading() -> np.ndarray:
    """Return what is left of the levels [HELD] of the last frames, of which the newest is the last."""
    left: np.ndarray = (_FADING ** np.arange(HELD - 1, -1, -1)).astype(np.float32)
    return left


def faded(levels: np.ndarray) -> np.ndarray:
    """Return the loudest levels [T], as they fade, of levels [HELD - 1 + T] that begin before the first."""
    lately = np.arange(len(levels) - HELD + 1)[:, None] + np.arange(HELD)
    made: np.ndarray = (levels[lately] * fading()).max(1)
    return made
