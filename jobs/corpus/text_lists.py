"""Lists of clips as text, a line each: their records, and what each column holds."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flowtts_core.errors import ConfigError, TextError
from jobs.corpus.columns import UNUSED, Reading, by_evidence, by_name, is_header, usual_width
from jobs.corpus.source import shown

FORMS = {  # layout -> the columns of its lists; a layout may have several
    "ljspeech": (("id", "text", "normalised"),),
    "piper": (("id", "text"), ("id", "speaker", "text")),
    "vits": (("audio", "text"), ("audio", "speaker", "text")),
    "styletts2": (("audio", "text", "speaker"),),
}
Numbered = tuple[int, list[str]]  # a line's number from 1, and its cells


@dataclass(frozen=True)
class TextList:
    """A list as it was read.

    Attributes:
        layout: its name in `jobs.corpus.clips.LAYOUTS`.
        roles: of each column.
        sign: what parts the columns.
        names: of each column, where the first line has them.
        rows: the records, each with the number of its line.
    """

    layout: str
    roles: tuple[str, ...]
    sign: str
    names: tuple[str, ...]
    rows: list[Numbered]

    def problem(self, cells: Sequence[str]) -> str:
        """Return why a record cannot be read; empty where it can."""
        values = self.values(cells)
        if len(cells) < 2 or "text" not in values or not (values.get("id") or values.get("audio")):
            return f"not `{'|'.join(self.names or self.roles[:2])}`"
        if len(cells) > len(self.roles) or (self.names and len(cells) < len(self.roles)):
            quoted = " without quotes" if self.names else ""
            why = f": a text cannot hold {self.sign!r}{quoted}" if len(cells) > len(self.roles) else ""
            return f"{len(cells)} columns where the list has {len(self.roles)}{why}"
        return ""

    def values(self, cells: Sequence[str]) -> dict[str, str]:
        """Return the cells of a record by role; the normalised text, where there is one, is the text."""
        values = {role: cell for role, cell in zip(self.roles, cells, strict=False) if role != UNUSED}
        normalised = values.pop("normalised", "")
        return {**values, "text": normalised} if normalised else values


def parse_list(
    name: str, lines: Sequence[str], has_audio: Callable[[str], bool], reading: Reading | None = None, form: str = ""
) -> TextList:
    """Read a list. Its columns have names in the first line, or are known by `--columns`, the layout or the rows.

    Commas part the columns of CSV alone, with its quotes; in a list without names quotes belong to the text, as in LJSpeech's.

    Args:
        name: the file, for errors.
        has_audio: whether an id or path names an audio file.
        reading: what the user says of it.
        form: a name of `FORMS`, where the user gave one.

    Raises:
        TextError: when nothing decides which column is which.
        ConfigError: when what the user said does not fit the list.
    """
    reading = reading or Reading()
    first = next((line for line in lines if line.strip()), "")
    sign = delimiter_of(first)
    if not first:
        return TextList(form or "list", (), sign, (), [])
    if not form and is_header(csv_cells(first, sign), reading):
        return _with_names(name, lines, sign, reading)
    if reading.names:
        raise ConfigError(
            f"{name}: its first line names no column {' or '.join(reading.names.values())}: {first[:200]}",
            "name the columns in the first line, or give --columns",
        )
    if sign == "," and not reading.columns:
        raise TextError(
            f"{name}: the first line names no columns for audio and text: {first[:200]}",
            "name the columns in the first line, as file_name,text, or give --columns or --text-column and --audio-column",
        )
    rows = [(number, _cells(line, sign)) for number, line in enumerate(lines, 1) if line.strip()]
    roles = _roles(name, [cells for _, cells in rows], reading, form, has_audio)
    return TextList(form or _layout(roles), roles, sign, (), rows)


def lines_of(name: str, data: bytes) -> list[str]:
    """Return the lines of a file; only a line feed, with or without a carriage return, ends one.

    Raises:
        TextError: when it is not UTF-8; it names the line.
    """
    try:
        return [line.removesuffix("\r") for line in data.decode("utf-8-sig").split("\n")]
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise TextError(f"{name}, line {line}: not UTF-8 ({error.reason})", "save the file as UTF-8") from None


def delimiter_of(line: str) -> str:
    """Return what stands between the columns of a list, as its first line shows."""
    return next((sign for sign in ("|", "\t") if sign in line), ",")


def csv_cells(line: str, sign: str) -> list[str]:
    """Return the cells of a line of CSV; the whole line where it is none."""
    try:
        return next(csv.reader([line], delimiter=sign), [])
    except csv.Error:
        return [line]


def _cells(line: str, sign: str) -> list[str]:
    cells = csv_cells(line, sign) if sign == "," else line.split(sign)
    return [cell.strip() for cell in cells]


def _roles(
    name: str, rows: Sequence[Sequence[str]], reading: Reading, form: str, has_audio: Callable[[str], bool]
) -> tuple[str, ...]:
    """Return the role of each column of a list without names."""
    width = usual_width(rows)
    if reading.columns:
        if len(reading.columns) != width:
            raise ConfigError(
                f"--columns {','.join(reading.columns)}: {name} has {width} columns", _question(rows, "name each")
            )
        return reading.columns
    if form:
        fitting = [
            roles for roles in FORMS[form] if len(roles) == width or (width == 2 and roles[2:] == ("normalised",))
        ]
        if not fitting:
            forms = " or ".join("|".join(roles) for roles in FORMS[form])
            raise ConfigError(
                f"{name}: {width} columns, where {form} has {forms}", _question(rows, "leave --layout out")
            )
        return fitting[0]
    if usual_width(rows) < 2:
        raise TextError(f"{name}: no list of clips", "give a list with id|text, or a header that names its columns")
    roles = by_evidence(rows, has_audio)
    if roles is None:
        what = f"{name}: the rows do not show which of the {width} columns holds what"
        raise TextError(what, _question(rows, "say which is which"))
    return roles


def _question(rows: Sequence[Sequence[str]], request: str) -> str:
    example = {2: "id,text", 3: "id,text,speaker"}.get(usual_width(rows), "id,speaker,text,-")
    names = example.replace(",", "|")
    asked = f"{request}, by --columns {example}, by --layout, or in a first line {names}. The first rows:"
    return "\n".join([asked, *shown(rows[:3])])


def _layout(roles: tuple[str, ...]) -> str:
    return next((name for name, forms in FORMS.items() if roles in forms), "list")


def _with_names(name: str, lines: Sequence[str], sign: str, reading: Reading) -> TextList:
    (_, header), *rows = _csv_records(name, lines) if sign == "," else _plain_records(lines, sign)
    names = by_name(header, reading, name)
    layout = "audiofolder" if names.get("audio") == "file_name" else {"|": "coqui", "\t": "tsv"}.get(sign, "csv")
    roles = {column: role for role, column in names.items()}
    return TextList(layout, tuple(roles.get(column, UNUSED) for column in header), sign, tuple(header), rows)


def _csv_records(name: str, lines: Sequence[str]) -> list[Numbered]:
    """Return the records of CSV and the line where each ends; a quoted cell may hold commas, quotes and line feeds."""
    reader = csv.reader((f"{line}\n" for line in lines), strict=True)
    records: list[Numbered] = []
    began = 0
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                records.append((reader.line_num, [cell.strip() for cell in cells]))
            began = reader.line_num
    except csv.Error as error:
        raise TextError(f"{name}, line {began + 1}: bad CSV ({error})", "check the quotes of that record") from error
    return records


def _plain_records(lines: Sequence[str], sign: str) -> list[Numbered]:
    """Return the records of a list with names between bars or tabs, one a line; quotes are for cells that need them."""
    records: list[Numbered] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            cells, quoted = line.split(sign), csv_cells(line, sign)
            width = len(records[0][1]) if records else len(cells)
            chosen = quoted if len(cells) != width == len(quoted) else [_unquoted(cell) for cell in cells]
            records.append((number, [cell.strip() for cell in chosen]))
    return records


def _unquoted(cell: str) -> str:
    """Return a cell without a spreadsheet's quoting ("He said ""no""."). Quotes that belong to the text stay."""
    inner = cell[1:-1]
    if len(cell) > 2 and cell[0] == cell[-1] == '"' and '""' in inner and '"' not in inner.replace('""', ""):
        return inner.replace('""', '"')
    return cell
