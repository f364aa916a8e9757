"""Matcha-TTS's velocity net: a 1-d U-Net of ResNet and transformer blocks over mel frames, at full and at half frame rate.

Module names are the published ones, so that checkpoints load; activations are [B, T, C].
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowtts_core.acoustic.matcha.config import MatchaConfig
from flowtts_core.nn.attention import GeluLinear, SnakeBeta, merge_heads, split_heads
from flowtts_core.nn.conv import TimeConv, TimeConvTranspose
from flowtts_core.nn.dropout import Dropout
from flowtts_core.nn.masks import length_mask
from flowtts_core.nn.norm import BlockNorm
from flowtts_core.nn.packed import Kept, Linear, is_packable, linear, pack_linear
from flowtts_core.nn.time_embedding import sinusoidal_embedding


@dataclass(frozen=True)
class Frames:
    """What the blocks know of padding at one frame rate; None stands for "nothing is padded"."""

    valid: Tensor | None  # [B, T, 1] float: 1 on valid frames
    attention_bias: Tensor | None  # [B, 1, 1, T] added to the scores
    norm_lengths: Tensor | None  # [B] frames that group norms take their statistics over
    own: tuple[int, ...] | None = (
        None  # frames of each item, where its attention is computed by itself (see `SelfAttention`)
    )

    def masked(self, x: Tensor) -> Tensor:
        """`x` [B, T, C] with zeros on padding."""
        return x if self.valid is None else x * self.valid.to(x.dtype)


def true_frames(lengths: Tensor, time: int) -> Frames:
    """Frames of a batch whose padding nothing sees."""
    if int(lengths.min()) == time:
        return Frames(None, None, None)
    valid = length_mask(lengths, time)
    bias = torch.zeros(valid.shape, device=valid.device).masked_fill(~valid, float("-inf"))
    alone = lengths.device.type == "cpu" and not torch.is_grad_enabled()
    return Frames(
        valid.unsqueeze(2).float(), bias[:, None, None, :], lengths, tuple(lengths.tolist()) if alone else None
    )


def published_frames(lengths: Tensor, extents: Tensor, time: int) -> Frames:
    """Frames as the published model sees them in a batch padded to `extents` [B]: all its blocks see padding up to there.

    Its attention adds the mask (1 on valid frames, 0 on padding) to the scores; its group norms run over all of `extents`.
    """
    valid = length_mask(lengths, time).float()
    bias = valid.masked_fill(~length_mask(extents, time), float("-inf"))
    whole = int(extents.min()) == time
    return Frames(valid.unsqueeze(2), bias[:, None, None, :], None if whole else extents)


def half_rate(frames: Frames) -> Frames:
    """The same at half the frame rate: every second frame."""
    return Frames(
        None if frames.valid is None else frames.valid[:, ::2],
        None if frames.attention_bias is None else frames.attention_bias[..., ::2].contiguous(),
        None if frames.norm_lengths is None else (frames.norm_lengths + 1) // 2,
        None if frames.own is None else tuple((length + 1) // 2 for length in frames.own),
    )


class Block1D(nn.Module):
    """Convolution, norm, activation."""

    def __init__(self, channels: int, out_channels: int, config: MatchaConfig) -> None:
        super().__init__()
        self.block = nn.ModuleList((TimeConv(channels, out_channels, 3), BlockNorm(out_channels, config.norm)))
        self.activation = {"mish": F.mish, "silu": F.silu}[config.activation]

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        conv, norm = self.block
        return frames.masked(self.activation(norm(conv(frames.masked(x)), frames.norm_lengths)))


class ResnetBlock1D(nn.Module):
    """Two blocks with the flow time added between them."""

    def __init__(self, channels: int, out_channels: int, time_channels: int, config: MatchaConfig) -> None:
        super().__init__()
        activation = {"mish": nn.Mish, "silu": nn.SiLU}[config.activation]
        self.mlp = nn.Sequential(activation(), nn.Linear(time_channels, out_channels))
        self.block1 = Block1D(channels, out_channels, config)
        self.block2 = Block1D(out_channels, out_channels, config)
        self.res_conv = TimeConv(channels, out_channels, 1)

    def forward(self, x: Tensor, frames: Frames, time: Tensor) -> Tensor:
        hidden = self.block1(x, frames) + self.mlp(time).unsqueeze(1)
        return self.block2(hidden, frames) + self.res_conv(frames.masked(x))


class SelfAttention(nn.Module):
    """Multi-head self-attention over frames.

    A padded batch without gradients on a CPU takes its items one by one, each over its own frames: how a product over more than
    256 of them rounds depends on how many follow, padding too, so that a batch would differ from its singles.
    """

    def __init__(self, channels: int, heads: int, head_channels: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, heads * head_channels, bias=False)
        self.to_k = nn.Linear(channels, heads * head_channels, bias=False)
        self.to_v = nn.Linear(channels, heads * head_channels, bias=False)
        self.to_out = nn.Sequential(Linear(heads * head_channels, channels), Dropout(dropout))
        self._packed = Kept(pack_linear)

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        query, key, value = (split_heads(part, self.heads) for part in self._projected(x))
        if frames.own is not None:
            seen = torch.zeros_like(query)
            for item, length in enumerate(frames.own):
                q, k, v = (part[item : item + 1, :, :length] for part in (query, key, value))
                seen[item, :, :length] = F.scaled_dot_product_attention(q, k, v)[0]
        else:
            mask = None if frames.attention_bias is None else frames.attention_bias.to(query.dtype)
            seen = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.to_out(merge_heads(seen))

    def _projected(self, x: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values [B, T, H * D]."""
        projections = (self.to_q, self.to_k, self.to_v)
        if is_packable(x, self.to_q.weight):  # one product
            return linear(x, self._packed.of(*(projection.weight for projection in projections)), None).chunk(3, 2)
        return tuple(projection(x) for projection in projections)


