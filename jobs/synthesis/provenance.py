"""The provenance of a synthesis job, `provenance.json`: which voices, references, settings and mark made what, and checksums."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cluster.plan import StoredPlan
from cluster.storage import Storage
from flowtts_core.credentials import MADE, Statement, sign_file
from flowtts_core.request import REQUEST_FIELDS
from flowtts_core.signing import Signing
from jobs.synthesis import audiofolder
from jobs.synthesis.folder import PROVENANCE, ROW_FILES, SIGNATURE, job_id
from jobs.synthesis.manifest import MANIFEST, QUARANTINE, manifest_batches
from jobs.synthesis.summary import Summary

FORMAT = 1
_READERS = 4


@dataclass(frozen=True)
class Origin:
    """What rows have in common that were spoken by one voice from one reference: columns of the manifest.

    Attributes:
        in_book: they are sentences of the book `source`, which is empty where the job has one book alone.
    """

    source: str
    in_book: bool
    voice: str
    model: str
    licence: str
    prompt: str
    watermark: int | None


def origins_of(storage: Storage) -> list[Origin]:
    """Return the origins of the rows that were spoken, each once, in a fixed order."""
    columns = ["source", "voice", "model", "licence", "prompt", "watermark"]
    found: set[Origin] = set()
    for batch in manifest_batches(storage, [*columns, "chapter", "status"]):
        spoken = pa.Table.from_batches([batch]).filter(pc.equal(batch.column("status"), "ok"))
        spoken = spoken.append_column("in_book", pc.greater(spoken.column("chapter"), 0))
        for row in spoken.group_by([*columns, "in_book"]).aggregate([]).to_pylist():
            texts = {name: row[name] or "" for name in ("source", "voice", "model", "licence", "prompt")}
            found.add(Origin(**texts, in_book=row["in_book"], watermark=row["watermark"]))
    return sorted(found, key=lambda origin: tuple(map(str, astuple(origin))))


def book_statement(name: str, origins: Iterable[Origin], references: Iterable[dict[str, Any]]) -> Statement:
    """Return what a book's credentials say, by the name of one of its files: its voices, licences, and who agreed."""
    slug = name.split("/")[1] if name.startswith("books/") else ""
    own = [origin for origin in origins if origin.in_book and origin.source == slug]
    prompts = {origin.prompt for origin in own}
    consents = {told["consent"] for told in references if told.get("prompt") in prompts and told.get("consent")}
    voices = {origin.voice.rstrip("/").rpartition("/")[2] for origin in own}  # a folder's name, and not where it lies
    licences = {origin.licence for origin in own} - {""}
    return Statement(
        voice=", ".join(sorted(voices)), licence=", ".join(sorted(licences)), consent="; ".join(sorted(consents))
    )


def write_provenance(
    storage: Storage,
    stored: StoredPlan,
    job: dict[str, Any],
    summary: Summary,
    origins: Iterable[Origin],
    signing: Signing | None,
) -> None:
    """Write `provenance.json` of a job whose books and lists are all there; with its signature where `signing` is given."""
    lists = [name for name in summary.files if name == audiofolder.METADATA]
    made = [name for name in summary.files if not name.startswith(ROW_FILES)]
    told = {
        **_stated(stored, job, summary, origins),
        "signed_by": None if signing is None else signing.facts,
        "files": file_digests(storage, [*made, *lists, MANIFEST, QUARANTINE]),
    }
    data = json.dumps(told, indent=1, ensure_ascii=False).encode("utf-8", "replace")
    if signing is None:
        storage.delete(SIGNATURE)
    else:
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / PROVENANCE
            local.write_bytes(data)
            place = sign_file(local, local, signing.key, signing.chain)
            storage.write(SIGNATURE, place.read_bytes())
    storage.write(PROVENANCE, data)


def _stated(stored: StoredPlan, job: dict[str, Any], summary: Summary, origins: Iterable[Origin]) -> dict[str, Any]:
    settings = {name: value for name, value in job["settings"].items() if name != "watermark"}
    return {
        "format": FORMAT,
        "statement": "synthetic speech: no person said these words",
        "digital_source_type": MADE,
        "program": f"FlowTTS {job['program']}",
        "made": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "job": job_id(job),
        "kind": job["kind"],
        "title": summary.title,
        "texts": job["texts"],
        "rows": {"planned": summary.units, "spoken": summary.ok, "set_aside": summary.failed},
        "voices": stored.notes["voices"],
        "settings": {"seed": REQUEST_FIELDS["seed"].default, **settings},
        "reading": stored.notes.get("reading", {}),  # a plan of an earlier version has none
        "references": _references(stored, origins),
        "watermark": job["settings"].get("watermark"),
    }


def _references(stored: StoredPlan, origins: Iterable[Origin]) -> list[dict[str, Any]]:
    """Return what is known of each recording that was imitated; the plan tells more of the first thousand than the digest."""
    noted: list[dict[str, Any]] = stored.notes.get("references", [])
    missing = sorted({origin.prompt for origin in origins} - {told.get("prompt") for told in noted} - {""})
    consent = noted[0].get("consent") if noted else None  # of the whole job
    return [*noted, *({"prompt": digest, "consent": consent} for digest in missing)]


def file_digests(storage: Storage, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the bytes and the SHA-256 of each file that is there, by name."""
    names = sorted(set(names))
    with ThreadPoolExecutor(_READERS) as pool:
        found = zip(names, pool.map(lambda name: _digest(storage, name), names), strict=True)
        return {name: digest for name, digest in found if digest is not None}


def _digest(storage: Storage, name: str) -> dict[str, Any] | None:
    try:
        with storage.open(name) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
            return {"bytes": file.tell(), "sha256": digest}
    except (FileNotFoundError, IsADirectoryError):
        return None
