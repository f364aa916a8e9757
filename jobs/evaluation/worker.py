"""The actor of an evaluation: judges the clips of a part and commits the results."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.journal import Journal
from cluster.pool import run_tasks
from cluster.storage import Storage
from flowtts_core.errors import AudioError, ConfigError, DependencyError, FlowTTSError
from flowtts_core.metrics.judges import Clip, Panel, PanelConfig
from jobs.evaluation.input import Item, read_clip

PARTS = "parts"

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("place", pa.string()),
        ("text", pa.string()),
        ("status", pa.string()),  # "ok", or "failed" where the clip could not be read at all
        ("reason", pa.string()),  # why; of an ok clip why a judge could not judge it
        ("heard", pa.string()),
        ("reference", pa.string()),  # id of the reference's clip, where one pairs with it
        ("values", pa.map_(pa.string(), pa.list_(pa.float64(), 2))),  # metric -> numerator, denominator
        ("embeddings", pa.map_(pa.string(), pa.list_(pa.float32()))),
        ("series", pa.map_(pa.string(), pa.list_(pa.list_(pa.float32())))),  # embedder -> frames over time
        ("over_time", pa.map_(pa.string(), pa.list_(pa.float32()))),  # metric -> its value of each second, or null
        ("text_embedding", pa.list_(pa.float32())),  # of what was to be said
        ("judged_s", pa.float64()),  # computing time
    ]
)
"""A judged clip."""


def part_name(index: int) -> str:
    return f"{PARTS}/{index:05d}.parquet"


def journal_name(index: int) -> str:
    """Return the name of a part's journal in the folder of the parts."""
    return f"attempts-{index:05d}.json"


def read_part(storage: Storage, index: int) -> list[dict[str, Any]]:
    """Return the judged clips of a part."""
    with storage.open(part_name(index)) as file:
        rows: list[dict[str, Any]] = pq.ParquetFile(file).read().to_pylist()
    for row in rows:
        row["values"] = {name: tuple(value) for name, value in row["values"] or []}
        row["embeddings"] = {name: np.array(vector, np.float32) for name, vector in row["embeddings"] or []}
        row["over_time"] = dict(row.get("over_time") or [])  # parts of earlier versions have none
        row["series"] = {name: np.array(frames, np.float32) for name, frames in row["series"] or [] if frames}
    return rows


def part_is_whole(storage: Storage, index: int, ids: Sequence[str]) -> bool:
    """Return whether the part is committed with the planned ids in their order."""
    try:
        return [row["id"] for row in read_part(storage, index)] == list(ids)
    except (FileNotFoundError, pa.ArrowException, OSError, KeyError, ValueError):
        return False


class PartJudge:
    """Judges each clip of a part and commits it; a bad clip becomes a failed row.

    Args:
        places: the folders of "generated" and, if given, "reference".
        output: the job's storage, with a folder for each of the two.
        run: the name of this run of the job.
        longest_s: seconds of a clip; longer ones are set aside unread.
        mark_key: whose watermark is looked for, beside the public one.
    """

    def __init__(
        self,
        places: dict[str, str],
        panel: PanelConfig,
        output: Storage,
        run: str,
        longest_s: float | None = None,
        mark_key: bytes = b"",
    ) -> None:
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(1)
        self._places, self._panel, self._output, self._run = places, Panel(panel, mark_key), output, run
        self._longest_s = longest_s

    def __call__(self, task: dict[str, Any]) -> dict[str, Any]:
        which, items = task["which"], [(Item(**item), place) for item, place in task["items"]]
        folder = Storage(self._output.path(which))
        journal = Journal(folder, f"{PARTS}/{journal_name(task['part'])}", self._run, len(items))
        rows = []
        for item, place in items:
            if item.id in journal.deadly:
                item = replace(item, error="a judge's process died over it")
            elif journal.careful:
                journal.enter(item.id)
            rows.append(self._judged(which, item, place))
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), buffer, compression="zstd")
        folder.write(part_name(task["part"]), buffer.getvalue())
        journal.close()
        return {"clips": len(rows)}

    def _judged(self, which: str, item: Item, reference_place: str | None) -> dict[str, Any]:
        row: dict[str, Any] = {"id": item.id, "place": item.place, "text": item.text}
        if item.error:
            return {**row, "status": "failed", "reason": item.error}
        try:
            # the reference is asked for embeddings and scores to compare with; its words are known
            without = ("words",) if which == "reference" else ()
            verdict = self._panel.judge(self._clip(which, item, reference_place), without)
        except (DependencyError, ConfigError):  # a fault of the job, not of a clip
            raise
        except FlowTTSError as error:
            return {**row, "status": "failed", "reason": error.message}
        except Exception as error:  # whatever a library raises for this clip, the others are judged
            return {**row, "status": "failed", "reason": f"{type(error).__name__}: {error}"[:500]}
        return {
            **row,
            "status": "ok",
            "reason": "; ".join(f"{judge}: {reason}" for judge, reason in verdict.reasons.items()),
            "heard": verdict.heard,
            "reference": item.id if reference_place is not None else None,
            "values": {name: list(value) for name, value in verdict.values.items()},
            "embeddings": {name: vector.tolist() for name, vector in verdict.embeddings.items()},
            "series": {name: frames.tolist() for name, frames in verdict.series.items()},
            "over_time": verdict.over_time,
            "text_embedding": None if verdict.text is None else verdict.text.tolist(),
            "judged_s": sum(verdict.seconds.values()),
        }

    def _clip(self, which: str, item: Item, reference_place: str | None) -> Clip:
        waveform, rate = read_clip(self._places[which], item.place, self._longest_s)
        reference, reference_rate = None, 0
        if reference_place is not None:
            try:
                reference, reference_rate = read_clip(self._places["reference"], reference_place, self._longest_s)
            except AudioError as error:  # often of the same name: say whose fault it is
                raise AudioError(f"its clip of the reference: {error.message}", error.remedy) from error
        speed = item.compute_s, item.latency_s
        return Clip(waveform, rate, item.text, reference, reference_rate, *speed, mark=item.mark)


def judge_parts(
    parts: dict[str, dict[int, list[tuple[Item, str | None]]]],
    worker_args: dict[str, Any],
    address: str | None,
    workers: int,
    gpus: float = 0,
) -> Iterator[int]:
    """Judge the parts on a pool of actors. Yield the number of clips of each as it is committed, in no fixed order.

    Args:
        parts: "generated" or "reference" -> part number -> its clips, each with the place of its reference.
        worker_args: arguments of `PartJudge`.
        gpus: the fraction of a GPU for each worker.

    Raises:
        FlowTTSError: what a worker raised (a missing package, a full disk).
    """
    tasks = [
        {"which": which, "part": index, "items": [(asdict(item), place) for item, place in items]}
        for which, planned in parts.items()
        for index, items in planned.items()
    ]
    make = partial(PartJudge, **worker_args)
    for result in run_tasks(make, tasks, address=address, workers=workers, gpus=gpus):
        yield int(result["clips"])
