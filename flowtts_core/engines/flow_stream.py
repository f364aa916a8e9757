"""Streams inside a sentence: utterances cut into the acoustic model's windows, and windows of many requests made together."""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowtts_core.acoustic.windows import FeatureDraft, Window, plan_windows
from flowtts_core.engines.base import WordTime, pause_samples, placed
from flowtts_core.engines.flow import FlowSynthesizer
from flowtts_core.request import SynthesisRequest
from flowtts_core.sampling import Sampling
from flowtts_core.streaming.source import CHARACTER_S, SentenceSource, Stream, StreamPiece
from flowtts_core.text.plan import Utterance
from flowtts_core.vocoder.windows import Piece, sound_of, start_of

FRAMES_PER_BATCH_CUDA = 10_000  # padded; a CPU makes one window after the other
_TOKEN_FRAMES = 2.6  # frames of a token at speed 1, where they are not known yet


@dataclass
class _Open:
    """An utterance laid out: its windows, and how far they are made."""

    draft: FeatureDraft
    windows: list[Window]
    words: tuple[WordTime, ...]
    done: int = 0  # windows
    sounded: int = 0  # frames whose sound is made
    features: Tensor | None = None  # [D, t] up to the last window's end
    start: Tensor | None = None  # of the last window's sound

    @property
    def window(self) -> Window:
        return self.windows[self.done]


class WindowSource(SentenceSource):
    """Streams a flow voice window by window, with the windows that the whole utterance has."""

    def __init__(self, synthesizer: FlowSynthesizer) -> None:
        super().__init__(synthesizer)
        self.flow = synthesizer
        self.model: Any = synthesizer.voice.acoustic  # a WindowedModel
        self.vocoder = synthesizer.voice.vocoder
        assert self.vocoder.context_frames is not None
        self.context = self.vocoder.context_frames
        cuda = synthesizer.device.type == "cuda"
        self.most_together, self.alike = FRAMES_PER_BATCH_CUDA if cuda else 1, 0.6

    def key(self, request: SynthesisRequest) -> Hashable:
        return repr(replace(self._settings(request), speed=1.0))

    def _settings(self, request: SynthesisRequest) -> Sampling:
        return self.flow.voice.card.sampling.asked(request)

    def remaining_s(self, stream: Stream) -> float:
        """Return the seconds of sound still to make: known for the utterance in work, estimated for the rest."""
        if stream.opened is None or stream.current is None:
            return super().remaining_s(stream)
        rest = (len(stream.request.text) - stream.current.end) * CHARACTER_S / float(stream.request.speed)
        return rest + self.model.features.seconds_of(stream.opened.draft.frames - stream.opened.sounded)

    def next_size(self, stream: Stream) -> int:
        """Return the frames of the flow in the next piece; estimated before its utterance is laid out."""
        if stream.opened is not None:
            window = stream.opened.window
            return int(window.high - window.low)
        assert stream.current is not None and stream.current.encoded is not None
        frames = round(len(stream.current.encoded.tokens) * _TOKEN_FRAMES / self._settings(stream.asked).speed)
        return plan_windows(max(1, frames))[0].high

    def step(self, streams: Sequence[Stream]) -> list[StreamPiece]:
        """Make the next window of each stream. An error leaves all of them where they were."""
        for stream in streams:
            self._open(stream)
        opened: list[_Open] = [stream.opened for stream in streams]
        began = time.perf_counter()
        with self.flow.exact_convolutions(), torch.inference_mode():
            features = self._decoded(opened, self._settings(streams[0].request))
            decoded = time.perf_counter()
            waveforms = self._vocoded(opened, features)
        self.timings["acoustic"] += decoded - began
        self.timings["vocoder"] += time.perf_counter() - decoded
        return [self._advanced(*item) for item in zip(streams, opened, features, waveforms, strict=True)]

    def _open(self, stream: Stream) -> None:
        """Lay out the utterance in turn, and read the one after it; pass over those that the listener has."""
        while stream.opened is None:
            self.read_on(stream)
            assert stream.current is not None
            opened = self._laid_out(stream.asked, stream.current)
            samples = self.model.features.samples_of(opened.draft.frames)
            samples += pause_samples(stream.current, stream.upcoming, self.sample_rate)
            if stream.upcoming is not None and stream.samples + samples <= stream.skip:
                stream.samples += samples
                stream.skipped += samples + stream.lead
                stream.lead = 0
                stream.skipped_words += len(opened.words)
                stream.advance()
            else:
                stream.opened = opened

    def _laid_out(self, request: SynthesisRequest, utterance: Utterance) -> _Open:
        began = time.perf_counter()
        assert utterance.encoded is not None
        with self._frontend_lock:  # which reads a prompt's text
            item = self.flow.condition([(request, utterance.encoded)])
        draft = self.model.draft(item, utterance.seed, self._settings(request).speed)
        words = () if draft.durations is None else self.flow.words(utterance.encoded, draft.durations)
        self.timings["acoustic"] += time.perf_counter() - began
        return _Open(draft, plan_windows(draft.frames), words)

    def _decoded(self, opened: Sequence[_Open], settings: Sampling) -> list[Tensor]:
        """The features [D, end] of each up to its window's end."""
        spans = [(o.window.low, o.window.high) for o in opened]
        found = []
        for o, piece in zip(opened, self.model.decode([o.draft for o in opened], spans, settings), strict=True):
            made = 0 if o.features is None else o.features.shape[1]
            fresh = piece[:, made - o.window.low : o.window.end - o.window.low]
            found.append(fresh if o.features is None else torch.cat([o.features, fresh], 1))
        return found

    def _sound_end(self, opened: _Open) -> int:
        """The frame up to which there is sound once the window is made: the vocoder sees `context` frames beside its own."""
        window = opened.window
        return window.end if window.end == opened.draft.frames else max(opened.sounded, window.end - self.context)

    def _vocoded(self, opened: Sequence[_Open], features: Sequence[Tensor]) -> list[np.ndarray]:
        """The samples of each window's new sound."""
        pieces = []
        for o, mel in zip(opened, features, strict=True):
            o.start, end = start_of(self.vocoder, mel, o.sounded, o.start), self._sound_end(o)
            pieces.append(Piece(mel, o.sounded, end, end == o.draft.frames, o.start))
        made = sound_of(self.vocoder, pieces, together=self.flow.device.type != "cpu")
        return [waveform.cpu().numpy() for waveform in made]

    def _advanced(self, stream: Stream, opened: _Open, features: Tensor, waveform: np.ndarray) -> StreamPiece:
        assert stream.current is not None
        window, begun, until = opened.window, opened.sounded, self._sound_end(opened)
        hop_s = self.model.features.seconds_of(1)
        final = window.end == opened.draft.frames
        told = [w for w in opened.words if begun * hop_s <= w.start_s and (final or w.start_s < until * hop_s)]
        words = placed(stream.request, stream.current, told, stream.samples / self.sample_rate - begun * hop_s)
        opened.features, opened.sounded, opened.done = features, until, opened.done + 1
        if final:
            return self.end_of_utterance(stream, waveform, words, window.high - window.low)
        return self.piece(stream, waveform, words, False, window.high - window.low)
