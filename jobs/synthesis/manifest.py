"""The record of finished work: shards with audio, the manifest without, and the proof that nothing is missing.

Each planned id ends in the manifest exactly once, as `ok` or `failed`; the quarantine lists the failed ones again, with
their reason and text, for whoever mends them."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluster.plan import Shard, StoredPlan
from cluster.storage import Storage
from flowtts_core.errors import OutputError
from jobs.synthesis.units import MANIFEST_SCHEMA, SHARD_SCHEMA

SHARDS = "shards"
MANIFEST = "manifest.parquet"
QUARANTINE = "quarantine.jsonl"

_SHARD_NAME = re.compile(r"(\d{5,})\.parquet")
_READERS = 4
_ADDED = ("dropped", "notes", "style", "cue_start", "cue_end", "watermark")


def shard_name(index: int) -> str:
    return f"{SHARDS}/{index:05d}.parquet"


def shard_indexes(storage: Storage) -> list[int]:
    """The numbers of the shards that are there, whole or not."""
    return [int(match[1]) for name in storage.list(SHARDS) if (match := _SHARD_NAME.fullmatch(name))]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_shard(storage: Storage, index: int, table: pa.Table, digest: str, stats: dict[str, Any]) -> None:
    """Commit a shard: once its name exists, its rows are done.

    Args:
        table: of `SHARD_SCHEMA`.
        digest: of the planned rows, by which a later run knows the shard (`cluster.plan.shard_digest`).
        stats: how the work went (`compute_s`, ...); kept in the file's metadata, apart from the reproducible rows.
    """
    metadata = {"stats": json.dumps(stats), "plan": digest}
    storage.write(shard_name(index), _parquet(table.replace_schema_metadata(metadata)))


def read_shard(storage: Storage, index: int, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a shard; its pages are checked against their checksums."""
    with storage.open(shard_name(index)) as file:
        return pq.ParquetFile(file, page_checksum_verification=True).read(columns=list(columns) if columns else None)


def shard_stats(storage: Storage, index: int) -> dict[str, Any]:
    return dict(json.loads(_metadata(storage, index).get(b"stats", b"{}")))


def shard_digest_of(storage: Storage, index: int) -> str | None:
    """The digest that a shard bears; None where the file is absent, cut off or none of ours. Reads its end alone."""
    try:
        return _metadata(storage, index).get(b"plan", b"").decode() or None
    except (pa.ArrowException, OSError, EOFError, ValueError):
        return None


def _metadata(storage: Storage, index: int) -> dict[bytes, bytes]:
    with storage.open(shard_name(index)) as file:
        return pq.read_schema(file).metadata or {}


@dataclass
class Totals:
    """What a finished manifest holds.

    Attributes:
        seconds: of audio.
        compute_s, judging_s: spent on speaking, and on judging, by all workers.
        unverified: rows that fell short of the gate, whether they were set aside or kept.
        spoken_again: rows whose kept take is not the first.
        scores: the mean of each score over the rows that were kept and have it.
        padding: of the frames that went through the model, the part that was padding.
        prompts, prompts_made: utterances that imitate a clip, and clips whose features were made for them; others were kept.
        in_part: rows of whose text something was not spoken.
        dropped: what that was, the most frequent first, with the number of rows.
    """

    planned: int = 0
    ok: int = 0
    seconds: float = 0.0
    compute_s: float = 0.0
    judging_s: float = 0.0
    reasons: dict[str, int] = field(default_factory=dict)
    unverified: int = 0
    spoken_again: int = 0
    scores: dict[str, float] = field(default_factory=dict)
    padding: float = 0.0
    prompts: int = 0
    prompts_made: int = 0
    in_part: int = 0
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        return self.planned - self.ok


