"""The summary of a synthesis job, `summary.json`: counts, length, failures, scores."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from cluster import machine
from cluster.plan import StoredPlan
from cluster.session import default_workers
from cluster.storage import Storage
from flowtts_core.config import fingerprint
from jobs.synthesis.books import Assembled
from jobs.synthesis.folder import PROVENANCE, REPORT, ROW_FILES, SUMMARY, read_json
from jobs.synthesis.manifest import MANIFEST, QUARANTINE, Totals
from jobs.synthesis.omissions import told

EXIT_QUARANTINED = 3


@dataclass(frozen=True)
class Summary:
    """What a job did; `files` are relative to `output`, the book first. `rtf` is computing time per second of audio.

    `in_part` counts rows of whose text something was not spoken (column `dropped` of the manifest); `dropped` tells what, and in
    how many rows. `unverified` utterances fell short of the gate in all takes (set aside in a corpus, kept in a book); of
    `spoken_again` a later take was kept; `scores` are means of what the gate measured, over the utterances that are kept.
    `references` tells of the recordings that were imitated where they come from; of `prompts` utterances that imitate one, the
    features of `prompts_made` were made, and those of the others kept from before. `watermark` tells what the speech is marked
    with, and `signed_by` by whose certificate books and provenance are signed; None where it is not.
    """

    output: str
    kind: str
    title: str
    units: int
    ok: int
    failed: int
    reasons: dict[str, int]
    seconds: float
    compute_s: float
    unverified: int
    spoken_again: int
    scores: dict[str, float]
    wall_s: float
    shards: int
    shards_resumed: int
    files: tuple[str, ...]
    books: int = 0
    judging_s: float = 0.0
    in_part: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    padding: float = 0.0
    prompts: int = 0
    prompts_made: int = 0
    timings: dict[str, float] = field(default_factory=dict)
    loudness_lufs: float | None = None
    notes: tuple[str, ...] = ()
    references: list[dict[str, Any]] = field(default_factory=list)
    made_by: dict[str, Any] = field(default_factory=dict)
    watermark: dict[str, Any] | None = None
    signed_by: dict[str, str] | None = None

    @property
    def marked(self) -> str:
        """Return for people whether the speech says that it is synthetic, and who signed that."""
        mark = self.watermark
        key = f", by the key {mark['key']}" if mark and "key" in mark else ""
        marked = f"watermark: number {mark['number']}{key}" if mark else "no watermark"
        return f"{marked}; " + (f"signed by {self.signed_by['signer']}" if self.signed_by else "not signed")

    @property
    def most_dropped(self) -> str:
        """Return what was not spoken most often, for people; empty where nothing was dropped."""
        shown = [f"{what} ({count} times)" if count > 1 else what for what, count in list(self.dropped.items())[:5]]
        return ", ".join([*shown, "..."] if len(self.dropped) > 5 else shown)

    @property
    def rtf(self) -> float:
        return self.compute_s / self.seconds if self.seconds else 0.0

    @property
    def exit_code(self) -> int:
        return EXIT_QUARANTINED if self.failed or self.unverified else 0


def finished_summary(storage: Storage, job: dict[str, Any], outputs: Sequence[str]) -> Summary | None:
    """The summary of a job that needs nothing more: the same job and outputs, and all its files are there."""
    record = read_json(storage, SUMMARY) or {}
    if record.get("job") != fingerprint(job) or record.get("outputs") != list(outputs):
        return None
    values = {key: value for key, value in record.items() if key not in ("job", "outputs")}
    try:
        summary = Summary(**{**values, "files": tuple(values["files"]), "notes": tuple(values["notes"])})
    except (TypeError, KeyError):  # another version's fields, or a changed file: it is written again
        return None
    names = [name for name in summary.files if not name.startswith(ROW_FILES)]  # these were looked at with their shards
    whole = all(storage.exists(name) for name in [*names, MANIFEST, QUARANTINE, REPORT, PROVENANCE])
    return summary if whole else None


def write_summary(storage: Storage, summary: Summary, job: dict[str, Any], outputs: Sequence[str]) -> None:
    """Write the summary, by which `finished_summary` knows the job."""
    record = {**asdict(summary), "job": fingerprint(job), "outputs": list(outputs)}
    storage.write(SUMMARY, json.dumps(record, indent=1, ensure_ascii=False).encode("utf-8", "replace"))


def summarise(
    stored: StoredPlan,
    storage: Storage,
    totals: Totals,
    books: list[Assembled],
    files: list[str],
    resumed: int,
    wall_s: float,
    timings: dict[str, float],
    watermark: dict[str, Any] | None = None,
    signed_by: dict[str, str] | None = None,
    told_too: Sequence[str] = (),
) -> Summary:
    """The summary of shards and books as they are now; `told_too` are more notes."""
    part = [f"a part alone: {told_of}"] if (told_of := stored.notes.get("part")) else []
    notes = [note for book in stored.notes["books"] for note in _notes(book, stored.notes["kind"] == "book")]
    return Summary(
        output=storage.root,
        kind=stored.notes["kind"],
        title=books[0].title if stored.notes["kind"] == "book" and books else stored.notes["title"],
        units=totals.planned,
        ok=totals.ok,
        failed=totals.failed,
        reasons=totals.reasons,
        seconds=books[0].seconds if stored.notes["kind"] == "book" and books else totals.seconds,
        compute_s=totals.compute_s,
        unverified=totals.unverified,
        spoken_again=totals.spoken_again,
        scores=totals.scores,
        wall_s=wall_s,
        shards=len(stored.shards),
        shards_resumed=resumed,
        files=tuple(files),
        books=len(books),
        judging_s=totals.judging_s,
        in_part=totals.in_part,
        dropped=totals.dropped,
        padding=totals.padding,
        prompts=totals.prompts,
        prompts_made=totals.prompts_made,
        timings=timings,
        loudness_lufs=books[0].written_lufs if len(books) == 1 else None,
        notes=(*told_too, *part, *notes, *(note for book in books for note in book.notes)),
        references=stored.notes.get("references", []),
        made_by=_made_by(),
        watermark=watermark,
        signed_by=signed_by,
    )


def _notes(book: dict[str, Any], alone: bool) -> list[str]:
    """What is to be told of a book's reading: what was mended, and what was left out."""
    notes = [*book["warnings"], *told(book.get("left_out", []))]  # a plan of an earlier version has no such list
    return notes if alone else [f"{book['title']}: {note}" for note in notes]


def _made_by() -> dict[str, Any]:
    """What made the audio: processor, cores, memory, Python and versions."""
    versions = {name: machine.installed(name) for name in ("flowtts", "torch", "ray", "soundfile", "av")}
    host = {"processor": machine.processor(), "cores": default_workers(), "memory_gib": machine.memory_gib()}
    return {**host, "python": platform.python_version(), **{name: found for name, found in versions.items() if found}}
