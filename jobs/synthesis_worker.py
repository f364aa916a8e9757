"""The worker of a synthesis job: speaks one shard, keeps each failure to its own row, and commits the shard."""

from __future__ import annotations

import errno
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from cluster.manifest import SHARDS, sha256, write_shard
from cluster.session import release_memory, root_cause, session
from cluster.storage import Storage
from flowtts_core import errors
from flowtts_core.audio.files import encode
from flowtts_core.errors import ConfigError, FlowTTSError
from jobs.synthesis_plan import Speaking, Unit

if TYPE_CHECKING:  # the driver imports this file too, and has no need of torch
    from flowtts_core.synthesizer import Speech, SynthesisFailure, Synthesizer

MakeSynthesizer = Callable[[], "Synthesizer"]
AUDIO = "audio"

CAREFUL_AFTER = 2  # a shard whose worker died so often is spoken one unit at a time, to find the unit that kills
DEADLY_AFTER = 2  # deaths over one unit; a single one may be the machine's (memory that another process took)
# Ray Data restarts dead workers without end; the journal of each shard is what ends it: after this many starts beyond
# those that its units may cost the shard is given up (a worker that dies while it loads the voice is given up by Ray Data
# itself).
_SPARE_STARTS = 4
_MACHINES_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


class ShardWorker:
    """Loads the engine once; each call takes shards and returns what became of them.

    Args:
        make_synthesizer: makes the engine; called in the worker's process.
        run: names this run of the job, so that a worker's deaths are not mistaken for an earlier run's end.
        audio_files: write each utterance to `audio/` (a corpus) instead of into the shard (a book).
    """

    def __init__(
        self,
        make_synthesizer: MakeSynthesizer,
        output: Storage,
        voice: str,
        speaking: Speaking,
        run: str,
        audio_files: bool,
    ) -> None:
        self._output, self._voice, self._speaking, self._run, self._audio_files = (
            output,
            voice,
            speaking,
            run,
            audio_files,
        )
        self._problem: Exception | None = None
        try:
            self._synthesizer = make_synthesizer()
            if "torch" in sys.modules:
                sys.modules["torch"].set_num_threads(1)
        except Exception as error:  # Ray would start the worker again and again; raised from a call it ends the job
            self._problem = error

    def __call__(self, batch: pa.Table) -> pa.Table:
        try:
            return self._speak(batch)
        except (
            FlowTTSError
        ) as error:  # as a row: what Ray makes of a raised one has lost the error that a user can read
            told = {"kind": type(error).__name__, "message": error.message, "remedy": error.remedy}
            return pa.Table.from_pylist([{"shard": -1, "error": json.dumps(told)}])

    def _speak(self, batch: pa.Table) -> pa.Table:
        if isinstance(self._problem, FlowTTSError):
            raise self._problem
        if self._problem is not None:
            raise FlowTTSError(f"the voice does not load: {type(self._problem).__name__}: {self._problem}"[:1000])
        done = [
            self._speak_shard(row["shard"], [Unit(**u) for u in json.loads(row["units"])]) for row in batch.to_pylist()
        ]
        return pa.Table.from_pylist(done)

    def _speak_shard(self, index: int, units: list[Unit]) -> dict[str, Any]:
        started = time.perf_counter()
        journal = _Journal(self._output, index, self._run)
        if journal.starts > DEADLY_AFTER * len(units) + CAREFUL_AFTER + _SPARE_STARTS:
            raise FlowTTSError(
                f"workers died {journal.starts - 1} times over shard {index}",
                "is there memory enough? try fewer --workers",
            )
        careful = journal.starts > CAREFUL_AFTER
        rows = self._one_by_one(units, journal) if careful else self._together(units)
        stats = {"compute_s": time.perf_counter() - started, "careful": careful}
        write_shard(self._output, index, rows, stats)
        journal.close()
        release_memory()
        ok = sum(row["status"] == "ok" for row in rows)
        seconds = sum(row["duration"] for row in rows)
        return {"shard": index, "ok": ok, "failed": len(rows) - ok, "seconds": seconds, "compute_s": stats["compute_s"]}

    def _together(self, units: Sequence[Unit]) -> list[dict[str, Any]]:
        speakable = [unit for unit in units if not unit.error]
        attempts = 1
        try:
            results = self._synthesize(speakable)
        except Exception as error:  # one bad unit must not cost the others: each alone, once more
            raise_if_machines(error)
            results, attempts = [self._alone(unit) for unit in speakable], 2
        spoken = dict(zip([unit.id for unit in speakable], results, strict=True))
        return [self._row(unit, spoken.get(unit.id), attempts) for unit in units]

    def _one_by_one(self, units: Sequence[Unit], journal: _Journal) -> list[dict[str, Any]]:
        from flowtts_core.synthesizer import SynthesisFailure

        rows = []
        for unit in units:
            if unit.id in journal.deadly:
                failure = SynthesisFailure("the worker's process died while speaking it")
                rows.append(self._row(unit, failure, journal.starts))
                continue
            journal.enter(unit.id)
            rows.append(self._row(unit, None if unit.error else self._alone(unit), journal.starts))
        return rows

    def _alone(self, unit: Unit) -> Speech | SynthesisFailure:
        from flowtts_core.synthesizer import SynthesisFailure

        try:
            return self._synthesize([unit])[0]
        except Exception as error:
            raise_if_machines(error)
            return SynthesisFailure(f"{type(error).__name__}: {error}"[:500])

    def _synthesize(self, units: Sequence[Unit]) -> list[Speech | SynthesisFailure]:
        from flowtts_core.synthesizer import SynthesisRequest

        s = self._speaking
        requests = [SynthesisRequest(u.text, u.seed, s.speed, s.steps, s.temperature, u.speaker) for u in units]
        results = self._synthesizer.synthesize(requests) if requests else []
        if len(results) != len(requests):
            raise RuntimeError(f"the voice gave {len(results)} results for {len(requests)} requests")
        return results

    def _row(self, unit: Unit, result: Speech | SynthesisFailure | None, attempts: int) -> dict[str, Any]:
        from flowtts_core.synthesizer import Speech, SynthesisFailure

        row = {
            **{name: getattr(unit, name) for name in ("id", "chapter", "index", "text", "speaker", "seed")},
            "voice": self._voice,
            "model": self._synthesizer.fingerprint,
            "duration": 0.0,
            "num_samples": 0,
            "attempts": 0 if unit.error else attempts,
        }
        reason = unit.error or (result.reason if isinstance(result, SynthesisFailure) else fault(result))
        if reason or not isinstance(result, Speech):
            return {**row, "status": "failed", "reason": reason}
        flac = encode(result.waveform, result.sample_rate, ".flac")
        row |= {
            "status": "ok",
            "sha256": sha256(flac),
            "sample_rate": result.sample_rate,
            "num_samples": len(result.waveform),
        }
        row |= {
            "duration": result.seconds,
            "words": [asdict(word) for word in result.words],
            "phonemes": result.phonemes,
        }
        if not self._audio_files:
            return {**row, "flac": flac}
        row["audio"] = f"{AUDIO}/{unit.file}.flac"
        self._output.write(str(row["audio"]), flac)
        return row


