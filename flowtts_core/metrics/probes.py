"""Linear probes: what can be read of vectors by a linear map, learnt on some and tried on others (Alain and Bengio 2016)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_PENALTY, _ITERATIONS = 1e-4, 60


@dataclass(frozen=True)
class Read:
    """How well something is read, and how well without looking: a share of right answers, or of variance (R2, chance 0)."""

    value: float
    chance: float
    tried: int


def read_class(train: Tensor, labels: Tensor, test: Tensor, wanted: Tensor) -> Read:
    """Return the share of vectors [N, D] whose class is read by a logistic regression that was learnt on others.

    Chance is the share of the class that is commonest among those that it learnt of, or that of one class of all.
    """
    train, test = _standardised(train, test)
    classes, own = labels.unique(return_inverse=True)
    weight = torch.zeros(train.shape[1], len(classes), requires_grad=True)
    bias = torch.zeros(len(classes), requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(train @ weight + bias, own) + _PENALTY * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]  # likewise
    with torch.no_grad():
        right = classes[(test @ weight + bias).argmax(1)] == wanted
    commonest = classes[torch.bincount(own).argmax()]
    chance = max(float((wanted == commonest).float().mean()), 1 / len(classes))
    return Read(float(right.float().mean()), chance, len(wanted))


def read_number(train: Tensor, numbers: Tensor, test: Tensor, wanted: Tensor) -> Read:
    """Return the share of the variance of numbers [N] that a ridge regression explains, 0 where it explains none."""
    train, test = (F.pad(own, (0, 1), value=1.0).double() for own in _standardised(train, test))
    penalty = _PENALTY * len(train) * torch.eye(train.shape[1], dtype=torch.float64)
    weight = torch.linalg.solve(train.T @ train + penalty, train.T @ numbers.double())
    left = (wanted.double() - test @ weight).square().sum() / (wanted.double() - numbers.double().mean()).square().sum()
    return Read(max(0.0, float(1 - left)), 0.0, len(wanted))


def _standardised(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    mean, spread = train.mean(0), train.std(0).clamp(min=1e-5)
    return (train - mean) / spread, (test - mean) / spread
