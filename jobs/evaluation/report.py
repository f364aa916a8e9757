"""The page of an evaluation: one HTML file with the verdict, scores and plots, runs held side by side, and clips to hear."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flowtts_core.config import to_dict
from flowtts_core.metrics.judges import JUDGES
from flowtts_core.metrics.requirements import Requirement
from jobs.evaluation.clips import Sounds, clips_section
from jobs.evaluation.compare import (
    differences_of,
    distances_section,
    in_a_sentence,
    legend,
    scores_section,
    tests_section,
)
from jobs.evaluation.html import (
    SCRIPT,
    STYLE,
    Run,
    better,
    figure,
    interval,
    of_clip,
    runs_of,
    section,
    shown,
    table,
    text,
)
from jobs.evaluation.plots import apart, strips
from jobs.evaluation.run import Evaluation

__all__ = ["interval", "of_clip", "render", "shown"]
FAILED_SHOWN = 100
_TILES = 6
# The page asks nothing of any server, and no browser may do so for it.
_POLICY = "default-src 'none';img-src data:;media-src data:;style-src 'unsafe-inline';script-src 'unsafe-inline'"


def render(
    evaluation: Evaluation,
    requirements: Sequence[tuple[Requirement, bool]],
    others: Sequence[tuple[str, Evaluation, dict[str, dict[str, float]]]],
    made_by: dict[str, Any],
) -> str:
    """The page; it holds its audio and pictures itself.

    Args:
        requirements: each with whether it is met.
        others: name, evaluation and paired differences of each run that this one is compared with.
    """
    runs, sounds = runs_of(evaluation, others), Sounds()
    tests = differences_of(runs, others)
    sections = {
        "Scores": scores_section(runs),
        "Runs in pairs": tests_section(runs, tests),
        "Distances": distances_section(runs),
        "Clip by clip": _plots(runs),
        "Clips": clips_section(runs, sounds),
        "Not judged": _failed(evaluation),
        "Measured by": _facts({**to_dict(evaluation.panel), **made_by}),
    }
    title = f"Evaluation of {text(runs[0].name)}"
    against = f" against {text(evaluation.reference)}" if evaluation.reference else ""
    top = (
        f"<header><h1>{title}</h1><p class=soft>{text(evaluation.generated)}{against}</p></header>"
        f"<section id=summary aria-label=Summary>{_verdict(evaluation, requirements)}"
        f"{''.join(in_a_sentence(run.name, of) for run, of in zip(runs[1:], tests, strict=True))}"
        f"{_tiles(evaluation, requirements)}</section>{_contents(sections)}"
    )
    body = f"{top}<main>{''.join(sections.values())}</main>"
    size = (len(body) + len(STYLE) + len(SCRIPT)) / 1e6
    foot = (
        f"<footer><p class='soft small'>This page is one file of {size:.1f} MB. It holds the sound of {sounds.clips} clips as "
        "MP3 and asks nothing of any other place.</p></footer>"
    )
    head = (
        f'<meta charset=utf-8><meta http-equiv=Content-Security-Policy content="{_POLICY}">'
        f'<meta name=viewport content="width=device-width,initial-scale=1"><link rel=icon href="data:,">'
        f"<title>{title}</title><style>{STYLE}</style>"
    )
    script = f"<script>{SCRIPT}</script>"
    return f"<!doctype html><html lang=en><head>{head}</head><body>{body}{foot}{script}</body></html>\n"


def _contents(sections: dict[str, str]) -> str:
    links = "".join(
        f'<a href="#{body.removeprefix("<section id=").partition(" ")[0]}">{name}</a>'
        for name, body in sections.items()
        if body
    )
    return f"<nav aria-label=Contents>{links}</nav>"


def _verdict(evaluation: Evaluation, requirements: Sequence[tuple[Requirement, bool]]) -> str:
    """Whether what was required is met, and whether all was judged."""
    unmet = [requirement for requirement, met in requirements if not met]
    count = len(requirements)
    if not requirements:
        kind, said = "", "No requirement was set."
    elif unmet:
        kind = "no"
        said = f"\u2717 {len(unmet)} of {count} requirement{'s' * (count > 1)} {'is' if len(unmet) == 1 else 'are'} not met."
    else:
        kind, said = "yes", f"\u2713 {f'All {count} requirements are' if count > 1 else 'The requirement is'} met."
    lines = "".join(_requirement(evaluation, requirement, met) for requirement, met in requirements)
    judged = f"{evaluation.clips} clips, all judged."
    if evaluation.in_part:
        said = ", ".join(f"{n} not by {judge}" for judge, n in evaluation.in_part.items())
        judged = f'{evaluation.clips} clips, <b class=warn>{said}</b> (<a href="#failed">why</a>).'
    if evaluation.failed:
        judged = (
            f"<b class=warn>{evaluation.failed} of {evaluation.clips} clips could not be judged.</b> "
            'They are counted beside each score, not in it (<a href="#failed">why</a>).'
        )
    return (
        f"<div class='verdict {kind}'><p><b>{said}</b></p>{f'<ul>{lines}</ul>' if lines else ''}<p>{judged}</p></div>"
    )


def _requirement(evaluation: Evaluation, requirement: Requirement, met: bool) -> str:
    found = figure(evaluation, requirement.metric)
    doubt = ""
    score = evaluation.scores.get(requirement.metric)
    if score is not None and score.low is not None and score.high is not None:
        crosses = score.low < requirement.bound < score.high
        doubt = f" <span class=soft>({interval(score)}{': the bound lies within, so it is not sure' if crosses else ''})</span>"
    said = "was not measured" if found is None else f"found {shown(found)}"
    state = f"<b class={'good' if met else 'bad'}>{_state(met)}</b>"
    return f"<li>{text(requirement)}: {state}, {said}{doubt}</li>"


def _tiles(evaluation: Evaluation, requirements: Sequence[tuple[Requirement, bool]]) -> str:
    """The figures that something is required of, then the first of each judge and the distances, as far as there is room."""
    names = [requirement.metric for requirement, _ in requirements]
    names += [judge.metrics[0].name for judge in JUDGES.values() if judge.metrics]
    names += [*evaluation.distances, *evaluation.scores]
    tiles: list[str] = []
    for name in dict.fromkeys(names):
        value = figure(evaluation, name)
        if value is None or len(tiles) >= max(_TILES, len(requirements)):
            continue
        score = evaluation.scores.get(name)
        limit = evaluation.distances[name].get("at_infinity") if name in evaluation.distances else None
        small = interval(score) if score else f"{shown(limit)} at \u221e clips" if limit is not None else ""
        held = "".join(
            f"<div class={'good' if met else 'bad'}>{_state(met)}: {text(requirement)}</div>"
            for requirement, met in requirements
            if requirement.metric == name
        )
        what = ", ".join(filter(None, (name, score.unit, better(score)) if score else (name, "lower is better")))
        tiles.append(f"<div class=tile><span>{text(what)}</span><b>{shown(value)}</b><span>{small}</span>{held}</div>")
    return f"<div class=tiles>{''.join(tiles)}</div>" if tiles else ""


def _state(met: bool) -> str:
    return "\u2713 met" if met else "\u2717 not met"


def _plots(runs: Sequence[Run]) -> str:
    """A plot of each metric, all runs on one axis; a sentence of a metric that is the same in every clip."""
    figures, constant = [], []
    for name in dict.fromkeys(name for run in runs for name in run.evaluation.scores):
        values = [v for run in runs for row in run.evaluation.rows if (v := of_clip(row, name)) is not None]
        unit = next(run.evaluation.scores[name].unit for run in runs if name in run.evaluation.scores)
        said = f"<b>{text(name)}</b>{f', {text(unit)}' if unit else ''}"
        if values and apart(values):
            figures.append(f"<figure>{strips(name, runs)}<figcaption>{said}</figcaption></figure>")
        elif values:
            constant.append(f"{said}: {shown(values[0])}")
    same = f"<p>The same in every clip: {'; '.join(constant)}.</p>" if constant else ""
    note = "<p class='soft small'>How many clips have which value; above, the run's value with its 95 % interval.</p>"
    plots = f"{note}{legend(runs)}<div class=plots>{''.join(figures)}</div>" if figures else ""
    return section("plots", "Clip by clip", plots + same)


def _failed(evaluation: Evaluation) -> str:
    """Each clip that could not be judged, or not by every judge, with the reason."""
    rows = sorted((row for row in evaluation.rows if row["reason"]), key=lambda row: row["status"] == "ok")
    reasons = "".join(f"<li>{count} x {text(reason)}</li>" for reason, count in evaluation.reasons.items())
    if not rows and not reasons:
        return ""
    lines = [
        (
            f"<b>{text(row['id'])}</b>",
            "in part" if row["status"] == "ok" else "<span class=bad>not at all</span>",
            text(row["reason"]),
        )
        for row in rows[:FAILED_SHOWN]
    ]
    more = f"<p class=soft>{FAILED_SHOWN} of {len(rows)}; clips.csv has all.</p>" if len(rows) > FAILED_SHOWN else ""
    body = (
        f"{f'<ul>{reasons}</ul>' if len(rows) > FAILED_SHOWN else ''}{table(('clip', 'judged', 'reason'), lines)}{more}"
    )
    return section("failed", "Not judged", body)


def _facts(facts: dict[str, Any]) -> str:
    lines = [
        (f"<span class=soft>{text(name)}</span>", text(", ".join(value) if isinstance(value, list | tuple) else value))
        for name, value in facts.items()
        if value not in (None, "", [], ())
    ]
    return section("facts", "Measured by", table(("", ""), lines) if lines else "")
