"""A prepared corpus: audio and text of each clip, with mels and tokens beside them, read as they are asked for."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from flowtts_core.audio.mel import MelConfig
from flowtts_core.config import from_dict, to_dict
from flowtts_core.errors import ConfigError, TextError
from flowtts_core.training.example_files import AUDIO, Group, Index, RowGroups
from flowtts_core.training.features import FEATURES, FeatureSet, changed_frontend, changed_mel, mel_set, token_set
from flowtts_core.training.files import Files, files_of, patiently
from flowtts_core.training.validation import held_out_places

META, FORMAT = "dataset.json", 2
CACHE_BYTES = 1 << 30  # of a process; a corpus that fits is read once
_FIELDS = {"audio": "audio", "text": "text"}  # columns of the files; all other features are in `_VALUE`
_VALUE = "value"


@dataclass(frozen=True)
class DatasetMeta:
    """What a prepared folder says of itself, in `dataset.json`.

    Attributes:
        mel, frontend: of the features that training takes by default; `frontend` is a spec with all its fields.
        speakers, languages: of the clips, sorted.
        licence, source: of the corpus.
        audio: the settings that the audio was prepared with, `limits` and `cleaning` among them; empty where an earlier version
            prepared it. Features that are added later keep to them.
    """

    mel: MelConfig
    frontend: dict[str, Any]
    speakers: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    licence: str = ""
    source: str = ""
    audio: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def feature_sets(self) -> tuple[FeatureSet, FeatureSet]:
        """Return the sets of mels and of tokens."""
        return mel_set(self.mel), token_set(self.frontend)

    def with_features(self, mel: Mapping[str, Any], frontend: Mapping[str, Any]) -> DatasetMeta:
        """Return the same corpus with other features, from the fields that differ from its own.

        Raises:
            ConfigError: for a field that does not exist, or another sample rate than that of the audio.
        """
        changed = changed_mel(self.mel, mel)
        if changed.sample_rate != self.mel.sample_rate:
            raise ConfigError(
                f"mel.sample_rate = {changed.sample_rate}: the audio was prepared at {self.mel.sample_rate} Hz",
                "prepare the corpus again into another folder, with --resample",
            )
        return replace(self, mel=changed, frontend=changed_frontend(self.frontend, frontend))

    def to_bytes(self) -> bytes:
        """Return the content of `dataset.json`."""
        return (json.dumps(to_dict(self), indent=1) + "\n").encode()

    @staticmethod
    def load(place: Path | Files) -> DatasetMeta:
        """Read `dataset.json`.

        Raises:
            TextError: where the folder is not one that `flowtts prepare` made, or an older version's.
        """
        files = files_of(place)
        try:
            values = json.loads(patiently(lambda: files.read(META), f"reading {files.path(META)}"))
        except (FileNotFoundError, NotADirectoryError):
            raise TextError(f"{files.path()}: no {META}", "make the folder with `flowtts prepare`") from None
        if values.get("format") != FORMAT:
            raise TextError(
                f"{files.path()}: prepared by another version of flowtts",
                "prepare the corpus again into another folder: flowtts prepare CORPUS -o FOLDER",
            )
        loaded: DatasetMeta = from_dict(DatasetMeta, values)
        return loaded


def read_features(files: Files, features: FeatureSet) -> dict[str, Any]:
    """Read what `flowtts prepare` noted of a set of features: its spec and its statistics.

    Raises:
        TextError: where the folder has no such features; says how to make them.
    """
    name = f"{features.folder}/{FEATURES}"
    try:
        found: dict[str, Any] = json.loads(patiently(lambda: files.read(name), f"reading {files.path(name)}"))
    except (FileNotFoundError, NotADirectoryError):
        part = {"mel": "mel", "tokens": "frontend"}.get(features.kind)
        settings = "".join(f" --set {part}.{field}={json.dumps(v)}" for field, v in features.changed.items())
        if part is None:
            settings = " --whisper FOLDER" + " --speech-tokens FOLDER" * (features.kind == "speech")
        here = files.path().rstrip("/")
        raise TextError(
            f"{here}: no {features.kind} of this configuration", f"flowtts prepare {here} -o {here}{settings}"
        ) from None
    return found


class Examples:
    """Random access to the clips of a prepared folder that have a mel and tokens that fit in it.

    In memory are their lengths, and of the clips themselves those used last.

    Args:
        columns: those that will be asked for: "mel", "tokens", "audio", "text", and the kinds of `further`.
        limit: use the first so many clips, all by default.
        cache_bytes: how much of the clips stays in memory.
        mel, frontend: fields in which the features differ from the folder's default.
        validation: share of the clips that is held out.
        further: sets of features beside mels and tokens, which the clips must have too.

    Attributes:
        further_counts: lengths of those by kind.
        held_out: the clips that were held out, which are not among these; None where there are none.
    """

    held_out: Examples | None = None

    def __init__(
        self,
        place: Path | Files,
        columns: Iterable[str],
        limit: int | None = None,
        cache_bytes: int = CACHE_BYTES,
        mel: Mapping[str, Any] | None = None,
        frontend: Mapping[str, Any] | None = None,
        validation: float = 0.0,
        further: Sequence[FeatureSet] = (),
    ) -> None:
        files = files_of(place)
        self.meta = DatasetMeta.load(files).with_features(mel or {}, frontend or {})
        mels, tokens = self.meta.feature_sets
        for features in (mels, tokens, *further):
            read_features(files, features)
        self._folders = {"mel": mels.folder, "tokens": tokens.folder, "audio": AUDIO, "text": AUDIO}
        self._folders |= {features.kind: features.folder for features in further}
        indices = {folder: Index.read(files, folder) for folder in self._folders.values()}
        frames, counts = indices[mels.folder].lengths, indices[tokens.folder].lengths
        whole = np.all([indices[features.folder].lengths > 0 for features in further] or [frames > 0], axis=0)
        usable = np.flatnonzero((counts > 0) & (counts <= frames) & whole)[:limit]
        self._index = {folder: index.taken(usable) for folder, index in indices.items()}
        self.frames, self.token_counts = frames[usable], counts[usable]
        self.further_counts = {f.kind: indices[f.folder].lengths[usable] for f in further}
        speakers = {name: i for i, name in enumerate(self.meta.speakers)}
        self.speaker_ids = np.array([speakers.get(n, 0) for n in self._index[AUDIO].speakers], dtype=np.int64)
        wanted = dict[str, list[str]]()
        for column in sorted(set(columns)):
            wanted.setdefault(self._folders[column], []).append(_FIELDS.get(column, _VALUE))
        self._read = sorted(wanted)
        self._groups = RowGroups(files, wanted, cache_bytes)
        if validation > 0:
            self._hold_out(files, validation)

    def _hold_out(self, files: Files, share: float) -> None:
        """Move a share of the clips to `held_out`."""
        places = held_out_places(self.ids(files), share)
        if len(places):
            self.held_out = copy.copy(self)
            self.held_out._keep(places)
            self._keep(np.setdiff1d(np.arange(len(self)), places))

    def _keep(self, places: np.ndarray) -> None:
        self._index = {folder: index.taken(places) for folder, index in self._index.items()}
        self.frames, self.token_counts = self.frames[places], self.token_counts[places]
        self.further_counts = {kind: counts[places] for kind, counts in self.further_counts.items()}
        self.speaker_ids = self.speaker_ids[places]

    def ids(self, files: Files) -> list[str]:
        """Return the ids of the clips, from the files of their tokens, which are the smallest."""
        folder = self._folders["tokens"]
        where, groups = self._index[folder], RowGroups(files, {folder: ["id"]}, CACHE_BYTES)
        places = [(folder, int(s), int(g)) for s, g in zip(where.shards, where.groups, strict=True)]
        groups.fetch(places)
        columns = {place: groups.get(*place).column(0).to_pylist() for place in dict.fromkeys(places)}
        return [columns[place][int(row)] for place, row in zip(places, where.rows, strict=True)]

    def __len__(self) -> int:
        return len(self.frames)

    def fetch(self, indices: Iterable[int]) -> None:
        """Read these clips, several at once where the store is remote, unless they are in memory."""
        self._groups.fetch([self._group(folder, int(i)) for i in indices for folder in self._read])

    def mel(self, index: int) -> np.ndarray:
        """Return the clip's log-mel [rows, T] float16."""
        data = np.frombuffer(self._value(index, "mel").as_buffer(), dtype=np.float16)
        return data.reshape(self.meta.mel.rows, -1)

    def tokens(self, index: int) -> np.ndarray:
        """Return the clip's tokens [L] int64."""
        return np.asarray(self._value(index, "tokens").values.to_numpy(), dtype=np.int64)

    def speech(self, index: int) -> np.ndarray:
        """Return the clip's speech tokens [N] int64."""
        return np.asarray(self._value(index, "speech").values.to_numpy(), dtype=np.int64)

    def whisper(self, index: int) -> np.ndarray:
        """Return the clip's features of Whisper's encoder [T, D] float16."""
        data = np.frombuffer(self._value(index, "whisper").as_buffer(), dtype=np.float16)
        return data.reshape(int(self.further_counts["whisper"][index]), -1)

    def audio(self, index: int, start: int, samples: int) -> np.ndarray:
        """Return [samples] float32 of the clip from sample `start`; zeros beyond its end."""
        import soundfile

        with soundfile.SoundFile(io.BytesIO(self._value(index, "audio").as_buffer())) as file:
            file.seek(start)
            waveform = file.read(samples, dtype="float32", fill_value=0.0)
        return np.asarray(waveform)

    def text(self, index: int) -> str:
        """Return what is said in the clip."""
        return str(self._value(index, "text").as_py())

    def _group(self, folder: str, index: int) -> Group:
        where = self._index[folder]
        return folder, int(where.shards[index]), int(where.groups[index])

    def _value(self, index: int, kind: str) -> Any:
        folder = self._folders[kind]
        table = self._groups.get(*self._group(folder, index))
        return table.column(_FIELDS.get(kind, _VALUE))[int(self._index[folder].rows[index])]
