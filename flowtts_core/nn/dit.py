"""Blocks of diffusion transformers over time (Peebles and Xie 2023, arXiv 2212.09748), as F5-TTS and its relatives use them.

Activations are [B, T, C]. `valid` [B, T, 1] (bool) tells where items end, `shown` [B, 1, 1, T] (bool) which frames attention may
see; without either, every frame counts.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowtts_core.nn.attention import merge_heads, split_heads
from flowtts_core.nn.dropout import Dropout
from flowtts_core.nn.time_embedding import sinusoidal_embedding

Angles = tuple[Tensor, Tensor]  # cosines and sines [T, D]


def only(x: Tensor, valid: Tensor | None) -> Tensor:
    """Return [B, T, C] with zeros where it is not valid."""
    return x if valid is None else x * valid.to(x.dtype)


class TimeEmbedding(nn.Module):
    """Flow times [B] as vectors [B, C]: sinusoids, then two layers."""

    def __init__(self, channels: int, sinusoids: int = 256) -> None:
        super().__init__()
        self.sinusoids = sinusoids
        self.time_mlp = nn.Sequential(nn.Linear(sinusoids, channels), nn.SiLU(), nn.Linear(channels, channels))

    def forward(self, t: Tensor) -> Tensor:
        embedded: Tensor = self.time_mlp(sinusoidal_embedding(t, self.sinusoids))
        return embedded


class RotaryPositions(nn.Module):
    """Angles of rotary positions (Su et al. 2021), neighbouring features paired; their frequencies are kept with the weights."""

    def __init__(self, head_channels: int, base: float = 10000.0) -> None:
        super().__init__()
        places = torch.arange(0, head_channels, 2).float() / head_channels
        self.register_buffer("inv_freq", base**-places)
        self.inv_freq: Tensor

    def forward(self, time: int) -> Angles:
        angle = torch.arange(time, device=self.inv_freq.device).float()[:, None] * self.inv_freq.float()
        angle = angle.repeat_interleave(2, 1)
        return angle.cos(), angle.sin()


def rotate_pairs(x: Tensor, angles: Angles) -> Tensor:
    """Turn each pair of neighbouring features of [B, H, T, D] by its angle."""
    cos, sin = (part.to(x.dtype) for part in angles)
    pairs = x.unflatten(-1, (-1, 2))
    turned = torch.stack((-pairs[..., 1], pairs[..., 0]), -1).flatten(-2)
    return x * cos + turned * sin


class ConvPositions(nn.Module):
    """What each frame learns of its place from its neighbours: two grouped convolutions."""

    def __init__(self, channels: int, kernel_size: int = 31, groups: int = 16) -> None:
        super().__init__()
        self.conv1d = nn.Sequential(
            nn.Conv1d(channels, channels, kernel_size, groups=groups, padding=kernel_size // 2),
            nn.Mish(),
            nn.Conv1d(channels, channels, kernel_size, groups=groups, padding=kernel_size // 2),
            nn.Mish(),
        )

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        for conv, activation in ((self.conv1d[0], self.conv1d[1]), (self.conv1d[2], self.conv1d[3])):
            x = activation(conv(only(x, valid).transpose(1, 2)).transpose(1, 2))
        return only(x, valid)


class RotaryAttention(nn.Module):
    """Self-attention with rotary positions.

    Args:
        rotated_heads: so many heads, the first ones, are told positions; None for all.
        qk_norm: normalise queries and keys (root mean square, each head by itself).
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        head_channels: int,
        dropout: float,
        rotated_heads: int | None = None,
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        self.heads, self.rotated_heads = heads, rotated_heads
        inner = heads * head_channels
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, inner) for _ in range(3))
        self.to_out = nn.Sequential(nn.Linear(inner, channels), Dropout(dropout))
        if qk_norm:
            self.q_norm, self.k_norm = (nn.RMSNorm(head_channels, eps=1e-6) for _ in range(2))
        self.qk_norm = qk_norm

    def forward(self, x: Tensor, angles: Angles, shown: Tensor | None = None) -> Tensor:
        query, key, value = (split_heads(part(x), self.heads) for part in (self.to_q, self.to_k, self.to_v))
        if self.qk_norm:
            query, key = (
                norm(part.float()).to(value.dtype) for norm, part in ((self.q_norm, query), (self.k_norm, key))
            )
        query, key = (self._turned(part, angles) for part in (query, key))
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=shown)
        mixed: Tensor = self.to_out(merge_heads(attended))
        return mixed

    def _turned(self, x: Tensor, angles: Angles) -> Tensor:
        if self.rotated_heads is None:
            return rotate_pairs(x, angles)
        return torch.cat([rotate_pairs(x[:, : self.rotated_heads], angles), x[:, self.rotated_heads :]], 1)


class FeedForward(nn.Module):
    """Two layers with a GELU (by tanh) between them, `mult` times as wide inside."""

    def __init__(self, channels: int, mult: int, dropout: float) -> None:
        super().__init__()
        inner = channels * mult
        first = nn.Sequential(nn.Linear(channels, inner), nn.GELU(approximate="tanh"))
        self.ff = nn.Sequential(first, Dropout(dropout), nn.Linear(inner, channels))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.ff(x)
        return out


class Modulation(nn.Module):
    """`parts` vectors [B, 1, C] made of the time's, and a layer norm without parameters for them to act on.

    They begin at zero, so that a block whose gates are among them begins as the identity.
    """

    def __init__(self, channels: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.linear = nn.Linear(channels, parts * channels)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, time: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.linear(F.silu(time)).unsqueeze(1).chunk(self.parts, 2))


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Return the layer norm of [B, T, C], scaled and shifted by vectors [B or 1, 1, C]."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


class DiTBlock(nn.Module):
    """Attention and feed-forward net, whose norms and gates follow the flow's time (adaLN-zero)."""

    def __init__(
        self,
        channels: int,
        heads: int,
        head_channels: int,
        ff_mult: int,
        dropout: float,
        rotated_heads: int | None = None,
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        self.attn_norm = Modulation(channels, 6)
        self.attn = RotaryAttention(channels, heads, head_channels, dropout, rotated_heads, qk_norm)
        self.ff = FeedForward(channels, ff_mult, dropout)

    def forward(
        self, x: Tensor, time: Tensor, angles: Angles, valid: Tensor | None = None, shown: Tensor | None = None
    ) -> Tensor:
        """Map [B, T, C] to [B, T, C]; `time` is [B or 1, C]."""
        shift, scale, gate, ff_shift, ff_scale, ff_gate = self.attn_norm(time)
        x = x + gate * only(self.attn(modulated(x, shift, scale), angles, shown), valid)
        return x + ff_gate * self.ff(modulated(x, ff_shift, ff_scale))


class FinalModulation(Modulation):
    """The norm before the output, scaled and shifted by the time."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, 2)

    def applied(self, x: Tensor, time: Tensor) -> Tensor:
        """Map [B, T, C] to [B, T, C]."""
        scale, shift = self(time)
        return modulated(x, shift, scale)
