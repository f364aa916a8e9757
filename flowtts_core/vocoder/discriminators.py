"""The discriminators that train a vocoder: of waveforms folded by period or ever coarser, and of spectrograms.

Sources: HiFi-GAN (arXiv 2010.05646, section 2.3) for the periods, MelGAN (arXiv 1910.06711, section 2.2) as HiFi-GAN has it
for the scales, UnivNet (arXiv 2106.07889, section 2.2) for the resolutions of spectrograms. They are kept narrow by default,
since on a CPU they cost more than the vocoder itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from flowtts_core.errors import ConfigError

Scored = tuple[Tensor, list[Tensor]]  # scores, and the feature maps of every layer

SLOPE = 0.1
_STRIDED = 4  # layers of a period discriminator that divide time
_SCALE_LAYERS = ((15, 1, 1), (41, 2, 4), (41, 2, 16), (41, 4, 16), (41, 4, 16), (41, 1, 16), (5, 1, 1))
"""Kernel, stride and groups of a scale discriminator's layers."""


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Which discriminators there are, and how wide their layers.

    Attributes:
        periods: in samples. The first four layers of `period_channels` divide time by three each, further ones do not.
        n_ffts: STFT sizes in samples; the hop is a quarter.
        scales: how many discriminators hear the waveform itself, each at half the rate of the one before.
        scale_channels: of their seven layers.
    """

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    period_channels: tuple[int, ...] = (12, 32, 64, 128)
    n_ffts: tuple[int, ...] = (512, 1024, 2048)
    resolution_channels: int = 12
    scales: int = 0
    scale_channels: tuple[int, ...] = (16, 16, 32, 64, 128, 128, 128)

    def __post_init__(self) -> None:
        if self.scales < 0 or len(self.scale_channels) != len(_SCALE_LAYERS) or min(self.scale_channels) < 1:
            raise ConfigError(
                f"DiscriminatorConfig: scales {self.scales}, scale_channels {list(self.scale_channels)}",
                f"use 0 or more scales, and {len(_SCALE_LAYERS)} widths of 1 or more",
            )


PUBLISHED = DiscriminatorConfig(
    period_channels=(32, 128, 512, 1024, 1024),
    n_ffts=(),
    scales=3,
    scale_channels=(128, 128, 256, 512, 1024, 1024, 1024),
)
"""HiFi-GAN's, at the widths of its paper: 70 million parameters."""


class PeriodDiscriminator(nn.Module):
    """Scores every p-th sample together: the waveform [B, S] is folded to [B, 1, S / p, p]."""

    def __init__(self, period: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.period = period
        widths = (1, *channels)
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv2d(a, b, (5, 1), (3 if i < _STRIDED else 1, 1), (2, 0)))
            for i, (a, b) in enumerate(zip(widths, widths[1:], strict=False))
        )
        self.out = weight_norm(nn.Conv2d(widths[-1], 1, (3, 1), 1, (1, 0)))

    def forward(self, waveform: Tensor) -> Scored:
        short = -waveform.shape[-1] % self.period
        x = nn.functional.pad(waveform[:, None], (0, short), mode="reflect")
        return _score(x.unflatten(-1, (-1, self.period)), self.convs, self.out)


class ResolutionDiscriminator(nn.Module):
    """Scores the magnitude spectrogram [B, 1, T, F] of one STFT size; F is halved by each strided layer."""

    def __init__(self, n_fft: int, channels: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.window: Tensor
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv2d(1 if i == 0 else channels, channels, (3, 9), (1, 2), (1, 4))) for i in range(4)
        )
        self.out = weight_norm(nn.Conv2d(channels, 1, (3, 3), 1, 1))

    def forward(self, waveform: Tensor) -> Scored:
        spectrum = torch.stft(waveform, self.n_fft, self.n_fft // 4, window=self.window, return_complex=True)
        magnitude = (spectrum.real.square() + spectrum.imag.square() + 1e-9).sqrt()
        return _score(magnitude.transpose(1, 2)[:, None], self.convs, self.out)


class ScaleDiscriminator(nn.Module):
    """Scores a waveform [B, S] at its own rate, or halved `level` times; at level 0 with spectral norm, as published."""

    def __init__(self, level: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        norm = weight_norm if level else spectral_norm
        self.halves = nn.ModuleList(nn.AvgPool1d(4, 2, padding=2) for _ in range(level))
        widths = (1, *channels)
        self.convs = nn.ModuleList(
            norm(nn.Conv1d(a, b, kernel, stride, padding=kernel // 2, groups=math.gcd(groups, a, b)))
            for (kernel, stride, groups), a, b in zip(_SCALE_LAYERS, widths, channels, strict=False)
        )
        self.out = norm(nn.Conv1d(widths[-1], 1, 3, padding=1))

    def forward(self, waveform: Tensor) -> Scored:
        x = waveform[:, None]
        for half in self.halves:
            x = half(x)
        return _score(x, self.convs, self.out)


class Discriminators(nn.Module):
    """All discriminators of a config; `forward(waveform[B, S])` gives the scores and feature maps of each."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.each = nn.ModuleList(
            [PeriodDiscriminator(p, config.period_channels) for p in config.periods]
            + [ResolutionDiscriminator(n, config.resolution_channels) for n in config.n_ffts]
            + [ScaleDiscriminator(level, config.scale_channels) for level in range(config.scales)]
        )

    def forward(self, waveform: Tensor) -> list[Scored]:
        return [one(waveform) for one in self.each]


def _score(x: Tensor, convs: nn.ModuleList, out: nn.Module) -> Scored:
    features = []
    for conv in convs:
        x = nn.functional.leaky_relu(conv(x), SLOPE)
        features.append(x)
    return out(x), features