def finish(storage: Storage, plan: StoredPlan, told: Callable[[int], None] = lambda rows: None) -> Totals:
    """Write `manifest.parquet` (all rows) and `quarantine.jsonl` (the failed ones); verify that each id is there once.

    A part of the plan is in memory at a time.

    Args:
        told: called with the rows that are written so far.

    Raises:
        OutputError: when an id is lost, doubled or unplanned: a fault of this program or a changed folder.
    """
    totals, sums = Totals(), _Sums()
    with storage.workspace() as folder:
        local, aside = folder / MANIFEST, folder / QUARANTINE
        with (
            pq.ParquetWriter(local, MANIFEST_SCHEMA, **_writing(MANIFEST_SCHEMA.names)) as writer,
            open(aside, "wb") as lines,
        ):
            for part in range(plan.parts):
                table = part_rows(storage, plan, part)
                writer.write_table(table)
                for row in sums.add(totals, table):
                    lines.write((json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "replace"))
                told(totals.planned)
        sums.add_stats(totals, [shard_stats(storage, shard.index) for shard in plan.shards])
        storage.put_file(aside, QUARANTINE)
        storage.put_file(local, MANIFEST)
    return totals


def part_rows(storage: Storage, plan: StoredPlan, part: int) -> pa.Table:
    """The manifest's rows of one part of a plan, in the job's order."""
    planned = plan.read_part(storage, part, ("order", "id"))
    shards = plan.part_shards(part)
    with ThreadPoolExecutor(_READERS) as pool:
        tables = list(pool.map(lambda shard: _rows_of(storage, shard), shards))
    table = pa.concat_tables(tables).replace_schema_metadata(None)
    if not table.column("id").equals(planned.column("id")):
        verify(planned.column("id").to_pylist(), table.column("id").to_pylist())
    return table.take(pc.sort_indices(planned.column("order"))).combine_chunks()


def _rows_of(storage: Storage, shard: Shard) -> pa.Table:
    try:
        table = read_shard(storage, shard.index, MANIFEST_SCHEMA.names)
        for name in {*_ADDED} - {*table.column_names}:  # of a job that was begun before there was such a column
            field = MANIFEST_SCHEMA.field(name)
            table = table.append_column(field, pa.nulls(len(table), field.type))
        there = [name for name in MANIFEST_SCHEMA.names if name in table.column_names]
        table = _located(table.select(there), shard.index)
    except (pa.ArrowException, OSError, EOFError) as error:
        raise OutputError(
            f"{storage.path(shard_name(shard.index))}: cannot be read ({str(error).splitlines()[0]})",
            "flowtts verify --repair makes it again",
        ) from error
    return table if shard.select is None else table.take(pa.array(shard.select, pa.int64()))


_LONGEST_DROPPED = 40  # characters; a sentence in another script is cut
_MOST_DROPPED, _SHOWN_DROPPED = 10_000, 20


class _Sums:
    """Adds up the rows of a manifest, part by part."""

    def __init__(self) -> None:
        self._reasons: Counter[str] = Counter()
        self._scores: dict[str, tuple[float, int]] = {}
        self._dropped: Counter[str] = Counter()

    def add(self, totals: Totals, table: pa.Table) -> list[dict[str, Any]]:
        """Count a table's rows; returns the quarantine's lines of it."""
        ok = pc.equal(table.column("status"), "ok")
        totals.planned += len(table)
        totals.ok += pc.sum(ok).as_py() or 0
        totals.seconds += pc.sum(pc.if_else(ok, table.column("duration"), 0.0)).as_py() or 0.0
        short = pc.fill_null(pc.invert(table.column("verified")), False)
        totals.unverified += pc.sum(short).as_py() or 0
        totals.spoken_again += pc.sum(pc.greater(pc.fill_null(table.column("takes"), 1), 1)).as_py() or 0
        totals.in_part += pc.sum(pc.and_(ok, pc.is_valid(table.column("dropped")))).as_py() or 0
        self._add_dropped(totals, table.column("dropped").filter(ok))
        self._add_scores(totals, table.column("scores").filter(ok))
        columns = ["id", "chapter", "text", "reason", "audio", "status", "verified", "scores"]
        rows = table.select(columns).filter(pc.or_(pc.invert(ok), short)).to_pylist()
        # each row that was judged has figures of its own in its reason: they are counted under what they have in common
        self._reasons.update(_kind(row) for row in rows if row["status"] != "ok")
        totals.reasons = dict(self._reasons.most_common())
        return [_aside(row) for row in rows]

    def _add_dropped(self, totals: Totals, column: pa.ChunkedArray) -> None:
        for told in column.drop_null().to_pylist() if column.null_count < len(column) else ():
            self._dropped.update({what[:_LONGEST_DROPPED] for what in told})
        self._dropped = Counter(dict(self._dropped.most_common(_MOST_DROPPED)))  # a job may have millions
        totals.dropped = dict(self._dropped.most_common(_SHOWN_DROPPED))

    def _add_scores(self, totals: Totals, column: pa.ChunkedArray) -> None:
        for pairs in column.drop_null().to_pylist() if column.null_count < len(column) else ():
            for name, value in (pair.values() for pair in pairs):
                total, count = self._scores.get(name, (0.0, 0))
                self._scores[name] = (total + value, count + 1)
        totals.scores = {name: total / count for name, (total, count) in self._scores.items()}

    @staticmethod
    def add_stats(totals: Totals, stats: Sequence[dict[str, Any]]) -> None:
        totals.compute_s = sum(float(s.get("compute_s", 0.0)) for s in stats)
        totals.judging_s = sum(float(s.get("judging_s", 0.0)) for s in stats)
        used, padded = (sum(s.get(name, 0) for s in stats) for name in ("tokens", "padded_tokens"))
        totals.padding = 1 - used / padded if padded else 0.0
        totals.prompts, totals.prompts_made = (
            sum(s.get(name, 0) for s in stats) for name in ("prompts", "prompts_made")
        )


