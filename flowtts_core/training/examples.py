"""Prepared training examples in Parquet: tokens, mel and audio of each clip, with the configs they were made by."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from flowtts_core.audio.mel import MelConfig
from flowtts_core.config import from_dict, to_dict
from flowtts_core.errors import TextError
from flowtts_core.text.frontends import PhonemeConfig
from flowtts_core.training.example_files import Index, RowGroups, read_index
from flowtts_core.training.files import Files, files_of, patiently

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("speaker", pa.string()),
        ("tokens", pa.list_(pa.int32())),
        ("n_frames", pa.int32()),
        ("mel", pa.binary()),  # float16 [n_mels, n_frames], row-major
        ("audio", pa.binary()),  # FLAC, 16 bit, n_frames * hop_length samples
    ]
)
META = "dataset.json"
CACHE_BYTES = 1 << 30  # of a process; a corpus that fits is read once


@dataclass(frozen=True)
class DatasetMeta:
    """What every example of a folder shares; stands in `dataset.json` beside the Parquet files."""

    mel: MelConfig
    frontend: PhonemeConfig
    speakers: tuple[str, ...] = ()
    licence: str = ""
    source: str = ""

    def save(self, folder: Path) -> None:
        (folder / META).write_text(json.dumps(to_dict(self), indent=1) + "\n", encoding="utf-8")

    @staticmethod
    def load(place: Path | Files) -> DatasetMeta:
        """Raises TextError where the folder is not one that `flowtts prepare` made."""
        files = files_of(place)
        try:
            text = patiently(lambda: files.read(META), f"reading {files.path(META)}")
        except (FileNotFoundError, NotADirectoryError):
            raise TextError(f"{files.path()}: no {META}", "make the folder with `flowtts prepare`") from None
        loaded: DatasetMeta = from_dict(DatasetMeta, json.loads(text))
        return loaded


def example_row(
    key: str,
    text: str,
    tokens: Iterable[int],
    mel: np.ndarray,
    waveform: np.ndarray,
    sample_rate: int,
    speaker: str = "",
) -> dict[str, Any]:
    """One row of `SCHEMA`, from a mel [n_mels, T] and the waveform [S] it was made of."""
    import soundfile

    flac = io.BytesIO()
    soundfile.write(flac, waveform, sample_rate, format="FLAC", subtype="PCM_16")
    half = np.ascontiguousarray(mel, dtype=np.float16)
    return {
        "id": key,
        "text": text,
        "speaker": speaker,
        "tokens": list(tokens),
        "n_frames": half.shape[1],
        "mel": half.tobytes(),
        "audio": flac.getvalue(),
    }


class Examples:
    """Random access to the examples of a prepared folder, which are read as they are asked for.

    In memory are their lengths, and of the examples themselves those used last.

    Args:
        columns: of `SCHEMA`, those that will be asked for: "mel", "tokens", "audio", "id".
        limit: use the first so many examples (by id order of the files), all by default.
        cache_bytes: how much of the examples stays in memory.
    """

    def __init__(
        self, place: Path | Files, columns: Iterable[str], limit: int | None = None, cache_bytes: int = CACHE_BYTES
    ) -> None:
        files = files_of(place)
        self.meta = DatasetMeta.load(files)
        self.index: Index = read_index(files).first(limit)
        self.frames, self.token_counts = self.index.frames, self.index.tokens
        speakers = {name: i for i, name in enumerate(self.meta.speakers)}
        self.speaker_ids = np.array([speakers.get(name, 0) for name in self.index.speakers], dtype=np.int64)
        self._groups = RowGroups(files, list(columns), cache_bytes)

    def __len__(self) -> int:
        return len(self.frames)

    def fetch(self, indices: Iterable[int]) -> None:
        """Read these examples, several at once where the store is remote, unless they are in memory."""
        self._groups.fetch([self.index.group(int(i)) for i in indices])

    def mel(self, index: int) -> np.ndarray:
        """[n_mels, T] float16."""
        data = np.frombuffer(self._value(index, "mel").as_buffer(), dtype=np.float16)
        return data.reshape(self.meta.mel.n_mels, -1)

    def tokens(self, index: int) -> np.ndarray:
        """[L] int64."""
        return np.asarray(self._value(index, "tokens").values.to_numpy(), dtype=np.int64)

    def audio(self, index: int, start: int, samples: int) -> np.ndarray:
        """[samples] float32 of the clip from sample `start`; zeros beyond its end."""
        import soundfile

        with soundfile.SoundFile(io.BytesIO(self._value(index, "audio").as_buffer())) as file:
            file.seek(start)
            waveform = file.read(samples, dtype="float32", fill_value=0.0)
        return np.asarray(waveform)

    def key(self, index: int) -> str:
        """The clip's id, where the column "id" was asked for."""
        return str(self._value(index, "id"))

    def _value(self, index: int, column: str) -> Any:
        return self._groups.get(self.index.group(index))[column][int(self.index.rows[index])]
