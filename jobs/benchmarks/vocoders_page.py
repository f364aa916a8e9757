"""The pages of `flowtts benchmark vocoders`: Markdown with a figure of flows by their steps, and HTML with players."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.benchmarks.vocoders import COMPARED, RECORDINGS

Figures = dict[str, Any]
PAGE, FIGURE = "vocoders.md", "vocoders-steps.svg"
SHOWN = 6  # clips with players
_LONGEST_S = 15.0  # of a player
Column = tuple[str, str, float, int]  # figure, heading, scale, digits
_COLUMNS: tuple[Column, ...] = (
    ("pesq", "PESQ", 1, 2),
    ("stoi", "STOI", 1, 3),
    ("naturalness", "naturalness", 1, 2),
    ("mos_p808", "P.808", 1, 2),
    ("mel_l1", "mel L1, nats", 1, 3),
    ("stft", "MR-STFT", 1, 2),
    ("periodicity", "periodicity error", 1, 3),
    ("voicing", "voicing error, %", 100, 1),
    ("f0_cents", "F0 error, cents", 1, 0),
    ("kad", "KAD x 100", 100, 2),
)
_STEP_FIGURES = (("naturalness", "naturalness"), ("pesq", "PESQ"), ("rtf", "RTF, one thread"))


def write(folder: Path, figures: Figures) -> list[Path]:
    """Write the page, and its figure where flows were measured by their steps; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / PAGE]
    if any(system["flow"] for system in figures["systems"]):
        _draw(folder / FIGURE, figures)
        written.append(folder / FIGURE)
    written[0].write_text(page(figures), encoding="utf-8")
    return written


def page(figures: Figures) -> str:
    """Return the page in Markdown."""
    machine, busy = figures["machine"], figures["busy"]["others_cores"]
    versions = ", ".join(f"{name} {version}" for name, version in figures["versions"].items() if version)
    plain = [system["name"] for system in figures["systems"] if not system["flow"]]
    sets = "\n\n".join(
        f"### {name}: {rows[RECORDINGS]['n']} clips\n\n{quality_table(rows, [RECORDINGS, *plain])}{missing(rows, plain)}"
        for name, rows in figures["sets"].items()
    )
    pitch = (
        "SwiftF0, whose confidence is\ntaken for the periodicity"
        if figures["detector"] == "swift_f0"
        else "torchcrepe (tiny)"
    )
    return f"""# Vocoders side by side

Made by `flowtts benchmark vocoders`. Each vocoder makes the sound of the mels of held-out recordings (copy synthesis), and
judges compare it with the recording. A cell has the mean over clips and its interval of 95 % (bootstrap over clips; of KAD,
jackknife). The recordings are the ceiling, Griffin-Lim of the same bands is the floor. PESQ, STOI, mel L1 and MR-STFT are
measured at 16 kHz; naturalness is DistillMOS, P.808 is DNSMOS. KAD says by how much copies are further from recordings of
other texts, in the statistics of log-mels, than the recordings are. Periodicity and voicing are found by {pitch}.

## Quality

{sets}

## Above Griffin-Lim

The difference to Griffin-Lim clip by clip, over all clips; **bold** where its whole interval lies above 0.

{_over_floor(figures, plain)}

## Cost

RTF is seconds of computing by second of sound, the median of turns, for one item of about 4 s. Operations are those of
products and convolutions; Fourier transforms are not counted. The first sound is what a stream of a voice waits for: the
vocoder's own time on one thread, after so many seconds of mel are there.

{cost_table([system for system in figures["systems"] if not system["flow"]])}
{_steps(figures)}
What each reads:

{chr(10).join(f"- {s['name']}: {s['mel']}" for s in figures["systems"] if not s["flow"])}

Measured on {machine.get("cores")} cores of {machine.get("processor")}, GPU: {machine.get("gpu") or "none"}; others kept
{busy or 0:.1f} cores busy; {versions}.
"""


def quality_table(rows: dict[str, Figures], names: Sequence[str], columns: Sequence[Column] = _COLUMNS) -> str:
    """Return the table of figures by vocoder, or whatever made the copies."""
    heads = ["less recordings" if head is None else head for head in _heads(columns)]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name in names:
        cells = []
        for figure, _, scale, digits in columns:
            cells.append(cell(rows[name].get(figure), scale, digits))
            if figure == "naturalness":
                cells.append(cell(rows[name].get("over_recordings", {}).get("naturalness"), 1, 2, sign=True))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _heads(columns: Sequence[Column]) -> list[str | None]:
    heads: list[str | None] = []
    for figure, head, *_ in columns:
        heads += [head, None] if figure == "naturalness" else [head]
    return heads


