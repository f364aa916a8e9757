"""Features of a corpus, kept beside its audio: the kinds there are, how each is made, and the folder of each set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch

from flowtts_core.audio.mel import LogMel, MelConfig
from flowtts_core.codec.semantic import load_tokenizer, read_tokenizer_card, tokenizer_fingerprint
from flowtts_core.codec.whisper import WhisperFeatures, whisper_digest
from flowtts_core.config import build, fingerprint, from_dict, spec_of, to_dict
from flowtts_core.errors import AudioError, ConfigError, TextError
from flowtts_core.text import frontends

FEATURES = "features.json"  # in the folder of a set; written last


@dataclass(frozen=True)
class FeatureSet:
    """Features of one kind, made with one configuration.

    Attributes:
        kind: one of `MAKERS`.
        spec: all fields of the configuration, as JSON values.
        changed: those that are not at their defaults. They name the set's folder, so that a new field renames none.
    """

    kind: str
    spec: dict[str, Any]
    changed: dict[str, Any]

    @property
    def folder(self) -> str:
        return f"features/{self.kind}-{fingerprint(self.changed)}"


def mel_set(mel: MelConfig) -> FeatureSet:
    """Return the set of log-mels of a configuration."""
    spec, default = to_dict(mel), to_dict(MelConfig())
    return FeatureSet("mel", spec, {name: value for name, value in spec.items() if value != default[name]})


def token_set(frontend: Mapping[str, Any]) -> FeatureSet:
    """Return the set of tokens of a front end's spec; raises as `whole_frontend`."""
    spec = whole_frontend(frontend)
    default = whole_frontend({"name": spec["name"]})
    changed = {name: value for name, value in spec.items() if value != default[name]}
    return FeatureSet("tokens", spec, {"name": spec["name"], **changed})


def whisper_set(digest: str, folder: str = "", sample_rate: int = 0) -> FeatureSet:
    """Return the set of features of Whisper's encoder.

    Args:
        digest: of the model, see `whisper_digest`.
        folder, sample_rate: of the model and of the audio, to make them.
    """
    return FeatureSet("whisper", {"folder": folder, "sample_rate": sample_rate}, {"digest": digest})


def speech_set(tokeniser: str, folder: str = "", whisper: str = "", sample_rate: int = 0) -> FeatureSet:
    """Return the set of speech tokens.

    Args:
        tokeniser: its fingerprint.
        folder, whisper, sample_rate: the folders of the tokeniser and of its Whisper, and of the audio, to make them.
    """
    spec = {"folder": folder, "whisper": whisper, "sample_rate": sample_rate}
    return FeatureSet("speech", spec, {"tokeniser": tokeniser})


def speech_sets(whisper: str, tokeniser: str, sample_rate: int) -> tuple[FeatureSet, ...]:
    """Return what `flowtts prepare` makes for models of speech tokens: none, Whisper's features, or the tokens made of them.

    Args:
        whisper, tokeniser: folders; "" where not asked for.

    Raises:
        ConfigError: for a tokeniser without its Whisper, or with another than it was trained on.
        VoiceError: for a folder without a tokeniser.
    """
    if tokeniser:
        if not whisper:
            raise ConfigError(
                "speech tokens need the Whisper model that the tokeniser was trained on", "name it: --whisper FOLDER"
            )
        card, digest = read_tokenizer_card(Path(tokeniser)), whisper_digest(whisper)
        if card["tokeniser"]["whisper"] != digest:
            raise ConfigError(
                f"the tokeniser was trained on another Whisper than {whisper}"
                f" ({card['tokeniser']['whisper']} and {digest})",
                "give that one by --whisper",
            )
        return (speech_set(tokenizer_fingerprint(card), tokeniser, whisper, sample_rate),)
    return (whisper_set(whisper_digest(whisper), whisper, sample_rate),) if whisper else ()


