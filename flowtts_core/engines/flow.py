"""The only way from text to sound: a list of requests in, a list of results out, batched by tokens.

`Synthesizer` is the contract that jobs, server and evaluation know. `VoiceSynthesizer` is its first implementation, over a
`Voice` of ours (text front end, acoustic model, vocoder).
"""

from __future__ import annotations

import logging
import numbers
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from flowtts_core.acoustic.base import SPEEDS, Condition, Generated, Sampling
from flowtts_core.errors import FlowTTSError
from flowtts_core.memory import keep_memory
from flowtts_core.seeds import hash_seed
from flowtts_core.text.frontends import EncodedText, PhonemeFrontend
from flowtts_core.text.parts import TextPart, encode_parts
from flowtts_core.voice.card import VoiceCard
from flowtts_core.voice.parts import Voice, load_voice

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SynthesisRequest:
    """One utterance. Fields left None take the voice's own defaults.

    `parts` is the text as the voice's own front end encoded it elsewhere; None has the synthesizer do that.
    """

    text: str
    seed: int = 0
    speed: float = 1.0
    steps: int | None = None
    temperature: float | None = None
    speaker: str | None = None
    parts: tuple[TextPart, ...] | None = None


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
    """A result: `waveform` [S] float32 in [-1, 1].

    `flac` is the same sound encoded, from an engine that has it so already; empty where it does not.
    """

    waveform: np.ndarray
    sample_rate: int
    words: tuple[WordTime, ...] = ()
    phonemes: str = ""
    flac: bytes = b""

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


# padded; on a CPU larger batches cost memory and gain nothing, a GPU needs many to be at work
TOKENS_PER_BATCH, TOKENS_PER_BATCH_CUDA = 1000, 16_000


@dataclass(frozen=True)
class _Piece:
    """A part of a request short enough for one pass: what to say, from where in the text, and with which noise."""

    request: int
    encoded: EncodedText
    offset: int
    seed: int
    speaker: int
    settings: Sampling


@dataclass(frozen=True)
class _Spoken:
    piece: _Piece
    waveform: np.ndarray  # [S]
    ends: np.ndarray  # [L] seconds at which each token ends


class VoiceSynthesizer:
    """Speaks with a `Voice`.

    Args:
        voice: a loaded voice.
        tokens_per_batch: budget of padded tokens that go through the model together; by default the device's.
        device: where the models run; by default where the voice was loaded to.

    Attributes:
        last_timings: seconds that the last call spent in "frontend", "acoustic" and "vocoder".
        last_tokens: tokens of the last call, and those with the padding that its batches needed.
    """

    def __init__(self, voice: Voice, *, tokens_per_batch: int | None = None, device: str | None = None) -> None:
        self.voice = voice
        self.device = torch.device(device) if device else next(voice.acoustic.parameters()).device
        default = TOKENS_PER_BATCH_CUDA if self.device.type == "cuda" else TOKENS_PER_BATCH
        self.tokens_per_batch = default if tokens_per_batch is None else tokens_per_batch
        if self.device.type == "cpu":
            keep_memory()
        self.frontend = PhonemeFrontend(voice.card.frontend)
        self.sample_rate = voice.card.sample_rate
        self.fingerprint = voice.card.fingerprint
        self.last_timings: dict[str, float] = {}
        self.last_tokens = (0, 0)

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
        self.last_timings, self.last_tokens = {"frontend": 0.0, "acoustic": 0.0, "vocoder": 0.0}, (0, 0)
        failures: dict[int, SynthesisFailure] = {}
        pieces: list[_Piece] = []
        with self._stopwatch("frontend"):
            for index, request in enumerate(requests):
                try:
                    pieces.extend(self._pieces(index, request))
                except MemoryError:
                    raise
                except Exception as error:
                    failures[index] = _failure(error)
        spoken: dict[int, list[_Spoken]] = {}
        with self.exact_convolutions():
            for batch in self._batches(pieces):
                for part in self._speak_apart(batch, failures):
                    spoken.setdefault(part.piece.request, []).append(part)
        return [failures.get(i) or self._joined(request, spoken[i]) for i, request in enumerate(requests)]

    def exact_convolutions(self) -> AbstractContextManager[Any]:
        """float32 on CUDA too: TF32, cuDNN's default, has 10 bits of mantissa, and a batch would differ from its singles."""
        if self.device.type != "cuda":
            return nullcontext()
        now: Any = torch.backends.cudnn
        flags: AbstractContextManager[Any] = now.flags(
            enabled=now.enabled, benchmark=now.benchmark, deterministic=now.deterministic, allow_tf32=False
        )
        return flags

    def _stopwatch(self, stage: str) -> _Stopwatch:
        return _Stopwatch(self.last_timings, stage, self.device)

    def _pieces(self, index: int, request: SynthesisRequest) -> list[_Piece]:
        settings = generation_settings(request, self.voice.card)
        speaker = self.speaker_index(request.speaker)
        pieces = []
        parts = encode_parts(request.text, self.frontend) if request.parts is None else request.parts
        for number, part in enumerate(parts):
            seed = hash_seed(int(request.seed), number) if number else int(request.seed)
            pieces.append(_Piece(index, part.encoded, part.offset, seed, speaker, settings))
        return pieces

    def speaker_index(self, name: str | None) -> int:
        """The model's number of a speaker, the first where none is named; raises FlowTTSError for an unknown one."""
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

    def _speak_apart(self, batch: list[_Piece], failures: dict[int, SynthesisFailure]) -> list[_Spoken]:
        """As `_speak`; a batch that raises is spoken in halves, and a piece that raises alone fails its own request."""
        try:
            return self._speak(batch)
        except (
            MemoryError,
            torch.OutOfMemoryError,
        ):  # the machine's fault; a batch that did not fit may do so in pieces
            if len(batch) == 1:
                raise
        except Exception as error:
            if len(batch) == 1:
                failures[batch[0].request] = _failure(error)
                return []
        half = len(batch) // 2
        return [*self._speak_apart(batch[:half], failures), *self._speak_apart(batch[half:], failures)]

    def _speak(self, batch: list[_Piece]) -> list[_Spoken]:
        lengths = [len(piece.encoded.tokens) for piece in batch]
        self.last_tokens = (self.last_tokens[0] + sum(lengths), self.last_tokens[1] + max(lengths) * len(lengths))
        with self._stopwatch("acoustic"), torch.inference_mode():
            generated = self._generate(batch)
        with self._stopwatch("vocoder"), torch.inference_mode():
            waveforms = self.voice.vocoder(generated.mel, generated.mel_lengths).float().cpu().numpy()
        mel = self.voice.acoustic.features
        ends = generated.durations.cumsum(1).cpu().numpy() * (mel.hop_length / mel.sample_rate)
        samples = [mel.samples_of(frames) for frames in generated.mel_lengths.tolist()]
        return [
            _Spoken(piece, waveforms[row, : samples[row]].clip(-1.0, 1.0), ends[row, : len(piece.encoded.tokens)])
            for row, piece in enumerate(batch)
        ]

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

    def _joined(self, request: SynthesisRequest, parts: list[_Spoken]) -> Speech:
        parts.sort(key=lambda part: part.piece.offset)
        words: list[WordTime] = []
        seconds = 0.0
        for part in parts:
            piece, ends = part.piece, part.ends
            for word in piece.encoded.words:
                start, end = word.start + piece.offset, word.end + piece.offset
                begin_s = float(ends[word.token_start - 1]) if word.token_start else 0.0
                end_s = float(ends[word.token_end - 1])
                words.append(WordTime(request.text[start:end], start, end, seconds + begin_s, seconds + end_s))
            seconds += len(part.waveform) / self.sample_rate
        waveform = parts[0].waveform if len(parts) == 1 else np.concatenate([part.waveform for part in parts])
        return Speech(waveform, self.sample_rate, tuple(words), " ".join(p.piece.encoded.phonemes for p in parts))


