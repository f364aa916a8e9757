"""The page of an evaluation: one HTML file with scores, a plot of each metric, the best and worst clips, and comparisons."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from flowtts_core.audio.files import encode, resample
from flowtts_core.errors import AudioError
from flowtts_core.metrics.judges import METRICS
from flowtts_core.metrics.scores import Score
from flowtts_core.metrics.wer import alignment
from jobs.evaluation import Evaluation, Requirement
from jobs.evaluation_input import read_clip
from jobs.synthesis_report import STYLE as BASE_STYLE

SHOWN = 5  # best and worst clips
_BARS = 24
_STYLE = (
    BASE_STYLE
    + """
.good{color:var(--good)}.bad{color:var(--warn)}:root{--good:#1c6b2f}
@media(prefers-color-scheme:dark){:root{--good:#7ed492}}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(230px,1fr));gap:14px}
.plots figure{margin:0;background:var(--card);border-radius:10px;padding:10px 12px}
figcaption{font-size:.85rem;color:var(--soft)}
svg{display:block;width:100%;height:auto}
.bar{fill:var(--mark)}.axis{stroke:var(--line)}.label{fill:var(--soft);font-size:9px}.wave{stroke:var(--mark);fill:none}
.clip{border-bottom:1px solid var(--line);padding:14px 0;display:grid;grid-template-columns:1fr 1fr;gap:6px 18px}
.clip>*{min-width:0}.clip img{width:100%;height:90px;image-rendering:auto;border-radius:6px}
.clip .wide{grid-column:1/-1}
del{color:var(--warn)}ins{color:var(--mark)}
@media(max-width:640px){.clip{grid-template-columns:1fr}}
"""
)


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
    title = f"Evaluation of {_text(evaluation.generated.rstrip('/').rpartition('/')[2])}"
    parts = [
        f"<h1>{title}</h1><p class=soft>{_text(evaluation.generated)}</p>",
        _failures(evaluation),
        _requirements(evaluation, requirements),
        _scores(evaluation),
        _distances(evaluation),
        _comparisons(others),
        _plots(evaluation),
        _clips(evaluation),
        _facts(made_by),
    ]
    head = (
        f'<meta charset=utf-8><meta name=viewport content="width=device-width,initial-scale=1"><title>{title}</title>'
    )
    return (
        f"<!doctype html><html lang=en><head>{head}<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def shown(value: float | None) -> str:
    """A figure with three digits that say something."""
    return "none" if value is None else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def interval(score: Score) -> str:
    """The 95 % interval of a score as text."""
    return "" if score.low is None else f"{shown(score.low)} to {shown(score.high)}"


def _failures(evaluation: Evaluation) -> str:
    if not evaluation.failed:
        return f"<p>{evaluation.clips} clips, all judged.</p>"
    reasons = "".join(f"<li>{count} x {_text(reason)}</li>" for reason, count in evaluation.reasons.items())
    return (
        f"<p class=warn><b>{evaluation.failed} of {evaluation.clips} clips could not be judged.</b> "
        f"They are counted beside each score, not in it.</p><ul>{reasons}</ul>"
    )


def _requirements(evaluation: Evaluation, requirements: Sequence[tuple[Requirement, bool]]) -> str:
    if not requirements:
        return ""
    lines = [
        (
            _text(str(requirement)),
            shown(evaluation.value(requirement.metric)),
            f"<b class={'good' if met else 'bad'}>{'met' if met else 'not met'}</b>",
        )
        for requirement, met in requirements
    ]
    return "<h2>Requirements</h2>" + _table(("required", "found", ""), lines)


def _scores(evaluation: Evaluation) -> str:
    lines = []
    for name, score in evaluation.scores.items():
        better = {True: "higher is better", False: "lower is better", None: ""}[score.higher_is_better]
        about = f"<b>{_text(name)}</b><br><span class=soft>{_text(METRICS[name].about)}</span>"
        unit = f"{_text(score.unit)}<br><span class=soft>{better}</span>"
        missing = f"<span class=bad>{score.failed} failed</span>" if score.failed else ""
        lines.append((about, f"<b>{shown(score.value)}</b>", interval(score), unit, f"{score.n} {missing}"))
    return "<h2>Scores</h2>" + _table(("metric", "value", "95 % interval", "unit", "clips"), lines)


def _distances(evaluation: Evaluation) -> str:
    if not evaluation.distances:
        return ""
    lines = [
        (
            f"<b>{_text(name)}</b>",
            f"<b>{shown(found['value'])}</b>",
            shown(found["at_infinity"]),
            _text(found["unit"]),
            f"{found['n']} against {found['n_reference']}",
        )
        for name, found in evaluation.distances.items()
    ]
    note = (
        "<p class=soft>How far the set lies from the reference's, in embeddings of the log-mel or of the speaker. Lower "
        "is better. FAD shrinks as clips are added, even between equal sets: read its value at infinitely many.</p>"
    )
    heads = ("distance", "value", "at infinity", "what", "clips")
    return f"<h2>Distance to {_text(evaluation.reference)}</h2>{note}{_table(heads, lines)}"


def _comparisons(others: Sequence[tuple[str, Evaluation, dict[str, dict[str, float]]]]) -> str:
    parts = []
    for name, other, differences in others:
        lines = []
        for metric, found in differences.items():
            clear = found["low"] > 0 or found["high"] < 0
            better = METRICS[metric].higher_is_better
            verdict = "no clear difference"
            if clear:
                verdict = "differs" if better is None else "better" if (found["value"] > 0) == better else "worse"
            kind = {"better": "good", "worse": "bad"}.get(verdict, "soft")
            theirs = other.scores[metric].value
            lines.append(
                (
                    f"<b>{_text(metric)}</b>",
                    shown(theirs),
                    f"{found['value']:+.3f}",
                    f"{shown(found['low'])} to {shown(found['high'])}",
                    f"<span class={kind}>{verdict}</span>",
                    str(int(found["n"])),
                )
            )
        heads = ("metric", "theirs", "ours less theirs", "95 % interval", "", "pairs")
        parts.append(f"<h2>Against {_text(name)}, in pairs</h2>{_table(heads, lines)}")
    return "".join(parts)


def _plots(evaluation: Evaluation) -> str:
    figures = []
    for name in evaluation.scores:
        values = [found for row in evaluation.rows if (found := of_clip(row, name)) is not None]
        if len(values) > 1:
            caption = f"{_text(name)}, {_text(METRICS[name].unit)}: clips by value"
            figures.append(f"<figure>{_histogram(values)}<figcaption>{caption}</figcaption></figure>")
    return f"<h2>Clip by clip</h2><div class=plots>{''.join(figures)}</div>" if figures else ""


def of_clip(row: dict[str, Any], metric: str) -> float | None:
    """A clip's own value of a metric; None where it has none."""
    value = row["values"].get(metric)
    return None if value is None or value[1] <= 0 else float(value[0] / value[1])


def _histogram(values: Sequence[float]) -> str:
    low, high = float(np.min(values)), float(np.max(values))
    counts, _ = np.histogram(values, bins=_BARS, range=(low, high if high > low else low + 1e-6))
    wide, tall = 240 / _BARS, 70
    bars = "".join(
        f'<rect class=bar x="{i * wide:.1f}" y="{tall * (1 - count / counts.max()):.1f}" width="{wide - 1:.1f}" '
        f'height="{tall * count / counts.max():.1f}"/>'
        for i, count in enumerate(counts)
    )
    return (
        f'<svg viewBox="0 0 240 86" role=img aria-label="from {shown(low)} to {shown(high)}">{bars}'
        f"<line class=axis x1=0 x2=240 y1=70 y2=70 /><text class=label x=0 y=82>{shown(low)}</text>"
        f"<text class=label x=240 y=82 text-anchor=end>{shown(high)}</text></svg>"
    )


def _clips(evaluation: Evaluation) -> str:
    """The worst and best clips by the first metric that has a direction: words, where there are texts."""
    name = next((name for name in evaluation.scores if METRICS[name].higher_is_better is not None), None)
    if name is None:
        return ""
    rows = [row for row in evaluation.rows if row["status"] == "ok" and of_clip(row, name) is not None]
    worst_first = sorted(rows, key=lambda row: of_clip(row, name) or 0.0, reverse=not METRICS[name].higher_is_better)
    parts = []
    for title, picked in (("Worst", worst_first[:SHOWN]), ("Best", worst_first[SHOWN:][-SHOWN:][::-1])):
        clips = "".join(_clip(evaluation, row) for row in picked)
        parts.append(f"<h2>{title} by {_text(name)}</h2>{clips}" if clips else "")
    return "".join(parts)


def _clip(evaluation: Evaluation, row: dict[str, Any]) -> str:
    figures = ", ".join(
        f"{name} {shown(of_clip(row, name))}" for name in row["values"] if METRICS[name].higher_is_better is not None
    )
    texts = (
        f"<p class=wide>{_marked(row['text'] or '', row['heard'])}</p>"
        if row["heard"] is not None
        else (f"<p class=wide>{_text(row['text'] or '')}</p>")
    )
    try:
        waveform, rate = read_clip(evaluation.generated, row["place"])
    except AudioError as error:
        return f"<div class=clip><p class=wide>{_text(row['id'])}: {_text(error.message)}</p></div>"
    sound = base64.b64encode(encode(waveform, rate, ".mp3")).decode()
    return (
        f"<div class=clip><p class=wide><b>{_text(row['id'])}</b> <span class=soft>{_text(figures)}</span></p>{texts}"
        f'<audio class=wide controls preload=none src="data:audio/mpeg;base64,{sound}"></audio>'
        f'{_waveform(waveform)}<img alt="log-mel spectrogram" src="data:image/png;base64,{_mel(waveform, rate)}"></div>'
    )


def _marked(said: str, heard: str) -> str:
    """The words said, with those the recogniser missed struck out and those it put there marked."""
    mark: dict[str, Callable[[str, str], str]] = {
        "equal": lambda a, b: _text(a),
        "substitute": lambda a, b: f"<del>{_text(a)}</del> <ins>{_text(b)}</ins>",
        "delete": lambda a, b: f"<del>{_text(a)}</del>",
        "insert": lambda a, b: f"<ins>{_text(b)}</ins>",
    }
    return " ".join(mark[kind](a, b) for kind, a, b in alignment(said, heard))


def _waveform(waveform: np.ndarray) -> str:
    """Peaks of 300 stretches as one SVG path."""
    parts = np.array_split(waveform, min(300, len(waveform)))
    peaks = [(45 - 44 * float(part.max()), 45 - 44 * float(part.min())) for part in parts]
    path = "".join(f"M{i} {top:.1f}V{bottom:.1f}" for i, (top, bottom) in enumerate(peaks))
    return (
        f'<svg viewBox="0 0 {len(parts)} 90" preserveAspectRatio=none style="height:90px" role=img aria-label=waveform>'
        f'<path class=wave d="{path}"/></svg>'
    )


def _mel(waveform: np.ndarray, rate: int) -> str:
    import torch
    from matplotlib import image

    from flowtts_core.audio.mel import LogMel, MelConfig

    config = MelConfig(f_max=8000.0)
    mel = LogMel(config)(torch.from_numpy(resample(waveform, rate, config.sample_rate))[None].float())[0].numpy()
    buffer = io.BytesIO()
    image.imsave(buffer, np.maximum(mel, mel.max() - 9), origin="lower", cmap="magma", format="png")
    return base64.b64encode(buffer.getvalue()).decode()


def _facts(facts: dict[str, Any]) -> str:
    lines = [(f"<span class=soft>{_text(key)}</span>", _text(value)) for key, value in facts.items()]
    return "<h2>Measured by</h2>" + _table(("", ""), lines)


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{_text(name)}</th>" for name in heads)
    body = "".join(
        f"<tr><td>{line[0]}</td>"
        # the label stands before the cell on a narrow screen, where the table has no heads
        + "".join(f'<td data-k="{_text(key)}">{cell}</td>' if key else f"<td>{cell}</td>"
                  for key, cell in zip(heads[1:], line[1:], strict=True))
        + "</tr>"
        for line in lines
    )  # fmt: skip
    return f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _text(value: Any) -> str:
    return html.escape(str(value), quote=True)