def whole_frontend(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a front end's spec with all its fields.

    Raises:
        ConfigError: for a name or field that does not exist.
    """
    table = {name: (config, partial(spec_of, name)) for name, (config, _) in frontends.FRONTENDS.items()}
    whole: dict[str, Any] = build(table, {"name": "phonemes", **spec})
    return whole


def changed_mel(mel: MelConfig, fields: Mapping[str, Any]) -> MelConfig:
    """Return `mel` with some fields changed; raises ConfigError for one that does not exist."""
    changed: MelConfig = from_dict(MelConfig, {**to_dict(mel), **fields})
    return changed


def changed_frontend(spec: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a spec with some fields changed. With another name, the fields that are not given are at their defaults."""
    same = fields.get("name", spec["name"]) == spec["name"]
    return whole_frontend({**(spec if same else {}), **fields})


Feature = tuple[int, Any]  # a clip's length, in frames or tokens, and its value


class FeatureMaker(Protocol):
    """Makes one kind of features.

    Attributes:
        value_type: Arrow type of the values.
        rows_per_group: clips in each row group of a file, which is read as a whole.
    """

    value_type: pa.DataType
    rows_per_group: int

    def make(self, text: str, waveform: np.ndarray) -> Feature:
        """Return the feature of a clip; `waveform` [S] is float32.

        Raises:
            TextError: for a clip of which none can be made.
        """
        ...


class MelMaker:
    """Log-mels as float16 [rows, T], row-major, of the clip's whole frames."""

    value_type, rows_per_group = pa.binary(), 1

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self._mel: MelConfig = from_dict(MelConfig, spec)
        self._log_mel = LogMel(self._mel)

    def make(self, text: str, waveform: np.ndarray) -> Feature:
        whole = np.ascontiguousarray(waveform[: len(waveform) // self._mel.hop_length * self._mel.hop_length])
        with torch.inference_mode():
            mel = self._log_mel(torch.from_numpy(whole)[None])[0].numpy()
        half = np.ascontiguousarray(mel, dtype=np.float16)
        return half.shape[1], half.tobytes()


class TokenMaker:
    """Tokens of a front end, a list of int32."""

    value_type, rows_per_group = pa.list_(pa.int32()), 1 << 16  # a file's tokens take less than a clip's mel

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self._frontend = frontends.build(spec)

    def make(self, text: str, waveform: np.ndarray) -> Feature:
        tokens = list(self._frontend.encode(text).tokens)
        return len(tokens), tokens


class WhisperMaker:
    """Features of Whisper's encoder as float16 [T, D], row-major."""

    value_type, rows_per_group = pa.binary(), 1

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self._features, self._rate = WhisperFeatures(spec["folder"]), spec["sample_rate"]

    def make(self, text: str, waveform: np.ndarray) -> Feature:
        found = self.features(waveform)
        return len(found), found.tobytes()

    def features(self, waveform: np.ndarray) -> np.ndarray:
        """Return features as they are kept."""
        try:
            return self._features(waveform, self._rate).astype(np.float16)
        except AudioError as error:
            raise TextError(error.message, error.remedy) from error


class SpeechMaker:
    """Speech tokens, a list of int32: of the features as they are kept, so that a model trained on those made them."""

    value_type, rows_per_group = pa.list_(pa.int32()), 1 << 16

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self._whisper = WhisperMaker({"folder": spec["whisper"], "sample_rate": spec["sample_rate"]})
        self._tokenizer = load_tokenizer(Path(spec["folder"])).tokenizer

    def make(self, text: str, waveform: np.ndarray) -> Feature:
        features = torch.from_numpy(self._whisper.features(waveform).astype(np.float32))
        codes = self._tokenizer.encode(features).tolist()
        return len(codes), codes


MAKERS: dict[str, type[MelMaker | TokenMaker | WhisperMaker | SpeechMaker]] = {
    "mel": MelMaker,
    "tokens": TokenMaker,
    "whisper": WhisperMaker,
    "speech": SpeechMaker,
}
NEEDS_AUDIO = frozenset(MAKERS) - {"tokens"}


def crowded(frames: int, tokens: int) -> str:
    """Return why a clip of so many frames cannot be aligned with so many tokens; empty where it can."""
    return f"{tokens} tokens in {frames} frames: more sounds than the clip has room for" if tokens > frames else ""
