"""The plots of the page of an evaluation, as SVG with the colours of the page's style."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from flowtts_core.metrics.scores import Score
from jobs.evaluation.figures import Run, interval, of_clip, shown

COLOURS = 6  # after Okabe and Ito (2008), which colour-blind people can tell apart
_WIDE = 340
_MOST_LANES, _MOST_SECONDS = 24, 120  # of clips whose values over time are drawn
_EDGE = 19  # room for half a tick label


def colour(place: int) -> str:
    """Return the CSS class of a run's colour."""
    return f"r{place % COLOURS}"


def mark(x: float, y: float, place: int, size: float = 4.0) -> str:
    """Return a run's mark: disc, square, triangle or diamond; hollow from the fifth run on."""
    kind = "dot open" if place // 4 % 2 else "dot"
    points = {
        1: [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        2: [(0, -1.1), (1.1, 0.9), (-1.1, 0.9)],
        3: [(0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)],
    }.get(place % 4)
    if points is None:
        return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{size:g}"/>'
    corners = " ".join(f"{x + size * dx:.1f},{y + size * dy:.1f}" for dx, dy in points)
    return f'<polygon class="{kind}" points="{corners}"/>'


def key(place: int) -> Markup:
    """Return a run's mark as a picture in a line of text."""
    return Markup(
        f'<svg class="key {colour(place)}" viewBox="0 0 13 13" aria-hidden=true>{mark(6.5, 6.5, place)}</svg>'
    )


def apart(values: Collection[float]) -> bool:
    """Return whether the values differ by more than rounding."""
    return max(values) - min(values) > 1e-6 * max(1e-9, *(abs(value) for value in values))


@dataclass(frozen=True)
class Axis:
    """A horizontal axis of values from `low` to `high` on `wide` units."""

    low: float
    high: float
    wide: float = _WIDE

    @classmethod
    def over(cls, values: Sequence[float], wide: float = _WIDE) -> Axis:
        """Return an axis that covers the values, with some room where they are all equal."""
        low, high = min(values), max(values)
        room = 0.0 if apart(values) else abs(low) * 0.1 or 0.5
        return cls(low - room, high + room, wide)

    def x(self, value: float) -> float:
        return _EDGE + (value - self.low) / (self.high - self.low) * (self.wide - 2 * _EDGE)

    def ticks(self, most: int = 6) -> list[float]:
        """Return round values on the axis, in steps of 1, 2 or 5 times a power of ten."""
        power = 10.0 ** math.floor(math.log10((self.high - self.low) / most))
        for step in (power * n for n in (1, 2, 5, 10)):
            first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
            if last - first < most:
                break
        return [n * step for n in range(first, last + 1)]

    def drawn(self, top: float, bottom: float, most: int = 6) -> str:
        """Draw grid lines from top to bottom, the axis at the bottom, and the labels below it."""
        ticks = self.ticks(most)
        digits = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9)) if len(ticks) > 1 else 3
        lines = "".join(
            f'<line class=grid x1="{self.x(t):.1f}" x2="{self.x(t):.1f}" y1="{top:g}" y2="{bottom:g}"/>'
            f'<text x="{self.x(t):.1f}" y="{bottom + 13:g}" text-anchor=middle>{_label(t, digits)}</text>'
            for t in ticks
        )
        return f'{lines}<line class=axis x1="0" x2="{self.wide:g}" y1="{bottom:g}" y2="{bottom:g}"/>'


def _label(value: float, digits: int) -> str:
    return f"{value:.0e}" if digits > 5 and value else f"{value:.{min(digits, 5)}f}"


def _svg(wide: float, tall: float, says: str, body: str, kind: str = "") -> Markup:
    return Markup(
        f'<svg class="{kind}" viewBox="0 0 {wide:g} {tall:g}" role=img aria-label="{escape(says)}">{body}</svg>'
    )


def _whisker(axis: Axis, score: Score, y: float, place: int) -> str:
    """Draw the score's mark with its interval."""
    assert score.value is not None
    low, high = (score.value, score.value) if score.low is None or score.high is None else (score.low, score.high)
    span = f'<line class=span x1="{axis.x(low):.1f}" x2="{axis.x(high):.1f}" y1="{y:g}" y2="{y:g}"/>'
    return f'<g class="{colour(place)}">{span}{mark(axis.x(score.value), y, place)}</g>'


