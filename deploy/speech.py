"""What the front asks of a speaker, and what comes back: jobs, pieces of sound, refusals.

Jobs and words are `SynthesisRequest` and `WordTime` once more: their module imports torch, which a front does without.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np


@dataclass(frozen=True)
class SpeechJob:
    """A text to speak. `voice` is a name of the served list; `stream` asks for sound as soon as there is any.

    `skip` samples of a stream are there already, from a speaker that was lost: it need not make them.
    """

    voice: str
    text: str
    seed: int = 0
    speed: float = 1.0
    steps: int | None = None
    temperature: float | None = None
    speaker: str | None = None
    stream: bool = True
    words: bool = False
    skip: int = 0


@dataclass(frozen=True)
class SpokenWord:
    """A word `text[start:end]` of the job's text, in seconds from the beginning of the answer."""

    word: str
    start: int
    end: int
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Sound:
    """A piece of the answer: 16-bit samples, and the words that begin in it.

    Before it, `skipped` samples with `skipped_words` words were not made, since the job said so.
    """

    sample_rate: int
    pcm: bytes
    words: tuple[SpokenWord, ...] = ()
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
    """Why a speaker makes no (more) sound of a job.

    "overloaded": its queue is full, and may be shorter after `retry_after_s`; "draining": it is about to stop;
    "unspeakable": the text or a setting is to blame; "failed": it is not.
    """

    kind: Literal["overloaded", "draining", "unspeakable", "failed"]
    message: str = ""
    retry_after_s: float = 1.0


class SpeakerLost(Exception):
    """The speaker died, or cannot be reached, before it had answered in full."""


class SpeakerLink(Protocol):
    """The way to the speakers; the front knows no other."""

    def speak(self, job: SpeechJob) -> AsyncIterator[Sound | Refusal]:
        """The pieces of an answer; closing the iterator cancels the job. Raises SpeakerLost."""
        ...

    async def ready(self) -> bool:
        """Whether there is a speaker; waits for one."""
        ...
