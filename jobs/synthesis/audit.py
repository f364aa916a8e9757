"""Proves that a job's output is whole: every planned row accounted for once, every sound as its digest says, no file too many."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.plan import PLANS, Shard, StoredPlan
from cluster.storage import LOCK, PARTIAL, Storage
from flowtts_core.errors import OutputError
from jobs.synthesis.manifest import (
    MANIFEST,
    QUARANTINE,
    SHARDS,
    part_rows,
    read_shard,
    sha256,
    shard_indexes,
    shard_name,
)

_READERS = 4
_COMPARED = ("id", "audio", "sha256", "num_samples", "status", "reason", "fingerprint")


@dataclass(frozen=True)
class Finding:
    """A fault in the output: its kind, its file, and details; `shard` is the one that must be made again, if any."""

    kind: str  # "missing", "damaged", "wrong", "orphan"
    name: str
    what: str
    shard: int | None = None


@dataclass
class Audit:
    """What was looked at, and what was found; `signature` is the provenance's status, and `provenance` tells of it."""

    planned: int = 0
    ok: int = 0
    set_aside: int = 0
    bytes: int = 0
    sounds: int = 0
    findings: list[Finding] = field(default_factory=list)
    signature: str = "none"
    provenance: str = ""

    @property
    def whole(self) -> bool:
        return not self.findings

    @property
    def counts(self) -> dict[str, int]:
        return dict(Counter(finding.kind for finding in self.findings))


def audit(
    storage: Storage,
    plan: StoredPlan,
    suffix: str,
    folders: Collection[str],
    reader: Callable[[Storage], Callable[[str], bytes]],
    told: Callable[[int, int], None] = lambda done, rows: None,
    outputs: Mapping[str, int] | None = None,
) -> Audit:
    """Look at everything that a job has written.

    Args:
        suffix: what the digests of its shards end in.
        folders: of files with audio outside the shards.
        reader: makes what reads the audio at a place outside the shards; raises OSError where it is not.
        told: is called with the rows looked at so far, and all.
        outputs: what else the job left, and how many bytes it wrote of each.
    """
    found = Audit(planned=plan.units)
    there = set(shard_indexes(storage))
    with ThreadPoolExecutor(_READERS) as pool:
        seen = 0
        for shard, problems, counts in pool.map(
            lambda s: _of_shard(storage, s, suffix, s.index in there, reader), plan.shards
        ):
            found.findings += problems
            found.ok, found.set_aside = found.ok + counts[0], found.set_aside + counts[1]
            found.sounds, found.bytes = found.sounds + counts[2], found.bytes + counts[3]
            seen += shard.rows
            told(seen, plan.units)
    found.findings += _of_ids(storage, plan)
    if not found.findings:  # else there is no telling what the manifest should say
        found.findings += _of_manifest(storage, plan)
    found.findings += _of_outputs(storage, outputs or {})
    found.findings += _orphans(storage, plan, folders)
    return found


def _of_shard(
    storage: Storage, shard: Shard, suffix: str, exists: bool, reader: Callable[[Storage], Callable[[str], bytes]]
) -> tuple[Shard, list[Finding], tuple[int, int, int, int]]:
    name, nothing = shard_name(shard.index), (0, 0, 0, 0)
    if not exists:
        return shard, [Finding("missing", name, f"{shard.rows} rows were not spoken", shard.index)], nothing
    try:
        table = read_shard(storage, shard.index)
    except (pa.ArrowException, OSError, EOFError, ValueError) as error:
        return shard, [Finding("damaged", name, str(error).splitlines()[0], shard.index)], nothing
    bears = (table.schema.metadata or {}).get(b"plan", b"").decode()
    if bears not in {shard.digest + suffix, shard.older + suffix} - {suffix} or not {*_COMPARED, "flac"} <= {
        *table.schema.names
    }:
        return shard, [Finding("wrong", name, "its rows are not those of the plan", shard.index)], nothing
    if shard.select is not None and bears == shard.older + suffix:
        table = table.take(pa.array(shard.select, pa.int64()))
    problems, sounds, size, read = [], 0, 0, reader(storage)
    for at, row in enumerate(table.select(["id", "audio", "sha256", "num_samples"]).to_pylist()):
        if not row["num_samples"]:
            continue
        data = table.column("flac")[at].as_py()
        if data is None:
            data = _outside(read, row["audio"])
        if data is None:
            problems.append(Finding("missing", str(row["audio"]), f"the audio of {row['id']}", shard.index))
        elif sha256(data) != row["sha256"]:
            problems.append(
                Finding("damaged", row["audio"] or name, f"not the audio that was made of {row['id']}", shard.index)
            )
        sounds, size = sounds + 1, size + len(data or b"")
    ok = table.column("status").to_pylist().count("ok")
    return shard, problems, (ok, len(table) - ok, sounds, size)


