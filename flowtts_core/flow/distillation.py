"""Distillation into few steps: over each of its long steps, a student's velocity is the mean of its teacher's velocities.

The mean is got by integrating the teacher with small steps, as in IntMeanFlow (arXiv 2510.07979), which needs no derivatives
of the network as MeanFlow (2505.13447) does; with one step it is the reflow of rectified flows (2209.03003, section 2.3).
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
