"""Oobleck, the variational autoencoder of Stable Audio (arXiv 2402.04825; a Descript codec without its quantiser, 2306.06546).

Its state dict has the published names, with weight norm folded into plain weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowtts_core.errors import ConfigError
from flowtts_core.nn.conv import Upsampling

_DILATIONS = (1, 3, 9)


@dataclass(frozen=True)
class OobleckConfig:
    """Sizes of the autoencoder.

    Attributes:
        audio_channels: 1 for mono, 2 for stereo.
        channels: at the full rate; each stage has `multiples` times as many.
        strides: of the stages; their product is the samples of a latent frame.
        latent: D features of a latent frame.
        tanh: the decoder ends in one.
    """

    audio_channels: int = 2
    channels: int = 128
    multiples: tuple[int, ...] = (1, 2, 4, 8, 16)
    strides: tuple[int, ...] = (2, 4, 4, 8, 8)
    latent: int = 64
    tanh: bool = False

    def __post_init__(self) -> None:
        sizes = (self.audio_channels, self.channels, self.latent, *self.multiples, *self.strides)
        if min(sizes) < 1 or len(self.multiples) != len(self.strides) or min(self.strides) < 2:
            raise ConfigError(
                f"OobleckConfig: multiples {list(self.multiples)}, strides {list(self.strides)}",
                "give as many multiples as strides, sizes of 1 or more, strides of 2 or more",
            )

    @property
    def hop_length(self) -> int:
        """Return the samples of a latent frame."""
        return math.prod(self.strides)


class Snake(nn.Module):
    """`x + sin^2(x e^alpha) / e^beta`, with parameters of each channel of [B, C, T] (BigVGAN, arXiv 2206.04658)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        alpha, beta = self.alpha.exp()[:, None], self.beta.exp()[:, None]
        return x + (x * alpha).sin().square() / (beta + 1e-9)


class _Layers(nn.Module):
    """Holds its parts under the name `layers`, as published."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class _Residual(_Layers):
    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__(
            Snake(channels),
            nn.Conv1d(channels, channels, 7, dilation=dilation, padding=3 * dilation),
            Snake(channels),
            nn.Conv1d(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def _encoder(config: OobleckConfig) -> nn.Module:
    width = config.channels
    parts: list[nn.Module] = [nn.Conv1d(config.audio_channels, width, 7, padding=3)]
    for multiple, stride in zip(config.multiples, config.strides, strict=True):
        after = multiple * config.channels
        units = [_Residual(width, dilation) for dilation in _DILATIONS]
        down = nn.Conv1d(width, after, 2 * stride, stride, padding=math.ceil(stride / 2))
        parts.append(_Layers(*units, Snake(width), down))
        width = after
    parts += [Snake(width), nn.Conv1d(width, 2 * config.latent, 3, padding=1)]
    return _Layers(*parts)


def _decoder(config: OobleckConfig) -> nn.Module:
    widths = [config.channels, *(multiple * config.channels for multiple in config.multiples)]
    parts: list[nn.Module] = [nn.Conv1d(config.latent, widths[-1], 7, padding=3)]
    for stage in reversed(range(len(config.strides))):
        units = [_Residual(widths[stage], dilation) for dilation in _DILATIONS]
        stride = config.strides[stage]
        up = Upsampling(widths[stage + 1], widths[stage], 2 * stride, stride)
        parts.append(_Layers(Snake(widths[stage + 1]), up, *units))
    parts += [Snake(widths[0]), nn.Conv1d(widths[0], config.audio_channels, 7, padding=3, bias=False)]
    return _Layers(*parts)


class Oobleck(nn.Module):
    """Waveforms [B, A, S] to latents [B, D, T] and back; S is a multiple of the hop, T = S / hop."""

    def __init__(self, config: OobleckConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = _encoder(config), _decoder(config)

    def distribution(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation [B, D, T] of the latents of waveforms [B, A, S].

        Raises:
            ConfigError: where the length is no multiple of the hop.
        """
        hop = self.config.hop_length
        if not waveform.shape[2] or waveform.shape[2] % hop:
            raise ConfigError(f"{waveform.shape[2]} samples", f"pad the sound to a multiple of {hop}")
        mean, scale = self.encoder(waveform).chunk(2, 1)
        return mean, F.softplus(scale) + 1e-4

    def encode(self, waveform: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return latents [B, D, T]: the mean, or a draw by unit noise of that shape."""
        mean, deviation = self.distribution(waveform)
        return mean if noise is None else mean + deviation * noise

    def decode(self, latents: Tensor) -> Tensor:
        """Return waveforms [B, A, S]."""
        waveform = self.decoder(latents)
        return waveform.tanh() if self.config.tanh else waveform


def kl_to_normal(mean: Tensor, deviation: Tensor) -> Tensor:
    """Return the mean over items and frames of the divergence of latents [B, D, T] from unit noise, summed over features."""
    variance = deviation.square()
    return (mean.square() + variance - variance.log() - 1).sum(1).mean() / 2
