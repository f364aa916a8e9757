"""Sounds that are like speech, made of numbers: clips to imitate, and a small prepared corpus of buzzing tones for trainings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from flowtts_core.audio.files import encode
from flowtts_core.audio.mel import MelConfig
from flowtts_core.request import PromptClip
from flowtts_core.training.checkpoints import checkpoint_name, checkpoint_steps
from flowtts_core.training.example_files import (
    AUDIO,
    AUDIO_SCHEMA,
    INDEX,
    Index,
    feature_schema,
    file_name,
    table_bytes,
)
from flowtts_core.training.examples import META, DatasetMeta, read_features
from flowtts_core.training.features import FEATURES, MelMaker, TokenMaker, whole_frontend
from flowtts_core.training.files import LocalFiles
from flowtts_core.training.prepare import flac_of


def buzz(samples: int, pitch: float, sample_rate: int = 22050) -> np.ndarray:
    """[samples] float32: a tone with harmonics that swells and fades, peak about 0.5."""
    time = np.arange(samples) / sample_rate
    tone = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 8))
    swell = 0.6 + 0.4 * np.sin(2 * np.pi * 3 * time)
    return (0.25 * tone * swell).astype(np.float32)


def babble(seconds: float = 1.5, pitch: float = 120.0, rate: int = 16000, seed: int = 0) -> np.ndarray:
    """[S] float32 that passes for a voice: gliding pitch, syllables whose formants change, hisses between them."""
    rng, count = np.random.default_rng(seed), round(seconds * rate)
    time = np.arange(count) / rate
    knots = np.arange(0, seconds + 0.4, 0.2)

    def wandering(low: float, high: float) -> np.ndarray:
        return np.interp(time, knots, rng.uniform(low, high, len(knots)))

    f0 = pitch * 2 ** (wandering(-3, 3) / 12)
    phase, formants = 2 * np.pi * np.cumsum(f0) / rate, (wandering(300, 800), wandering(900, 2400))
    tone = np.zeros(count)
    for k in range(1, int(3500 / pitch)):
        gain = sum(np.exp(-(((k * f0 - formant) / 150) ** 2)) for formant in formants)
        tone += (gain + 0.02) * np.sin(k * phase)
    syllable = 0.5 - 0.5 * np.cos(2 * np.pi * 4.5 * time)
    hiss = np.diff(rng.standard_normal(count + 1)) * (syllable < 0.15)
    made = tone * syllable + 0.1 * hiss
    return (0.5 * made / np.abs(made).max()).astype(np.float32)


def babble_clip(seconds: float = 1.5, pitch: float = 120.0, rate: int = 16000, seed: int = 0) -> PromptClip:
    """`babble` as a clip to imitate."""
    return PromptClip(encode(babble(seconds, pitch, rate, seed), rate))


def write_examples(
    folder: Path, frames: list[int], files: int = 2, mel: MelConfig | None = None, speakers: tuple[str, ...] = ()
) -> Path:
    """A prepared folder with one clip per entry of `frames`, of the speakers in turns; token ids stay below 24."""
    meta, rng = DatasetMeta(mel or MelConfig(), whole_frontend({}), speakers), np.random.default_rng(0)
    mels, tokens = meta.feature_sets
    hop, rate, maker = meta.mel.hop_length, meta.mel.sample_rate, MelMaker(mels.spec)
    tables = {folder: dict[int, list[dict[str, Any]]]() for folder in (AUDIO, mels.folder, tokens.folder)}
    for shard, part in enumerate(np.array_split(np.arange(len(frames)), files)):
        for i in part:
            name, waveform = f"clip-{i:03d}", buzz(frames[i] * hop, 90 + 20 * (i % 7), rate)
            ids = rng.integers(1, 24, max(3, frames[i] // 6)).tolist()
            speaker = speakers[i % len(speakers)] if speakers else ""
            row = {
                "text": f"text {i}",
                "speaker": speaker,
                "language": "",
                "sample_rate": rate,
                "samples": len(waveform),
            }
            made = {AUDIO: row | {"audio": flac_of(waveform, rate)}, mels.folder: {}}
            made[mels.folder]["length"], made[mels.folder]["value"] = maker.make("", waveform)
            made[tokens.folder] = {"length": len(ids), "value": ids}
            for table, values in made.items():
                tables[table].setdefault(shard, []).append({"id": name, **values})
    kinds = {AUDIO: (AUDIO_SCHEMA, 1), mels.folder: (feature_schema(MelMaker.value_type), MelMaker.rows_per_group)}
    kinds[tokens.folder] = (feature_schema(TokenMaker.value_type), TokenMaker.rows_per_group)
    for table, (schema, rows_per_group) in kinds.items():
        (folder / table).mkdir(parents=True, exist_ok=True)
        for shard, rows in tables[table].items():
            (folder / table / file_name(shard)).write_bytes(table_bytes(rows, schema, rows_per_group, {}))
        lengths = {
            shard: [row.get("length", row.get("samples")) for row in rows] for shard, rows in tables[table].items()
        }
        names = [row.get("speaker", "") for rows in tables[table].values() for row in rows]
        (folder / table / INDEX).write_bytes(Index.of(lengths, rows_per_group, names).to_bytes())
    every = [row["value"] for rows in tables[mels.folder].values() for row in rows]
    values = np.frombuffer(b"".join(every), np.float16).astype(np.float64)
    for features in (mels, tokens):
        known = {"spec": features.spec, "mean": float(values.mean()), "std": float(values.std())}
        (folder / features.folder / FEATURES).write_text(json.dumps(known))
    (folder / META).write_bytes(meta.to_bytes())
    return folder


def statistics_of(folder: Path) -> dict[str, float]:
    """What an acoustic model takes of the mels of a prepared folder."""
    found = read_features(LocalFiles(folder), DatasetMeta.load(folder).feature_sets[0])
    return {"mel_mean": found["mean"], "mel_std": found["std"]}


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint of a run's folder, if any."""
    steps = checkpoint_steps(folder)
    return folder / checkpoint_name(steps[-1]) if steps else None
