"""Frechet Audio Distance: how far apart the normal distributions lie that two sets of embeddings would have.

Source: Kilgour et al., "Frechet Audio Distance" (arXiv 1812.08466); extrapolation to infinitely many samples after Chong and
Forsyth, "Effectively Unbiased FID and Inception Score" (arXiv 1911.07023), and per-file distances as in Gui et al.,
"Adapting Frechet Audio Distance for Generative Music Evaluation" (arXiv 2311.01616). Lower is better. With few samples it is
biased upwards, and it sees no more than mean and covariance: KAD (`metrics/kad.py`) has neither fault.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flowtts_core.errors import ConfigError
from flowtts_core.metrics.kad import checked_pair


@dataclass(frozen=True)
class Gaussian:
    """Mean [D] and a factor [D, R] of the covariance `factor @ factor.T` (of n - 1), R at most D; all float64."""

    mean: Tensor
    factor: Tensor

    @classmethod
    def of(cls, embeddings: Tensor) -> Gaussian:
        """Of rows [N, D], N at least 2."""
        x = embeddings.double()
        mean = x.mean(dim=0)
        centred = (x - mean) / (len(x) - 1) ** 0.5  # [N, D]
        if len(x) > x.shape[1]:
            # R of a QR decomposition is a factor too, found without squaring: small variances keep their digits
            centred = torch.linalg.qr(centred, mode="r").R
        return cls(mean, centred.T)


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """`|m_a - m_b|^2 + tr(A + B - 2 (A B)^(1/2))`.

    The trace of the square root is the sum of the singular values of the product of both factors: no square root of a matrix
    is taken, so covariances without full rank (fewer samples than dimensions) are no special case.
    """
    shift = float((a.mean - b.mean).square().sum())
    root = float(torch.linalg.svdvals(a.factor.T @ b.factor).sum())
    return shift + float(a.factor.square().sum() + b.factor.square().sum()) - 2 * root


def fad(evaluated: Tensor, reference: Tensor) -> float:
    """Frechet distance of the evaluated [N, D] and the reference [M, D] embeddings.

    Raises:
        ConfigError: for fewer than two embeddings on a side, unequal widths, or values that are not finite.
    """
    evaluated, reference = checked_pair(evaluated, reference)
    return frechet_distance(Gaussian.of(evaluated), Gaussian.of(reference))


def fad_of_each(clips: Sequence[Tensor], reference: Tensor) -> list[float]:
    """FAD of each clip's own frames [T_i, D] to the reference [M, D]: which files lie outside; NaN below two frames."""
    against = Gaussian.of(reference)
    return [frechet_distance(Gaussian.of(clip), against) if len(clip) > 1 else float("nan") for clip in clips]


@dataclass(frozen=True)
class Extrapolated:
    """A distance at infinitely many samples: `value + slope / n` fits what was measured at `sizes`, with `r2` of 1 at best."""

    value: float
    slope: float
    r2: float
    sizes: tuple[int, ...]
    measured: tuple[float, ...]


def extrapolate(
    distance: Callable[[Tensor, Tensor], float],
    evaluated: Tensor,
    reference: Tensor,
    *,
    smallest: int | None = None,
    points: int = 15,
    seed: int = 0,
) -> Extrapolated:
    """Return the distance of the evaluated set [N, D] as N grows without end, from its subsets of `points` sizes.

    Args:
        distance: `fad` (then the value is FAD-infinity) or `kad`.
        smallest: the smallest subset; N / 5 by default, at least 2.

    Raises:
        ConfigError: when there are too few embeddings for two sizes.
    """
    n = len(evaluated)
    smallest = max(2, n // 5) if smallest is None else smallest
    if not 2 <= smallest < n:
        raise ConfigError(
            f"{n} embeddings, subsets from {smallest}", "an extrapolation needs two sizes: give more clips"
        )
    # equal steps of 1 / n, so that the fitted line has its points evenly spread
    sizes = sorted({round(1 / x) for x in torch.linspace(1 / smallest, 1 / n, points, dtype=torch.float64).tolist()})
    generator = torch.Generator().manual_seed(seed)
    measured = []
    for size in sizes:
        rows = torch.randperm(n, generator=generator)[:size].to(evaluated.device)
        measured.append(distance(evaluated[rows], reference))
    x = torch.tensor([[1.0, 1.0 / size] for size in sizes], dtype=torch.float64)
    y = torch.tensor(measured, dtype=torch.float64)
    line = torch.linalg.lstsq(x, y[:, None]).solution[:, 0]
    rest, spread = (y - x @ line).square().sum(), (y - y.mean()).square().sum()
    r2 = 1.0 if float(spread) == 0 else float(1 - rest / spread)
    return Extrapolated(float(line[0]), float(line[1]), r2, tuple(sizes), tuple(measured))
