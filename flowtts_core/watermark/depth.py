"""How deep a mark is: shallow in loud bins, where the sound's energy lies, and deep in quiet ones, where changes are not heard.

A bin is compared with the loudest frame of the last moments, whose level fades. So pauses, and what lies between harmonics, carry
most of the mark, and the whole of it stays 25 dB below the sound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:  # marking needs no torch
    from torch import Tensor

Sizes = TypeVar("Sizes", np.ndarray, "Tensor")

HOLD = 0.98  # of a level, from a frame to the next: half of it after a third of a second
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


def faded(levels: np.ndarray, before: float) -> np.ndarray:
    """Return the loudest levels [T] so far as they fade, of levels [T] and the one before the first."""
    made = np.empty_like(levels)
    for frame, level in enumerate(levels):
        before = made[frame] = max(float(level), HOLD * before)
    return made
