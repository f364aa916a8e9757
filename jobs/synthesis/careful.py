"""Finds the unit that kills its worker: a shard whose worker has died is done unit by unit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cluster.journal import Journal
from cluster.storage import Storage
from cluster.watchdog import WorkLimits, watched
from jobs.synthesis.units import Unit

JOURNAL = "journal"  # the folder of the journals, in the output

T = TypeVar("T")


@dataclass(frozen=True)
class Careful:
    """Processes a shard's units together; after a worker has died over them, one by one, and sets aside the one that kills it.

    Attributes:
        run: names this run of the job.
    """

    output: Storage
    stage: str
    run: str
    limits: WorkLimits

    def __call__(
        self,
        shard: int,
        units: Sequence[Unit],
        do: Callable[[Sequence[Unit]], list[T]],
        dead: Callable[[Unit, str], T],
        seconds: float | None = None,
    ) -> tuple[list[T], int]:
        """What `do` makes of each unit (`dead` for one that killed its worker twice), and which start of the shard this is.

        Args:
            seconds: how long all units together may take.
        """
        journal = Journal(self.output, f"{JOURNAL}/{shard:05d}-{self.stage}.json", self.run, len(units))
        results: list[T] = []
        if not journal.careful:
            with watched(self.limits, seconds, journal.note_end):
                results = do(units)
        for unit in units if journal.careful else ():
            if unit.id in journal.deadly:
                why = journal.deadly[unit.id]
                results.append(dead(unit, "the worker's process died over it" + (f": {why}" if why else "")))
            else:
                journal.enter(unit.id)
                with watched(self.limits, None, journal.note_end):
                    results.extend(do([unit]))
        journal.close()
        return results, journal.starts
