"""From the files a user names to the plan of a job: books and tables, one or a library of them, read as a stream."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from itertools import islice
from typing import Any

from cluster.storage import InputFile, find_inputs, open_input, read_input
from flowtts_core.errors import ConfigError, FlowTTSError, TextError
from flowtts_core.text.books.columns import Columns
from flowtts_core.text.books.formats import BOOKS, SUFFIXES, misnamed
from flowtts_core.text.books.read import RowError, detect_format, iter_lines, iter_rows, read_document
from flowtts_core.text.books.separated import cells_of, sign_of
from flowtts_core.text.cast import Cast, direct, directed_row
from flowtts_core.text.document import Document, TextRow
from flowtts_core.text.marks import MAX_PAUSE_S
from flowtts_core.text.sentences import Pauses
from jobs.synthesis.languages import LanguageCheck
from jobs.synthesis.plan import Book, Plan, Taken, book_items, corpus_units, plan_book, safe_name, unique_name
from jobs.synthesis.settings import Speaking
from jobs.synthesis.units import Unit

_FIRST = 20  # rows of an only table that tell its language
_SLUG = 60  # characters of a book's or table's short name


@dataclass(frozen=True)
class ReadingOptions:
    """How inputs are read.

    Attributes:
        chapters: of a book, as "1-3,5"; empty for all.
        include_matter: a book's front and back matter too.
        lines: each line of a text is a row of a corpus, instead of the whole being a book.
        sentences: each sentence of a book is a row of a corpus.
        limit: stop after so many sentences or rows.
        text_column, id_column: of tables; "" takes those whose names are known.
        notes: of a book: "skip", "read" at their places, or at the "end" of their chapter.
        pauses: of a book, in seconds, as "sentence=0.3,paragraph=0.7"; empty for the usual ones.
        cast: who speaks.
    """

    chapters: str = ""
    include_matter: bool = False
    lines: bool = False
    sentences: bool = False
    limit: int | None = None
    text_column: str = ""
    id_column: str = ""
    notes: str = "skip"
    pauses: str = ""
    cast: Cast = field(default_factory=Cast)

    def __post_init__(self) -> None:
        parse_pauses(self.pauses)
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"{self.limit} sentences cannot be read", "give at least 1")

    @property
    def facts(self) -> dict[str, Any]:
        """What is not as usual, as JSON values."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "cast"}
        usual = {f.name: f.default for f in fields(self)}
        told = {name: value for name, value in given.items() if value != usual[name]}
        return told | ({"cast": self.cast.to_json()} if self.cast else {})


