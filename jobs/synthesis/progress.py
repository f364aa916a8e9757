"""The progress of a synthesis job: on standard error, and in a record of the output that `flowtts status` reads."""

from __future__ import annotations

import json
import os
import socket
import time
from types import TracebackType
from typing import Any

from cluster.storage import Storage
from flowtts_core.errors import OutputError

RECORD = "progress.json"
_WRITE_EVERY_S = 5.0


class Progress:
    """Notes how far the job is every few seconds; what is left is counted in characters, since sentences differ in length.

    Args:
        storage: of the output, where the record goes.
        show: on standard error too.
        workers: that speak, which makes worker hours of the job's time.
    """

    def __init__(self, storage: Storage, show: bool, workers: int) -> None:
        self._storage, self._show, self._workers = storage, show, workers
        self._started, self._written = time.time(), 0.0
        self._state: dict[str, Any] = {"rows": 0, "rows_done": 0, "characters": 0, "characters_done": 0}
        self._state |= {
            "rows_before": 0,
            "characters_before": 0,
            "failed": 0,
            "seconds": 0.0,
            "compute_s": 0.0,
            "judging_s": 0.0,
        }
        self._trouble: list[str] = []
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        if self._show:
            from jobs.bar import bar

            self._bar = bar("{task.fields[note]}", counted=False)
            self._task = self._bar.add_task("reading", total=None, completed=0, note="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._state["rows"]:
            why = "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
            state = "finished" if error is None else f"stopped: {why}"[:500]
            try:
                self._write(state)
            except OutputError:
                if kind is None:
                    raise

    def planning(self, rows: int) -> None:
        """The inputs are being read."""
        if self._bar is not None:
            self._bar.update(self._task, description="reading the inputs", note=f"{rows} rows")

    def begin(self, rows: int, characters: int, rows_done: int, characters_done: int) -> None:
        """What there is to do, and what an earlier run has done of it."""
        self._state |= {
            "rows": rows,
            "characters": characters,
            "rows_done": rows_done,
            "characters_done": characters_done,
        }
        self._state |= {"rows_before": rows_done, "characters_before": characters_done}
        self._started = time.time()
        if self._bar is not None:
            self._bar.update(self._task, total=max(1, characters), completed=characters_done, note="")
        self._write("running")

    def step(self, what: str) -> None:
        """Say what is done now."""
        if self._bar is not None:
            self._bar.update(self._task, description=what)

    def trouble(self, what: str) -> None:
        """Something of the cluster failed, and the job goes on."""
        self._trouble.append(what)
        self.step("going on after a failure")
        self._write("running")

    def shard(self, result: dict[str, Any]) -> None:
        """Count a committed shard."""
        state = self._state
        state["rows_done"] += result["rows"]
        state["characters_done"] += result["characters"]
        state["failed"] += result["rows"] - result["ok"]
        for name in ("seconds", "compute_s", "judging_s"):
            state[name] += result[name]
        if time.time() - self._written > _WRITE_EVERY_S:
            self._write("running")
        if self._bar is not None:
            self._bar.update(
                self._task, completed=state["characters_done"], note=self._note(), description="reading aloud"
            )

    def _note(self) -> str:
        """Rows, sound and pace so far."""
        state, elapsed = self._state, time.time() - self._started
        rtf = state["compute_s"] / state["seconds"] if state["seconds"] else 0.0
        rows = f"{state['rows_done']:,} of {state['rows']:,} rows"
        failed = f" ({state['failed']:,} failed)" if state["failed"] else ""
        pace = f"{state['seconds'] / elapsed:.1f}x real time"
        return f"{rows}{failed}, {state['seconds'] / 60:.1f} min of audio, RTF {rtf:.3f}, {pace}"

    def _write(self, state: str) -> None:
        self._written = time.time()
        record = {
            "state": state,
            "started": self._started,
            "updated": self._written,
            "workers": self._workers,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "trouble": self._trouble[-20:],
            **self._state,
        }
        self._storage.write(RECORD, json.dumps(record, indent=1).encode(), durable=False)
