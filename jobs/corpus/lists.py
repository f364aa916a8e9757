"""Lists of clips: lines of text with `|`, tabs or commas between the columns, JSON lines, and Parquet."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flowtts_core.errors import ConfigError, TextError
from jobs.corpus.columns import UNUSED, Reading, by_evidence, by_name, is_header, usual_width
from jobs.corpus.find_audio import AudioFinder
from jobs.corpus.source import AUDIO_SUFFIXES, Corpus, SourceClip, shown

FORMS = {  # layout -> the columns of its lists; a layout may have several
    "ljspeech": (("id", "text", "normalised"),),
    "piper": (("id", "text"), ("id", "speaker", "text")),
    "vits": (("audio", "text"), ("audio", "speaker", "text")),
    "styletts2": (("audio", "text", "speaker"),),
}
Numbered = tuple[int, list[str]]  # a line's number from 1, and its cells


def read_lines(file: Path) -> list[str]:
    """Return the lines of a file; only a line feed, with or without a carriage return, ends one.

    Raises:
        TextError: when it is not UTF-8; it names the line.
    """
    data = file.read_bytes()
    try:
        return [line.removesuffix("\r") for line in data.decode("utf-8-sig").split("\n")]
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise TextError(f"{file}, line {line}: not UTF-8 ({error.reason})", "save the file as UTF-8") from None


def delimiter_of(line: str) -> str:
    """Return what stands between the columns of a list, as its first line shows."""
    return next((sign for sign in ("|", "\t") if sign in line), ",")


def read_list(file: Path, reading: Reading, form: str = "") -> Corpus:
    """Read a list of text. Its columns have names in the first line, or are known by `--columns`, the layout or the rows.

    A list with names is CSV, with its quotes. In one without, quotes belong to the text, as in LJSpeech's.

    Args:
        form: a name of `FORMS`, where the user gave one.

    Raises:
        TextError: when nothing decides which column is which.
        ConfigError: when what the user said does not fit the list.
    """
    lines = read_lines(file)
    first = next((line for line in lines if line.strip()), "")
    sign, finder = delimiter_of(first), AudioFinder(file.parent)
    cells = next(csv.reader([first], delimiter=sign), [])
    if not form and is_header(cells, reading):
        return _with_names(file, lines, sign, reading, finder)
    if reading.names:
        raise ConfigError(
            f"{file}: its first line names no column {' or '.join(reading.names.values())}: {first[:200]}",
            "name the columns in the first line, or give --columns",
        )
    if sign == "," and not reading.columns:
        raise TextError(
            f"{file}: the first line names no columns for audio and text: {first[:200]}",
            "name the columns in the first line, as file_name,text, or give --columns or --text-column and --audio-column",
        )
    rows = [(number, _cells(line, sign)) for number, line in enumerate(lines, 1) if line.strip()]
    roles = _roles(file, [cells for _, cells in rows], reading, form, finder)
    clips = [_clip_of_cells(f"{file.name}, line {number}", number, cells, roles, finder) for number, cells in rows]
    return _corpus(form or _layout(roles), file, roles, [cells for _, cells in rows], clips)


def _cells(line: str, sign: str) -> list[str]:
    cells = next(csv.reader([line])) if sign == "," else line.split(sign)
    return [cell.strip() for cell in cells]


def _roles(
    file: Path, rows: Sequence[Sequence[str]], reading: Reading, form: str, finder: AudioFinder
) -> tuple[str, ...]:
    """Return the role of each column of a list without names."""
    width = usual_width(rows)
    if reading.columns:
        if len(reading.columns) != width:
            raise ConfigError(
                f"--columns {','.join(reading.columns)}: {file} has {width} columns", _question(rows, "name each")
            )
        return reading.columns
    if form:
        fitting = [
            roles for roles in FORMS[form] if len(roles) == width or (width == 2 and roles[2:] == ("normalised",))
        ]
        if not fitting:
            forms = " or ".join("|".join(roles) for roles in FORMS[form])
            raise ConfigError(
                f"{file}: {width} columns, where {form} has {forms}", _question(rows, "leave --layout out")
            )
        return fitting[0]
    if usual_width(rows) < 2:
        raise TextError(f"{file}: no list of clips", "give a list with id|text, or a header that names its columns")
    roles = by_evidence(rows, finder.has)
    if roles is None:
        what = f"{file}: the rows do not show which of the {width} columns holds what"
        raise TextError(what, _question(rows, "say which is which"))
    return roles


def _question(rows: Sequence[Sequence[str]], request: str) -> str:
    example = {2: "id,text", 3: "id,text,speaker"}.get(usual_width(rows), "id,speaker,text,-")
    return "\n".join([f"{request}, as --columns {example}. The first rows:", *shown(rows[:3])])


def _layout(roles: tuple[str, ...]) -> str:
    return next((name for name, forms in FORMS.items() if roles in forms), "list")


def _clip_of_cells(
    where: str, number: int, cells: list[str], roles: tuple[str, ...], finder: AudioFinder
) -> SourceClip:
    values = {role: cell for role, cell in zip(roles, cells, strict=False) if role != UNUSED}
    key = values.get("id") or values.get("audio")
    if len(cells) < 2 or not key or "text" not in values:
        return SourceClip(f"line {number}", "", "", problem=f"{where}: not `{'|'.join(roles[:2])}`")
    if len(cells) > len(roles):
        problem = (
            f"{where}: {len(cells)} columns where the list has {len(roles)}: a text cannot hold what parts the columns"
        )
        return SourceClip(key, "", "", problem=problem)
    text = values.pop("normalised", "") or values["text"]
    clip = clip_of(where, f"line {number}", {**values, "text": text}, finder)
    return clip if "/" in key else replace(clip, id=key)  # a bare name is the id as it stands


def _with_names(file: Path, lines: list[str], sign: str, reading: Reading, finder: AudioFinder) -> Corpus:
    """Read a list whose first line names the columns."""
    records = _csv_records(file, lines) if sign == "," else _plain_records(lines, sign)
    (_, header), *rows = records
    names = by_name(header, reading, str(file))
    clips = []
    for number, cells in rows:
        where = f"{file.name}, line {number}"
        if len(cells) != len(header):
            problem = f"{where}: {len(cells)} columns where the first line names {len(header)}"
            clips.append(SourceClip(f"line {number}", "", "", problem=problem))
            continue
        row = dict(zip(header, cells, strict=True))
        clips.append(clip_of(where, f"line {number}", {role: row[name] for role, name in names.items()}, finder))
    layout = "audiofolder" if names.get("audio") == "file_name" else {"|": "coqui", "\t": "tsv"}.get(sign, "csv")
    roles = {name: role for role, name in names.items()}
    return _corpus(
        layout, file, [roles.get(name, UNUSED) for name in header], [cells for _, cells in rows], clips, header
    )


def _csv_records(file: Path, lines: list[str]) -> list[Numbered]:
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
        raise TextError(f"{file}, line {began + 1}: bad CSV ({error})", "check the quotes of that record") from error
    return records


def _plain_records(lines: list[str], sign: str) -> list[Numbered]:
    """Return the records of a list with names between bars or tabs, one a line; quotes are for cells that need them."""
    records: list[Numbered] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            cells, quoted = line.split(sign), next(csv.reader([line], delimiter=sign), [])
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


def read_jsonl(file: Path, reading: Reading) -> Corpus:
    """Read JSON objects, one a line: our own lists, NeMo's manifests, and the metadata.jsonl of an audiofolder.

    Raises:
        TextError, ConfigError: when no name, or several, can be the audio or the text.
    """
    rows: list[tuple[int, Any]] = []
    for number, line in enumerate(read_lines(file), 1):
        if line.strip():
            try:
                rows.append((number, json.loads(line)))
            except (json.JSONDecodeError, RecursionError) as error:
                rows.append((number, error))
    objects = [row for _, row in rows if isinstance(row, dict)]
    names = by_name(dict.fromkeys(key for row in objects for key in row), reading, str(file)) if objects else {}
    finder = AudioFinder(file.parent)
    clips = [_clip_of_json(f"{file.name}, line {number}", number, row, names, finder) for number, row in rows]
    layout = {"file_name": "audiofolder", "audio_filepath": "nemo"}.get(names.get("audio", ""), "jsonl")
    first = [[str(row.get(name, "")) for name in names.values()] for row in objects[:3]]
    return _corpus(layout, file, list(names), first, clips, list(names.values()))


def _clip_of_json(where: str, number: int, row: Any, names: Mapping[str, str], finder: AudioFinder) -> SourceClip:
    if isinstance(row, Exception):
        reason = row.msg if isinstance(row, json.JSONDecodeError) else "nested too deeply"
        return SourceClip(f"line {number}", "", "", problem=f"{where}: not JSON ({reason})")
    values = {role: row.get(name) for role, name in names.items()} if isinstance(row, dict) else {}
    needed = [role for role in ("audio", "text") if role in names]
    if not needed or not all(isinstance(values.get(role), str) for role in needed):
        wanted = " and ".join(f"`{names[role]}`" for role in needed) or "`audio` and `text`"
        return SourceClip(f"line {number}", "", "", problem=f"{where}: needs the strings {wanted}")
    clip = clip_of(where, f"line {number}", values, finder)
    if names.get("audio") == "audio_filepath" and row.get("offset"):  # NeMo: `duration` seconds from `offset` on
        return _stretch(clip, where, row)
    return clip


def _stretch(clip: SourceClip, where: str, row: Mapping[str, Any]) -> SourceClip:
    try:
        start, seconds = float(row["offset"]), float(row["duration"])
    except (KeyError, TypeError, ValueError):
        start, seconds = 0.0, 0.0
    if not (start >= 0 and seconds > 0):
        problem = f"{where}: offset {row.get('offset')!r} and duration {row.get('duration')!r} are no stretch of audio"
        return replace(clip, problem=clip.problem or problem)
    own = clip.id if row.get("id") not in (None, "") else f"{clip.id}-{start:g}"
    return replace(clip, id=own, start=start, seconds=seconds)


def clip_of(where: str, unnamed: str, values: Mapping[str, Any], finder: AudioFinder) -> SourceClip:
    """Return the clip of a row.

    Args:
        where: the row, for what is wrong with it.
        unnamed: the id of a row without one.
        values: by role; the audio is an id or a path.
    """
    try:
        key, speaker, language = (name_of(values.get(role)) for role in ("id", "speaker", "language"))
    except ValueError as error:
        return SourceClip(unnamed, "", "", problem=f"{where}: {error}")
    audio = name_of(values.get("audio")) or key
    if not audio:
        return SourceClip(unnamed, "", "", problem=f"{where}: names no audio")
    path = str(finder.find(audio))
    return SourceClip(key or _id_of_path(audio), values.get("text") or "", path, speaker, language)


def _id_of_path(audio: str) -> str:
    path = Path(audio)
    return (path.with_suffix("") if path.suffix.lower() in AUDIO_SUFFIXES else path).as_posix()


def name_of(value: Any) -> str:
    """Return an id, a speaker or a language as a text; empty where there is none. 0 is a name, and 1.0 is 1.

    Raises:
        ValueError: for what is neither a text nor a number.
    """
    if value is None or value != value:  # not a number: how tables of numbers say that nothing is there
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{str(value)[:50]!r} is no name")
    return str(value).strip()


def read_parquet(files: Sequence[Path], reading: Reading) -> Corpus:
    """Read Parquet, with the audio as bytes, as a path, or as the struct of both that the `datasets` library writes.

    Raises:
        TextError, ConfigError: when a file is not one, or no column, or several, can be the audio or the text.
    """
    clips: list[SourceClip] = []
    names: dict[str, str] = {}
    first: list[dict[str, Any]] = []
    for file in files:
        names = _parquet_names(file, reading)
        table, finder = list(_parquet_rows(file, names)), AudioFinder(file.parent)
        clips += [_clip_of_row(file, number, row, names["audio"], finder) for number, row in enumerate(table)]
        first += table[: 3 - len(first)]
    rows = [[str(row.get(role, "(audio)")) for role in names] for row in first]
    return _corpus(
        "parquet", files[0] if len(files) == 1 else files[0].parent, list(names), rows, clips, [*names.values()]
    )


def _parquet_names(file: Path, reading: Reading) -> dict[str, str]:
    """Return the name of the column of each role, the audio's as it must be read to see paths."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise TextError(f"{file}: not a Parquet file ({error})", "copy it again, or write it anew") from error
    names = by_name(schema.names, reading, str(file))
    if "audio" not in names:
        raise TextError(
            f"{file}: columns {', '.join(schema.names)}", "a Parquet corpus needs audio: name it by --audio-column"
        )
    kind = schema.field(names["audio"]).type
    inside = {field.name for field in kind} if pa.types.is_struct(kind) else set()
    known = (pa.binary(), pa.large_binary(), pa.string(), pa.large_string())
    if kind not in known and not inside & {"bytes", "path"}:
        raise TextError(
            f"{file}: the column {names['audio']} holds {kind}",
            "keep the audio as the bytes of WAV or FLAC files, as paths, or as structs with bytes or path",
        )
    return names


