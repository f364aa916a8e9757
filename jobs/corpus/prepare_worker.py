"""The worker of `flowtts prepare`: makes what is missing of a shard, its audio file and its files of features."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import astuple
from typing import Any

import numpy as np

from cluster.journal import Journal
from cluster.storage import PARTIAL, Storage
from flowtts_core.audio.files import read_audio
from flowtts_core.config import fingerprint
from flowtts_core.errors import TextError
from flowtts_core.text.languages import other_language
from flowtts_core.training.corpus_checks import measures_of
from flowtts_core.training.example_files import AUDIO, AUDIO_SCHEMA, feature_schema, file_name, table_bytes
from flowtts_core.training.features import (
    MAKERS,
    NEEDS_AUDIO,
    FeatureMaker,
    FeatureSet,
    mel_set,
    speech_sets,
    token_set,
)
from flowtts_core.training.prepare import PrepareConfig, flac_of, prepare_audio
from jobs.corpus.clips import SourceClip, audio_of

Note = dict[str, Any]
DEADLY = "its worker died while preparing it"


def sets_of(config: PrepareConfig) -> tuple[FeatureSet, ...]:
    """Return the sets of features that a run makes; the first are the mels and the tokens."""
    further = speech_sets(config.whisper, config.tokeniser, config.mel.sample_rate)
    return (mel_set(config.mel), token_set(config.frontend), *further)


def feature_print(audio_print: str, features: FeatureSet) -> str:
    """Return what a file of features must be marked with: it changes with the audio file it was made of."""
    return fingerprint([audio_print, features.changed])


class ShardPreparer:
    """Makes a shard's missing files: `audio/clips-N.parquet` of the corpus, and of that the features, row for row.

    Each file holds its own record in its metadata: what it was made of, and the clips that were set aside. Features are made
    of the audio as it is kept, so that they do not depend on when they are made.
    """

    def __init__(self, config: PrepareConfig, storage: Storage) -> None:
        import torch

        torch.set_num_threads(1)
        self._storage, self._config = storage, config
        self._sets = {features.kind: features for features in sets_of(config)}
        self._makers: dict[str, FeatureMaker] = {kind: MAKERS[kind](f.spec) for kind, f in self._sets.items()}

    def __call__(self, task: dict[str, Any]) -> dict[str, Any]:
        """Prepare the shard of a task: `shard`, `print` of the audio, `missing` kinds, and the `clips` where audio is."""
        clips = [SourceClip(**clip) for clip in task["clips"]]
        return {"shard": task["shard"], **self.prepare_shard(task["shard"], task["print"], task["missing"], clips)}

    def prepare_shard(self, index: int, print_: str, missing: list[str], clips: list[SourceClip]) -> dict[str, Note]:
        """Write the missing files of a shard; returns the record of each by its kind."""
        # a new run sweeps the notes of the old one away: it needs no name
        stored = [] if AUDIO in missing else self._stored(index, bool(NEEDS_AUDIO & set(missing)))
        journal = Journal(self._storage, f"{PARTIAL}journal-{index:05d}.json", "", len(clips) + len(stored))
        aside: list[dict[str, Any]] = []
        rows: list[dict[str, Any]] = []
        made: dict[str, list[dict[str, Any]]] = {kind: [] for kind in missing if kind != AUDIO}
        failed: dict[str, list[dict[str, str]]] = {kind: [] for kind in made}
        for row in iter(stored) if AUDIO not in missing else self._prepared(clips, journal, aside):
            if AUDIO not in missing and journal.careful and row["id"] not in journal.deadly:
                journal.enter(row["id"])
            waveform = read_audio(row["audio"])[0] if NEEDS_AUDIO & made.keys() else np.empty(0, np.float32)
            for kind in made:
                made[kind].append(self._feature(kind, row, waveform, failed[kind], row["id"] in journal.deadly))
            rows.append(row)
        notes: dict[str, Note] = {}
        if AUDIO in missing:
            notes[AUDIO] = {"print": print_, "set_aside": aside, "index": [_entry(row) for row in rows]}
            notes[AUDIO]["measures"] = [row.pop("measures") for row in rows]
            self._storage.write(f"{AUDIO}/{file_name(index)}", table_bytes(rows, AUDIO_SCHEMA, 1, notes[AUDIO]))
        for kind, values in made.items():
            notes[kind] = self._write(index, kind, print_, values, failed[kind])
        journal.close()
        return notes

    def _prepared(
        self, clips: list[SourceClip], journal: Journal, aside: list[dict[str, Any]]
    ) -> Iterator[dict[str, Any]]:
        """Yield the audio rows of the clips; those that cannot be trained on go to `aside`."""
        rate = self._config.mel.sample_rate
        for clip, audio in zip(clips, audio_of(clips), strict=True):
            problem = clip.problem or ("" if clip.text.strip() else "empty text")
            problem = problem or (DEADLY if clip.id in journal.deadly else "")
            if journal.careful and not problem:
                journal.enter(clip.id)
            clean = problem or prepare_audio(audio, self._config)
            if isinstance(clean, str):
                aside.append({"id": clip.id, "reason": clean, "audio": clip.path, **clip.place, "text": clip.text})
                continue
            row: dict[str, Any] = {"id": clip.id, "text": clip.text, "speaker": clip.speaker, "language": clip.language}
            row["measures"] = astuple(measures_of(clip.id, clip.text, clip.language, clean, rate))
            yield {**row, "sample_rate": rate, "samples": len(clean.waveform), "audio": flac_of(clean.waveform, rate)}

    def _stored(self, index: int, with_audio: bool) -> list[dict[str, Any]]:
        import pyarrow.parquet as pq

        columns = [name for name in AUDIO_SCHEMA.names if with_audio or name != "audio"]
        with self._storage.open(f"{AUDIO}/{file_name(index)}") as file:
            rows: list[dict[str, Any]] = pq.read_table(file, columns=columns).to_pylist()
        return rows

    def _feature(
        self, kind: str, row: dict[str, Any], waveform: np.ndarray, failed: list[dict[str, str]], deadly: bool
    ) -> dict[str, Any]:
        try:
            if deadly:
                raise TextError(DEADLY)
            if kind == "tokens":
                self._require_language(row)
            length, value = self._makers[kind].make(row["text"], waveform)
        except TextError as error:
            failed.append({"id": row["id"], "reason": error.message, "text": row["text"]})
            length, value = 0, None
        return {"id": row["id"], "length": length, "value": value}

    def _require_language(self, row: dict[str, Any]) -> None:
        check, read = self._config.limits.language, self._sets["tokens"].spec.get("language", "")
        if check != "any":
            problem = other_language(row["text"], row["language"] or "", read, check == "detect")
            if problem:
                raise TextError(problem)

    def _write(
        self, index: int, kind: str, print_: str, rows: list[dict[str, Any]], failed: list[dict[str, str]]
    ) -> Note:
        features, maker = self._sets[kind], self._makers[kind]
        note: Note = {"print": feature_print(print_, features), "set_aside": failed}
        note["index"] = [row["length"] for row in rows]
        if kind == "mel":
            note |= _sums(rows)
        data = table_bytes(rows, feature_schema(maker.value_type), maker.rows_per_group, note)
        self._storage.write(f"{features.folder}/{file_name(index)}", data)
        return note


def _entry(row: dict[str, Any]) -> list[Any]:
    return [row["id"], row["samples"], row["speaker"], row["language"]]


def _sums(rows: list[dict[str, Any]]) -> Note:
    """Return what the statistics of all mels need of one file."""
    mels = [np.frombuffer(row["value"] or b"", dtype=np.float16).astype(np.float64) for row in rows]
    return {
        "values": sum(len(mel) for mel in mels),
        "sum": math.fsum(float(mel.sum()) for mel in mels),
        "squares": math.fsum(float(mel @ mel) for mel in mels),
    }
