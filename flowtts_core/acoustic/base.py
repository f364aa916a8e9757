"""What an acoustic model is: tokens in, mel out, with durations; and the batches that train it."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flowtts_core.audio.mel import MelConfig
from flowtts_core.nn.share import Share

SPEEDS = (0.1, 10.0)  # of `Sampling`


@dataclass(frozen=True)
class Condition:
    """What a mel is generated from. Padding beyond `token_lengths` is 0 and must change nothing."""

    tokens: Tensor  # [B, L] int64
    token_lengths: Tensor  # [B] int64
    speakers: Tensor | None = None  # [B] int64, for models with several speakers


@dataclass(frozen=True)
class AcousticBatch:
    """Training pairs. `mel` is the log-mel as `MelConfig` makes it, not normalised; zeros beyond `mel_lengths`.

    With a `share` these are some items of a larger batch, padded as that is.
    """

    condition: Condition
    mel: Tensor  # [B, M, T] float32
    mel_lengths: Tensor  # [B] int64
    share: Share | None = None

    def to(self, device: torch.device | str) -> AcousticBatch:
        condition = Condition(
            self.condition.tokens.to(device),
            self.condition.token_lengths.to(device),
            None if self.condition.speakers is None else self.condition.speakers.to(device),
        )
        return AcousticBatch(condition, self.mel.to(device), self.mel_lengths.to(device), self.share)


@dataclass(frozen=True)
class Sampling:
    """How a mel is sampled. `steps` 0 asks for the prior mean alone, without flow (the ablation)."""

    steps: int = 4
    temperature: float = 0.667
    speed: float = 1.0  # 2.0 speaks twice as fast
    solver: str = "euler"
    grid: dict[str, Any] | None = None  # spec of a time grid, `{"name": "uniform"}` by default


@dataclass(frozen=True)
class Generated:
    mel: Tensor  # [B, M, T] log-mel (not normalised); frames beyond mel_lengths are undefined
    mel_lengths: Tensor  # [B] int64
    durations: Tensor  # [B, L] float32 frames per token; 0 on padding; sums to mel_lengths


class AcousticModel(nn.Module, abc.ABC):
    """Contract: a padded batch, a crop of the padding and a single item agree within 1e-4."""

    features: MelConfig
    n_symbols: int
    n_speakers: int

    @abc.abstractmethod
    def loss(self, batch: AcousticBatch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Named scalar losses; `"loss"` is their sum, which is trained. Random draws come from `generator`.

        Of a batch with a share they are the losses of the whole batch, and their gradients the part of its items.
        """

    @abc.abstractmethod
    def generate(self, condition: Condition, seeds: Sequence[int], settings: Sampling) -> Generated:
        """Sample mels. Item b's noise is drawn from `seeds[b]` alone, so its result does not depend on the batch."""
