"""What the front asks of a replica, and what comes back: jobs, pieces of sound, refusals. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from flowtts_core.engines.base import WordTime
from flowtts_core.request import SynthesisRequest, from_json, to_json


@dataclass(frozen=True)
class SpeechJob:
    """A request for a voice of the served list; `stream` asks for sound as soon as there is any.

    `words` asks for word times, `mark` for the server's watermark.
    `skip` samples of a stream are there already, from a replica that was lost: it need not make
    them.
    """

    voice: str
    request: SynthesisRequest
    stream: bool = True
    words: bool = False
    skip: int = 0
    mark: bool = True

    @property
    def text(self) -> str:
        return self.request.text

    def to_json(self) -> dict[str, Any]:
        """Return the job as JSON values."""
        own = {name: getattr(self, name) for name in ("voice", "stream", "words", "skip", "mark")}
        return {**own, "request": to_json(self.request)}

    @staticmethod
    def from_json(values: dict[str, Any]) -> SpeechJob:
        """Return the job of `to_json`."""
        return SpeechJob(**{**values, "request": from_json(values["request"])})


@dataclass(frozen=True)
class SoundPiece:
    """A piece of the answer: 16-bit samples, and the words that begin in it (None from a voice that knows no durations).

    Before it, `skipped` samples with `skipped_words` words were not made, since the job said so.
    """

    sample_rate: int
    pcm: bytes
    words: tuple[WordTime, ...] | None = ()
    skipped: int = 0
    skipped_words: int = 0

    @property
    def waveform(self) -> np.ndarray:
        """[S] float32 in [-1, 1]."""
        return np.frombuffer(self.pcm, "<i2").astype(np.float32) / 32768

    @property
    def seconds(self) -> float:
        return len(self.pcm) / 2 / self.sample_rate


@dataclass(frozen=True)
class Refusal:
    """Why a replica makes no (more) sound of a job.

    "overloaded": its queue is full, and may be shorter after `retry_after_s`; "draining": it is about to stop;
    "unspeakable": the text or a setting is to blame; "failed": it is not.
    """

    kind: Literal["overloaded", "draining", "unspeakable", "failed"]
    message: str = ""
    retry_after_s: float = 1.0


class ReplicaLost(Exception):
    """The replica died, or cannot be reached, before it had answered in full."""


class ReplicaLink(Protocol):
    """The way to the replicas; the front knows no other."""

    def speak(self, job: SpeechJob) -> AsyncIterator[SoundPiece | Refusal]:
        """The pieces of an answer; closing the iterator cancels the job. Raises ReplicaLost."""
        ...

    async def ready(self) -> bool:
        """Whether there is a replica; waits for one."""
        ...
