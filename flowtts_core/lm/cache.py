"""The key-value cache: what attention has seen, so that each further step costs what one position costs."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class LayerCache:
    """Keys and values of one layer, [B, H, N, D] each; items fill them from the left, each to its own length."""

    keys: Tensor | None = None
    values: Tensor | None = None

    def extend(self, keys: Tensor, values: Tensor, at: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Write keys and values [B, H, T, D] at places [B, T], and return the first `size` places of all."""
        self.keys = _written(self.keys, keys, at, size)
        self.values = _written(self.values, values, at, size)
        return self.keys[:, :, :size], self.values[:, :, :size]


def _written(store: Tensor | None, new: Tensor, at: Tensor, size: int) -> Tensor:
    room = 0 if store is None else store.shape[2]
    if room < size:  # grown by half as much again, so that the copies cost a constant share
        grown = new.new_zeros(*new.shape[:2], max(size, room + room // 2), new.shape[3])
        if store is not None:
            grown[:, :, :room] = store
        store = grown
    assert store is not None
    store.scatter_(2, at[:, None, :, None].expand_as(new), new)
    return store


@dataclass
class KeyValueCache:
    """Caches of all layers of a transformer for a batch of sequences of unequal lengths.

    Attributes:
        lengths: [B] int64 positions seen of each item.
    """

    lengths: Tensor
    layers: list[LayerCache] = field(default_factory=list)
    longest: int = 0

    @classmethod
    def empty(cls, layers: int, batch: int, device: torch.device | str = "cpu") -> KeyValueCache:
        return cls(torch.zeros(batch, dtype=torch.int64, device=device), [LayerCache() for _ in range(layers)])
