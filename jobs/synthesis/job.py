"""A synthesis job: inputs planned, units spoken shard by shard, resumable and exactly once, then joined and reported."""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

from cluster import plan as plans
from cluster.plan import DoneRow, Shard, StoredPlan
from cluster.pool import start_early, stop_early
from cluster.session import default_workers
from cluster.storage import Storage
from flowtts_core.config import fingerprint
from flowtts_core.errors import ConfigError, FlowTTSError, OutputError
from flowtts_core.signing import Signing
from jobs.synthesis.book_form import BookForm
from jobs.synthesis.books import Assembled, assemble_books, planned_outputs
from jobs.synthesis.careful import JOURNAL
from jobs.synthesis.commit import FOLDERS, ROWS
from jobs.synthesis.differences import differences
from jobs.synthesis.engine import Engine, Voices
from jobs.synthesis.folder import (
    JOB,
    OUTPUTS,
    PROVENANCE,
    ROW_FILES,
    SIGNATURE,
    SUMMARY,
    bare_digest,
    clear,
    job_id,
    made_names,
    read_json,
    require_format,
    require_ours,
    suffix_of,
)
from jobs.synthesis.manifest import SHARDS, finish, read_shard, shard_indexes
from jobs.synthesis.outcome import corpus_files, publish
from jobs.synthesis.pipeline import Running, speak_shards
from jobs.synthesis.plan import Plan, identity, settings_identity, write_plan
from jobs.synthesis.progress import Progress
from jobs.synthesis.provenance import Origin, book_statement, origins_of, write_provenance
from jobs.synthesis.settings import Speaking
from jobs.synthesis.signed import beside, sign_sounds
from jobs.synthesis.summary import Summary, finished_summary, summarise, write_summary
from jobs.synthesis.webdataset import split_place

_OTHER_FOLDER = (
    "choose another folder with -o, run with --update to do what changed and keep the rest, "
    "or with --overwrite to delete that job's work first"
)


@dataclass(frozen=True)
class Options(BookForm):
    """How a job runs and what it leaves, of books what `BookForm` says; none of it changes the sound of an utterance.

    Attributes:
        rows: of a corpus: "files" writes audio/ID.flac, "parquet" keeps the audio in the shards, "webdataset" writes tars.
        running: how many processes, where, and how long they may take.
        overwrite: delete what another job of ours left in the output.
        update: the output holds this job with other inputs or settings: do what changed, keep the rest.
        retry_failed: do again what was set aside.
        stop_after: end after so many shards, as an interruption would (a trial of the resume).
        signing: signs books and provenance, here alone: neither workers nor records get to know where the key is.
    """

    rows: str = "files"
    running: Running = Running()
    overwrite: bool = False
    update: bool = False
    retry_failed: bool = False
    progress: bool = False
    stop_after: int | None = None
    signing: Signing | None = None

    @property
    def outputs(self) -> list[str]:
        """The formats of what the job writes."""
        return [*self.formats, self.rows]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rows not in ROWS:
            raise ConfigError(f"unknown rows {self.rows!r}", f"use one of {', '.join(ROWS)}")
        if self.overwrite and self.update:
            raise ConfigError("--overwrite deletes what --update would keep", "give one of them")


@dataclass(frozen=True)
class Repair:
    """What a repair does beside going on with the job, once nothing can refuse it any more.

    Attributes:
        orphans: files that no row has, to be deleted.
        shards: numbers of those to be spoken again, each in the place of the old one, which stays until then.
    """

    orphans: tuple[str, ...] = ()
    shards: frozenset[int] = frozenset()


class Interrupted(Exception):
    """The job stopped before its end and can be resumed."""


class _Stopwatch:
    """Names the seconds of a job's steps as they end."""

    def __init__(self) -> None:
        self.started = self._last = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def end(self, step: str) -> None:
        now = time.perf_counter()
        self.seconds[step], self._last = round(now - self._last, 3), now

    @property
    def whole(self) -> float:
        return time.perf_counter() - self.started


def run_job(
    plan: Plan,
    output: str,
    engine: Engine,
    speaking: Speaking,
    options: Options,
    resolve: Callable[[str], Engine] | None = None,
    again: dict[str, Any] | None = None,
    stored: StoredPlan | None = None,
    watch: Callable[[dict[str, Any]], None] = lambda result: None,
    repair: Repair | None = None,
) -> Summary:
    """Speak every unit of the plan into the folder `output`; with the same arguments again, go on where it ended.

    Args:
        plan: from `jobs.synthesis.input.read_plan`, `plan_book` or `plan_corpus`.
        output: a folder or `s3://bucket/prefix`.
        resolve: finds the engines of voices that rows ask for; None: the job has one voice.
        again: JSON values that the caller wants noted, to go on with the job from its output alone.
        stored: the output's own plan, to go on without reading the inputs.
        watch: is told what became of each shard as it is committed.
        repair: what is damaged or too much in the output.

    Raises:
        OutputError: when the folder belongs to another job, holds foreign files, cannot be written, or is at work.
        FlowTTSError: what the voice raised when it was loaded.
        Interrupted: after `options.stop_after` shards.
    """
    storage = Storage(output)
    workers = options.running.most or default_workers()
    with storage.lock(), Progress(storage, options.progress, workers) as progress:
        try:
            return _Job(
                storage, plan, Voices(engine, resolve), speaking, options, progress, again or {}, stored, watch, repair
            ).run()
        finally:
            stop_early()


