"""Solvers of `dx/dt = v(x, t, condition)` with fixed steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

VelocityField = Callable[[Tensor, Tensor, Any], Tensor]
"""`v(x_t [B, ...], t [B], condition) -> velocity [B, ...]`; networks are wrapped as one."""


@dataclass(frozen=True)
class Solution:
    x: Tensor  # [B, ...] at the last time
    evaluations: int  # calls of the velocity field (NFE)


class _Counted:
    """The velocity field at one scalar time, counting its calls."""

    def __init__(self, velocity: VelocityField, condition: Any) -> None:
        self.velocity, self.condition, self.calls = velocity, condition, 0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        return self.velocity(x, t.expand(x.shape[0]), self.condition)


Step = Callable[[_Counted, Tensor, Tensor, Tensor], Tensor]


def _euler(v: _Counted, x: Tensor, t: Tensor, dt: Tensor) -> Tensor:
    return x + dt * v(x, t)


def _midpoint(v: _Counted, x: Tensor, t: Tensor, dt: Tensor) -> Tensor:
    return x + dt * v(x + dt / 2 * v(x, t), t + dt / 2)


def _heun(v: _Counted, x: Tensor, t: Tensor, dt: Tensor) -> Tensor:
    first = v(x, t)
    return x + dt / 2 * (first + v(x + dt * first, t + dt))


class Solver:
    """A one-step method applied over a grid."""

    def __init__(self, step: Step) -> None:
        self._step = step

    def solve(self, velocity: VelocityField, x: Tensor, times: Tensor, condition: Any = None) -> Solution:
        """Integrate from `times[0]` to `times[-1]`.

        Args:
            x: [B, ...] at `times[0]`.
            times: [steps + 1], increasing.
            condition: passed to the velocity field unchanged.
        """
        times = times.to(x.device, x.dtype)
        counted = _Counted(velocity, condition)
        for t, after in zip(times[:-1], times[1:], strict=True):
            x = self._step(counted, x, t, after - t)
        return Solution(x, counted.calls)


@dataclass(frozen=True)
class EulerConfig:
    """First order, one evaluation a step; exact on straight paths."""


@dataclass(frozen=True)
class MidpointConfig:
    """Second order, two evaluations a step."""


@dataclass(frozen=True)
class HeunConfig:
    """Second order, two evaluations a step (the trapezium)."""


SOLVERS = {
    "euler": (EulerConfig, lambda config: Solver(_euler)),
    "midpoint": (MidpointConfig, lambda config: Solver(_midpoint)),
    "heun": (HeunConfig, lambda config: Solver(_heun)),
}
