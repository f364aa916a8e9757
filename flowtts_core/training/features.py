"""Features of a corpus, kept beside its audio: the kinds there are, how each is made, and the folder of each set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch

from flowtts_core.audio.mel import LogMel, MelConfig
from flowtts_core.config import build, fingerprint, from_dict, spec_of, to_dict
from flowtts_core.text import frontends

FEATURES = "features.json"  # in the folder of a set; written last


@dataclass(frozen=True)
class FeatureSet:
    """Features of one kind, made with one configuration.

    Attributes:
        kind: "mel" or "tokens".
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


MAKERS: dict[str, type[MelMaker | TokenMaker]] = {"mel": MelMaker, "tokens": TokenMaker}


def crowded(frames: int, tokens: int) -> str:
    """Return why a clip of so many frames cannot be aligned with so many tokens; empty where it can."""
    return f"{tokens} tokens in {frames} frames: more sounds than the clip has room for" if tokens > frames else ""
