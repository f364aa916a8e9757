"""Read tables (JSONL, CSV, TSV, Parquet, lines) into rows of text. A bad row becomes an error, and the rest goes on."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from flowtts_core.errors import FlowTTSError, TextError
from flowtts_core.request import REQUEST_FIELDS
from flowtts_core.text.books.formats import TABLES, Format
from flowtts_core.text.books.source import Source, detect_format, opened
from flowtts_core.text.document import TextRow

_MAX_LINE = 16 << 20  # bytes; a longer line is refused
_BAD = re.compile("[\x00\ud800-\udfff]")
SETTINGS: Final = ("voice", *REQUEST_FIELDS)
_SET = frozenset(SETTINGS)


@dataclass(frozen=True)
class RowError:
    """A row that cannot be read.

    Attributes:
        id: the row's id, or one made from its number.
        row_number: counted from 1: the line of a JSONL or lines file, or the record after the header of a table.
    """

    id: str
    row_number: int
    reason: str


class _BadRow(Exception):
    """A row cannot be used; the message says why. `row_id` is the row's id if it has one."""

    def __init__(self, reason: str, row_id: str = "") -> None:
        super().__init__(reason)
        self.row_id = row_id


Records = Iterator[tuple[int, "dict[str, Any] | _BadRow"]]


def iter_rows(
    source: Source,
    name: str = "",
    *,
    text_column: str = "text",
    id_column: str = "id",
    format: Format | None = None,
    doubles: bool = False,
) -> Iterator[TextRow | RowError]:
    """Yield the rows of a JSONL, CSV, TSV or Parquet file in order, as a stream.

    Columns are `text_column` and, if present, `id_column` and those of `SETTINGS`. A file of `id|text|normalized` lines
    without a header (LJSpeech's) has those three columns.

    Args:
        source: a path, or bytes or an open seekable binary file with a `name`.
        format: one of the four; None detects it from content and name.
        doubles: accept rows with an id that occurred before, for a caller that checks ids over several files.

    Raises:
        TextError: when the file is no such table or lacks the text column. A bad row (bad JSON, missing, empty or wrong-typed
            text, doubled id, invalid characters) is a `RowError`, and the next one follows.
    """
    with opened(source, name) as (file, found):
        kind = format or detect_format(file, found)
        if kind not in TABLES:
            raise TextError(f"{found}: a {kind} text and no table", "read it as a book, or line by line")
        if kind == "jsonl":
            records = _json_records(file)
        elif kind == "parquet":
            records = _parquet_records(file, found, text_column, id_column)
        else:
            records = _csv_records(file, found, kind, text_column)
        yield from _checked(records, text_column, id_column, doubles=doubles)


def iter_lines(source: Source, name: str = "") -> Iterator[TextRow | RowError]:
    """Yield each line of a text file that is not blank as an utterance. Ids are line numbers ("line-00000012")."""
    with opened(source, name) as (file, _):
        records = ((n, line if isinstance(line, _BadRow) else {"text": line}) for n, line in _lines(file))
        yield from _checked(records, "text", "id", prefix="line")


def _checked(
    records: Records, text_column: str, id_column: str, prefix: str = "row", doubles: bool = False
) -> Iterator[TextRow | RowError]:
    seen: set[str] = set()
    for number, record in records:
        try:
            if isinstance(record, _BadRow):
                raise record
            row = _row(record, prefix, number, text_column, id_column)
            if not doubles:
                if row.id in seen:
                    raise _BadRow(f"id {row.id!r} occurs twice", row.id)
                seen.add(row.id)
            yield row
        except _BadRow as error:
            yield RowError(error.row_id or f"{prefix}-{number:08d}", number, str(error))


def _row(record: dict[str, Any], prefix: str, number: int, text_column: str, id_column: str) -> TextRow:
    identity = record.get(id_column)
    if identity is None or identity == "":
        row_id = f"{prefix}-{number:08d}"
    elif isinstance(identity, str | int) and not isinstance(identity, bool):
        row_id = str(identity)
        if _BAD.search(row_id):
            raise _BadRow(f"id {row_id!r} holds a character that is none")
    else:
        raise _BadRow(f"id must be text or a whole number, not {identity!r}"[:200])
    try:
        text = record.get(text_column)
        if text is None:
            raise _BadRow(f"no {text_column!r}")
        if not isinstance(text, str):
            raise _BadRow(f"{text_column!r} must be text, not {type(text).__name__}")
        bad = _BAD.search(text)
        if bad:
            what = "a null byte" if bad[0] == "\0" else f"half a character (U+{ord(bad[0]):04X}, a wrong encoding)"
            raise _BadRow(f"{text_column!r} holds {what} at character {bad.start()}")
        if not text.strip():
            raise _BadRow(f"{text_column!r} is empty")
        if not record.keys() & _SET:
            return TextRow(row_id, text)
        settings = {name: REQUEST_FIELDS[name].parse(record[name]) for name in record.keys() & _SET if name != "voice"}
        return TextRow(row_id, text, _name(record), {name: v for name, v in settings.items() if v is not None})
    except FlowTTSError as error:
        raise _BadRow(error.message, row_id) from None
    except _BadRow as error:
        raise _BadRow(str(error), row_id) from None


