"""The clips of lists: lines of text with `|`, tabs or commas between the columns, JSON lines, and Parquet."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flowtts_core.errors import TextError
from jobs.corpus.columns import UNUSED, Reading, by_name
from jobs.corpus.find_audio import AudioFinder
from jobs.corpus.source import AUDIO_SUFFIXES, Corpus, SourceClip
from jobs.corpus.text_lists import TextList, lines_of, parse_list

JOB_FILES = ("metadata.csv", "audio/metadata.jsonl")  # of a corpus that `flowtts synthesize` or `flowtts corpus` made


def read_lines(file: Path) -> list[str]:
    """Return the lines of a file of UTF-8; see `lines_of`."""
    return lines_of(str(file), file.read_bytes())


def read_list(file: Path, reading: Reading, form: str = "") -> Corpus:
    """Read a list of text; see `parse_list`."""
    finder = AudioFinder(file.parent)
    found = parse_list(str(file), read_lines(file), finder.has, reading, form)
    clips = [
        _clip_of_cells(found, f"{file.name}, line {number}", number, cells, finder) for number, cells in found.rows
    ]
    return _corpus(found.layout, file, found.roles, [cells for _, cells in found.rows], clips, found.names)


def _clip_of_cells(found: TextList, where: str, number: int, cells: list[str], finder: AudioFinder) -> SourceClip:
    values = found.values(cells)
    unnamed, key = f"line {number}", values.get("id") or values.get("audio") or ""
    if problem := found.problem(cells):
        return SourceClip(key if len(cells) > 1 and key else unnamed, "", "", problem=f"{where}: {problem}")
    clip = clip_of(where, unnamed, values, finder)
    return clip if "/" in key or found.names else replace(clip, id=key)  # the id of a bare name is all of it


def read_job(folder: Path) -> Corpus:
    """Read what a job of ours made: its metadata.csv, and of audio/metadata.jsonl the speakers, where there are several."""
    corpus = read_list(folder / JOB_FILES[0], Reading())
    spoken = {}
    for line in read_lines(folder / JOB_FILES[1]):
        if line.strip():
            row = json.loads(line)
            spoken[_id_of_path(row["file_name"])] = (row["voice"], row["speaker"])
    voices = {voice for voice, _ in spoken.values()}
    if len({*spoken.values()}) < 2:
        return replace(corpus, layout="flowtts")

    def named(clip: SourceClip) -> SourceClip:
        voice, speaker = spoken.get(clip.id, ("", ""))
        return replace(clip, speaker="@".join(filter(None, (voice if len(voices) > 1 or not speaker else "", speaker))))

    clips = [named(clip) for clip in corpus.clips]
    rows = tuple((*row, clip.speaker) for row, clip in zip(corpus.rows, clips, strict=False))
    return Corpus("flowtts", corpus.source, (*corpus.columns, f"speaker ({JOB_FILES[1]})"), rows, clips)


def is_job(folder: Path) -> bool:
    """Return whether a folder holds what a job of ours made."""
    if not all((folder / name).is_file() for name in JOB_FILES):
        return False
    with (folder / JOB_FILES[1]).open("rb") as opened:
        first = opened.readline(100_000)
    return all(f'"{key}"'.encode() in first for key in ("file_name", "voice", "speaker"))


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
    if not isinstance(row, dict):
        return SourceClip(f"line {number}", "", "", problem=f"{where}: no JSON object")
    values = {role: row.get(name) for role, name in names.items()}
    needed = [role for role in ("audio", "text") if role in names]
    if not all(isinstance(values.get(role), str) for role in needed):
        wanted = " and ".join(f"`{names[role]}`" for role in needed)
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
