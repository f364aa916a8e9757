"""WaveFM: flow matching on the waveform itself, from noise as loud as the mel says.

Source: Luo et al., "WaveFM: A High-Fidelity and Efficient Vocoder Based on Flow Matching" (arXiv 2503.16689), sections 3.1 to
3.3. A U-Net predicts the clean waveform, of which the velocity is (x_1 - x) / (1 - t); a distilled one takes a single step.
Unlike in the published code, padding changes nothing: every convolution sees zeros beyond an item's end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from flowtts_core.audio.mel import F5_24K, MelConfig
from flowtts_core.config import build
from flowtts_core.errors import ConfigError
from flowtts_core.flow import SOLVERS, TIME_GRIDS
from flowtts_core.nn.masks import length_mask
from flowtts_core.vocoder.base import Vocoder

WAVEFM_24K = replace(F5_24K, power=2.0)
"""The mel of WaveFM's published models: F5-TTS's, of powers."""
_KERNEL = 7  # of the first and the last convolutions
_FAINTEST = 0.001  # standard deviation of the noise where a mel is silent
_LOUDEST = 32768.0  # energy of a band that has noise of standard deviation 1
_NOISE_FRAMES = 512  # after which the noise repeats
_TIME_WIDTH = 128


@dataclass(frozen=True)
class WaveFMConfig:
    """Sizes of a WaveFM, and how it is sampled; the defaults are the published 24 kHz model's.

    Attributes:
        mel: the mel it reads.
        channels: widths from the frame rate up to the sample rate.
        upsample_rates: even; one less than widths, and their product is the hop.
        kernel_sizes, dilations: of the residual blocks of each stage on the way up; several kernels are averaged.
        down_kernel_size, down_dilations: of those on the way down.
        time_channels: width of the embedding of time.
        steps: of the solver; 1 for a distilled model.
        solver, grid: "euler" or "midpoint", and a time grid's spec. Heun's method would ask for the velocity at time 1.
    """

    mel: MelConfig = WAVEFM_24K
    channels: tuple[int, ...] = (512, 256, 128, 64, 32)
    upsample_rates: tuple[int, ...] = (8, 8, 2, 2)
    kernel_sizes: tuple[int, ...] = (3, 7, 11)
    dilations: tuple[int, ...] = (1, 3, 5)
    down_kernel_size: int = 3
    down_dilations: tuple[int, ...] = (1, 1, 1, 1)
    time_channels: int = 512
    steps: int = 6
    solver: str = "euler"
    grid: dict[str, Any] = field(default_factory=lambda: {"name": "uniform"})

    def __post_init__(self) -> None:
        rows = (self.channels, self.upsample_rates, self.kernel_sizes, self.dilations, self.down_dilations)
        if min(min(row, default=0) for row in (*rows, (self.time_channels, self.down_kernel_size))) < 1:
            raise ConfigError("WaveFMConfig: a size below 1, or none of a kind", "use 1 or more of each")
        if any(kernel % 2 == 0 for kernel in (*self.kernel_sizes, self.down_kernel_size)):
            raise ConfigError(f"kernel_sizes = {list(self.kernel_sizes)}, {self.down_kernel_size}", "use odd sizes")
        if not 1 <= self.steps <= 1000:
            raise ConfigError(f"steps = {self.steps}", "use 1 to 1000")
        if self.solver not in ("euler", "midpoint"):
            raise ConfigError(f"solver = {self.solver!r}", "use 'euler' or 'midpoint'")
        build(TIME_GRIDS, self.grid)

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
        hidden = _masked(self.conv1(self.act1(x)), mask)
        return x + _masked(self.conv2(self.act2(hidden)), mask)


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


class CleanWave(nn.Module):
    """The U-Net: a noisy waveform [B, S] at times [B], with its mel [B, M, T], to the clean one [B, S]."""

    def __init__(self, config: WaveFMConfig) -> None:
        super().__init__()
        self.config, self.rates, widths = config, config.upsample_rates, config.channels
        side = _KERNEL // 2
        hidden = config.time_channels
        self.time_in = nn.Sequential(nn.Linear(_TIME_WIDTH, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
        self.mel_in = nn.Conv1d(config.mel.rows, widths[0], _KERNEL, padding=side)
        self.wave_in = nn.Conv1d(1, widths[-1], _KERNEL, padding=side)
        pairs = list(zip(widths, widths[1:], self.rates, strict=False))
        self.ups = nn.ModuleList(nn.ConvTranspose1d(a, b, 2 * r, r, padding=r // 2) for a, b, r in pairs)
        self.downs = nn.ModuleList(nn.Conv1d(b, a, 2 * r + 1, r, padding=r) for a, b, r in pairs)
        self.times = nn.ModuleList(nn.Linear(hidden, width) for width in widths[1:])
        self.up_blocks = nn.ModuleList(Residuals(w, config.kernel_sizes, config.dilations) for w in widths[1:])
        kernels = (config.down_kernel_size,)
        self.down_blocks = nn.ModuleList(Residuals(w, kernels, config.down_dilations) for w in widths[1:])
        self.act_out = Snake(widths[-1])
        self.out = nn.Conv1d(widths[-1], 1, _KERNEL, padding=side)

    def forward(self, x: Tensor, t: Tensor, mel: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the clean waveform; `mask` [B, 1, T] is 1 on valid frames."""
        masks = [mask]
        for rate in self.rates:
            mask = None if mask is None else mask.repeat_interleave(rate, 2)
            masks.append(mask)
        time = self.time_in(_time_embedding(t))
        hidden = _masked(self.wave_in(x[:, None]), masks[-1])
        skipped = [hidden]
        for stage in reversed(range(len(self.rates))):
            hidden = _masked(hidden + self.times[stage](time)[:, :, None], masks[stage + 1])
            hidden = self.down_blocks[stage](hidden, masks[stage + 1])
            hidden = _masked(self.downs[stage](hidden), masks[stage])
            skipped.append(hidden)
        hidden = _masked(self.mel_in(mel), masks[0]) + skipped.pop()
        for stage in range(len(self.rates)):
            hidden = _masked(self.ups[stage](hidden), masks[stage + 1]) + skipped.pop()
            hidden = self.up_blocks[stage](hidden, masks[stage + 1])
        waveform: Tensor = _masked(self.out(self.act_out(hidden)).tanh(), masks[-1])[:, 0]
        return waveform

    def context(self) -> int:
        """Return the frames to either side that a clean sample depends on."""
        c, reach = self.config, _KERNEL // 2  # in samples of the stage: from the last up to the first, and down again
        up = max(c.kernel_sizes) // 2 * (sum(c.dilations) + len(c.dilations))
        down = c.down_kernel_size // 2 * (sum(c.down_dilations) + len(c.down_dilations))
        for rate in reversed(self.rates):
            reach = -(-(reach + up + 2 * rate - 1 - rate // 2) // rate)
        in_mel = reach + _KERNEL // 2
        for rate in self.rates:
            reach = (reach + 1) * rate + down
        return max(in_mel, -(-(reach + _KERNEL // 2) // math.prod(self.rates)))


class WaveFM(Vocoder):
    """The vocoder; `forward` as `Vocoder` states it."""

    def __init__(self, config: WaveFMConfig) -> None:
        super().__init__()
        config.check()
        self.config, self.features = config, config.mel
        self.net = CleanWave(config)
        evaluations = config.steps * (2 if config.solver == "midpoint" else 1)
        self.context_frames = self.net.context() * evaluations  # each depends on what the one before made beside it
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(_NOISE_FRAMES, config.mel.hop_length, generator=generator)
        self.register_buffer("noise", noise, persistent=False)
        self.noise: Tensor

    def start_at(self, mel: Tensor, frame: int) -> Tensor:
        """Return [0, frame]: the noise is that of the frame."""
        return torch.tensor([0.0, float(frame)], dtype=torch.float64)

    def forward(self, mel: Tensor, lengths: Tensor | None = None, start: Tensor | None = None) -> Tensor:
        frames = torch.arange(mel.shape[-1], device=self.noise.device)[None]
        if start is not None:
            frames = frames + start[:, 1:].to(self.noise.device).long()
        noise = self.noise[frames % _NOISE_FRAMES].flatten(1).expand(len(mel), -1)
        waveform = self.sample(mel, noise.to(mel.dtype), lengths)
        waveform = waveform[
            :, : self.features.samples_of(mel.shape[-1])
        ]  # as published, a frame begins where its samples do
        return self.ended(waveform, lengths)

    def sample(self, mel: Tensor, noise: Tensor, lengths: Tensor | None = None, times: Tensor | None = None) -> Tensor:
        """Return [B, T * hop_length] from standard normal noise of that shape.

        Args:
            times: [steps + 1] from 0 to 1 at which the solver stops; by default those of the config's grid.
        """
        mask = None
        if lengths is not None and bool((lengths != mel.shape[-1]).any()):
            mask = length_mask(lengths, mel.shape[-1])[:, None].to(mel.dtype)  # [B, 1, T]
        mel = _masked(mel, mask)
        x_0 = _masked(self.loudness(mel), mask)[:, 0].repeat_interleave(self.features.hop_length, 1) * noise

        def velocity(x: Tensor, t: Tensor, condition: tuple[Tensor, Tensor | None]) -> Tensor:
            return (self.net(x, t, *condition) - x) / (1 - t[:, None])

        if times is None:
            times = build(TIME_GRIDS, self.config.grid).times(self.config.steps)
        solver = build(SOLVERS, {"name": self.config.solver})
        waveform: Tensor = solver.solve(velocity, x_0, times, (mel, mask)).x
        return waveform

    def loudness(self, mel: Tensor) -> Tensor:
        """Return the standard deviation [B, 1, T] of the noise, from the energy of the mel's bands."""
        energy = (mel[:, : self.features.n_mels] * (2 / self.features.power)).exp().sum(1, keepdim=True)
        return (energy / (self.features.n_mels * _LOUDEST)).sqrt().clamp(min=_FAINTEST)


def _time_embedding(t: Tensor) -> Tensor:
    """Embed times [B] as [B, 128]; in the published order of operations, since angles reach a million."""
    place = torch.arange(_TIME_WIDTH // 2, device=t.device)
    angle = 100 * t[:, None] * 10.0 ** (place * 4.0 / 63.0)
    return torch.cat([angle.sin(), angle.cos()], 1)


def _masked(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask
