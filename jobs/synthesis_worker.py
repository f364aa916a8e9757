"""The worker of a synthesis job: speaks one shard, keeps each failure to its own row, and commits the shard."""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.journal import Journal
from cluster.manifest import SHARDS, sha256, write_shard
from cluster.pool import run_tasks
from cluster.storage import Storage
from flowtts_core.audio.files import encode
from flowtts_core.errors import FlowTTSError
from jobs.synthesis_plan import Speaking, Unit
from jobs.verification import Gate, Retake, Take

if TYPE_CHECKING:  # the driver imports this file too, and has no need of torch
    from flowtts_core.synthesizer import Speech, SynthesisFailure, Synthesizer

MakeSynthesizer = Callable[[], "Synthesizer"]
AUDIO, ASIDE = "audio", "quarantine"

_MACHINES_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


class ShardWorker:
    """Loads the engine once; each call takes a shard and returns what became of it.

    Args:
        make_synthesizer: makes the engine; called in the worker's process.
        run: names this run of the job, so that a worker's deaths are not mistaken for an earlier run's end.
        audio_files: write each utterance to `audio/` (a corpus) instead of into the shard (a book).
        keep_unverified: an utterance that no take made good stays in (a book must have no holes) instead of being set aside.
        steps: of the flow where neither the job nor a retake says otherwise.
    """

    def __init__(
        self,
        make_synthesizer: MakeSynthesizer,
        output: Storage,
        voice: str,
        speaking: Speaking,
        run: str,
        audio_files: bool,
        keep_unverified: bool = False,
        steps: int = 1,
    ) -> None:
        self._output, self._voice, self._speaking, self._run = output, voice, speaking, run
        self._audio_files, self._keep_unverified = audio_files, keep_unverified
        self._gate = Gate(speaking.gate, speaking.steps or steps) if speaking.gate else None
        try:
            self._synthesizer = make_synthesizer()
        except FlowTTSError:
            raise
        except Exception as error:
            raise FlowTTSError(f"the voice does not load: {type(error).__name__}: {error}"[:1000]) from error
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(1)

    def __call__(self, task: dict[str, Any]) -> dict[str, Any]:
        return self._speak_shard(task["shard"], [Unit(**unit) for unit in task["units"]])

    def _speak_shard(self, index: int, units: list[Unit]) -> dict[str, Any]:
        self._spoken_s = self._judged_s = 0.0
        journal = Journal(self._output, f"{SHARDS}/{journal_name(index)}", self._run, len(units))
        rows = self._one_by_one(units, journal) if journal.careful else self._together(units)
        stats = {"compute_s": self._spoken_s, "judging_s": self._judged_s, "careful": journal.careful}
        write_shard(self._output, index, rows, stats)
        journal.close()
        ok = sum(row["status"] == "ok" for row in rows)
        seconds = sum(row["duration"] for row in rows)
        return {"shard": index, "ok": ok, "failed": len(rows) - ok, "seconds": seconds, "compute_s": stats["compute_s"]}

    def _together(self, units: Sequence[Unit]) -> list[dict[str, Any]]:
        speakable = [unit for unit in units if not unit.error]
        results, attempts = self._spoken([_first(unit, self._speaking) for unit in speakable])
        firsts = [_take(unit, result, self._speaking) for unit, result in zip(speakable, results, strict=True)]
        takes = {unit.id: take for unit, take in zip(speakable, self._chosen(speakable, firsts), strict=True)}
        return [self._row(unit, takes.get(unit.id), attempts) for unit in units]

    def _one_by_one(self, units: Sequence[Unit], journal: Journal) -> list[dict[str, Any]]:
        from flowtts_core.synthesizer import SynthesisFailure

        rows = []
        for unit in units:
            if unit.error:
                rows.append(self._row(unit, None, journal.starts))
                continue
            if unit.id in journal.deadly:
                take = _take(unit, SynthesisFailure("the worker's process died while speaking it"), self._speaking)
            else:
                journal.enter(unit.id)
                result = self._alone(_first(unit, self._speaking))
                (take,) = self._chosen([unit], [_take(unit, result, self._speaking)])
            rows.append(self._row(unit, take, journal.starts))
        return rows

    def _chosen(self, units: Sequence[Unit], firsts: Sequence[Take]) -> Sequence[Take]:
        if self._gate is None:
            return firsts
        began, spoken_s = time.perf_counter(), self._spoken_s
        takes = self._gate.choose(units, firsts, lambda again: self._spoken(again)[0])
        self._judged_s += time.perf_counter() - began - (self._spoken_s - spoken_s)
        return takes

    def _spoken(self, takes: list[Retake]) -> tuple[list[Speech | SynthesisFailure], int]:
        """What became of each, and in how many attempts."""
        try:
            return self._synthesize(takes), 1
        except Exception as error:  # one bad unit must not cost the others: each alone, once more
            raise_if_machines(error)
            return [self._alone(take) for take in takes], 2

    def _alone(self, take: Retake) -> Speech | SynthesisFailure:
        from flowtts_core.synthesizer import SynthesisFailure

        try:
            return self._synthesize([take])[0]
        except Exception as error:
            raise_if_machines(error)
            return SynthesisFailure(f"{type(error).__name__}: {error}"[:500])

    def _synthesize(self, takes: Sequence[Retake]) -> list[Speech | SynthesisFailure]:
        from flowtts_core.synthesizer import SynthesisRequest

        s, began = self._speaking, time.perf_counter()
        requests = [SynthesisRequest(u.text, seed, s.speed, steps, s.temperature, u.speaker) for u, seed, steps in takes]
        results = self._synthesizer.synthesize(requests) if requests else []
        self._spoken_s += time.perf_counter() - began
        if len(results) != len(requests):
            raise RuntimeError(f"the voice gave {len(results)} results for {len(requests)} requests")
        return results

    def _row(self, unit: Unit, take: Take | None, attempts: int) -> dict[str, Any]:
        """A row of the shard; `take` is None for a unit that could not be read."""
        from flowtts_core.synthesizer import Speech, SynthesisFailure

        row = {
            **{name: getattr(unit, name) for name in ("id", "chapter", "index", "text", "speaker", "seed")},
            "voice": self._voice,
            "model": self._synthesizer.fingerprint,
            "duration": 0.0,
            "num_samples": 0,
            "attempts": 0 if unit.error else attempts,
        }
        result = take.result if take else None
        reason = unit.error or (result.reason if isinstance(result, SynthesisFailure) else fault(result))
        if reason or take is None or not isinstance(result, Speech):
            return {**row, "status": "failed", "reason": reason}
        flac = encode(result.waveform, result.sample_rate, ".flac")
        aside = take.verified is False and not self._keep_unverified
        row |= {
            "status": "failed" if aside else "ok",
            "reason": take.reason or None,
            "sha256": sha256(flac),
            "sample_rate": result.sample_rate,
            "num_samples": len(result.waveform),
            "duration": result.seconds,
            "words": [asdict(word) for word in result.words],
            "phonemes": result.phonemes,
            "seed": take.seed,
            "steps": take.steps,
            "takes": take.number,
            "verified": take.verified,
            "scores": take.scores,
        }
        if not self._audio_files:
            return {**row, "flac": flac}
        row["audio"] = f"{ASIDE if aside else AUDIO}/{unit.file}.flac"
        self._output.write(str(row["audio"]), flac)
        return row


def _first(unit: Unit, speaking: Speaking) -> Retake:
    return unit, unit.seed, speaking.steps


def _take(unit: Unit, result: Speech | SynthesisFailure | None, speaking: Speaking) -> Take:
    return Take(result, unit.seed, speaking.steps)


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


def journal_name(index: int) -> str:
    """Of a shard's journal, in the folder of the shards."""
    return f"attempts-{index:05d}.json"


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
    tasks = [{"shard": index, "units": [asdict(unit) for unit in units]} for index, units in shards.items()]
    return run_tasks(partial(ShardWorker, **worker_args), tasks, address=address, workers=workers, gpus=gpus)
