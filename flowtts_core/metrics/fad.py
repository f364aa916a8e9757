"""Frechet Audio Distance: the distance of normal distributions fitted to two sets of embeddings.

Source: Kilgour et al., "Frechet Audio Distance" (arXiv 1812.08466); extrapolation to infinitely many samples after Chong and
Forsyth, "Effectively Unbiased FID and Inception Score" (arXiv 1911.07023), and per-file distances as in Gui et al.,
"Adapting Frechet Audio Distance for Generative Music Evaluation" (arXiv 2311.01616). Lower is better. It is biased upwards
with few samples, and sees only mean and covariance. KAD (`metrics/kad.py`) has neither fault.
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
    """Mean [D] and a factor [D, R], R <= D, of the covariance `factor @ factor.T` (divided by n - 1), in float64."""

    mean: Tensor
    factor: Tensor

    @classmethod
    def of(cls, embeddings: Tensor) -> Gaussian:
        """Fit rows [N, D], N at least 2."""
        x = embeddings.double()
        mean = x.mean(dim=0)
        centred = (x - mean) / (len(x) - 1) ** 0.5  # [N, D]
        if len(x) > x.shape[1]:
            # the R of a QR decomposition is a factor too; unlike the covariance it keeps the digits of small variances
            centred = torch.linalg.qr(centred, mode="r").R
        return cls(mean, centred.T)


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Return `|m_a - m_b|^2 + tr(A + B - 2 (A B)^(1/2))`.

    The trace of the square root is the sum of the singular values of the product of both factors. So no matrix square root
    is needed, and covariances without full rank (fewer samples than dimensions) are no special case.
    """
    shift = float((a.mean - b.mean).square().sum())
    root = float(torch.linalg.svdvals(a.factor.T @ b.factor).sum())
    return shift + float(a.factor.square().sum() + b.factor.square().sum()) - 2 * root


def fad(evaluated: Tensor, reference: Tensor) -> float:
    """Return the Frechet distance of the evaluated [N, D] and the reference [M, D] embeddings.

    Raises:
        ConfigError: for fewer than two embeddings on a side, unequal widths, or values that are not finite.
    """
    evaluated, reference = checked_pair(evaluated, reference)
    return frechet_distance(Gaussian.of(evaluated), Gaussian.of(reference))


def fad_of_each(clips: Sequence[Tensor], reference: Tensor) -> list[float]:
    """Return FAD of each clip's frames [T_i, D] to the reference [M, D], to find outliers; NaN for fewer than two frames."""
    against = Gaussian.of(reference)
    return [frechet_distance(Gaussian.of(clip), against) if len(clip) > 1 else float("nan") for clip in clips]


@dataclass(frozen=True)
class Extrapolated:
    """A distance at infinitely many samples: the fit `value + slope / n` of the distances at `sizes`, and its `r2`."""

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
    """Extrapolate the distance of the evaluated set [N, D] to infinite N from subsets of `points` sizes.

    Args:
        distance: `fad` (which gives FAD-infinity) or `kad`.
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
    # equal steps of 1 / n spread the points of the fit evenly
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
