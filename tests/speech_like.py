"""A small prepared corpus of buzzing tones for tests of training: known lengths, no files needed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from flowtts_core.audio.mel import LogMel, MelConfig
from flowtts_core.text.frontends import PhonemeConfig
from flowtts_core.training.examples import SCHEMA, DatasetMeta, example_row


def buzz(samples: int, pitch: float, sample_rate: int = 22050) -> np.ndarray:
    """[samples] float32: a tone with harmonics that swells and fades, peak about 0.5."""
    time = np.arange(samples) / sample_rate
    tone = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 8))
    swell = 0.6 + 0.4 * np.sin(2 * np.pi * 3 * time)
    return (0.25 * tone * swell).astype(np.float32)


def write_examples(
    folder: Path, frames: list[int], files: int = 2, mel: MelConfig | None = None, row_group_size: int | None = None
) -> Path:
    """A prepared folder with one clip per entry of `frames`; token ids stay below 24."""
    mel, rng = mel or MelConfig(), np.random.default_rng(0)
    log_mel = LogMel(mel)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i, count in enumerate(frames):
        waveform = buzz(count * mel.hop_length, 90 + 20 * (i % 7), mel.sample_rate)
        tokens = rng.integers(1, 24, max(3, count // 6)).tolist()
        picture = log_mel(torch.from_numpy(waveform)[None])[0].numpy()
        rows.append(example_row(f"clip-{i:03d}", f"text {i}", tokens, picture, waveform, mel.sample_rate))
    for i, part in enumerate(np.array_split(np.arange(len(rows)), files)):
        table = pa.Table.from_pylist([rows[j] for j in part], SCHEMA)
        pq.write_table(table, folder / f"clips-{i:05d}.parquet", row_group_size=row_group_size)
    values = np.concatenate([np.frombuffer(row["mel"], np.float16).astype(np.float64) for row in rows])
    statistics = {"mel_mean": float(values.mean()), "mel_std": float(values.std())}
    (folder / "statistics.json").write_text(json.dumps(statistics))
    DatasetMeta(mel, PhonemeConfig()).save(folder)
    return folder
