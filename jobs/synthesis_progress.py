"""The progress line of a synthesis job: units, audio made, speed and time left, on standard error."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from jobs.synthesis_plan import Plan


class Progress:
    """Shows a `rich` bar where `show` is true; otherwise only counts.

    Args:
        pending: numbers of the shards that are still to be spoken.
    """

    def __init__(self, plan: Plan, pending: set[int], show: bool) -> None:
        self._sizes = {index: sum(len(unit.text) for unit in shard) for index, shard in enumerate(plan.shards)}
        self._total = sum(self._sizes.values())
        self._seconds = self._compute_s = 0.0
        self._started = time.perf_counter()
        self._bar: Any = None
        if show:
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"))
            times = (TextColumn("{task.fields[note]}"), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
            self._bar = Bar(*columns, *times, console=Console(stderr=True), speed_estimate_period=120)
            done = sum(size for index, size in self._sizes.items() if index not in pending)
            self._task = self._bar.add_task("reading", total=self._total, completed=done, note="")

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, what: str) -> None:
        """Say what is done now."""
        if self._bar is not None:
            self._bar.update(self._task, description=what)

    def shard(self, result: dict[str, Any]) -> None:
        """Count a committed shard: the row that a `ShardWorker` returned."""
        self._seconds += result["seconds"]
        self._compute_s += result["compute_s"]
        if self._bar is not None:
            elapsed = time.perf_counter() - self._started
            rtf = self._compute_s / self._seconds if self._seconds else 0.0
            note = f"{self._seconds / 60:.1f} min of audio, RTF {rtf:.3f}, {self._seconds / elapsed:.0f}x real time"
            self._bar.update(self._task, advance=self._sizes[result["shard"]], note=note, description="reading aloud")
