"""The batches of the next steps, made in a thread while this one is computed."""

from __future__ import annotations

import queue
import threading
from types import TracebackType
from typing import Any

from flowtts_core.training.batches import Batches
from flowtts_core.training.distributed import Ranks


class Ahead:
    """`next()` gives the batches from step `first` to `last` in turn, each as `batches.at` makes it.

    Args:
        depth: how many lie ready at most.

    Raises:
        Exception: from `next`, what making that batch raised.
    """

    def __init__(self, batches: Batches, ranks: Ranks, first: int, last: int, depth: int = 2) -> None:
        self._batches, self._ranks, self._steps = batches, ranks, range(first, last)
        self._ready: queue.Queue[Any] = queue.Queue(depth)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._make, name="batches", daemon=True)

    def __enter__(self) -> Ahead:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        while self._thread.is_alive():  # it may wait to put what nobody wants any more
            try:
                self._ready.get(timeout=0.02)
            except queue.Empty:
                self._thread.join(0.02)

    def next(self) -> Any:
        made = self._ready.get()
        if isinstance(made, BaseException):
            raise made
        return made

    def _make(self) -> None:
        for step in self._steps:
            if self._over.is_set():
                return
            try:
                made: Any = self._batches.at(step, self._ranks)
            except BaseException as error:  # raised where the batch is wanted
                self._ready.put(error)
                return
            self._ready.put(made)
