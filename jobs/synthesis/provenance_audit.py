"""Prove that a job's provenance is what was written, that its checksums are right, and that it states what its rows came from."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from cluster.storage import Storage
from flowtts_core.credentials import Credentials, read_file
from flowtts_core.errors import DependencyError
from flowtts_core.signing import INSTALL
from jobs.synthesis.audit import Finding
from jobs.synthesis.folder import DIGEST, JOB, OUTPUTS, PROVENANCE, SIGNATURE, SIZES, SUMMARY, job_id, read_json
from jobs.synthesis.manifest import MANIFEST, QUARANTINE, sha256
from jobs.synthesis.provenance import FORMAT, file_digests, origins_of

NONE, UNCHECKED = "none", "not checked"  # of a signature, beside the statuses of `flowtts_core.credentials.Credentials`


@dataclass
class Attested:
    """What was found of a job's provenance: faults, the status of its signature, and a line for people."""

    findings: list[Finding] = field(default_factory=list)
    signature: str = NONE
    told: str = ""


def audit_provenance(storage: Storage, trusted: Path | None = None) -> Attested:
    """Look at the provenance of a job whose manifest is there.

    Args:
        trusted: certificates, PEM, by which signers are known.

    Raises:
        DependencyError: where `trusted` is given and the package that checks signatures is not installed.
    """
    if not storage.exists(PROVENANCE):
        return _absent(storage)
    data = storage.read(PROVENANCE)
    if (read_json(storage, OUTPUTS) or {}).get(DIGEST) != sha256(data):
        return _changed(storage, data, trusted)
    stated = _parsed(data)
    if stated is None:
        return Attested([Finding("damaged", PROVENANCE, "it is no record of ours")])
    findings: list[Finding] = []
    if stated.get("format") != FORMAT:
        what = f"its format {stated.get('format')!r} is not {FORMAT}, which this version reads"
        return Attested([Finding("wrong", PROVENANCE, what)])
    try:
        findings += [*_of_job(storage, stated), *_of_files(storage, stated), *_of_rows(storage, stated)]
    except (KeyError, TypeError, AttributeError):
        what = "it is no record of ours: something that it must state is missing, or of another form"
        findings.append(Finding("damaged", PROVENANCE, what))
    signature, told, faults = _signature(storage, data, stated.get("signed_by"), trusted)
    return Attested([*findings, *faults], signature, f"{PROVENANCE}: {told}")


def _changed(storage: Storage, data: bytes, trusted: Path | None) -> Attested:
    """Tell of a provenance that somebody changed; what it states is not looked at, since nobody wrote it so."""
    findings = [Finding("damaged", PROVENANCE, "changed since the job wrote it")]
    if not storage.exists(SIGNATURE):
        return Attested(findings)
    found = _credentials(storage, data, trusted)
    return Attested(findings, UNCHECKED) if found is None else Attested([*findings, *_faults(found)], found.status)


def _absent(storage: Storage) -> Attested:
    """Tell a job of before there was a provenance from one that did not come so far, or has lost it."""
    if PROVENANCE in ((read_json(storage, OUTPUTS) or {}).get(SIZES) or {}):
        return Attested()  # whoever looks at all that was written tells that it is missing
    if storage.exists(SUMMARY):
        return Attested(
            told=f"no {PROVENANCE}: the job was finished before there was one; the same command again writes it"
        )
    return Attested([Finding("missing", PROVENANCE, "the job has not been finished")])


