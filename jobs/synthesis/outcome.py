"""What a synthesis job leaves beside shards and books: lists of the corpus, report, dataset card; what they supersede goes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from cluster.plan import StoredPlan
from cluster.storage import Storage
from jobs.synthesis import audiofolder
from jobs.synthesis.careful import JOURNAL
from jobs.synthesis.commit import FOLDERS
from jobs.synthesis.dataset_card import CARD, CardFacts, VoiceFacts, render_card
from jobs.synthesis.folder import (
    DIGEST,
    METADATA,
    OUTPUTS,
    PROVENANCE,
    REPORT,
    ROW_FILES,
    SIGNATURE,
    SIZES,
    job_id,
    made_names,
    stray_shards,
)
from jobs.synthesis.manifest import iter_manifest, sha256, shard_name
from jobs.synthesis.report import render
from jobs.synthesis.summary import Summary
from jobs.synthesis.webdataset import TARS, split_place


def corpus_files(storage: Storage, stored: StoredPlan, form: str) -> list[str]:
    """Write `metadata.csv` in LJSpeech's form (name|text|text) beside the audio; returns what the corpus consists of."""
    if stored.notes["kind"] == "book":
        return []
    if form != "files":
        tars = [f"{TARS}/{name}" for name in storage.list(TARS)] if form == "webdataset" else []
        return [*tars, *(shard_name(shard.index) for shard in stored.shards)]
    columns = [field.name for field in audiofolder.SCHEMA]
    rows = iter_manifest(storage, [*columns, "status", "audio"])
    storage.write(audiofolder.METADATA, audiofolder.metadata_of(rows))
    lines, names = [], [audiofolder.METADATA]
    for row in iter_manifest(storage, ("chapter", "text", "audio", "status")):
        if _of_corpus(row):
            text = " ".join(row["text"].replace("|", " ").split())
            lines.append(f"{PurePosixPath(row['audio']).stem}|{text}|{text}\n")
            names.append(row["audio"])
    storage.write(METADATA, "".join(lines).encode())
    return [METADATA, *names]


def _of_corpus(row: dict[str, Any]) -> bool:
    """Whether a row of the manifest was spoken, and is of a table and not of a book."""
    return row["status"] == "ok" and not row["chapter"]


def publish(storage: Storage, stored: StoredPlan, summary: Summary, job: dict[str, Any], form: str) -> None:
    """Write report and dataset card, beside the provenance; what an earlier form of this job had is deleted then."""
    storage.write(REPORT, render(summary, job, storage, stored).encode("utf-8", "replace"))
    storage.write(CARD, render_card(_card_facts(storage, stored, summary, job, form)).encode("utf-8", "replace"))
    _delete_superseded(storage, stored, summary.files, form)
    made = [name for name in summary.files if not name.startswith(ROW_FILES)]
    lists = [name for name in summary.files if name == audiofolder.METADATA]
    sizes = storage.sizes([*made, *lists, REPORT, CARD, PROVENANCE, SIGNATURE])
    record = {"files": made, SIZES: sizes, DIGEST: sha256(storage.read(PROVENANCE))}
    storage.write(OUTPUTS, json.dumps(record, indent=1, ensure_ascii=False).encode())


def _delete_superseded(storage: Storage, stored: StoredPlan, files: Iterable[str], form: str) -> None:
    """Delete what this job made in another format, or of rows that are no more, now that the new files are there."""
    for name in stray_shards(storage, stored):
        storage.delete(name)
    storage.delete(JOURNAL)
    held = {folder: storage.list(folder) for folder in FOLDERS}
    if stored.notes["kind"] != "book" and any(held.values()):
        wanted = {split_place(row["audio"])[0] for row in iter_manifest(storage, ("audio",)) if row["audio"]}
        wanted |= {audiofolder.METADATA} if form == "files" else set()
        for folder, names in held.items():
            for name in names:
                if f"{folder}/{name}" not in wanted:
                    storage.delete(f"{folder}/{name}")
        for folder in FOLDERS:
            if not storage.list(folder):
                storage.delete(folder)
    for name in sorted(set(made_names(storage)) - set(files)):
        storage.delete(name)


def _card_facts(storage: Storage, stored: StoredPlan, summary: Summary, job: dict[str, Any], form: str) -> CardFacts:
    names = ("fingerprint", "licence", "source", "language")
    rows, seconds = summary.ok, summary.seconds
    if (
        stored.notes["kind"] != "book" and stored.notes["books"] and form != "parquet"
    ):  # sentences of books lie in the shards
        durations = [
            row["duration"] for row in iter_manifest(storage, ("chapter", "status", "duration")) if _of_corpus(row)
        ]
        rows, seconds = len(durations), sum(durations)
    voices = stored.notes["voices"].items()
    return CardFacts(
        title=summary.title,
        form=form if stored.notes["kind"] != "book" else "parquet",
        job=job_id(job),
        program=f"FlowTTS {job['program']}",
        voices=tuple(VoiceFacts(name, *(facts[n] for n in names)) for name, facts in voices),
        rows=rows,
        seconds=seconds,
        failed=summary.failed,
        reasons=summary.reasons,
        settings=job["settings"],
        texts=job["texts"],
        scores=summary.scores,
        unverified=summary.unverified,
        spoken_again=summary.spoken_again,
        signer=(summary.signed_by or {}).get("signer", ""),
    )
