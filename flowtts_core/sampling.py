"""How a flow is sampled: the defaults in a voice's card, with what a request asks for in their place."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from flowtts_core.errors import FlowTTSError
from flowtts_core.request import SynthesisRequest

SPEEDS = (0.1, 10.0)  # of `Sampling`: a request's speed times the voice's own


@dataclass(frozen=True)
class Sampling:
    """Settings of a flow.

    Attributes:
        steps: of the solver; 0 asks for the prior mean alone, without flow (the ablation).
        temperature: scale of the noise.
        speed: 2.0 speaks twice as fast.
        guidance: weight of classifier-free guidance; 0 for none.
        solver, grid: of `flowtts_core.flow.SOLVERS` and `TIME_GRIDS`; the grid as a spec, None for `{"name": "uniform"}`.
    """

    steps: int = 4
    temperature: float = 0.667
    speed: float = 1.0
    guidance: float = 0.0
    solver: str = "euler"
    grid: dict[str, Any] | None = None

    def asked(self, request: SynthesisRequest) -> Sampling:
        """Return these settings with the request's in their place.

        Raises:
            FlowTTSError: where both speeds together are out of range.
        """
        speed = float(request.speed) * self.speed
        if not SPEEDS[0] <= speed <= SPEEDS[1]:
            raise FlowTTSError(
                f"speed = {request.speed} times the voice's own {self.speed} is {speed:g}: "
                f"it must be {SPEEDS[0]} to {SPEEDS[1]}"
            )
        given: dict[str, Any] = {name: getattr(request, name) for name in ("steps", "temperature", "guidance")}
        given["grid"] = None if request.grid is None else {"name": request.grid}
        return replace(self, speed=speed, **{name: value for name, value in given.items() if value is not None})