def _parquet_rows(file: Path, names: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield the values of each row by role; the audio only where it is a path."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pq.read_schema(file).field(names["audio"]).type
    with_path = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    wanted = {role: name for role, name in names.items() if role != "audio" or with_path}
    for row in pq.read_table(file, columns=list(wanted.values())).to_pylist():
        yield {role: row[name] for role, name in wanted.items()}


def _clip_of_row(file: Path, number: int, row: Mapping[str, Any], column: str, finder: AudioFinder) -> SourceClip:
    where, unnamed = f"{file.name}, row {number}", f"{file.stem}-{number}"
    if not isinstance(row.get("text") or "", str):
        return SourceClip(unnamed, "", "", problem=f"{where}: the text is not a string")
    if "audio" in row:
        return clip_of(where, unnamed, row, finder)
    try:
        key, speaker, language = (name_of(row.get(role)) for role in ("id", "speaker", "language"))
    except ValueError as error:
        return SourceClip(unnamed, "", "", problem=f"{where}: {error}")
    return SourceClip(key or unnamed, row["text"] or "", str(file), speaker, language, number, column=column)


def _corpus(
    layout: str,
    file: Path,
    roles: Sequence[str],
    rows: Iterable[Sequence[str]],
    clips: list[SourceClip],
    names: Sequence[str] = (),
) -> Corpus:
    named = (
        [role if role == name else f"{name}: {role}" for role, name in zip(roles, names, strict=True)]
        if names
        else roles
    )
    columns = tuple(re.sub(rf"(^|: ){UNUSED}$", r"\1not used", column) for column in named)
    return Corpus(layout, file, columns, tuple(tuple(row) for row, _ in zip(rows, range(3), strict=False)), clips)
