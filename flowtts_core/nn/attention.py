"""Self-attention over time, rotary positions, and the transformer block with its feed-forward nets."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowtts_core.nn.dropout import Dropout


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[B, T, H * D] -> [B, H, T, D]."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """[B, H, T, D] -> [B, T, H * D]."""
    return x.transpose(1, 2).flatten(2)


def rotary_angles(time: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return cosines and sines [time, width] of rotary positions (Su et al. 2021), halves (not neighbours) paired."""
    frequency = 10000.0 ** (-torch.arange(0, width, 2, device=device).float() / width)
    angle = torch.arange(time, device=device).float()[:, None] * frequency
    angle = torch.cat((angle, angle), 1)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """Turn the first `width` features of each head of [B, H, T, D]; the rest pass. Angles [..., T, width] are broadcast."""
    cos, sin = angles[0].to(x.dtype), angles[1].to(x.dtype)
    width = cos.shape[-1]
    turned, rest = x[..., :width], x[..., width:]
    swapped = torch.cat((-turned[..., width // 2 :], turned[..., : width // 2]), -1)
    return torch.cat((turned * cos + swapped * sin, rest), -1)


class SnakeBeta(nn.Module):
    """Linear layer, then `x + sin^2(x e^alpha) / e^beta` with parameters for each feature (BigVGAN, arXiv:2206.04658)."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, inner)
        self.alpha = nn.Parameter(torch.zeros(inner))
        self.beta = nn.Parameter(torch.zeros(inner))

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(x)
        wave = torch.sin(x * self.alpha.exp().to(x.dtype)).square()
        return x + wave * (1.0 / (self.beta.exp() + 1e-9)).to(x.dtype)


class GeluLinear(nn.Module):
    """Linear layer, then GELU; `approximate` is "none" or "tanh", as torch takes it."""

    def __init__(self, channels: int, inner: int, approximate: str = "none") -> None:
        super().__init__()
        self.proj = nn.Linear(channels, inner)
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.proj(x), approximate=self.approximate)


class SelfAttention(nn.Module):
    """Multi-head self-attention over frames."""

    def __init__(self, channels: int, heads: int, head_channels: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, heads * head_channels, bias=False)
        self.to_k = nn.Linear(channels, heads * head_channels, bias=False)
        self.to_v = nn.Linear(channels, heads * head_channels, bias=False)
        self.to_out = nn.Sequential(nn.Linear(heads * head_channels, channels), Dropout(dropout))

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Attend over [B, T, C].

        Args:
            bias: [B, 1, 1, T] or [B, 1, T, T], added to the scores: minus infinity hides a frame (from one of them).
        """
        query, key, value = (split_heads(part(x), self.heads) for part in (self.to_q, self.to_k, self.to_v))
        mask = None if bias is None else bias.to(query.dtype)
        return self.to_out(merge_heads(F.scaled_dot_product_attention(query, key, value, attn_mask=mask)))


FEED_FORWARDS: dict[str, Callable[[int, int], nn.Module]] = {
    "gelu": GeluLinear,
    "gelu-approximate": partial(GeluLinear, approximate="tanh"),
    "snakebeta": SnakeBeta,
}
"""The first layers of a feed-forward net by kind; (channels, inner) -> module."""


class FrameFeedForward(nn.Module):
    """Feed-forward net of 4 times the width.

    Args:
        kind: of its first layer, one of `FEED_FORWARDS`.
    """

    def __init__(self, channels: int, kind: str, dropout: float) -> None:
        super().__init__()
        first = FEED_FORWARDS[kind](channels, 4 * channels)
        self.net = nn.Sequential(first, Dropout(dropout), nn.Linear(4 * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class TransformerBlock(nn.Module):
    """Pre-norm self-attention and feed-forward net; `feed_forward` is the latter's kind."""

    def __init__(self, channels: int, heads: int, head_channels: int, feed_forward: str, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = SelfAttention(channels, heads, head_channels, dropout)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FrameFeedForward(channels, feed_forward, dropout)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Map [B, T, C] to [B, T, C]; `bias` is what `SelfAttention` takes."""
        x = x + self.attn1(self.norm1(x), bias)
        return x + self.ff(self.norm3(x))
