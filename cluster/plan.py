"""The stored plan of a job: its rows, cut into shards of rows that are alike in length, and which of them are not done yet.

A plan lies in the output as Parquet parts (`plan/RUN/00000.parquet`), a row group for each shard, and `plan.json`, written last.
So workers read their rows from there, the driver holds none, and a resumed job need not read its inputs again.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.storage import Storage

PLAN, PLANS = "plan.json", "plan"
FIRST_ROWS = 2048  # of the first part, whose shards are small: a small job spreads over its workers and commits often
PART_ROWS = 16384
BOOK_WINDOW = 2048  # rows of books that are sorted by length together: a book's audio should lie in few shards
SHARD_UNITS, SHARD_CHARACTERS = 48, 6000  # about five minutes of speech: a killed job loses seconds of work per worker
LARGE_UNITS, LARGE_CHARACTERS = 4096, 32_000  # past the first part; each shard costs Ray and the store some 50 ms
_READERS = 16  # footers are read at once: an object store answers each in tens of ms


@dataclass(frozen=True)
class Rows:
    """What a plan's rows are: their columns, and which of them decide how rows are cut into shards.

    Attributes:
        schema: has "order" (place in the job, from 0) first, "id", "fingerprint" (of all that the row's result depends on).
        sized_by: a text column: its length is a row's size.
        shared: columns whose values the rows of a shard have in common.
        windowed: rows whose value here is not 0 lie in few shards together with their neighbours.
    """

    schema: pa.Schema
    sized_by: str
    shared: tuple[str, ...] = ()
    windowed: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """Those that `PlanWriter.add` takes."""
        return tuple(self.schema.names[1:])


@dataclass(frozen=True)
class DoneRow:
    """Where a row that is done already lies: `row` of `shard`, and the digest of that whole shard."""

    fingerprint: str
    shard: int
    row: int
    digest: str


@dataclass(frozen=True)
class Shard:
    """A shard of the plan: rows that are committed together.

    Attributes:
        index: of its file.
        part, group: where its rows lie in the plan.
        digest: of the ids and fingerprints of its rows, in order; the committed file bears it.
        select: which rows of a larger, older file these are; None: the file holds just these.
        older: that file's digest.
    """

    index: int
    part: int
    group: int
    rows: int
    characters: int
    digest: str
    select: tuple[int, ...] | None = None
    older: str = ""


@dataclass(frozen=True)
class StoredPlan:
    """What `plan.json` says. `notes` are the job's own: JSON values that cluster code does not look at."""

    folder: str
    units: int
    texts: str
    shards: tuple[Shard, ...]
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def parts(self) -> int:
        return self.shards[-1].part + 1 if self.shards else 0

    def part_shards(self, part: int) -> list[Shard]:
        return [shard for shard in self.shards if shard.part == part]

    def read_part(self, storage: Storage, part: int, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of all shards of a part, one shard after the other."""
        with storage.open(part_name(self.folder, part)) as file:
            return pq.ParquetFile(file).read(columns=list(columns) if columns else None)

    def pending(
        self, storage: Storage, footer: Callable[[Storage, int], str | None], there: Iterable[int]
    ) -> list[Shard]:
        """The shards that are not committed whole.

        Args:
            footer: the digest that a shard's file bears, None where it is cut off.
            there: numbers of the files that exist.
        """
        names = set(there)
        candidates = [shard for shard in self.shards if shard.index in names]
        with ThreadPoolExecutor(_READERS) as pool:
            digests = pool.map(lambda shard: footer(storage, shard.index), candidates)
            found = dict(zip((shard.index for shard in candidates), digests, strict=True))
        return [shard for shard in self.shards if found.get(shard.index, "") not in _good(shard)]

    def with_older_rows_replaced(self, digests: Mapping[int, str | None]) -> StoredPlan:
        """The plan where a file that held older rows too was made anew with this plan's rows alone."""
        shards = tuple(
            Shard(s.index, s.part, s.group, s.rows, s.characters, s.digest) if digests.get(s.index) == s.digest else s
            for s in self.shards
        )
        return StoredPlan(self.folder, self.units, self.texts, shards, self.notes)


def _good(shard: Shard) -> set[str]:
    return {shard.digest, shard.older} if shard.select is not None else {shard.digest}


class PlanWriter:
    """Cuts rows into shards as they come and stores them; `close` makes the plan valid.

    Args:
        folder: of the parts, new for each plan.
        rows: what they are.
        kept: by id, rows that are done already; those whose fingerprint is the same stay where they are.
        first_index: of the first new shard's file.
    """

    def __init__(
        self, storage: Storage, folder: str, rows: Rows, kept: Mapping[str, DoneRow] | None = None, first_index: int = 0
    ) -> None:
        self._storage, self._folder, self._kept, self._next = storage, folder, kept or {}, first_index
        self._kind = rows
        self._rows: list[tuple[Any, ...]] = []
        self._columns: dict[str, Sequence[Any]] = {}
        self._units = self._parts = 0
        self._limit = FIRST_ROWS
        self._digest = hashlib.blake2b(digest_size=8)
        self._shards: list[Shard] = []

    def add(self, values: tuple[Any, ...]) -> None:
        """A row: the values of `Rows.columns`."""
        self._rows.append(values)
        if len(self._rows) >= self._limit:
            self._flush()

    def close(self, notes: dict[str, Any]) -> StoredPlan:
        """Store what is left; the plan itself is for `store` to write, once the caller knows that it wants it."""
        if self._rows:
            self._flush()
        return StoredPlan(self._folder, self._units, self._digest.hexdigest(), tuple(self._shards), notes)

    def _flush(self) -> None:
        columns = self._columns = dict(zip(self._kind.columns, zip(*self._rows, strict=True), strict=True))
        count, first = len(self._rows), not self._parts
        order = range(self._units, self._units + count)
        table = pa.table({"order": pa.array(order, pa.int64()), **columns}, schema=self._kind.schema)
        for batch in table.drop(["order"]).to_batches():
            self._digest.update(batch.serialize())
        sizes = (SHARD_UNITS, SHARD_CHARACTERS) if first else (LARGE_UNITS, LARGE_CHARACTERS)
        window = BOOK_WINDOW if self._kind.windowed and any(columns[self._kind.windowed]) else count
        groups: list[list[int]] = []
        old: dict[tuple[int, str], list[tuple[int, int]]] = {}  # shard and its digest: rows here and rows there
        for start in range(0, count, window):
            fresh = []
            for i in range(start, min(start + window, count)):
                kept = self._kept.get(columns["id"][i])
                if kept is not None and kept.fingerprint == columns["fingerprint"][i]:
                    old.setdefault((kept.shard, kept.digest), []).append((i, kept.row))
                else:
                    fresh.append(i)
            groups.extend(self._cut(fresh, *sizes))
        for group in groups:
            self._note(self._next, group)
            self._next += 1
        for (index, digest), pairs in old.items():
            self._note(index, [here for here, _ in pairs], tuple(there for _, there in pairs), digest)
            groups.append([here for here, _ in pairs])
        self._write(table, groups)
        self._units += count
        self._parts += 1
        self._limit = PART_ROWS
        self._rows.clear()

    def _note(self, index: int, rows: list[int], select: tuple[int, ...] | None = None, older: str = "") -> None:
        ids, prints, texts = (self._columns[name] for name in ("id", "fingerprint", self._kind.sized_by))
        digest = shard_digest((ids[i] for i in rows), (prints[i] for i in rows))
        last = self._shards[-1] if self._shards else None
        group = last.group + 1 if last is not None and last.part == self._parts else 0
        characters = sum(len(texts[i]) for i in rows)
        self._shards.append(Shard(index, self._parts, group, len(rows), characters, digest, select, older))

    def _cut(self, rows: list[int], most: int, characters: int) -> Iterator[list[int]]:
        """Rows with the same shared values and alike in length, long ones first, in groups of so many rows and characters."""
        texts = self._columns[self._kind.sized_by]
        shared = [values for name in self._kind.shared if any(values := self._columns[name])]
        keys = (
            [tuple((v is not None, repr(v)) for v in values) for values in zip(*shared, strict=True)] if shared else []
        )
        rows.sort(key=(lambda i: (keys[i], -len(texts[i]))) if keys else (lambda i: -len(texts[i])))
        group: list[int] = []
        size = 0
        for i in rows:
            length = len(texts[i])
            if group and (len(group) >= most or size + length > characters):
                yield group
                group, size = [], 0
            group.append(i)
            size += length
        if group:
            yield group

    def _write(self, table: pa.Table, groups: Sequence[Sequence[int]]) -> None:
        buffer = io.BytesIO()
        with pq.ParquetWriter(buffer, self._kind.schema, compression="zstd") as writer:
            for group in groups:
                writer.write_table(table.take(pa.array(group, pa.int64())), row_group_size=max(1, len(group)))
        self._storage.write(part_name(self._folder, self._parts), buffer.getvalue())


def part_name(folder: str, part: int) -> str:
    return f"{folder}/{part:05d}.parquet"


def part_span(part: int) -> tuple[int, int]:
    """Places in the job's order of a part's rows: from, and up to where another part would begin."""
    first = 0 if part == 0 else FIRST_ROWS + (part - 1) * PART_ROWS
    return first, first + (PART_ROWS if part else FIRST_ROWS)


def read_group(storage: Storage, folder: str, part: int, group: int) -> pa.Table:
    """The rows of a shard, in the order in which its file has them."""
    with storage.open(part_name(folder, part)) as file:
        return pq.ParquetFile(file).read_row_group(group)


def shard_digest(ids: Iterable[str], fingerprints: Iterable[str]) -> str:
    """Changes with a shard's rows, their order and all that their sound depends on."""
    digest = hashlib.blake2b(digest_size=12)
    digest.update("\n".join(f"{id} {fp}" for id, fp in zip(ids, fingerprints, strict=True)).encode("utf-8", "replace"))
    return digest.hexdigest()


def store(storage: Storage, plan: StoredPlan) -> None:
    """Make it the output's plan; parts of other plans go."""
    shards = [
        [s.index, s.part, s.rows, s.characters, s.digest, *([list(s.select), s.older] if s.select is not None else [])]
        for s in plan.shards
    ]
    record = {"folder": plan.folder, "units": plan.units, "texts": plan.texts, "notes": plan.notes, "shards": shards}
    storage.write(PLAN, json.dumps(record, ensure_ascii=False).encode("utf-8", "replace"))
    drop_others(storage, plan.folder)


def drop_others(storage: Storage, folder: str) -> None:
    """Delete the parts of all plans but one."""
    for name in storage.list(PLANS):
        if f"{PLANS}/{name}" != folder:
            storage.delete(f"{PLANS}/{name}")


def load(storage: Storage) -> StoredPlan | None:
    """The output's plan; None where there is none that can be read."""
    try:
        record = json.loads(storage.read(PLAN))
        shards, groups = [], dict[int, int]()
        for index, part, rows, characters, digest, *older in record["shards"]:
            select = tuple(older[0]) if older else None
            group = groups.setdefault(part, 0)
            groups[part] += 1
            shards.append(Shard(index, part, group, rows, characters, digest, select, older[1] if older else ""))
        return StoredPlan(record["folder"], record["units"], record["texts"], tuple(shards), record["notes"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, IndexError):
        return None
