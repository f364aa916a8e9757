"""A synthesis job: units spoken shard by shard into a folder, resumable and exactly once, then joined and reported."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from cluster.journal import drop_journals
from cluster.manifest import MANIFEST, QUARANTINE, SHARDS, Totals, finish, read_shard, shard_is_whole, shard_name
from cluster.session import default_workers
from cluster.storage import Storage
from flowtts_core.config import fingerprint
from flowtts_core.errors import ConfigError, OutputError
from jobs.audiobook import BOOK_FORMATS, CHAPTER_FORMATS, CHAPTERS, Audiobook, assemble, planned_files
from jobs.synthesis_plan import Plan, Speaking, Unit, identity
from jobs.synthesis_progress import Progress
from jobs.synthesis_worker import ASIDE, AUDIO, MakeSynthesizer, journal_name, speak_shards

if TYPE_CHECKING:
    import pyarrow as pa

JOB = "job.json"
SUMMARY = "summary.json"
OUTPUTS = "outputs.json"  # names of a book's files, written before the files are
METADATA = "metadata.csv"
REPORT = "report.html"
EXIT_QUARANTINED = 3

_OTHER_FOLDER = "choose another folder with -o, or run with --overwrite to delete that job's work first"


@dataclass(frozen=True)
class Options:
    """How a job runs and what it leaves; none of it changes the sound of an utterance.

    Attributes:
        book_format: of the one tagged file: m4b, mp3 or opus.
        chapter_format: of the file per chapter: mp3, flac, opus, wav, or none.
        rows: of a corpus: "files" writes audio/ID.flac, "parquet" keeps the audio in the shards.
        workers: actors, one core each; None takes every core.
        address: of a Ray cluster; None starts a private one.
        gpus: of a GPU per worker.
        overwrite: delete what another job of ours left in the output.
        stop_after: end after so many shards, as an interruption would (a trial of the resume).
    """

    book_format: str = "m4b"
    chapter_format: str = "mp3"
    rows: str = "files"
    workers: int | None = None
    address: str | None = None
    gpus: float = 0
    overwrite: bool = False
    progress: bool = False
    stop_after: int | None = None

    def __post_init__(self) -> None:
        for name, value, known in (
            ("format", self.book_format, BOOK_FORMATS),
            ("chapter format", self.chapter_format, CHAPTER_FORMATS),
            ("rows", self.rows, ("files", "parquet")),
        ):
            if value not in known:
                raise ConfigError(f"unknown {name} {value!r}", f"use one of {', '.join(known)}")
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"{self.workers} workers cannot work", "give at least 1, or leave --workers out")


@dataclass(frozen=True)
class Summary:
    """What a job did; `files` are relative to `output`, the book first. `rtf` is computing time per second of audio.

    `unverified` utterances fell short of the gate in all takes (set aside in a corpus, kept in a book); of `spoken_again` a later
    take was kept; `scores` are means over the utterances of what the gate measured.
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
    loudness_lufs: float | None = None
    notes: tuple[str, ...] = ()
    made_by: dict[str, Any] = field(default_factory=dict)

    @property
    def rtf(self) -> float:
        return self.compute_s / self.seconds if self.seconds else 0.0

    @property
    def exit_code(self) -> int:
        return EXIT_QUARANTINED if self.failed or self.unverified else 0


class Interrupted(Exception):
    """The job stopped before its end and can be resumed."""


@dataclass(frozen=True)
class Engine:
    """What speaks: its name, a fingerprint that changes with its sound, a picklable maker for the workers, its flow's steps."""

    name: str
    fingerprint: str
    make: MakeSynthesizer
    steps: int = 1


def run_job(plan: Plan, output: str, engine: Engine, speaking: Speaking, options: Options) -> Summary:
    """Speak every unit of the plan into the folder `output`; with the same arguments again, go on where it ended.

    Args:
        plan: from `jobs.synthesis_input.read_plan`, `plan_book` or `plan_corpus`.
        output: a folder or `s3://bucket/prefix`.

    Raises:
        OutputError: when the folder belongs to another job, holds foreign files, cannot be written, or is at work.
        FlowTTSError: what the voice raised when it was loaded.
        Interrupted: after `options.stop_after` shards.
    """
    storage = Storage(output)
    with storage.lock():
        return _run_job(plan, storage, engine, speaking, options)


