"""Flow-matching losses: under a mask, and balanced by the size of what is to be matched."""

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


def balanced(predicted: Tensor, target: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Return velocities and their targets over the target's standard deviation along `dim`: so loud and quiet parts weigh alike.

    Source: RFWave (arXiv 2403.05010, section 3.2), with the bins of a band as `dim`.
    """
    size = (target.var(dim=dim, keepdim=True) + 1e-6).sqrt()
    return predicted / size, target / size
