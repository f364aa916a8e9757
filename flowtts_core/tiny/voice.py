"""The tiny voice as an artefact: a folder with a JSON card and safetensors weights, which speaks phonemes by name or id."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from flowtts_core.config import fingerprint, from_dict, to_dict
from flowtts_core.engines.flow import Speech, SynthesisFailure, SynthesisRequest, check_request
from flowtts_core.errors import ConfigError, FlowTTSError, VoiceError
from flowtts_core.tiny.model import TinyConfig, TinyModel

CARD, WEIGHTS, FORMAT = "tiny.json", "tiny.safetensors", 1
_REMEDY = "train it again: flowtts train --recipe tiny -o FOLDER"


@dataclass(frozen=True)
class TinyCard:
    """What stands in `tiny.json`.

    Attributes:
        steps: of the solver, by default.
        scores: what was measured of it (name -> value).
        sha256: of the weight file.
    """

    model: TinyConfig = field(default_factory=TinyConfig)
    steps: int = 10
    licence: str = "Apache-2.0"
    source: str = "sines made by the training itself"
    scores: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""
    kind: str = "tiny"
    format: int = FORMAT


class TinyVoice:
    """A `Synthesizer` whose texts are names of phonemes with blanks between; each lasts one second of the sample rate."""

    def __init__(self, card: TinyCard, model: TinyModel) -> None:
        self.card, self.model = card, model.eval()
        self.phonemes, self.sample_rate = card.model.phonemes, card.model.sample_rate
        self.fingerprint = fingerprint(to_dict(replace(card, licence="", source="", scores={})), 16)

    def phoneme_id(self, name: str) -> int:
        """Raises ConfigError for a phoneme that the voice does not have."""
        if name not in self.phonemes:
            raise ConfigError(f"no phoneme {name!r}", f"use one of: {', '.join(self.phonemes)}")
        return self.phonemes.index(name)

    def speak(
        self, phoneme_id: int, seed: int = 0, steps: int | None = None, temperature: float | None = None
    ) -> np.ndarray:
        """One phoneme as a waveform [S] float32 in [-1, 1].

        Raises:
            ConfigError: for an id that does not exist, or fewer than one step.
        """
        heat = 1.0 if temperature is None else temperature
        count = self.card.steps if steps is None else steps
        sound = self.model.generate([phoneme_id], [seed], steps=count, temperature=heat)[0]
        return sound.clamp(-1, 1).cpu().numpy()

    def synthesize(self, requests: Sequence[SynthesisRequest]) -> list[Speech | SynthesisFailure]:
        """One at a time: a second of sound costs a few milliseconds. Phoneme k of a text takes the seed `seed + k`."""
        return [self._one(request) for request in requests]

    def _one(self, request: SynthesisRequest) -> Speech | SynthesisFailure:
        if request.speed != 1.0 or request.speaker is not None:
            return SynthesisFailure("the tiny voice has one speed and one speaker")
        try:
            check_request(request)
            ids = [self.phoneme_id(name) for name in request.text.split()]
            sounds = [self.speak(p, request.seed + k, request.steps, request.temperature) for k, p in enumerate(ids)]
        except FlowTTSError as error:
            return SynthesisFailure(str(error))
        if not sounds:
            return SynthesisFailure("the text is empty")
        return Speech(np.concatenate(sounds), self.sample_rate, phonemes=request.text)


def save_tiny(folder: Path, model: TinyModel, scores: dict[str, Any] | None = None) -> TinyCard:
    """Write weights and card; the card last, so that a folder with a card is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = save({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()})
    card = TinyCard(model.config, scores=scores or {}, sha256=hashlib.sha256(weights).hexdigest())
    for name, content in ((WEIGHTS, weights), (CARD, json.dumps(to_dict(card), indent=1).encode() + b"\n")):
        part = folder / f"{name}.part"
        part.write_bytes(content)
        part.replace(folder / name)
    return card


def load_tiny(folder: Path, device: torch.device | str = "cpu") -> TinyVoice:
    """The voice of a folder that `save_tiny` wrote.

    Raises:
        VoiceError: for a missing, damaged or altered card or weight file, or weights that do not fit the card.
    """
    try:
        card: TinyCard = from_dict(TinyCard, json.loads((folder / CARD).read_text(encoding="utf-8")))
        weights = (folder / WEIGHTS).read_bytes()
    except OSError as error:
        raise VoiceError(f"{error.filename}: cannot be read ({error.strerror})", _REMEDY) from error
    except (ValueError, TypeError, ConfigError) as error:
        raise VoiceError(f"{folder / CARD}: not the card of a tiny voice ({error})", _REMEDY) from error
    if (card.kind, card.format) != ("tiny", FORMAT):
        raise VoiceError(
            f"{folder / CARD}: kind {card.kind!r}, format {card.format}; expected 'tiny', {FORMAT}", _REMEDY
        )
    if hashlib.sha256(weights).hexdigest() != card.sha256:
        raise VoiceError(f"{folder / WEIGHTS}: is not the file that the card names (its SHA-256 differs)", _REMEDY)
    try:
        model = TinyModel(card.model)
        model.load_state_dict(load(weights))
    except (SafetensorError, RuntimeError, ValueError, TypeError, ArithmeticError, ConfigError) as error:
        raise VoiceError(f"{folder / WEIGHTS}: does not fit the card ({error})", _REMEDY) from error
    return TinyVoice(card, model.to(device))
