"""The only way from text to sound: a list of requests in, a list of results out, batched by frames.

`Synthesizer` is the contract that jobs, server and evaluation know. `VoiceSynthesizer` is its first implementation, over a
`Voice` of ours (text front end, acoustic model, vocoder).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


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
