"""Compare runs: their scores and distances side by side, and paired tests of the run judged against each other one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowtts_core.metrics.scores import Score
from jobs.evaluation.distances import KINDS
from jobs.evaluation.figures import Run, about, better, of_clip
from jobs.evaluation.plots import extrapolation
from jobs.evaluation.result import judged_otherwise

LEVEL = 0.05
FEWEST = 6  # pairs; with fewer no sign-flip test reaches the level
_FLIPS, _SEED, _BATCH, _MANY = 9999, 20_240_607, 2_000_000, 1000

CLEAR = ("better", "worse", "differs")
Others = Sequence[tuple[str, Any, dict[str, dict[str, float]]]]


@dataclass(frozen=True)
class Difference:
    """The paired test of a metric of the run judged against another.

    Attributes:
        p: the p-value, adjusted for all tests on the page.
        verdict: the run judged is: "better", "worse", "differs" (a metric of no direction), "no clear difference" or
            "too few pairs to tell".
    """

    metric: str
    value: float
    low: float
    high: float
    pairs: int
    p: float
    verdict: str


def sign_flip_p(differences: np.ndarray) -> float:
    """Return the two-sided p-value of paired differences [N] by a sign-flip test.

    The null hypothesis is that each difference is as likely to have the other sign. The test is exact for up to 13 non-zero
    differences; for up to 1,000 it takes 9,999 draws with a fixed seed (Good, Permutation Tests, 2005, chapter 3); for more
    it uses the normal distribution of the sum.
    """
    differing = np.asarray(differences, dtype=np.float64)
    differing = differing[differing != 0]
    n = len(differing)
    if n == 0:
        return 1.0
    observed = abs(differing.sum()) * (1 - 1e-12)  # sums that differ by rounding count as equal
    if n <= 13:
        signs = 1 - 2.0 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
        return float((np.abs(signs @ differing) >= observed).mean())
    if n > _MANY:
        return math.erfc(observed / math.sqrt(2 * float((differing**2).sum())))
    rng, rows, beyond, left = np.random.default_rng(_SEED), max(1, _BATCH // n), 1, _FLIPS
    while left:
        signs = 1 - 2.0 * rng.integers(0, 2, (min(rows, left), n), dtype=np.int8)
        beyond += int((np.abs(signs @ differing) >= observed).sum())
        left -= len(signs)
    return beyond / (_FLIPS + 1)


def holm(ps: Sequence[float]) -> list[float]:
    """Return p-values adjusted for multiple tests (Holm, 1979)."""
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = largest
    return adjusted


def differences_of(runs: Sequence[Run], others: Others) -> list[list[Difference]]:
    """Return for each compared run a test of each metric that both have. P-values are adjusted for all of them together."""
    found = [
        (i, metric, difference, sign_flip_p(_paired(runs[0], runs[i + 1], metric)))
        for i, (_, _, differences) in enumerate(others)
        for metric, difference in differences.items()
    ]
    tests: list[list[Difference]] = [[] for _ in others]
    for (i, metric, d, _), p in zip(found, holm([p for *_, p in found]), strict=True):
        score = runs[0].evaluation.scores.get(metric) or runs[i + 1].evaluation.scores.get(metric)
        verdict = _verdict(d["value"], int(d["n"]), p, score.higher_is_better if score else None)
        tests[i].append(Difference(metric, d["value"], d["low"], d["high"], int(d["n"]), p, verdict))
    return tests


def _paired(ours: Run, theirs: Run, metric: str) -> np.ndarray:
    """Return the differences of the numerators of the clips whose denominators agree."""
    there = {row["id"]: row["values"][metric] for row in theirs.evaluation.rows if metric in row["values"]}
    pairs = [(row["values"][metric], there[row["id"]]) for row in ours.evaluation.rows
             if metric in row["values"] and row["id"] in there]  # fmt: skip
    return np.array([mine[0] - other[0] for mine, other in pairs if mine[1] == other[1]])


def _verdict(value: float, pairs: int, p: float, higher_is_better: bool | None) -> str:
    if value and pairs < FEWEST:
        return "too few pairs to tell"
    if p >= LEVEL or value == 0:
        return "no clear difference"
    return "differs" if higher_is_better is None else "better" if (value > 0) == higher_is_better else "worse"


def by_verdict(tests: Sequence[Difference]) -> list[tuple[str, list[str]]]:
    """Return the metrics of each verdict that is clear, and those of no clear difference together, without empty ones."""
    found = [(said, [test.metric for test in tests if test.verdict == said]) for said in CLEAR]
    found.append(("no clear difference", [test.metric for test in tests if test.verdict not in CLEAR]))
    return [(said, metrics) for said, metrics in found if metrics]


@dataclass(frozen=True)
class ScoreLine:
    """A metric of all runs.

    Attributes:
        about: what the metric says, its unit and which end is better, as far as known.
        scores: of each run; None where it was not judged.
        barred: whether a run was judged by another model, so that scores are not comparable.
        best: the places of the runs with the best value.
    """

    metric: str
    about: list[str]
    scores: list[Score | None]
    barred: bool
    best: set[int]


def score_lines(runs: Sequence[Run]) -> list[ScoreLine]:
    """Return a line for each metric that any run has."""
    lines = []
    for name in dict.fromkeys(name for run in runs for name in run.evaluation.scores):
        scores = [run.evaluation.scores.get(name) for run in runs]
        known = next(score for score in scores if score is not None)
        said = [about(name), ", ".join(filter(None, (known.unit, better(known))))]
        barred = any(name in judged_otherwise(runs[0].evaluation, run.evaluation) for run in runs[1:])
        best = set() if barred else _best(scores, known.higher_is_better)
        lines.append(ScoreLine(name, [one for one in said if one], scores, barred, best))
    return lines


def _best(scores: Sequence[Score | None], higher_is_better: bool | None) -> set[int]:
    """Return the positions with the best value; none where no end is better, or all are equal."""
    values = {i: score.value for i, score in enumerate(scores) if score is not None and score.value is not None}
    if higher_is_better is None or len(set(values.values())) < 2:
        return set()
    best = (max if higher_is_better else min)(values.values())
    return {i for i, value in values.items() if value == best}


def distance_lines(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the name of each distance that any run has, what it says, and its plot over the number of clips."""
    lines = []
    for name in dict.fromkeys(name for run in runs for name in run.evaluation.distances):
        unit = next((u for run in runs if (u := (run.evaluation.distances.get(name) or {}).get("unit"))), "")
        said = [one for one in (KINDS.get(name.partition(".")[0], ""), unit) if one]
        lines.append({"name": name, "about": said, "picture": extrapolation(name, runs)})
    return lines


def differing(runs: Sequence[Run], metric: str, most: int) -> list[str]:
    """Return the ids of the clips whose metric differs most between the run judged and any other, most first."""
    values = [{row["id"]: v for row in run.evaluation.rows if (v := of_clip(row, metric)) is not None} for run in runs]
    gaps = {
        id: max((abs(mine - there[id]) for there in values[1:] if id in there), default=0.0)
        for id, mine in values[0].items()
    }
    return sorted((id for id, gap in gaps.items() if gap > 0), key=lambda id: (-gaps[id], id))[:most]