def check_request(request: SynthesisRequest) -> None:
    """Raise FlowTTSError for values that no synthesizer can follow, of the wrong type too: rows come from anywhere."""
    if not isinstance(request.text, str):
        raise FlowTTSError(f"text = {request.text!r}: use a string")
    _check("seed", request.seed, numbers.Integral, -(2**63), 2**63 - 1)
    _check("speed", request.speed, numbers.Real, 0.25, 4.0)
    if request.steps is not None:
        _check("steps", request.steps, numbers.Integral, 0, 1000)  # 0 is the prior mean, without flow
    if request.temperature is not None:
        _check("temperature", request.temperature, numbers.Real, 0.0, 2.0)


def _check(name: str, value: Any, kind: type, low: float, high: float) -> None:
    if not isinstance(value, kind) or not low <= value <= high:  # type: ignore[operator]  # mypy compares no `numbers`; NaN is in no range
        what = "a whole number" if kind is numbers.Integral else "a value"
        raise FlowTTSError(f"{name} = {value!r}: use {what} from {low:g} to {high:g}")


def generation_settings(request: SynthesisRequest, card: VoiceCard) -> Sampling:
    """The request's settings, with the voice's own where it has none; raises FlowTTSError as `check_request`."""
    check_request(request)
    speed = float(request.speed) * card.speed
    if not SPEEDS[0] <= speed <= SPEEDS[1]:
        raise FlowTTSError(
            f"speed = {request.speed} times the voice's own {card.speed} is {speed:g}: it must be {SPEEDS[0]} to {SPEEDS[1]}"
        )
    return Sampling(
        steps=card.steps if request.steps is None else int(request.steps),
        temperature=card.temperature if request.temperature is None else float(request.temperature),
        speed=speed,
    )


def _failure(error: Exception) -> SynthesisFailure:
    if isinstance(error, FlowTTSError):
        return SynthesisFailure(error.message)
    log.error(
        "a request could not be spoken", exc_info=error
    )  # not foreseen: the reason alone would not find the place
    return SynthesisFailure(f"{type(error).__name__}: {error}")


class _Stopwatch:
    def __init__(self, timings: dict[str, float], stage: str, device: torch.device) -> None:
        self.timings, self.stage, self.device = timings, stage, device

    def __enter__(self) -> None:
        self.began = self._now()

    def __exit__(self, *exception: object) -> None:
        self.timings[self.stage] += self._now() - self.began

    def _now(self) -> float:
        if self.device.type == "cuda":  # kernels run on after the call that started them
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
