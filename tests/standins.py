"""Two voices that are not Matcha: a flow model on characters with prompts and no durations, and an engine without models.

Importing this file enters both in the tables (`ACOUSTIC_MODELS`, `ENGINES`). Another process must import it too before it
opens such a voice: `OpenVoice(folder)` does so where it is unpickled, and `register` can be named as a hook.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flowtts_core.acoustic import ACOUSTIC_MODELS, AcousticBatch, AcousticModel, Condition, Generated
from flowtts_core.acoustic.base import Prompt
from flowtts_core.audio.mel import MelConfig
from flowtts_core.config import build, spec_of
from flowtts_core.engines.base import Speech, Spoken, SynthesisFailure, UtteranceSynthesizer
from flowtts_core.engines.table import ENGINES
from flowtts_core.errors import ConfigError
from flowtts_core.flow import SOLVERS, TIME_GRIDS, LinearPath, classifier_free
from flowtts_core.flow.guidance import ConstantGuidance
from flowtts_core.nn.masks import length_mask
from flowtts_core.nn.share import rows_of
from flowtts_core.nn.time_embedding import sinusoidal_embedding
from flowtts_core.request import SynthesisRequest
from flowtts_core.sampling import SPEEDS, Sampling
from flowtts_core.text.frontends import CharacterConfig, CharacterFrontend
from flowtts_core.vocoder import Vocos, VocosConfig
from flowtts_core.voice import open_voice
from flowtts_core.voice.card import VoiceCard, write_card
from flowtts_core.voice.parts import save_voice

CHARACTER_MODEL = "debug_characters"
FAKE_KIND = "fake"
FRAMES_PER_TOKEN = 3


# --- a flow model on characters ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CharacterModelConfig:
    """`prompted` as `AcousticModel` has it."""

    n_symbols: int = CharacterFrontend(CharacterConfig()).n_symbols
    mel: MelConfig = field(default_factory=MelConfig)
    width: int = 16
    prompted: str = "optional"
    mel_mean: float = -5.5
    mel_std: float = 2.2


@dataclass(frozen=True)
class _Given:
    """What the velocity is conditioned on: [B, T, W], nothing beyond an item's frames."""

    frames: Tensor
    valid: Tensor  # [B, T, 1]


