"""The progress bar of long commands."""

from __future__ import annotations

from rich import progress
from rich.console import Console


def bar(*more: str, quiet: bool = False) -> progress.Progress:
    """Return a progress bar on standard error; `more` are formats of further columns, such as `{task.fields[loss]}`."""
    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        *map(progress.TextColumn, more),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(elapsed_when_finished=True),
        console=Console(stderr=True),
        disable=quiet,
        speed_estimate_period=120,
    )
