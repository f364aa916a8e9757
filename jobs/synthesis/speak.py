"""The stage that speaks: a shard's units through their voices, in batches alike in length, encoded while the next are spoken."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from cluster.pool import StageWork, Task
from cluster.storage import Storage
from cluster.watchdog import WorkLimits
from flowtts_core.errors import FlowTTSError
from flowtts_core.request import REQUEST_FIELDS, SynthesisRequest
from flowtts_core.text.plan import TextPlan
from jobs.synthesis.careful import Careful
from jobs.synthesis.engine import LoadedVoices, Voices
from jobs.synthesis.front import PLANNED, plans_of
from jobs.synthesis.prompts import Clips
from jobs.synthesis.settings import Speaking
from jobs.synthesis.stored import StoredSound, stored
from jobs.synthesis.units import SHARD_SCHEMA, Unit, request_of, units_of

if TYPE_CHECKING:  # the driver imports this file too, and has no need of torch
    from flowtts_core.engines.base import Speech, SynthesisFailure
    from flowtts_core.watermark.marking import Marking

# characters spoken before the next are: a shard's waveforms are never held at once
SLICE_CHARACTERS, SLICE_CHARACTERS_CUDA = 8_000, 16_000
ENCODERS_CUDA = 4  # threads: a GPU speaks faster than one encodes
MOST_STARVED = 3  # units in a row for which memory does not reach: then it is the machine's fault
_MACHINES_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE}
_SLOWER = 20.0  # than this worker's pace so far may a shard be before it counts as hanging


@dataclass(frozen=True)
class Asked:
    """A unit, what it asks of its voice, and its text as it was cut elsewhere."""

    unit: Unit
    request: SynthesisRequest
    plan: TextPlan | None = None


class UnitSynthesizer:
    """Speaks units with the voices of a worker; a unit that cannot be spoken harms no other.

    Args:
        cuda: the voices run on a GPU.
        on_cpu: this process has no GPU, wherever the job's others run them.
        watermark: is put into all that comes out of here, into later takes too; None: nothing is.

    Attributes:
        seconds: spent in the voices since the last `reset`.
        tokens, padded: that went through them, without and with padding, where the voice tells.
        prompts, prompts_made: utterances with a prompt, and clips whose features were made for them, where the voice tells.
    """

    def __init__(
        self, voices: Voices, *, cuda: bool = False, on_cpu: bool = False, watermark: Marking | None = None
    ) -> None:
        self._watermark = watermark
        self.voices = LoadedVoices(voices, on_cpu)
        self._slice = SLICE_CHARACTERS_CUDA if cuda else SLICE_CHARACTERS
        self._encoder = ThreadPoolExecutor(ENCODERS_CUDA if cuda else 1, "encoder")
        self._starved = 0
        self.reset()

    def reset(self) -> None:
        self.seconds, self.tokens, self.padded, self.again = 0.0, 0, 0, False
        self.prompts = self.prompts_made = 0

    def speak(self, items: Sequence[Asked]) -> list[StoredSound]:
        """What became of each; encoded by threads while the next slice is spoken."""
        waiting: list[Future[StoredSound]] = []
        for some in _slices(items, self._slice):
            waiting += [self._encoder.submit(self._stored, result) for result in self._spoken(some)]
        return [future.result() for future in waiting]

    def synthesize(self, items: Sequence[Asked]) -> list[Speech | SynthesisFailure]:
        """The sounds themselves, in the order of the items."""
        return [self._marked(result) for result in self._spoken(items)]

    def _stored(self, result: Any) -> StoredSound:
        return stored(self._marked(result))

    def _marked(self, result: Any) -> Any:
        unmarked = self._watermark is None or getattr(result, "waveform", None) is None
        return result if unmarked or self._watermark is None else self._watermark.speech(result)

    def _spoken(self, items: Sequence[Asked]) -> list[Speech | SynthesisFailure]:
        """Return the sounds, not marked yet; the items of one voice are spoken in one batch."""
        results: list[Any] = [None] * len(items)
        by_voice: dict[str | None, list[int]] = {}
        for i, item in enumerate(items):
            by_voice.setdefault(item.unit.voice, []).append(i)
        for voice, places in by_voice.items():
            for place, result in zip(places, self._with_voice(voice, [items[i] for i in places]), strict=True):
                results[place] = result
        return results

    def _with_voice(self, voice: str | None, items: list[Asked]) -> list[Speech | SynthesisFailure]:
        synthesizer: Any = self.voices.synthesizer(voice)
        began, plans = time.perf_counter(), [item.plan for item in items]
        requests = [item.request for item in items]
        try:
            results: list[Any] = (
                synthesizer.synthesize(requests) if None in plans else synthesizer.synthesize(requests, plans)
            )
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
        prompts, made = getattr(synthesizer, "last_prompts", (0, 0))
        self.prompts, self.prompts_made = self.prompts + prompts, self.prompts_made + made
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


def _slices(items: Sequence[Asked], characters: int) -> Iterator[Sequence[Asked]]:
    start = size = 0
    for i, item in enumerate(items):
        size += len(item.unit.text)
        if size >= characters:
            yield items[start : i + 1]
            start, size = i + 1, 0
    if start < len(items):
        yield items[start:]


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
class MakeSpeaking:
    """Makes the stage in its actor."""

    output: Storage
    voices: Voices
    speaking: Speaking
    run: str
    limits: WorkLimits
    job: str
    cuda: bool = False  # the voices run on a GPU

    def __call__(self) -> StageWork:
        synthesizer = UnitSynthesizer(self.voices, cuda=self.cuda, watermark=self.speaking.watermark)
        synthesizer.voices.synthesizer(None)  # a voice that does not load ends the job before any work
        careful = Careful(self.output, "speak", self.run, self.limits)
        pace = 0.0  # seconds per character, the slowest so far

        def work(task: Task, table: pa.Table | None) -> tuple[Task, pa.Table]:
            nonlocal pace
            assert table is not None
            synthesizer.reset()
            units, clips = {unit.id: unit for unit in units_of(table)}, Clips(self.output, task["plan"])
            packed = dict(zip(units, table.column(PLANNED.name).to_pylist(), strict=True))
            plans, reasons = plans_of(units, packed)
            found = {id: StoredSound(reason=reason) for id, reason in reasons.items()}
            speakable = [unit for unit in units.values() if not unit.error and unit.id not in found]
            if any(u.voice is None and u.settings.keys() <= {"seed", "prompt"} for u in units.values() if not u.error):
                _require_settings(synthesizer.voices.synthesizer(None), self.speaking.defaults)
            characters = sum(len(unit.text) for unit in speakable) or 1
            began, starts = time.perf_counter(), 1

            def speak(some: Sequence[Unit]) -> list[StoredSound]:
                job = self.speaking.defaults
                return synthesizer.speak([Asked(u, request_of(u, job, clips), plans.get(u.id)) for u in some])

            if speakable:
                patience = (self.limits.seconds or 0) * (1 + len(speakable) / 16)
                bound = max(self.limits.seconds or 0, _SLOWER * pace * characters) if pace else patience
                results, starts = careful(task["shard"], speakable, speak, _unspoken, bound or None)
                if self.speaking.whole:
                    results = [_whole(sound) for sound in results]
                found |= dict(zip((unit.id for unit in speakable), results, strict=True))
                pace = max(pace, (time.perf_counter() - began) / characters)
            attempts = starts + synthesizer.again
            used = {"tokens": synthesizer.tokens, "padded_tokens": synthesizer.padded}
            used |= {"prompts": synthesizer.prompts, "prompts_made": synthesizer.prompts_made}
            stats = {"compute_s": synthesizer.seconds, **used}
            rows = shard_table(table, list(units.values()), [found.get(id) for id in units], self, attempts)
            return {**task, "stats": stats, "worker": os.getpid()}, rows.append_column("file", table.column("file"))

        return work


def _require_settings(voice: Any, settings: Mapping[str, Any]) -> None:
    """Raise FlowTTSError where the job's own voice lacks one of the job's settings: no row without its own could be spoken."""
    if settings and hasattr(voice, "check_settings"):
        voice.check_settings(settings)


def _whole(sound: StoredSound) -> StoredSound:
    """The sound, or the reason where something of its text is missing in it."""
    return StoredSound(reason=f"not spoken: {', '.join(sound.dropped)}") if sound.dropped else sound


def _unspoken(_: Any, why: str) -> StoredSound:
    return StoredSound(reason=why)


def shard_table(
    plan: pa.Table, units: Sequence[Unit], found: Sequence[StoredSound | None], made: MakeSpeaking, attempts: int
) -> pa.Table:
    """The shard's rows, column by column; `found` is None for a unit that could not be read."""
    names = {unit.voice for unit in units if not unit.error}
    known = {name: made.voices.find(name) for name in names}
    engines = [made.voices.own if unit.error else known[unit.voice] for unit in units]
    results = [spoken or StoredSound(reason=unit.error) for unit, spoken in zip(units, found, strict=True)]
    ok = [not spoken.reason for spoken in results]
    job, count = made.speaking.defaults, len(units)
    columns: dict[str, Any] = {
        **{name: plan.column(name) for name in ("id", "source", "chapter", "index", "text", "fingerprint")},
        **{name: plan.column(name) for name in ("cue_start", "cue_end") if name in plan.column_names},
        **{name: _own_or(plan.column(name), _asked(job, name)) for name in REQUEST_FIELDS},
        "voice": [engine.name for engine in engines],
        "model": [engine.fingerprint for engine in engines],
        "licence": [engine.licence or None for engine in engines],
        "job": pa.repeat(made.job, count),
        "sha256": [spoken.digest or None for spoken in results],
        "sample_rate": [spoken.sample_rate or None for spoken in results],
        "num_samples": [spoken.num_samples for spoken in results],
        "duration": [s.num_samples / s.sample_rate if s.sample_rate else 0.0 for s in results],
        "words": [None if s.words is None or not good else list(s.words) for s, good in zip(results, ok, strict=True)],
        "phonemes": [spoken.phonemes if good else None for spoken, good in zip(results, ok, strict=True)],
        "dropped": [list(spoken.dropped) or None for spoken in results],
        "notes": [list(spoken.notes) or None for spoken in results],
        "status": ["ok" if good else "failed" for good in ok],
        "reason": [spoken.reason or None for spoken in results],
        "attempts": [0 if unit.error else attempts for unit in units],
        "takes": [1 if good else None for good in ok],
        "watermark": [made.speaking.watermark.number if made.speaking.watermark and good else None for good in ok],
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


def _asked(job: Mapping[str, Any], name: str) -> Any:
    """What the job asks for where a row has nothing of its own."""
    return job.get(name, REQUEST_FIELDS[name].default)


def _own_or(column: pa.ChunkedArray, default: Any) -> pa.ChunkedArray:
    return column if default is None else pc.fill_null(column, default)
