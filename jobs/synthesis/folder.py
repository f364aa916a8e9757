"""What lies in the folder of a synthesis job: its records, what of it is ours, what another run left, and what may be deleted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from cluster import plan as plans
from cluster.plan import StoredPlan
from cluster.storage import Storage
from flowtts_core.config import fingerprint
from flowtts_core.errors import OutputError
from jobs.synthesis.audiobook import CHAPTERS
from jobs.synthesis.books import BOOKS
from jobs.synthesis.careful import JOURNAL
from jobs.synthesis.commit import FOLDERS
from jobs.synthesis.dataset_card import CARD
from jobs.synthesis.manifest import MANIFEST, QUARANTINE, SHARDS, shard_digest_of, shard_indexes, shard_name
from jobs.synthesis.plan import FORMAT
from jobs.synthesis.progress import RECORD

JOB = "job.json"
SUMMARY = "summary.json"
OUTPUTS = (
    "outputs.json"  # names of the books' files, written before the files are; of a finished job also `SIZES`, `DIGEST`
)
SIZES = "sizes"  # bytes of all files but records, shards and the sound of rows
DIGEST = "provenance"  # the SHA-256 of `PROVENANCE`, which has those of the rest
METADATA = "metadata.csv"
REPORT = "report.html"
PROVENANCE = "provenance.json"
SIGNATURE = f"{PROVENANCE}.c2pa"

ROW_FILES = tuple(f"{folder}/" for folder in (SHARDS, *FOLDERS))


def stored_job(storage: Storage) -> StoredPlan:
    """The plan of the job in a folder; raises OutputError where there is none."""
    stored = plans.load(storage)
    if stored is None:
        raise OutputError(
            f"{storage.root}: no job of ours", "give the -o of a `flowtts synthesize` or `flowtts corpus`"
        )
    return stored


def require_format(storage: Storage, job: dict[str, Any]) -> None:
    """Raise OutputError for the job of an earlier version, which cut texts and drew noise otherwise."""
    if remedy := older_remedy(job):
        program = job.get("program")
        raise OutputError(
            f"{storage.root}: a job of FlowTTS {program}, of which the rest would sound otherwise now", remedy
        )


def older_remedy(job: dict[str, Any]) -> str:
    """Return what to do with the job of an earlier version; empty for one of this version."""
    if job.get("format") == FORMAT:
        return ""
    return (
        f"end it with FlowTTS {job.get('program')}; or speak it anew here, with --update or --overwrite, or elsewhere "
        "with another -o"
    )


def job_id(job: dict[str, Any]) -> str:
    """Names the job in its rows; the same for each run of it."""
    return fingerprint(job, 16)


def suffix_of(rows: str, stored: StoredPlan) -> str:
    """What the digest of a shard ends in: with another kind of rows its audio lies elsewhere."""
    return f"-{rows}" if rows != "parquet" and stored.notes["kind"] != "book" else ""


def digest_suffix(stored: StoredPlan) -> str:
    """What the digests of a stored job's shards end in."""
    return suffix_of(stored.notes["again"]["rows"], stored)


def bare_digest(suffix: str, storage: Storage, index: int) -> str | None:
    """The digest that a shard bears, empty where it is of another kind of rows."""
    found = shard_digest_of(storage, index)
    if found is None:
        return None
    digest, dash, kind = found.partition("-")
    return digest if f"{dash}{kind}" == suffix else ""


def stray_shards(storage: Storage, stored: StoredPlan) -> Iterator[str]:
    planned = {shard.index for shard in stored.shards}
    for index in shard_indexes(storage):
        if index not in planned:
            yield shard_name(index)


def require_ours(storage: Storage) -> None:
    """Raise OutputError when the folder holds files but no job of ours."""
    foreign = [
        name for name in storage.list() if not name.startswith(".") and name not in (plans.PLANS, plans.PLAN, RECORD)
    ]
    if foreign:
        raise OutputError(
            f"{storage.root} is not empty and not ours ({', '.join(foreign[:3])}, ...)", "choose another folder with -o"
        )


def clear(storage: Storage, but: str = "") -> None:
    """Delete what a job of ours made, and nothing else (`but` keeps one plan's folder): the job's record goes last."""
    folders = (SHARDS, CHAPTERS, BOOKS, *FOLDERS, JOURNAL)
    plans.drop_others(storage, but)
    records = (MANIFEST, QUARANTINE, METADATA, REPORT, CARD, SUMMARY, PROVENANCE, SIGNATURE)
    for name in [*made_names(storage), *folders, *records, OUTPUTS, RECORD, plans.PLAN, JOB]:
        storage.delete(name)


def made_names(storage: Storage) -> list[str]:
    """The files that a job of ours made or was about to make here; a name that leads out of the folder is none of ours."""
    noted = [(read_json(storage, record) or {}).get("files") for record in (OUTPUTS, SUMMARY)]
    names = {name for files in noted if isinstance(files, list) for name in files if isinstance(name, str)}
    return sorted(
        name
        for name in names
        if (path := PurePosixPath(name)).parts and not {"/", ".."} & set(path.parts) and not name.startswith(ROW_FILES)
    )


def read_json(storage: Storage, name: str) -> dict[str, Any] | None:
    """A record of ours; None where it is absent or not readable as such."""
    if not storage.exists(name):
        return None
    try:
        value = json.loads(storage.read(name))
    except ValueError:
        return {"unreadable": True}
    return value if isinstance(value, dict) else {"unreadable": True}
