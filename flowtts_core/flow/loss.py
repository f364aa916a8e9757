"""The flow-matching loss under a mask."""

from __future__ import annotations

from torch import Tensor


def masked_flow_loss(predicted: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the mean squared error of velocities over the valid elements, in float32.

    Args:
        predicted, target: [B, ...].
        mask: broadcastable to them, 1 where valid, 0 elsewhere; None means all.
    """
    error = (predicted.float() - target.float()).square()
    if mask is None:
        return error.mean()
    weight = mask.to(error.dtype).expand_as(error)
    return (error * weight).sum() / weight.sum().clamp(min=1.0)
