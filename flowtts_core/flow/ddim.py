"""Diffusion's deterministic sampler, for nets that predict the noise in a point.

Source: Song et al., "Denoising Diffusion Implicit Models" (arXiv 2010.02502), equation 12 without its noise.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from flowtts_core.flow.path import CosinePath
from flowtts_core.flow.solver import Solution, VelocityField

NoiseField = VelocityField
"""`n(x_t [B, ...], t [B], condition) -> x_0 [B, ...]`, the noise in a point."""


def ddim(
    noise_in: NoiseField,
    x: Tensor,
    times: Tensor,
    path: CosinePath,
    condition: Any = None,
    bound: float | None = None,
) -> Solution:
    """Go from noise to data.

    Args:
        x: [B, ...] at `times[0]`.
        times: [steps + 1], increasing, from above 0, where a point tells nothing of the data.
        condition: passed to the net unchanged.
        bound: data lie between -bound and bound; predicted ones beyond are clipped.
    """
    times = times.to(x.device, x.dtype)
    for t, after in zip(times[:-1], times[1:], strict=True):
        data, noise = path.scales(t)
        x_0 = noise_in(x, t.expand(len(x)), condition)
        x_1 = (x - noise * x_0) / data
        if bound is not None:
            x_1 = x_1.clamp(-bound, bound)
            x_0 = (x - data * x_1) / noise
        data, noise = path.scales(after)
        x = data * x_1 + noise * x_0
    return Solution(x, len(times) - 1)
