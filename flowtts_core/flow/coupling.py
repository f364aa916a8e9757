"""Couplings: which noise sample of a minibatch is paired with which data sample."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flowtts_core.errors import ConfigError


def squared_distances(x_0: Tensor, x_1: Tensor) -> Tensor:
    """Return squared Euclidean distances [B, B] between samples [B, ...]: row i is `x_0[i]`, column j is `x_1[j]`."""
    a, b = x_0.flatten(1).double(), x_1.flatten(1).double()
    return (a.square().sum(1, keepdim=True) + b.square().sum(1) - 2 * a @ b.T).clamp(min=0.0)


def sinkhorn_plan(cost: Tensor, regularisation: float, iterations: int) -> Tensor:
    """Return the entropic transport plan [N, M] between uniform marginals, iterated in the log domain (Cuturi 2013).

    Args:
        cost: [N, M].
        regularisation: weight of the entropy, in the cost's unit. Towards 0 the plan becomes the exact one.
        iterations: at most so many rounds; it stops earlier once the row marginals are right to 1e-9.
    """
    log_kernel = -cost.double() / regularisation
    log_a, log_b = -math.log(cost.shape[0]), -math.log(cost.shape[1])
    f = torch.zeros(cost.shape[0], dtype=torch.float64, device=cost.device)
    g = torch.zeros(cost.shape[1], dtype=torch.float64, device=cost.device)
    for _ in range(iterations):
        f = log_a - torch.logsumexp(log_kernel + g, 1)
        g = log_b - torch.logsumexp(log_kernel + f[:, None], 0)
        rows = (log_kernel + f[:, None] + g).logsumexp(1).exp()
        if (rows - 1 / cost.shape[0]).abs().max() < 1e-9:
            break
    return (log_kernel + f[:, None] + g).exp()


@dataclass(frozen=True)
class IndependentCoupling:
    """Pairs noise and data in their given order."""

    def pair(self, x_0: Tensor, x_1: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return indices [B]: `x_0[indices]` goes with `x_1`."""
        return torch.arange(x_1.shape[0], device=x_1.device)


@dataclass(frozen=True)
class OptimalCoupling:
    """The pairing of least total squared distance within the minibatch (Tong et al. 2024, arXiv:2302.00482)."""

    def pair(self, x_0: Tensor, x_1: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return indices [B]: `x_0[indices]` goes with `x_1`."""
        from scipy.optimize import linear_sum_assignment  # takes a second to import, and inference never needs it

        _, noise = linear_sum_assignment(squared_distances(x_0, x_1).T.cpu().numpy())
        return torch.from_numpy(noise).to(x_1.device)


@dataclass(frozen=True)
class SinkhornCoupling:
    """Draws each data sample's noise from the entropic plan. A noise sample may be drawn twice.

    Attributes:
        regularisation: relative to the mean cost of the minibatch, so that it does not depend on the data's scale.
    """

    regularisation: float = 0.05
    iterations: int = 200

    def __post_init__(self) -> None:
        if self.regularisation <= 0:
            raise ConfigError(f"SinkhornCoupling.regularisation = {self.regularisation}", "use a value above 0")

    def pair(self, x_0: Tensor, x_1: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return indices [B]: `x_0[indices]` goes with `x_1`; drawn from `generator` (of the CPU)."""
        cost = squared_distances(x_0, x_1)
        plan = sinkhorn_plan(cost, self.regularisation * max(float(cost.mean()), 1e-12), self.iterations)
        return torch.multinomial(plan.T.cpu(), 1, generator=generator).squeeze(1).to(x_1.device)


Coupling = IndependentCoupling | OptimalCoupling | SinkhornCoupling
COUPLINGS = {
    "independent": (IndependentCoupling, lambda config: config),
    "optimal": (OptimalCoupling, lambda config: config),
    "sinkhorn": (SinkhornCoupling, lambda config: config),
}