@dataclass
class _Job:
    storage: Storage
    plan: Plan
    voices: Voices
    speaking: Speaking
    options: Options
    progress: Progress
    again: dict[str, Any]
    given: StoredPlan | None = None
    watch: Callable[[dict[str, Any]], None] = lambda result: None
    repair: Repair | None = None

    def run(self) -> Summary:
        """Run the job. One that is refused before any work is done (by its voice, above all) leaves no job behind."""
        is_new = self.given is None and not self.storage.exists(JOB)
        try:
            return self._run()
        except FlowTTSError:
            if is_new and self.storage.exists(JOB) and not shard_indexes(self.storage):
                clear(self.storage)
            raise

    def _run(self) -> Summary:
        watch, storage, options = _Stopwatch(), self.storage, self.options
        stored, job = self._planned()
        options.require_fits(len(stored.notes["books"]))
        self._delete_orphans()
        watch.end("plan_s")
        pending = self._pending(stored)
        watch.end("resume_s")
        done = len(stored.shards) - len(pending)
        outcome = finished_summary(storage, job, options.outputs) if not (pending or self.repair) else None
        if outcome is not None and not self._lacks_signature(outcome):
            return replace(outcome, shards_resumed=done, wall_s=watch.whole)
        storage.delete(JOURNAL)
        self._note_outputs(stored)
        notes = self._unsigned_now()
        for note in notes:
            print(f"note: {note}", file=sys.stderr)  # before hours of work, and in the summary
        for record in (SUMMARY, PROVENANCE, SIGNATURE):
            storage.delete(record)
        self._speak(stored, pending, job)
        watch.end("speak_s")
        stored = self._settled(stored)
        self.progress.step("writing the manifest")
        totals = finish(storage, stored, lambda rows: self.progress.step(f"writing the manifest, {rows:,} rows"))
        watch.end("manifest_s")
        books = self._books(stored) if totals.ok else []
        watch.end("books_s")
        files = [name for book in books for name in book.files] + corpus_files(storage, stored, options.rows)
        origins = origins_of(storage)
        files += self._signed(stored, files, origins)
        signer = None if options.signing is None else options.signing.facts
        mark = job["settings"].get("watermark")
        counted = summarise(
            stored, storage, totals, books, files, done, watch.whole, watch.seconds, mark, signer, notes
        )
        self.progress.step("writing the provenance")
        write_provenance(storage, stored, job, counted, origins, options.signing)
        watch.end("provenance_s")
        summary = replace(counted, wall_s=watch.whole, timings=watch.seconds)
        publish(storage, stored, summary, job, options.rows)
        write_summary(storage, summary, job, options.outputs)
        return summary

    # -- the plan -------------------------------------------------------------------------------------------------------

    def _planned(self) -> tuple[StoredPlan, dict[str, Any]]:
        """The job's plan, from the output where it is there already, and the job's identity."""
        storage = self.storage
        if self.given is not None:
            self._sweep()
            return self.given, identity(self.given, self.voices.own, self.speaking)
        held, stored = read_json(storage, JOB), plans.load(storage)
        if held is None:
            require_ours(storage)
        elif stored is not None and not self.options.retry_failed and self._unchanged(stored):
            job = identity(stored, self.voices.own, self.speaking)
            if job == held:
                self._sweep()
                return self._noted_again(stored), job
        storage.require_writable()
        name = uuid.uuid4().hex[:12]
        try:
            fresh, job = self._claimed(held, stored, self._write(name))
        except BaseException:
            storage.delete(f"{plans.PLANS}/{name}")
            raise
        if fresh is not stored:
            # The plan before the job's record: a run that ends between the two finds no job here, and plans anew
            plans.store(storage, fresh)
            storage.write(JOB, json.dumps(job, indent=1, ensure_ascii=False).encode())
        return self._noted_again(fresh), job

    def _write(self, name: str, kept: dict[str, DoneRow] | None = None, first_index: int = 0) -> StoredPlan:
        fresh = write_plan(self.storage, self.plan, self.speaking, self.voices, name, kept, first_index, self._planning)
        return self._noted(fresh)

    def _planning(self, rows: int) -> None:
        """Some rows are planned; what they need to be spoken starts meanwhile."""
        self.progress.planning(rows)
        if self.options.running.address is None:
            start_early(self.options.running.bound)

    def _noted(self, plan: StoredPlan) -> StoredPlan:
        """The plan with what a repair needs to go on: how the job was run, apart from where."""
        options = self.options
        again: dict[str, Any] = {"rows": options.rows, "book": options.kept(self.storage, plan.folder)}
        again |= {"book_format": options.book_format, "chapter_format": options.chapter_format}
        return replace(plan, notes={**plan.notes, "signature": self._signature(), "again": {**self.again, **again}})

    def _noted_again(self, stored: StoredPlan) -> StoredPlan:
        """The plan that is there, which other formats may be wanted of now."""
        noted = self._noted(stored)
        if noted.notes != stored.notes:
            plans.store(self.storage, noted)
        return noted

    def _claimed(
        self, held: dict[str, Any] | None, stored: StoredPlan | None, fresh: StoredPlan
    ) -> tuple[StoredPlan, dict[str, Any]]:
        """Make the folder this job's, or find that it already is.

        Raises:
            OutputError: when it is another job's; the message says what differs.
        """
        storage, options = self.storage, self.options
        options.require_fits(len(fresh.notes["books"]))  # before --overwrite deletes another job's work
        job = identity(fresh, self.voices.own, self.speaking)
        same = held == job
        if held is not None and not same and not (options.overwrite or options.update):
            require_format(storage, held)
            differing = differences(storage, held, job, stored, fresh)
            raise OutputError(f"{storage.root} holds another job (differs in {differing})", _OTHER_FOLDER)
        if same and stored is not None and stored.texts == fresh.texts and not options.retry_failed:
            storage.delete(fresh.folder)
            self._sweep()
            return stored, job
        if held is not None and options.update:
            _tell_lost_key(held, job)
        if stored is not None and held is not None and (same or options.update):
            kept, after = self._kept(stored)
            storage.delete(fresh.folder)
            fresh = self._write(fresh.folder.rpartition("/")[2], kept, after)
        elif held is not None and not same:
            clear(storage, but=fresh.folder)
        self._sweep()
        storage.delete(SUMMARY)  # a plan and a summary of another would contradict each other
        return fresh, job

    def _signature(self) -> str:
        """What tells that inputs and settings are as they were; empty where that cannot be told without reading the inputs."""
        if not self.plan.sources:
            return ""
        return fingerprint([list(self.plan.sources), self.plan.title, settings_identity(self.speaking)])

    def _unchanged(self, stored: StoredPlan) -> bool:
        notes = stored.notes
        if not notes.get("signature") or notes["signature"] != self._signature():
            return False
        voices = [(name, facts["fingerprint"]) for name, facts in notes["voices"].items()]
        return all(
            not self.voices.problem(name) and self.voices.find(name).fingerprint == print for name, print in voices
        )

    def _kept(self, stored: StoredPlan) -> tuple[dict[str, DoneRow], int]:
        """What is done already, by id, and the number after the last shard's."""
        self.progress.step("looking for what is done already")
        gone = {shard.index for shard in self._pending(stored)}
        stored = self._settled(stored)
        kept: dict[str, DoneRow] = {}
        for part in range(stored.parts):
            rows = stored.read_part(self.storage, part, ("id", "fingerprint")).to_pylist()
            place = 0
            for shard in stored.part_shards(part):
                own, place = rows[place : place + shard.rows], place + shard.rows
                if shard.index in gone:
                    continue
                places = shard.select if shard.select is not None else range(shard.rows)
                status = read_shard(self.storage, shard.index, ("status",)).column("status").to_pylist()
                for row, at in zip(own, places, strict=True):
                    if status[at] == "ok" or not self.options.retry_failed:
                        kept[row["id"]] = DoneRow(row["fingerprint"], shard.index, at, shard.older or shard.digest)
        return kept, max((shard.index for shard in stored.shards), default=-1) + 1

    def _delete_orphans(self) -> None:
        if self.repair is not None:
            self.storage.require_writable()
            for name in self.repair.orphans:
                self.storage.delete(name)

    def _sweep(self) -> None:
        self.storage.sweep()
        self.storage.sweep(SHARDS)

    # -- the work -------------------------------------------------------------------------------------------------------

    def _suffix(self, stored: StoredPlan) -> str:
        return suffix_of(self.options.rows, stored)

    def _footer(self, stored: StoredPlan) -> Callable[[Storage, int], str | None]:
        return partial(bare_digest, self._suffix(stored))

    def _pending(self, stored: StoredPlan) -> list[Shard]:
        """The shards that are to be spoken."""
        bad = frozenset() if self.repair is None else self.repair.shards
        pending = stored.pending(self.storage, self._footer(stored), set(shard_indexes(self.storage)) - bad)
        if not self._suffix(stored):
            return pending
        todo = {shard.index for shard in pending}
        there = {f"{folder}/{name}" for folder in FOLDERS for name in self.storage.list(folder)}
        for shard in stored.shards:
            if shard.index not in todo:
                places = read_shard(self.storage, shard.index, ("audio",)).column("audio").to_pylist()
                if any(place and split_place(place)[0] not in there for place in places):
                    todo.add(shard.index)
        return [shard for shard in stored.shards if shard.index in todo]

    def _settled(self, stored: StoredPlan) -> StoredPlan:
        """The plan as the files have it: one that held older rows too may have been made anew without them."""
        mixed = [shard.index for shard in stored.shards if shard.select is not None]
        footer = self._footer(stored)
        return (
            stored.with_older_rows_replaced({index: footer(self.storage, index) for index in mixed})
            if mixed
            else stored
        )

    def _speak(self, stored: StoredPlan, pending: list[Shard], job: dict[str, Any]) -> None:
        characters, todo = sum(s.characters for s in stored.shards), sum(s.characters for s in pending)
        rows_todo = sum(shard.rows for shard in pending)
        self.progress.begin(stored.units, characters, stored.units - rows_todo, characters - todo)
        if not pending:
            return
        suffix = self._suffix(stored)
        tasks = [
            {"shard": s.index, "plan": stored.folder, "part": s.part, "group": s.group, "digest": s.digest + suffix,
             "characters": s.characters, "rows": s.rows}
            for s in pending
        ]  # fmt: skip
        arguments: dict[str, Any] = {
            "output": self.storage,
            "voices": self.voices,
            "speaking": self.speaking,
            "rows": self.options.rows,
            "job": job_id(job),
            "running": self.options.running,
            "told": self.progress.trouble,
        }
        self.progress.step("starting workers")
        for count, result in enumerate(speak_shards(tasks, **arguments), 1):
            self.progress.shard(result)
            self.watch(result)
            if self.options.stop_after is not None and count >= self.options.stop_after:
                raise Interrupted(f"stopped after {count} shards")

    # -- what comes out -------------------------------------------------------------------------------------------------

    def _books(self, stored: StoredPlan) -> list[Assembled]:
        if not stored.notes["books"]:
            return []
        running = self.options.running
        workers = running.most or default_workers()
        form = BookForm(
            **{each.name: getattr(self.options, each.name) for each in fields(BookForm)}
        )  # workers get no more
        return assemble_books(self.storage, stored, form, workers, running.address, self.progress.step)

    def _signed(self, stored: StoredPlan, files: list[str], origins: list[Origin]) -> list[str]:
        """Sign the books' sound, where that is asked; returns the files of credentials beside it."""
        signing, references = self.options.signing, stored.notes.get("references", [])
        if signing is None:
            return []
        sounds = [name for name in files if not name.startswith(ROW_FILES)]
        return sign_sounds(
            self.storage, sounds, lambda name: book_statement(name, origins, references), signing, self.progress.step
        )

    def _lacks_signature(self, outcome: Summary) -> bool:
        """Whether a finished job is to be signed, and is not yet, or by another certificate."""
        return self.options.signing is not None and outcome.signed_by != self.options.signing.facts

    def _unsigned_now(self) -> list[str]:
        """What to tell of a job that was signed, and of which more is made now without the key."""
        held = (read_json(self.storage, PROVENANCE) or {}).get("signed_by")
        if not held or self.options.signing is not None:
            return []
        return [
            f"it was signed by {held.get('signer')}, and what is made now is not: --sign-key and --sign-chain sign it anew"
        ]

    def _note_outputs(self, stored: StoredPlan) -> None:
        """Note what will be made, beside what was, before the first of it exists: an interruption leaves nothing unknown."""
        planned = list(planned_outputs(stored, self.options))
        planned += beside(planned) if self.options.signing is not None else []
        names = sorted({*made_names(self.storage), *planned})
        self.storage.write(OUTPUTS, json.dumps({"files": names}, indent=1, ensure_ascii=False).encode())


def _tell_lost_key(held: dict[str, Any], job: dict[str, Any]) -> None:
    """Say before the work that an update of a job marked by a secret key will mark without one."""
    old, new = ((each.get("settings") or {}).get("watermark") or {} for each in (held, job))
    if "key" in old and "key" not in new:
        told = "and what is made now is not: --watermark-key FILE marks by it again"
        print(f"note: it was marked by the key {old['key']}, {told}", file=sys.stderr)
