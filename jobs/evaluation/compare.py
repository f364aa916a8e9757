"""Runs held side by side: a column each, intervals on one axis, and the paired test of the run judged against each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowtts_core.metrics.scores import Score
from jobs.evaluation.distances import KINDS
from jobs.evaluation.html import Run, about, better, interval, of_clip, section, shown, table, text
from jobs.evaluation.plots import extrapolation, forest, key
from jobs.evaluation.run import judged_otherwise

LEVEL = 0.05
FEWEST = 6  # pairs, below which no sign-flip test reaches the level
_FLIPS, _SEED, _BATCH, _MANY = 9999, 20_240_607, 2_000_000, 1000

_SAID = {"better": "<b class=good>better</b>", "worse": "<b class=bad>worse</b>", "differs": "<b>differs</b>"}
Others = Sequence[tuple[str, Any, dict[str, dict[str, float]]]]


@dataclass(frozen=True)
class Difference:
    """The paired test of a metric of the run judged against another.

    Attributes:
        p: adjusted for all the tests on the page.
        verdict: of the run judged: "better", "worse", "differs" (a metric of no direction), "no clear difference" or
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
    """Two-sided p of paired differences [N] under the null hypothesis that each is as likely to have the other sign.

    Exact up to 13 pairs that differ; up to 1,000 over 9,999 draws with a fixed seed (Good, Permutation Tests, 2005, chapter
    3); beyond, by the normal distribution that the flipped sum then has.
    """
    differing = np.asarray(differences, dtype=np.float64)
    differing = differing[differing != 0]
    n = len(differing)
    if n == 0:
        return 1.0
    observed = abs(differing.sum()) * (1 - 1e-12)  # what rounds to the same sum counts as the same
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
    """The p of each of several tests, adjusted so that all hold at once (Holm, 1979); none becomes smaller."""
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = largest
    return adjusted


def differences_of(runs: Sequence[Run], others: Others) -> list[list[Difference]]:
    """By compared run, a test of each metric that both have; p adjusted for all of them together."""
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
    """What the paired difference sums up: numerators over the clips whose denominators agree."""
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


def in_a_sentence(name: str, tests: Sequence[Difference]) -> str:
    """How the run judged stands against another, as HTML."""
    counts = {v: [t.metric for t in tests if t.verdict == v] for v in _SAID}
    said = [f"{_SAID[v]} in {len(metrics)} ({text(', '.join(metrics))})" for v, metrics in counts.items() if metrics]
    rest = len(tests) - sum(len(metrics) for metrics in counts.values())
    said += [f"no clear difference in {rest}"] if rest else []
    if not tests:
        return f"<p>Against <b>{text(name)}</b>: no clip that both runs have was measured in both.</p>"
    return f"<p>Against <b>{text(name)}</b>, of {len(tests)} figures: {'; '.join(said)}.</p>"


def legend(runs: Sequence[Run]) -> str:
    """The runs with their marks."""
    items = "".join(
        f"<li>{key(run.place)}<b>{text(run.name)}</b>{' (this run)' if run.place == 0 else ''} "
        f"<span class='soft small'>{text(run.evaluation.generated)}</span></li>"
        for run in runs
    )
    return f"<ul class=runs>{items}</ul>" if len(runs) > 1 else ""


def scores_section(runs: Sequence[Run]) -> str:
    """A line a metric, a column a run, and the intervals of all on one axis."""
    names = list(dict.fromkeys(name for run in runs for name in run.evaluation.scores))
    lines = []
    for name in names:
        scores = [run.evaluation.scores.get(name) for run in runs]
        known = next(score for score in scores if score is not None)
        unit = text(", ".join(filter(None, (known.unit, better(known)))))
        barred = any(name in judged_otherwise(runs[0].evaluation, run.evaluation) for run in runs[1:])
        warning = "<span class=warn>judged by different models: not comparable</span>" if barred else ""
        said = "<br>".join(filter(None, (text(about(name)), unit, warning)))
        head = f"<b>{text(name)}</b><br><span class='soft small'>{said}</span>"
        if len(runs) == 1:
            lines.append(
                [head, f"<b>{shown(known.value)}</b>", f"<span class=range>{interval(known)}</span>", _clips(known)]
            )
            continue
        best = set() if barred else _best(scores, known.higher_is_better)
        cells = [_score(run, score, i in best) for i, (run, score) in enumerate(zip(runs, scores, strict=True))]
        lines.append([head, forest(name, runs), *cells])
    note = "Values of all clips, with 95 % intervals of the bootstrap over clips."
    heads, marks = ["metric", "value", "95 % interval", "clips"], []
    if len(runs) > 1:
        note += " Whether runs differ is told by pairs, further below; intervals that overlap do not say that they are equal."
        heads = ["metric", "95 % intervals", *(run.name for run in runs)]
        marks = ["", "", *(key(run.place) for run in runs)]
    body = f"{legend(runs)}<p class='soft small'>{note}</p>{table(heads, lines, marks)}"
    return section("scores", "Scores", body if lines else "")


def _score(run: Run, score: Score | None, is_best: bool) -> str:
    if score is None:
        return f"{key(run.place)}<span class=soft>not judged</span>"
    badge = "<span class=badge>best</span>" if is_best else ""
    counts = _clips(score, " clips")
    return (
        f"{key(run.place)}<b>{shown(score.value)}</b>{badge} "
        f"<span class='soft small'><span class=range>{interval(score)}</span> <span class=range>{counts}</span></span>"
    )


