"""The convolutional nets of DAC and FACodec between samples and frames, with periodic activations: [B, C, T].

Sources: Kumar et al., "High-Fidelity Audio Compression with Improved RVQGAN" (arXiv 2306.06546, section 3.1); for activations
without aliasing, Lee et al., "BigVGAN" (arXiv 2206.04658, section 3.2). State-dict names are the published ones, without
weight norm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowtts_core.nn.conv import Upsampling

Activation = Callable[[int], nn.Module]
"""Makes the activation of so many channels."""

_TAPS = 12  # of the filters around an activation, as published


class Snake(nn.Module):
    """`x + sin(alpha x)^2 / alpha` (Ziyin et al. 2020, arXiv 2006.08195)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + (self.alpha * x).sin().square() / (self.alpha + 1e-9)


class _SnakeBeta(nn.Module):
    """`x + sin(e^alpha x)^2 / e^beta`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        alpha, beta = self.alpha.exp()[:, None], self.beta.exp()[:, None]
        return x + (alpha * x).sin().square() / (beta + 1e-9)


class _Filter(nn.Module):
    """The low-pass filter on either side of an activation."""

    filter: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filter", kaiser_sinc(0.25, 0.3, _TAPS)[None, None])


class _LowPass(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lowpass = _Filter()


class AntiAliased(nn.Module):
    """A `_SnakeBeta` at twice the rate, between filters, so that its harmonics do not fold back."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.act = _SnakeBeta(channels)
        self.upsample, self.downsample = _Filter(), _LowPass()

    def forward(self, x: Tensor) -> Tensor:
        channels, side = x.shape[1], _TAPS // 2 - 1
        up = self.upsample.filter.expand(channels, -1, -1)
        raised = 2 * F.conv_transpose1d(F.pad(x, (side, side), "replicate"), up, stride=2, groups=channels)
        raised = self.act(raised[..., 3 * side : raised.shape[-1] - 3 * side])
        down = self.downsample.lowpass.filter.expand(channels, -1, -1)
        return F.conv1d(F.pad(raised, (side, side + 1), "replicate"), down, stride=2, groups=channels)


def kaiser_sinc(cutoff: float, half_width: float, taps: int) -> Tensor:
    """Return a low-pass filter [taps] of an even length, whose sum is 1.

    Args:
        cutoff, half_width: of the pass band and of the transition, as shares of the sample rate.
    """
    attenuation = 2.285 * (taps // 2 - 1) * math.pi * 4 * half_width + 7.95
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    else:
        beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21) if attenuation >= 21 else 0.0
    time = torch.arange(taps) - taps // 2 + 0.5
    made = 2 * cutoff * torch.kaiser_window(taps, periodic=False, beta=beta) * torch.sinc(2 * cutoff * time)
    return made / made.sum()


class ResidualUnit(nn.Module):
    """A dilated and a pointwise convolution, each behind an activation, beside the input."""

    def __init__(self, channels: int, dilation: int, activation: Activation) -> None:
        super().__init__()
        self.block = nn.Sequential(
            activation(channels),
            nn.Conv1d(channels, channels, 7, dilation=dilation, padding=3 * dilation),
            activation(channels),
            nn.Conv1d(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.block(x)
        return x + made


class _Block(nn.Module):
    """Layers under their published name."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.block(x)
        return made


class DACEncoder(nn.Module):
    """[B, 1, S] -> [B, dimension, S / the product of strides]; S must be a multiple of that.

    Args:
        width: at the samples; each stride doubles it.
    """

    def __init__(self, width: int, strides: Sequence[int], dimension: int, activation: Activation) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv1d(1, width, 7, padding=3)]
        for stride in strides:
            units = [ResidualUnit(width, dilation, activation) for dilation in (1, 3, 9)]
            down = nn.Conv1d(width, 2 * width, 2 * stride, stride, padding=-(-stride // 2))
            layers.append(_Block([*units, activation(width), down]))
            width *= 2
        layers += [activation(width), nn.Conv1d(width, dimension, 3, padding=1)]
        self.block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.block(x)
        return made


class DACDecoder(nn.Module):
    """[B, dimension, T] -> [B, 1, T * the product of strides]; where strides are odd, the last few samples are zero.

    Args:
        width: at the frames; each stride halves it.
    """

    def __init__(self, dimension: int, width: int, strides: Sequence[int], activation: Activation) -> None:
        super().__init__()
        self.model = decoder_layers(dimension, width, strides, activation, complete=False)
        self.hop_length = math.prod(strides)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.model(x)
        return F.pad(made, (0, x.shape[-1] * self.hop_length - made.shape[-1]))


def decoder_layers(
    dimension: int, width: int, strides: Sequence[int], activation: Activation, complete: bool
) -> nn.Sequential:
    """Return the layers of a decoder, as `DACDecoder` takes them.

    Args:
        complete: whether odd strides make all their samples; DAC's fall one short each.
    """
    layers: list[nn.Module] = [nn.Conv1d(dimension, width, 7, padding=3)]
    for stride in strides:
        up = Upsampling(
            width, width // 2, 2 * stride, stride, padding=-(-stride // 2), output_padding=complete * (stride % 2)
        )
        units = [ResidualUnit(width // 2, dilation, activation) for dilation in (1, 3, 9)]
        layers.append(_Block([activation(width), up, *units]))
        width //= 2
    layers += [activation(width), nn.Conv1d(width, 1, 7, padding=3), nn.Tanh()]
    return nn.Sequential(*layers)