def _run_job(plan: Plan, storage: Storage, engine: Engine, speaking: Speaking, options: Options) -> Summary:
    started = time.perf_counter()
    job = identity(plan, engine.name, engine.fingerprint, speaking)
    claim(storage, job, options.overwrite)
    audio_files = plan.document is None and options.rows == "files"
    pending = {i: units for i, units in enumerate(plan.shards) if not _is_done(storage, i, units, audio_files)}
    outcome = _finished(storage, job, options) if not pending else None
    if outcome is not None:
        return replace(outcome, shards_resumed=len(plan.shards), wall_s=time.perf_counter() - started)
    drop_journals(storage, SHARDS, {journal_name(i) for i in range(len(plan.shards)) if i not in pending})
    if plan.document is not None:
        _note_outputs(storage, planned_files(plan, options.book_format, options.chapter_format))
    storage.delete(SUMMARY)
    with Progress(plan, set(pending), options.progress) as progress:
        arguments = {
            "make_synthesizer": engine.make,
            "output": storage,
            "voice": engine.name,
            "speaking": speaking,
            "run": uuid.uuid4().hex,
            "audio_files": audio_files,
            "keep_unverified": plan.document is not None,
            "steps": engine.steps,
        }
        _speak(pending, arguments, options, progress)
        totals = finish(storage, plan.ids)
        book = None
        if plan.document is not None and totals.ok:
            workers = options.workers or default_workers()
            book = assemble(plan, storage, options.book_format, options.chapter_format, workers, progress.step)
        files = book.files if book else tuple(_corpus_files(plan, storage, audio_files))
    summary = _summary(
        plan, storage, totals, book, files, len(plan.shards) - len(pending), time.perf_counter() - started
    )
    _write_report(plan, storage, summary, job)
    _delete_superseded(plan, storage, files, audio_files)
    record = {**asdict(summary), "job": fingerprint(job), "outputs": _outputs(options)}
    storage.write(SUMMARY, json.dumps(record, indent=1, ensure_ascii=False).encode("utf-8", "replace"))
    return summary


def claim(storage: Storage, job: dict[str, Any], overwrite: bool) -> None:
    """Make the folder this job's, or find that it already is.

    Raises:
        OutputError: when it is another job's (the message says what differs), or holds files but no job of ours.
    """
    held = _read_json(storage, JOB)
    cleared = held is not None and held != job and overwrite
    if held is not None and held != job and not overwrite:
        differing = ", ".join(sorted(key for key in {*held, *job} if held.get(key) != job.get(key)))
        raise OutputError(f"{storage.root} holds another job (differs in {differing})", _OTHER_FOLDER)
    if cleared:
        clear(storage)
        held = None
    if held is None and not cleared:  # beside a job of ours other files may lie, and --overwrite leaves them
        foreign = [name for name in storage.list() if name != JOB and not name.startswith(".")]
        if foreign:
            raise OutputError(
                f"{storage.root} is not empty and not ours ({', '.join(foreign[:3])}, ...)",
                "choose another folder with -o",
            )
    storage.require_writable()
    storage.sweep()
    storage.sweep(SHARDS)
    if held is None:
        storage.write(JOB, json.dumps(job, indent=1, ensure_ascii=False).encode())


def clear(storage: Storage) -> None:
    """Delete what a job of ours made, and nothing else: the job's record goes last."""
    for name in [*_made(storage), SHARDS, CHAPTERS, AUDIO, ASIDE, MANIFEST, QUARANTINE, METADATA, REPORT, SUMMARY, OUTPUTS, JOB]:
        storage.delete(name)


def _made(storage: Storage) -> list[str]:
    """The files that a job of ours made or was about to make here; a name that leads out of the folder is none of ours."""
    noted = [(_read_json(storage, record) or {}).get("files") for record in (OUTPUTS, SUMMARY)]
    names = {name for files in noted if isinstance(files, list) for name in files if isinstance(name, str)}
    return sorted(name for name in names if (path := PurePosixPath(name)).parts and not {"/", ".."} & set(path.parts))


def _note_outputs(storage: Storage, planned: Iterable[str]) -> None:
    """Note what will be made, beside what was, before the first of it exists: an interruption leaves nothing unknown."""
    names = sorted({*_made(storage), *planned})
    storage.write(OUTPUTS, json.dumps({"files": names}, indent=1, ensure_ascii=False).encode())


