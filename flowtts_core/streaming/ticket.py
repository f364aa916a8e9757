"""A streamed request as its reader holds it: the chunks of its sound, by threads or event loops, and the ways it can end."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowtts_core.engines.base import Speech, WordTime
from flowtts_core.errors import FlowTTSError
from flowtts_core.request import SynthesisRequest


class Cancelled(Exception):  # noqa: N818  # as asyncio names it
    """The request was cancelled, by `Ticket.cancel`."""


class Overloaded(FlowTTSError):
    """The engine's queue is full; try again after `retry_after_s` seconds."""

    def __init__(self, message: str, remedy: str = "", retry_after_s: float = 1.0) -> None:
        super().__init__(message, remedy)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.remedy, self.retry_after_s)


class EngineClosed(FlowTTSError):
    """The engine was closed, or its thread stopped by an error that is no request's fault."""


@dataclass(frozen=True)
class Chunk:
    """A piece of sound, in order; `words` are those that begin in it, in seconds since the request's first sample.

    `words` is None from a voice that knows no durations.

    Before it, `skipped` samples with `skipped_words` words were not made, since the listener has them.
    """

    waveform: np.ndarray  # [S] float32 in [-1, 1]
    sample_rate: int
    words: tuple[WordTime, ...] | None
    last: bool
    skipped: int = 0
    skipped_words: int = 0


class Ticket:
    """One request's way through the engine. Any thread or event loop may read it, one at a time."""

    def __init__(self, request: SynthesisRequest, sample_rate: int, wake: Callable[[], None]) -> None:
        self.request, self.sample_rate = request, sample_rate
        self._wake = wake
        self._changed = threading.Condition()
        self._chunks: deque[Chunk] = deque()
        self._error: BaseException | None = None
        self._ended = False
        self._cancelled = False
        self._listener: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self._unread = 0  # samples

    def chunks(self) -> Iterator[Chunk]:
        """The chunks as they come, each once; blocks.

        Raises:
            FlowTTSError: for a request that turned out unspeakable, or EngineClosed.
            Cancelled: after `cancel`.
            MemoryError, Exception: what else went wrong while it was spoken.
        """
        while True:
            with self._changed:
                self._changed.wait_for(self._ready)
                chunk = self._take()
            if chunk is None:
                return
            yield chunk

    async def achunks(self) -> AsyncIterator[Chunk]:
        """As `chunks`, without blocking the event loop."""
        event = asyncio.Event()
        with self._changed:
            self._listener = (asyncio.get_running_loop(), event)
        while True:
            with self._changed:
                ready = self._ready()
                chunk = self._take() if ready else None
                event.clear()
            if not ready:
                await event.wait()
            elif chunk is None:
                return
            else:
                yield chunk

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self.achunks()

    def speech(self) -> Speech:
        """All of it at once; blocks, and raises as `chunks`."""
        return join(list(self.chunks()))

    def cancel(self) -> None:
        """Work on it stops at the next batch boundary; what was not read is dropped."""
        with self._changed:
            self._cancelled = self._ended = True
            self._chunks.clear()
            self._unread = 0
            self._error = self._error or Cancelled("the request was cancelled")
            self._notify()
        self._wake()

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    @property
    def done(self) -> bool:
        """Whether the engine has nothing more to do for it (spoken, failed or cancelled)."""
        return self._ended

    @property
    def unread_s(self) -> float:
        """Seconds of sound that were made and not read."""
        return self._unread / self.sample_rate

    def _ready(self) -> bool:
        return bool(self._chunks) or self._ended

    def _take(self) -> Chunk | None:
        if self._chunks:
            chunk = self._chunks.popleft()
            self._unread -= len(chunk.waveform)
            return chunk
        if self._error is not None:
            raise self._error
        return None

    def _put(self, chunk: Chunk) -> None:
        with self._changed:
            if self._ended:
                return
            self._chunks.append(chunk)
            self._unread += len(chunk.waveform)
            self._ended = chunk.last
            self._notify()

    def _end(self, error: BaseException) -> None:
        with self._changed:
            if self._ended:
                return
            self._error, self._ended = error, True
            self._notify()

    def _notify(self) -> None:
        self._changed.notify_all()
        if self._listener is not None:
            loop, event = self._listener
            try:
                loop.call_soon_threadsafe(event.set)
            except RuntimeError:  # the listener's loop is closed: nobody listens
                self._listener = None


def join(chunks: Sequence[Chunk]) -> Speech:
    """Chunks of one request as one speech."""
    waveform = np.concatenate([chunk.waveform for chunk in chunks])
    timed = all(chunk.words is not None for chunk in chunks)
    words = tuple(word for chunk in chunks for word in chunk.words or ()) if timed else None
    return Speech(waveform, chunks[0].sample_rate, words)