def parse_pauses(text: str) -> Pauses:
    """Return the pauses of "sentence=0.3,paragraph=0.7,heading=1.2,scene_break=1.5"; those that are not named as usual.

    Raises:
        ConfigError: for another form, name or length.
    """
    names, values = [f.name for f in fields(Pauses)], {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = (piece.strip() for piece in part.partition("="))
        try:
            seconds = float(value.removesuffix("s"))
        except ValueError:
            seconds = -1.0
        if name not in names or not 0 <= seconds <= MAX_PAUSE_S:
            raise ConfigError(
                f"--pause {part}: give seconds from 0 to {MAX_PAUSE_S:g} for one of {', '.join(names)}",
                "write for instance --pause sentence=0.3,paragraph=0.7,heading=1.2",
            )
        values[name] = seconds
    return Pauses(**values)


@dataclass(frozen=True)
class Entry:
    """An input with the settings that its line of a list of inputs gives it."""

    file: InputFile
    given: TextRow | None = None

    @property
    def name(self) -> str:
        return self.file.path.rstrip("/").replace("\\", "/").rsplit("/", 1)[-1]

    @property
    def voice(self) -> str | None:
        return None if self.given is None else self.given.voice

    @property
    def settings(self) -> dict[str, Any]:
        return {} if self.given is None else self.given.settings

    @property
    def stem(self) -> str:
        return safe_name(self.name.rsplit(".", 1)[0], _SLUG)


def read_plan(
    inputs: Sequence[str], reading: ReadingOptions, speaking: Speaking, languages: LanguageCheck | None = None
) -> Plan:
    """Find the inputs and plan the job; but for an only book they are read when the plan is.

    Args:
        inputs: books and tables of rows (of the formats in `flowtts_core.text.books.formats`, or lines), and lists of inputs
            (tables with a column `input` instead of `text`); files, folders, globs, `s3://` objects and prefixes.

        languages: refuses books and rows in other languages than the voices read; None takes all.

    Raises:
        TextError: when an input is not there, or the only one cannot be read.
        ConfigError: for settings that do not fit the inputs, and for an only input in another language than the voice's.
    """
    entries = [entry for path in inputs for entry in _entries(path, reading)]
    if len(entries) > 1 or reading.sentences or _kind(entries[0], reading) not in BOOKS:
        if reading.chapters:
            raise ConfigError("--chapters chooses from a book alone, and this is more or no book", "leave it out")
        titles = [entry.name for entry in entries[:3]]
        title = ", ".join(titles) + (f" and {len(entries) - 3} more" if len(entries) > 3 else "")
        plan = Plan(
            _shown(title),
            "corpus",
            lambda: _items(entries, reading, speaking, languages),
            _sources(entries, reading, speaking),
            reading.facts,
            "" if reading.limit is None else f"the first {reading.limit} rows, as --max-sentences asks",
        )
        if len(entries) == 1:
            first = list(islice(plan.items(), _FIRST))
            if not first:
                raise TextError(f"{entries[0].name}: no rows to read", "is the file empty?")
            if languages is not None:
                languages.require_rows(first, entries[0].name)
        return plan
    [entry] = entries
    own = _own(speaking, entry)
    plan = plan_book(_document(entry, reading, own, languages), own, reading.chapters, reading.limit)
    return replace(plan, sources=_sources(entries, reading, speaking), reading=reading.facts)


def _entries(path: str, reading: ReadingOptions) -> Iterator[Entry]:
    for file in _found(path):
        if reading.lines or reading.text_column or not _is_list(file):
            yield Entry(file)
            continue
        with open_input(file.path) as source:
            for row in iter_rows(source, Entry(file).name, text_column="input"):
                if isinstance(row, RowError):
                    raise TextError(f"{file.path}: row {row.row_number}: {row.reason}", "mend that line of the list")
                _place_prompt(row, file.path)
                for found in _found(_beside(file.path, row.text.strip())):
                    yield Entry(found, row)


def _found(path: str) -> list[InputFile]:
    try:
        return find_inputs(path, SUFFIXES)
    except FileNotFoundError:
        accepted = (
            f"a file, a folder with {', '.join(SUFFIXES)} files, a pattern as 'books/*.epub', or s3://bucket/prefix"
        )
        raise TextError(f"{path}: no such file, or none that can be read", f"give {accepted}") from None
    except OSError as error:
        raise TextError(f"{path}: cannot be read ({error})", "check the address and the keys") from error


def _is_list(file: InputFile) -> bool:
    """Whether a table names inputs: it has a column `input`, and none of texts."""
    suffix = file.path.rsplit(".", 1)[-1].lower()
    if suffix == "parquet":
        import pyarrow.parquet as pq

        try:
            with open_input(file.path) as source:
                columns = pq.read_schema(source).names
        except Exception:  # what is wrong with it is said where it is read
            return False
        return "input" in columns and "text" not in columns
    if suffix not in ("jsonl", "csv", "tsv"):
        return False
    with open_input(file.path) as source:
        first = source.readline(1 << 20).decode("utf-8-sig", "replace")
    if suffix == "jsonl":
        try:
            record = json.loads(first)
        except ValueError:
            return False
        return isinstance(record, dict) and "input" in record and "text" not in record
    named = Columns("input")
    cells = [cell.strip() for cell in cells_of(first.rstrip("\r\n"), sign_of(first, named))]
    return named.named_in(cells) and "text" not in cells


def _beside(of: str, path: str) -> str:
    """A path as a list of inputs means it: relative to the list."""
    if path.startswith(("s3://", "/")):
        return path
    folder, slash, _ = of.rpartition("/")
    return f"{folder}{slash}{path}"


def _place_prompt(row: TextRow, table: str) -> None:
    """Take a row's prompt as its table means it: relative to the table."""
    if isinstance(row.settings.get("prompt"), str):
        row.settings["prompt"] = _beside(table, row.settings["prompt"])


def _kind(entry: Entry, reading: ReadingOptions) -> str:
    if reading.lines:
        return "lines"
    with open_input(entry.file.path) as source:
        kind = detect_format(source, entry.name)
    if warning := misnamed(kind, entry.name):
        _tell(warning)
    return kind


@lru_cache(maxsize=1000)  # the inputs are read more than once, and are told of once
def _tell(what: str) -> None:
    print(f"note: {_shown(what)}", file=sys.stderr)


def _document(entry: Entry, reading: ReadingOptions, speaking: Speaking, languages: LanguageCheck | None) -> Document:
    try:
        data = read_input(entry.file.path)
    except OSError as error:
        raise TextError(f"{entry.file.path}: cannot be read ({error})", "check the address and the keys") from error
    pauses = parse_pauses(reading.pauses)
    document = read_document(
        data,
        entry.name,
        include_matter=reading.include_matter,
        include_notes=reading.notes != "skip",
        notes_last=reading.notes == "end",
        pauses=pauses,
        format="ssml" if speaking.settings.get("input_type") == "ssml" else None,
    )
    try:
        document = direct(document, reading.cast, pauses)
    except TextError as error:
        raise TextError(f"{entry.name}: {error.message}", error.remedy) from error
    if not document.title.strip():
        document = replace(document, title=entry.name.rsplit(".", 1)[0])
    if languages is not None:
        languages.require_book(document, entry.name, entry.voice, entry.settings)
    return document


def _sources(entries: Sequence[Entry], reading: ReadingOptions, speaking: Speaking) -> tuple[Any, ...]:
    """What tells that the inputs are as they were: their paths, sizes and times, and how they are read."""
    given = [None if entry.given is None else asdict(entry.given) for entry in entries]
    files = [[_shown(entry.file.path), entry.file.size, entry.file.stamp] for entry in entries]
    prompts = [[f.path, f.size, f.stamp] for path in [speaking.settings.get("prompt")] if path for f in _found(path)]
    return (
        *zip(files, given, strict=True),
        *prompts,
        [reading.chapters, reading.include_matter, reading.lines, reading.limit],
        *(["sentences"] if reading.sentences else []),
        *([[reading.text_column, reading.id_column]] if reading.text_column or reading.id_column else []),
        *([[reading.notes, reading.pauses, reading.cast.to_json()]] if _directed(reading) else []),
    )


def _directed(reading: ReadingOptions) -> bool:
    return reading.notes != "skip" or bool(reading.pauses) or bool(reading.cast)


def _shown(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def _own(speaking: Speaking, entry: Entry) -> Speaking:
    """The job's settings, with those that the entry gives its units and that tell how it is read."""
    given = {} if entry.given is None else entry.given.settings
    own: dict[str, Any] = {name: given[name] for name in ("seed", "input_type", "speed") if name in given}
    return replace(speaking, settings={**speaking.settings, **own}) if own else speaking


def _items(
    entries: Sequence[Entry], reading: ReadingOptions, speaking: Speaking, languages: LanguageCheck | None
) -> Iterator[Book | Unit]:
    left = reading.limit
    for item in _all_items(entries, reading, speaking, languages):
        if isinstance(item, Unit):
            if left == 0:
                return
            left = None if left is None else left - 1
        yield item


def _all_items(
    entries: Sequence[Entry], reading: ReadingOptions, speaking: Speaking, languages: LanguageCheck | None
) -> Iterator[Book | Unit]:
    """Books and rows, one input after the other; one that cannot be read is set aside where it is not the only one."""
    names, taken = set[str](), Taken()
    for entry in entries:
        slug = unique_name(entry.stem, names)
        own = _own(speaking, entry)
        try:
            prefix = f"{slug}-" if len(entries) > 1 else ""
            if _kind(entry, reading) not in BOOKS:  # ids are unique in a file, not across files
                units: Iterable[Book | Unit] = corpus_units(_rows(entry, reading, prefix, languages), own, taken)
            elif reading.sentences:
                units = corpus_units(_sentences(_document(entry, reading, own, languages), prefix), own, taken)
            else:
                units = book_items(_document(entry, reading, own, languages), slug, own)
            yield from (_given(item, entry, slug) for item in units) if entry.given or len(entries) > 1 else units
        except (FlowTTSError, OSError) as error:
            if len(entries) == 1:
                raise
            message = error.message if isinstance(error, FlowTTSError) else str(error)
            id = unique_name(f"{slug}-unread", taken.ids)
            yield Unit(id, "", slug, file=unique_name(id, taken.files), error=_shown(f"{entry.file.path}: {message}"))


def _sentences(document: Document, prefix: str) -> Iterator[TextRow]:
    for number, chapter in enumerate(document.chapters, 1):
        for index, sentence in enumerate(chapter.sentences, 1):
            settings = {} if sentence.rate == 1.0 else {"speed": sentence.rate}
            yield TextRow(f"{prefix}{number:04d}-{index:04d}", sentence.text, sentence.voice, settings)


def _given(item: Book | Unit, entry: Entry, slug: str) -> Book | Unit:
    """A unit with what the list of inputs says of its input, where the unit says nothing itself."""
    if isinstance(item, Book):
        return item
    given = entry.given or TextRow("", "")
    settings = {**given.settings, **item.settings}
    return replace(item, source=slug, voice=given.voice if item.voice is None else item.voice, settings=settings)


def _rows(
    entry: Entry, reading: ReadingOptions, prefix: str, languages: LanguageCheck | None
) -> Iterator[TextRow | Unit]:
    with open_input(entry.file.path) as source:
        rows: Iterable[TextRow | RowError]
        if reading.lines:
            rows = iter_lines(source, entry.name, _tell)
        else:
            rows = iter_rows(
                source,
                entry.name,
                text_column=reading.text_column,
                id_column=reading.id_column,
                doubles=True,
                told=_tell,
            )
        for row in rows:
            id = _shown(prefix + row.id) if prefix or not row.id.isascii() else row.id
            if isinstance(row, RowError):
                yield Unit(id, "", error=f"row {row.row_number}: {row.reason}")
            else:
                _place_prompt(row, entry.file.path)
                problem = _language_problem(row, entry, languages)
                if problem:
                    yield Unit(id, row.text, voice=row.voice, error=problem)
                else:
                    row = row if id == row.id else replace(row, id=id)
                    yield directed_row(row, reading.cast) if reading.cast else row


def _language_problem(row: TextRow, entry: Entry, languages: LanguageCheck | None) -> str:
    if languages is None:
        return ""
    voice = entry.voice if row.voice is None else row.voice
    return languages.row_problem(row.text, voice, {**entry.settings, **row.settings})
