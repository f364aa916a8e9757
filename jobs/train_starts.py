"""The starts of a training's workers, noted in its run folder: from which step, how many, and what ended the one before."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import Any

from flowtts_core import errors
from flowtts_core.errors import FlowTTSError
from flowtts_core.training.files import Files, patiently

STARTS, PROBLEM = "starts.json", "problem.json"
MOST_IN_VAIN = 4  # starts from one and the same step before the run gives up


@dataclass(frozen=True)
class Start:
    """Workers that began at `step`, at `time` (seconds since 1970); `call` names the command that started them."""

    call: str
    step: int
    workers: int
    time: float


def read_starts(files: Files) -> list[Start]:
    """All starts of a run, the oldest first."""
    try:
        found: list[dict[str, Any]] = json.loads(files.read(STARTS))
    except FileNotFoundError:
        return []
    return [Start(**start) for start in found]


def note_start(files: Files, call: str, step: int, workers: int) -> bool:
    """Note a start; False where so many of this call began at this very step that another would be in vain.

    Failures between which there is progress are not counted: a long run may lose a hundred workers.
    """
    starts = [*read_starts(files), Start(call, step, workers, round(time.time(), 2))]
    data = json.dumps([asdict(start) for start in starts]).encode()
    patiently(lambda: files.write(STARTS, data), f"writing {files.path(STARTS)}")
    return in_vain(starts) <= MOST_IN_VAIN


def in_vain(starts: Sequence[Start]) -> int:
    """How many of the last starts were of one call and from one step."""
    last = starts[-1]
    return len(list(takewhile(lambda start: (start.call, start.step) == (last.call, last.step), reversed(starts))))


def note_problem(files: Files, call: str, error: BaseException) -> None:
    """What ended a worker, for the command to tell when it gives up."""
    if not isinstance(error, FlowTTSError):
        error = FlowTTSError(f"{type(error).__name__}: {error}", "run the same command again: it goes on")
    problem = {"call": call, "kind": type(error).__name__, "message": error.message, "remedy": error.remedy}
    files.write(PROBLEM, json.dumps(problem).encode())


def problem_of(files: Files, call: str) -> FlowTTSError | None:
    """What `note_problem` noted last in this call, if anything."""
    try:
        found: dict[str, str] = json.loads(files.read(PROBLEM))
    except (OSError, ValueError):
        return None
    if found["call"] != call:
        return None
    kind: type[FlowTTSError] = getattr(errors, found["kind"], FlowTTSError)
    return kind(found["message"], found["remedy"])
