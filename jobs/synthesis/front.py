"""The first stage of a synthesis job: reads a shard's units from the plan and turns texts into tokens, on plain CPU tasks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from cluster.journal import Journal
from cluster.plan import read_group
from cluster.pool import StageWork, Task
from cluster.storage import Storage
from cluster.watchdog import Limits, watched
from flowtts_core.errors import FlowTTSError
from jobs.synthesis.engine import Encode, Voices
from jobs.synthesis.plan import UNIT_FIELDS, Unit

JOURNAL = "journal"  # the folder of the journals, in the output
PARTS = pa.field(
    "parts", pa.string()
)  # packed, or `{"error": reason}`; null where the engine has no front end of its own
_FRONT_S = 60.0  # of one text

T = TypeVar("T")


@dataclass(frozen=True)
class Careful:
    """Does a shard's units together, or, once a worker has died over them, one by one: the one that kills is set aside.

    Attributes:
        run: names this run of the job.
    """

    output: Storage
    stage: str
    run: str
    limits: Limits

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


@dataclass(frozen=True)
class MakeFront:
    """Makes the stage in its process."""

    output: Storage
    voices: Voices
    run: str
    limits: Limits

    def __call__(self) -> StageWork:
        fronts: dict[str, Encode | None] = {}

        def front(voice: str | None) -> Encode | None:
            engine = self.voices.find(voice)
            if engine.name not in fronts:
                fronts[engine.name] = engine.make_front() if engine.make_front else None
            return fronts[engine.name]

        careful = Careful(self.output, "front", self.run, Limits(_FRONT_S, self.limits.memory))

        def work(task: Task, _: pa.Table | None) -> tuple[Task, pa.Table]:
            table = read_group(self.output, task["plan"], task["part"], task["group"])
            good = table.filter(pc.equal(table.column("error"), ""))
            if all(front(voice) is None for voice in good.column("voice").unique().to_pylist()):
                return task, table.append_column(PARTS, pa.nulls(len(table), pa.string()))
            units = units_of(table)
            speakable = [unit for unit in units if not unit.error and front(unit.voice) is not None]
            packed: dict[str, str] = {}
            if speakable:
                found, _starts = careful(
                    task["shard"], speakable, lambda some: [_encoded(front(u.voice), u.text) for u in some], _dead,
                    seconds=_FRONT_S + 0.1 * len(speakable),
                )  # fmt: skip
                packed = dict(zip((unit.id for unit in speakable), found, strict=True))
            parts = pa.array([packed.get(unit.id) for unit in units], pa.string())
            return task, table.append_column(PARTS, parts)

        return work


def units_of(table: pa.Table) -> list[Unit]:
    """The rows of a plan, or of a shard, as units; columns that it lacks keep their defaults."""
    names = [name for name in UNIT_FIELDS if name in table.column_names]
    columns = [table.column(name).to_pylist() for name in names]
    if names == list(UNIT_FIELDS):
        return [Unit(*values) for values in zip(*columns, strict=True)]
    return [Unit(**dict(zip(names, values, strict=True))) for values in zip(*columns, strict=True)]


def _encoded(encode: Encode | None, text: str) -> str:
    from flowtts_core.text.parts import pack_parts

    assert encode is not None
    try:
        return pack_parts(encode(text))
    except MemoryError:
        raise
    except FlowTTSError as error:
        return json.dumps({"error": error.message})
    except Exception as error:  # one text must not cost the others
        return json.dumps({"error": f"{type(error).__name__}: {error}"[:500]})


def _dead(unit: Unit, why: str) -> str:
    return json.dumps({"error": f"{why} (in the text front end)"})


def parts_of(packed: str | None, text: str) -> Any:
    """The parts of a unit's text, the reason (a string) why it has none, or None where the engine encodes it itself."""
    from flowtts_core.text.parts import unpack_parts

    if packed is None:
        return None
    if packed.startswith("{"):
        return str(json.loads(packed)["error"])
    return unpack_parts(packed, text)
