"""Read a book or text of any format as a `Document`."""

from __future__ import annotations

from flowtts_core.errors import TextError
from flowtts_core.text.books.epub import EpubOptions, read_epub
from flowtts_core.text.books.gutenberg import read_gutenberg
from flowtts_core.text.books.plain import read_plain
from flowtts_core.text.books.source import Format, Source, detect_format, detect_head, read_all
from flowtts_core.text.books.tables import RowError, iter_lines, iter_rows
from flowtts_core.text.document import Document
from flowtts_core.text.sentences import Pauses

__all__ = ["Format", "RowError", "Source", "detect_format", "iter_lines", "iter_rows", "read_document"]


def read_document(
    source: Source,
    name: str = "",
    *,
    include_matter: bool = False,
    include_notes: bool = False,
    pauses: Pauses | None = None,
    format: Format | None = None,
) -> Document:
    """Read a book or text.

    Args:
        source: a path, or bytes or an open binary file with a `name`, whose extension helps to detect the format.
        include_matter: read front and back matter too (title page, imprint, contents, dedication, index).
        include_notes: read footnotes and endnotes too, at their places. Note marks in the text are never read.
        format: "epub", "gutenberg" or "plain"; None detects it from content and name.

    Raises:
        TextError: when the file cannot be read or holds no text. Lesser faults are in `Document.warnings`.
    """
    data, found = read_all(source, name)
    if not data.strip():
        raise TextError(f"{found}: the file is empty", "give a file with words in it")
    kind = format or detect_head(data[:65_536], found)
    if kind == "epub":
        return read_epub(data, found, EpubOptions(include_matter, include_notes), pauses)
    if kind == "gutenberg":
        return read_gutenberg(data, found, include_matter, include_notes, pauses)
    if kind == "plain":
        return read_plain(data, found, pauses=pauses)
    raise TextError(
        f"{found}: a {kind} table and no book", "its rows are read one by one, each an utterance of its own"
    )
