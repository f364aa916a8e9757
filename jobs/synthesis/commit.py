"""The last stage of a synthesis job: writes a shard's audio where it belongs and then, by one atomic put, the shard itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cluster.pool import StageWork, Task
from cluster.storage import Storage
from jobs.synthesis.manifest import write_shard
from jobs.synthesis.units import SHARD_SCHEMA
from jobs.synthesis.webdataset import TARS, place_of, split_place, tar_name, tar_of

AUDIO, ASIDE = "audio", "quarantine"
FOLDERS = (AUDIO, ASIDE, TARS)  # of files with audio outside the shards
ROWS = ("files", "parquet", "webdataset")


@dataclass(frozen=True)
class MakeCommitter:
    """Makes the stage in its process.

    Attributes:
        rows: where the audio of a corpus goes: "files" of their own, "parquet", the shard itself, or "webdataset", a tar beside
            it. A book's is in the shards.
    """

    output: Storage
    rows: str

    def __call__(self) -> StageWork:
        return self._commit

    def _commit(self, task: Task, table: pa.Table | None) -> tuple[Task, None]:
        assert table is not None
        files = table.column("file").to_pylist()
        rows = table.drop(["file"])
        if self.rows != "parquet" and any(files):
            rows = self._moved(rows, files, task["shard"])
        write_shard(self.output, task["shard"], rows.select(SHARD_SCHEMA.names), task["digest"], task["stats"])
        ok = pc.equal(rows.column("status"), "ok")
        return {
            "shard": task["shard"],
            "rows": len(rows),
            "ok": pc.sum(ok).as_py() or 0,
            "characters": task["characters"],
            "worker": task["worker"],
            "seconds": pc.sum(pc.if_else(ok, rows.column("duration"), 0.0)).as_py() or 0.0,
            **{name: task["stats"].get(name, 0.0) for name in ("compute_s", "judging_s")},
        }, None

    def _moved(self, rows: pa.Table, files: list[str], shard: int) -> pa.Table:
        """The audio of rows that have a file name goes into files or a tar; a book's, among them, stays."""
        status, sounds = rows.column("status").to_pylist(), rows.column("flac").to_pylist()
        places: list[Any] = [None] * len(files)
        for i, (file, data) in enumerate(zip(files, sounds, strict=True)):
            if not file or not data:
                continue
            aside = status[i] != "ok"
            if self.rows == "files":
                places[i] = f"{ASIDE if aside else AUDIO}/{file}.flac"
                self.output.write(places[i], data)
            else:  # whoever trains on a tar takes all of it: what was set aside lies in another
                places[i] = place_of(tar_name(shard, ASIDE) if aside else tar_name(shard), file)
        rows = _with(rows, "audio", places)
        if self.rows == "webdataset":
            self._write_tars(rows, places)
        return _with(rows, "flac", [None if place else data for place, data in zip(places, sounds, strict=True)])

    def _write_tars(self, rows: pa.Table, places: list[str | None]) -> None:
        for tar in sorted({split_place(place)[0] for place in places if place}):
            mine = [i for i, place in enumerate(places) if place and split_place(place)[0] == tar]
            described = rows.take(pa.array(mine, pa.int64())).to_pylist()
            self.output.write(tar, tar_of(described))


def _with(rows: pa.Table, name: str, values: list[Any]) -> pa.Table:
    at = rows.schema.get_field_index(name)
    return rows.set_column(at, SHARD_SCHEMA.field(name), pa.array(values, SHARD_SCHEMA.field(name).type))