def strips(metric: str, runs: Sequence[Run]) -> Markup | None:
    """Draw a histogram of each run's clips, one above the other on one axis, with the run's score; None without values."""
    lanes = []
    for run in runs:
        values = [v for row in run.evaluation.rows if (v := of_clip(row, metric)) is not None and math.isfinite(v)]
        score = run.evaluation.scores.get(metric)
        if values and score is not None and score.value is not None:
            lanes.append((run, values, score))
    if not lanes:
        return None
    found = [v for _, values, score in lanes for v in (*values, score.low, score.value, score.high) if v is not None]
    axis = Axis.over(found)
    bars_of = max(len(values) for _, values, _ in lanes) ** 0.5
    edges = np.linspace(axis.low, axis.high, min(36, max(12, round(3 * bars_of))) + 1)
    names = 22 if len(runs) > 1 else 0
    lane, tall = names + 62, (names + 62) * len(lanes)
    body, says = [axis.drawn(0, tall)], []
    for i, (run, values, score) in enumerate(lanes):
        top, counts = i * lane, np.histogram(values, edges)[0]
        name = f'<text class=name x="0" y="{top + 18}">{escape(_short(run.name))}</text>' if names else ""
        bars = "".join(
            f'<rect class=bar x="{axis.x(a) + 0.5:.1f}" width="{axis.x(b) - axis.x(a) - 1:.1f}" '
            f'y="{top + lane - 44 * n / counts.max():.1f}" height="{44 * n / counts.max():.1f}">'
            f"<title>{shown(a)} to {shown(b)}: {n} clips</title></rect>"
            for a, b, n in zip(edges, edges[1:], counts, strict=False)
            if n
        )
        body.append(
            f'<g class="{colour(run.place)}">{bars}</g>{name}{_whisker(axis, score, top + names + 8, run.place)}'
        )
        says.append(f"{run.name}: {len(values)} clips, {shown(score.value)} ({interval(score)})")
    return _svg(_WIDE, tall + 18, f"{metric} by clip. {'; '.join(says)}", "".join(body))


def forest(metric: str, runs: Sequence[Run]) -> Markup | None:
    """Draw score and interval of each run on one axis, from the first run down; None where no run has the metric."""
    scores = [(run, score) for run in runs if (score := run.evaluation.scores.get(metric)) and score.value is not None]
    if not scores:
        return None
    wide, lane = 260, 17
    axis = Axis.over([v for _, s in scores for v in (s.low, s.value, s.high) if v is not None], wide)
    tall = lane * len(scores) + 4
    marks = "".join(_whisker(axis, score, lane * (i + 0.5), run.place) for i, (run, score) in enumerate(scores))
    says = "; ".join(f"{run.name} {shown(score.value)} ({interval(score)})" for run, score in scores)
    return _svg(wide, tall + 18, f"{metric}: {says}", axis.drawn(0, tall, 4) + marks, "forest")


