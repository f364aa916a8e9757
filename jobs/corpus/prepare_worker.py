"""The worker of `flowtts prepare`: prepares the clips of a shard and commits it as one Parquet file."""

from __future__ import annotations

import json
import math
from typing import Any

from cluster.journal import Journal
from cluster.storage import PARTIAL, Storage
from flowtts_core.training.examples import SCHEMA
from flowtts_core.training.prepare import PrepareConfig
from jobs.corpus.clips import Clip, audio_of

NOTE = b"flowtts"  # key of a file's own record in its Parquet metadata


def file_name(shard: int) -> str:
    return f"clips-{shard:05d}.parquet"


class ShardPreparer:
    """A worker: prepares the clips of a shard and commits its Parquet file, record included."""

    def __init__(self, config: PrepareConfig, storage: Storage) -> None:
        import torch

        from flowtts_core.training.prepare import ClipPreparer

        torch.set_num_threads(1)
        self._storage, self._preparer = storage, ClipPreparer(config)

    def __call__(self, task: dict[str, Any]) -> dict[str, Any]:
        clips = [Clip(**clip) for clip in task["clips"]]
        return {"shard": task["shard"], **self.prepare_shard(task["shard"], task["print"], clips)}

    def prepare_shard(self, index: int, print_: str, clips: list[Clip]) -> dict[str, Any]:
        """Write the shard's file; returns its record."""
        rows: list[dict[str, Any]] = []
        aside: list[dict[str, str]] = []
        # a new run sweeps the notes of the old one away: it needs no name
        journal = Journal(self._storage, f"{PARTIAL}journal-{index:05d}.json", "", len(clips))
        for clip, audio in zip(clips, audio_of(clips), strict=True):
            problem = clip.problem or ("its worker died while preparing it" if clip.id in journal.deadly else "")
            if journal.careful and not problem:
                journal.enter(clip.id)
            made = problem or self._preparer.prepare(clip.id, clip.text, audio, clip.speaker)
            if isinstance(made, str):
                aside.append({"id": clip.id, "reason": made, "audio": clip.path, "text": clip.text})
            else:
                rows.append(made)
        note = {"print": print_, "set_aside": aside, **_sums(rows), "index": _index(rows)}
        self._storage.write(file_name(index), _parquet_bytes(rows, note))
        journal.close()
        return note


def _index(rows: list[dict[str, Any]]) -> list[tuple[int, int, str]]:
    """Frames, tokens and speaker of each example: what training must know of all of them beforehand."""
    return [(row["n_frames"], len(row["tokens"]), row["speaker"]) for row in rows]


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
    """A row group for each example, so that training can read one without the others."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist(rows, SCHEMA).replace_schema_metadata({NOTE: json.dumps(note).encode()})
    sink = pa.BufferOutputStream()
    # half-precision mels and FLAC do not shrink; statistics of them would only swell the footer
    pq.write_table(table, sink, row_group_size=1, compression="none", use_dictionary=False, write_statistics=False)
    return sink.getvalue().to_pybytes()
