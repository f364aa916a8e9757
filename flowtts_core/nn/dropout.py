"""Dropout that does not wait for the random numbers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowtts_core.nn.share import current_share, draw_rows


class Dropout(nn.Module):
    """Dropout of items [B, ...] from torch's global generator; on the CPU one 64-bit draw serves eight elements.

    torch's own takes a draw for each element, a sixth of a training step of a small model on one CPU thread. Here the
    probability is rounded to 1/256 (0.1 becomes 0.1016), and the scale with it, so that the mean is kept.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.probability == 0.0:
            return x
        if x.device.type != "cpu" and current_share() is None:
            return F.dropout(x, self.probability)
        if x.device.type != "cpu":
            kept = draw_rows(x.shape, lambda shape: torch.rand(shape, device=x.device) >= self.probability)
            return x * (kept / (1 - self.probability)).to(x.dtype)
        dropped = min(round(self.probability * 256), 255)
        keep = draw_rows(x.shape, _random_bytes) >= dropped
        return x * (keep * (256 / (256 - dropped))).to(x.dtype)

    def extra_repr(self) -> str:
        return f"probability={self.probability}"


def _random_bytes(shape: torch.Size) -> Tensor:
    draws = torch.empty(-(-shape.numel() // 8), dtype=torch.int64).random_(-(2**63), None).view(torch.uint8)
    return draws[: shape.numel()].view(shape)
