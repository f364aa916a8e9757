"""The manifest: shards are committed whole, damage is seen, and no id is lost or doubled unnoticed."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from cluster.plan import Shard, StoredPlan
from cluster.storage import Storage
from flowtts_core.errors import OutputError
from jobs.synthesis import manifest
from jobs.synthesis.units import PLAN_SCHEMA


def row(id: str, status: str = "ok") -> dict:
    word = {"word": "Hé", "start": 0, "end": 2, "start_s": 0.0, "end_s": 0.5}
    base = {"id": id, "chapter": 1, "index": 0, "text": "Hé, ho.", "voice": "v", "seed": 3, "model": "m", "attempts": 1}
    if status == "failed":
        return {**base, "status": status, "reason": "no sound", "duration": 0.0, "num_samples": 0}
    sound = {
        "sha256": manifest.sha256(b"flac"),
        "flac": b"flac" * 500,
        "sample_rate": 8000,
        "num_samples": 8000,
        "duration": 1.0,
    }
    return {**base, **sound, "status": status, "words": [word], "phonemes": "heɪ"}


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path))


def write(storage: Storage, index: int, rows: list[dict], digest: str = "d", **stats: float) -> None:
    manifest.write_shard(storage, index, pa.Table.from_pylist(rows, schema=manifest.SHARD_SCHEMA), digest, stats)


def planned(storage: Storage, *shards: list[str]) -> StoredPlan:
    """A plan of these ids whose shards lie as given, in a job whose order is that of the alphabet."""
    ids = sorted(id for shard in shards for id in shard)
    values = {"order": list(range(len(ids))), "id": ids, "fingerprint": ids}
    rows = pa.table({f.name: pa.array(values.get(f.name, [None] * len(ids)), f.type) for f in PLAN_SCHEMA})
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, PLAN_SCHEMA) as writer:
        for shard in shards:
            writer.write_table(rows.filter(pc.is_in(rows.column("id"), pa.array(shard))))
    storage.write("plan/x/00000.parquet", buffer.getvalue())
    found = tuple(Shard(i, 0, i, len(shard), 1, "d") for i, shard in enumerate(shards))
    return StoredPlan("plan/x", len(ids), "", found)


def test_a_shard_reads_back(storage: Storage) -> None:
    rows = [row("a"), row("b", "failed")]
    write(storage, 0, rows, compute_s=2.5)
    found = manifest.read_shard(storage, 0).to_pylist()
    for wanted, got in zip(rows, found, strict=True):
        assert {key: got[key] for key in wanted} == wanted
    assert manifest.shard_stats(storage, 0) == {"compute_s": 2.5}
    assert manifest.shard_digest_of(storage, 0) == "d"
    assert manifest.shard_indexes(storage) == [0]


def test_equal_rows_make_equal_bytes_whatever_the_order_of_writing(storage: Storage) -> None:
    for index in (0, 1):
        write(storage, index, [row("a")])
    assert storage.read(manifest.shard_name(0)) == storage.read(manifest.shard_name(1))


def test_a_shard_that_is_cut_off_or_of_another_plan_is_pending(storage: Storage) -> None:
    plan = planned(storage, ["a"], ["b"])
    write(storage, 0, [row("a")])
    write(storage, 1, [row("b")], digest="of other rows")
    name = manifest.shard_name(0)
    good = storage.read(name)

    def pending() -> list[int]:
        return [s.index for s in plan.pending(storage, manifest.shard_digest_of, manifest.shard_indexes(storage))]

    assert pending() == [1]
    for bad in (b"", good[:-20], good[: len(good) // 2]):
        storage.write(name, bad)
        assert pending() == [0, 1]
    storage.delete(name)
    assert pending() == [0, 1]


def test_a_page_that_rots_is_seen_when_it_is_read(storage: Storage) -> None:
    write(storage, 0, [row("a"), row("b")])
    name = manifest.shard_name(0)
    good = storage.read(name)
    place = good.index(b"flacflac") + 4
    storage.write(name, good[:place] + b"X" + good[place + 1 :])
    with pytest.raises(OSError, match="CRC"):
        manifest.read_shard(storage, 0)


def test_finishing_lists_every_row_once_in_the_jobs_order(storage: Storage) -> None:
    plan = planned(storage, ["b", "c"], ["a"])
    write(storage, 0, [row("b", "failed"), row("c")], compute_s=1.0)
    write(storage, 1, [row("a")], compute_s=0.5)
    totals = manifest.finish(storage, plan)
    assert (totals.planned, totals.ok, totals.failed, totals.seconds, totals.compute_s) == (3, 2, 1, 2.0, 1.5)
    assert totals.reasons == {"no sound": 1}
    table = manifest.read_manifest(storage)
    assert table.column("id").to_pylist() == ["a", "b", "c"]
    assert "flac" not in table.column_names
    assert table.column("audio").to_pylist() == ["shards/00001.parquet#0", None, "shards/00000.parquet#1"]
    (line,) = storage.read(manifest.QUARANTINE).decode().splitlines()
    assert json.loads(line)["id"] == "b"
    assert json.loads(line)["reason"] == "no sound"


@pytest.mark.parametrize("found", [["a"], ["a", "b", "b"], ["a", "b", "x"]])
def test_a_lost_doubled_or_unplanned_id_is_loud(found: list[str]) -> None:
    manifest.verify(["b", "a"], ["a", "b"])
    with pytest.raises(OutputError, match=r"missing|unplanned"):
        manifest.verify(["a", "b"], found)


def test_finishing_with_a_wrong_shard_is_loud(storage: Storage) -> None:
    plan = planned(storage, ["a", "b"])
    write(storage, 0, [row("a"), row("a")])
    with pytest.raises(OutputError, match="1 rows missing"):
        manifest.finish(storage, plan)
