"""A U-Net on the waveform, which tells of a noisy sound and its mel what the clean sound is, or what the noise.

Source: Luo et al., "WaveFM: A High-Fidelity and Efficient Vocoder Based on Flow Matching" (arXiv 2503.16689), section 3.3.
Unlike in the published code, padding changes nothing: every convolution sees zeros beyond an item's end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flowtts_core.audio.mel import WAVEFM_24K, MelConfig
from flowtts_core.errors import ConfigError
from flowtts_core.nn.conv import Upsampling
from flowtts_core.nn.graph import Graph, Runners
from flowtts_core.nn.masks import length_mask

_KERNEL = 7  # of the first and the last convolutions
_NOISE_FRAMES = 512  # after which the noise repeats
_TIME_WIDTH = 128


@dataclass(frozen=True)
class WaveUNetConfig:
    """Sizes of the U-Net; the defaults are those of WaveFM's published 24 kHz model.

    Attributes:
        mel: the mel it reads.
        channels: widths from the frame rate up to the sample rate.
        upsample_rates: even; one less than widths, and their product is the hop.
        kernel_sizes, dilations: of the residual blocks of each stage on the way up; several kernels are averaged.
        down_kernel_size, down_dilations: of those on the way down.
        time_channels: width of the embedding of time.
    """

    mel: MelConfig = WAVEFM_24K
    channels: tuple[int, ...] = (512, 256, 128, 64, 32)
    upsample_rates: tuple[int, ...] = (8, 8, 2, 2)
    kernel_sizes: tuple[int, ...] = (3, 7, 11)
    dilations: tuple[int, ...] = (1, 3, 5)
    down_kernel_size: int = 3
    down_dilations: tuple[int, ...] = (1, 1, 1, 1)
    time_channels: int = 512

    def __post_init__(self) -> None:
        rows = (self.channels, self.upsample_rates, self.kernel_sizes, self.dilations, self.down_dilations)
        if min(min(row, default=0) for row in (*rows, (self.time_channels, self.down_kernel_size))) < 1:
            raise ConfigError(f"{type(self).__name__}: a size below 1, or none of a kind", "use 1 or more of each")
        if any(kernel % 2 == 0 for kernel in (*self.kernel_sizes, self.down_kernel_size)):
            raise ConfigError(f"kernel_sizes = {list(self.kernel_sizes)}, {self.down_kernel_size}", "use odd sizes")

    def check(self) -> None:
        """Raise ConfigError unless the fields go together, which they need not while `--set` changes one after the other."""
        rates = self.upsample_rates
        if math.prod(rates) != self.mel.hop_length or any(rate % 2 for rate in rates):
            raise ConfigError(
                f"upsample_rates = {list(rates)} make {math.prod(rates)} samples of a frame, but the mel's hop is"
                f" {self.mel.hop_length}",
                "use even rates whose product is the hop",
            )
        if len(self.channels) != len(rates) + 1:
            raise ConfigError(f"{len(self.channels)} channels for {len(rates)} rates", f"use {len(rates) + 1}")


class Snake(nn.Module):
    """`x + sin(e^alpha x)^2 / e^beta` for each channel of [B, C, T] (Ziyin et al. 2020, arXiv 2006.08195)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(1, channels, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + (self.alpha.exp() * x).sin().square() / (self.beta.exp() + 1e-8)


class Residual(nn.Module):
    """Two convolutions, the first of them dilated, each behind a Snake: [B, C, T] -> [B, C, T]."""

    def __init__(self, channels: int, kernel: int, dilation: int) -> None:
        super().__init__()
        side = kernel // 2
        self.act1, self.act2 = Snake(channels), Snake(channels)
        self.conv1 = nn.Conv1d(channels, channels, kernel, dilation=dilation, padding=dilation * side)
        self.conv2 = nn.Conv1d(channels, channels, kernel, padding=side)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        hidden = masked(self.conv1(self.act1(x)), mask)
        return x + masked(self.conv2(self.act2(hidden)), mask)


class Residuals(nn.Module):
    """The mean over kernels of residual blocks of each dilation in turn."""

    def __init__(self, channels: int, kernels: tuple[int, ...], dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.chain = len(dilations)
        self.blocks = nn.ModuleList(
            Residual(channels, kernel, dilation) for kernel in kernels for dilation in dilations
        )

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        several = []
        for first in range(0, len(self.blocks), self.chain):
            hidden = x
            for block in self.blocks[first : first + self.chain]:
                hidden = block(hidden, mask)
            several.append(hidden)
        return torch.stack(several).mean(0)


class WaveUNet(nn.Module):
    """Predicts, from a noisy waveform [B, S] at times [B] and its mel [B, M, T], the clean waveform or the noise [B, S].

    Args:
        bounded: whether that lies in [-1, 1], as sound does.
    """

    def __init__(self, config: WaveUNetConfig, bounded: bool = True) -> None:
        super().__init__()
        config.check()
        self.config, self.bounded = config, bounded
        self.rates, widths = config.upsample_rates, config.channels
        side = _KERNEL // 2
        hidden = config.time_channels
        self.time_in = nn.Sequential(nn.Linear(_TIME_WIDTH, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
        self.mel_in = nn.Conv1d(config.mel.rows, widths[0], _KERNEL, padding=side)
        self.wave_in = nn.Conv1d(1, widths[-1], _KERNEL, padding=side)
        pairs = list(zip(widths, widths[1:], self.rates, strict=False))
        self.ups = nn.ModuleList(Upsampling(a, b, 2 * r, r) for a, b, r in pairs)
        self.downs = nn.ModuleList(nn.Conv1d(b, a, 2 * r + 1, r, padding=r) for a, b, r in pairs)
        self.times = nn.ModuleList(nn.Linear(hidden, width) for width in widths[1:])
        self.up_blocks = nn.ModuleList(Residuals(w, config.kernel_sizes, config.dilations) for w in widths[1:])
        kernels = (config.down_kernel_size,)
        self.down_blocks = nn.ModuleList(Residuals(w, kernels, config.down_dilations) for w in widths[1:])
        self.act_out = Snake(widths[-1])
        self.out = nn.Conv1d(widths[-1], 1, _KERNEL, padding=side)

    def forward(self, x: Tensor, t: Tensor, mel: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the predicted waveform; `mask` [B, 1, T] is 1 on valid frames."""
        masks = [mask]
        for rate in self.rates:
            mask = None if mask is None else mask.repeat_interleave(rate, 2)
            masks.append(mask)
        time = self.time_in(_time_embedding(t))
        hidden = masked(self.wave_in(x[:, None]), masks[-1])
        skipped = [hidden]
        for stage in reversed(range(len(self.rates))):
            hidden = masked(hidden + self.times[stage](time)[:, :, None], masks[stage + 1])
            hidden = self.down_blocks[stage](hidden, masks[stage + 1])
            hidden = masked(self.downs[stage](hidden), masks[stage])
            skipped.append(hidden)
        hidden = masked(self.mel_in(mel), masks[0]) + skipped.pop()
        for stage in range(len(self.rates)):
            hidden = masked(self.ups[stage](hidden), masks[stage + 1]) + skipped.pop()
            hidden = self.up_blocks[stage](hidden, masks[stage + 1])
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 would be heard as noise
            predicted: Tensor = self.out(self.act_out(hidden.to(x.dtype)))
        return masked(predicted.tanh() if self.bounded else predicted, masks[-1])[:, 0]

    def context(self) -> int:
        """Return the frames to either side that a predicted sample depends on."""
        c, reach = self.config, _KERNEL // 2  # in samples of the stage: from the last up to the first, and down again
        up = max(c.kernel_sizes) // 2 * (sum(c.dilations) + len(c.dilations))
        down = c.down_kernel_size // 2 * (sum(c.down_dilations) + len(c.down_dilations))
        for rate in reversed(self.rates):
            reach = -(-(reach + up + 2 * rate - 1 - rate // 2) // rate)
        in_mel = reach + _KERNEL // 2
        for rate in self.rates:
            reach = (reach + 1) * rate + down
        return max(in_mel, -(-(reach + _KERNEL // 2) // math.prod(self.rates)))


class FrameNoise(nn.Module):
    """Standard normal noise that belongs to frames: a window of a sound has the noise that the whole has there."""

    noise: Tensor

    def __init__(self, hop_length: int) -> None:
        super().__init__()
        with torch.device("cpu"):  # also where a model is built on "meta", only to count its parameters
            noise = torch.randn(_NOISE_FRAMES, hop_length, generator=torch.Generator().manual_seed(0))
        self.register_buffer("noise", noise, persistent=False)

    def forward(self, mel: Tensor, start: Tensor | None = None) -> Tensor:
        """Return [B, T * hop_length] for mels [B, M, T]; `start` [B, 2] has the place of the first frame in the second column."""
        frames = torch.arange(mel.shape[-1], device=self.noise.device)[None]
        if start is not None:
            frames = frames + start[:, 1:].to(self.noise.device).long()
        return self.noise[frames % _NOISE_FRAMES].flatten(1).expand(len(mel), -1).to(mel.dtype)


def mask_of(mel: Tensor, lengths: Tensor | None) -> Tensor | None:
    """Return a mask [B, 1, T] that is 1 on valid frames; None where nothing is padded."""
    if lengths is None or not bool((lengths != mel.shape[-1]).any()):
        return None
    return length_mask(lengths, mel.shape[-1])[:, None].to(mel.dtype)


def crops_of(mel: Tensor, waveform: Tensor, hop_length: int) -> tuple[Tensor, Tensor]:
    """Return the frames of a crop whose samples are all there, and these: a "center" mel's last frame has none."""
    frames = waveform.shape[1] // hop_length
    return mel[:, :, :frames], waveform[:, : frames * hop_length]


class _NetGraph(nn.Module):
    """One evaluation of the net of one item, under its name in the vocoder."""

    def __init__(self, net: WaveUNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, t: Tensor, mel: Tensor) -> tuple[Tensor]:
        return (self.net(x, t, mel),)


def net_graph(net: WaveUNet, output: str) -> Graph:
    """Return one evaluation of a vocoder's `net` as a graph: a waveform, its time and its mel to `output`."""
    frames, mel = 8, net.config.mel
    example = {
        "x": torch.zeros(1, frames * mel.hop_length),
        "t": torch.zeros(1),
        "mel": torch.zeros(1, mel.rows, frames),
    }
    return Graph(_NetGraph(net), example, (output,), {"x": 1, "mel": 2, output: 1})


def evaluate(
    net: WaveUNet, runners: Runners, name: str, x: Tensor, t: Tensor, mel: Tensor, mask: Tensor | None
) -> Tensor:
    """Return what the net says, by the runner of its graph where there is one and nothing is padded."""
    if name in runners and mask is None:
        own = zip(x.split(1), t.split(1), mel.split(1), strict=True)
        return torch.cat([runners[name](*item)[0] for item in own])
    predicted: Tensor = net(x, t, mel, mask)
    return predicted


def _time_embedding(t: Tensor) -> Tensor:
    """Embed times [B] as [B, 128]; in the published order of operations, since angles reach a million."""
    place = torch.arange(_TIME_WIDTH // 2, device=t.device)
    angle = 100 * t[:, None] * 10.0 ** (place * 4.0 / 63.0)
    return torch.cat([angle.sin(), angle.cos()], 1)


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return x with zeros where the mask is zero; None masks nothing."""
    return x if mask is None else x * mask
