"""From the files a user names to the plan of a job: one book, or the rows of one or more tables."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from cluster.storage import is_remote, read_input
from flowtts_core.errors import ConfigError, TextError
from flowtts_core.text.document import TextRow
from flowtts_core.text.read import RowError, Source, detect_format, iter_lines, iter_rows, read_document
from flowtts_core.text.source import BOOKS
from jobs.synthesis_plan import Plan, Speaking, Unit, plan_book, plan_corpus, unique_name


@dataclass(frozen=True)
class Reading:
    """How inputs are read.

    Attributes:
        chapters: of a book, as "1-3,5"; empty for all.
        include_matter: a book's front and back matter too.
        lines: each line of a text is a row of a corpus, instead of the whole being a book.
        limit: stop after so many sentences or rows.
    """

    chapters: str = ""
    include_matter: bool = False
    lines: bool = False
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"{self.limit} sentences cannot be read", "give at least 1")


def read_plan(inputs: Sequence[str], reading: Reading, speaking: Speaking, voice: str) -> Plan:
    """Read the inputs and plan the job.

    Args:
        inputs: one book (EPUB, Project Gutenberg, plain text), or tables (JSONL, CSV, TSV, Parquet, lines); local or `s3://`.
        voice: name of the job's voice; a row that asks for another one is set aside.

    Raises:
        TextError: when an input cannot be read, or books and tables are mixed.
        ConfigError: for settings that do not fit the inputs.
    """
    sources = [(_source(path), _base(path)) for path in inputs]
    kinds = ["lines" if reading.lines else detect_format(source, name) for source, name in sources]
    books = [name for (_, name), kind in zip(sources, kinds, strict=True) if kind in BOOKS]
    if not books:
        if reading.chapters:
            raise ConfigError("--chapters chooses from a book, and these are rows", "leave it out")
        rows = _rows(sources, reading.lines, voice)
        return plan_corpus(rows, speaking, ", ".join(name for _, name in sources), reading.limit)
    if len(inputs) > 1:
        raise TextError(
            f"{books[0]} is a book, and a job reads one book",
            "run a job for each, or --lines to read texts line by line",
        )
    source, name = sources[0]
    document = read_document(source, name, include_matter=reading.include_matter)
    if not document.title.strip():
        document = replace(document, title=name.rsplit(".", 1)[0])
    return plan_book(document, speaking, reading.chapters, reading.limit)


def _source(path: str) -> Source:
    if not is_remote(path):
        return path
    try:
        return io.BytesIO(read_input(path))
    except OSError as error:
        raise TextError(f"{path}: cannot be read ({error})", "check the address and the keys") from error


def _base(path: str) -> str:
    return path.rstrip("/").replace("\\", "/").rsplit("/", 1)[-1]


def _rows(sources: Sequence[tuple[Source, str]], lines: bool, voice: str) -> Iterator[TextRow | Unit]:
    stems: set[str] = set()
    for source, name in sources:
        prefix = ""
        if len(sources) > 1:  # ids are unique in a file, not across files, and a/part-0 is not b/part-0
            prefix = f"{unique_name(name.rsplit('.', 1)[0], stems)}-"
        rows: Iterable[TextRow | RowError] = iter_lines(source, name) if lines else iter_rows(source, name)
        for row in rows:
            yield _checked(replace(row, id=prefix + row.id), voice)


def _checked(row: TextRow | RowError, voice: str) -> TextRow | Unit:
    if isinstance(row, RowError):
        return Unit(row.id, "", 0, error=f"row {row.row_number}: {row.reason}")
    if row.voice not in (None, voice):
        reason = f"asks for voice {row.voice}, and this job speaks with {voice}"
        return Unit(row.id, row.text, row.seed or 0, speaker=row.speaker, error=reason)
    return row
