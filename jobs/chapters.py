"""`flowtts chapters`: what a book's chapters are, as `synthesize` will speak them, and what of it will not be read."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobs.synthesis.plan import Book, Plan
    from jobs.synthesis.units import Unit

_PACE = 16.5  # characters a second: the default voice between pauses
_FEW_WORDS = 12  # a chapter of fewer is likely none
_LONG_SENTENCE = 600  # characters; a voice speaks it in parts

EPILOG = """\
examples:
  flowtts chapters book.epub                      number, title, sentences, minutes, warnings
  flowtts chapters book.epub --left-out           all that is not read, in full
  flowtts chapters book.epub --voice natural      and what this voice cannot say
  flowtts chapters 'library/*.epub' --json        for programs

`flowtts synthesize book.epub -o trial/ --chapters 2-3` speaks the chapters with these numbers."""


@dataclass
class ListedChapter:
    """A chapter as it will be spoken. `minutes` is an estimate for the default voice at its own speed, pauses included."""

    number: int
    title: str
    sentences: int = 0
    characters: int = 0
    minutes: float = 0.0
    warnings: list[str] = field(default_factory=list)


@dataclass
class ListedBook:
    """A book with its chapters. `left_out` has reason, place and text of all that is not read."""

    title: str
    author: str
    language: str
    chapters: list[ListedChapter]
    warnings: list[str]
    left_out: list[dict[str, str]]

    @property
    def minutes(self) -> float:
        return sum(chapter.minutes for chapter in self.chapters)


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "chapters",
        help="list a book's chapters as they will be read",
        description="List the chapters of a book as `flowtts synthesize` will speak them, without speaking: number, title, "
        "sentences, minutes (an estimate) and warnings. Below them stands what will not be read, and why.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "books", nargs="+", metavar="BOOK", help="EPUB, Project Gutenberg or plain text; folder, pattern, s3://"
    )
    parser.add_argument("--include-matter", action="store_true", help="front and back matter too (imprint, index, ...)")
    parser.add_argument(
        "--voice", help="say too what this voice has no sound for (it reads all, which takes some seconds)"
    )
    parser.add_argument("--left-out", action="store_true", help="show in full what is left out")
    parser.add_argument("--json", action="store_true", help="print it as JSON, what is left out in full")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from jobs.synthesis.input import ReadingOptions, read_plan
    from jobs.synthesis.settings import Speaking

    plan = read_plan(args.books, ReadingOptions(include_matter=args.include_matter), Speaking())
    books = list(list_books(plan, _unsaid(args.voice) if args.voice else None))
    if args.json:
        print(json.dumps([{**asdict(book), "minutes": book.minutes} for book in books], indent=1, ensure_ascii=False))
    else:
        for book in books:
            _show(book, args.left_out)
    return 0


def list_books(plan: Plan, unsaid: Callable[[Unit], list[str]] | None = None) -> Iterator[ListedBook]:
    """Yield the books of a synthesis job's plan.

    Args:
        unsaid: returns what of a sentence cannot be said.

    Raises:
        TextError: for an input that cannot be read, and for rows of a table, which have no chapters.
    """
    from flowtts_core.errors import TextError
    from jobs.synthesis.plan import Book

    book: Book | None = None
    units: list[Unit] = []
    for item in plan.items():
        if isinstance(item, Book):
            if book is not None:
                yield _listed(book, units, unsaid)
            book, units = item, []
        elif item.error:
            raise TextError(item.error, "mend it or leave it out")
        elif not item.chapter:
            raise TextError(f"{plan.title}: rows, which have no chapters", "give a book: EPUB or text")
        else:
            units.append(item)
    if book is not None:
        yield _listed(book, units, unsaid)


def _listed(book: Book, units: list[Unit], unsaid: Callable[[Unit], list[str]] | None) -> ListedBook:
    document = book.document
    chapters = {n: ListedChapter(n, chapter.title) for n, chapter in enumerate(document.chapters, 1)}
    lost: dict[int, Counter[str]] = {number: Counter() for number in chapters}
    words = Counter[int]()
    for unit in units:
        chapter = chapters[unit.chapter]
        chapter.sentences += 1
        chapter.characters += len(unit.text)
        chapter.minutes += (len(unit.text) / _PACE + unit.pause_s) / 60
        words[unit.chapter] += len(unit.text.split())
        if len(unit.text) > _LONG_SENTENCE:
            chapter.warnings.append(f"a sentence of {len(unit.text)} characters: {unit.text[:30]!r} ...")
        lost[unit.chapter].update(unsaid(unit) if unsaid else [])
    titles = Counter(chapter.title for chapter in chapters.values())
    for number, chapter in chapters.items():
        if words[number] < _FEW_WORDS:
            chapter.warnings.append(f"only {words[number]} words")
        if titles[chapter.title] > 1:
            chapter.warnings.append("another chapter has the same title")
        if lost[number]:
            said = ", ".join(f"{text!r}{f' {n} times' if n > 1 else ''}" for text, n in lost[number].most_common(5))
            chapter.warnings.append(f"{lost[number].total()} not said: {said}")
    return ListedBook(
        document.title,
        document.author,
        document.language,
        list(chapters.values()),
        list(document.warnings),
        [asdict(piece) for piece in document.left_out],
    )


def _unsaid(voice: str) -> Callable[[Unit], list[str]]:
    """Return what tells which words of a sentence a voice has no sound for."""
    from flowtts_core.errors import TextError
    from flowtts_core.request import SynthesisRequest
    from jobs.synthesize import voice_engine

    front = voice_engine(voice, "cpu", {}).make_front()

    def unsaid(unit: Unit) -> list[str]:
        if front is None:
            return []
        try:
            return list(front(SynthesisRequest(text=unit.text)).dropped)
        except TextError:
            return [unit.text]

    return unsaid


def _show(book: ListedBook, in_full: bool) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from flowtts_core.text.document import LeftOut
    from jobs.synthesis.omissions import omissions, told

    console = Console()
    name = " by ".join(filter(None, (book.title, book.author)))
    chapters, sentences = len(book.chapters), sum(chapter.sentences for chapter in book.chapters)
    total = f"{chapters} chapter{'s' * (chapters != 1)}, {sentences:,} sentences, about {book.minutes:,.0f} minutes"
    console.print(f"{name} ({book.language}): {total}", markup=False, highlight=False, soft_wrap=True)
    table = Table()
    for column in ("", "chapter", "sentences", "minutes", "warnings"):
        table.add_column(column, justify="left" if column in ("chapter", "warnings") else "right", overflow="fold")
    for chapter in book.chapters:
        cells = (
            chapter.number,
            chapter.title,
            chapter.sentences,
            f"{chapter.minutes:.1f}",
            "\n".join(chapter.warnings),
        )
        table.add_row(*(escape(str(cell)) for cell in cells))
    console.print(table)
    pieces = [LeftOut(**piece) for piece in book.left_out]
    lines = [f"left out: {p.reason} ({p.place}): {p.text}" for p in pieces] if in_full else told(omissions(pieces))
    for line in [*book.warnings, *lines]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
