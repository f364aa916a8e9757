"""The worker of `flowtts prepare`: prepares the clips of a shard and commits it as one Parquet file."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

from cluster.storage import PARTIAL, Storage
from flowtts_core.training.examples import SCHEMA
from flowtts_core.training.prepare import PrepareConfig
from jobs.clips import Clip, audio_of

NOTE = b"flowtts"  # key of a file's own record in its Parquet metadata
CAREFUL_AFTER = 2  # deaths over a shard, after which each clip is noted before it is read
DEADLY_AFTER = 2  # deaths over one clip; a single one may be the machine's


class ShardPreparer:
    """A worker: prepares the clips of a shard and commits its Parquet file, record included."""

    def __init__(self, config: PrepareConfig, storage: Storage) -> None:
        import torch

        from flowtts_core.training.prepare import ClipPreparer

        torch.set_num_threads(1)
        self._storage, self._problem = storage, None
        try:
            self._preparer = ClipPreparer(config)
        except Exception as error:  # Ray would start the worker again and again; raised from a call it ends the job
            self._problem = error

    def __call__(self, batch: Any) -> Any:
        import pyarrow as pa

        if self._problem is not None:
            raise self._problem
        notes = []
        for row in batch.to_pylist():
            clips = [Clip(**clip) for clip in json.loads(row["clips"])]
            note = self.prepare_shard(row["shard"], row["print"], clips)
            notes.append({"shard": row["shard"], "note": json.dumps(note)})
        return pa.Table.from_pylist(notes)

    def prepare_shard(self, index: int, print_: str, clips: list[Clip]) -> dict[str, Any]:
        """Write `clips-INDEX.parquet`; returns its record."""
        rows: list[dict[str, Any]] = []
        aside: list[dict[str, str]] = []
        journal = _Journal(self._storage, index)
        for clip, audio in zip(clips, audio_of(clips), strict=True):
            problem = clip.problem or journal.problem(clip.id)
            made = problem or self._preparer.prepare(clip.id, clip.text, audio, clip.speaker)
            if isinstance(made, str):
                aside.append({"id": clip.id, "reason": made, "audio": clip.path, "text": clip.text})
            else:
                rows.append(made)
        note = {"print": print_, "set_aside": aside, **_sums(rows)}
        self._storage.write(f"clips-{index:05d}.parquet", _parquet_bytes(rows, note))
        journal.close()
        return note


class _Journal:
    """Finds the clip that kills its worker (a decoder that crashes), which Ray would otherwise start again for ever.

    After `CAREFUL_AFTER` deaths on a shard each clip is noted before it is read; one that stood there at `DEADLY_AFTER`
    deaths is set aside. A new run sweeps the notes of the old one away.
    """

    def __init__(self, storage: Storage, index: int) -> None:
        self._storage, self._name = storage, f"{PARTIAL}journal-{index:05d}.json"
        state: dict[str, Any] = {"starts": 0, "deaths": {}}
        if storage.exists(self._name):
            state = json.loads(storage.read(self._name))
        self._deaths = Counter(state["deaths"])
        self._deaths.update([state["at"]] if state.get("at") else [])
        self._starts = state["starts"] + 1
        self._save(None)

    def problem(self, key: str) -> str:
        """Why the clip must not be read; empty where it may be."""
        if self._deaths[key] >= DEADLY_AFTER:
            return "its worker died while preparing it"
        if self._starts > CAREFUL_AFTER:
            self._save(key)
        return ""

    def close(self) -> None:
        self._storage.delete(self._name)

    def _save(self, at: str | None) -> None:
        state = {"starts": self._starts, "deaths": self._deaths, "at": at}
        self._storage.write(self._name, json.dumps(state).encode())


def _sums(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the statistics of the whole need of one file."""
    import numpy as np

    mels = [np.frombuffer(row["mel"], dtype=np.float16).astype(np.float64) for row in rows]
    return {
        "clips": len(rows),
        "frames": sum(row["n_frames"] for row in rows),
        "values": sum(len(mel) for mel in mels),
        "sum": math.fsum(float(mel.sum()) for mel in mels),
        "squares": math.fsum(float(mel @ mel) for mel in mels),
        "speakers": sorted({row["speaker"] for row in rows} - {""}),
    }


def _parquet_bytes(rows: list[dict[str, Any]], note: dict[str, Any]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist(rows, SCHEMA).replace_schema_metadata({NOTE: json.dumps(note).encode()})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="none", use_dictionary=False)  # half-precision mels and FLAC do not shrink
    return sink.getvalue().to_pybytes()
