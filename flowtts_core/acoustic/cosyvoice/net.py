"""CosyVoice's velocity nets: the causal one of version 2, which streams, and the U-Net of version 1; activations [B, T, C].

They are built of Matcha-TTS's blocks, from which upstream's are derived.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from flowtts_core.acoustic.matcha.decoder import (
    Block1D,
    Frames,
    Resampling,
    ResnetBlock1D,
    TimeMlp,
    UNetStage,
    half_rate,
)
from flowtts_core.errors import ConfigError
from flowtts_core.nn.attention import TransformerBlock
from flowtts_core.nn.conv import CausalTimeConv, TimeConv, TimeConvTranspose
from flowtts_core.nn.masks import length_mask
from flowtts_core.nn.time_embedding import sinusoidal_embedding


@dataclass(frozen=True)
class FlowDecoderConfig:
    """Sizes of the net. The defaults are those of CosyVoice 2.

    Attributes:
        mels: M mel bands; the net reads 4 M channels: the point, the tokens' means, the speaker, the prompt.
        channels: widths of its levels: one without resampling (causal), or two of which the second has half the frame rate.
        blocks, middle: transformer blocks of each stage, and stages in the middle.
        causal: convolutions see no later frame.
        chunk: frames that are made together when it streams: attention sees the own chunk and all before it.
    """

    mels: int = 80
    channels: tuple[int, ...] = (256,)
    blocks: int = 4
    middle: int = 12
    heads: int = 8
    head_channels: int = 64
    dropout: float = 0.0
    causal: bool = True
    chunk: int = 50

    def __post_init__(self) -> None:
        sizes = (self.mels, self.blocks, self.middle, self.heads, self.head_channels, self.chunk, *self.channels)
        if min(sizes) < 1 or len(self.channels) not in (1, 2):
            raise ConfigError(
                f"FlowDecoderConfig: channels {list(self.channels)}", "use sizes of 1 or more, and one or two levels"
            )
        if self.causal and len(self.channels) != 1:
            raise ConfigError(
                "FlowDecoderConfig: a causal net of two levels",
                "its first level cannot be halved without seeing ahead: give one",
            )


def decoder_frames(lengths: Tensor, time: int, chunk: int | None = None) -> Frames:
    """Return the frames [B, T] of a batch as its attention sees them; with a chunk, none of a later chunk."""
    valid = length_mask(lengths, time)
    visible = valid[:, None, None, :]
    if chunk is not None:
        of = torch.arange(time, device=lengths.device) // chunk
        visible = visible & (of[None, :] <= of[:, None])
    # a padded query must see something, or its row has no sum; it is masked after
    bias = torch.zeros(visible.shape, device=lengths.device).masked_fill(~visible, -1e10)
    return Frames(valid.unsqueeze(2).float(), bias, None)


class FlowDecoderNet(nn.Module):
    """`forward(x [B, T, M], t [B], given [B, T, 3 M], frames) -> velocity [B, T, M]`.

    `given` are the tokens' means, the speaker's vector at each frame, and the mel of the prompt, 0 after it.
    """

    def __init__(self, config: FlowDecoderConfig) -> None:
        super().__init__()
        self.config = config
        c, widths = config, config.channels
        conv: type[TimeConv] = CausalTimeConv if c.causal else TimeConv
        norm = "layer" if c.causal else "group"
        time = 4 * widths[0]

        def stage(channels: int, out_channels: int, *last: nn.Module) -> UNetStage:
            resnet = ResnetBlock1D(channels, out_channels, time, norm, "mish", conv)
            transformers = [
                TransformerBlock(out_channels, c.heads, c.head_channels, "gelu", c.dropout) for _ in range(c.blocks)
            ]
            return UNetStage(resnet, transformers, *last)

        first, deepest = widths[0], widths[-1]
        down, up = [], []
        if len(widths) == 2:
            down = [stage(4 * c.mels, first, Resampling(TimeConv(first, first, 3, stride=2)))]
            down.append(stage(first, deepest, conv(deepest, deepest, 3)))
            up = [stage(2 * deepest, first, Resampling(TimeConvTranspose(first)))]
            up.append(stage(2 * first, first, conv(first, first, 3)))
        else:
            down = [stage(4 * c.mels, first, conv(first, first, 3))]
            up = [stage(2 * first, first, conv(first, first, 3))]
        self.time_mlp = TimeMlp(4 * c.mels, time)
        self.down_blocks = nn.ModuleList(down)
        self.mid_blocks = nn.ModuleList(stage(deepest, deepest) for _ in range(c.middle))
        self.up_blocks = nn.ModuleList(up)
        self.final_block = Block1D(first, first, norm, "mish", conv)
        self.final_proj = TimeConv(first, c.mels, 1)

    def embed_time(self, t: Tensor) -> Tensor:
        """Embed flow times [B] as [B, D]."""
        return self.time_mlp(sinusoidal_embedding(t, 4 * self.config.mels))

    def forward(self, x: Tensor, t: Tensor, given: Tensor, frames: Frames) -> Tensor:
        time = self.embed_time(t)
        hidden = torch.cat((x, given), 2)
        rates = [frames] if len(self.config.channels) == 1 else [frames, half_rate(frames)]
        skips: list[Tensor] = []
        for stage, at in zip(cast(Iterable[UNetStage], self.down_blocks), rates, strict=True):
            hidden = stage.run(hidden, at, time)
            skips.append(hidden)
            hidden = stage.follow(hidden, at)
        for stage in cast(Iterable[UNetStage], self.mid_blocks):
            hidden = stage.run(hidden, rates[-1], time)
        for stage, at in zip(cast(Iterable[UNetStage], self.up_blocks), reversed(rates), strict=True):
            skip = skips.pop()
            hidden = stage.run(torch.cat((hidden[:, : skip.shape[1]], skip), 2), at, time)
            hidden = stage.follow(hidden, at)
        hidden = self.final_block(hidden, frames)
        return frames.masked(self.final_proj(hidden))