def _kind(row: dict[str, Any]) -> str:
    return str(row["reason"]).partition(": ")[0] if row["verified"] is False else str(row["reason"])


def _aside(row: dict[str, Any]) -> dict[str, Any]:
    """A line of the quarantine; one that was judged has its scores, and the place of its best take."""
    kept = {name: row[name] for name in ("id", "chapter", "text", "reason")}
    judged = {"audio": row["audio"], "kept": row["status"] == "ok", "scores": scores_of(row)}
    return kept if row["verified"] is None else {**kept, **judged}


def scores_of(row: dict[str, Any]) -> dict[str, float]:
    """What the gate measured of a row, by name."""
    return {score["name"]: score["value"] for score in row["scores"] or []}


def _located(table: pa.Table, index: int) -> pa.Table:
    """The rows with the place of audio that lies in the shard itself."""
    places = [
        name or (f"{shard_name(index)}#{row}" if samples else None)
        for row, (name, samples) in enumerate(
            zip(table.column("audio").to_pylist(), table.column("num_samples").to_pylist(), strict=True)
        )
    ]
    return table.set_column(
        table.schema.get_field_index("audio"), MANIFEST_SCHEMA.field("audio"), pa.array(places, pa.string())
    )


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
        "was the folder changed by hand? flowtts verify --repair mends it",
    )


def read_manifest(storage: Storage, columns: Sequence[str] | None = None) -> pa.Table:
    return pq.read_table(io.BytesIO(storage.read(MANIFEST)), columns=list(columns) if columns else None)


def iter_manifest(storage: Storage, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of the manifest in the job's order, a group of them in memory at a time."""
    for batch in manifest_batches(storage, columns):
        yield from batch.to_pylist()


def manifest_batches(storage: Storage, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The same as Arrow, some thousand rows at a time."""
    with storage.open(MANIFEST) as file:
        yield from pq.ParquetFile(file).iter_batches(batch_size=8192, columns=list(columns))


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **_writing(table.column_names))
    return buffer.getvalue()


def _writing(names: Sequence[str]) -> dict[str, Any]:
    # FLAC does not compress further; text does. Checksums let a resume see a damaged page.
    compression = {name: "NONE" if name == "flac" else "ZSTD" for name in names}
    codecs = {
        f"words.list.element.{field.name}": "ZSTD" for field in SHARD_SCHEMA.field("words").type.value_type
    } | compression
    codecs |= {f"scores.list.element.{field.name}": "ZSTD" for field in SHARD_SCHEMA.field("scores").type.value_type}
    codecs |= {"dropped.list.element": "ZSTD", "notes.list.element": "ZSTD"}
    for nested in ("words", "scores", "dropped", "notes"):
        codecs.pop(nested, None)
    return {"compression": codecs, "write_page_checksum": True, "use_dictionary": False, "write_statistics": False}
