"""What a streaming engine needs of a voice: requests opened, and their sound made piece by piece.

`SentenceSource` serves every engine, an utterance at a time; an engine that can stream inside a sentence brings its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from flowtts_core.engines.base import (
    SynthesisFailure,
    UtteranceSynthesizer,
    WordTime,
    lead_samples,
    pause_samples,
    placed,
)
from flowtts_core.errors import FlowTTSError
from flowtts_core.request import SynthesisRequest
from flowtts_core.text.plan import Utterance, Utterances, asked

CHARACTER_S = 0.065  # seconds of a character at speed 1, an estimate
CHARACTERS_PER_BATCH = 1000


@dataclass(frozen=True)
class StreamPiece:
    """What one step made of a request: [S] samples and the words that begin in them, by the request's clock.

    `words` is None where the engine does not know their times.
    """

    waveform: np.ndarray
    words: tuple[WordTime, ...] | None
    last: bool
    size: int  # of the work that it was, as `StreamSource.next_size` counts it
    skipped: int = 0  # samples before it that were not made, and words in them
    skipped_words: int = 0


class StreamSource(Protocol):
    """Makes the pieces of requests; `begin` may be called by any thread, the rest by one.

    Attributes:
        timings: seconds spent so far in "frontend", "acoustic" and "vocoder".
        most_together: sizes of the pieces that are made together add up to this at most.
        alike: pieces whose sizes have at least this ratio may be made together.
    """

    sample_rate: int
    timings: dict[str, float]
    most_together: int
    alike: float

    def begin(self, request: SynthesisRequest, skip: int = 0) -> Any: ...
    def next_size(self, stream: Any) -> int: ...
    def remaining_s(self, stream: Any) -> float: ...
    def step(self, streams: Sequence[Any]) -> Sequence[StreamPiece]: ...
    def prepare(self) -> None: ...


class Stream:
    """A request on its way; `StreamSource.step` moves it on.

    Attributes:
        key: pieces of equal keys can be made together.
        skip: samples that the listener has: utterances that end before are not sent again.
        current, upcoming: the utterance in work, and the one after it, as far as they are read.
        lead: samples of silence before the first utterance that were not sent yet.
        samples: made or passed over so far, the lead with them.
    """

    def __init__(
        self, request: SynthesisRequest, reading: Iterator[Utterance], key: Hashable, sample_rate: int, skip: int = 0
    ) -> None:
        self.request, self.key, self.skip = request, key, skip
        self.skipped = self.skipped_words = 0  # since the last piece
        self.reading = reading
        first = next(reading)
        self.current: Utterance | None = first
        self.upcoming: Utterance | None = None
        self.read_on = True  # whether `upcoming` is still to be read
        self.opened: Any = None  # what the source knows of `current`
        self.samples = self.lead = lead_samples(first, sample_rate)

    @property
    def asked(self) -> SynthesisRequest:
        """The request as the utterance in work asks for it."""
        assert self.current is not None
        return asked(self.request, self.current.manner)

    def advance(self) -> None:
        """Go on to the next utterance."""
        self.current, self.upcoming, self.opened, self.read_on = self.upcoming, None, None, True


class SentenceSource:
    """Streams any engine utterance by utterance."""

    most_together, alike = CHARACTERS_PER_BATCH, 0.6

    def __init__(self, synthesizer: UtteranceSynthesizer) -> None:
        self.synthesizer, self.sample_rate = synthesizer, synthesizer.sample_rate
        self.timings = {"frontend": 0.0, "acoustic": 0.0, "vocoder": 0.0}
        self._frontend_lock = threading.Lock()

    def begin(self, request: SynthesisRequest, skip: int = 0) -> Stream:
        """Check a request and read its first utterance.

        Args:
            skip: samples that the listener has already. Whole utterances of them are passed over where their lengths are
                known before they are made; here they are made again.

        Raises:
            FlowTTSError: for a request that the voice cannot follow, or a text of which nothing can be spoken.
        """
        began = time.perf_counter()
        with self._frontend_lock:
            self.synthesizer.check(request)
            reading = iter(Utterances(request, self.synthesizer.frontend))
            stream = Stream(request, reading, self.key(request), self.sample_rate, skip)
            self.timings["frontend"] += time.perf_counter() - began
        return stream

    def key(self, request: SynthesisRequest) -> Hashable:
        return None  # each utterance is spoken with its own request's settings

    def prepare(self) -> None:
        """Load what the first texts would load."""
        if self.synthesizer.frontend is not None:
            with self._frontend_lock:
                self.synthesizer.frontend.load()

    def remaining_s(self, stream: Stream) -> float:
        """Return the seconds of sound still to make, estimated by characters."""
        if stream.current is None:
            return 0.0
        return (len(stream.request.text) - stream.current.start) * CHARACTER_S / float(stream.request.speed)

    def next_size(self, stream: Stream) -> int:
        assert stream.current is not None
        return stream.current.end - stream.current.start

    def read_on(self, stream: Stream) -> None:
        """Read the utterance after the one in work, to know whether that is the last."""
        if stream.read_on:
            began = time.perf_counter()
            with self._frontend_lock:
                stream.upcoming, stream.read_on = next(stream.reading, None), False
                self.timings["frontend"] += time.perf_counter() - began

    def step(self, streams: Sequence[Stream]) -> list[StreamPiece]:
        """Speak the next utterance of each stream. An error leaves all of them where they were."""
        for stream in streams:
            self.read_on(stream)
        began = time.perf_counter()
        results = self.synthesizer.speak([(s.asked, s.current) for s in streams if s.current is not None])
        self.timings["acoustic"] += time.perf_counter() - began
        for result in results:
            if isinstance(result, SynthesisFailure):
                raise FlowTTSError(result.reason)
        pieces = []
        for stream, speech in zip(streams, results, strict=True):
            assert stream.current is not None and not isinstance(speech, SynthesisFailure)
            begun_s = stream.samples / self.sample_rate
            words = None if speech.words is None else placed(stream.request, stream.current, speech.words, begun_s)
            pieces.append(self.end_of_utterance(stream, speech.waveform, words, self.next_size(stream)))
        return pieces

    def end_of_utterance(
        self, stream: Stream, waveform: np.ndarray, words: tuple[WordTime, ...] | None, size: int
    ) -> StreamPiece:
        """Return the last piece of the utterance in work, with the pause after it, and go on to the next."""
        assert stream.current is not None
        last = stream.upcoming is None
        if pause := pause_samples(stream.current, stream.upcoming, self.sample_rate):
            waveform = np.concatenate([waveform, np.zeros(pause, np.float32)])
        stream.advance()
        return self.piece(stream, waveform, words, last, size)

    def piece(
        self, stream: Stream, waveform: np.ndarray, words: tuple[WordTime, ...] | None, last: bool, size: int
    ) -> StreamPiece:
        """Return a piece, counted."""
        stream.samples += len(waveform)
        if stream.lead:
            waveform, stream.lead = np.concatenate([np.zeros(stream.lead, np.float32), waveform]), 0
        made = StreamPiece(waveform, words, last, size, stream.skipped, stream.skipped_words)
        stream.skipped = stream.skipped_words = 0
        return made
