"""Time grids: the `steps + 1` times from 0 to 1 at which a solver stops."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flowtts_core.errors import ConfigError

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


TimeGrid = UniformGrid | SwayGrid | PowerGrid | ShiftGrid | PrunedGrid
TIME_GRIDS = {
    "uniform": (UniformGrid, lambda config: config),
    "sway": (SwayGrid, lambda config: config),
    "power": (PowerGrid, lambda config: config),
    "shift": (ShiftGrid, lambda config: config),
    "pruned": (PrunedGrid, lambda config: config),
}