def _delete_superseded(plan: Plan, storage: Storage, files: Iterable[str], audio_files: bool) -> None:
    """Delete what this job made in another format before, now that the new files are there."""
    if plan.document is None:
        for name in () if audio_files else (METADATA, AUDIO, ASIDE):
            storage.delete(name)
        return
    for name in sorted(set(_made(storage)) - set(files)):
        storage.delete(name)
    storage.write(OUTPUTS, json.dumps({"files": list(files)}, indent=1, ensure_ascii=False).encode())


def _read_json(storage: Storage, name: str) -> dict[str, Any] | None:
    """A record of ours; None where it is absent or not readable as such."""
    if not storage.exists(name):
        return None
    try:
        value = json.loads(storage.read(name))
    except ValueError:
        return {"unreadable": True}
    return value if isinstance(value, dict) else {"unreadable": True}


def _is_done(storage: Storage, index: int, units: Sequence[Unit], audio_files: bool) -> bool:
    if not shard_is_whole(storage, index, [unit.id for unit in units]):
        return False
    rows = read_shard(storage, index, ("audio", "num_samples")).to_pylist()
    named = [row["audio"] for row in rows if row["num_samples"]]
    if not audio_files:
        return not any(named)  # a name: another run of this job wrote files, and the shard holds no audio
    return all(name and storage.exists(name) for name in named)


def _finished(storage: Storage, job: dict[str, Any], options: Options) -> Summary | None:
    """The summary of a job that needs nothing more: the same job and outputs, and all its files are there."""
    record = _read_json(storage, SUMMARY) or {}
    if record.get("job") != fingerprint(job) or record.get("outputs") != _outputs(options):
        return None
    values = {key: value for key, value in record.items() if key not in ("job", "outputs")}
    try:
        summary = Summary(**{**values, "files": tuple(values["files"]), "notes": tuple(values["notes"])})
    except (TypeError, KeyError):  # another version's fields, or a changed file: it is written again
        return None
    whole = all(storage.exists(name) for name in [*summary.files, MANIFEST, QUARANTINE, REPORT])
    return summary if whole else None


def _outputs(options: Options) -> list[str]:
    return [options.book_format, options.chapter_format, options.rows]


def _speak(
    pending: dict[int, tuple[Unit, ...]], arguments: dict[str, Any], options: Options, progress: Progress
) -> None:
    if not pending:
        return
    workers = options.workers or default_workers()
    progress.step("starting workers")
    for count, result in enumerate(speak_shards(dict(pending), arguments, options.address, workers, options.gpus), 1):
        progress.shard(result)
        if options.stop_after is not None and count >= options.stop_after:
            raise Interrupted(f"stopped after {count} shards")


def _corpus_files(plan: Plan, storage: Storage, audio_files: bool) -> Iterable[str]:
    """Write `metadata.csv` in LJSpeech's form (name|text|text) beside the audio; returns what the corpus consists of."""
    if not audio_files:
        return [shard_name(index) for index in range(len(plan.shards))]
    lines, names = [], []
    for index, units in enumerate(plan.shards):
        table: pa.Table = read_shard(storage, index, ("audio", "status"))
        for unit, row in zip(units, table.to_pylist(), strict=True):
            if row["status"] == "ok":
                text = " ".join(unit.text.replace("|", " ").split())
                lines.append(f"{unit.file}|{text}|{text}\n")
                names.append(row["audio"])
    storage.write(METADATA, "".join(lines).encode())
    return [METADATA, *names]


def _summary(
    plan: Plan,
    storage: Storage,
    totals: Totals,
    book: Audiobook | None,
    files: tuple[str, ...],
    resumed: int,
    wall_s: float,
) -> Summary:
    from jobs.synthesis_report import made_by

    return Summary(
        output=storage.root,
        kind="book" if plan.document else "corpus",
        title=plan.title,
        units=totals.planned,
        ok=totals.ok,
        failed=totals.failed,
        reasons=totals.reasons,
        seconds=book.timeline.seconds if book else totals.seconds,
        compute_s=totals.compute_s,
        unverified=totals.unverified,
        spoken_again=totals.spoken_again,
        scores=totals.scores,
        wall_s=wall_s,
        shards=len(plan.shards),
        shards_resumed=resumed,
        files=files,
        loudness_lufs=book.written_lufs if book else None,
        notes=(*(plan.document.warnings if plan.document else ()), *(book.notes if book else ())),
        made_by=made_by(),
    )


def _write_report(plan: Plan, storage: Storage, summary: Summary, job: dict[str, Any]) -> None:
    from jobs.synthesis_report import render

    storage.write(REPORT, render(summary, job, storage, plan).encode("utf-8", "replace"))
