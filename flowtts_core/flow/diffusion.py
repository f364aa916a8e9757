"""Samplers of diffusion in variance-exploding form, where a point is data plus `sigma` times unit noise (arXiv 2206.00364).

They take a denoiser, `d(x [B, ...], sigma [B], condition) -> data [B, ...]`; `denoiser_of` makes one of a net that predicts
v, the objective of Stable Audio (progressive distillation, 2202.00512, appendix D).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from flowtts_core.errors import ConfigError
from flowtts_core.flow.path import CosinePath
from flowtts_core.flow.solver import VelocityField

Denoiser = VelocityField
Noise = Callable[[Tensor], Tensor]
"""Draws unit noise like a tensor [B, ...]."""


def v_scales(t: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scales of data and noise at times t: cosine and sine of t pi / 2; time 1 is noise alone."""
    return CosinePath().scales(1 - t)


def v_target(data: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return the points at times t [B] between data and noise [B, ...], and the v that a net learns there."""
    point = CosinePath().sample(noise, data, 1 - t)
    return point.x_t, point.velocity * (-2 / math.pi)  # time runs the other way, and v counts angles


def denoiser_of(v: VelocityField) -> Denoiser:
    """Return the denoiser of a net that predicts v at times t from 0 (data) to 1 (noise)."""

    def denoised(x: Tensor, sigma: Tensor, condition: Any = None) -> Tensor:
        wide = sigma.reshape(-1, *([1] * (x.dim() - 1)))
        inside = (1 + wide.square()).rsqrt()
        return x * inside.square() - wide * inside * v(x * inside, sigma.atan() * 2 / math.pi, condition)

    return denoised


def polyexponential(steps: int, largest: float = 500.0, smallest: float = 0.3, rho: float = 1.0) -> Tensor:
    """Return sigmas [steps + 1] from `largest` to `smallest`, then 0; with rho 1 each is the same fraction of the last."""
    if steps < 1 or not 0 < smallest <= largest:
        raise ConfigError(
            f"polyexponential: {steps} steps from {largest} to {smallest}", "use 1 step or more, and falling sigmas"
        )
    ramp = torch.linspace(1, 0, steps).pow(rho)
    falling = (ramp * (math.log(largest) - math.log(smallest)) + math.log(smallest)).exp()
    return torch.cat([falling, torch.zeros(1)])


def ddim_v(
    v: VelocityField, x: Tensor, steps: int, condition: Any = None, eta: float = 0.0, noise: Noise | None = None
) -> Tensor:
    """Go from unit noise [B, ...] to data by DDIM over equal times (2010.02502), for a net that predicts v.

    Args:
        eta: 0 is deterministic; 1 puts in as much noise as the diffusion has, drawn by `noise`.
    """
    if steps < 1 or (eta and noise is None):
        raise ConfigError(f"ddim_v: {steps} steps, eta {eta}", "use 1 step or more; with eta above 0 give noise")
    times = torch.linspace(1, 0, steps + 1, device=x.device)[:-1]
    alphas, sigmas = v_scales(times)
    for step in range(steps):
        predicted = v(x, times[step].expand(len(x)), condition)
        data = x * alphas[step] - predicted * sigmas[step]
        if step + 1 == steps:
            return data
        fresh = torch.zeros(()) if not eta else _fresh(alphas, sigmas, step, eta)
        kept = (sigmas[step + 1].square() - fresh.square()).clamp(min=0).sqrt()
        x = data * alphas[step + 1] + (x * sigmas[step] + predicted * alphas[step]) * kept
        if eta and noise is not None:
            x = x + noise(x) * fresh
    raise AssertionError("the last step returns")


def _fresh(alphas: Tensor, sigmas: Tensor, step: int, eta: float) -> Tensor:
    """How much new noise a step puts in."""
    ratio = sigmas[step + 1].square() / sigmas[step].square()
    return eta * ratio.sqrt() * (1 - alphas[step].square() / alphas[step + 1].square()).clamp(min=0).sqrt()


def dpm_solver_2m(denoised: Denoiser, x: Tensor, sigmas: Tensor, condition: Any = None) -> Tensor:
    """Go from `sigmas[0]` times unit noise to data by DPM-Solver++(2M) (2211.01095), one evaluation a step."""
    before: Tensor | None = None
    for step in range(len(sigmas) - 1):
        sigma, after = sigmas[step], sigmas[step + 1]
        data = denoised(x, sigma.expand(len(x)), condition)
        ahead = data
        if before is not None and after > 0:
            ratio = (sigmas[step - 1] / sigma).log() / (sigma / after).log()
            ahead = data + (data - before) / (2 * ratio)
        x = ahead + after / sigma * (x - ahead)
        before = data
    return x


def dpm_solver_3m_sde(
    denoised: Denoiser, x: Tensor, sigmas: Tensor, condition: Any = None, *, noise: Noise, eta: float = 1.0
) -> Tensor:
    """Go from `sigmas[0]` times unit noise to data by DPM-Solver++(3M) SDE, as k-diffusion has it; one evaluation a step.

    Args:
        noise: draws the noise of each step but the last.
        eta: how much of the diffusion's noise is put in; 0 for none.
    """
    history: list[tuple[Tensor, Tensor]] = []  # data and step in -log sigma, the latest first
    for sigma, after in zip(sigmas[:-1], sigmas[1:], strict=True):
        data = denoised(x, sigma.expand(len(x)), condition)
        if after == 0:
            return data
        h = (sigma / after).log()
        whole = h * (eta + 1)
        x = (-whole).exp() * x - torch.expm1(-whole) * data
        phi_2 = torch.expm1(-whole) / whole + 1
        if len(history) == 2:
            (data_1, h_1), (data_2, h_2) = history
            r_0, r_1 = h_1 / h, h_2 / h
            slope, earlier = (data - data_1) / r_0, (data_1 - data_2) / r_1
            bend = (slope - earlier) / (r_0 + r_1)
            x = x + phi_2 * (slope + bend * r_0) - (phi_2 / whole - 0.5) * bend
        elif history:
            x = x + phi_2 * (data - history[0][0]) * h / history[0][1]
        if eta:
            x = x + noise(x) * after * (-torch.expm1(-2 * h * eta)).sqrt()
        history = [(data, h), *history[:1]]
    return x
