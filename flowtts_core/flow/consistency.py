"""Consistency distillation: a student answers with the end of its teacher's path from anywhere on it, and so needs one step.

Source: Song et al., "Consistency Models" (arXiv 2303.01469), algorithm 2; times as WaveFM has them (arXiv 2503.16689). Two
points of a path that are near each other have the same end: what the student says at the earlier one is pulled to what an
average of it says at the later one, where the teacher goes from there; at the last times, to the data.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from flowtts_core.errors import ConfigError
from flowtts_core.flow.endpoint import EndPoint
from flowtts_core.flow.path import PathSample
from flowtts_core.flow.solver import VelocityField

_LAST = 0.1  # of the times before the end, over which the weight of an error rises no more


@dataclass(frozen=True)
class Consistency:
    """How a student is taught.

    Attributes:
        gap: between the two times.
        deviation: the earlier one is drawn from the normal distribution about 0 of this deviation, from 0 to `latest`.
        latest: from this time on the end is that of the data.
        decay: of the average of the student that is its own target.
    """

    gap: float = 0.01
    deviation: float = 0.33
    latest: float = 0.99
    decay: float = 0.999

    def __post_init__(self) -> None:
        if not (0 < self.gap < self.latest < 1 and self.deviation > 0 and 0 <= self.decay < 1):
            raise ConfigError(
                f"Consistency: gap {self.gap}, latest {self.latest}, deviation {self.deviation}, decay {self.decay}",
                "use 0 < gap < latest < 1, a deviation above 0, and a decay from 0 to below 1",
            )

    @property
    def steps(self) -> int:
        """Return 1: the steps that the student takes."""
        return 1

    def times(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw the earlier times [count], from `generator` (of the CPU)."""
        below = torch.rand(count, generator=generator) * math.erf(self.latest / (self.deviation * math.sqrt(2)))
        return (self.deviation * math.sqrt(2) * below.erfinv()).clamp(0, self.latest)


@torch.no_grad()
def consistent_end(
    teacher: VelocityField, target: EndPoint, point: PathSample, how: Consistency, condition: object = None
) -> Tensor:
    """Return what a student should say at a point [B, ...] of times up to `how.latest`; no gradient flows through it.

    Args:
        target: the average of the student.
    """
    later = (point.t + how.gap).clamp(max=1.0)
    sides = (-1, *([1] * (point.x_t.dim() - 1)))
    x = point.x_t + (later - point.t).reshape(sides) * teacher(point.x_t, point.t, condition)
    at_end = (later >= how.latest).reshape(sides)
    return torch.where(at_end, point.x_1, target(x, later, condition))


def end_weight(t: Tensor) -> Tensor:
    """Return the weight [B] of the squared error of an end that was said at times [B]: heavier towards it.

    The velocity follows from the end by a division by what is left of the time, by which its error grows.
    """
    return 1 / (1 - t).clamp(min=_LAST)


@torch.no_grad()
def follow(average: Iterable[Tensor], weights: Iterable[Tensor], decay: float) -> None:
    """Move each averaged weight towards the weight itself, after a step of the student's."""
    for averaged, weight in zip(average, weights, strict=True):
        averaged.lerp_(weight.to(averaged.dtype), 1 - decay)