def _clips(score: Score, what: str = "") -> str:
    return f"{score.n}{what}" + (f", <span class=bad>{score.failed} failed</span>" if score.failed else "")


def _best(scores: Sequence[Score | None], higher_is_better: bool | None) -> set[int]:
    """Which have the best value; none where there is no direction, or all are equal."""
    values = {i: score.value for i, score in enumerate(scores) if score is not None and score.value is not None}
    if higher_is_better is None or len(set(values.values())) < 2:
        return set()
    best = (max if higher_is_better else min)(values.values())
    return {i for i, value in values.items() if value == best}


def tests_section(runs: Sequence[Run], tests: Sequence[Sequence[Difference]]) -> str:
    """The paired tests of the run judged against each other run."""
    if not tests:
        return ""
    count, ours = sum(len(of_run) for of_run in tests), text(runs[0].name)
    parts = [
        f"<p class='soft small'>Differences over the clips that both runs have, {ours} less the other, with 95 % intervals of "
        f"the bootstrap over pairs. The p is of a sign-flip test over the pairs, adjusted by Holm's method for all {count} "
        f"tests on this page, so that the verdicts hold together; below {LEVEL:g} it counts as clear. Each interval stands "
        "alone: one that leaves out 0 may still not be clear among so many.</p>"
    ]
    for run, of_run in zip(runs[1:], tests, strict=True):
        lines = [
            (
                f"<b>{text(t.metric)}</b>",
                f"{t.value:+.3f}",
                f"<span class=range>{shown(t.low)} to {shown(t.high)}</span>",
                "under 0.001" if t.p < 0.001 else f"{t.p:.3f}",
                _SAID.get(t.verdict, f"<span class=soft>{t.verdict}</span>"),
                str(t.pairs),
            )
            for t in of_run
        ]
        heads = ("metric", "difference", "95 % interval", "p, adjusted", f"{runs[0].name} is", "pairs")
        body = table(heads, lines) if lines else "<p>No clip that both runs have was measured in both.</p>"
        parts.append(f"<h3>{key(0)}{ours} against {key(run.place)}{text(run.name)}</h3>{body}")
    return section("tests", "Runs against one another, in pairs", "".join(parts))


def distances_section(runs: Sequence[Run]) -> str:
    """Distances to the reference of each run, and how they were taken to infinitely many clips."""
    names = list(dict.fromkeys(name for run in runs for name in run.evaluation.distances))
    if not names:
        return ""
    several = len(runs) > 1
    lines, plots = [], []
    for name in names:
        unit = next((u for run in runs if (u := (run.evaluation.distances.get(name) or {}).get("unit"))), "")
        cells = [_distance(run, name, several) for run in runs]
        said = "<br>".join(filter(None, (KINDS.get(name.partition(".")[0], ""), text(unit))))
        lines.append([f"<b>{text(name)}</b><br><span class='soft small'>{said}</span>", *cells])
        if plot := extrapolation(name, runs):
            plots.append(
                f"<figure>{plot}<figcaption><b>{text(name)}</b> of subsets, by number of clips</figcaption></figure>"
            )
    references = {run.evaluation.reference for run in runs if run.evaluation.distances}
    apart = "" if len(references) == 1 else (
        "<p class=warn>The runs have different references: their distances are not comparable.</p>"
    )  # fmt: skip
    note = (
        "<p class='soft small'>How far all clips lie from all clips of the reference, as sets of embeddings (of the log-mel, of "
        "the speaker). Lower is better. FAD shrinks as clips are added, even between equal sets: read its value at infinitely "
        "many (\u221e), where the dashed line ends.</p>"
    )
    heads = ("distance", *(run.name if several else "value" for run in runs))
    marks = ["", *(key(run.place) for run in runs)] if several else []
    body = f"{apart}{note}{table(heads, lines, marks)}"
    body += f"<div class=plots>{''.join(plots)}</div>" if plots else ""
    return section("distances", f"Distance to {text(runs[0].evaluation.reference or 'the reference')}", body)


def _distance(run: Run, name: str, several: bool) -> str:
    found, mark = run.evaluation.distances.get(name), key(run.place) if several else ""
    if found is None:
        return f"{mark}<span class=soft>not measured</span>"
    if found.get("value") is None:
        return f"{mark}<span class='soft small'>not measured: {text(found.get('why') or 'no reason given')}</span>"
    more = [f"{shown(found['at_infinity'])} at \u221e clips"] if found.get("at_infinity") is not None else []
    more += (
        [f"{found['n']} {found.get('of', 'clips')} against {found['n_reference']}"] if "n_reference" in found else []
    )
    small = " ".join(f"<span class=range>{said}</span>" for said in more)
    return f"{mark}<b>{shown(found['value'])}</b> <span class='soft small'>{small}</span>"


def differing(runs: Sequence[Run], metric: str, most: int) -> list[str]:
    """The ids of the clips whose values of a metric differ most between the run judged and any other, most first."""
    values = [{row["id"]: v for row in run.evaluation.rows if (v := of_clip(row, metric)) is not None} for run in runs]
    gaps = {
        id: max((abs(mine - there[id]) for there in values[1:] if id in there), default=0.0)
        for id, mine in values[0].items()
    }
    return sorted((id for id, gap in gaps.items() if gap > 0), key=lambda id: (-gaps[id], id))[:most]
