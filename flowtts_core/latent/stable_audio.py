"""Stable Audio: latents of music from a text and the place of the piece in time (arXiv 2402.04825, 2404.10301)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from flowtts_core.errors import ConfigError
from flowtts_core.flow.diffusion import ddim_v, denoiser_of, dpm_solver_2m, dpm_solver_3m_sde, polyexponential
from flowtts_core.flow.solver import VelocityField
from flowtts_core.latent.dit import DiTConfig, LatentDiT
from flowtts_core.latent.oobleck import Oobleck, OobleckConfig

_NUMBER = 256  # features of a number's waves


@dataclass(frozen=True)
class StableAudioConfig:
    """Sizes of the whole.

    Attributes:
        longest: seconds; timing beyond is taken as this.
    """

    sample_rate: int = 44_100
    longest: float = 512.0
    dit: DiTConfig = field(default_factory=DiTConfig)
    autoencoder: OobleckConfig = field(default_factory=OobleckConfig)

    def __post_init__(self) -> None:
        if self.dit.timing != 2 * self.dit.text or self.dit.latent != self.autoencoder.latent:
            raise ConfigError(
                f"StableAudioConfig: timing {self.dit.timing}, text {self.dit.text}, latents {self.dit.latent} and "
                f"{self.autoencoder.latent}",
                "timing is twice as wide as the text, and both parts have latents of one size",
            )
        if self.sample_rate < 1 or not self.longest > 0:
            raise ConfigError(
                f"StableAudioConfig: sample_rate {self.sample_rate}, longest {self.longest}", "use values above 0"
            )


@dataclass(frozen=True)
class LatentCondition:
    """What latents are made from."""

    text: Tensor  # [B, L + 2, E]: the text, then where the piece starts, then how long the whole is
    timing: Tensor  # [B, 2 E]: start and total
    negative: Tensor | None = None  # [B, L', E] what guidance leads away from; None: from nothing


class _Number(nn.Module):
    """Embeds numbers [B] as [B, E] by waves of learnt frequencies."""

    def __init__(self, width: int, longest: float) -> None:
        super().__init__()
        self.longest = longest
        self.weights = nn.Parameter(torch.randn(_NUMBER // 2))
        self.linear = nn.Linear(_NUMBER + 1, width)

    def forward(self, seconds: Tensor) -> Tensor:
        share = seconds.float().clamp(0, self.longest)[:, None] / self.longest
        phase = 2 * math.pi * share * self.weights
        return self.linear(torch.cat((share, phase.sin(), phase.cos()), 1))


class StableAudio(nn.Module):
    """Text embeddings and timing to latents, and latents to sound.

    Attributes:
        model: predicts v at times from 0 (data) to 1 (noise).
        seconds_start, seconds_total: embed where in the whole a piece starts, and how long the whole is.
    """

    def __init__(self, config: StableAudioConfig) -> None:
        super().__init__()
        self.config = config
        self.model = LatentDiT(config.dit)
        self.seconds_start = _Number(config.dit.text, config.longest)
        self.seconds_total = _Number(config.dit.text, config.longest)
        self.autoencoder = Oobleck(config.autoencoder)

    def condition_of(
        self, text: Tensor, start: Sequence[float] | Tensor, total: Sequence[float] | Tensor
    ) -> LatentCondition:
        """Return the condition of texts [B, L, E] (0 on padding) and seconds [B]."""
        made = [
            embed(torch.as_tensor(seconds, device=text.device))
            for embed, seconds in ((self.seconds_start, start), (self.seconds_total, total))
        ]
        return LatentCondition(torch.cat([text, *(part[:, None] for part in made)], 1), torch.cat(made, 1))

    def predict(self, x: Tensor, t: Tensor, condition: LatentCondition) -> Tensor:
        """Return the net's v [B, D, T] at points [B, D, T]."""
        return self.model(x, t, condition.text, condition.timing)

    def guided(self, guidance: float, rescale: float = 0.0) -> VelocityField:
        """Return v with classifier-free guidance, both calls in one batch; 1 is none.

        Without text the attended condition is zeros, timing too; the token before the frames keeps its timing, as published.

        Args:
            rescale: 0 to 1, how far the result's deviation over features is brought back to that without guidance
                (2305.08891, section 3.4).
        """

        def field(x: Tensor, t: Tensor, condition: LatentCondition) -> Tensor:
            if guidance == 1.0:
                return self.predict(x, t, condition)
            other = torch.zeros_like(condition.text) if condition.negative is None else condition.negative
            text = torch.cat([condition.text, other])
            given, free = self.model(x.repeat(2, 1, 1), t.repeat(2), text, condition.timing.repeat(2, 1)).chunk(2)
            led = free + guidance * (given - free)
            if not rescale:
                return led
            return led * (rescale * given.std(1, keepdim=True) / led.std(1, keepdim=True) + 1 - rescale)

        return field

    @torch.inference_mode()
    def generate(
        self,
        condition: LatentCondition,
        frames: int,
        seeds: Sequence[int],
        *,
        steps: int = 100,
        guidance: float = 6.0,
        rescale: float = 0.0,
        sampler: str = "dpm_3m_sde",
    ) -> Tensor:
        """Return latents [B, D, T]; item b's noise is drawn by `seeds[b]` alone.

        Args:
            sampler: one of `SAMPLERS`.
        """
        if sampler not in SAMPLERS:
            raise ConfigError(f"no sampler {sampler!r}", f"use one of: {', '.join(SAMPLERS)}")
        device = condition.text.device
        draws = [torch.Generator().manual_seed(seed) for seed in seeds]
        shape = (self.config.dit.latent, frames)

        def noise(x: Tensor | None = None) -> Tensor:
            return torch.stack([torch.randn(shape, generator=draw) for draw in draws]).to(device)

        return SAMPLERS[sampler](self.guided(guidance, rescale), noise, steps, condition)


def _ddim(v: VelocityField, noise: Any, steps: int, condition: LatentCondition) -> Tensor:
    return ddim_v(v, noise(), steps, condition)


def _dpm_2m(v: VelocityField, noise: Any, steps: int, condition: LatentCondition) -> Tensor:
    start = noise()
    sigmas = polyexponential(steps).to(start)
    return dpm_solver_2m(denoiser_of(v), start * sigmas[0], sigmas, condition)


def _dpm_3m_sde(v: VelocityField, noise: Any, steps: int, condition: LatentCondition) -> Tensor:
    start = noise()
    sigmas = polyexponential(steps).to(start)
    return dpm_solver_3m_sde(denoiser_of(v), start * sigmas[0], sigmas, condition, noise=noise)


SAMPLERS = {"ddim": _ddim, "dpm_2m": _dpm_2m, "dpm_3m_sde": _dpm_3m_sde}
