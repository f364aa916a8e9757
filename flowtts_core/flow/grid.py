"""Time grids: the `steps + 1` times from 0 to 1 at which a solver stops."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flowtts_core.errors import ConfigError
from flowtts_core.flow.solver import VelocityField

# F5-TTS's empirically pruned steps (`get_epss_timesteps`), in units of 1/32.
_PRUNED = {
    5: (0, 2, 4, 8, 16, 32),
    6: (0, 2, 4, 6, 8, 16, 32),
    7: (0, 2, 4, 6, 8, 16, 24, 32),
    10: (0, 2, 4, 6, 8, 12, 16, 20, 24, 28, 32),
    12: (0, 2, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32),
    16: (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32),
}


def _uniform(steps: int) -> Tensor:
    if steps < 1:
        raise ConfigError(f"steps = {steps}", "use at least 1 step")
    return torch.linspace(0, 1, steps + 1)


def _sway(t: Tensor, s: float) -> Tensor:
    return t + s * (torch.cos(math.pi / 2 * t) - 1 + t) if s else t


@dataclass(frozen=True)
class UniformGrid:
    """Equal steps."""

    def times(self, steps: int) -> Tensor:
        """Return times [steps + 1], float32."""
        return _uniform(steps)


@dataclass(frozen=True)
class SwayGrid:
    """F5-TTS's sway sampling `t + s (cos(pi t / 2) - 1 + t)`; s < 0 puts more steps near the noise."""

    s: float = -1.0

    def __post_init__(self) -> None:
        if not -1 <= self.s <= 2 / (math.pi - 2):
            raise ConfigError(f"SwayGrid.s = {self.s}", "use a value in [-1, 1.75]: beyond it time runs backwards")

    def times(self, steps: int) -> Tensor:
        """Return times [steps + 1], float32."""
        return _sway(_uniform(steps), self.s)


@dataclass(frozen=True)
class PowerGrid:
    """`(i / steps) ** alpha`; alpha > 1 puts more steps near the noise."""

    alpha: float = 2.0

    def __post_init__(self) -> None:
        if self.alpha <= 0:
            raise ConfigError(f"PowerGrid.alpha = {self.alpha}", "use a value above 0")

    def times(self, steps: int) -> Tensor:
        """Return times [steps + 1], float32."""
        return _uniform(steps).pow(self.alpha)


@dataclass(frozen=True)
class ShiftGrid:
    """ZipVoice's shift `t s / (1 + (s - 1) t)`; s < 1 puts more steps near the noise."""

    s: float = 0.5

    def __post_init__(self) -> None:
        if self.s <= 0:
            raise ConfigError(f"ShiftGrid.s = {self.s}", "use a value above 0")

    def times(self, steps: int) -> Tensor:
        """Return times [steps + 1], float32."""
        t = _uniform(steps)
        return self.s * t / (1 + (self.s - 1) * t)


@dataclass(frozen=True)
class PrunedGrid:
    """F5-TTS's empirically pruned steps for 5, 6, 7, 10, 12 and 16 steps (uniform for others), then sway `s`."""

    s: float = 0.0

    def times(self, steps: int) -> Tensor:
        """Return times [steps + 1], float32."""
        t = torch.tensor(_PRUNED[steps]) / 32 if steps in _PRUNED else _uniform(steps)
        return _sway(t, self.s)


@dataclass(frozen=True)
class StraightnessGrid:
    """Steps over which a flow's paths are equally far from straight (RFWave, arXiv 2403.05010, section 3.3).

    Attributes:
        density: how far they are in each of equally many parts of time, from noise to data, in any unit; see
            `straightness_grid`. Zeros alone give equal steps.
    """

    density: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.density or not all(0 <= value < math.inf for value in self.density):
            raise ConfigError(
                f"StraightnessGrid.density = {list(self.density)}", "use one finite number or more, from 0"
            )

    def times(self, steps: int) -> Tensor:
        """Return times [steps + 1], float32."""
        uniform = _uniform(steps)
        passed = torch.tensor((0.0, *self.density), dtype=torch.float64).cumsum(0)
        if passed[-1] == 0:
            return uniform
        wanted = uniform[1:-1].double() * passed[-1]
        part = torch.searchsorted(passed, wanted) - 1  # in which each is reached; its density is not 0
        inside = (wanted - passed[part]) / (passed[part + 1] - passed[part])
        return torch.cat([uniform[:1], ((part + inside) / len(self.density)).float(), uniform[-1:]])


@torch.no_grad()
def straightness_grid(velocity: VelocityField, x_0: Tensor, condition: Any = None, parts: int = 50) -> StraightnessGrid:
    """Measure the grid of a flow on its own paths: the mean square of `v(x_t, t) - (x_1 - x_0)` in equal parts of time.

    The paths are followed by the midpoint method, with two times two evaluations a part, none of them at time 1.

    Args:
        x_0: [B, ...] noise.
        condition: passed to the velocity field unchanged.
    """
    if parts < 1:
        raise ConfigError(f"parts = {parts}", "use 1 or more")
    whole = torch.zeros_like(x_0)
    for v in _velocities(velocity, x_0, condition, parts):
        whole += v / parts
    away = torch.stack([(v - whole).square().mean() for v in _velocities(velocity, x_0, condition, parts)])
    rounding = 1e-10 * whole.square().mean()  # of a straight path, which bends nowhere
    return StraightnessGrid(tuple(torch.where(away > rounding, away, 0.0).tolist()))


def _velocities(velocity: VelocityField, x: Tensor, condition: Any, parts: int) -> Iterator[Tensor]:
    """Follow paths, and yield the velocities [B, ...] in the middles of the parts."""
    for part in range(parts):
        t, half = torch.full((len(x),), part / parts, dtype=x.dtype, device=x.device), 0.5 / parts
        middle = velocity(x + half * velocity(x, t, condition), t + half, condition)
        yield middle
        x = x + middle / parts


TimeGrid = UniformGrid | SwayGrid | PowerGrid | ShiftGrid | PrunedGrid | StraightnessGrid
TIME_GRIDS = {
    "uniform": (UniformGrid, lambda config: config),
    "sway": (SwayGrid, lambda config: config),
    "power": (PowerGrid, lambda config: config),
    "shift": (ShiftGrid, lambda config: config),
    "pruned": (PrunedGrid, lambda config: config),
    "straightness": (StraightnessGrid, lambda config: config),
}
NAMED_GRIDS = tuple(name for name in TIME_GRIDS if name != "straightness")
"""Grids that a request may ask for by name alone; one of straightness is measured, and stands in a card."""
