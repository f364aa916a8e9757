"""The stage that speaks: a shard's units through their voices, in batches alike in length, encoded while the next are spoken."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.manifest import SHARD_SCHEMA, sha256
from cluster.pool import StageWork, Task
from cluster.storage import Storage
from cluster.watchdog import Limits
from flowtts_core.audio.files import encode
from flowtts_core.errors import FlowTTSError
from jobs.synthesis.engine import LoadedVoices, Voices
from jobs.synthesis.front import Careful, parts_of, units_of
from jobs.synthesis.plan import Speaking, Unit

if TYPE_CHECKING:  # the driver imports this file too, and has no need of torch
    from flowtts_core.engines.base import Speech, SynthesisFailure
    from flowtts_core.request import SynthesisRequest

SLICE_CHARACTERS, SLICE_CHARACTERS_CUDA = (
    8_000,
    16_000,
)  # spoken before the next are: a shard's waveforms are never held at once
ENCODERS_CUDA = 4  # threads: a GPU speaks faster than one encodes
MOST_STARVED = 3  # units in a row for which memory does not reach: then it is the machine's fault
_MACHINES_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE}
_SLOWER = 20.0  # than this worker's pace so far may a shard be before it counts as hanging


@dataclass(slots=True)  # not frozen, as `Unit` is not
class Spoken:
    """A unit's sound as it is stored, or the `reason` why it has none. Never changed in place."""

    flac: bytes = b""
    sample_rate: int = 0
    num_samples: int = 0
    words: tuple[dict[str, Any], ...] = ()
    phonemes: str = ""
    reason: str = ""
    digest: str = ""


class Speaker:
    """Speaks units with the voices of a worker; a unit that cannot be spoken harms no other.

    Args:
        cuda: the voices run on a GPU.
        on_cpu: this process has no GPU, wherever the job's others run them.

    Attributes:
        seconds: spent in the voices since the last `reset`.
        tokens, padded: that went through them, without and with padding, where the voice tells.
    """

    def __init__(self, voices: Voices, speaking: Speaking, *, cuda: bool = False, on_cpu: bool = False) -> None:
        from flowtts_core.request import SynthesisRequest

        self._request = SynthesisRequest
        self.voices, self._speaking = LoadedVoices(voices, on_cpu), speaking
        self._slice = SLICE_CHARACTERS_CUDA if cuda else SLICE_CHARACTERS
        self._encoder = ThreadPoolExecutor(ENCODERS_CUDA if cuda else 1, "encoder")
        self._starved = 0
        self.reset()

    def reset(self) -> None:
        self.seconds, self.tokens, self.padded, self.again = 0.0, 0, 0, False

    def request(
        self, unit: Unit, seed: int | None = None, steps: int | None = None, parts: Any = None
    ) -> SynthesisRequest:
        job = self._speaking
        return self._request(
            unit.text,
            unit.seed if seed is None else seed,
            job.speed if unit.speed is None else unit.speed,
            (job.steps if unit.steps is None else unit.steps) if steps is None else steps,
            job.temperature if unit.temperature is None else unit.temperature,
            unit.speaker,
            parts,
        )

    def speak(self, items: Sequence[tuple[Unit, SynthesisRequest]]) -> list[Spoken]:
        """What became of each; encoded by threads while the next slice is spoken."""
        waiting: list[Future[Spoken]] = []
        for some in _slices(items, self._slice):
            waiting += [self._encoder.submit(stored, result) for result in self.synthesize(some)]
        return [future.result() for future in waiting]

    def synthesize(self, items: Sequence[tuple[Unit, SynthesisRequest]]) -> list[Speech | SynthesisFailure]:
        """The sounds themselves, in the order of the items; each voice gets its own together."""
        results: list[Any] = [None] * len(items)
        by_voice: dict[str | None, list[int]] = {}
        for i, (unit, _) in enumerate(items):
            by_voice.setdefault(unit.voice, []).append(i)
        for voice, places in by_voice.items():
            for place, result in zip(places, self._with_voice(voice, [items[i][1] for i in places]), strict=True):
                results[place] = result
        return results

    def _with_voice(self, voice: str | None, requests: list[SynthesisRequest]) -> list[Speech | SynthesisFailure]:
        synthesizer, began = self.voices.synthesizer(voice), time.perf_counter()
        try:
            results = synthesizer.synthesize(requests)
            if len(results) != len(requests):
                raise RuntimeError(f"the voice gave {len(results)} results for {len(requests)} requests")
            self._starved = 0
        except Exception as error:  # one bad unit must not cost the others: each alone, once more
            raise_if_machines(error)
            self.again = True
            results = [self._alone(synthesizer, request) for request in requests]
        self.seconds += time.perf_counter() - began
        used, padded = getattr(synthesizer, "last_tokens", (0, 0))
        self.tokens, self.padded = self.tokens + used, self.padded + padded
        return results

    def _alone(self, synthesizer: Any, request: SynthesisRequest) -> Speech | SynthesisFailure:
        from flowtts_core.engines.base import SynthesisFailure

        try:
            [result] = synthesizer.synthesize([request])
            self._starved = 0
            return result
        except Exception as error:
            raise_if_machines(error)
            if _of_memory(error):
                self._starved += 1
                if self._starved >= MOST_STARVED:
                    raise FlowTTSError(
                        f"the machine has run out: {type(error).__name__}: {error}"[:500],
                        "free some memory, or give fewer --workers, and run the same command again: finished work is kept",
                    ) from error
                return SynthesisFailure(f"it needs more memory than the worker has: {error}"[:500])
            return SynthesisFailure(f"{type(error).__name__}: {error}"[:500])


