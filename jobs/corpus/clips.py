"""The forms of a corpus that `flowtts prepare` reads: LJSpeech folders, JSONL lists, and Parquet, as prepared folders are."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flowtts_core.errors import TextError

AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a")
FORMS = "a folder with metadata.csv (`id|text|normalised text`) and wavs/ or audio/, a .jsonl with audio and text, or .parquet"


@dataclass(frozen=True)
class SourceClip:
    """A clip to prepare. `row` is its row in the Parquet file `path`, -1 where `path` is the audio itself.

    `problem` says why it cannot be used, where that shows without reading the audio.
    """

    id: str
    text: str
    path: str
    speaker: str = ""
    language: str = ""
    row: int = -1
    problem: str = ""


def read_clips(source: Path) -> list[SourceClip]:
    """Read the clips of a corpus in its own order; a repeated id is marked as a problem.

    Raises:
        TextError: when the source is none of these forms or lists no clip.
    """
    source = source.absolute()
    if (source / "metadata.csv").is_file():
        clips = list(_ljspeech(source))
    elif source.is_dir() and (files := sorted([*source.glob("*.parquet"), *source.glob("audio/*.parquet")])):
        clips = [clip for file in files for clip in _parquet(file)]
    elif source.is_dir() and len(lists := sorted(source.glob("*.jsonl"))) == 1:
        clips = list(_jsonl(lists[0]))
    elif source.suffix == ".jsonl" and source.is_file():
        clips = list(_jsonl(source))
    elif source.suffix == ".parquet" and source.is_file():
        clips = list(_parquet(source))
    else:
        problem = "not a corpus" if source.exists() else "no such file or folder"
        raise TextError(f"{source}: {problem}", f"give {FORMS}")
    if not clips:
        raise TextError(f"{source}: lists no clips", f"give {FORMS}")
    return _mark_repeated(clips)


def _mark_repeated(clips: list[SourceClip]) -> list[SourceClip]:
    seen: Counter[str] = Counter()
    marked = []
    for clip in clips:
        seen[clip.id] += 1
        repeated = seen[clip.id] > 1 and not clip.problem
        marked.append(replace(clip, problem="its id was used before") if repeated else clip)
    return marked


def _ljspeech(folder: Path) -> Iterator[SourceClip]:
    audio = next((folder / name for name in ("wavs", "audio") if (folder / name).is_dir()), folder / "wavs")
    for number, line in enumerate(_lines(folder / "metadata.csv"), 1):
        if not line.strip():
            continue
        key, *texts = (part.strip() for part in line.split("|"))
        if not key or not texts:
            yield SourceClip(f"line {number}", "", "", problem=f"metadata.csv, line {number}: not `id|text`")
            continue
        text = next((text for text in reversed(texts[:2]) if text), "")
        yield SourceClip(key, text, str(_audio_file(audio, key)))


def _lines(file: Path) -> list[str]:
    data = file.read_bytes()
    try:
        return data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise TextError(f"{file}, line {line}: not UTF-8 ({error.reason})", "save the file as UTF-8") from None


def _audio_file(folder: Path, key: str) -> Path:
    """Return `folder/key.wav`, or the file with another known suffix where that exists."""
    named = folder / key
    if named.suffix.lower() in AUDIO_SUFFIXES:
        return named
    candidates = [folder / f"{key}{suffix}" for suffix in AUDIO_SUFFIXES]
    return next((path for path in candidates if path.exists()), candidates[0])


def _jsonl(file: Path) -> Iterator[SourceClip]:
    for number, line in enumerate(_lines(file), 1):
        if not line.strip():
            continue
        where = f"{file.name}, line {number}"
        try:
            row: Any = json.loads(line)
        except json.JSONDecodeError as error:
            yield SourceClip(f"line {number}", "", "", problem=f"{where}: not JSON ({error.msg})")
            continue
        if not isinstance(row, dict) or not isinstance(row.get("audio"), str) or not isinstance(row.get("text"), str):
            yield SourceClip(f"line {number}", "", "", problem=f"{where}: needs the strings `audio` and `text`")
            continue
        key = str(row.get("id") or Path(row["audio"]).with_suffix("").as_posix())
        yield SourceClip(key, row["text"], str(file.parent / row["audio"]), *_whose(row))


def _whose(row: dict[str, Any]) -> tuple[str, str]:
    """Return the speaker and the language of a row."""
    return str(row.get("speaker") or ""), str(row.get("language") or "")


def _parquet(file: Path) -> Iterator[SourceClip]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = set(pq.read_schema(file).names)
    except (pa.ArrowInvalid, OSError) as error:
        raise TextError(f"{file}: not a Parquet file ({error})", f"give {FORMS}") from error
    if not {"audio", "text"} <= names:
        raise TextError(f"{file}: columns {', '.join(sorted(names))}", "a Parquet corpus needs audio and text")
    wanted = [name for name in ("id", "text", "speaker", "language") if name in names]
    for number, row in enumerate(pq.read_table(file, columns=wanted).to_pylist()):
        key = str(row["id"]) if row.get("id") is not None else f"{file.stem}-{number}"
        yield SourceClip(key, row["text"] or "", str(file), *_whose(row), number)


def audio_of(clips: list[SourceClip]) -> Iterator[bytes | str]:
    """Yield the audio of clips in order: a path, or the bytes that stand in a Parquet file (read once for neighbours)."""
    held: dict[tuple[str, int], bytes] = {}
    for i, clip in enumerate(clips):
        if clip.row < 0:
            yield clip.path
            continue
        if (clip.path, clip.row) not in held:
            rows = [c.row for c in clips[i:] if c.path == clip.path]
            held = {(clip.path, row): data for row, data in _parquet_audio(clip.path, rows)}
        yield held.pop((clip.path, clip.row))


def _parquet_audio(path: str, rows: list[int]) -> Iterator[tuple[int, bytes]]:
    """Yield the audio bytes of some rows of a file, reading only the row groups that hold them.

    The column may be binary, or the struct with a field `bytes` that the `datasets` library writes.
    """
    import pyarrow.parquet as pq

    wanted, first = set(rows), 0
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            inside = [row for row in wanted if first <= row < first + count]
            if inside:
                column = file.read_row_group(group, columns=["audio"])["audio"]
                for row in inside:
                    value = column[row - first].as_py()
                    yield row, (value.get("bytes") if isinstance(value, dict) else value) or b""
            first += count