def _parsed(data: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(data)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _of_job(storage: Storage, stated: dict[str, Any]) -> Iterator[Finding]:
    job = read_json(storage, JOB) or {}
    if stated["job"] != job_id(job):
        yield Finding("wrong", PROVENANCE, "it is of another job")
    if stated["watermark"] != (job.get("settings") or {}).get("watermark"):
        yield Finding("wrong", PROVENANCE, "it states another watermark than the job's")


def _of_files(storage: Storage, stated: dict[str, Any]) -> Iterator[Finding]:
    """Whether the files that it names have its checksums, and whether it names all that the job made."""
    files: dict[str, Any] = stated["files"]
    outside = [name for name in files if not _inside(name)]
    yield from (Finding("wrong", PROVENANCE, f"it names {name}, outside the job's folder") for name in outside)
    found = file_digests(storage, files.keys() - set(outside))
    for name, digest in files.items():
        if name in outside:
            continue
        if name not in found:
            yield Finding("missing", name, f"{PROVENANCE} has its checksum")
        elif found[name] != digest:
            yield Finding("damaged", name, f"it has not the checksum that {PROVENANCE} states")
    made = [name for name in (read_json(storage, OUTPUTS) or {}).get("files") or [] if isinstance(name, str)]
    for name in sorted({*made, MANIFEST, QUARANTINE} - files.keys()):
        yield Finding("wrong", PROVENANCE, f"it has no checksum of {name}")


def _inside(name: str) -> bool:
    return bool(PurePosixPath(name).parts) and not {"/", ".."} & set(PurePosixPath(name).parts)


def _of_rows(storage: Storage, stated: dict[str, Any]) -> Iterator[Finding]:
    """Whether it states the voice, the reference and the watermark of each row that was spoken."""
    voices, number = stated["voices"], (stated["watermark"] or {}).get("number")
    prompts = {told.get("prompt") for told in stated["references"]}
    told: set[str] = set()
    for origin in origins_of(storage):
        if (voices.get(origin.voice) or {}).get("fingerprint") != origin.model:
            told.add(f"rows are by voice {origin.voice} (model {origin.model}), which it does not state")
        if origin.prompt and origin.prompt not in prompts:
            told.add(f"rows imitate the recording {origin.prompt}, which it does not state")
        if origin.watermark != number:
            told.add(f"rows have the watermark {origin.watermark}, and it states {number}")
    yield from (Finding("wrong", PROVENANCE, what) for what in sorted(told))


def _signature(
    storage: Storage, data: bytes, signed_by: dict[str, Any] | None, trusted: Path | None
) -> tuple[str, str, list[Finding]]:
    """Return the status of the signature, what to tell of it, and what is wrong with it."""
    there, signer = storage.exists(SIGNATURE), (signed_by or {}).get("signer", "")
    if not there:
        lost = [Finding("missing", SIGNATURE, f"{PROVENANCE} says that {signer} signed it")] if signed_by else []
        return NONE, "not signed", lost
    if not signed_by:
        return NONE, "not signed", [Finding("orphan", SIGNATURE, f"{PROVENANCE} says that nobody signed it")]
    found = _credentials(storage, data, trusted)
    if found is None:
        return UNCHECKED, f"signed by {signer}, as it says; to check that: {INSTALL}", []
    faults = _faults(found)
    if not faults and found.signer != signer:
        faults.append(Finding("wrong", SIGNATURE, f"it is by {found.signer}, and {PROVENANCE} says by {signer}"))
    why = " (by a certificate that is not known here: warning only)" if found.status == "untrusted" else ""
    return found.status, f"signed by {found.signer or signer}: {found.status}{why}", faults


def _credentials(storage: Storage, data: bytes, trusted: Path | None) -> Credentials | None:
    """Return what was read of the signature; None where the package that checks it is not installed, and nobody asks."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / PROVENANCE).write_bytes(data)
        (Path(folder) / SIGNATURE).write_bytes(storage.read(SIGNATURE))
        try:
            return read_file(Path(folder) / PROVENANCE, trusted)
        except DependencyError:
            if trusted is not None:
                raise
            return None


def _faults(found: Credentials) -> list[Finding]:
    """Return what is wrong with the signature itself, or with it and the record together."""
    if found.status in ("valid", "untrusted"):
        return []
    if found.changed:
        what = f"the signature does not fit {PROVENANCE}: it was changed after it was signed"
        return [Finding("wrong", SIGNATURE, what)]
    return [Finding("damaged", SIGNATURE, f"the signature is damaged ({', '.join(found.faults)})")]