def cell(interval: Figures | None, scale: float = 1, digits: int = 2, sign: bool = False) -> str:
    """Return a figure with its interval."""
    if interval is None:
        return ""
    value, low, high = (round(scale * interval[part], digits) + 0.0 for part in ("value", "low", "high"))
    return f"{value:{'+' if sign else ''}.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def missing(rows: dict[str, Figures], names: Sequence[str], columns: Sequence[Column] = _COLUMNS) -> str:
    """Say which clips some figures lack, and why."""
    lines = []
    for name in names:
        short = {
            head: rows[name][figure]["n"] if rows[name].get(figure) else 0
            for figure, head, *_ in columns
            if figure != "kad" and (rows[name].get(figure) or {"n": 0})["n"] < rows[name]["n"]
        }
        if short:
            told = ", ".join(f"{head} of {n}" for head, n in short.items())
            lines.append(
                f"{name}: {told} clips{': ' + '; '.join(rows[name]['reasons']) if rows[name]['reasons'] else ''}."
            )
    return "\n\n" + "\n".join(lines) if lines else ""


def _over_floor(figures: Figures, names: Sequence[str]) -> str:
    rows, heads = next(iter(figures["sets"].values())), [head for figure, head, *_ in _COLUMNS if figure in COMPARED]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name in names:
        over = rows[name].get("over_griffin_lim")
        if over is None:
            continue
        cells = []
        for figure, _, scale, digits in _COLUMNS:
            if figure in COMPARED:
                text = cell(over[figure], scale, digits, sign=True)
                cells.append(f"**{text}**" if over[figure] and over[figure]["low"] > 0 else text)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cost_table(systems: Sequence[Figures]) -> str:
    """Return the table of costs."""
    runs = list(dict.fromkeys((runtime, n) for s in systems for runtime, by in s["rtf"].items() for n in by))
    names = {"torch": "torch", "onnx": "ONNX Runtime", "cuda": "GPU"}
    heads = [
        f"RTF, {names[runtime]}{'' if runtime == 'cuda' else f', {n} thread' + 's' * (n != '1')}" for runtime, n in runs
    ]
    lines = [
        f"| | parameters, M | GMAC a second | {' | '.join(heads)} | first sound, ms (after s of mel) |",
        "|---" * (len(heads) + 4) + "|",
    ]
    for s in systems:
        rtf = [s["rtf"].get(runtime, {}).get(n) for runtime, n in runs]
        cells = ["" if one is None else f"{one['median']:.4f} ({one['low']:.4f} to {one['high']:.4f})" for one in rtf]
        first = f"{1e3 * s['first']['s']:.0f} ({s['first']['mel_s']:.2f})"
        lines.append(f"| {s['name']} | {s['parameters'] / 1e6:.2f} | {s['gmac']:.2f} | {' | '.join(cells)} | {first} |")
    return "\n".join(lines)


def _steps(figures: Figures) -> str:
    """Return the section on flows by their steps; empty where they were not measured so."""
    flows = [system for system in figures["systems"] if system["flow"]]
    if not flows:
        return ""
    rows = next(iter(figures["sets"].values()))
    shown = [column for column in _COLUMNS if column[0] in ("naturalness", "mos_p808", "pesq", "stoi", "mel_l1")]
    lines = [
        f"| vocoder | steps | grid | {' | '.join(head for _, head, *_ in shown)} | RTF, one thread of torch |",
        "|---" * (len(shown) + 4) + "|",
    ]
    lines, heads = [], lines
    plain = [system for system in figures["systems"] if not system["flow"]]
    for system in [*plain, *flows]:
        cells = [cell(rows[system["name"]].get(figure), scale, digits) for figure, _, scale, digits in shown]
        name, steps = system["flow"] or system["name"], system["steps"] or system["own_steps"] or ""
        lines.append(
            f"| {name} | {steps} | {system['grid']} | {' | '.join(cells)} | {system['rtf']['torch']['1']['median']:.4f} |"
        )
    own, others = lines[: len(plain)], lines[len(plain) :]
    return f"""
## Quality, steps and cost

Each vocoder as it is; without a number of steps, it makes sound in one pass.

{chr(10).join([*heads, *own])}

## Flows by their number of steps

One set of weights for each flow, with other numbers of steps, on grids of equal steps and of steps over which its paths are
equally far from straight. Grey lines are the other vocoders.

![Quality and cost by the number of steps]({FIGURE})

{chr(10).join([*heads, *others])}
"""


