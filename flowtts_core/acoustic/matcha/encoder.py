"""Matcha-TTS's text encoder: tokens to the prior mean of each token's frames, and log durations.

Module names are the published ones, so that checkpoints load; activations are [B, L, C].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowtts_core.acoustic.matcha.config import MatchaConfig
from flowtts_core.nn.attention import merge_heads, rotary_angles, rotate, split_heads
from flowtts_core.nn.conv import TimeConv
from flowtts_core.nn.dropout import Dropout
from flowtts_core.nn.masks import length_mask
from flowtts_core.nn.norm import ChannelNorm


@dataclass(frozen=True)
class Encoded:
    """What the encoder makes of tokens. Values on padding are zero."""

    mean: Tensor  # [B, L, M] prior mean of a frame of the token, normalised mel
    log_durations: Tensor  # [B, L]
    mask: Tensor  # [B, L] bool


class Prenet(nn.Module):
    """Three convolutions of 5 tokens with a residual projection."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.conv_layers = nn.ModuleList(TimeConv(channels, channels, 5) for _ in range(3))
        self.norm_layers = nn.ModuleList(ChannelNorm(channels) for _ in range(3))
        self.proj = TimeConv(channels, channels, 1)
        self.dropout = Dropout(dropout)
        nn.init.zeros_(self.proj.weight)  # starts as the identity, as published
        nn.init.zeros_(self.proj.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        hidden = x
        for conv, norm in zip(self.conv_layers, self.norm_layers, strict=True):
            hidden = self.dropout(F.relu(norm(conv(hidden * mask))))
        return (x + self.proj(hidden)) * mask


class RotaryAttention(nn.Module):
    """Multi-head self-attention with rotary positions on the first half of each head."""

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.conv_q = TimeConv(channels, channels, 1)
        self.conv_k = TimeConv(channels, channels, 1)
        self.conv_v = TimeConv(channels, channels, 1)
        self.conv_o = TimeConv(channels, channels, 1)
        for conv in (self.conv_q, self.conv_k, self.conv_v):
            nn.init.xavier_uniform_(conv.weight)

    def forward(self, x: Tensor, key_mask: Tensor | None, angles: tuple[Tensor, Tensor]) -> Tensor:
        query = rotate(split_heads(self.conv_q(x), self.heads), angles)
        key = rotate(split_heads(self.conv_k(x), self.heads), angles)
        value = split_heads(self.conv_v(x), self.heads)
        dropout = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=key_mask, dropout_p=dropout)
        return self.conv_o(merge_heads(out))


class FeedForward(nn.Module):
    """Two convolutions over tokens."""

    def __init__(self, channels: int, inner: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.conv_1 = TimeConv(channels, inner, kernel)
        self.conv_2 = TimeConv(inner, channels, kernel)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.conv_2(self.dropout(F.relu(self.conv_1(x * mask))) * mask) * mask


class Transformer(nn.Module):
    """Post-norm transformer over tokens."""

    def __init__(
        self, channels: int, layers: int, heads: int, inner: int, kernel: int, dropout: float, attention_dropout: float
    ) -> None:
        super().__init__()
        self.rotary_width = channels // heads // 2
        self.attn_layers = nn.ModuleList(RotaryAttention(channels, heads, attention_dropout) for _ in range(layers))
        self.norm_layers_1 = nn.ModuleList(ChannelNorm(channels) for _ in range(layers))
        self.ffn_layers = nn.ModuleList(FeedForward(channels, inner, kernel, dropout) for _ in range(layers))
        self.norm_layers_2 = nn.ModuleList(ChannelNorm(channels) for _ in range(layers))
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, key_mask: Tensor | None) -> Tensor:
        angles = rotary_angles(x.shape[1], self.rotary_width, x.device)
        layers = zip(self.attn_layers, self.norm_layers_1, self.ffn_layers, self.norm_layers_2, strict=True)
        for attention, norm_1, feed_forward, norm_2 in layers:
            x = x * mask
            x = norm_1(x + self.dropout(attention(x, key_mask, angles)))
            x = norm_2(x + self.dropout(feed_forward(x, mask)))
        return x * mask


class DurationPredictor(nn.Module):
    """Predicts the logarithm of the number of frames of each token."""

    def __init__(self, channels: int, inner: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.conv_1 = TimeConv(channels, inner, kernel)
        self.norm_1 = ChannelNorm(inner)
        self.conv_2 = TimeConv(inner, inner, kernel)
        self.norm_2 = ChannelNorm(inner)
        self.proj = TimeConv(inner, 1, 1)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.dropout(self.norm_1(F.relu(self.conv_1(x * mask))))
        x = self.dropout(self.norm_2(F.relu(self.conv_2(x * mask))))
        return (self.proj(x * mask) * mask).squeeze(2)


class TextEncoder(nn.Module):
    """`forward(tokens [B, L], lengths [B], speaker [B, S] or None) -> Encoded`."""

    def __init__(self, config: MatchaConfig) -> None:
        super().__init__()
        c, width = config, config.encoder_width
        self.channels = c.encoder_channels
        self.emb = nn.Embedding(c.n_symbols, c.encoder_channels)
        nn.init.normal_(self.emb.weight, 0.0, c.encoder_channels**-0.5)
        self.prenet = Prenet(c.encoder_channels, c.prenet_dropout) if c.prenet else None
        self.encoder = Transformer(
            width,
            c.encoder_layers,
            c.encoder_heads,
            c.encoder_filter_channels,
            c.encoder_kernel,
            c.encoder_dropout,
            c.encoder_attention_dropout,
        )
        self.proj_m = TimeConv(width, c.mel.rows, 1)
        self.proj_w = DurationPredictor(width, c.duration_channels, c.duration_kernel, c.encoder_dropout)

    def embed(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Embed tokens [B, L] as the transformer's input [B, L, C], without the speaker."""
        x = self.emb(tokens) * math.sqrt(self.channels)
        return x * mask if self.prenet is None else self.prenet(x, mask)

    def forward(self, tokens: Tensor, lengths: Tensor, speaker: Tensor | None) -> Encoded:
        valid = length_mask(lengths, tokens.shape[1])
        mean, log_durations = self.encode(tokens, speaker, valid.unsqueeze(2).to(self.emb.weight.dtype), valid)
        return Encoded(mean, log_durations, valid)

    def encode(
        self, tokens: Tensor, speaker: Tensor | None, mask: Tensor, valid: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return mean and log durations; `mask` [B, L, 1] and `valid` [B, L] say where tokens are (None: all)."""
        x = self.embed(tokens, mask)
        if speaker is not None:
            x = torch.cat((x, speaker.unsqueeze(1).expand(-1, x.shape[1], -1).to(x.dtype)), 2)
        x = self.encoder(x, mask, None if valid is None else valid[:, None, None, :])
        # The duration loss does not reach the encoder: detached as published.
        return self.proj_m(x) * mask, self.proj_w(x.detach(), mask)