def told(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that a worker returned; raises the error that it returned instead."""
    for row in rows:
        if row.get("error"):
            error = json.loads(row["error"])
            kind = getattr(errors, error["kind"], FlowTTSError)
            raise kind(error["message"], error["remedy"])
    return rows


def raise_if_machines(error: Exception) -> None:
    """Raise as the job's error what says nothing of the text: memory, disk or file handles have run out."""
    memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # torch's, of a GPU
    if memory or (isinstance(error, OSError) and error.errno in _MACHINES_ERRNOS):
        raise FlowTTSError(
            f"the machine has run out: {type(error).__name__}: {error}"[:500],
            "free some of it, or give fewer --workers, and run the same command again: finished work is kept",
        ) from error


def fault(speech: Speech | None) -> str:
    """Why a waveform cannot stand as a result; empty for a good one."""
    if speech is None:
        return "the voice gave no result"
    if speech.waveform.ndim != 1 or len(speech.waveform) == 0:
        return "the voice gave no sound"
    if not np.isfinite(speech.waveform).all():
        return "the voice gave samples that are not numbers"
    return "" if np.abs(speech.waveform).max() > 1e-4 else "the voice gave silence"


class _Journal:
    """Counts how often this run began a shard, and in the careful mode how often it died over which unit."""

    def __init__(self, output: Storage, index: int, run: str) -> None:
        self._output, self._name = output, _journal_name(index)
        before: dict[str, Any] = {}
        if output.exists(self._name):
            before = json.loads(output.read(self._name) or b"{}")
        if before.get("run") != run:
            before = {"run": run, "starts": 0, "deaths": {}, "unit": None}
        self.starts = before["starts"] + 1
        deaths = Counter(before["deaths"])
        deaths.update([before["unit"]] if before["unit"] else [])
        self.deadly = {unit for unit, count in deaths.items() if count >= DEADLY_AFTER}
        self._state = {"run": run, "starts": self.starts, "deaths": deaths, "unit": None}
        self._save()

    def enter(self, unit: str) -> None:
        self._state["unit"] = unit
        self._save()

    def close(self) -> None:
        self._output.delete(self._name)

    def _save(self) -> None:
        self._output.write(self._name, json.dumps(self._state).encode())


def _journal_name(index: int) -> str:
    return f"{SHARDS}/attempts-{index:05d}.json"


def drop_journals(output: Storage, shards: Collection[int]) -> None:
    """Delete the journals of finished shards: a run that was killed between the two steps left them."""
    names = {_journal_name(index) for index in shards}
    for name in output.list(SHARDS):
        if f"{SHARDS}/{name}" in names:
            output.delete(f"{SHARDS}/{name}")


def speak_shards(
    shards: dict[int, Sequence[Unit]], worker_args: dict[str, Any], address: str | None, workers: int, gpus: float = 0
) -> Iterator[dict[str, Any]]:
    """Speak the shards on a pool of actors and yield what became of each as it is committed, in no fixed order.

    Args:
        shards: shard number -> its units.
        worker_args: arguments of `ShardWorker`.
        gpus: of a GPU that each worker takes.

    Raises:
        ConfigError: where the cluster has no GPU for a worker.
        FlowTTSError: what a worker raised (a voice that does not load, a full disk).
    """
    workers = max(1, min(workers, len(shards)))
    with session(address, workers) as info:
        import ray.data

        if gpus and info.gpus < gpus:
            raise ConfigError("--device cuda: Ray sees no GPU", "flowtts doctor says what this machine has")
        if gpus:  # more would wait for a GPU for ever
            workers = min(workers, int(info.gpus / gpus))

        items = [
            {"shard": index, "units": json.dumps([asdict(unit) for unit in units])} for index, units in shards.items()
        ]
        dataset = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            ShardWorker,
            batch_size=1,  # a block is a shard, one row; Ray refuses None together with GPUs
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=workers),
            fn_constructor_kwargs=worker_args,
            num_cpus=1,
            num_gpus=gpus or None,
        )
        try:
            for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                assert isinstance(batch, pa.Table)
                yield from told(batch.to_pylist())
        except FlowTTSError:
            raise
        except Exception as error:  # a fault of this program, or of Ray: its innermost cause says most
            raise root_cause(error) from error
