"""The runs on the page of an evaluation, and their figures as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flowtts_core.metrics.judges import METRICS
from flowtts_core.metrics.scores import Score
from jobs.evaluation.result import Evaluation


@dataclass(frozen=True)
class Run:
    """A run on the page: a unique name, and `place`, which gives its colour and mark. Place 0 is the run judged."""

    name: str
    evaluation: Evaluation
    place: int


def runs_of(evaluation: Evaluation, others: Sequence[tuple[str, Evaluation, Any]]) -> list[Run]:
    """Return the run judged and those it is compared with, named by the shortest distinct ends of their paths."""
    places = [evaluation.generated, *(name for name, _, _ in others)]
    paths = [place.rstrip("/").split("/") for place in places]
    deepest = max(len(path) for path in paths)
    depth = next((n for n in range(1, deepest) if len({tuple(path[-n:]) for path in paths}) == len(paths)), deepest)
    names = ["/".join(path[-depth:]) for path in paths]
    names = [f"{name} ({i + 1})" if name in names[:i] else name for i, name in enumerate(names)]
    return [Run(names[i], run, i) for i, run in enumerate([evaluation, *(other for _, other, _ in others)])]


def shown(value: float | None) -> str:
    """Return a figure with three decimals, or one from 10 on."""
    return "none" if value is None else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def interval(score: Score) -> str:
    """Return the 95 % interval of a score as text."""
    return "" if score.low is None else f"{shown(score.low)} to {shown(score.high)}"


def of_clip(row: dict[str, Any], metric: str) -> float | None:
    """Return a clip's own value of a metric; None where it has none."""
    value = row["values"].get(metric)
    return None if value is None or value[1] <= 0 else float(value[0] / value[1])


def about(metric: str) -> str:
    """Return what a metric says; "" for an unknown one."""
    return METRICS[metric].about if metric in METRICS else ""


def better(score: Score) -> str:
    return {True: "higher is better", False: "lower is better", None: ""}[score.higher_is_better]


def directed(scores: dict[str, Score]) -> list[str]:
    """Return the metrics that have a better end."""
    return [name for name, score in scores.items() if score.higher_is_better is not None]
