"""Probability paths: how a noise sample becomes a data sample as time runs from 0 to 1."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from flowtts_core.errors import ConfigError


@dataclass(frozen=True)
class PathSample:
    """A point of a path and the velocity there; all but `t` have the shape of the data, [B, ...]."""

    x_0: Tensor
    x_1: Tensor
    x_t: Tensor
    t: Tensor  # [B] in [0, 1]
    velocity: Tensor  # d x_t / dt, the target of flow matching


@dataclass(frozen=True)
class LinearPath:
    """Straight lines `x_t = (1 - (1 - sigma_min) t) x_0 + t x_1` (Lipman et al. 2023, arXiv:2210.02747, eq. 22).

    Attributes:
        sigma_min: standard deviation of the noise that is left at t = 1; 0 gives rectified flow.
    """

    sigma_min: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.sigma_min < 1:
            raise ConfigError(f"LinearPath.sigma_min = {self.sigma_min}", "use a value in [0, 1)")

    def sample(self, x_0: Tensor, x_1: Tensor, t: Tensor) -> PathSample:
        """Return the point at time `t` [B] between noise `x_0` [B, ...] and data `x_1` [B, ...]."""
        keep = 1.0 - self.sigma_min
        time = t.reshape(-1, *([1] * (x_1.dim() - 1)))
        return PathSample(x_0, x_1, (1 - keep * time) * x_0 + time * x_1, t, x_1 - keep * x_0)


@dataclass(frozen=True)
class CosinePath:
    """Circles `x_t = cos(pi t / 2) x_0 + sin(pi t / 2) x_1`, whose variance stays that of noise and data where these agree.

    They are the cosine schedule of diffusion models (Nichol and Dhariwal 2021, arXiv:2102.09672) without its offset.
    """

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return how much of the data and of the noise there is at times of any shape."""
        angle = t * (math.pi / 2)
        return angle.sin(), angle.cos()

    def sample(self, x_0: Tensor, x_1: Tensor, t: Tensor) -> PathSample:
        """Return the point at time `t` [B] between noise `x_0` [B, ...] and data `x_1` [B, ...]."""
        data, noise = self.scales(t.reshape(-1, *([1] * (x_1.dim() - 1))))
        return PathSample(x_0, x_1, noise * x_0 + data * x_1, t, math.pi / 2 * (noise * x_1 - data * x_0))


PATHS = {
    "cosine": (CosinePath, lambda config: config),
    "linear": (LinearPath, lambda config: config),
}
