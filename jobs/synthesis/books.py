"""The books of a synthesis job, joined when all their sentences are spoken: one here, on threads; several, each by a process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from cluster import plan as plans
from cluster.plan import StoredPlan
from cluster.pool import Task, Work, run_tasks
from cluster.storage import Storage
from flowtts_core.errors import OutputError, TextError
from jobs.synthesis.audiobook import Audiobook, assemble, planned_files
from jobs.synthesis.book_form import BookForm
from jobs.synthesis.manifest import part_rows
from jobs.synthesis.plan import Book, stored_book
from jobs.synthesis.timeline import Rows
from jobs.synthesis.units import units_of

BOOKS = "books"  # the folder of the books' folders, where there are several


@dataclass(frozen=True)
class Assembled:
    """What became of a book; `files` are relative to the job's output. `problem` says why it has none."""

    slug: str
    title: str
    files: tuple[str, ...]
    seconds: float
    written_lufs: float | None
    notes: tuple[str, ...]
    problem: str = ""


def book_folder(slug: str) -> str:
    return f"{BOOKS}/{slug}" if slug else ""


def planned_outputs(stored: StoredPlan, form: BookForm) -> Iterator[str]:
    """The names of all files that the job's books will have."""
    for note in stored.notes["books"]:
        folder = book_folder(note["slug"])
        for name in planned_files(_formed(stored_book(None, note), form), note["numbers"], form):
            yield f"{folder}/{name}" if folder else name


def _formed(book: Book, form: BookForm) -> Book:
    """The book as the user calls it."""
    return replace(book, document=form.of(book.document))


def assemble_books(
    storage: Storage,
    stored: StoredPlan,
    form: BookForm,
    workers: int,
    address: str | None,
    told: Callable[[str], None],
) -> list[Assembled]:
    """Write the files of each book; one of several that cannot be made is noted, and harms no other.

    Raises:
        TextError: when nothing of an only book could be spoken.
    """
    make = partial(Assembler, storage, form, workers)
    notes = stored.notes["books"]
    if len(notes) == 1:
        return [make(told=told).book(stored, notes[0], fails=stored.notes["kind"] == "book")]
    found: dict[int, Assembled] = {}
    tasks = [{"book": i} for i in range(len(notes))]
    for result in run_tasks(partial(_worker, storage, form), tasks, address=address, workers=workers):
        values = {**result["made"], "files": tuple(result["made"]["files"]), "notes": tuple(result["made"]["notes"])}
        found[result["book"]] = Assembled(**values)
        told(f"{len(found)} of {len(notes)} books joined")
    return [found[i] for i in range(len(notes))]


def _worker(storage: Storage, form: BookForm) -> Work:
    stored = plans.load(storage)
    assert stored is not None
    assembler = Assembler(storage, form, 1)

    def work(task: Task) -> Task:
        return {**task, "made": asdict(assembler.book(stored, stored.notes["books"][task["book"]]))}

    return work


@dataclass(frozen=True)
class Assembler:
    """Joins books of one job.

    Attributes:
        workers: threads that encode.
    """

    storage: Storage
    form: BookForm
    workers: int
    told: Callable[[str], None] = lambda what: None

    def book(self, stored: StoredPlan, note: dict[str, Any], fails: bool = False) -> Assembled:
        """One book's files; raises what stands in its way where `fails`, else notes it."""
        folder = book_folder(note["slug"])
        output = Storage(self.storage.path(folder)) if folder else self.storage
        try:
            book, rows = _formed(stored_book(self.storage, note), self.form), book_rows(self.storage, stored, note)
            made = assemble(book, rows, self.storage, output, self.form, self.workers, self.told)
        except (TextError, OutputError) as error:
            if fails or isinstance(error, OutputError):
                raise
            return Assembled(
                note["slug"], note["title"], (), 0.0, None, (f"{note['title']}: {error.message}",), error.message
            )
        return _assembled(note["slug"], book.document.title, made, folder)


def _assembled(slug: str, title: str, made: Audiobook, folder: str) -> Assembled:
    files = tuple(f"{folder}/{name}" if folder else name for name in made.files)
    return Assembled(slug, title, files, made.timeline.seconds, made.written_lufs, made.notes)


def book_rows(storage: Storage, stored: StoredPlan, note: dict[str, Any]) -> Rows:
    """The units of a book in order, each with its row of the manifest."""
    first, last = note["first"], note["first"] + note["units"]
    found: list[tuple[Any, dict[str, Any]]] = []
    for part in range(stored.parts):
        start, end = plans.part_span(part)
        if end <= first or start >= last:
            continue
        units = units_of(stored.read_part(storage, part).sort_by("order"))
        columns = ("id", "chapter", "text", "voice", "status", "audio", "num_samples", "sample_rate", "words")
        rows = part_rows(storage, stored, part).select(columns)
        begin, count = max(first - start, 0), min(last, end) - max(first, start)
        found += zip(units[begin : begin + count], rows.slice(begin, count).to_pylist(), strict=True)
    return found