class FrameFeedForward(nn.Module):
    """Feed-forward net of 4 times the width."""

    def __init__(self, channels: int, kind: str, dropout: float) -> None:
        super().__init__()
        first = {"gelu": GeluLinear, "snakebeta": SnakeBeta}[kind](channels, 4 * channels)
        self.net = nn.Sequential(first, Dropout(dropout), Linear(4 * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class TransformerBlock(nn.Module):
    """Pre-norm self-attention and feed-forward net."""

    def __init__(self, channels: int, config: MatchaConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = SelfAttention(channels, config.decoder_heads, config.decoder_head_channels, config.decoder_dropout)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FrameFeedForward(channels, config.feed_forward, config.decoder_dropout)

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        x = x + self.attn1(self.norm1(x), frames)
        return x + self.ff(self.norm3(x))


class Resampling(nn.Module):
    """The published name (`conv`) for a convolution that halves or doubles the frame rate."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class TimeMlp(nn.Module):
    """Two linear layers on the flow time's sinusoids."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(channels, out_channels)
        self.linear_2 = nn.Linear(out_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(x)))


class Stage(nn.ModuleList):
    """A ResNet block, transformer blocks and, but for middle stages, the convolution that follows them."""

    def __init__(
        self, channels: int, out_channels: int, time_channels: int, config: MatchaConfig, *last: nn.Module
    ) -> None:
        transformers = nn.ModuleList(TransformerBlock(out_channels, config) for _ in range(config.decoder_blocks))
        super().__init__((ResnetBlock1D(channels, out_channels, time_channels, config), transformers, *last))

    def run(self, x: Tensor, frames: Frames, time: Tensor) -> Tensor:
        """All but the last convolution."""
        x = self[0](x, frames, time)
        for transformer in cast(nn.ModuleList, self[1]):
            x = transformer(x, frames)
        return x

    def follow(self, x: Tensor, frames: Frames) -> Tensor:
        """The last convolution."""
        out: Tensor = self[2](frames.masked(x))
        return out


class VelocityNet(nn.Module):
    """`forward(x [B, T, M], t [B], mean [B, T, M], speaker [B, S] or None, frames) -> velocity [B, T, M]`; T is even."""

    def __init__(self, config: MatchaConfig) -> None:
        super().__init__()
        full, half = config.decoder_channels
        time = 4 * full
        self.time_width = config.decoder_input
        self.time_mlp = TimeMlp(self.time_width, time)
        self.down_blocks = nn.ModuleList(
            (
                Stage(config.decoder_input, full, time, config, Resampling(TimeConv(full, full, 3, stride=2))),
                Stage(full, half, time, config, TimeConv(half, half, 3)),
            )
        )
        self.mid_blocks = nn.ModuleList(Stage(half, half, time, config) for _ in range(config.decoder_mid_blocks))
        self.up_blocks = nn.ModuleList(
            (
                Stage(2 * half, full, time, config, Resampling(TimeConvTranspose(full))),
                Stage(2 * full, full, time, config, TimeConv(full, full, 3)),
            )
        )
        self.final_block = Block1D(full, full, config)
        self.final_proj = TimeConv(full, config.mel.n_mels, 1)

    def embed_time(self, t: Tensor) -> Tensor:
        """Flow times [B] to [B, D]."""
        return self.time_mlp(sinusoidal_embedding(t, self.time_width).to(self.time_mlp.linear_1.weight.dtype))

    def forward(self, x: Tensor, t: Tensor, mean: Tensor, speaker: Tensor | None, frames: Frames) -> Tensor:
        assert x.shape[1] % 2 == 0, "the caller pads to an even number of frames"
        time = self.embed_time(t)
        inputs = [x, mean.to(x.dtype)]
        if speaker is not None:
            inputs.append(speaker.unsqueeze(1).expand(-1, x.shape[1], -1).to(x.dtype))
        hidden = torch.cat(inputs, 2)
        half = half_rate(frames)
        skips: list[Tensor] = []
        for stage, at in zip(cast(Iterable[Stage], self.down_blocks), (frames, half), strict=True):
            hidden = stage.run(hidden, at, time)
            skips.append(hidden)
            hidden = stage.follow(hidden, at)
        for stage in cast(Iterable[Stage], self.mid_blocks):
            hidden = stage.run(hidden, half, time)
        for stage, at in zip(cast(Iterable[Stage], self.up_blocks), (half, frames), strict=True):
            hidden = stage.run(torch.cat((hidden, skips.pop()), 2), at, time)
            hidden = stage.follow(hidden, at)
        hidden = self.final_block(hidden, frames)
        return frames.masked(self.final_proj(hidden))
