"""The first stage of a synthesis job: reads a shard's units from the plan and cuts their texts, on plain CPU tasks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cluster.plan import read_group
from cluster.pool import StageWork, Task
from cluster.storage import Storage
from cluster.watchdog import WorkLimits
from flowtts_core.errors import FlowTTSError
from flowtts_core.request import SynthesisRequest
from flowtts_core.text.plan import TextPlan, pack_plan, unpack_plan
from jobs.synthesis.careful import Careful
from jobs.synthesis.engine import PlanText, Voices
from jobs.synthesis.units import Unit, units_of

PLANNED = pa.field("planned", pa.string())  # packed, or `{"error": reason}`; null where the voice cuts texts itself
_FRONT_S = 60.0  # of one text


@dataclass(frozen=True)
class MakeFront:
    """Makes the stage in its process; `job` holds the settings that units take as they are."""

    output: Storage
    voices: Voices
    job: Mapping[str, Any]
    run: str
    limits: WorkLimits

    def __call__(self) -> StageWork:
        fronts: dict[str, PlanText | None] = {}

        def front(voice: str | None) -> PlanText | None:
            engine = self.voices.find(voice)
            if engine.name not in fronts:
                fronts[engine.name] = engine.make_front()
            return fronts[engine.name]

        careful = Careful(self.output, "front", self.run, WorkLimits(_FRONT_S, self.limits.memory))

        def work(task: Task, _: pa.Table | None) -> tuple[Task, pa.Table]:
            table = read_group(self.output, task["plan"], task["part"], task["group"])
            good = table.filter(pc.equal(table.column("error"), ""))
            if all(front(voice) is None for voice in good.column("voice").unique().to_pylist()):
                return task, table.append_column(PLANNED, pa.nulls(len(table), pa.string()))
            units = units_of(table)
            speakable = [unit for unit in units if not unit.error and front(unit.voice) is not None]
            packed: dict[str, str] = {}
            if speakable:
                found, _starts = careful(
                    task["shard"],
                    speakable,
                    lambda some: [_planned(front(u.voice), u, self.job) for u in some],
                    _dead,
                    seconds=_FRONT_S + 0.1 * len(speakable),
                )
                packed = dict(zip((unit.id for unit in speakable), found, strict=True))
            planned = pa.array([packed.get(unit.id) for unit in units], pa.string())
            return task, table.append_column(PLANNED, planned)

        return work


def _planned(plan: PlanText | None, unit: Unit, job: Mapping[str, Any]) -> str:
    assert plan is not None
    settings = {**job, **unit.settings}
    read = {
        name: settings[name] for name in ("speaker", "language", "input_type") if name in settings
    }  # all that reading depends on
    try:
        return pack_plan(plan(SynthesisRequest(text=unit.text, seed=unit.seed, **read)))
    except MemoryError:
        raise
    except FlowTTSError as error:
        return json.dumps({"error": error.reason})
    except Exception as error:  # one text must not cost the others
        return json.dumps({"error": f"{type(error).__name__}: {error}"[:500]})


def _dead(unit: Unit, why: str) -> str:
    return json.dumps({"error": f"{why} (in the text front end)"})


def plans_of(units: Mapping[str, Unit], packed: Mapping[str, str | None]) -> tuple[dict[str, TextPlan], dict[str, str]]:
    """Return plans by unit id, and reasons where there is none; units whose voice cuts the text itself are in neither."""
    plans: dict[str, TextPlan] = {}
    reasons: dict[str, str] = {}
    for id, text in packed.items():
        if text is None:
            continue
        if text.startswith("{"):
            error: Any = json.loads(text)["error"]
            reasons[id] = str(error)
        else:
            plans[id] = unpack_plan(text, units[id].text)
    return plans, reasons
