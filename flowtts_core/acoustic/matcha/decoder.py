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
from flowtts_core.nn.attention import TransformerBlock
from flowtts_core.nn.conv import TimeConv, TimeConvTranspose
from flowtts_core.nn.masks import length_mask
from flowtts_core.nn.norm import BlockNorm
from flowtts_core.nn.time_embedding import sinusoidal_embedding


@dataclass(frozen=True)
class Frames:
    """Where the frames of a batch are padded, at one frame rate. All fields are None where nothing is."""

    valid: Tensor | None  # [B, T, 1] float: 1 on valid frames
    attention_bias: Tensor | None  # [B, 1, 1, T] added to the scores
    norm_lengths: Tensor | None  # [B] frames that group norms take their statistics over

    def masked(self, x: Tensor) -> Tensor:
        """Return `x` [B, T, C] with zeros on padding."""
        return x if self.valid is None else x * self.valid.to(x.dtype)


def true_frames(lengths: Tensor, time: int) -> Frames:
    """Return the frames of a batch whose padding no layer sees."""
    if int(lengths.min()) == time:
        return Frames(None, None, None)
    valid = length_mask(lengths, time)
    bias = torch.zeros(valid.shape, device=valid.device).masked_fill(~valid, float("-inf"))
    return Frames(valid.unsqueeze(2).float(), bias[:, None, None, :], lengths)


def published_frames(lengths: Tensor, extents: Tensor, time: int) -> Frames:
    """Return the frames as the published model sees them: its blocks see padding up to `extents` [B].

    Its attention adds the mask (1 on valid frames, 0 on padding) to the scores; its group norms run over all of `extents`.
    """
    valid = length_mask(lengths, time).float()
    bias = valid.masked_fill(~length_mask(extents, time), float("-inf"))
    whole = int(extents.min()) == time
    return Frames(valid.unsqueeze(2), bias[:, None, None, :], None if whole else extents)


def half_rate(frames: Frames) -> Frames:
    """Return the same at half the frame rate: every second frame."""
    return Frames(
        None if frames.valid is None else frames.valid[:, ::2],
        None if frames.attention_bias is None else frames.attention_bias[..., ::2].contiguous(),
        None if frames.norm_lengths is None else (frames.norm_lengths + 1) // 2,
    )


class Block1D(nn.Module):
    """Convolution, norm, activation; `conv` is the convolution's class."""

    def __init__(
        self, channels: int, out_channels: int, norm: str, activation: str, conv: type[TimeConv] = TimeConv
    ) -> None:
        super().__init__()
        self.block = nn.ModuleList((conv(channels, out_channels, 3), BlockNorm(out_channels, norm)))
        self.activation = {"mish": F.mish, "silu": F.silu}[activation]

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        conv, norm = self.block
        return frames.masked(self.activation(norm(conv(frames.masked(x)), frames.norm_lengths)))


class ResnetBlock1D(nn.Module):
    """Two blocks with the flow time added between them."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        time_channels: int,
        norm: str,
        activation: str,
        conv: type[TimeConv] = TimeConv,
    ) -> None:
        super().__init__()
        before = {"mish": nn.Mish, "silu": nn.SiLU}[activation]()
        self.mlp = nn.Sequential(before, nn.Linear(time_channels, out_channels))
        self.block1 = Block1D(channels, out_channels, norm, activation, conv)
        self.block2 = Block1D(out_channels, out_channels, norm, activation, conv)
        self.res_conv = TimeConv(channels, out_channels, 1)

    def forward(self, x: Tensor, frames: Frames, time: Tensor) -> Tensor:
        hidden = self.block1(x, frames) + self.mlp(time).unsqueeze(1)
        return self.block2(hidden, frames) + self.res_conv(frames.masked(x))


class Resampling(nn.Module):
    """Holds a convolution that halves or doubles the frame rate under its published name, `conv`."""

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


class UNetStage(nn.ModuleList):
    """A ResNet block, transformer blocks and, but for middle stages, the convolution that follows them."""

    def __init__(self, resnet: ResnetBlock1D, transformers: Iterable[TransformerBlock], *last: nn.Module) -> None:
        super().__init__((resnet, nn.ModuleList(transformers), *last))

    def run(self, x: Tensor, frames: Frames, time: Tensor) -> Tensor:
        """Apply all but the last convolution."""
        x = self[0](x, frames, time)
        for transformer in cast(nn.ModuleList, self[1]):
            x = transformer(x, frames.attention_bias)
        return x

    def follow(self, x: Tensor, frames: Frames) -> Tensor:
        """Apply the last convolution."""
        out: Tensor = self[2](frames.masked(x))
        return out


class VelocityNet(nn.Module):
    """`forward(x [B, T, M], t [B], mean [B, T, M], speaker [B, S] or None, frames) -> velocity [B, T, M]`; T is even."""

    def __init__(self, config: MatchaConfig) -> None:
        super().__init__()
        c, (full, half) = config, config.decoder_channels
        time = 4 * full

        def stage(channels: int, out_channels: int, *last: nn.Module) -> UNetStage:
            transformers = [
                TransformerBlock(
                    out_channels, c.decoder_heads, c.decoder_head_channels, c.feed_forward, c.decoder_dropout
                )
                for _ in range(c.decoder_blocks)
            ]
            return UNetStage(ResnetBlock1D(channels, out_channels, time, c.norm, c.activation), transformers, *last)

        self.time_width = c.decoder_input
        self.time_mlp = TimeMlp(self.time_width, time)
        self.down_blocks = nn.ModuleList(
            (
                stage(c.decoder_input, full, Resampling(TimeConv(full, full, 3, stride=2))),
                stage(full, half, TimeConv(half, half, 3)),
            )
        )
        self.mid_blocks = nn.ModuleList(stage(half, half) for _ in range(c.decoder_mid_blocks))
        self.up_blocks = nn.ModuleList(
            (
                stage(2 * half, full, Resampling(TimeConvTranspose(full))),
                stage(2 * full, full, TimeConv(full, full, 3)),
            )
        )
        self.final_block = Block1D(full, full, c.norm, c.activation)
        self.final_proj = TimeConv(full, c.mel.rows, 1)

    def embed_time(self, t: Tensor) -> Tensor:
        """Embed flow times [B] as [B, D]."""
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
        for stage, at in zip(cast(Iterable[UNetStage], self.down_blocks), (frames, half), strict=True):
            hidden = stage.run(hidden, at, time)
            skips.append(hidden)
            hidden = stage.follow(hidden, at)
        for stage in cast(Iterable[UNetStage], self.mid_blocks):
            hidden = stage.run(hidden, half, time)
        for stage, at in zip(cast(Iterable[UNetStage], self.up_blocks), (half, frames), strict=True):
            hidden = stage.run(torch.cat((hidden, skips.pop()), 2), at, time)
            hidden = stage.follow(hidden, at)
        hidden = self.final_block(hidden, frames)
        return frames.masked(self.final_proj(hidden))
