"""The part of a global batch that one of several processes computes. Together they compute what one process would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Share:
    """Which items of the global batch these are, and how sums over all of it are made.

    A loss that is built of sums over items takes its sums by `sum`: its value then is that of the global batch on every
    process, its gradient the part of these items, and the parts add up. What is drawn at random is drawn for the whole
    batch, by `rows_of`, so that an item's draw does not depend on who computes it.

    Attributes:
        rows: [B] places of the items in the global batch.
        size: number of its items.
        counted: False for a stand-in, which a process computes that no item was left for; its sums are zero.
        total: the sum of a tensor over all processes; its gradient goes to the own part alone.
    """

    rows: Tensor
    size: int
    counted: bool
    total: Callable[[Tensor], Tensor]

    @property
    def weight(self) -> float:
        """Return the weight of the mean over these items in the mean over the batch."""
        return len(self.rows) / self.size if self.counted else 0.0

    def sum(self, values: Tensor) -> Tensor:
        """Return the sums over the whole batch, from a tensor of sums over these items."""
        return self.total(values if self.counted else values * 0.0)

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean over the whole batch, from a mean over these items, which are of equal size."""
        return self.total(value * self.weight)


def mean_of(share: Share | None, value: Tensor) -> Tensor:
    """Return `share.mean(value)`, or the value itself where these items are the whole batch."""
    return value if share is None else share.mean(value)


def rows_of(share: Share | None, count: int) -> tuple[int, Tensor | slice]:
    """Return how many items to draw for, and which of the drawn to take, for a batch of `count` items."""
    return (count, slice(None)) if share is None else (share.size, share.rows.cpu())


_CURRENT: ContextVar[Share | None] = ContextVar("share", default=None)


@contextmanager
def computing(share: Share | None) -> Iterator[None]:
    """Make the share known to dropout layers, which no argument reaches."""
    token = _CURRENT.set(share)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def current_share() -> Share | None:
    """Return the share that is being computed, if the batch is shared at all."""
    return _CURRENT.get()


def draw_rows(shape: torch.Size, draw: Callable[[torch.Size], Tensor]) -> Tensor:
    """Draw for the whole batch, and return the rows of the current share: [B, ...] of `shape`."""
    share = current_share()
    if share is None:
        return draw(shape)
    return draw(torch.Size((share.size, *shape[1:])))[share.rows.cpu()]
