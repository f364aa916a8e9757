"""Print a synthesis benchmark's figures as tables, and compare them with the bars that we set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Figures = Mapping[str, Any]

# name, where its value stands, the bar, whether less is better
BARS: tuple[tuple[str, tuple[str, ...], float, bool], ...] = (
    ("WER above the teacher's", ("quality", "difference", "wer", "value"), 0.03, True),
    ("DNSMOS overall above the teacher's", ("quality", "difference", "overall", "value"), -0.25, False),
    ("DNSMOS P808 above the teacher's", ("quality", "difference", "p808", "value"), -0.25, False),
    ("similarity to the teacher", ("quality", "systems", "voice", "similarity", "value"), 0.85, False),
    ("real-time factor, one thread", ("speed", "rtf", "median"), 0.04, True),
    ("cold start of `flowtts say`, s", ("ready", "cold_s", "median"), 5.0, True),
    ("short sentence, warm, s", ("ready", "warm_s", "median"), 0.15, True),
)


def bars(figures: Figures) -> list[dict[str, Any]]:
    """Return each bar whose figure was measured: its name, value, bar, and whether it is met."""
    rows = []
    for name, path, bar, less in BARS:
        value = _at(figures, path)
        if value is not None:
            rows.append({"name": name, "value": value, "bar": bar, "met": value <= bar if less else value >= bar})
    return rows


def _at(figures: Any, path: tuple[str, ...]) -> float | None:
    for key in path:
        if isinstance(figures, list):  # rows of systems, by name
            figures = next((row for row in figures if row["system"] == key), None)
        else:
            figures = figures.get(key)
        if figures is None:
            return None
    return float(figures)


def show(figures: Figures) -> None:
    """Print what was measured; parts that were not asked for are left out."""
    from rich.console import Console

    console = Console()
    machine = figures["machine"]
    console.print(
        f"{machine['cores']} cores of {machine['processor']}, GPU: {machine['gpu'] or 'none'}, "
        f"Python {machine['python']}, "
        + " ".join(f"{name} {version}" for name, version in machine["versions"].items()),
        highlight=False,
    )
    for part, print_part in (("quality", _quality), ("speed", _speed), ("ready", _ready)):
        if part in figures:
            print_part(figures[part], console.print)
    console.print(_table(("bar", "figure", "at", "met"), [_bar(row) for row in figures["bars"]]))
    console.print(_busy(figures["busy"]), highlight=False)


def _quality(quality: Figures, out: Callable[..., None]) -> None:
    columns = (
        "system", "n", "failed", "WER %", "naturalness", "DNSMOS overall", "P808", "similarity", "RTF in batches",
    )  # fmt: skip
    out(
        _table(
            columns, [_system(row) for row in quality["systems"] + quality["ablation"]], "quality, with 95 % intervals"
        )
    )
    if difference := quality["difference"]:
        opinions = (("naturalness", "naturalness"), ("overall", "overall"), ("p808", "P808"))
        apart = [f"{shown} {_interval(difference[name])}" for name, shown in opinions]
        wer = f"WER {_interval(difference['wer'], 100)} points"
        out(f"voice less teacher, in pairs: {', '.join([wer, *apart])}", highlight=False)


def _system(row: Figures) -> tuple[str, ...]:
    return (
        row["system"],
        str(row["n"]),
        str(row["failed"]),
        _interval(row["wer"], 100),
        _interval(row["naturalness"]),
        _interval(row["overall"]),
        _interval(row["p808"]),
        "" if row["similarity"] is None else _interval(row["similarity"], digits=3),
        "" if row["rtf"] is None else f"{row['rtf']:.3f}",
    )


def _speed(speed: Figures, out: Callable[..., None]) -> None:
    rtf = speed["rtf"]
    shares = ", ".join(f"{stage} {share:.0%}" for stage, share in speed["shares"].items())
    out(
        f"speed: RTF {rtf['median']:.4f} (from {rtf['low']:.4f} to {rtf['high']:.4f}) over "
        f"{speed['sentences']} sentences of about 6 s, text to waveform, {speed['threads']} thread; of it {shares}; "
        f"{_busy(speed['busy'])}",
        highlight=False,
    )


def _ready(ready: Figures, out: Callable[..., None]) -> None:
    cold, warm = ready["cold_s"], ready["warm_s"]
    runs = ", ".join(f"{run:.2f}" for run in cold["runs"])
    out(
        f"ready: cold start to sound on disk {cold['median']:.2f} s (runs {runs}); a short sentence in a warm process "
        f"{warm['median']:.3f} s (at most {warm['high']:.3f}); {_busy(ready['busy'])}",
        highlight=False,
    )


def _bar(row: Figures) -> tuple[str, ...]:
    return row["name"], f"{row['value']:.4g}", f"{row['bar']:g}", "yes" if row["met"] else "NO"


def _busy(busy: Figures) -> str:
    others = busy["others_cores"]
    kept = "" if others is None else f", others kept {others:.2f} cores busy"
    return f"load {busy['load_before']:.2f} before, {busy['load_after']:.2f} after{kept}"


def _interval(interval: Figures, scale: float = 1.0, digits: int = 2) -> str:
    value, low, high = (interval[key] * scale for key in ("value", "low", "high"))
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]], title: str | None = None) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    return table
