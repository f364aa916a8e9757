"""The embedding of flow time."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sinusoidal_embedding(t: Tensor, width: int, scale: float = 1000.0) -> Tensor:
    """Embed times [B] as [B, width]: sines, then cosines, of geometric frequencies from `scale` to `scale / 10000`."""
    half = width // 2
    frequency = torch.exp(torch.arange(half, device=t.device).float() * (-math.log(10000.0) / (half - 1)))
    angle = scale * t.float()[:, None] * frequency
    return torch.cat((angle.sin(), angle.cos()), 1)
