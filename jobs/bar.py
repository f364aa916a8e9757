"""The progress of long commands: a bar on a terminal, and a line every half minute in a log."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from rich import progress
from rich.console import Console
from rich.text import Text

EVERY_S = 30.0  # between the lines of a log
_WINDOW_S = 120.0  # from which the rate is taken


def bar(*more: str, quiet: bool = False, counted: bool = True) -> progress.Progress:
    """Return what shows progress on standard error: a bar, or where that is no terminal lines.

    Args:
        more: formats of what else is told, such as `{task.fields[loss]}`.
        quiet: show nothing.
        counted: tell how many of how many, and the rate; else per cent alone, for totals that mean nothing to people.
    """
    console = Console(stderr=True, quiet=quiet)
    if quiet or not console.is_terminal:
        return Lines(*more, counted=counted, tell=_to_stderr if not quiet else lambda line: None)
    counts = (
        [progress.MofNCompleteColumn(), _RateColumn()] if counted else [progress.TextColumn("{task.percentage:3.0f} %")]
    )
    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        *counts,
        *map(progress.TextColumn, more),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
        speed_estimate_period=_WINDOW_S,
    )


class Lines(progress.Progress):
    """Tells how far each task is every `EVERY_S` seconds, and when it is done."""

    def __init__(
        self,
        *more: str,
        counted: bool,
        tell: Callable[[str], None],
        get_time: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(console=Console(stderr=True), get_time=get_time, speed_estimate_period=_WINDOW_S, disable=True)
        self._more, self._counted, self._tell = more, counted, tell
        self._told: dict[progress.TaskID, float] = {}  # when, by task
        self._done: set[progress.TaskID] = set()
        self._telling, self._stopped = threading.Lock(), threading.Event()

    def start(self) -> None:
        """Begin to look every second for what is to be told: a log shows that the work goes on, whatever takes long."""
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        self._ticker.start()

    def stop(self) -> None:
        """Tell no more."""
        self._stopped.set()

    def update(self, task_id: progress.TaskID, **changes: Any) -> None:
        """Take a task's new values, as `rich.progress.Progress.update` does, and tell them if it is time."""
        super().update(task_id, **changes)
        self.tell_due()

    def tell_due(self) -> None:
        """Tell the tasks of which nothing was told for `EVERY_S` seconds, and those that have just ended."""
        with self._telling:
            for task in self.tasks:
                now = self.get_time()
                last = self._told.setdefault(task.id, now if task.start_time is None else task.start_time)
                ends = task.finished and task.id not in self._done
                if ends or now - last >= EVERY_S:
                    self._told[task.id] = now
                    self._tell(self._line(task))
                if ends:
                    self._done.add(task.id)

    def _tick(self) -> None:
        while not self._stopped.wait(1.0):
            self.tell_due()

    def _line(self, task: progress.Task) -> str:
        percent = "" if task.total is None else f"{task.percentage:.0f} %"
        told = [percent]
        if self._counted:
            whole = "" if task.total is None else f" of {task.total:,.0f} ({percent})"
            told = [f"{task.completed:,.0f}{whole}", rate_told(task)]
        told += [column.format(task=task) for column in self._more]
        elapsed = f"{_clock(task.elapsed)} passed"
        left = "" if task.finished or task.time_remaining is None else f"{_clock(task.time_remaining)} left"
        return f"{task.description}: {', '.join(part.strip() for part in [*told, elapsed, left] if part.strip())}"


def rate_told(task: progress.Task) -> str:
    """Return how many of a task are done in a second, or in a minute where it is less than one.

    It is empty where that is not known, and at the end, when the last steps alone would tell it.
    """
    speed = task.speed
    if not speed or task.finished:
        return ""
    return f"{speed:,.1f}/s" if speed >= 1 else f"{60 * speed:.1f}/min"


class _RateColumn(progress.ProgressColumn):
    def render(self, task: progress.Task) -> Text:
        return Text(rate_told(task))


def _clock(seconds: float | None) -> str:
    return str(timedelta(seconds=round(seconds or 0.0)))


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
