"""Features made window by window: the same windows for a stream and for a whole, so that both have the same samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from flowtts_core.acoustic.base import Condition
from flowtts_core.sampling import Sampling

FIRST_FRAMES = 60  # of a sentence's first window: what a listener waits for, and what the vocoder must see beside it
LATER_FRAMES = (128, 256)  # of the windows after it; the last one stands for all further ones
LOOK_BACK, LOOK_AHEAD = 24, 12  # frames beside a window that the flow sees and that are kept from its neighbours
STRIDE = 4  # windows begin at multiples of it: velocity nets may halve the frame rate, twice


@dataclass(frozen=True)
class Window:
    """The flow runs over frames `[low, high)`; those from the window before up to `end` are kept."""

    low: int
    high: int
    end: int


def plan_windows(frames: int) -> list[Window]:
    """Return the windows of a sentence of `frames` frames: a function of its length alone."""
    windows: list[Window] = []
    done, size = 0, FIRST_FRAMES
    while True:
        end = done + size
        size = LATER_FRAMES[min(len(windows), len(LATER_FRAMES) - 1)]
        if frames - end < LOOK_AHEAD + size // 2:  # the rest is too little for a window of its own
            end = frames
        low = max(0, done - LOOK_BACK) // STRIDE * STRIDE
        windows.append(Window(low, min(frames, end + LOOK_AHEAD), end))
        if end == frames:
            return windows
        done = end


class FeatureDraft(Protocol):
    """An item laid out in time, with its noise, before the flow."""

    @property
    def frames(self) -> int: ...

    @property
    def durations(self) -> Tensor | None: ...


@runtime_checkable
class WindowedModel(Protocol):
    """What an acoustic model offers beside `generate` if it makes its features window by window."""

    @property
    def windowed(self) -> bool:
        """Whether it does in this configuration: not where norms run over time or padding is seen."""
        ...

    def draft(self, item: Condition, seed: int, speed: float) -> Any:
        """Lay one item (a batch of 1) out in time; a `FeatureDraft`."""
        ...

    def decode(self, drafts: Sequence[Any], spans: Sequence[tuple[int, int]], settings: Sampling) -> list[Tensor]:
        """Return features [D, high - low] of each draft's frames `[low, high)`; items do not depend on each other."""
        ...
