"""Render the page of an evaluation: one HTML file with verdict, scores, plots, compared runs, and clips to hear."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flowtts_core.config import to_dict
from flowtts_core.metrics.judges import JUDGES, OVER_TIME
from flowtts_core.metrics.requirements import Requirement
from jobs.evaluation.clips import ClipSounds, clips_of
from jobs.evaluation.compare import CLEAR, LEVEL, Others, by_verdict, differences_of, distance_lines, score_lines
from jobs.evaluation.figures import Run, better, interval, of_clip, runs_of, shown
from jobs.evaluation.plots import apart, forest, key, over_time, strips
from jobs.evaluation.result import Evaluation
from jobs.templates import fill

_FAILED_SHOWN = 100
_TILES = 6


def render(
    evaluation: Evaluation, requirements: Sequence[tuple[Requirement, bool]], others: Others, made_by: dict[str, Any]
) -> str:
    """Return the page. It holds its audio and pictures itself.

    Args:
        requirements: each with whether it is met.
        others: name, evaluation and paired differences of each run that this one is compared with.
    """
    runs, sounds = runs_of(evaluation, others), ClipSounds()
    facts = {**to_dict(evaluation.panel), **made_by}
    return fill(
        "evaluation/page.html.j2",
        runs=runs,
        requirements=requirements,
        tiles=_tiles(evaluation, requirements),
        scores=score_lines(runs),
        tests=list(zip(runs[1:], differences_of(runs, others), strict=True)),
        distances=distance_lines(runs),
        references={run.evaluation.reference for run in runs if run.evaluation.distances},
        plots=_plots(runs),
        over_time=[(metric, picture) for metric in OVER_TIME if (picture := over_time(metric, runs[0])) is not None],
        clips=clips_of(runs, sounds),
        sounds=sounds,
        failed=sorted((row for row in evaluation.rows if row["reason"]), key=lambda row: row["status"] == "ok"),
        failed_shown=_FAILED_SHOWN,
        facts={name: ", ".join(value) if isinstance(value, list | tuple) else value
               for name, value in facts.items() if value not in (None, "", [], ())},
        level=LEVEL,
        verdicts=CLEAR,
        by_verdict=by_verdict,
        shown=shown,
        interval=interval,
        key=key,
        forest=forest,
    )  # fmt: skip


def _tiles(evaluation: Evaluation, requirements: Sequence[tuple[Requirement, bool]]) -> list[dict[str, Any]]:
    """Return what each tile shows: the figures that something is required of, then some of each judge and the distances."""
    names = [requirement.metric for requirement, _ in requirements]
    names += [judge.metrics[0].name for judge in JUDGES.values() if judge.metrics]
    names += [*evaluation.distances, *evaluation.scores]
    tiles = []
    for name in dict.fromkeys(names):
        value = evaluation.value(name)
        if value is None:
            continue
        score = evaluation.scores.get(name)
        limit = evaluation.distances[name].get("at_infinity") if name in evaluation.distances else None
        small = interval(score) if score else f"{shown(limit)} at \u221e clips" if limit is not None else ""
        what = ", ".join(filter(None, (name, score.unit, better(score)) if score else (name, "lower is better")))
        tiles.append({"name": name, "what": what, "value": value, "range": small})
    return tiles[: max(_TILES, len(requirements))]


def _plots(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return for each metric its plot of all runs on one axis, or its value where it is the same in every clip."""
    plots = []
    for name in dict.fromkeys(name for run in runs for name in run.evaluation.scores):
        values = [v for run in runs for row in run.evaluation.rows if (v := of_clip(row, name)) is not None]
        unit = next(run.evaluation.scores[name].unit for run in runs if name in run.evaluation.scores)
        if values:
            picture = strips(name, runs) if apart(values) else None
            plots.append({"metric": name, "unit": unit, "value": values[0], "picture": picture})
    return plots