def _draw(path: Path, figures: Figures) -> None:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "flowtts"
    from matplotlib import pyplot as plt

    rows = next(iter(figures["sets"].values()))
    flows = [system for system in figures["systems"] if system["flow"]]
    others = [s for s in figures["systems"] if not s["flow"] and s["name"] not in {flow["flow"] for flow in flows}]
    figure, axes = plt.subplots(1, len(_STEP_FIGURES), figsize=(12, 3.8), layout="constrained")
    for axis, (metric, title) in zip(axes, _STEP_FIGURES, strict=True):
        for number, (name, grid) in enumerate(dict.fromkeys((s["flow"], s["grid"]) for s in flows)):
            own = sorted((s for s in flows if (s["flow"], s["grid"]) == (name, grid)), key=lambda s: s["steps"])
            points = [(s["steps"], *_point(s, rows, metric)) for s in own]
            points = [point for point in points if point[1] is not None]
            if not points:
                continue
            steps, values, lows, highs = zip(*points, strict=True)
            axis.plot(steps, values, "o-", color=f"C{number}", label=f"{name}, {grid}")
            axis.fill_between(steps, lows, highs, color=f"C{number}", alpha=0.15)
        for number, system in enumerate(others):
            value = _point(system, rows, metric)[0]
            if value is not None:
                axis.axhline(value, color="grey", linestyle=("--", ":", "-.")[number % 3], linewidth=0.9)
                place: Any = ("axes fraction", "data")  # beside the axes, where no curve lies
                axis.annotate(system["name"], (1.01, value), xycoords=place, fontsize=7, color="grey", va="center")
        axis.set(xscale="log", xlabel="steps", title=title)
        ticks = sorted({s["steps"] for s in flows})
        axis.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
        axis.minorticks_off()
        if metric == "rtf":
            axis.set_yscale("log")
    axes[0].legend(fontsize=7)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _point(system: Figures, rows: dict[str, Figures], metric: str) -> tuple[float | None, float, float]:
    if metric == "rtf":
        rtf = system["rtf"]["torch"]["1"]
        return rtf["median"], rtf["low"], rtf["high"]
    found = rows[system["name"]].get(metric)
    return (None, 0.0, 0.0) if found is None else (found["value"], found["low"], found["high"])


def write_players(
    path: Path,
    figures: Figures,
    sounds: Sequence[dict[str, Path]],
    columns: Sequence[Column] = _COLUMNS,
    kind: str = "vocoder",
) -> None:
    """Write an HTML page with the table and players: one file with its sounds inside.

    Args:
        sounds: of each clip, the file of each vocoder and of the recording, by name.
        kind: what made the copies, "vocoder" or "codec".
    """
    from flowtts_core.files import write_whole
    from jobs.templates import fill

    rows = next(iter(figures["sets"].values()))
    names = list(dict.fromkeys(name for clip in sounds for name in clip))
    clips = [
        {"title": f"{one['set']}: {one['file']}", "players": [(name, _player(clip[name])) for name in names]}
        for one, clip in _spread(figures["clips"], sounds)
    ]
    table = [
        {"name": name, "cells": [cell(rows[name].get(figure), scale, digits) for figure, _, scale, digits in columns]}
        for name in names
    ]
    heads, n = [head for _, head, *_ in columns], rows[RECORDINGS]["n"]
    write_whole(path, fill("copies.html.j2", kind=kind, heads=heads, table=table, clips=clips, n=n).encode())


def _spread(clips: Sequence[Figures], sounds: Sequence[dict[str, Path]]) -> list[tuple[Figures, dict[str, Path]]]:
    """Return a few of the clips, evenly over all."""
    every = list(zip(clips, sounds, strict=True))
    step = max(1, -(-len(every) // SHOWN))
    return every[::step]


def _player(path: Path) -> str:
    from flowtts_core.audio.files import encode, read_audio

    waveform, rate = read_audio(path)
    data = encode(waveform[: round(_LONGEST_S * rate)], rate, ".mp3")
    return f"data:audio/mpeg;base64,{base64.b64encode(data).decode()}"