def _outside(read: Callable[[str], bytes], place: str | None) -> bytes | None:
    try:
        return read(place) if place else None
    except OSError:
        return None


def _of_ids(storage: Storage, plan: StoredPlan) -> Iterator[Finding]:
    """Ids that the plan itself has twice: then no manifest could list each once."""
    seen: Counter[str] = Counter()
    for part in range(plan.parts):
        seen.update(plan.read_part(storage, part, ("id",)).column("id").to_pylist())
    for id, count in seen.most_common(20):
        if count > 1:
            yield Finding("wrong", PLANS, f"the id {id} stands {count} times in the plan")


def _of_manifest(storage: Storage, plan: StoredPlan) -> Iterator[Finding]:
    """Whether the manifest and the quarantine say what the shards say, row by row."""
    try:
        with storage.open(MANIFEST) as file:
            table = pq.ParquetFile(file, page_checksum_verification=True).read(columns=[*_COMPARED, "verified"])
    except FileNotFoundError:
        yield Finding("missing", MANIFEST, "the job has not been finished")
        return
    except (pa.ArrowException, OSError, ValueError) as error:
        yield Finding("damaged", MANIFEST, str(error).splitlines()[0])
        return
    if len(table) != plan.units:
        yield Finding("wrong", MANIFEST, f"it has {len(table)} rows, and {plan.units} were planned")
        return
    start = 0
    for part in range(plan.parts):
        try:
            rows = part_rows(storage, plan, part).select(list(_COMPARED))
        except OutputError as error:
            yield Finding("wrong", MANIFEST, error.message)
            return
        if not table.slice(start, len(rows)).select(list(_COMPARED)).equals(rows):
            yield Finding("wrong", MANIFEST, f"rows {start} to {start + len(rows)} are not those of the shards")
        start += len(rows)
    verified, ids = table.column("verified").to_pylist(), table.column("id").to_pylist()
    aside = {
        i for i, s, v in zip(ids, table.column("status").to_pylist(), verified, strict=True) if s != "ok" or v is False
    }
    yield from _of_quarantine(storage, aside)


def _of_quarantine(storage: Storage, aside: set[str]) -> Iterator[Finding]:
    try:
        listed = [json.loads(line)["id"] for line in storage.read(QUARANTINE).decode("utf-8", "replace").splitlines()]
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        yield Finding("damaged", QUARANTINE, f"{type(error).__name__}: {error}")
        return
    if sorted(listed) != sorted(aside):
        yield Finding("wrong", QUARANTINE, f"it lists {len(listed)} rows, and {len(aside)} were set aside")


def _of_outputs(storage: Storage, outputs: Mapping[str, int]) -> Iterator[Finding]:
    there = storage.sizes(outputs)
    for name, written in outputs.items():
        if name not in there:
            yield Finding("missing", name, "the job had written it")
        elif there[name] != written:
            yield Finding("damaged", name, f"{there[name]:,} bytes, and {written:,} were written")


def _orphans(storage: Storage, plan: StoredPlan, folders: Collection[str]) -> Iterator[Finding]:
    planned = {shard_name(shard.index) for shard in plan.shards}
    for name in storage.list(SHARDS):
        if f"{SHARDS}/{name}" not in planned:
            yield Finding("orphan", f"{SHARDS}/{name}", "a shard that the plan does not have")
    for name in storage.list(PLANS):
        if f"{PLANS}/{name}" != plan.folder:
            yield Finding("orphan", f"{PLANS}/{name}", "parts of another plan")
    for name in storage.list():
        if name.startswith(PARTIAL) and name != LOCK:
            yield Finding("orphan", name, "left by a write that was cut short")
    listed = {folder: storage.list(folder) for folder in folders}
    if not any(listed.values()):
        return
    wanted: set[str] = set()
    for shard in plan.shards:
        try:
            places = read_shard(storage, shard.index, ("audio",)).column("audio").to_pylist()
            wanted.update(place.partition("#")[0] for place in places if place)
        except (pa.ArrowException, OSError, EOFError, ValueError):
            continue  # told above
    for folder, names in listed.items():
        for name in names:
            if f"{folder}/{name}" not in wanted and not name.startswith("metadata."):
                yield Finding("orphan", f"{folder}/{name}", "audio that no row has")
