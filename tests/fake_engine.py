"""A test-only engine: each text becomes a sine tone that depends on the text and the seed alone."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from cluster.storage import Storage
from flowtts_core.synthesizer import Speech, SynthesisFailure, SynthesisRequest, WordTime
from jobs.synthesis_plan import Plan, Speaking
from jobs.synthesis_worker import ShardWorker

RATE = 16000


class ToneSynthesizer:
    sample_rate = RATE
    fingerprint = "tone-1"

    def __init__(self, delay_s: float = 0.0, crash_once: str = "") -> None:
        self._delay_s, self._crash_once = delay_s, crash_once

    def synthesize(self, requests: Sequence[SynthesisRequest]) -> list[Speech | SynthesisFailure]:
        return [self._one(request) for request in requests]

    def _one(self, request: SynthesisRequest) -> Speech | SynthesisFailure:
        time.sleep(self._delay_s)
        text = request.text
        if "UNSPEAKABLE" in text:
            return SynthesisFailure("no sound for these characters")
        if "RAISES" in text:
            raise ValueError("the engine tripped")
        if "NOTANUMBER" in text:
            return Speech(np.full(800, np.nan, np.float32), RATE)
        if "CRASHES" in text:
            os._exit(9)
        if "ONCE" in text and not os.path.exists(self._crash_once):
            Path(self._crash_once).touch()
            os._exit(9)
        digest = hashlib.sha256(f"{text} {request.seed}".encode()).digest()
        samples = int(RATE * (0.2 + 0.01 * len(text)) / request.speed)
        wave = 0.1 * np.sin(2 * np.pi * (200 + digest[0]) * np.arange(samples) / RATE + digest[1])
        return Speech(wave.astype(np.float32), RATE, self._words(text, samples / RATE), text.lower())

    @staticmethod
    def _words(text: str, seconds: float) -> tuple[WordTime, ...]:
        words, place = [], 0
        for word in text.split():
            start = text.index(word, place)
            place = start + len(word)
            words.append(WordTime(word, start, place, seconds * start / len(text), seconds * place / len(text)))
        return tuple(words)


@dataclass(frozen=True)
class MakeTone:
    """Picklable maker of the engine."""

    delay_s: float = 0.0
    crash_once: str = ""
    broken: bool = False

    def __call__(self) -> ToneSynthesizer:
        if self.broken:
            from flowtts_core.errors import VoiceError

            raise VoiceError("weights.safetensors is cut off", "fetch the voice again")
        return ToneSynthesizer(self.delay_s, self.crash_once)


def speak_inline(shards: dict, worker_args: dict, *_: object, **__: object) -> Iterator[dict]:
    """`jobs.synthesis_worker.speak_shards` without Ray: one worker, in this process."""
    worker = ShardWorker(**worker_args)
    for index, units in shards.items():
        yield worker({"shard": index, "units": [asdict(unit) for unit in units]})


def speak_here(plan: Plan, storage: Storage, make: MakeTone) -> None:
    """Speak all shards of a plan in this process."""
    arguments = {"make_synthesizer": make, "output": storage, "voice": "tone", "speaking": Speaking(), "run": "r"}
    list(speak_inline(dict(enumerate(plan.shards)), {**arguments, "audio_files": plan.document is None}))