def extrapolation(name: str, runs: Sequence[Run]) -> Markup | None:
    """Plot a distance of subsets over 1 / clips, and the line to its value at infinitely many; None without values."""
    found = [(run, run.evaluation.distances.get(name) or {}) for run in runs]
    lines = [(run, d) for run, d in found if d.get("sizes") and d.get("measured") and d.get("at_infinity") is not None]
    if not lines:
        return None
    every = [float(v) for _, d in lines for v in (*d["measured"], d["at_infinity"])]
    up = Axis.over(every)
    top, bottom, left = 8, 132, 40
    most = max(1 / min(d["sizes"]) for _, d in lines)

    def x(size: float) -> float:  # linear in 1 / n, where the distance is a line
        return left + 12 + (_WIDE - left - 24) * (1 / size) / most

    def y(value: float) -> float:
        return bottom - 6 - (bottom - top - 12) * (value - up.low) / (up.high - up.low)

    ticks = up.ticks(4)
    digits = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9)) if len(ticks) > 1 else 3
    body = "".join(
        f'<line class=grid x1="{left}" x2="{_WIDE}" y1="{y(t):.1f}" y2="{y(t):.1f}"/>'
        f'<text x="{left - 5}" y="{y(t) + 4:.1f}" text-anchor=end>{_label(t, digits)}</text>'
        for t in ticks
    )
    body += f'<line class=axis x1="{left}" x2="{_WIDE}" y1="{bottom}" y2="{bottom}"/>'
    for size, label in _sizes([n for _, d in lines for n in d["sizes"]], x):
        body += f'<text x="{x(size):.1f}" y="{bottom + 14}" text-anchor=middle>{label}</text>'
    for run, d in lines:
        inverse = 1 / np.array(d["sizes"], dtype=float)
        measured = np.array(d["measured"], dtype=float)
        slope = float(((measured - d["at_infinity"]) * inverse).sum() / (inverse**2).sum())
        end = d["at_infinity"] + slope * inverse.max()
        fit = f"M{x(math.inf):.1f} {y(d['at_infinity']):.1f}L{x(1 / inverse.max()):.1f} {y(end):.1f}"
        dots = "".join(mark(x(n), y(v), run.place, 2.5) for n, v in zip(d["sizes"], measured, strict=True))
        limit = mark(x(math.inf), y(d["at_infinity"]), run.place, 5)
        body += f'<g class="{colour(run.place)}"><path class=fit d="{fit}"/>{dots}{limit}</g>'
    says = "; ".join(
        f"{run.name}: {shown(d['measured'][-1])} at {d['sizes'][-1]} clips, {shown(d['at_infinity'])} at infinity"
        for run, d in lines
    )
    return _svg(_WIDE, bottom + 20, f"{name} over 1 / clips. {says}", f"<g>{body}</g>")


def _sizes(sizes: Sequence[int], x: Callable[[float], float]) -> list[tuple[float, str]]:
    """Return tick labels that do not touch: infinitely many clips, then from the largest number down."""
    kept: list[tuple[float, str]] = [(math.inf, "\u221e")]
    for size in sorted(set(sizes), reverse=True):
        if x(size) - x(kept[-1][0]) > 30:
            kept.append((size, str(size)))
    return kept


def over_time(metric: str, run: Run) -> Markup | None:
    """Draw a metric's value of each second of the run's first clips, darker where it is nearer to 1; None without values."""
    lanes = [(row["id"], row["over_time"][metric]) for row in run.evaluation.rows if row["over_time"].get(metric)]
    lanes = [(id, values[:_MOST_SECONDS]) for id, values in lanes[:_MOST_LANES]]
    if not lanes:
        return None
    lane, wide = 28, _WIDE / max(len(values) for _, values in lanes)
    body = []
    for i, (id, values) in enumerate(lanes):
        cells = "".join(
            f'<rect class=bar style="opacity:{0.05 + 0.95 * value:.2f}" x="{at * wide:.1f}" y="{i * lane + 15}"'
            f' width="{max(wide - 0.5, 0.5):.1f}" height="9"><title>{at} s: {shown(value)}</title></rect>'
            for at, value in enumerate(values)
            if value is not None
        )
        body.append(f'<text class=name x="0" y="{i * lane + 12}">{escape(_short(str(id)))}</text>{cells}')
    says = "; ".join(f"{id}: {', '.join(shown(v) for v in values)}" for id, values in lanes[:3])
    picture = f'<g class="{colour(run.place)}">{"".join(body)}</g>'
    return _svg(_WIDE, lane * len(lanes), f"{metric} of each second. {says}", picture)


def waveform(samples: np.ndarray, place: int = 0) -> Markup:
    """Draw the peaks of 300 stretches of the samples [S] as one path."""
    parts = np.array_split(samples, min(300, len(samples)))
    peaks = [(45 - 44 * float(part.max()), 45 - 44 * float(part.min())) for part in parts]
    path = "".join(f"M{i} {top:.1f}V{max(bottom, top + 0.6):.1f}" for i, (top, bottom) in enumerate(peaks))
    return Markup(
        f'<svg class="{colour(place)}" viewBox="0 0 {len(parts)} 90" preserveAspectRatio=none role=img aria-label=waveform>'
        f'<path class=wave d="{path}"/></svg>'
    )


def _short(name: str) -> str:
    return name if len(name) <= 44 else f"...{name[-41:]}"