def _slices(
    items: Sequence[tuple[Unit, SynthesisRequest]], characters: int
) -> Iterator[Sequence[tuple[Unit, SynthesisRequest]]]:
    start = size = 0
    for i, (unit, _) in enumerate(items):
        size += len(unit.text)
        if size >= characters:
            yield items[start : i + 1]
            start, size = i + 1, 0
    if start < len(items):
        yield items[start:]


def stored(result: Speech | SynthesisFailure | None) -> Spoken:
    """A result as it is stored."""
    if result is None:
        return Spoken(reason="the voice gave no result")
    if (failed := getattr(result, "reason", None)) is not None:
        return Spoken(reason=failed or "the voice could not speak it")
    speech = cast("Speech", result)  # to look for its class would be an import for each utterance
    # samples that an engine has encoded are numbers
    if reason := fault(speech) if not speech.flac or not len(speech.waveform) else "":
        return Spoken(reason=reason)
    flac = speech.flac or encode(speech.waveform, speech.sample_rate, ".flac")
    words = tuple(dict(vars(word)) for word in speech.words)  # `asdict` copies them deeply, 0.13 ms a text
    return Spoken(flac, speech.sample_rate, len(speech.waveform), words, speech.phonemes, "", sha256(flac))


def fault(speech: Speech | None) -> str:
    """Why a waveform cannot stand as a result; empty for a good one."""
    if speech is None:
        return "the voice gave no result"
    if speech.waveform.ndim != 1 or len(speech.waveform) == 0:
        return "the voice gave no sound"
    if not np.isfinite(speech.waveform).all():
        return "the voice gave samples that are not numbers"
    return "" if np.abs(speech.waveform).max() > 1e-4 else "the voice gave silence"


def _of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # torch's, of a GPU


def raise_if_machines(error: Exception) -> None:
    """Raise as the job's error what says nothing of the text: disk or file handles have run out."""
    if isinstance(error, OSError) and error.errno in _MACHINES_ERRNOS:
        raise FlowTTSError(
            f"the machine has run out: {type(error).__name__}: {error}"[:500],
            "free some of it, or give fewer --workers, and run the same command again: finished work is kept",
        ) from error


