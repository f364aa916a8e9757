"""Flow voices: text front end, acoustic model and vocoder, batched by tokens."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from flowtts_core.acoustic.base import Condition, Generated, Prompt
from flowtts_core.acoustic.windows import WindowedModel
from flowtts_core.audio.files import resample
from flowtts_core.audio.mel import LogMel
from flowtts_core.audio.reference import clean_reference, require_own_text, text_note
from flowtts_core.engines.base import (
    Speech,
    Spoken,
    SynthesisFailure,
    UtteranceSynthesizer,
    WordTime,
    failure,
    word_times,
)
from flowtts_core.errors import FlowTTSError
from flowtts_core.flow import NAMED_GRIDS
from flowtts_core.memory import keep_memory
from flowtts_core.request import PromptClip, SynthesisRequest
from flowtts_core.sampling import Sampling
from flowtts_core.streaming.source import StreamSource
from flowtts_core.text.frontends.base import EncodedText
from flowtts_core.text.plan import Utterance
from flowtts_core.voice.card import VoiceCard
from flowtts_core.voice.parts import FlowVoice, load_parts, parts_of

# padded; on a CPU larger batches cost memory and gain nothing, a GPU needs many to be at work
TOKENS_PER_BATCH, TOKENS_PER_BATCH_CUDA = 4000, 16_000
CONTROLS = frozenset({"seed", "speed", "steps", "temperature", "grid"})
_PROMPTS_KEPT = 64  # clips whose features stay in memory, 0.5 MB each


@dataclass(frozen=True)
class _Piece:
    """An utterance with all that its sound depends on."""

    place: int  # among the utterances that are spoken together
    request: SynthesisRequest
    utterance: Utterance
    encoded: EncodedText
    speaker: int
    settings: Sampling


class FlowSynthesizer(UtteranceSynthesizer):
    """Speaks with a flow voice.

    Args:
        voice: loaded parts.
        tokens_per_batch: budget of padded tokens that go through the model together; by default the device's.
        device: where the models run; by default where the voice was loaded to.

    Attributes:
        last_timings: seconds that the last call spent in "acoustic" and "vocoder".
        last_tokens: tokens of the last call, and those with the padding that its batches needed.
        last_prompts: utterances of the last call that had a prompt, and clips whose features were made for it: others were kept.
    """

    def __init__(self, voice: FlowVoice, *, tokens_per_batch: int | None = None, device: str | None = None) -> None:
        self.voice, card = voice, voice.card
        self.device = torch.device(device) if device else next(voice.acoustic.parameters()).device
        default = TOKENS_PER_BATCH_CUDA if self.device.type == "cuda" else TOKENS_PER_BATCH
        self.tokens_per_batch = default if tokens_per_batch is None else tokens_per_batch
        if self.device.type == "cpu":
            keep_memory()
        self.name, self.sample_rate, self.fingerprint = card.name, card.sample_rate, card.fingerprint
        self.languages, self.speakers, self.frontend = card.languages, card.speakers, voice.frontend
        guided = {"guidance"} if voice.acoustic.guided else set()
        prompted = {"prompt", "prompt_text"} if voice.acoustic.prompted != "none" else set()
        self.controls = CONTROLS | guided | prompted
        self.prompt_of = lru_cache(_PROMPTS_KEPT)(self._prompt_of)
        self.last_timings: dict[str, float] = {"acoustic": 0.0, "vocoder": 0.0}
        self.last_tokens = self.last_prompts = (0, 0)
        self._made_before = 0

    @classmethod
    def load(
        cls, voice: str | os.PathLike[str] | None = None, *, device: str = "cpu", threads: int | None = None
    ) -> FlowSynthesizer:
        """From a bundled flow voice's name or a folder; `threads` limits torch's threads in this process."""
        if threads is not None:
            torch.set_num_threads(threads)
        return cls(load_parts(voice, device), device=device)

    def check(self, request: SynthesisRequest) -> None:
        super().check(request)
        self.voice.card.sampling.asked(request)
        if request.grid is not None and request.grid not in NAMED_GRIDS:
            raise FlowTTSError(f"grid = {request.grid!r}: use one of: {', '.join(NAMED_GRIDS)}")
        if self.voice.acoustic.prompted == "required" and request.prompt is None:
            raise FlowTTSError(
                f"voice {self.name} speaks as a recording does: give a prompt and its prompt_text (--clone FILE --ref-text TEXT)"
            )
        if (request.prompt is None) != (request.prompt_text is None):
            raise FlowTTSError(
                "a prompt needs its prompt_text, and the other way round (--clone and --ref-text; columns clone and ref_text)"
            )
        if request.prompt is not None:
            self.prompt_of(request.prompt, request.prompt_text)  # one that cannot be read is refused before any sound

    def notes(self, request: SynthesisRequest) -> tuple[str, ...]:
        """Return what was done to the request's clip, and what is odd about it or its text."""
        if request.prompt is None:
            return ()
        reference = clean_reference(request.prompt)
        odd = text_note(request.prompt_text or "", reference.seconds)
        return (*reference.notes, *([odd] if odd else []))

    def stream_source(self) -> StreamSource | None:
        from flowtts_core.engines.flow_stream import WindowSource

        model = self.voice.acoustic
        windowed = isinstance(model, WindowedModel) and model.windowed and self.voice.vocoder.context_frames is not None
        return WindowSource(self) if windowed else None

    def speak(self, utterances: Sequence[Spoken]) -> list[Speech | SynthesisFailure]:
        self.last_timings, self.last_tokens = {"acoustic": 0.0, "vocoder": 0.0}, (0, 0)
        results: list[Any] = [None] * len(utterances)
        pieces = [self._piece(i, request, utterance) for i, (request, utterance) in enumerate(utterances)]
        with self.exact_convolutions():
            for batch in self._batches(pieces):
                self._speak_apart(batch, results)
        made = self.prompt_of.cache_info().misses
        self.last_prompts = sum(r.prompt is not None for r, _ in utterances), made - self._made_before
        self._made_before = made
        return results

    def _piece(self, place: int, request: SynthesisRequest, utterance: Utterance) -> _Piece:
        assert utterance.encoded is not None
        settings = self.voice.card.sampling.asked(request)
        return _Piece(place, request, utterance, utterance.encoded, self.speaker_index(request), settings)

    def speaker_index(self, request: SynthesisRequest) -> int:
        """Return the model's number of a request's speaker, the first where none is named."""
        return 0 if request.speaker is None else self.speakers.index(request.speaker)

    def exact_convolutions(self) -> AbstractContextManager[Any]:
        """Keep float32 on CUDA: TF32, cuDNN's default, has 10 bits of mantissa, and a batch would differ from its singles."""
        if self.device.type != "cuda":
            return nullcontext()
        now: Any = torch.backends.cudnn
        flags: AbstractContextManager[Any] = now.flags(
            enabled=now.enabled, benchmark=now.benchmark, deterministic=now.deterministic, allow_tf32=False
        )
        return flags

    def _batches(self, pieces: list[_Piece]) -> Iterator[list[_Piece]]:
        """Pieces of equal settings and similar length, within the budget of padded tokens."""
        kinds = {p.place: (repr(p.settings), p.request.prompt is None) for p in pieces}
        batch: list[_Piece] = []
        for piece in sorted(pieces, key=lambda p: (*kinds[p.place], -len(p.encoded.tokens), p.place)):
            full = batch and (len(batch) + 1) * len(batch[0].encoded.tokens) > self.tokens_per_batch
            if batch and (full or kinds[piece.place] != kinds[batch[0].place]):
                yield batch
                batch = []
            batch.append(piece)
        if batch:
            yield batch

    def _speak_apart(self, batch: list[_Piece], results: list[Any]) -> None:
        """Speak a batch; one that raises is spoken in halves, and a piece that raises alone fails its own request."""
        try:
            for piece, speech in zip(batch, self._speak(batch), strict=True):
                results[piece.place] = speech
            return
        except (
            MemoryError,
            torch.OutOfMemoryError,
        ):  # the machine's fault; a batch that did not fit may do so in pieces
            if len(batch) == 1:
                raise
        except Exception as error:
            if len(batch) == 1:
                results[batch[0].place] = failure(error)
                return
        half = len(batch) // 2
        self._speak_apart(batch[:half], results)
        self._speak_apart(batch[half:], results)

    def _speak(self, batch: list[_Piece]) -> list[Speech]:
        lengths = [len(piece.encoded.tokens) for piece in batch]
        padded = max(lengths) * len(lengths) if self.device.type == "cuda" else sum(lengths)  # a CPU pads nothing
        self.last_tokens = (self.last_tokens[0] + sum(lengths), self.last_tokens[1] + padded)
        with self._stopwatch("acoustic"), torch.inference_mode():
            condition = self.condition([(p.request, p.encoded) for p in batch])
            made = self.voice.acoustic.generate(condition, [p.utterance.seed for p in batch], batch[0].settings)
        with self._stopwatch("vocoder"), torch.inference_mode():
            waveforms = self._vocoded(made)
        return [
            Speech(
                waveform.clip(-1.0, 1.0),
                self.sample_rate,
                None if made.durations is None else self.words(piece.encoded, made.durations[row]),
                piece.encoded.phonemes,
                notes=made.notes[row] if made.notes else (),
            )
            for row, (piece, waveform) in enumerate(zip(batch, waveforms, strict=True))
        ]

    def _vocoded(self, made: Generated) -> list[np.ndarray]:
        """The waveform [S] of each item; a CPU gains nothing by batches."""
        vocoder, lengths = self.voice.vocoder, made.lengths.tolist()
        if self.device.type == "cpu":
            items = (made.features[row : row + 1, :, :frames] for row, frames in enumerate(lengths))
            return [vocoder(item)[0].float().numpy() for item in items]
        waveforms = vocoder(made.features, made.lengths).float().cpu().numpy()
        return [w[: vocoder.features.samples_of(frames)] for w, frames in zip(waveforms, lengths, strict=True)]

    def condition(self, items: Sequence[tuple[SynthesisRequest, EncodedText]]) -> Condition:
        """Return what these utterances are generated from, as one padded batch."""
        tokens = [torch.tensor(encoded.tokens) for _, encoded in items]
        lengths = torch.tensor([len(own) for own in tokens])
        speakers = None
        if self.voice.acoustic.n_speakers > 1:
            speakers = torch.tensor([self.speaker_index(request) for request, _ in items])
        prompt = None
        prompts = [(r.prompt, r.prompt_text) for r, _ in items]
        if prompts[0][0] is not None:
            heard = [self.prompt_of(clip, text) for clip, text in prompts]
            prompt = Prompt(
                pad_sequence([features for features, _ in heard], batch_first=True),
                torch.tensor([len(features) for features, _ in heard]),
                pad_sequence([said for _, said in heard], batch_first=True),
                torch.tensor([len(said) for _, said in heard]),
            )
        return Condition(pad_sequence(tokens, batch_first=True), lengths, speakers, prompt).to(self.device)

    def _prompt_of(self, clip: PromptClip, text: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Features [T, D] of a clip as `clean_reference` leaves it, and the tokens [L] of what is said in it.

        Raises:
            AudioError, TextError: for a clip or a text that cannot serve, or that do not belong together.
        """
        mel, reference = self.voice.acoustic.features, clean_reference(clip)
        require_own_text(reference, text)
        waveform = resample(reference.waveform, reference.sample_rate, mel.sample_rate)
        waveform = waveform[: len(waveform) // mel.hop_length * mel.hop_length]
        features = LogMel(mel)(torch.from_numpy(np.ascontiguousarray(waveform))[None])[0].T
        return features, torch.tensor(self.voice.frontend.encode(text).tokens)

    def words(self, encoded: EncodedText, durations: torch.Tensor) -> tuple[WordTime, ...]:
        """Return when the words of an utterance are spoken, from the frames [L] of its tokens."""
        return word_times(encoded, durations.tolist(), self.voice.acoustic.features.seconds_of(1))

    def _stopwatch(self, stage: str) -> _Stopwatch:
        return _Stopwatch(self.last_timings, stage, self.device)


def open_flow(folder: Path, card: VoiceCard, device: str, threads: int | None = None) -> FlowSynthesizer:
    """Open a flow voice's folder; `threads` limits torch's threads in this process."""
    if threads is not None:
        torch.set_num_threads(threads)
    return FlowSynthesizer(parts_of(folder, card, device), device=device)


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
