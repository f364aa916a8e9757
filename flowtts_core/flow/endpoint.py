"""Where a flow ends, and the velocity that goes there: two ways to say one thing, of which networks predict one or the other."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from flowtts_core.flow.solver import VelocityField

EndPoint = VelocityField
"""`f(x_t [B, ...], t [B], condition) -> x_1 [B, ...]`, at time 1."""


def velocity_to(end: EndPoint) -> VelocityField:
    """Return the field that goes straight to the end point, `(f - x) / (1 - t)`; it has no value at time 1."""

    def velocity(x: Tensor, t: Tensor, condition: Any) -> Tensor:
        return (end(x, t, condition) - x) / (1 - _beside(t, x))

    return velocity


def end_of(velocity: VelocityField) -> EndPoint:
    """Return where a velocity would end if it stayed as it is, `x + (1 - t) v`; at time 1 that is x itself."""

    def end(x: Tensor, t: Tensor, condition: Any) -> Tensor:
        return x + (1 - _beside(t, x)) * velocity(x, t, condition)

    return end


def _beside(t: Tensor, x: Tensor) -> Tensor:
    """Return times [B] with as many sides as x."""
    return t.reshape(-1, *([1] * (x.dim() - 1)))
