"""Classifier-free guidance, with a weight that may depend on time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flowtts_core.flow.solver import VelocityField


@dataclass(frozen=True)
class ConstantGuidance:
    """The same weight at all times."""

    weight: float = 1.0

    def at(self, t: Tensor) -> Tensor:
        """Return weights [B] at times [B]."""
        return torch.full_like(t, self.weight)


@dataclass(frozen=True)
class IntervalGuidance:
    """`weight` for `start <= t < end`, none outside (Kynkaanniemi et al. 2024, arXiv:2404.07724)."""

    weight: float = 1.0
    start: float = 0.0
    end: float = 0.7

    def at(self, t: Tensor) -> Tensor:
        """Return weights [B] at times [B]."""
        return self.weight * ((t >= self.start) & (t < self.end)).to(t.dtype)


@dataclass(frozen=True)
class LinearGuidance:
    """A weight that runs straight from `start` (at the noise) to `end` (at the data)."""

    start: float = 2.0
    end: float = 0.0

    def at(self, t: Tensor) -> Tensor:
        """Return weights [B] at times [B]."""
        return self.start + (self.end - self.start) * t


@dataclass(frozen=True)
class DoubledGuidance:
    """Twice `weight` up to the time `until`, and the weight itself after it (ZipVoice); a tensor [B] for weights of items."""

    weight: float | Tensor = 1.0
    until: float = 0.5

    def at(self, t: Tensor) -> Tensor:
        """Return weights [B] at times [B]."""
        return self.weight * (1 + (t <= self.until).to(t.dtype))


Guidance = ConstantGuidance | IntervalGuidance | LinearGuidance | DoubledGuidance
GUIDANCES = {
    "constant": (ConstantGuidance, lambda config: config),
    "interval": (IntervalGuidance, lambda config: config),
    "linear": (LinearGuidance, lambda config: config),
    "doubled": (DoubledGuidance, lambda config: config),
}


def classifier_free(velocity: VelocityField, unconditional: Any, guidance: Guidance) -> VelocityField:
    """Return the field `v(c) + w(t) (v(c) - v(unconditional))`; where all weights are 0 the second call is left out."""

    def guided(x: Tensor, t: Tensor, condition: Any) -> Tensor:
        conditional = velocity(x, t, condition)
        weight = guidance.at(t)
        if not bool(weight.any()):
            return conditional
        weight = weight.reshape(-1, *([1] * (x.dim() - 1)))
        return conditional + weight * (conditional - velocity(x, t, unconditional))

    return guided
