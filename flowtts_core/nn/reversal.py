"""Gradient reversal (Ganin et al. 2016, arXiv 1505.07818): what comes after learns a task, what comes before unlearns it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None


def reversed_gradient(x: Tensor, strength: float) -> Tensor:
    """Return `x` itself, whose gradient comes back with the other sign, times `strength`."""
    made: Tensor = _Reversed.apply(x, strength)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return made
