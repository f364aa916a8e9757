"""The manifest: shards are committed whole, damage is seen, and no id is lost or doubled unnoticed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster import manifest
from cluster.storage import Storage
from flowtts_core.errors import OutputError


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


def test_a_shard_reads_back(storage: Storage) -> None:
    rows = [row("a"), row("b", "failed")]
    manifest.write_shard(storage, 0, rows, {"compute_s": 2.5})
    found = manifest.read_shard(storage, 0).to_pylist()
    for wanted, got in zip(rows, found, strict=True):
        assert {key: got[key] for key in wanted} == wanted
    assert manifest.shard_stats(storage, 0) == {"compute_s": 2.5}
    assert manifest.shard_is_whole(storage, 0, ["a", "b"])


def test_equal_rows_make_equal_bytes_whatever_the_order_of_writing(storage: Storage) -> None:
    for index in (0, 1):
        manifest.write_shard(storage, index, [row("a")], {})
    assert storage.read(manifest.shard_name(0)) == storage.read(manifest.shard_name(1))


def test_a_damaged_or_foreign_shard_is_not_whole(storage: Storage) -> None:
    manifest.write_shard(storage, 0, [row("a"), row("b")], {})
    name = manifest.shard_name(0)
    good = storage.read(name)
    assert not manifest.shard_is_whole(storage, 1, ["a", "b"])
    assert not manifest.shard_is_whole(storage, 0, ["b", "a"])
    place = good.index(b"flacflac") + 4
    for bad in (b"", good[:-20], good[: len(good) // 2], good[:place] + b"X" + good[place + 1 :]):
        storage.write(name, bad)
        assert not manifest.shard_is_whole(storage, 0, ["a", "b"])


def test_finishing_lists_every_row_once(storage: Storage) -> None:
    manifest.write_shard(storage, 0, [row("a"), row("b", "failed")], {"compute_s": 1.0})
    manifest.write_shard(storage, 1, [row("c")], {"compute_s": 0.5})
    totals = manifest.finish(storage, [["a", "b"], ["c"]])
    assert (totals.planned, totals.ok, totals.failed, totals.seconds, totals.compute_s) == (3, 2, 1, 2.0, 1.5)
    assert totals.reasons == {"no sound": 1}
    table = manifest.read_manifest(storage)
    assert table.column("id").to_pylist() == ["a", "b", "c"]
    assert "flac" not in table.column_names
    assert table.column("audio").to_pylist() == ["shards/00000.parquet#0", None, "shards/00001.parquet#0"]
    (line,) = storage.read(manifest.QUARANTINE).decode().splitlines()
    assert json.loads(line)["id"] == "b"
    assert json.loads(line)["reason"] == "no sound"


@pytest.mark.parametrize("found", [["a"], ["a", "b", "b"], ["a", "b", "x"]])
def test_a_lost_doubled_or_unplanned_id_is_loud(found: list[str]) -> None:
    manifest.verify(["b", "a"], ["a", "b"])
    with pytest.raises(OutputError, match=r"missing|unplanned"):
        manifest.verify(["a", "b"], found)


def test_finishing_with_a_wrong_shard_is_loud(storage: Storage) -> None:
    manifest.write_shard(storage, 0, [row("a"), row("a")], {})
    with pytest.raises(OutputError, match="1 rows missing"):
        manifest.finish(storage, [["a", "b"]])
