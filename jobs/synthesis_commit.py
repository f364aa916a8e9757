"""The last stage of a synthesis job: writes a shard's audio where it belongs and then, by one atomic put, the shard itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cluster.manifest import SHARD_SCHEMA, write_shard
from cluster.pool import StageWork, Task
from cluster.storage import Storage

AUDIO, ASIDE = "audio", "quarantine"
FOLDERS = (AUDIO, ASIDE)  # of files with the audio of one row each
ROWS = ("files", "parquet")


@dataclass(frozen=True)
class MakeCommitter:
    """Makes the stage in its process.

    Attributes:
        rows: where the audio of a corpus goes: "files" of their own, or "parquet", the shard itself. A book's is in the shards.
    """

    output: Storage
    rows: str

    def __call__(self) -> StageWork:
        return self._commit

    def _commit(self, task: Task, table: pa.Table | None) -> tuple[Task, None]:
        assert table is not None
        files = table.column("file").to_pylist()
        rows = table.drop(["file"])
        if self.rows == "files" and any(files):
            rows = self._with_files(rows, files)
        write_shard(self.output, task["shard"], rows.select(SHARD_SCHEMA.names), task["digest"], task["stats"])
        ok = pc.equal(rows.column("status"), "ok")
        return {
            "shard": task["shard"],
            "rows": len(rows),
            "ok": pc.sum(ok).as_py() or 0,
            "characters": task["characters"],
            "seconds": pc.sum(pc.if_else(ok, rows.column("duration"), 0.0)).as_py() or 0.0,
            **{name: task["stats"].get(name, 0.0) for name in ("compute_s", "judging_s")},
        }, None

    def _with_files(self, rows: pa.Table, files: list[str]) -> pa.Table:
        """The audio of rows that have a file name goes into files; a book's, among them, stays."""
        places: list[Any] = []
        sounds: list[Any] = []
        for file, flac, status in zip(files, rows.column("flac"), rows.column("status").to_pylist(), strict=True):
            data = flac.as_py()
            if file and data:
                places.append(f"{AUDIO if status == 'ok' else ASIDE}/{file}.flac")
                self.output.write(places[-1], data)
                sounds.append(None)
            else:
                places.append(None)
                sounds.append(data)
        for name, values in (("audio", places), ("flac", sounds)):
            at = rows.schema.get_field_index(name)
            rows = rows.set_column(at, SHARD_SCHEMA.field(name), pa.array(values, SHARD_SCHEMA.field(name).type))
        return rows
