"""The page of a training run, `index.html` in its folder: loss curves and samples by step, drawn anew while it runs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from flowtts_core.training.files import Files, LocalFiles
from flowtts_core.training.log import LOG

PAGE = "index.html"
REFRESH_S = 20  # how often a browser loads the page again while the training runs
_POINTS = 400  # of a curve
_WIDE, _TALL, _LEFT = 720, 260, 52
_SAMPLE = re.compile(r"(\d+)-(.+)\.wav")

Curve = Sequence[tuple[float, float]]


def page_writer(title: str, steps: int) -> Callable[[Path, bool], None]:
    """Return what writes the page of a run that is at work: called with the folder of its log, and whether it has ended."""
    due = 0.0

    def write(folder: Path, ends: bool) -> None:
        nonlocal due
        if ends or time.monotonic() >= due:
            with suppress(OSError):  # a full disk must not end the training over its page
                write_page(LocalFiles(folder), title, steps, "It has ended." if ends else "", running=not ends)
            due = time.monotonic() + REFRESH_S

    return write


def write_page(files: Files, title: str, steps: int, state: str, running: bool) -> None:
    """Write the page of the run in a folder, from its log and its samples."""
    from jobs.templates import fill

    lines = _log(files)
    curves = {kind: _curve(lines, kind == "validation") for kind in ("training", "validation")}
    samples = _samples(files)
    page = fill(
        "training.html.j2",
        title=title,
        step=int(lines[-1]["step"]) if lines else 0,
        steps=steps,
        state=state,
        refresh=REFRESH_S if running else 0,
        curve=_drawn({kind: curve for kind, curve in curves.items() if curve}),
        samples=sorted(samples.items(), reverse=True),
        names=sorted({name for files in samples.values() for name in files}),
    )
    files.write(PAGE, page.encode())


def _log(files: Files) -> list[dict[str, Any]]:
    try:
        lines = files.read(LOG).decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        with suppress(ValueError):  # the last line may be half written
            found.append(json.loads(line))
    return found


def _curve(lines: Sequence[dict[str, Any]], validation: bool) -> Curve:
    """Return (step, loss) of the lines with a finite one, thinned to means of neighbours."""
    points = [
        (float(line["step"]), float(value))
        for line in lines
        for name, value in line.items()
        if name.endswith("/loss") and name.startswith("validation/") == validation and value is not None
    ]
    parts = np.array_split(np.array(points), min(_POINTS, len(points))) if points else []
    return [(float(steps), float(loss)) for steps, loss in (part.mean(0) for part in parts)]


def _samples(files: Files) -> dict[int, dict[str, str]]:
    """Return the names of the sound files by step and by what they are samples of."""
    samples: dict[int, dict[str, str]] = {}
    for name in files.list("samples"):
        if found := _SAMPLE.fullmatch(name):
            samples.setdefault(int(found[1]), {})[found[2]] = name
    return samples


def _drawn(curves: dict[str, Curve]) -> Markup | None:
    if not curves:
        return None
    points = np.concatenate([np.array(curve) for curve in curves.values()])
    first, last = float(points[:, 0].min()), float(points[:, 0].max())
    low, high = float(points[:, 1].min()), float(np.percentile(points[:, 1], 98))
    wide, tall = max(last - first, 1.0), max(high - low, 1e-9)

    def place(step: float, loss: float) -> str:
        height = min(1.0, (loss - low) / tall)
        return f"{_LEFT + (step - first) / wide * (_WIDE - _LEFT):.1f},{_TALL - 20 - height * (_TALL - 30):.1f}"

    paths = [f'<path class={kind} d="M{" L".join(place(*p) for p in curve)}"/>' for kind, curve in curves.items()]
    labels = []
    for share in (0.0, 0.5, 1.0):
        y = _TALL - 20 - share * (_TALL - 30)
        labels.append(f'<line x1="{_LEFT}" x2="{_WIDE}" y1="{y:.1f}" y2="{y:.1f}"/>')
        labels.append(f'<text x="0" y="{y + 4:.1f}">{low + share * tall:.4g}</text>')
    labels.append(f'<text x="{_LEFT}" y="{_TALL - 4}">{first:.0f}</text>')
    labels.append(f'<text x="{_WIDE}" y="{_TALL - 4}" text-anchor=end>{last:.0f}</text>')
    says = "; ".join(f"{kind}: from {curve[0][1]:.4g} to {curve[-1][1]:.4g}" for kind, curve in curves.items())
    return Markup(
        f'<svg class=loss viewBox="0 0 {_WIDE} {_TALL}" role=img aria-label="loss by step, {says}">'
        f"{''.join(labels)}{''.join(paths)}</svg>"
    )
