"""Read tables (JSONL, CSV, TSV, Parquet, lines) into rows of text. A bad row becomes an error, and the rest goes on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from flowtts_core.errors import FlowTTSError, TextError
from flowtts_core.request import REQUEST_FIELDS
from flowtts_core.text.books.columns import ID_NAMES, Columns
from flowtts_core.text.books.cues import ReadCue, read_cues
from flowtts_core.text.books.decode import decode_text
from flowtts_core.text.books.formats import TABLES, Format, is_json_array
from flowtts_core.text.books.records import BadRow, Records, Told, codec_of, read_lines
from flowtts_core.text.books.separated import csv_records
from flowtts_core.text.books.source import Source, detect_format, opened
from flowtts_core.text.document import TextRow

_BAD = re.compile("[\x00\ud800-\udfff]")
SETTINGS: Final = ("voice", *REQUEST_FIELDS)
OPTIONS: Final = {f.option: name for name, f in REQUEST_FIELDS.items() if f.option}  # other names of such columns
_SET = frozenset((*SETTINGS, *OPTIONS))
_PARQUET_REMEDY = "copy the file again, or write it anew"


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


def _silent(what: str) -> None:
    """Tell nobody."""


def iter_rows(
    source: Source,
    name: str = "",
    *,
    text_column: str = "",
    id_column: str = "",
    format: Format | None = None,
    doubles: bool = False,
    told: Told = _silent,
) -> Iterator[TextRow | RowError]:
    """Yield the rows of a JSONL, JSON, CSV, TSV or Parquet file, or the cues of subtitles (SRT, VTT), in order, as a stream.

    Columns are those of the text, the id and `SETTINGS`. What parts the cells of CSV, and its encoding, are found in the
    file; one of `id|text|normalized` lines without a header (LJSpeech's) has those three columns.

    Args:
        source: a path, or bytes or an open seekable binary file with a `name`.
        text_column, id_column: their names; "" takes those that are known (`flowtts_core.text.books.columns`).
        format: one of `TABLES`; None detects it from content and name.
        doubles: accept rows with an id that occurred before, for a caller that checks ids over several files.
        told: is told what was found out about the file beside its rows.

    Raises:
        TextError: when the file is no such table or lacks the text column. A bad row (bad JSON, missing, empty or wrong-typed
            text, doubled id, invalid characters) is a `RowError`, and the next one follows.
    """
    asked = Columns(text_column, id_column)
    with opened(source, name) as (file, found):
        kind = format or detect_format(file, found)
        if kind not in TABLES:
            raise TextError(f"{found}: a {kind} text and no table", "read it as a book, or line by line")
        if kind in ("srt", "vtt"):
            yield from _cue_rows(file, found, told)
            return
        if kind == "jsonl":
            columns, records = _json_columns(file, found, asked), _json_records(file, found)
        elif kind == "parquet":
            columns, records = _parquet_records(file, found, asked)
        else:
            columns, records = csv_records(file, found, asked, told)
        if not text_column and columns.text != "text":
            told(f"{found}: the texts are those of the column {columns.text!r}")
        yield from _checked(records, columns.text, columns.id, doubles=doubles)


def iter_lines(source: Source, name: str = "", told: Told = _silent) -> Iterator[TextRow | RowError]:
    """Yield each line of a text file that is not blank as an utterance. Ids are line numbers ("line-00000012")."""
    with opened(source, name) as (file, found):
        lines = read_lines(file, codec_of(file, found, told))
        records = ((n, line if isinstance(line, BadRow) else {"text": line}) for n, line in lines)
        yield from _checked(records, "text", "id", prefix="line")


def _cue_rows(file: BinaryIO, name: str, told: Told) -> Iterator[TextRow | RowError]:
    text, warnings = decode_text(file.read(), name)
    for warning in warnings:
        told(f"{name}: {warning}")
    cues = list(read_cues(text))
    names = dict.fromkeys(name for cue in cues for _, name in cue.voices if name)
    if names:
        told(f"{name}: its cues are said by {', '.join(names)}: a cast (--cast) gives each a voice")
    for count, cue in enumerate(cues, 1):
        id = f"cue-{count:06d}"
        if cue.problem:
            yield RowError(id, count, cue.problem)
        else:
            yield from _by_character(id, cue)
    if not cues:
        raise TextError(
            f"{name}: no cues in these subtitles",
            "is the file whole? A cue has a line as 00:00:01,000 --> 00:00:02,000",
        )


def _by_character(id: str, cue: ReadCue) -> Iterator[TextRow]:
    """Yield a row for each of those who speak in a cue, whom different voices may read; they share its times."""
    turns = cue.voices if cue.voices and cue.voices[0][0] == 0 else ((0, ""), *cue.voices)
    ends = [*(place for place, _ in turns[1:]), len(cue.text)]
    for number, ((start, name), end) in enumerate(zip(turns, ends, strict=True), 1):
        own = id if number == 1 else f"{id}-{number}"
        yield TextRow(own, cue.text[start:end].strip(), cue=(cue.start_s, cue.end_s), character=name)


def _checked(
    records: Records, text_column: str, id_column: str, prefix: str = "row", doubles: bool = False
) -> Iterator[TextRow | RowError]:
    seen: set[str] = set()
    for number, record in records:
        try:
            if isinstance(record, BadRow):
                raise record
            row = _row(record, prefix, number, text_column, id_column)
            if not doubles:
                if row.id in seen:
                    raise BadRow(f"id {row.id!r} occurs twice", row.id)
                seen.add(row.id)
            yield row
        except BadRow as error:
            yield RowError(error.row_id or f"{prefix}-{number:08d}", number, str(error))


def _row(record: dict[str, Any], prefix: str, number: int, text_column: str, id_column: str) -> TextRow:
    identity = record.get(id_column)
    if identity is None or identity == "":
        row_id = f"{prefix}-{number:08d}"
    elif isinstance(identity, str | int) and not isinstance(identity, bool):
        row_id = str(identity)
        if _BAD.search(row_id):
            raise BadRow(f"id {row_id!r} holds a character that is none")
    else:
        raise BadRow(f"id must be text or a whole number, not {identity!r}"[:200])
    try:
        text = record.get(text_column)
        if text is None:
            raise BadRow(f"no {text_column!r}")
        if not isinstance(text, str):
            raise BadRow(f"{text_column!r} must be text, not {type(text).__name__}")
        bad = _BAD.search(text)
        if bad:
            what = "a null byte" if bad[0] == "\0" else f"half a character (U+{ord(bad[0]):04X}, a wrong encoding)"
            raise BadRow(f"{text_column!r} holds {what} at character {bad.start()}")
        if not text.strip():
            raise BadRow(f"{text_column!r} is empty")
        if not record.keys() & _SET:
            return TextRow(row_id, text)
        settings: dict[str, Any] = {}
        for column in record.keys() & _SET - {"voice"}:
            name = OPTIONS.get(column, column)
            value = REQUEST_FIELDS[name].parse(record[column])
            if value is not None and settings.setdefault(name, value) != value:
                raise BadRow(f"{column!r} and {name!r} say two things")
        return TextRow(row_id, text, _name(record), {name: v for name, v in settings.items() if v is not None})
    except FlowTTSError as error:
        raise BadRow(error.message, row_id) from None
    except BadRow as error:
        raise BadRow(str(error), row_id) from None


def _name(record: dict[str, Any]) -> str | None:
    value = record.get("voice")
    if value is None or value == "":
        return None
    if not isinstance(value, str) or _BAD.search(value):
        raise BadRow(f"'voice' must be text, not {value!r}"[:200])
    return value


def _json_columns(file: BinaryIO, name: str, asked: Columns) -> Columns:
    """Return the columns by the first object; where that has none for texts, each row is told so."""
    start = file.tell()
    first = next((record for _, record in _json_records(file, name) if isinstance(record, dict)), {})
    file.seek(start)
    try:
        return asked.found(list(first), name)
    except TextError:
        return Columns(asked.text or "text", asked.id or ID_NAMES[0])


def _json_records(file: BinaryIO, name: str) -> Records:
    start = file.tell()
    first = next((line for _, line in read_lines(file)), "")
    file.seek(start)
    if isinstance(first, str) and (first.lstrip()[:1] == "[" or first.strip() == "{"):
        whole = _whole_json(file, name)
        if whole is not None:
            yield from enumerate(whole, 1)
            return
        file.seek(start)
    for number, line in read_lines(file):
        if isinstance(line, BadRow):
            yield number, line
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, BadRow(f"bad JSON ({error})"[:200])
            continue
        yield number, value if isinstance(value, dict) else _no_object(value)


def _whole_json(file: BinaryIO, name: str) -> list[dict[str, Any] | BadRow] | None:
    """Return the records of a file that is one JSON value: an array of objects or texts, or one object over several lines.

    None for a file of a value in each line.

    Raises:
        TextError: for damaged JSON.
    """
    lines = [line for _, line in read_lines(file)]
    if any(isinstance(line, BadRow) for line in lines):
        return None
    text = "\n".join(map(str, lines))
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        if not is_json_array(text) or _is_json(str(lines[0])):
            return None
        raise TextError(
            f"{name}: damaged JSON ({error})"[:300], "mend it, or write an object in each line (JSONL)"
        ) from error
    if isinstance(value, list) and not any(isinstance(item, str | dict) for item in value):
        return None
    items = value if isinstance(value, list) else [value]
    return [
        {"text": item} if isinstance(item, str) else item if isinstance(item, dict) else _no_object(item)
        for item in items
    ]


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _no_object(value: Any) -> BadRow:
    return BadRow(f"a JSON object is wanted, not {type(value).__name__}")


def _parquet_records(file: BinaryIO, name: str, asked: Columns) -> tuple[Columns, Records]:
    try:
        table = pq.ParquetFile(file)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise TextError(f"{name}: damaged Parquet ({str(error).splitlines()[0]})", _PARQUET_REMEDY) from error
    names = table.schema_arrow.names
    columns = asked.found(names, name)
    wanted = [c for c in dict.fromkeys((columns.id, columns.text, *SETTINGS, *OPTIONS)) if c in names]
    return columns, _parquet_rows(table, name, wanted)


def _parquet_rows(table: pq.ParquetFile, name: str, wanted: list[str]) -> Records:
    number = 0
    try:
        for batch in table.iter_batches(batch_size=1024, columns=wanted):
            for record in batch.to_pylist():
                number += 1
                yield number, record
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        cause = str(error).splitlines()[0]
        raise TextError(f"{name}: damaged Parquet after row {number} ({cause})", _PARQUET_REMEDY) from error
