"""Progress where there is no terminal: a line every so often, with how far, how fast and how long still."""

from __future__ import annotations

import io
import sys

import pytest

from jobs.bar import EVERY_S, Lines, bar


def lines_of(done: list[float], seconds: float, total: int | None = 1000, **kind: bool) -> list[str]:
    """What is told of a task that is `done` so far at each step, so many seconds apart."""
    told: list[str] = []
    clock = [0.0]
    with Lines(
        "{task.fields[loss]}", counted=kind.get("counted", True), tell=told.append, get_time=lambda: clock[0]
    ) as shown:
        task = shown.add_task("training", total=total, loss="loss 0.5")
        for count in done:
            clock[0] += seconds
            shown.update(task, completed=count)
    return told


def test_a_line_every_half_minute_tells_count_rate_and_time_left() -> None:
    told = lines_of([10.0 * n for n in range(1, 31)], seconds=EVERY_S / 10)
    assert len(told) == 3
    assert told[1] == "training: 200 of 1,000 (20 %), 3.3/s, loss 0.5, 0:01:00 passed, 0:04:00 left"


def test_a_long_step_is_told_of_too() -> None:
    told: list[str] = []
    clock = [0.0]
    with Lines(counted=False, tell=told.append, get_time=lambda: clock[0]) as shown:
        shown.add_task("starting workers", total=None)
        for clock[0] in (29.0, 31.0, 45.0, 61.0):
            shown.tell_due()
    assert told == ["starting workers: 0:00:31 passed", "starting workers: 0:01:01 passed"]


def test_the_end_is_told_once_however_soon_it_comes() -> None:
    assert lines_of([900, 950, 1000, 1000], 0.1) == ["training: 1,000 of 1,000 (100 %), loss 0.5, 0:00:00 passed"]


def test_less_than_one_a_second_is_told_by_the_minute() -> None:
    assert "6.0/min" in lines_of([1, 2, 3, 4], seconds=10)[-1] + lines_of([1, 2, 3, 4, 5, 6, 7], seconds=10)[-1]


def test_totals_that_mean_nothing_are_per_cent_alone() -> None:
    [told] = lines_of([250, 500], seconds=20, counted=False)
    assert told == "training: 50 %, loss 0.5, 0:00:40 passed, 0:00:40 left"


def test_without_a_total_nothing_is_promised() -> None:
    assert lines_of([5], seconds=60, total=None) == ["training: 5, loss 0.5, 0:01:00 passed"]


@pytest.mark.parametrize("quiet", [False, True])
def test_a_log_gets_lines_and_no_bar(quiet: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    with bar(quiet=quiet) as shown:
        shown.update(shown.add_task("preparing clips", total=2), completed=2)
    assert log.getvalue() == ("" if quiet else "preparing clips: 2 of 2 (100 %), 0:00:00 passed\n")
