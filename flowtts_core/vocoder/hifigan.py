"""HiFi-GAN: transposed convolutions raise a mel to the sample rate, and residual blocks of several kernels shape the sound.

Source: Kong et al., "HiFi-GAN: Generative Adversarial Networks for Efficient and High Fidelity Speech Synthesis" (arXiv
2010.05646), section 2.2, with the sizes of its appendix A. State-dict names below `generator` are the published ones, without
weight norm. Unlike in the published code, padding changes nothing: every convolution sees zeros beyond an item's end.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from flowtts_core.audio.mel import MelConfig
from flowtts_core.errors import ConfigError
from flowtts_core.nn.conv import Upsampling, conv_laid, frames_together
from flowtts_core.nn.graph import Graph
from flowtts_core.nn.masks import length_mask
from flowtts_core.vocoder.base import Vocoder
from flowtts_core.vocoder.denoiser import HOPS, hum_of, subtract_hum

SLOPE, LAST_SLOPE = 0.1, 0.01  # of the leaky ReLUs; the last one has torch's default, in the paper's code too
_KERNEL = 7  # of the first and the last convolution


@dataclass(frozen=True)
class HiFiGANConfig:
    """Sizes of a HiFi-GAN; the names are those of the published config.json, the defaults its V1.

    Attributes:
        mel: the mel it reads.
        resblock: "1": two convolutions for each dilation; "2": one.
        upsample_rates, upsample_kernel_sizes: of each stage; the product of the rates is the hop.
        upsample_initial_channel: width before the first stage; each stage halves it.
        resblock_kernel_sizes, resblock_dilation_sizes: of each residual block of a stage; a stage's sum is averaged.
        denoise: strength of the denoiser outside training; 0 is none. Matcha-TTS uses 0.00025 by default.
    """

    mel: MelConfig = field(default_factory=MelConfig)
    resblock: str = "1"
    upsample_rates: tuple[int, ...] = (8, 8, 2, 2)
    upsample_kernel_sizes: tuple[int, ...] = (16, 16, 4, 4)
    upsample_initial_channel: int = 512
    resblock_kernel_sizes: tuple[int, ...] = (3, 7, 11)
    resblock_dilation_sizes: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    denoise: float = 0.0

    def __post_init__(self) -> None:
        if self.resblock not in ("1", "2"):
            raise ConfigError(f"HiFiGANConfig.resblock = {self.resblock!r}", "use '1' or '2'")
        if not 0 <= self.denoise <= 1:
            raise ConfigError(f"HiFiGANConfig.denoise = {self.denoise}", "use 0 (none) to 1; 0.00025 is usual")
        rows = (self.upsample_rates, self.upsample_kernel_sizes, self.resblock_kernel_sizes, (1,))
        if any(min(row, default=0) < 1 for row in (*rows, *self.resblock_dilation_sizes)):
            raise ConfigError(
                "HiFiGANConfig: a rate, kernel size or dilation below 1, or none of a kind", "use 1 or more"
            )
        if any(kernel % 2 == 0 for kernel in self.resblock_kernel_sizes):
            raise ConfigError(f"resblock_kernel_sizes = {list(self.resblock_kernel_sizes)}", "use odd sizes")

    def check(self) -> None:
        """Raise ConfigError unless the fields go together, which they need not while `--set` changes one after the other."""
        rates, kernels = self.upsample_rates, self.upsample_kernel_sizes
        if math.prod(rates) != self.mel.hop_length:
            raise ConfigError(
                f"upsample_rates = {list(rates)} make {math.prod(rates)} samples of a frame, but the mel's hop is"
                f" {self.mel.hop_length}",
                "set upsample_rates (and upsample_kernel_sizes, each its rate plus an even number) to the mel's hop",
            )
        if len(rates) != len(kernels) or any(k < u or (k - u) % 2 for k, u in zip(kernels, rates, strict=True)):
            raise ConfigError(
                f"upsample_kernel_sizes = {list(kernels)} for rates {list(rates)}",
                "use one for each rate: the rate plus an even number, as twice an even rate",
            )
        if len(self.resblock_kernel_sizes) != len(self.resblock_dilation_sizes):
            raise ConfigError(
                f"{len(self.resblock_dilation_sizes)} rows of resblock_dilation_sizes for"
                f" {len(self.resblock_kernel_sizes)} resblock_kernel_sizes",
                "use one row for each kernel size",
            )
        if self.upsample_initial_channel < 2 ** len(rates):
            raise ConfigError(
                f"upsample_initial_channel = {self.upsample_initial_channel}",
                f"use at least {2 ** len(rates)}: each of {len(rates)} stages halves it",
            )


HIFIGAN_V1 = HiFiGANConfig()
HIFIGAN_V2 = HiFiGANConfig(upsample_initial_channel=128)
HIFIGAN_V3 = HiFiGANConfig(
    resblock="2",
    upsample_rates=(8, 8, 4),
    upsample_kernel_sizes=(16, 16, 8),
    upsample_initial_channel=256,
    resblock_kernel_sizes=(3, 5, 7),
    resblock_dilation_sizes=((1, 2), (2, 6), (3, 12)),
)


class ResBlock1(nn.Module):
    """Residuals of two convolutions each, the first of them dilated: [B, C, T] -> [B, C, T]."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(_same(channels, kernel, dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(_same(channels, kernel, 1) for _ in dilations)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        for first, second in zip(self.convs1, self.convs2, strict=True):
            hidden = _masked(conv_laid(first, nn.functional.leaky_relu(x, SLOPE)), mask)
            x = x + _masked(conv_laid(second, nn.functional.leaky_relu(hidden, SLOPE)), mask)
        return x


