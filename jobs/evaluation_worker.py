"""The actor of an evaluation: judges the clips of a shard and commits what it found."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.session import release_memory, root_cause, session
from cluster.storage import Storage
from flowtts_core.errors import AudioError, DependencyError, FlowTTSError
from flowtts_core.metrics.judges import Clip, judge_clip
from jobs.evaluation_input import Item, read_clip
from jobs.synthesis_worker import told

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
        ("judged_s", pa.float64()),  # computing time
    ]
)
"""A judged clip."""


def part_name(index: int) -> str:
    return f"{PARTS}/{index:05d}.parquet"


def read_part(storage: Storage, index: int) -> list[dict[str, Any]]:
    with storage.open(part_name(index)) as file:
        rows: list[dict[str, Any]] = pq.ParquetFile(file).read().to_pylist()
    for row in rows:
        row["values"] = {name: tuple(value) for name, value in row["values"] or []}
        row["embeddings"] = dict(row["embeddings"] or [])
    return rows


def part_is_whole(storage: Storage, index: int, ids: Sequence[str]) -> bool:
    """Whether the part was committed and holds the planned ids in their order."""
    try:
        return [row["id"] for row in read_part(storage, index)] == list(ids)
    except (FileNotFoundError, pa.ArrowException, OSError, KeyError, ValueError):
        return False


class PartJudge:
    """Judges each clip of a part; a bad clip becomes a failed row."""

    def __init__(self, generated: str, reference: str | None, judges: tuple[str, ...], output: Storage) -> None:
        self._generated, self._reference, self._judges, self._output = generated, reference, judges, output

    def __call__(self, batch: pa.Table) -> pa.Table:
        (row,) = batch.to_pylist()
        try:
            items = [(Item(**item), place) for item, place in json.loads(row["items"])]
            rows = [self._judged(item, place) for item, place in items]
            buffer = io.BytesIO()
            pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), buffer, compression="zstd")
            self._output.write(part_name(row["part"]), buffer.getvalue())
            release_memory()
        except FlowTTSError as error:  # a missing package, a full disk: the job's, not a clip's
            told_error = {"kind": type(error).__name__, "message": error.message, "remedy": error.remedy}
            return pa.Table.from_pylist([{"part": row["part"], "clips": 0, "error": json.dumps(told_error)}])
        return pa.Table.from_pylist([{"part": row["part"], "clips": len(rows), "error": ""}])

    def _judged(self, item: Item, reference_place: str | None) -> dict[str, Any]:
        row: dict[str, Any] = {"id": item.id, "place": item.place, "text": item.text, "values": {}, "embeddings": {}}
        if item.error:
            return {**row, "status": "failed", "reason": item.error}
        try:
            waveform, rate = read_clip(self._generated, item.place)
            reference, reference_rate = None, 0
            if reference_place is not None and self._reference is not None:
                reference, reference_rate = read_clip(self._reference, reference_place)
            verdict = judge_clip(Clip(waveform, rate, item.text, reference, reference_rate), self._judges)
        except AudioError as error:
            return {**row, "status": "failed", "reason": error.message}
        except DependencyError:
            raise
        except Exception as error:  # whatever a library makes of this clip, the others are judged
            return {**row, "status": "failed", "reason": f"{type(error).__name__}: {error}"[:500]}
        return {
            **row,
            "status": "ok",
            "reason": "; ".join(f"{judge}: {reason}" for judge, reason in verdict.reasons.items()),
            "heard": verdict.heard,
            "reference": item.id if reference is not None else None,
            "values": {name: list(value) for name, value in verdict.values.items()},
            "embeddings": {name: vector.tolist() for name, vector in verdict.embeddings.items()},
            "judged_s": sum(verdict.seconds.values()),
        }


def judge_parts(
    parts: dict[int, list[tuple[Item, str | None]]],
    worker_args: dict[str, Any],
    address: str | None,
    workers: int,
) -> Iterator[int]:
    """Judge the parts on a pool of actors; yields the number of clips of each as it is committed, in no fixed order.

    Args:
        parts: part number -> its clips, each with the place of its reference.
        worker_args: arguments of `PartJudge`.

    Raises:
        FlowTTSError: what a worker raised (a missing package, a full disk).
    """
    workers = max(1, min(workers, len(parts)))
    with session(address, workers):
        import ray.data

        rows = [
            {"part": index, "items": json.dumps([(asdict(item), place) for item, place in items])}
            for index, items in parts.items()
        ]
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            PartJudge,
            batch_size=None,  # a block is a part
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=workers),
            fn_constructor_kwargs=worker_args,
            num_cpus=1,
        )
        try:
            for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                assert isinstance(batch, pa.Table)
                for row in told(batch.to_pylist()):
                    yield int(row["clips"])
        except FlowTTSError:
            raise
        except Exception as error:
            raise root_cause(error) from error
