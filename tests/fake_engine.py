"""A test-only engine: each text becomes a sine tone that depends on the text and the seed alone."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cluster import plan as plans
from cluster.plan import StoredPlan
from cluster.pool import Stage, Task
from cluster.storage import Storage
from flowtts_core.engines.base import Speech, SynthesisFailure, WordTime
from flowtts_core.request import SynthesisRequest
from jobs.synthesis.engine import Engine, Voices
from jobs.synthesis.pipeline import Running, stages_of
from jobs.synthesis.plan import Plan, write_plan
from jobs.synthesis.settings import Speaking

RATE = 16000


class ToneSynthesizer:
    sample_rate = RATE
    fingerprint = "tone-1"
    languages: tuple[str, ...] = ()
    speakers: tuple[str, ...] = ()

    def __init__(self, delay_s: float = 0.0, crash_once: str = "", log: str = "") -> None:
        self._delay_s, self._crash_once = delay_s, crash_once
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT) if log else None

    def synthesize(self, requests: Sequence[SynthesisRequest]) -> list[Speech | SynthesisFailure]:
        return [self._one(request) for request in requests]

    def _one(self, request: SynthesisRequest) -> Speech | SynthesisFailure:
        time.sleep(self._delay_s)
        text = request.text
        if self._log is not None:
            os.write(self._log, f"{text}\n".encode())
        if "UNSPEAKABLE" in text:
            return SynthesisFailure("no sound for these characters")
        if "RAISES" in text:
            raise ValueError("the engine tripped")
        if "NOTANUMBER" in text:
            return Speech(np.full(800, np.nan, np.float32), RATE)
        if "CRASHES" in text:
            os._exit(9)
        if "HANGS" in text:
            time.sleep(10_000)
        if "DEVOURS" in text:
            self._held = [np.ones(1 << 24, np.uint8) for _ in range(1024) if not time.sleep(0.005)]
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
    log: str = ""  # a file that each text is noted in as often as it is spoken

    def __call__(self) -> ToneSynthesizer:
        if self.broken:
            from flowtts_core.errors import VoiceError

            raise VoiceError("weights.safetensors is cut off", "fetch the voice again")
        return ToneSynthesizer(self.delay_s, self.crash_once, self.log)


TONE = Engine("tone", "tone-1", MakeTone())


def run_here(stages: Sequence[Stage], tasks: Sequence[Task]) -> Iterator[Task]:
    """`cluster.pool.run_stages` without Ray: all stages in this process, one task after the other."""
    works = [stage.make() for stage in stages]
    for task in tasks:
        table = None
        for work in works:
            task, table = work(task, table)
        yield task


def speak_inline(tasks: Sequence[Task], *, running: Running, told: Any = None, **arguments: Any) -> Iterator[dict]:
    """`jobs.synthesis.pipeline.speak_shards` without Ray."""
    arguments.pop("told", None)
    names = ("output", "voices", "speaking", "rows", "job")
    stages = stages_of(*(arguments[name] for name in names), running, 1)
    yield from run_here(stages, tasks)


def store_here(plan: Plan, storage: Storage, speaking: Speaking | None = None, engine: Engine = TONE) -> StoredPlan:
    """Store a plan as a job would."""
    stored = write_plan(storage, plan, speaking or Speaking(), Voices(engine), "test")
    plans.store(storage, stored)
    return stored


def speak_here(plan: Plan, storage: Storage, make: MakeTone, run: str = "r") -> StoredPlan:
    """Speak all shards of a plan in this process."""
    engine = Engine("tone", "tone-1", make)
    stored = store_here(plan, storage, engine=engine)
    tasks = [
        {"shard": s.index, "plan": stored.folder, "part": s.part, "group": s.group, "digest": s.digest, "rows": s.rows,
         "characters": s.characters}
        for s in stored.shards
    ]  # fmt: skip
    from unittest import mock

    with mock.patch("jobs.synthesis.pipeline.uuid") as names:
        names.uuid4.return_value.hex = run
        rows = "files" if plan.kind != "book" else "parquet"
        stages = stages_of(storage, Voices(engine), Speaking(), rows, "job", Running(), 1)
    list(run_here(stages, tasks))
    return stored
