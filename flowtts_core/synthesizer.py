"""The only way from text to sound: a list of requests in, a list of results out, batched by frames.

`Synthesizer` is the contract that jobs, server and evaluation know. `VoiceSynthesizer` is its first implementation, over a
`Voice` of ours (text front end, acoustic model, vocoder).
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from flowtts_core.acoustic.base import Condition, Generated, GenerationSettings
from flowtts_core.errors import FlowTTSError, TextError
from flowtts_core.seeds import hash_seed
from flowtts_core.text.chunking import speakable_chunks
from flowtts_core.text.frontend import EncodedText, TextFrontend
from flowtts_core.voice import Voice, load_voice


@dataclass(frozen=True)
class SynthesisRequest:
    """One utterance. Fields left None take the voice's own defaults."""

    text: str
    seed: int = 0
    speed: float = 1.0
    steps: int | None = None
    temperature: float | None = None
    speaker: str | None = None


@dataclass(frozen=True)
class WordTime:
    """A word of the request's text (`text[start:end]`) and when it is spoken, in seconds from the waveform's start."""

    word: str
    start: int
    end: int
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Speech:
    """A result: `waveform` [S] float32 in [-1, 1]."""

    waveform: np.ndarray
    sample_rate: int
    words: tuple[WordTime, ...] = ()
    phonemes: str = ""

    @property
    def seconds(self) -> float:
        return len(self.waveform) / self.sample_rate


@dataclass(frozen=True)
class SynthesisFailure:
    """A request that cannot be spoken, with the reason; the others of its batch are not harmed."""

    reason: str


class Synthesizer(Protocol):
    """`results[i]` belongs to `requests[i]` and depends on it alone: not on the batch, the worker or the machine's load."""

    sample_rate: int
    fingerprint: str

    def synthesize(self, requests: Sequence[SynthesisRequest]) -> list[Speech | SynthesisFailure]: ...


MAX_TOKENS = 400  # of one pass through the model (about 17 s of speech); longer texts are split at clauses
TOKENS_PER_BATCH = 1000  # padded; on a CPU larger batches cost memory and gain nothing, for a GPU give more


@dataclass(frozen=True)
class _Piece:
    """A part of a request short enough for one pass: what to say, from where in the text, and with which noise."""

    request: int
    encoded: EncodedText
    offset: int
    seed: int
    speaker: int
    settings: GenerationSettings


