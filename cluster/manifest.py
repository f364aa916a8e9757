"""The record of finished work: shards with audio, the manifest without, and the proof that nothing is missing.

Each planned id ends in the manifest exactly once, as `ok` or `failed`; the quarantine lists the failed ones again, with
their reason and text, for whoever mends them."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.storage import Storage
from flowtts_core.errors import OutputError

SHARDS = "shards"
MANIFEST = "manifest.parquet"
QUARANTINE = "quarantine.jsonl"

_WORD = pa.struct(
    [
        ("word", pa.string()),
        ("start", pa.int32()),
        ("end", pa.int32()),
        ("start_s", pa.float32()),
        ("end_s", pa.float32()),
    ]
)

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("chapter", pa.int32()),  # 1, 2, ... in a book; 0 for rows of a corpus
        ("index", pa.int32()),  # place in the chapter or corpus, from 0
        ("text", pa.string()),
        ("voice", pa.string()),
        ("speaker", pa.string()),
        ("seed", pa.int64()),
        ("model", pa.string()),  # fingerprint of the engine that spoke
        ("audio", pa.string()),  # where: "shards/00003.parquet#17" (row) or "audio/x.flac"; null for a failed row
        ("sha256", pa.string()),  # of the FLAC bytes
        ("sample_rate", pa.int32()),
        ("num_samples", pa.int64()),
        ("duration", pa.float64()),  # seconds
        ("words", pa.list_(_WORD)),
        ("phonemes", pa.string()),
        ("status", pa.string()),  # "ok" or "failed"
        ("reason", pa.string()),  # why it failed
        ("attempts", pa.int32()),
        ("steps", pa.int32()),  # of the flow; null: as many as the voice takes by itself
        ("takes", pa.int32()),  # which reading this is: 1, or more where a gate had it spoken again
        ("verified", pa.bool_()),  # whether it kept the gate's bounds; null without a gate
        ("scores", pa.map_(pa.string(), pa.float64())),  # what the gate measured of it
    ]
)
"""A row of the manifest."""

SHARD_SCHEMA = SCHEMA.append(pa.field("flac", pa.binary()))
"""A row of a shard: the manifest's and the audio itself (null where the audio is a file of its own)."""


def shard_name(index: int) -> str:
    return f"{SHARDS}/{index:05d}.parquet"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_shard(storage: Storage, index: int, rows: Sequence[dict[str, Any]], stats: dict[str, Any]) -> None:
    """Commit a shard: once its name exists, its rows are done.

    Args:
        rows: dicts with the fields of `SHARD_SCHEMA`.
        stats: how the work went (`compute_s`, ...); kept in the file's metadata, apart from the reproducible rows.
    """
    schema = SHARD_SCHEMA.with_metadata({"stats": json.dumps(stats)})
    storage.write(shard_name(index), _parquet(pa.Table.from_pylist(list(rows), schema=schema)))


