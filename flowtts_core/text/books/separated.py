"""Read CSV and TSV: what parts the cells (comma, semicolon, tab or bar) and how they are encoded is found in the file."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from typing import BinaryIO

from flowtts_core.errors import TextError
from flowtts_core.text.books.columns import Columns
from flowtts_core.text.books.records import BadRow, Records, Told, codec_of, read_lines

_LJSPEECH = ("id", "text", "normalized")  # of lines with bars and no header
_SIGNS = ("\t", "|", ";", ",")
_SEP = re.compile(r"\"?sep=(.)\"?\s*", re.IGNORECASE)  # a line that spreadsheets write before the header


def csv_records(file: BinaryIO, name: str, columns: Columns, told: Told) -> tuple[Columns, Records]:
    """Return the columns as the table calls them, and its records.

    Raises:
        TextError: when it has no such column, or its encoding is unknown.
    """
    codec = codec_of(file, name, told)
    start = file.tell()
    lines = (line for _, line in read_lines(file, codec) if isinstance(line, str))
    first = next(lines, "")
    given = _SEP.fullmatch(first)
    header = next(lines, "") if given else first
    lines.close()
    file.seek(start)
    sign = given[1] if given else sign_of(header, columns)
    rows = _cells(file, sign, codec)
    if given:
        next(rows, None)
    if not re.match(r"[\w./-]+\|", header) or sign != "|":
        names = next(rows, None)
        if isinstance(names, BadRow):
            raise TextError(f"{name}: its header cannot be read ({names})", "save it as CSV in UTF-8 with a header")
        names = [cell.strip() for cell in names or ()]
        found = columns.found(names, name)
        return found, _records(rows, names, found.id)
    named = [cell.strip() for cell in header.split("|")]
    if columns.named_in(named):
        next(rows, None)
    else:
        named = list(_LJSPEECH)
    found = columns.found(named, name)
    return found, _records(rows, named, found.id, may_lack=True)


def sign_of(header: str, columns: Columns) -> str:
    """Return what parts the cells of a header: the sign by which it has a column of texts, or else the most cells.

    Bars do so only after a word: they stand in texts, too. A line with such that names no column is a record of LJSpeech.
    """
    signs = [sign for sign in _SIGNS if sign != "|" or re.match(r"[\w./-]+\|", header)]
    cells = {sign: [cell.strip() for cell in cells_of(header, sign)] for sign in signs}
    return max(signs, key=lambda sign: (columns.named_in(cells[sign]), sign == "|", len(cells[sign])))


def cells_of(line: str, sign: str) -> list[str]:
    """Return the cells of one line; the whole line where it is no CSV."""
    try:
        return next(csv.reader([line], delimiter=sign), [])
    except csv.Error:
        return [line]


def _records(rows: Iterator[list[str] | BadRow], header: list[str], id_column: str, may_lack: bool = False) -> Records:
    for number, cells in enumerate(rows, 1):
        if isinstance(cells, BadRow):
            yield number, cells
        elif len(cells) > len(header) or (len(cells) < len(header) and not may_lack):
            identity = dict(zip(header, cells, strict=False)).get(id_column) or ""
            yield number, BadRow(f"{len(cells)} columns where the header has {len(header)}", identity)
        else:
            yield number, dict(zip(header, cells, strict=False))


def _cells(file: BinaryIO, sign: str, codec: str) -> Iterator[list[str] | BadRow]:
    """Yield the cells of each record. A file of tabs or bars has one record per line; others quote cells."""
    if sign in "\t|":
        for _, line in read_lines(file, codec):
            yield line if isinstance(line, BadRow) else [_unquoted(cell) for cell in line.split(sign)]
        return
    wrapper = io.TextIOWrapper(file, codec, "replace" if codec == "utf-16" else "surrogateescape", newline="")
    try:
        reader = csv.reader(wrapper, delimiter=sign)
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield BadRow(f"bad CSV ({error})")
                continue
            if cells:
                yield cells
    finally:
        if not file.closed:  # where the caller stopped before the last row
            wrapper.detach()  # otherwise the wrapper would close the caller's file


def _unquoted(cell: str) -> str:
    """Return a cell without a spreadsheet's quoting ("He said ""no""."). Quotes that belong to the text stay."""
    inner = cell[1:-1]
    if len(cell) > 2 and cell[0] == cell[-1] == '"' and '""' in inner and '"' not in inner.replace('""', ""):
        return inner.replace('""', '"')
    return cell
