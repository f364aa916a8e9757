"""Ends its own process when a piece of work takes too long or too much memory: nothing else stops native code."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

EXIT = 86  # of a process that was ended so
_LOOK_EVERY_S = 0.2
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
_STATM = Path("/proc/self/statm")


@dataclass(frozen=True)
class WorkLimits:
    """Bounds on a worker: `seconds` for one piece of work, `memory` of the process in bytes; None is no bound."""

    seconds: float | None = None
    memory: int | None = None


@contextmanager
def watched(limits: WorkLimits, seconds: float | None, note: Callable[[str], None]) -> Iterator[None]:
    """End this process as soon as a limit is passed within the block; `note` is told why first.

    Args:
        seconds: How long this block may take; None takes `limits.seconds`.
    """
    bound = limits.seconds if seconds is None else seconds
    if bound is None and limits.memory is None:
        yield
        return
    stop = threading.Event()
    until = time.monotonic() + bound if bound is not None else None

    def look() -> None:
        while not stop.wait(_LOOK_EVERY_S):
            if until is not None and time.monotonic() > until:
                _end(f"it took longer than {bound:g} s", note)
            if limits.memory is not None and (held := resident_bytes()) > limits.memory:
                _end(
                    f"it took the worker to {held / 2**30:.1f} GiB of memory, of {limits.memory / 2**30:.1f} allowed",
                    note,
                )

    thread = threading.Thread(target=look, daemon=True, name="watchdog")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def resident_bytes() -> int:
    """Return the memory of this process in bytes; 0 where the system does not tell (not Linux)."""
    try:
        return int(_STATM.read_text().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0


def _end(why: str, note: Callable[[str], None]) -> None:
    try:
        note(why)
    finally:
        os._exit(EXIT)
