"""The smallest whole flow-matching model: from white noise and a phoneme to one second of a raw waveform."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flowtts_core.config import build
from flowtts_core.errors import ConfigError
from flowtts_core.flow import SOLVERS, TIME_GRIDS, LinearPath, Solver, TimeGrid
from flowtts_core.nn.time_embedding import sinusoidal_embedding

TIME_WIDTH = 32
BASIS_GAIN = 10.0  # the basis has further to go than the gate, so it learns faster by this factor


@dataclass(frozen=True)
class TinyConfig:
    """What is spoken, and the size of the network.

    Attributes:
        phonemes: their names; a phoneme's id is its place.
        rank: number of learnt waveforms of which an output is a sum.
        width: of the gate's hidden layers.
        sigma_min: share of the noise that the path leaves at its end. It bounds the velocity near the data, and the purity
            of the tone: 0.01 leaves a worst bin about 57 dB below a sine of amplitude 0.5.
    """

    phonemes: tuple[str, ...] = ("a", "i")
    sample_rate: int = 8000
    samples: int = 8000
    rank: int = 16
    width: int = 64
    sigma_min: float = 0.01


class TinyModel(nn.Module):
    """A velocity field over waveforms [B, S].

    The network guesses the clean waveform from the noisy one: its coordinates along `rank` learnt waveforms, each weighed by
    a gate that sees the time, the phoneme and the coordinates' energy, and the sum of those same waveforms. It starts from
    random ones: nothing in it knows a frequency. The velocity is the one that leads straight to the guess, so that the noise
    itself need not pass through the bottleneck.
    """

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.config = config
        self.path = LinearPath(config.sigma_min)
        self.basis = nn.Parameter(0.3 / BASIS_GAIN * torch.randn(config.rank, config.samples))
        self.phoneme = nn.Embedding(len(config.phonemes), config.width)
        self.time = nn.Linear(TIME_WIDTH, config.width)
        self.energy = nn.Linear(1, config.width)
        self.gate = nn.Sequential(
            nn.SiLU(), nn.Linear(config.width, config.width), nn.SiLU(), nn.Linear(config.width, config.rank)
        )

    def forward(self, x: Tensor, t: Tensor, phonemes: Tensor) -> Tensor:
        """Return the velocity [B, S] at `x` [B, S] and times `t` [B] for phoneme ids [B] (the contract of `VelocityField`)."""
        keep = 1.0 - self.path.sigma_min
        return (self.guess(x, t, phonemes) - keep * x) / (1.0 - keep * t)[:, None]

    def guess(self, x: Tensor, t: Tensor, phonemes: Tensor) -> Tensor:
        """Return the expected clean waveform [B, S]; `forward` is the velocity of `LinearPath` from `x` towards it."""
        scale = BASIS_GAIN * self.config.samples**-0.5  # coordinates of unit noise stay near 1
        coordinates = scale * (x @ self.basis.T)
        energy = coordinates.square().mean(1, keepdim=True).log1p()
        condition = self.time(sinusoidal_embedding(t, TIME_WIDTH, 100.0)) + self.phoneme(phonemes)
        return (scale * self.gate(self.energy(energy) + condition) * coordinates) @ self.basis

    @torch.inference_mode()
    def generate(
        self,
        phonemes: Sequence[int],
        seeds: Sequence[int],
        *,
        steps: int = 10,
        temperature: float = 1.0,
        solver: str = "euler",
        grid: str = "uniform",
    ) -> Tensor:
        """Generate waveforms [B, S]; item b's noise is drawn on the CPU from `seeds[b]` alone.

        Raises:
            ConfigError: for a phoneme id, solver or grid that does not exist, or fewer than one step.
        """
        unknown = sorted({p for p in phonemes if not 0 <= p < len(self.config.phonemes)})
        if unknown:
            raise ConfigError(f"no phoneme id {unknown[0]}", f"use 0 to {len(self.config.phonemes) - 1}")
        method: Solver = build(SOLVERS, {"name": solver})
        times: TimeGrid = build(TIME_GRIDS, {"name": grid})
        noise = [torch.randn(self.config.samples, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        x = temperature * torch.stack(noise).to(self.basis.device)
        ids = torch.tensor(list(phonemes), device=x.device)
        return method.solve(self, x, times.times(steps), ids).x