class VoiceSynthesizer:
    """Speaks with a `Voice`.

    Args:
        voice: a loaded voice.
        tokens_per_batch: budget of padded tokens that go through the model together.
        device: where the models run.

    Attributes:
        last_timings: seconds that the last call spent in "frontend", "acoustic" and "vocoder".
    """

    def __init__(self, voice: Voice, *, tokens_per_batch: int = TOKENS_PER_BATCH, device: str = "cpu") -> None:
        self.voice, self.tokens_per_batch, self.device = voice, tokens_per_batch, torch.device(device)
        self.frontend = TextFrontend(voice.card.frontend)
        self.sample_rate = voice.card.sample_rate
        self.fingerprint = voice.card.fingerprint
        self.last_timings: dict[str, float] = {}

    @classmethod
    def load(
        cls, voice: str | os.PathLike[str] | None = None, *, device: str = "cpu", threads: int | None = None
    ) -> VoiceSynthesizer:
        """From a bundled voice's name or a folder; `threads` limits torch's threads in this process."""
        if threads is not None:
            torch.set_num_threads(threads)
        return cls(load_voice(voice, device), device=device)

    def synthesize(self, requests: Sequence[SynthesisRequest]) -> list[Speech | SynthesisFailure]:
        """Speak each request; one that cannot be spoken gives a SynthesisFailure and harms no other."""
        self.last_timings = {"frontend": 0.0, "acoustic": 0.0, "vocoder": 0.0}
        failures: dict[int, SynthesisFailure] = {}
        pieces: list[_Piece] = []
        with _Stopwatch(self.last_timings, "frontend"):
            for index, request in enumerate(requests):
                try:
                    pieces.extend(self._pieces(index, request))
                except FlowTTSError as error:
                    failures[index] = SynthesisFailure(error.message)
        spoken: dict[int, list[tuple[_Piece, np.ndarray, np.ndarray]]] = {}
        for batch in self._batches(pieces):
            for piece, waveform, ends in self._speak(batch):
                spoken.setdefault(piece.request, []).append((piece, waveform, ends))
        return [failures.get(i) or self._joined(request, spoken[i]) for i, request in enumerate(requests)]

    def _pieces(self, index: int, request: SynthesisRequest) -> list[_Piece]:
        card = self.voice.card
        settings = GenerationSettings(
            steps=card.steps if request.steps is None else request.steps,
            temperature=card.temperature if request.temperature is None else request.temperature,
            speed=request.speed * card.speed,
        )
        _check(request, settings)
        speaker = self._speaker(request.speaker)
        pieces = []
        for part, (start, encoded) in enumerate(self._encoded_parts(request.text)):
            seed = hash_seed(request.seed, part) if part else request.seed
            pieces.append(_Piece(index, encoded, start, seed, speaker, settings))
        return pieces

    def _encoded_parts(self, text: str) -> Iterator[tuple[int, EncodedText]]:
        """(offset, tokens) of the text, in parts where it is too long for one pass; raises TextError if all is unspeakable."""
        if (
            len(text) <= 2 * MAX_TOKENS
        ):  # English has about 2 tokens a character, blanks included: longer ones never fit
            encoded = self.frontend.encode(text)
            if len(encoded.tokens) <= MAX_TOKENS:
                yield 0, encoded
                return
        spoken = 0
        chunks = speakable_chunks(text, self.frontend, MAX_TOKENS)
        for chunk in chunks:
            try:
                yield chunk.start, self.frontend.encode(chunk.text)
                spoken += 1
            except TextError:
                if spoken == 0 and chunk is chunks[-1]:
                    raise

    def _speaker(self, name: str | None) -> int:
        speakers = self.voice.card.speakers
        if name is None:
            return 0
        if name not in speakers:
            raise FlowTTSError(
                f"voice {self.voice.card.name} has no speaker {name!r} (it has: {', '.join(speakers) or 'one'})"
            )
        return speakers.index(name)

    def _batches(self, pieces: list[_Piece]) -> Iterator[list[_Piece]]:
        """Pieces of equal settings and similar length, within the budget of padded tokens."""
        order = sorted(pieces, key=lambda p: (repr(p.settings), -len(p.encoded.tokens), p.request, p.offset))
        batch: list[_Piece] = []
        for piece in order:
            full = batch and (len(batch) + 1) * len(batch[0].encoded.tokens) > self.tokens_per_batch
            if batch and (full or piece.settings != batch[0].settings):
                yield batch
                batch = []
            batch.append(piece)
        if batch:
            yield batch

    def _speak(self, batch: list[_Piece]) -> Iterator[tuple[_Piece, np.ndarray, np.ndarray]]:
        """(piece, waveform [S], end of each token in seconds [L]) of each piece."""
        with _Stopwatch(self.last_timings, "acoustic"), torch.inference_mode():
            generated = self._generate(batch)
        with _Stopwatch(self.last_timings, "vocoder"), torch.inference_mode():
            waveforms = self.voice.vocoder(generated.mel, generated.mel_lengths).float().cpu().numpy()
        mel = self.voice.acoustic.mel_config
        ends = generated.durations.cumsum(1).cpu().numpy() * (mel.hop_length / mel.sample_rate)
        for row, piece in enumerate(batch):
            samples = mel.samples_of(int(generated.mel_lengths[row]))
            yield piece, waveforms[row, :samples].clip(-1.0, 1.0), ends[row, : len(piece.encoded.tokens)]

    def _generate(self, batch: list[_Piece]) -> Generated:
        lengths = torch.tensor([len(p.encoded.tokens) for p in batch])
        tokens = torch.zeros(len(batch), int(lengths.max()), dtype=torch.int64)
        for row, piece in enumerate(batch):
            tokens[row, : lengths[row]] = torch.tensor(piece.encoded.tokens)
        speakers = torch.tensor([p.speaker for p in batch]) if self.voice.acoustic.n_speakers > 1 else None
        condition = Condition(
            tokens.to(self.device), lengths.to(self.device), None if speakers is None else speakers.to(self.device)
        )
        return self.voice.acoustic.generate(condition, [p.seed for p in batch], batch[0].settings)

    def _joined(self, request: SynthesisRequest, parts: list[tuple[_Piece, np.ndarray, np.ndarray]]) -> Speech:
        parts.sort(key=lambda part: part[0].offset)
        words: list[WordTime] = []
        seconds = 0.0
        for piece, waveform, ends in parts:
            for word in piece.encoded.words:
                start, end = word.start + piece.offset, word.end + piece.offset
                begin_s = float(ends[word.token_start - 1]) if word.token_start else 0.0
                end_s = float(ends[word.token_end - 1])
                words.append(WordTime(request.text[start:end], start, end, seconds + begin_s, seconds + end_s))
            seconds += len(waveform) / self.sample_rate
        waveform = np.concatenate([waveform for _, waveform, _ in parts])
        return Speech(waveform, self.sample_rate, tuple(words), " ".join(p.encoded.phonemes for p, _, _ in parts))


def _check(request: SynthesisRequest, settings: GenerationSettings) -> None:
    """Raise FlowTTSError for settings that no model can follow."""
    if not (math.isfinite(request.speed) and 0.25 <= request.speed <= 4.0):
        raise FlowTTSError(f"speed = {request.speed}: use a value from 0.25 to 4")
    if not 0 <= settings.steps <= 1000:
        raise FlowTTSError(f"steps = {settings.steps}: use a whole number from 0 (prior mean, no flow) to 1000")
    if not (math.isfinite(settings.temperature) and 0.0 <= settings.temperature <= 2.0):
        raise FlowTTSError(f"temperature = {settings.temperature}: use a value from 0 to 2")


class _Stopwatch:
    def __init__(self, timings: dict[str, float], stage: str) -> None:
        self.timings, self.stage = timings, stage

    def __enter__(self) -> None:
        self.began = time.perf_counter()

    def __exit__(self, *exception: object) -> None:
        self.timings[self.stage] += time.perf_counter() - self.began