class CharacterModel(AcousticModel):
    """Each character lasts as long as every other; whether it sounds like the prompt is left to the weights."""

    n_speakers, guided = 1, True

    def __init__(self, config: CharacterModelConfig) -> None:
        super().__init__()
        self.config, self.features, self.n_symbols, self.prompted = (
            config,
            config.mel,
            config.n_symbols,
            config.prompted,
        )
        bands, width = config.mel.n_mels, config.width
        self.tokens = nn.Embedding(config.n_symbols, width)
        self.heard, self.said = nn.Linear(bands, width), nn.Embedding(config.n_symbols, width)
        self.time = nn.Linear(width, width)
        self.enter, self.leave = nn.Conv1d(bands + width, width, 3, padding=1), nn.Linear(width, bands)

    def loss(self, batch: AcousticBatch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        count, _, time = batch.mel.shape
        size, rows = rows_of(batch.share, count)
        t = torch.rand(size, generator=generator)[rows].to(batch.mel.device)
        kept = (torch.rand(size, generator=generator)[rows] > 0.1).to(batch.mel)  # the others learn without condition
        noise = torch.randn(size, time, self.features.n_mels, generator=generator)[rows].to(batch.mel)
        given = self._given(batch.condition, batch.mel_lengths, time)
        clean = (batch.mel.transpose(1, 2) - self.config.mel_mean) / self.config.mel_std * given.valid
        point = LinearPath().sample(noise * given.valid, clean, t)
        predicted = self._velocity(point.x_t, t, replace(given, frames=given.frames * kept[:, None, None]))
        errors = (predicted.float() - point.velocity).square() * given.valid
        sums = torch.stack([errors.sum(), given.valid.sum() * self.features.n_mels])
        sums = sums if batch.share is None else batch.share.sum(sums)
        return {"loss": sums[0] / sums[1], "flow": sums[0] / sums[1]}

    @torch.inference_mode()
    def generate(self, condition: Condition, seeds: Sequence[int], settings: Sampling) -> Generated:
        if not SPEEDS[0] <= settings.speed <= SPEEDS[1]:
            raise ConfigError(f"speed = {settings.speed}", f"use a value from {SPEEDS[0]} to {SPEEDS[1]}")
        lengths = (condition.token_lengths * FRAMES_PER_TOKEN / settings.speed).round().clamp(min=1).long()
        given = self._given(condition, lengths, int(lengths.max()))
        x = torch.zeros(len(seeds), given.frames.shape[1], self.features.n_mels, device=lengths.device)
        for row, (seed, frames) in enumerate(zip(seeds, lengths.tolist(), strict=True)):
            x[row, :frames] = torch.randn(frames, self.features.n_mels, generator=torch.Generator().manual_seed(seed))
        if settings.steps == 0:
            x = self._velocity(torch.zeros_like(x), x.new_zeros(len(x)), given)
        else:
            times = build(TIME_GRIDS, settings.grid or {"name": "uniform"}).times(settings.steps)
            without = replace(given, frames=torch.zeros_like(given.frames))
            guided = classifier_free(self._velocity, without, ConstantGuidance(settings.guidance))
            x = build(SOLVERS, {"name": settings.solver}).solve(guided, x * settings.temperature, times, given).x
        return Generated((x * self.config.mel_std + self.config.mel_mean).transpose(1, 2), lengths)

    def _given(self, condition: Condition, lengths: Tensor, time: int) -> _Given:
        ends = condition.token_lengths[:, None]
        places = (torch.arange(time, device=lengths.device) * ends // lengths[:, None]).minimum(ends - 1)
        frames = self.tokens(condition.tokens.gather(1, places))  # the token that each frame belongs to
        if condition.prompt is not None:
            frames = frames + self._imitated(condition.prompt)[:, None]
        elif self.prompted == "required":
            raise ConfigError("no prompt", "give a clip")
        valid = length_mask(lengths, time).unsqueeze(2).float()
        return _Given(frames * valid, valid)

    def _imitated(self, prompt: Prompt) -> Tensor:
        """The mean [B, W] of a prompt's frames and of its tokens."""
        means = []
        for values, lengths in (
            (self.heard(prompt.features), prompt.lengths),
            (self.said(prompt.tokens), prompt.token_lengths),
        ):
            valid = length_mask(lengths, values.shape[1]).unsqueeze(2).float()
            means.append((values * valid).sum(1) / valid.sum(1))
        return means[0] + means[1]

    def _velocity(self, x: Tensor, t: Tensor, given: _Given) -> Tensor:
        hidden = self.enter(torch.cat([x, given.frames], 2).transpose(1, 2)).transpose(1, 2)
        now = self.time(sinusoidal_embedding(t, self.config.width, 100.0))[:, None]
        return self.leave(torch.tanh(hidden + now)) * given.valid


def make_character_voice(folder: Path, *, prompted: str = "optional", seed: int = 0) -> Path:
    """Write a flow voice of random weights that reads characters."""
    config, vocos = CharacterModelConfig(prompted=prompted), VocosConfig(MelConfig(), 16, 32, 1)
    torch.manual_seed(seed)
    save_voice(
        folder,
        name=folder.name,
        acoustic=CharacterModel(config).eval(),
        acoustic_spec=spec_of(CHARACTER_MODEL, config),
        vocoder=Vocos(vocos).eval(),
        vocoder_spec=spec_of("vocos", vocos),
        frontend=spec_of("characters", CharacterConfig()),
        sampling=Sampling(steps=2, guidance=1.0),
        languages=("en-us", "en-gb"),
        licence="CC0-1.0",
    )
    return folder


# --- an engine without models -----------------------------------------------------------------------------------------


class FakeSynthesizer(UtteranceSynthesizer):
    """Each text is a tone that depends on the text, the speaker and the seed; it takes texts as they are."""

    controls = frozenset({"seed", "speed"})

    def __init__(self, card: VoiceCard) -> None:
        self.name, self.fingerprint, self.sample_rate = card.name, card.fingerprint, card.sample_rate
        self.speakers, self.gain = card.speakers, float(card.parts["tone"]["gain"])

    def speak(self, utterances: Sequence[Spoken]) -> list[Speech | SynthesisFailure]:
        return [self._one(request, request.text[u.start : u.end], u.seed) for request, u in utterances]

    def _one(self, request: SynthesisRequest, text: str, seed: int) -> Speech | SynthesisFailure:
        if "UNSPEAKABLE" in text:
            return SynthesisFailure("no sound for these characters")
        digest = hashlib.sha256(f"{text} {request.speaker} {seed}".encode("utf-8", "replace")).digest()
        at = np.arange(round(self.sample_rate * (0.1 + 0.05 * len(text)) / float(request.speed))) / self.sample_rate
        waveform = self.gain * np.sin(2 * np.pi * (200 + digest[0]) * at + digest[1])
        return Speech(waveform.astype(np.float32), self.sample_rate)


def open_fake(folder: Path, card: VoiceCard, device: str, threads: int | None) -> FakeSynthesizer:
    return FakeSynthesizer(card)


def make_fake_voice(folder: Path, *, gain: float = 0.3) -> Path:
    """Write the card of a fake voice; there is nothing else to it."""
    folder.mkdir(parents=True, exist_ok=True)
    card = VoiceCard(
        name=folder.name,
        kind=FAKE_KIND,
        parts={"tone": {"gain": gain}},
        sample_rate=16000,
        languages=(),
        speakers=("low", "high"),
        licence="CC0-1.0",
    )
    write_card(folder, card)
    return folder


# --- the tables -------------------------------------------------------------------------------------------------------


def register() -> None:
    """Enter both in the tables of this process."""
    ACOUSTIC_MODELS[CHARACTER_MODEL] = (CharacterModelConfig, CharacterModel)
    ENGINES[FAKE_KIND] = open_fake


@dataclass(frozen=True)
class OpenVoice:
    """A picklable maker of a voice's engine, for workers."""

    folder: str
    options: dict[str, Any] = field(default_factory=dict)

    def __call__(self) -> UtteranceSynthesizer:
        return open_voice(self.folder, **self.options)


register()


_FLITE = """#!{python}
import sys, wave
words = dict(zip(sys.argv[1:], sys.argv[2:]))
if "-lv" in sys.argv:
    print("Voices available: kal rms slt ")
    sys.exit()
stretch = float(words["--setf"].partition("=")[2])
text = open(words["-f"]).read().strip()
with wave.open(words["-o"], "wb") as sound:
    sound.setnchannels(1); sound.setsampwidth(2); sound.setframerate(16000)
    for letter in text:
        period, count = 20 + ord(letter), int(800 * stretch)
        sound.writeframes(b"".join((8000 if i % period < period // 2 else -8000).to_bytes(2, "little", signed=True)
                                   for i in range(count)))
"""


def make_flite_program(folder: Path) -> Path:
    """Write a program that answers as flite does, with a buzz for each letter; returns its folder, to go into PATH."""
    folder.mkdir(parents=True)
    program = folder / "flite"
    program.write_text(_FLITE.replace("{python}", sys.executable))
    program.chmod(0o755)
    return folder