def _name(record: dict[str, Any]) -> str | None:
    value = record.get("voice")
    if value is None or value == "":
        return None
    if not isinstance(value, str) or _BAD.search(value):
        raise _BadRow(f"'voice' must be text, not {value!r}"[:200])
    return value


def _lines(file: BinaryIO) -> Iterator[tuple[int, str | _BadRow]]:
    """Yield (line number, text) of lines that are not blank. Bytes that are not UTF-8 become lone surrogates."""
    start = file.tell()
    mark = file.read(2)
    file.seek(start)
    if mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        whole = file.read().decode("utf-16", "replace").split("\n")
        yield from ((n, line.rstrip("\r")) for n, line in enumerate(whole, 1) if line.strip())
        return
    number = 0
    while line := file.readline(_MAX_LINE):
        number += 1
        if len(line) == _MAX_LINE and not line.endswith(b"\n"):
            while (rest := file.readline(_MAX_LINE)) and not rest.endswith(b"\n"):
                pass
            yield number, _BadRow(f"a line longer than {_MAX_LINE >> 20} MiB")
            continue
        text = line.decode("utf-8", "surrogateescape").removeprefix("\ufeff" if number == 1 else "")
        if text.strip():
            yield number, text.rstrip("\r\n")


def _json_records(file: BinaryIO) -> Records:
    for number, line in _lines(file):
        if isinstance(line, _BadRow):
            yield number, line
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, _BadRow(f"bad JSON ({error})"[:200])
            continue
        yield (
            number,
            value if isinstance(value, dict) else _BadRow(f"a JSON object is wanted, not {type(value).__name__}"),
        )


def _csv_records(file: BinaryIO, name: str, kind: str, text_column: str) -> Records:
    start = file.tell()
    first = next((line for _, line in _lines(file) if isinstance(line, str)), "")
    file.seek(start)
    pipes = kind == "csv" and re.match(r"[\w./-]+\|", first) is not None
    header: list[str] | None = ["id", "text", "normalized"] if pipes and text_column not in first.split("|") else None
    number = 0
    for cells in _cells(file, "|" if pipes else "\t" if kind == "tsv" else ","):
        if header is None:
            if isinstance(cells, _BadRow):
                raise TextError(f"{name}: its header cannot be read ({cells})", "save it as CSV in UTF-8 with a header")
            header = [cell.strip() for cell in cells]
            _require(header, text_column, name)
            continue
        number += 1
        if isinstance(cells, _BadRow):
            yield number, cells
        elif len(cells) > len(header) or (len(cells) < len(header) and not pipes):
            identity = dict(zip(header, cells, strict=False)).get("id") or ""
            yield number, _BadRow(f"{len(cells)} columns where the header has {len(header)}", identity)
        else:
            yield number, dict(zip(header, cells, strict=False))
    if header is None:
        _require([], text_column, name)


def _require(columns: list[str], text_column: str, name: str) -> None:
    if text_column not in columns:
        raise TextError(
            f"{name}: no column {text_column!r}; it has: {', '.join(map(repr, columns[:20])) or 'none'}",
            f"call the column that holds the text {text_column!r}",
        )


def _cells(file: BinaryIO, separator: str) -> Iterator[list[str] | _BadRow]:
    """Yield the cells of each record. Only CSV has quoting; a file of tabs or pipes has one record per line."""
    if separator != ",":
        for _, line in _lines(file):
            yield line if isinstance(line, _BadRow) else [_unquoted(cell) for cell in line.split(separator)]
        return
    start = file.tell()
    codec = "utf-16" if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
    file.seek(start)
    wrapper = io.TextIOWrapper(file, codec, "surrogateescape" if codec == "utf-8-sig" else "replace", newline="")
    try:
        reader = csv.reader(wrapper)
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield _BadRow(f"bad CSV ({error})")
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


def _parquet_records(file: BinaryIO, name: str, text_column: str, id_column: str) -> Records:
    remedy = "copy the file again, or write it anew"
    try:
        table = pq.ParquetFile(file)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise TextError(f"{name}: damaged Parquet ({str(error).splitlines()[0]})", remedy) from error
    columns = table.schema_arrow.names
    _require(columns, text_column, name)
    wanted = [c for c in dict.fromkeys((id_column, text_column, *SETTINGS)) if c in columns]
    number = 0
    try:
        for batch in table.iter_batches(batch_size=1024, columns=wanted):
            for record in batch.to_pylist():
                number += 1
                yield number, record
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        cause = str(error).splitlines()[0]
        raise TextError(f"{name}: damaged Parquet after row {number} ({cause})", remedy) from error