@dataclass(frozen=True)
class MakeSpeaker:
    """Makes the stage in its actor."""

    output: Storage
    voices: Voices
    speaking: Speaking
    run: str
    limits: Limits
    job: str
    cuda: bool = False  # the voices run on a GPU

    def __call__(self) -> StageWork:
        speaker = Speaker(self.voices, self.speaking, cuda=self.cuda)
        speaker.voices.synthesizer(None)  # a voice that does not load ends the job before any work
        careful = Careful(self.output, "speak", self.run, self.limits)
        pace = 0.0  # seconds per character, the slowest so far

        def work(task: Task, table: pa.Table | None) -> tuple[Task, pa.Table]:
            nonlocal pace
            assert table is not None
            speaker.reset()
            units, packed, parts = units_of(table), table.column("parts"), {}
            if packed.null_count < len(packed):  # else the voice encodes texts itself
                pairs = zip(units, packed.to_pylist(), strict=True)
                parts = {unit.id: parts_of(pack, unit.text) for unit, pack in pairs if not unit.error}
            found = {id: Spoken(reason=reason) for id, reason in parts.items() if isinstance(reason, str)}
            speakable = [unit for unit in units if not unit.error and unit.id not in found]
            characters = sum(len(unit.text) for unit in speakable) or 1
            began, starts = time.perf_counter(), 1
            if speakable:
                patience = (self.limits.seconds or 0) * (1 + len(speakable) / 16)
                bound = max(self.limits.seconds or 0, _SLOWER * pace * characters) if pace else patience
                results, starts = careful(
                    task["shard"],
                    speakable,
                    lambda some: speaker.speak([(u, speaker.request(u, parts=parts.get(u.id))) for u in some]),
                    lambda unit, why: Spoken(reason=why),
                    bound or None,
                )
                found |= dict(zip((unit.id for unit in speakable), results, strict=True))
                pace = max(pace, (time.perf_counter() - began) / characters)
            attempts = starts + speaker.again
            stats = {"compute_s": speaker.seconds, "tokens": speaker.tokens, "padded_tokens": speaker.padded}
            rows = shard_table(table, units, [found.get(unit.id) for unit in units], self, attempts)
            return {**task, "stats": stats, "worker": os.getpid()}, rows.append_column("file", table.column("file"))

        return work


def shard_table(
    plan: pa.Table, units: Sequence[Unit], found: Sequence[Spoken | None], made: MakeSpeaker, attempts: int
) -> pa.Table:
    """The shard's rows, column by column; `found` is None for a unit that could not be read."""
    names = {unit.voice for unit in units if not unit.error}
    known = {name: made.voices.find(name) for name in names}
    engines = [made.voices.own if unit.error else known[unit.voice] for unit in units]
    results = [spoken or Spoken(reason=unit.error) for unit, spoken in zip(units, found, strict=True)]
    ok = [not spoken.reason for spoken in results]
    job, count = made.speaking, len(units)
    columns: dict[str, Any] = {
        **{
            name: plan.column(name)
            for name in ("id", "source", "chapter", "index", "text", "speaker", "seed", "fingerprint")
        },
        "voice": [engine.name for engine in engines],
        "speed": _own_or(plan.column("speed"), job.speed),
        "temperature": _own_or(plan.column("temperature"), job.temperature),
        "steps": _own_or(plan.column("steps"), job.steps),
        "model": [engine.fingerprint for engine in engines],
        "licence": [engine.licence or None for engine in engines],
        "job": pa.repeat(made.job, count),
        "sha256": [spoken.digest or None for spoken in results],
        "sample_rate": [spoken.sample_rate or None for spoken in results],
        "num_samples": [spoken.num_samples for spoken in results],
        "duration": [s.num_samples / s.sample_rate if s.sample_rate else 0.0 for s in results],
        "words": [list(spoken.words) if good else None for spoken, good in zip(results, ok, strict=True)],
        "phonemes": [spoken.phonemes if good else None for spoken, good in zip(results, ok, strict=True)],
        "status": ["ok" if good else "failed" for good in ok],
        "reason": [spoken.reason or None for spoken in results],
        "attempts": [0 if unit.error else attempts for unit in units],
        "takes": [1 if good else None for good in ok],
        "flac": [spoken.flac or None for spoken in results],
    }
    arrays = []
    for field in SHARD_SCHEMA:
        value = columns.get(field.name)
        if isinstance(value, pa.ChunkedArray | pa.Array):
            arrays.append(value.cast(field.type))
        else:
            arrays.append(pa.nulls(count, field.type) if value is None else pa.array(value, field.type))
    return pa.Table.from_arrays(arrays, schema=SHARD_SCHEMA)


def _own_or(column: pa.ChunkedArray, default: float | None) -> pa.ChunkedArray:
    """A setting of the rows, the job's own where a row has none."""
    return column if default is None else pc.fill_null(column, default)