def read_shard(storage: Storage, index: int, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a shard; its pages are checked against their checksums."""
    with storage.open(shard_name(index)) as file:
        return pq.ParquetFile(file, page_checksum_verification=True).read(columns=list(columns) if columns else None)


def shard_rows(storage: Storage, index: int) -> int:
    """How many rows a shard has, without reading them."""
    with storage.open(shard_name(index)) as file:
        return int(pq.ParquetFile(file).metadata.num_rows)


def shard_stats(storage: Storage, index: int) -> dict[str, Any]:
    with storage.open(shard_name(index)) as file:
        metadata = pq.ParquetFile(file).schema_arrow.metadata or {}
    return dict(json.loads(metadata.get(b"stats", b"{}")))


def shard_is_whole(storage: Storage, index: int, ids: Sequence[str]) -> bool:
    """Whether the shard exists, reads back and holds exactly the planned ids in their order.

    A local shard is read to its last byte; of a remote one, which a put makes whole or not at all, only the ids.
    """
    try:
        table = read_shard(storage, index, ("id",) if storage.remote else None)
    except FileNotFoundError:
        return False
    except (pa.ArrowException, OSError, EOFError, ValueError):
        return False  # cut off or damaged: it is done again
    return table.column("id").to_pylist() == list(ids)


@dataclass(frozen=True)
class Totals:
    """What a finished manifest holds.

    Attributes:
        seconds: of audio.
        compute_s: spent on speaking by all workers.
        unverified: rows that fell short of the gate, whether they were set aside or kept.
        spoken_again: rows whose kept take is not the first.
        scores: the mean of each score over the rows that have it.
    """

    planned: int
    ok: int
    failed: int
    seconds: float
    compute_s: float
    reasons: dict[str, int]
    unverified: int
    spoken_again: int
    scores: dict[str, float]


def finish(storage: Storage, shards: Sequence[Sequence[str]]) -> Totals:
    """Write `manifest.parquet` (all rows) and `quarantine.jsonl` (the failed ones); verify that each id is there once.

    Args:
        shards: the planned ids, by shard.

    Raises:
        OutputError: when an id is lost, doubled or unplanned: a fault of this program or a changed folder.
    """
    tables, compute_s = [], 0.0
    for index in range(len(shards)):
        tables.append(_located(read_shard(storage, index, SCHEMA.names), index))
        compute_s += float(shard_stats(storage, index).get("compute_s", 0.0))
    table = pa.concat_tables(tables).replace_schema_metadata(None) if tables else SCHEMA.empty_table()
    verify((id_ for ids in shards for id_ in ids), table.column("id").to_pylist())
    rows = table.select(
        ["id", "chapter", "text", "reason", "audio", "status", "verified", "takes", "scores"]
    ).to_pylist()
    failed = [row for row in rows if row["status"] != "ok"]
    short = [row for row in rows if row["verified"] is False]
    aside = [_aside(row) for row in rows if row["status"] != "ok" or row["verified"] is False]
    storage.write(
        QUARANTINE, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in aside).encode("utf-8", "replace")
    )
    storage.write(MANIFEST, _parquet(table))
    durations = zip(table.column("duration").to_pylist(), rows, strict=True)
    seconds = sum(duration for duration, row in durations if row["status"] == "ok")
    # each row that was judged has figures of its own in its reason: they are counted under what they have in common
    reasons = Counter(_kind(row) for row in failed)
    return Totals(
        planned=len(table),
        ok=len(table) - len(failed),
        failed=len(failed),
        seconds=seconds,
        compute_s=compute_s,
        reasons=dict(reasons.most_common()),
        unverified=len(short),
        spoken_again=sum((row["takes"] or 1) > 1 for row in rows),
        scores=_means(rows),
    )


def _kind(row: dict[str, Any]) -> str:
    return str(row["reason"]).partition(": ")[0] if row["verified"] is False else str(row["reason"])


def _aside(row: dict[str, Any]) -> dict[str, Any]:
    """A line of the quarantine; one that was judged has its scores, and the place of its best take."""
    kept = {name: row[name] for name in ("id", "chapter", "text", "reason")}
    judged = {"audio": row["audio"], "kept": row["status"] == "ok", "scores": dict(row["scores"] or [])}
    return kept if row["verified"] is None else {**kept, **judged}


def _means(rows: Iterable[dict[str, Any]]) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row["scores"] or []:
            values.setdefault(name, []).append(value)
    return {name: math.fsum(found) / len(found) for name, found in values.items()}


def _located(table: pa.Table, index: int) -> pa.Table:
    """The rows with the place of audio that lies in the shard itself."""
    names, lengths = table.column("audio").to_pylist(), table.column("num_samples").to_pylist()
    places = [
        name or (f"{shard_name(index)}#{row}" if samples else None)
        for row, (name, samples) in enumerate(zip(names, lengths, strict=True))
    ]
    return table.set_column(table.schema.get_field_index("audio"), SCHEMA.field("audio"), pa.array(places, pa.string()))


def verify(planned: Iterable[str], found: Iterable[str]) -> None:
    """Raise `OutputError` unless both hold the same ids, each as often."""
    expected, present = Counter(planned), Counter(found)
    if expected == present:
        return
    lost = sorted((expected - present).elements())
    extra = sorted((present - expected).elements())
    raise OutputError(
        f"the output is not what was planned: {len(lost)} rows missing ({', '.join(lost[:5])}), "
        f"{len(extra)} unplanned or doubled ({', '.join(extra[:5])})",
        "was the folder changed by hand? give another -o, or remove it and run again",
    )


def iter_rows(storage: Storage, shards: Iterable[int], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of shards in order, one shard in memory at a time."""
    for index in shards:
        yield from read_shard(storage, index, columns).to_pylist()


def read_manifest(storage: Storage) -> pa.Table:
    return pq.read_table(io.BytesIO(storage.read(MANIFEST)))


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    # FLAC does not compress further; text does. Checksums let a resume see a damaged page.
    compression = {name: "NONE" if name == "flac" else "ZSTD" for name in table.column_names}
    codecs = {f"words.list.element.{field.name}": "ZSTD" for field in _WORD} | compression
    codecs |= {f"scores.key_value.{part}": "ZSTD" for part in ("key", "value")}
    for nested in ("words", "scores"):
        codecs.pop(nested, None)
    pq.write_table(
        table, buffer, compression=codecs, write_page_checksum=True, use_dictionary=False, write_statistics=False
    )
    return buffer.getvalue()
