"""The net that finds marks: it tells of each bin how likely it was raised rather than lowered, whatever the key and the message.

What a mark is stands in `pattern.py`. The net learns what natural and attacked speech looks like; sums of its logarithms of
odds over the cells of a pattern then are what a detector needs (Neyman and Pearson). Unlike AudioSeal's two nets (San Roman et
al. 2024, arXiv 2401.17264), nothing of the key is in the weights, and marking costs no net.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowtts_core.errors import ConfigError
from flowtts_core.nn.graph import Graph
from flowtts_core.watermark.depth import HELD, Depth, fading
from flowtts_core.watermark.frames import FEATURES, features, spectra, waveform_of
from flowtts_core.watermark.marker import TINY
from flowtts_core.watermark.pattern import BINS, hop_of

_KERNEL = 7


@dataclass(frozen=True)
class SpectralMarkConfig:
    """A watermark.

    Attributes:
        bits: of the message.
        decibels, quiet_decibels: of the gains of loud bins and of quiet ones (see `depth.py`).
        width, layers: of the net; kernels of 7 frames, dilated by 1, 2, 4, 8, 1, ...
    """

    bits: int = 16
    decibels: float = 0.4
    quiet_decibels: float = 2.0
    width: int = 160
    layers: int = 5

    def __post_init__(self) -> None:
        if min(self.bits, self.width, self.layers) < 1 or not 0 < self.decibels <= self.quiet_decibels <= 12:
            raise ConfigError(
                f"SpectralMarkConfig: bits {self.bits}, width {self.width}, layers {self.layers}, decibels {self.decibels}, "
                f"quiet_decibels {self.quiet_decibels}",
                "use sizes of 1 or more, and gains above 0, up to 12, of which the quiet bins have the larger",
            )

    @property
    def depth(self) -> Depth:
        return Depth(self.decibels, self.quiet_decibels)


class _Block(nn.Module):
    """A convolution over time of each channel, then a feed-forward net of each frame, added to the input."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        padding = (_KERNEL - 1) // 2 * dilation
        self.conv = nn.Conv1d(width, width, _KERNEL, dilation=dilation, padding=padding, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(self.conv(x.transpose(1, 2)).transpose(1, 2))
        return x + self.down(F.gelu(self.up(hidden)))


class MarkEstimator(nn.Module):
    """Features [B, T, FEATURES] to logarithms of odds [B, T, BINS] that a bin was raised."""

    def __init__(self, config: SpectralMarkConfig) -> None:
        super().__init__()
        width = config.width
        self.enter = nn.Linear(FEATURES, width)
        self.blocks = nn.ModuleList(_Block(width, 2 ** (layer % 4)) for layer in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, BINS)

    def forward(self, seen: Tensor) -> Tensor:
        x = self.enter(seen)
        for block in self.blocks:
            x = block(x)
        return self.leave(self.norm(x))


class SpectralMark(nn.Module):
    """See `SpectralMarkConfig`."""

    def __init__(self, config: SpectralMarkConfig) -> None:
        super().__init__()
        self.config, self.estimator = config, MarkEstimator(config)

    def estimates(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Return logarithms of odds [B, T, BINS] of the frames of waveforms [B, S]; frame t is around sample t * hop."""
        odds: Tensor = self.estimator(features(analysed(waveform, sample_rate))[0])
        return odds

    def graphs(self) -> dict[str, Graph]:
        """Return the net for ONNX Runtime."""
        example = {"seen": torch.randn(1, 40, FEATURES)}
        return {"estimator": Graph(_Tupled(self.estimator), example, ("odds",), {"seen": 1, "odds": 1})}


class _Tupled(nn.Module):
    def __init__(self, estimator: MarkEstimator) -> None:
        super().__init__()
        self.estimator = estimator

    def forward(self, seen: Tensor) -> tuple[Tensor]:
        return (self.estimator(seen),)


def analysed(waveform: Tensor, sample_rate: int) -> Tensor:
    """Return the spectra [B, T, hop + 1] of waveforms [B, S]."""
    hop = hop_of(sample_rate)
    return spectra(F.pad(waveform, (hop, 2 * hop - waveform.shape[1] % hop)), hop)


def with_gains(waveform: Tensor, sample_rate: int, gains: Tensor, depth: Depth) -> Tensor:
    """Return waveforms [B, S] whose bins, from 1 on, have gains [B, T, BINS]: 1 is a mark of this depth, -1 its reverse."""
    hop, whole = hop_of(sample_rate), analysed(waveform, sample_rate)
    room = min(BINS, hop)
    sizes = whole[..., 1 : room + 1].abs() / hop
    levels = (sizes.square().sum(2) / BINS).sqrt() + TINY
    remembered = F.pad(levels, (HELD - 1, 0)).unfold(1, HELD, 1)  # [B, T, HELD]
    faded = (remembered * torch.from_numpy(fading()).to(levels)).amax(2)
    factor = (gains[..., :room] * depth.of(sizes / faded[..., None]) * (math.log(10) / 20)).exp()
    changed = whole * F.pad(factor, (1, hop - room), value=1.0)
    return waveform_of(changed, hop)[:, hop : hop + waveform.shape[1]]
