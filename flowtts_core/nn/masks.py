"""Masks from lengths."""

from __future__ import annotations

import torch
from torch import Tensor


def length_mask(lengths: Tensor, size: int) -> Tensor:
    """Return [B, size] bool, True on valid positions, from lengths [B]."""
    return torch.arange(size, device=lengths.device)[None, :] < lengths[:, None]


def round_up(length: int, multiple: int) -> int:
    """Return the least multiple of `multiple` that is not below `length`."""
    return -(-length // multiple) * multiple