class ResBlock2(nn.Module):
    """Residuals of one dilated convolution each: [B, C, T] -> [B, C, T]."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_same(channels, kernel, dilation) for dilation in dilations)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        for conv in self.convs:
            x = x + _masked(conv_laid(conv, nn.functional.leaky_relu(x, SLOPE)), mask)
        return x


class Generator(nn.Module):
    """Mels [B, M, T] to waveforms [B, T * hop_length]; names of its parts are the published ones."""

    def __init__(self, config: HiFiGANConfig) -> None:
        super().__init__()
        self.config = config
        width, block = config.upsample_initial_channel, ResBlock1 if config.resblock == "1" else ResBlock2
        self.conv_pre = nn.Conv1d(config.mel.rows, width, _KERNEL, padding=_KERNEL // 2)
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()
        for rate, kernel in zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True):
            self.ups.append(Upsampling(width, width // 2, kernel, rate))
            width //= 2
            for size, dilations in zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True):
                self.resblocks.append(block(width, size, dilations))
        self.conv_post = nn.Conv1d(width, 1, _KERNEL, padding=_KERNEL // 2)

    def forward(self, mel: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the waveforms; `mask` [B, 1, T] is 1 on valid frames."""
        x = _masked(conv_laid(self.conv_pre, frames_together(_masked(mel, mask))), mask)
        blocks = len(self.config.resblock_kernel_sizes)
        for stage, (up, rate) in enumerate(zip(self.ups, self.config.upsample_rates, strict=True)):
            mask = None if mask is None else mask.repeat_interleave(rate, 2)
            x = _masked(up(nn.functional.leaky_relu(x, SLOPE)), mask)
            several = self.resblocks[stage * blocks : (stage + 1) * blocks]
            x = functools.reduce(torch.add, [block(x, mask) for block in several]) / blocks
        waveform: Tensor = torch.tanh(conv_laid(self.conv_post, nn.functional.leaky_relu(x, LAST_SLOPE)))[:, 0]
        return waveform

    def context(self) -> int:
        """Return the frames to either side that a frame's samples depend on."""
        c, reach = self.config, _KERNEL // 2  # in samples of the stage, from the last to the first
        rows = zip(c.resblock_kernel_sizes, c.resblock_dilation_sizes, strict=True)
        plain = len(c.resblock_dilation_sizes[0]) if c.resblock == "1" else 0
        widest = max(size // 2 * (sum(dilations) + plain) for size, dilations in rows)
        for rate, kernel in zip(reversed(c.upsample_rates), reversed(c.upsample_kernel_sizes), strict=True):
            reach = -(-(reach + widest + kernel - 1 - (kernel - rate) // 2) // rate)
        return reach + _KERNEL // 2


class _WaveformGraph(nn.Module):
    """The generator of one item under its name in the vocoder."""

    def __init__(self, own: Generator) -> None:
        super().__init__()
        self.generator = own

    def forward(self, mel: Tensor) -> tuple[Tensor]:
        return (self.generator(mel),)


class HiFiGAN(Vocoder):
    """The vocoder; `forward` as `Vocoder` states it."""

    weight_norm = True

    def __init__(self, config: HiFiGANConfig) -> None:
        super().__init__()
        config.check()
        self.config, self.features = config, config.mel
        self.generator = Generator(config)
        self.context_frames = self.generator.context() + (HOPS if config.denoise else 0)
        self._hum: Tensor | None = None  # measured when first needed, since it is of these weights
        self.register_load_state_dict_post_hook(_forget)

    def graphs(self) -> dict[str, Graph]:
        example = {"mel": torch.zeros(1, self.features.rows, 64)}
        return {"waveform": Graph(_WaveformGraph(self.generator), example, ("waveform",), {"mel": 2, "waveform": 1})}

    def forget(self) -> None:
        """Forget what was measured of weights that change."""
        self._hum = None

    def train(self, mode: bool = True) -> HiFiGAN:
        self.forget()
        return super().train(mode)

    def forward(self, mel: Tensor, lengths: Tensor | None = None, start: Tensor | None = None) -> Tensor:
        spec = self.features
        if lengths is not None and not bool((lengths != mel.shape[-1]).any()):
            lengths = None
        mask = None if lengths is None else length_mask(lengths, mel.shape[-1])[:, None].to(mel.dtype)  # [B, 1, T]
        if "waveform" in self.runners and mask is None:
            waveform = torch.cat([self.runners["waveform"](own[None])[0] for own in mel])
        else:
            waveform = self.generator(mel, mask)
        # a frame's samples begin where it does; of a "center" mel, the last frame's lie behind the sound
        waveform = waveform[:, : spec.samples_of(mel.shape[-1])]
        if self.config.denoise and not self.training:
            whole = [waveform.shape[1]] * len(mel)
            waveform = self._denoised(
                waveform, whole if lengths is None else list(map(spec.samples_of, lengths.tolist()))
            )
        return self.ended(waveform, lengths)

    def _denoised(self, waveform: Tensor, samples: list[int]) -> Tensor:
        """Subtract the hum of the first so many samples of each item."""
        hop, strength = self.features.hop_length, self.config.denoise
        if self._hum is None:
            with torch.inference_mode(False), torch.no_grad():
                frames = self.generator.context() + HOPS  # further ones do not reach what is measured
                quiet = self.generator.conv_pre.weight.new_zeros(1, self.features.rows, frames)
                self._hum = hum_of(self.generator(quiet).float(), hop)
        hum = self._hum.to(waveform.device)
        cleaned = waveform.new_zeros(waveform.shape, dtype=torch.float32)
        for count in set(samples):
            rows = [row for row, own in enumerate(samples) if own == count]
            cleaned[rows, :count] = subtract_hum(waveform[rows, :count].float(), hum, strength, hop)
        return cleaned


def _forget(module: nn.Module, _: object) -> None:
    assert isinstance(module, HiFiGAN)
    module.forget()


def _same(channels: int, kernel: int, dilation: int) -> nn.Conv1d:
    return nn.Conv1d(channels, channels, kernel, dilation=dilation, padding=dilation * (kernel // 2))


def _masked(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask
