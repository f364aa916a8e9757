"""Streams of speech tokens: sound is made of each few tokens as soon as they are drawn, and is that of the whole."""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowtts_core.engines.base import WordTime
from flowtts_core.engines.flow import FlowSynthesizer
from flowtts_core.request import SynthesisRequest
from flowtts_core.sampling import Sampling
from flowtts_core.streaming.source import SentenceSource, Stream, StreamPiece
from flowtts_core.vocoder.windows import Piece, sound_of, start_of

MOST_CHUNKS = 8  # of a piece, which has twice as many as the one before


@dataclass
class _Open:
    """An utterance whose tokens are being drawn, and how far its sound is made."""

    draft: Any  # a model's `Draft`
    features: Tensor = field(default_factory=lambda: torch.empty(0, 0))  # [M, t]
    chunks: int = 0  # of the decoder that `features` has
    step: int = 1  # chunks of the next piece
    sounded: int = 0  # frames whose sound is made
    start: Tensor | None = None  # of the next piece's sound


class TokenSource(SentenceSource):
    """Streams a voice of tokens.

    The decoder runs over an utterance from its beginning each time, whose chunks see none after them; pieces grow, so that it
    runs over each frame some three times. One stream's piece is made at a time.
    """

    most_together, alike = 1, 1.0

    def __init__(self, synthesizer: FlowSynthesizer) -> None:
        super().__init__(synthesizer)
        self.flow = synthesizer
        model: Any = synthesizer.voice.acoustic
        self.model, self.chunk = model, int(model.config.decoder.chunk)
        self.vocoder = synthesizer.voice.vocoder
        assert self.vocoder.context_frames is not None
        self.context = self.vocoder.context_frames

    def key(self, request: SynthesisRequest) -> Hashable:
        return repr(self._settings(request))

    def _settings(self, request: SynthesisRequest) -> Sampling:
        return self.flow.voice.card.sampling.asked(request)

    def step(self, streams: Sequence[Stream]) -> list[StreamPiece]:
        """Make the next piece of each stream. An error leaves those after it where they were."""
        with self.flow.exact_convolutions(), torch.inference_mode():
            return [self._next(stream) for stream in streams]

    def _next(self, stream: Stream) -> StreamPiece:
        """Return the next piece of a stream.

        Raises:
            FlowTTSError: where its tokens do not end, and some were heard already; before that they are drawn again.
        """
        self.read_on(stream)
        settings, began = self._settings(stream.asked), time.perf_counter()
        if stream.opened is None:
            stream.opened = self._begun(stream, settings)
        opened: _Open = stream.opened
        last = self._decode(opened, settings)
        decoded = time.perf_counter()
        waveform = self._sound(opened, last)
        self.timings["acoustic"] += decoded - began
        self.timings["vocoder"] += time.perf_counter() - decoded
        words: tuple[WordTime, ...] | None = None
        if last:
            return self.end_of_utterance(stream, waveform, words, self.next_size(stream))
        return self.piece(stream, waveform, words, False, self.next_size(stream))

    def _begun(self, stream: Stream, settings: Sampling) -> _Open:
        assert stream.current is not None and stream.current.encoded is not None
        with self._frontend_lock:  # which reads a prompt's text
            item = self.flow.condition([(stream.asked, stream.current.encoded)])
        return _Open(self.model.draft(item, stream.current.seed, settings.speed))

    def _decode(self, opened: _Open, settings: Sampling) -> bool:
        """Draw tokens and make the frames of the next chunks; return whether they are the last."""
        draft = opened.draft
        while True:
            chunks = opened.chunks + opened.step
            draft.draw(draft.tokens_for(chunks * self.chunk), heard=opened.sounded > 0)
            frames = min(draft.frames_known(), chunks * self.chunk)
            last = draft.ended and frames == draft.frames_known()
            opened.features = self.model.decode(draft, frames, settings)
            opened.chunks, opened.step = chunks, min(2 * opened.step, MOST_CHUNKS)
            if last or frames - self.context > opened.sounded:
                return last

    def _sound(self, opened: _Open, last: bool) -> np.ndarray:
        """Return the samples that the frames now tell: the vocoder sees `context` frames beside its own."""
        mel, begin = opened.features, opened.sounded
        end = mel.shape[1] if last else mel.shape[1] - self.context
        opened.start = start_of(self.vocoder, mel, begin, opened.start)
        opened.sounded = end
        [sound] = sound_of(self.vocoder, [Piece(mel, begin, end, last, opened.start)])
        return sound.cpu().numpy()
