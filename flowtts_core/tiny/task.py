"""The tiny task: tones of one pitch per phoneme, and the flow-matching loss that learns them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from flowtts_core.config import build
from flowtts_core.flow import COUPLINGS, Coupling, masked_flow_loss
from flowtts_core.tiny.model import TinyConfig, TinyModel
from flowtts_core.training.distributed import ALONE, Ranks
from flowtts_core.training.log import TrainingLog


@dataclass(frozen=True)
class ToneConfig:
    """The data: sines whose pitch the phoneme decides, and nothing else.

    Attributes:
        pitches_hz: one for each phoneme.
        amplitude: lowest and highest; drawn for each example, as its phase is from the whole circle.
        per_phoneme: examples of each phoneme in a batch.
    """

    pitches_hz: tuple[float, ...] = (220.0, 440.0)
    amplitude: tuple[float, ...] = (0.4, 0.6)
    per_phoneme: int = 16


@dataclass(frozen=True)
class TinyBatch:
    phonemes: Tensor  # [B] int64, sorted
    waveform: Tensor  # [B, S] float32

    def to(self, device: torch.device | str) -> TinyBatch:
        return TinyBatch(self.phonemes.to(device), self.waveform.to(device))


class TinyBatches:
    """Fresh tones for every step, a function of (seed, step): `per_phoneme` of each phoneme."""

    def __init__(self, model: TinyConfig, tones: ToneConfig, seed: int = 0) -> None:
        self.model, self.tones, self.seed = model, tones, seed
        angle = 2 * math.pi * np.outer(tones.pitches_hz, np.arange(model.samples) / model.sample_rate)
        self._waves = np.stack((np.sin(angle), np.cos(angle)), 1).astype(np.float32)  # [P, 2, S]

    def validation(self) -> tuple[()]:
        """Return nothing: no batch comes twice, so there is nothing to hold out."""
        return ()

    def at(self, step: int, ranks: Ranks = ALONE) -> TinyBatch:
        """Return the batch of a step; only one process may train."""
        assert ranks.size == 1
        rng = np.random.default_rng((self.seed, step, 0))
        count, phonemes = self.tones.per_phoneme, len(self.model.phonemes)
        phase = rng.uniform(0, 2 * math.pi, (phonemes, count))
        amplitude = rng.uniform(self.tones.amplitude[0], self.tones.amplitude[1], (phonemes, count))
        mixture = np.stack((amplitude * np.cos(phase), amplitude * np.sin(phase)), 2).astype(np.float32)
        waveform = (mixture @ self._waves).reshape(phonemes * count, -1)  # amplitude sin(angle + phase)
        return TinyBatch(torch.arange(phonemes).repeat_interleave(count), torch.from_numpy(waveform))


class TinyTask:
    """Trains a `TinyModel` by flow matching; noise is paired with the tones of one phoneme at a time.

    Pairing across phonemes would give each of them noise of its own kind, which at synthesis it does not get. Times are drawn
    with density 3 (1 - t)^2: an error of the model's guess weighs 1 / (1 - t)^2 in the velocity, so all times weigh alike.
    """

    ema_module = "tiny"

    def __init__(self, model: TinyModel, coupling: str = "optimal") -> None:
        self.modules: dict[str, nn.Module] = {"tiny": model}
        self.model = model
        self.coupling: Coupling = build(COUPLINGS, {"name": coupling})

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"tiny": list(self.model.parameters())}

    def updates(
        self, batch: TinyBatch, step: int, generator: torch.Generator
    ) -> Iterator[tuple[str, dict[str, Tensor]]]:
        yield "tiny", {"loss": self._loss(self.model, batch, generator)}

    def validation(self, module: nn.Module, batch: TinyBatch, generator: torch.Generator) -> Tensor:
        assert isinstance(module, TinyModel)
        return self._loss(module, batch, generator)

    def _loss(self, model: TinyModel, batch: TinyBatch, generator: torch.Generator) -> Tensor:
        noise = torch.randn(batch.waveform.shape, generator=generator).to(batch.waveform.device)
        for phoneme in batch.phonemes.unique():
            rows = (batch.phonemes == phoneme).nonzero().squeeze(1)
            noise[rows] = noise[rows][self.coupling.pair(noise[rows], batch.waveform[rows], generator)]
        t = 1 - torch.rand(len(noise), generator=generator).pow(1 / 3).to(noise.device)
        point = model.path.sample(noise, batch.waveform, t)
        return masked_flow_loss(model(point.x_t, point.t, batch.phonemes), point.velocity)

    @torch.inference_mode()
    def sample(self, module: nn.Module, step: int, log: TrainingLog) -> None:
        assert isinstance(module, TinyModel)
        for i, name in enumerate(module.config.phonemes):
            log.audio(step, name, module.cpu().generate([i], [0])[0], module.config.sample_rate)
