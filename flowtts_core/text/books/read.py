"""Read a book or text of any format as a `Document`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from flowtts_core.errors import TextError
from flowtts_core.text.books.epub import EpubOptions, read_epub
from flowtts_core.text.books.formats import BOOKS, HEAD, Format, detect_head, misnamed
from flowtts_core.text.books.gutenberg import read_gutenberg
from flowtts_core.text.books.kindle import kindle_as_epub
from flowtts_core.text.books.markup import Markup, docx_markup, html_markup, markdown_markup, read_markup, read_rtf
from flowtts_core.text.books.pdf import read_pdf
from flowtts_core.text.books.plain import read_plain
from flowtts_core.text.books.source import Source, detect_format, read_all
from flowtts_core.text.books.ssml import read_ssml
from flowtts_core.text.books.tables import RowError, iter_lines, iter_rows
from flowtts_core.text.books.xml_books import fb2_markup, odt_markup
from flowtts_core.text.document import Document
from flowtts_core.text.sentences import Pauses

__all__ = ["Format", "RowError", "Source", "detect_format", "iter_lines", "iter_rows", "read_document"]


def read_document(
    source: Source,
    name: str = "",
    *,
    include_matter: bool = False,
    include_notes: bool = False,
    notes_last: bool = False,
    pauses: Pauses | None = None,
    format: Format | None = None,
) -> Document:
    """Read a book or text.

    Args:
        source: a path, or bytes or an open binary file with a `name`, whose extension helps to detect the format.
        include_matter: read front and back matter too (title page, imprint, contents, dedication, index).
        include_notes: read footnotes and endnotes too, at their places. Note marks in the text are never read.
        notes_last: read them at the end of their chapter instead.
        format: one of `BOOKS`; None detects it from content and name.

    Raises:
        TextError: when the file cannot be read or holds no text. Lesser faults are in `Document.warnings`.
        DependencyError: for PDF without pypdf, and Kindle books without Calibre.
    """
    data, found = read_all(source, name)
    if not data.strip():
        raise TextError(f"{found}: the file is empty", "give a file with words in it")
    kind = format or detect_head(data[:HEAD], found)
    if kind not in BOOKS:
        raise TextError(
            f"{found}: a {kind} table and no book", "its rows are read one by one, each an utterance of its own"
        )
    document = _read(kind, data, found, EpubOptions(include_matter, include_notes, notes_last), pauses)
    told = "" if format else misnamed(kind, found)
    return replace(document, warnings=(told, *document.warnings)) if told else document


def _read(kind: Format, data: bytes, name: str, options: EpubOptions, pauses: Pauses | None) -> Document:
    if kind in ("epub", "kindle"):
        return read_epub(kindle_as_epub(data, name) if kind == "kindle" else data, name, options, pauses)
    if kind == "gutenberg":
        return read_gutenberg(data, name, options.include_matter, options.include_notes, pauses, options.notes_last)
    if kind == "pdf":
        return read_pdf(data, name, options.include_matter, pauses)
    if kind == "ssml":
        return read_ssml(data, name, pauses)
    if kind == "rtf":
        return read_rtf(data, name, pauses)
    if kind in _MARKUP:
        return read_markup(_MARKUP[kind](data, name), name, options, pauses)
    return read_plain(data, name, pauses=pauses)


_MARKUP: dict[str, Callable[[bytes, str], Markup]] = {
    "html": html_markup,
    "markdown": markdown_markup,
    "docx": docx_markup,
    "odt": odt_markup,
    "fb2": fb2_markup,
}
