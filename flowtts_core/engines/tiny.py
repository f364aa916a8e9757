"""The tiny voice: phonemes by name, each one second of a raw waveform (the lecture's tiny task)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from flowtts_core.config import build, spec_of
from flowtts_core.engines.base import Speech, Spoken, SynthesisFailure, UtteranceSynthesizer, failure
from flowtts_core.errors import ConfigError, FlowTTSError, VoiceError
from flowtts_core.files import write_whole
from flowtts_core.request import SynthesisRequest
from flowtts_core.sampling import Sampling
from flowtts_core.tiny.model import TinyConfig, TinyModel
from flowtts_core.voice.card import VoiceCard, load_card, write_card

WEIGHTS = "tiny.safetensors"
_MODELS = {"tiny": (TinyConfig, TinyModel)}
_REMEDY = "train it again: flowtts train --recipe tiny -o FOLDER"


class TinyVoice(UtteranceSynthesizer):
    """Speaks texts that are names of phonemes with blanks between; phoneme k of an utterance takes the seed `seed + k`."""

    controls = frozenset({"seed", "steps", "temperature"})

    def __init__(self, card: VoiceCard, model: TinyModel) -> None:
        self.card, self.model = card, model.eval()
        self.name, self.fingerprint, self.sample_rate = card.name, card.fingerprint, model.config.sample_rate
        self.phonemes = model.config.phonemes

    def phoneme_id(self, name: str) -> int:
        """Return a phoneme's place; raises ConfigError for one that the voice does not have."""
        if name not in self.phonemes:
            known = ", ".join(self.phonemes)
            raise ConfigError(f"no phoneme {name!r}: this voice speaks {known}, with blanks between", f"use {known}")
        return self.phonemes.index(name)

    def tone(
        self, phoneme_id: int, seed: int = 0, steps: int | None = None, temperature: float | None = None
    ) -> np.ndarray:
        """Return one phoneme as a waveform [S] float32 in [-1, 1].

        Raises:
            ConfigError: for an id that does not exist, or fewer than one step.
        """
        settings = self.card.sampling
        count = settings.steps if steps is None else steps
        heat = settings.temperature if temperature is None else temperature
        sound = self.model.generate([phoneme_id], [seed], steps=count, temperature=heat)[0]
        return sound.clamp(-1, 1).cpu().numpy()

    def speak(self, utterances: Sequence[Spoken]) -> list[Speech | SynthesisFailure]:
        return [self._one(request, u.text_of(request), u.seed) for request, u in utterances]

    def _one(self, request: SynthesisRequest, text: str, seed: int) -> Speech | SynthesisFailure:
        try:
            ids = [self.phoneme_id(name) for name in text.split()]
            sounds = [self.tone(p, seed + k, request.steps, request.temperature) for k, p in enumerate(ids)]
        except FlowTTSError as error:
            return failure(error)
        return Speech(np.concatenate(sounds), self.sample_rate, phonemes=text)


def save_tiny(folder: Path, model: TinyModel, scores: dict[str, Any] | None = None) -> VoiceCard:
    """Write weights and card; the card last, so that a folder with a card is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = save({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()})
    card = VoiceCard(
        name=folder.resolve().name,
        kind="tiny",
        parts={"model": spec_of("tiny", model.config)},
        sampling=Sampling(steps=10, temperature=1.0),
        sample_rate=model.config.sample_rate,
        languages=(),
        phonemes=model.config.phonemes,
        description="phonemes as pure tones, of the lecture's tiny task",
        licence="Apache-2.0",
        source="sines made by the training itself",
        scores=scores or {},
        sha256={WEIGHTS: hashlib.sha256(weights).hexdigest()},
    )
    write_whole(folder / WEIGHTS, weights)
    write_card(folder, card)
    return card


def load_tiny(folder: Path, device: str = "cpu") -> TinyVoice:
    """Return the voice of a folder that `save_tiny` wrote.

    Raises:
        VoiceError: for a missing, damaged or altered card or file of weights, or weights that do not fit the card.
    """
    card = load_card(folder)
    if card.kind != "tiny":
        raise VoiceError(f"{folder}: kind {card.kind!r}, expected 'tiny'", _REMEDY)
    return open_tiny(folder, card, device)


def open_tiny(folder: Path, card: VoiceCard, device: str, threads: int | None = None) -> TinyVoice:
    """Open a tiny voice's folder; raises as `load_tiny`. `threads` limits torch's threads in this process."""
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        weights = (folder / WEIGHTS).read_bytes()
    except OSError as error:
        raise VoiceError(f"{error.filename}: cannot be read ({error.strerror})", _REMEDY) from error
    if hashlib.sha256(weights).hexdigest() != card.sha256.get(WEIGHTS):
        raise VoiceError(f"{folder / WEIGHTS}: is not the file that the card names (its SHA-256 differs)", _REMEDY)
    try:
        model: TinyModel = build(_MODELS, card.parts["model"])
        model.load_state_dict(load(weights))
    except (SafetensorError, RuntimeError, ValueError, TypeError, KeyError, ArithmeticError, ConfigError) as error:
        raise VoiceError(f"{folder / WEIGHTS}: does not fit the card ({error})", _REMEDY) from error
    return TinyVoice(card, model.to(torch.device(device)))
