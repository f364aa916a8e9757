"""Distillation into few steps: over each of its long steps, a student's velocity is the mean of its teacher's velocities.

`Distillation` gets the mean by integrating the teacher with small steps from the noise on, as in IntMeanFlow (arXiv
2510.07979), which needs no derivatives of the network as MeanFlow (2505.13447) does; with one step it is the reflow of rectified
flows (2209.03003, section 2.3). `GuidedDistillation` takes two steps of the teacher from points between noise and data, as
ZipVoice-Distill does (2506.13053, section 2.4): its student takes any number of steps, and needs no second call for guidance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flowtts_core.config import build
from flowtts_core.errors import ConfigError
from flowtts_core.flow.solver import SOLVERS, Solver, VelocityField


@dataclass(frozen=True)
class Distillation:
    """How a student is taught.

    Attributes:
        steps: that the student takes, equally long.
        substeps: of the teacher's for each of them, by Euler's method.
        temperature: of the noise, as the voice will be sampled.
    """

    steps: int = 1
    substeps: int = 4
    temperature: float = 0.667

    def __post_init__(self) -> None:
        if self.steps < 1 or self.substeps < 2:
            raise ConfigError(
                f"Distillation: steps {self.steps}, substeps {self.substeps}",
                "use 1 step or more, of 2 substeps or more",
            )


@dataclass(frozen=True)
class GuidedDistillation:
    """How a student is taught; the defaults are the published ones, but for the share of the later stage.

    Attributes:
        steps: that the student will take where nobody asks for another number.
        longest: step of the teacher's.
        guidance: from where to where its weights of guidance are drawn while the teacher stays as it is.
        later_guidance: the same in the later stage, where the teacher is an average of the student.
        later: share of the updates, the last ones, that are the later stage.
        decay: of that average.
    """

    steps: int = 4
    longest: float = 0.3
    guidance: tuple[float, ...] = (0.0, 2.0)
    later_guidance: tuple[float, ...] = (1.0, 3.0)
    later: float = 0.1
    decay: float = 0.9999

    def __post_init__(self) -> None:
        drawn = (self.guidance, self.later_guidance)
        if self.steps < 1 or not (0 < self.longest <= 0.5 and 0 <= self.later < 1 and 0 <= self.decay < 1):
            raise ConfigError(
                f"GuidedDistillation: steps {self.steps}, longest {self.longest}, later {self.later}, decay {self.decay}",
                "use 1 step or more, longest up to 0.5, later and decay from 0 to below 1",
            )
        if any(len(ends) != 2 or not 0 <= ends[0] <= ends[1] for ends in drawn):
            raise ConfigError(
                f"GuidedDistillation: guidance {list(self.guidance)}, later_guidance {list(self.later_guidance)}",
                "give the least and the greatest weight of each, from 0",
            )

    def later_from(self, updates: int) -> int:
        """Return the first update of the later stage, of so many."""
        return updates - round(self.later * updates)

    def draw(self, count: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Draw times [count] and the lengths of the teacher's two steps after each, from `generator` (of the CPU).

        Each item has its own; upstream draws one for all items of a batch, of which the mean is the same.
        """
        t, first, second = torch.rand(3, count, generator=generator)
        first = first * (1 - t).clamp(max=self.longest)
        second = second * (1 - t - first).clamp(min=0, max=self.longest)
        return t, first, second


@dataclass(frozen=True)
class LongStep:
    """A step of the student's: where it begins, and the velocity that takes it where its teacher goes."""

    x: Tensor  # [B, ...]
    t: Tensor  # [B]
    velocity: Tensor  # [B, ...]


@torch.no_grad()
def long_step(teacher: VelocityField, noise: Tensor, which: int, how: Distillation, condition: Any = None) -> LongStep:
    """Follow the teacher from `noise` [B, ...] (temperature included) to the end of the student's step `which`, from 0 on."""
    solver: Solver = build(SOLVERS, {"name": "euler"})
    begin, end = which / how.steps, (which + 1) / how.steps
    x = noise
    if which:
        x = solver.solve(teacher, x, torch.linspace(0, begin, which * how.substeps + 1), condition).x
    after = solver.solve(teacher, x, torch.linspace(begin, end, how.substeps + 1), condition).x
    return LongStep(x, torch.full((len(noise),), begin, device=noise.device), (after - x) / (end - begin))


@torch.no_grad()
def two_steps(
    teacher: VelocityField, x: Tensor, t: Tensor, first: Tensor, second: Tensor, condition: Any = None
) -> LongStep:
    """Follow the teacher from points `x` [B, ...] at times `t` [B] by two steps of such lengths [B]."""
    sides = (-1, *([1] * (x.dim() - 1)))
    before = teacher(x, t, condition)
    after = teacher(x + first.reshape(sides) * before, t + first, condition)
    share = (first / (first + second).clamp(min=1e-9)).reshape(sides)
    return LongStep(x, t, share * before + (1 - share) * after)
