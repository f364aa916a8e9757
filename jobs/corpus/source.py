"""A clip of a corpus as it was found, and its audio: a file, a stretch of one, or bytes in Parquet."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".m4b", ".aac")
_LATER = {"column": "audio", "start": 0.0, "seconds": 0.0}  # fields of SourceClip that older prepared folders lack

PLACE = ("row", "column", "start", "seconds")


@dataclass(frozen=True)
class SourceClip:
    """A clip to prepare. `row` is its row in the Parquet file `path`, -1 where `path` is the audio itself.

    `problem` says why it cannot be used, where that shows without reading the audio. `column` holds the audio in Parquet.
    Where `seconds` is above 0, the clip is that much of the file, from `start` seconds on.
    """

    id: str
    text: str
    path: str
    speaker: str = ""
    language: str = ""
    row: int = -1
    problem: str = ""
    column: str = "audio"
    start: float = 0.0
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the fields, without those at their default that were added later: old fingerprints stay valid."""
        return {name: value for name, value in asdict(self).items() if _LATER.get(name) != value}

    @property
    def place(self) -> dict[str, Any]:
        """Return the fields that say where in `path` the audio is, without those at their default."""
        return {name: value for name in PLACE if (value := getattr(self, name)) != getattr(SourceClip, name)}


@dataclass(frozen=True)
class Corpus:
    """Clips, and how they were read.

    Attributes:
        layout: its name in `jobs.corpus.layouts`.
        source: the file or folder that names the clips.
        columns: what each column is taken for.
        rows: the first three rows, cell by cell.
    """

    layout: str
    source: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    clips: list[SourceClip]

    @property
    def summary(self) -> str:
        """Return the layout, what the columns are taken for, and the first three rows, for a person to look at."""
        speakers = {clip.speaker for clip in self.clips if not clip.problem} - {""}
        counts = [
            f"{n} {what}{'s' * (n > 1)}" for n, what in ((len(self.clips), "clip"), (len(speakers), "speaker")) if n
        ]
        head = f"{self.source.name}: layout {self.layout}: {' | '.join(self.columns)} ({', '.join(counts)})"
        return "\n".join([head, *shown(self.rows)])


def shown(rows: Iterable[Sequence[str]]) -> list[str]:
    """Return rows for a person to look at, a line each."""
    return [
        "  " + " | ".join(textwrap.shorten(" ".join(cell.split()), 50, placeholder="…") for cell in row) for row in rows
    ]


def audio_of(clips: list[SourceClip]) -> Iterator[bytes | str]:
    """Yield the audio of clips in order: a path, or the bytes that stand in a Parquet file (read once for neighbours)."""
    held: dict[tuple[str, int], bytes | str] = {}
    for i, clip in enumerate(clips):
        if clip.problem:
            yield clip.path
            continue
        if clip.row < 0:
            yield _stretch(clip) if clip.seconds else clip.path
            continue
        if (clip.path, clip.row) not in held:
            rows = [c.row for c in clips[i:] if c.path == clip.path and not c.problem]
            held = {(clip.path, row): data for row, data in _parquet_audio(clip.path, clip.column, rows)}
        yield held.pop((clip.path, clip.row))


def _stretch(clip: SourceClip) -> bytes | str:
    """Return a stretch of a file as WAV; the path of a file that cannot be read so, which its reader then reports."""
    import soundfile

    try:
        with soundfile.SoundFile(clip.path) as file:
            file.seek(round(clip.start * file.samplerate))
            samples = file.read(round(clip.seconds * file.samplerate), dtype="float32")
            rate = file.samplerate
    except (soundfile.SoundFileError, OSError, ValueError):
        return b"" if Path(clip.path).exists() else clip.path
    written = io.BytesIO()
    soundfile.write(written, samples, rate, format="WAV", subtype="FLOAT")
    return written.getvalue()


def _parquet_audio(path: str, column: str, rows: list[int]) -> Iterator[tuple[int, bytes | str]]:
    """Yield the audio of some rows of a file, reading only the row groups that hold them.

    The column may be binary, or the struct that the `datasets` library writes: its `bytes`, or without them its `path`.
    """
    import pyarrow.parquet as pq

    wanted, first = set(rows), 0
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            inside = [row for row in wanted if first <= row < first + count]
            if inside:
                values = file.read_row_group(group, columns=[column])[column]
                for row in inside:
                    yield row, _sound(values[row - first].as_py(), Path(path).parent)
            first += count


def _sound(value: Any, folder: Path) -> bytes | str:
    if isinstance(value, dict):
        place = value.get("path")
        return value.get("bytes") or (str(folder / place) if place else b"")
    return value or b""
