"""The engine of a server: one thread that speaks many requests at once, piece by piece, the most urgent pieces first."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

import torch

from flowtts_core.engines.base import Streamable, UtteranceSynthesizer
from flowtts_core.errors import FlowTTSError
from flowtts_core.request import SynthesisRequest
from flowtts_core.streaming.source import SentenceSource, StreamPiece, StreamSource
from flowtts_core.streaming.ticket import Cancelled, Chunk, EngineClosed, Overloaded, Ticket, join

__all__ = [
    "Cancelled",
    "Chunk",
    "EngineClosed",
    "EngineStats",
    "Overloaded",
    "StreamingEngine",
    "Ticket",
    "join",
]

log = logging.getLogger(__name__)

# when a request that is not streamed is due after it came, and later by each second made of it
ALLOWANCE_S, ALLOWANCE_PER_S = 0.25, 0.2
HEAD_START_S = 4.0  # of a stream's first piece before pieces that are late; eight late ones' turn lasts some seconds
# of all requests together, 88 MB; beyond it nothing more is made for those who have this much to read, looked at this often
MAX_UNREAD_S, ENOUGH_UNREAD_S, LOOK_EVERY_S = 1000.0, 10.0, 0.1


@dataclass(frozen=True)
class EngineStats:
    """Figures since the engine began."""

    requests: int
    pieces: int
    batches: int
    frames: int  # that went through the flow, or what else the source counts, without padding
    padded_frames: int  # the same, with it
    audio_s: float
    busy_s: float  # the thread's time at work
    frontend_s: float
    acoustic_s: float
    vocoder_s: float
    active: int  # requests in work or waiting
    queued_s: float

    @property
    def rtf(self) -> float:
        """Seconds of work by second of sound; 0 before any sound was made."""
        return self.busy_s / self.audio_s if self.audio_s else 0.0


@dataclass(eq=False)
class _Job:
    ticket: Ticket
    stream: Any  # the source's; it has a `key`
    streamed: bool
    arrived: float
    remaining_s: float
    heard_from: float | None = None  # when its first sound was ready
    made_s: float = 0.0
    since: float = 0.0  # when the piece before the next was ready

    @property
    def due(self) -> float:
        """When its next piece is due: never before the last one was made, so that late streams do not hold up new ones."""
        if not self.streamed:
            return max(self.since, self.arrived + ALLOWANCE_S + ALLOWANCE_PER_S * self.made_s)
        if self.heard_from is None:
            return self.arrived - HEAD_START_S
        return max(self.since, self.heard_from + self.made_s)


@dataclass
class _Counts:
    requests: int = 0
    pieces: int = 0
    batches: int = 0
    frames: int = 0
    padded_frames: int = 0
    audio_s: float = 0.0
    busy_s: float = 0.0


class StreamingEngine:
    """Speaks requests on a thread of its own.

    Pieces are made in the order in which they are due: a stream's first at once, its later ones when the listener's buffer
    runs dry; those of a request that is not streamed an allowance after it came, which grows with what was made of it, so
    that a long one leaves room for others. What is late takes turns, and a first piece goes before it. None of these times
    moves while a piece waits, so none waits for ever. Pieces like the most urgent one in size are made with it. Listeners who
    do not read are waited for once too much lies unread.

    Args:
        voice: a synthesizer, or what makes the pieces of one.
        max_queued_s: seconds of sound that may wait (estimated); beyond it `submit` raises Overloaded.
        max_active: requests that may be in work or waiting; beyond it, too. By default any number.
        threads: torch's, for the engine's thread; by default as torch has them.
        clock: for tests.
    """

    def __init__(
        self,
        voice: UtteranceSynthesizer | StreamSource,
        *,
        max_queued_s: float = 120.0,
        max_active: int | None = None,
        threads: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source_of(voice) if isinstance(voice, UtteranceSynthesizer) else voice
        self.sample_rate = self._source.sample_rate
        self.max_queued_s = max_queued_s
        self._threads, self._clock = threads, clock
        self.max_active = max_active
        self._changed = threading.Condition()
        self._jobs: list[_Job] = []
        self._unread: WeakSet[Ticket] = WeakSet()  # done, but for their listeners
        self._counts = _Counts()
        self._closed: EngineClosed | None = None
        self._thread = threading.Thread(target=self._run, name="flowtts-engine", daemon=True)
        self._thread.start()

    def submit(self, request: SynthesisRequest, *, stream: bool = True, skip: int = 0) -> Ticket:
        """Take a request on; its front end runs here (milliseconds), the rest on the engine's thread.

        Args:
            skip: samples that the listener has already, from an engine that was lost: whole sentences of them are not made again.

        Raises:
            Overloaded: when too much waits already.
            TextError: where nothing in the text can be spoken.
            FlowTTSError: for values out of range or an unknown speaker, and EngineClosed.
        """
        self._require_room(0.0)
        begun = self._source.begin(request, skip)
        remaining = self._source.remaining_s(begun)
        ticket = Ticket(request, self.sample_rate, self._wake)
        with self._changed:
            self._require_room(remaining)
            self._jobs.append(_Job(ticket, begun, stream, self._clock(), remaining))
            self._counts.requests += 1
            self._changed.notify_all()
        return ticket

    def warm_up(self) -> None:
        """Speak a sentence, so that the first request does not pay for what the first use of a model costs."""
        self._source.prepare()
        text = "The first words of a voice take longer, and nobody should have to wait for them."
        with suppress(FlowTTSError):  # a voice of another language, or that wants a prompt
            for _ in self.submit(SynthesisRequest(text=text)).chunks():
                pass

    @property
    def queued_s(self) -> float:
        """Seconds of sound still to make, estimated."""
        with self._changed:
            return sum(job.remaining_s for job in self._jobs if not job.ticket.done)

    @property
    def alive(self) -> bool:
        """Whether requests are taken on."""
        return self._closed is None

    def stats(self) -> EngineStats:
        with self._changed:
            counts, timings = self._counts, self._source.timings
            active = [job for job in self._jobs if not job.ticket.done]
            return EngineStats(
                **vars(counts),
                frontend_s=timings["frontend"],
                acoustic_s=timings["acoustic"],
                vocoder_s=timings["vocoder"],
                active=len(active),
                queued_s=sum(job.remaining_s for job in active),
            )

    def close(self) -> None:
        """Stop after the batch in work; requests that are not done end with EngineClosed."""
        self._stop(EngineClosed("the engine was closed", "ask again: another replica may answer"))
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _stop(self, error: EngineClosed) -> None:
        with self._changed:
            if self._closed is None:
                self._closed = error
            jobs, self._jobs = self._jobs, []
            self._changed.notify_all()
        for job in jobs:
            job.ticket._end(self._closed)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _require_room(self, more_s: float) -> None:
        """Raise unless the engine can take on `more_s` seconds of sound; one request is taken on whatever its length."""
        if self._closed is not None:
            raise self._closed
        active = [job.remaining_s for job in list(self._jobs) if not job.ticket.done]
        queued = sum(active)
        counts = self._counts
        rtf = counts.busy_s / counts.audio_s if counts.audio_s else 0.1
        if self.max_active is not None and len(active) >= self.max_active:
            wait = max(1.0, queued * rtf)
            raise Overloaded(f"{len(active)} answers are being made", f"try again in {wait:.0f} s", wait)
        if queued and queued + more_s > self.max_queued_s:
            wait = max(1.0, (queued + more_s - self.max_queued_s) * rtf)
            raise Overloaded(
                f"{queued:.0f} s of speech wait already, {self.max_queued_s:.0f} s may",
                f"try again in {wait:.0f} s",
                wait,
            )

    # --- the engine's thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            if self._threads is not None:
                torch.set_num_threads(self._threads)
            while True:
                with self._changed:
                    self._jobs = [job for job in self._jobs if not job.ticket.done]
                    self._changed.wait_for(lambda: self._jobs or self._closed)
                    if self._closed is not None:
                        return
                    batch = self._choose()
                    if not batch:
                        self._changed.wait(LOOK_EVERY_S)
                if batch:
                    self._make(batch)
        except BaseException as error:  # whatever it is, nobody may wait for a thread that is gone
            log.critical("the engine's thread stopped", exc_info=error)
            stopped = EngineClosed(f"the engine stopped: {type(error).__name__}: {error}", "start it again")
            stopped.__cause__ = error
            self._stop(stopped)

    def _choose(self) -> list[_Job]:
        """The most urgent piece, and others by urgency that are like it in size and settings, within the budget."""
        jobs = sorted(self._listened_to(), key=lambda job: job.due)
        if not jobs:
            return []
        head = jobs[0]
        batch, size = [head], self._source.next_size(head.stream)
        longest, alike = size, self._source.alike
        for job in jobs[1:]:
            own = self._source.next_size(job.stream)
            fits = alike * size <= own <= size / alike and job.stream.key == head.stream.key
            if fits and (len(batch) + 1) * max(longest, own) <= self._source.most_together:
                batch.append(job)
                longest = max(longest, own)
        return batch

    def _listened_to(self) -> list[_Job]:
        """The jobs to go on with: all, or while too much lies unread, those whose listeners keep up."""
        jobs = [job for job in self._jobs if not job.ticket.done]
        unread_s = sum(ticket.unread_s for ticket in self._unread) + sum(job.ticket.unread_s for job in jobs)
        return jobs if unread_s <= MAX_UNREAD_S else [job for job in jobs if job.ticket.unread_s < ENOUGH_UNREAD_S]

    def _make(self, batch: list[_Job]) -> None:
        """Make the next piece of each; where that fails, of each alone, and one that fails ends its own request."""
        began = time.perf_counter()
        try:
            pieces = self._source.step([job.stream for job in batch])
        except Exception as error:
            self._count(time.perf_counter() - began)
            if len(batch) > 1:
                for job in batch:
                    if not job.ticket.done:
                        self._make([job])
            else:
                if not isinstance(error, FlowTTSError):
                    log.error("a request could not be spoken", exc_info=error)
                batch[0].ticket._end(error)
            return
        with self._changed:
            self._counts.pieces += len(batch)
            self._counts.batches += 1
            self._counts.frames += sum(piece.size for piece in pieces)
            self._counts.padded_frames += len(pieces) * max(piece.size for piece in pieces)
        self._count(time.perf_counter() - began)
        for job, piece in zip(batch, pieces, strict=True):
            self._deliver(job, piece)

    def _count(self, busy_s: float) -> None:
        with self._changed:
            self._counts.busy_s += busy_s

    def _deliver(self, job: _Job, piece: StreamPiece) -> None:
        now = self._clock()
        seconds = len(piece.waveform) / self.sample_rate
        with self._changed:
            self._counts.audio_s += seconds
            job.made_s += seconds
            job.since = now
            job.remaining_s = self._source.remaining_s(job.stream)
            if job.heard_from is None:
                job.heard_from = now
        chunk = Chunk(piece.waveform, self.sample_rate, piece.words, piece.last, piece.skipped, piece.skipped_words)
        job.ticket._put(chunk)
        if piece.last:
            self._unread.add(job.ticket)


def source_of(synthesizer: UtteranceSynthesizer) -> StreamSource:
    """Return what makes a synthesizer's pieces: inside sentences where it can, else sentence by sentence."""
    own = synthesizer.stream_source() if isinstance(synthesizer, Streamable) else None
    return own or SentenceSource(synthesizer)
