"""Self-attention over time, with optional rotary positions, and the feed-forward nets beside it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flowtts_core.nn.packed import Linear


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[B, T, H * D] -> [B, H, T, D]."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """[B, H, T, D] -> [B, T, H * D]."""
    return x.transpose(1, 2).flatten(2)


def rotary_angles(time: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines [time, width] of rotary positions (Su et al. 2021), halves (not neighbours) paired."""
    frequency = 10000.0 ** (-torch.arange(0, width, 2, device=device).float() / width)
    angle = torch.arange(time, device=device).float()[:, None] * frequency
    angle = torch.cat((angle, angle), 1)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """Turn the first `width` features of each head of [B, H, T, D]; the rest pass."""
    cos, sin = angles[0].to(x.dtype), angles[1].to(x.dtype)
    width = cos.shape[1]
    turned, rest = x[..., :width], x[..., width:]
    swapped = torch.cat((-turned[..., width // 2 :], turned[..., : width // 2]), -1)
    return torch.cat((turned * cos + swapped * sin, rest), -1)


class SnakeBeta(nn.Module):
    """Linear layer, then `x + sin^2(x e^alpha) / e^beta` with parameters for each feature (BigVGAN, arXiv:2206.04658)."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.proj = Linear(channels, inner)
        self.alpha = nn.Parameter(torch.zeros(inner))
        self.beta = nn.Parameter(torch.zeros(inner))

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(x)
        wave = torch.sin(x * self.alpha.exp().to(x.dtype)).square()
        return x + wave * (1.0 / (self.beta.exp() + 1e-9)).to(x.dtype)


class GeluLinear(nn.Module):
    """Linear layer, then GELU."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.proj = Linear(channels, inner, activation="gelu")

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.proj(x)
        return out
