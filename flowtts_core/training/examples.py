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
import pyarrow.parquet as pq

from flowtts_core.audio.mel import MelConfig
from flowtts_core.config import from_dict, to_dict
from flowtts_core.errors import TextError
from flowtts_core.text.frontend import FrontendConfig

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


@dataclass(frozen=True)
class DatasetMeta:
    """What every example of a folder shares; stands in `dataset.json` beside the Parquet files."""

    mel: MelConfig
    frontend: FrontendConfig
    speakers: tuple[str, ...] = ()
    licence: str = ""
    source: str = ""

    def save(self, folder: Path) -> None:
        (folder / META).write_text(json.dumps(to_dict(self), indent=1) + "\n", encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> DatasetMeta:
        """Raises TextError where the folder is not one that `flowtts prepare` made."""
        path = folder / META
        if not path.exists():
            raise TextError(f"{folder}: no {META}", "make the folder with `flowtts prepare`")
        loaded: DatasetMeta = from_dict(DatasetMeta, json.loads(path.read_text(encoding="utf-8")))
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
    """Random access to the examples of a prepared folder; the columns asked for stay in memory as Arrow.

    Args:
        columns: of `SCHEMA`, besides id, n_frames and speaker ("mel", "tokens", "audio", "text").
        limit: use the first so many examples (by id order of the files), all by default.
    """

    def __init__(self, folder: Path, columns: Iterable[str], limit: int | None = None) -> None:
        self.meta = DatasetMeta.load(folder)
        files = sorted(folder.glob("*.parquet"))
        if not files:
            raise TextError(f"{folder}: no Parquet files", "run `flowtts prepare` to its end")
        names = ["id", "n_frames", "speaker", *columns]
        # each file stays a chunk of its own: joined, mels or audio would exceed the 2 GiB that one binary chunk may hold
        table = pa.concat_tables(pq.read_table(file, columns=names) for file in files)
        self.table = table.slice(0, limit) if limit else table
        self.frames: np.ndarray = self.table["n_frames"].to_numpy()
        speakers = {name: i for i, name in enumerate(self.meta.speakers)}
        self.speaker_ids = np.array([speakers.get(name.as_py(), 0) for name in self.table["speaker"]], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.frames)

    def mel(self, index: int) -> np.ndarray:
        """[n_mels, T] float16."""
        data = np.frombuffer(self.table["mel"][index].as_buffer(), dtype=np.float16)
        return data.reshape(self.meta.mel.n_mels, -1)

    def tokens(self, index: int) -> np.ndarray:
        """[L] int64."""
        return np.asarray(self.table["tokens"][index].values.to_numpy(), dtype=np.int64)

    def audio(self, index: int, start: int, samples: int) -> np.ndarray:
        """[samples] float32 of the clip from sample `start`; zeros beyond its end."""
        import soundfile

        with soundfile.SoundFile(io.BytesIO(self.table["audio"][index].as_buffer())) as file:
            file.seek(start)
            waveform = file.read(samples, dtype="float32", fill_value=0.0)
        return np.asarray(waveform)
