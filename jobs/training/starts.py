"""The starts of a training's workers, noted in its run folder: from which step, how many there were, and when."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import Any

from flowtts_core.training.files import Files, patiently

STARTS = "starts.json"


@dataclass(frozen=True)
class Start:
    """Workers that began at `step`, at `time` (seconds since 1970)."""

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


def note_start(files: Files, step: int, workers: int) -> None:
    starts = [*read_starts(files), Start(step, workers, round(time.time(), 2))]
    data = json.dumps([asdict(start) for start in starts]).encode()
    patiently(lambda: files.write(STARTS, data), f"writing {files.path(STARTS)}")
