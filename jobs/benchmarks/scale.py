"""Measure how a synthesis job scales: Ray against a bare loop, workers, and the cost of bookkeeping."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.machine import Watch, describe, require_device
from flowtts_core.errors import ConfigError
from flowtts_core.voice.card import load_card
from jobs.synthesis.engine import Engine

if TYPE_CHECKING:
    from flowtts_core.engines.base import Speech, SynthesisFailure
    from flowtts_core.request import SynthesisRequest

PARTS = ("ray", "null")
Say = Callable[[str], None]
Event = tuple[float, int, float, int]  # when a shard was done, its characters, its seconds of sound, its process


def scale(
    voice: str | None,
    texts: Sequence[str],
    parts: Sequence[str],
    workers: Sequence[int],
    null_rows: Sequence[int],
    say: Say,
    device: str = "cpu",
    rounds: int = 1,
) -> dict[str, Any]:
    """Measure the parts.

    Args:
        texts: to be spoken, mixed in length.
        workers: numbers of processes of the runs in Ray and of the bare loop.
        null_rows: sizes of the jobs with a model that does nothing.
        device: where the voice runs; on "cuda" the workers share one GPU.
        rounds: into which the texts are divided. Bare loop and job take turns, since the machine's other load changes.

    Raises:
        ConfigError: for a part that does not exist, or a device that this machine lacks.
        VoiceError: where there is no such voice.
    """
    if unknown := sorted(set(parts) - set(PARTS)):
        raise ConfigError(f"no part {unknown[0]!r}", f"use some of: {', '.join(PARTS)}")
    require_device(device)
    load_card(voice)  # raises here rather than in the processes of the bare loop
    figures: dict[str, Any] = {"benchmark": "scale", "machine": describe(), "texts": len(texts), "device": device}
    with Watch() as watch:
        if "ray" in parts:
            figures["ray"] = against_bare(voice, texts, workers, rounds, device, say)
        if "null" in parts:
            figures["null"] = [null_job(rows, max(workers), say) for rows in null_rows]
    figures["busy"] = watch.busy.to_json()
    figures["bars"] = _bars(figures)
    return figures


def mixed(texts: Sequence[str], n: int) -> list[str]:
    """Return `n` texts of mixed lengths: phrases, sentences, and two sentences at once."""
    rng, found = random.Random(7), []
    for i in range(n):
        text = texts[i % len(texts)]
        kind = rng.random()
        if kind < 0.3:
            text = " ".join(text.split()[: rng.randint(2, 6)])
        elif kind > 0.8:
            text = f"{text} {texts[(i * 31 + 7) % len(texts)]}"
        found.append(text)
    return found


# -- Ray against a bare loop --------------------------------------------------------------------------------------------


def against_bare(
    voice: str | None, texts: Sequence[str], workers: Sequence[int], rounds: int, device: str, say: Say
) -> dict[str, Any]:
    """Speak the same shards with the same voice by bare processes and by the job, in turns."""
    made: dict[str, dict[int, list[dict[str, Any]]]] = {"bare": {}, "job": {}}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds):
            part = texts[turn * len(texts) // rounds : (turn + 1) * len(texts) // rounds]
            for count in sorted(set(workers)):
                place = Path(folder, f"{turn}-{count}")
                place.mkdir()
                say(f"round {turn + 1}: bare loop, processes: {count}")
                made["bare"].setdefault(count, []).append(_bare(voice, device, part, count, place))
                say(f"round {turn + 1}: the job, workers: {count}")
                made["job"].setdefault(count, []).append(_job(voice, device, part, count, place / "job"))
    return {kind: {count: _whole(runs) for count, runs in counts.items()} for kind, counts in made.items()}


def _whole(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return runs as one, with rates weighted by the time of each and times as means; and each run alone."""
    spent = [run["steady_s"] for run in runs]
    rates = {
        name: sum(run[name] * s for run, s in zip(runs, spent, strict=True)) / sum(spent)
        for name in ("characters_per_s", "audio_per_s")
    }
    means = {name: sum(run[name] for run in runs) / len(runs) for name in ("whole_s", "first_shard_s")}
    padding = {"padding": max(run["padding"] for run in runs)} if "padding" in runs[0] else {}
    return {**rates, "steady_s": sum(spent), **means, **padding, "runs": list(runs)}


def _units(texts: Sequence[str]) -> Any:
    from flowtts_core.text.document import TextRow
    from jobs.synthesis.plan import plan_corpus
    from jobs.synthesis.settings import Speaking

    return plan_corpus([TextRow(f"t{i:06d}", text) for i, text in enumerate(texts)], Speaking(), "benchmark")


def _job(voice: str | None, device: str, texts: Sequence[str], workers: int, output: Path) -> dict[str, Any]:
    from jobs.synthesis.job import Options, run_job
    from jobs.synthesis.pipeline import Running
    from jobs.synthesis.settings import Speaking
    from jobs.synthesize import voice_engine

    events: list[Event] = []

    def watch(result: dict[str, Any]) -> None:
        events.append((time.perf_counter(), result["characters"], result["seconds"], result["worker"]))

    gpus = 1 / workers if device == "cuda" else 0.0
    began = time.perf_counter()
    options = Options(rows="parquet", running=Running(least=workers, most=workers, gpus=gpus))
    summary = run_job(_units(texts), str(output), voice_engine(voice, device, {}), Speaking(), options, watch=watch)
    return {
        **steady(events, workers),
        "whole_s": time.perf_counter() - began,
        "first_shard_s": events[0][0] - began,
        "padding": summary.padding,
        "compute_s": summary.compute_s,
        "timings": summary.timings,
    }


def _bare(voice: str | None, device: str, texts: Sequence[str], processes: int, folder: Path) -> dict[str, Any]:
    """Run processes that take shards from a queue, speak them and write them, and do nothing else."""
    context = multiprocessing.get_context("spawn")
    shards: Any = context.Queue()
    done: Any = context.Queue()
    count = 0
    for shard in _shards(texts, folder / f"plan-{processes}"):
        shards.put(shard)
        count += 1
    for _ in range(processes):
        shards.put(None)
    os.environ["OMP_NUM_THREADS"] = "1"  # as in the job's workers
    began = time.perf_counter()
    workers = [
        context.Process(target=_bare_worker, args=(voice, device, shards, done, str(folder))) for _ in range(processes)
    ]
    for worker in workers:
        worker.start()
    events = [done.get() for _ in range(count)]
    for worker in workers:
        worker.join()
    return {**steady(events, processes), "whole_s": time.perf_counter() - began, "first_shard_s": events[0][0] - began}


def _shards(texts: Sequence[str], folder: Path) -> Iterator[list[tuple[str, int]]]:
    """Yield (text, seed) of the units of each shard that the job would make."""
    from cluster.plan import read_group
    from cluster.storage import Storage
    from jobs.synthesis.engine import Voices
    from jobs.synthesis.plan import write_plan
    from jobs.synthesis.settings import Speaking
    from jobs.synthesis.units import units_of

    storage = Storage(str(folder))
    stored = write_plan(storage, _units(texts), Speaking(), Voices(Engine("bare", "bare", _no_voice)), "bare")
    for shard in stored.shards:
        units = units_of(read_group(storage, stored.folder, shard.part, shard.group))
        yield [(unit.text, unit.seed) for unit in units]


def _no_voice() -> Any:
    raise AssertionError("only planned with")


def _bare_worker(voice: str | None, device: str, shards: Any, done: Any, folder: str) -> None:
    from flowtts_core.audio.files import encode
    from flowtts_core.engines.base import Speech
    from flowtts_core.engines.flow import FlowSynthesizer
    from flowtts_core.request import SynthesisRequest

    synthesizer = FlowSynthesizer.load(voice, device=device, threads=1)
    number = 0
    while (shard := shards.get()) is not None:
        seconds = 0.0
        results = synthesizer.synthesize([SynthesisRequest(text=text, seed=seed) for text, seed in shard])
        with open(f"{folder}/bare-{os.getpid()}-{number}", "wb") as file:
            for result in results:
                if isinstance(result, Speech):
                    file.write(encode(result.waveform, result.sample_rate, ".flac"))
                    seconds += result.seconds
        number += 1
        characters = sum(len(text) for text, _ in shard)
        done.put((time.perf_counter(), characters, seconds, os.getpid()))  # one clock for all processes (Linux)


def steady(events: Sequence[Event], workers: int) -> dict[str, Any]:
    """Return the throughput while all processes work: from the last one's first finished shard to the first one's last.

    A shard's sound is spread evenly over the time since its process finished the shard before. A shard that crosses either end
    counts in part, since shards are few and large.

    Raises:
        ConfigError: where some of the `workers` processes has done fewer than two shards.
    """
    by_worker: dict[int, list[Event]] = {}
    for event in sorted(events):
        by_worker.setdefault(event[3], []).append(event)
    start, end = max(made[0][0] for made in by_worker.values()), min(made[-1][0] for made in by_worker.values())
    if len(by_worker) < workers or start >= end:
        raise ConfigError("too few texts for a steady state", "give more, or fewer --workers")
    characters = seconds = 0.0
    for made in by_worker.values():
        for before, event in itertools.pairwise(made):
            share = max(0.0, min(end, event[0]) - max(start, before[0])) / (event[0] - before[0])
            characters, seconds = characters + share * event[1], seconds + share * event[2]
    spent = end - start
    return {
        "characters_per_s": characters / spent,
        "audio_per_s": seconds / spent,
        "steady_s": spent,
        "shards": len(events),
    }


# -- a model that does nothing ------------------------------------------------------------------------------------------


class NullSynthesizer:
    """Returns the same encoded hundredth of a second for every text. The rest of the time is the job's own cost."""

    sample_rate = 16_000
    fingerprint = "null-1"
    languages: tuple[str, ...] = ()
    speakers: tuple[str, ...] = ()

    def __init__(self) -> None:
        from flowtts_core.audio.files import encode
        from flowtts_core.engines.base import Speech

        waveform = (0.1 * np.sin(np.arange(160) / 3)).astype(np.float32)
        self._speech = Speech(waveform, self.sample_rate, flac=encode(waveform, self.sample_rate, ".flac"))

    def synthesize(self, requests: Sequence[SynthesisRequest]) -> list[Speech | SynthesisFailure]:
        return [self._speech] * len(requests)


@dataclass(frozen=True)
class _MakeNull:
    def __call__(self) -> NullSynthesizer:
        return NullSynthesizer()


def null_job(rows: int, workers: int, say: Say) -> dict[str, Any]:
    """Run a corpus of so many short rows through the whole job, then resume the job with one shard deleted."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from jobs.synthesis.folder import SUMMARY
    from jobs.synthesis.input import ReadingOptions, read_plan
    from jobs.synthesis.job import Options, run_job
    from jobs.synthesis.pipeline import Running
    from jobs.synthesis.settings import Speaking

    say(f"a model that does nothing, {rows:,} rows")
    engine = Engine("null", "null-1", _MakeNull())
    options = Options(rows="parquet", running=Running(least=workers, most=workers))
    with tempfile.TemporaryDirectory() as folder, _Memory() as memory:
        table = Path(folder, "rows.parquet")
        pq.write_table(
            pa.table({"id": [f"r{i}" for i in range(rows)], "text": [f"Row {i}." for i in range(rows)]}), table
        )
        output = Path(folder, "out")
        go = partial(run_job, output=str(output), engine=engine, speaking=Speaking(), options=options)
        done: list[float] = []
        began = time.perf_counter()
        whole = go(
            read_plan([str(table)], ReadingOptions(), Speaking()), watch=lambda _: done.append(time.perf_counter())
        )
        spent = time.perf_counter() - began
        started = (
            done[0] - began - whole.timings["plan_s"]
        )  # from the plan to the first shard: what is left of Ray's start
        (output / "shards" / "00000.parquet").unlink()
        (output / SUMMARY).unlink()
        again = go(read_plan([str(table)], ReadingOptions(), Speaking()))
    assert whole.ok == again.ok == rows
    return {
        "rows": rows,
        "rows_per_s": rows / (spent - started),
        "seconds": spent,
        "start_s": started,
        "timings": whole.timings,
        "shards": whole.shards,
        "resume_s": again.timings["plan_s"] + again.timings["resume_s"],
        "resume_manifest_s": again.timings["manifest_s"],
        "peak_gib": memory.peak / 2**30,
    }


class _Memory:
    """The most memory that this process and all below it held, each shared page by its share (PSS; Linux)."""

    peak = 0

    def __enter__(self) -> _Memory:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        from jobs.benchmarks.serving import memory_mib

        while not self._stop.wait(1.0):
            self.peak = max(self.peak, int(memory_mib(os.getpid()) * 2**20))


# -- what it says -------------------------------------------------------------------------------------------------------


def _bars(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the name, value, bar, and whether it is met, of each figure that was measured."""
    found: list[tuple[str, float, str, bool]] = []
    if ray := figures.get("ray"):
        most = max(ray["job"])
        for count, made in ray["job"].items():
            share = made["characters_per_s"] / ray["bare"][count]["characters_per_s"]
            found.append((f"the job against the bare loop, processes: {count}", share, "0.82", share >= 0.82))
        if most > 1 and 1 in ray["job"]:
            gain = ray["job"][most]["characters_per_s"] / ray["job"][1]["characters_per_s"]
            bar = 0.925 * most
            found.append((f"{most} workers against one", gain, f"{bar:g}", gain >= bar))
        padding = ray["job"][most]["padding"]
        found.append(("padding in the job", padding, "0.05", padding < 0.05))
    for job in figures.get("null", ()):
        if job["rows"] >= 1_000_000:
            rate = job["rows_per_s"]
            found.append(("rows a second without a model, start-up apart", rate, "20000", rate >= 20_000))
            found.append(("memory, GiB", job["peak_gib"], "3.73", job["peak_gib"] < 4e9 / 2**30))
            found.append(("seconds to decide what is left", job["resume_s"], "30", job["resume_s"] < 30))
    return [{"name": name, "value": value, "bar": bar, "met": met} for name, value, bar, met in found]


def page(figures: dict[str, Any]) -> str:
    """Return the figures as text."""
    machine, busy = figures["machine"], figures["busy"]
    lines = [f"{machine.get('processor')}, {machine.get('cores')} cores; load before {busy['load_before']:.1f}"]
    if ray := figures.get("ray"):
        for kind in ("bare", "job"):
            for count, made in ray[kind].items():
                rates = ", ".join(f"{run['audio_per_s']:.1f}" for run in made["runs"])
                lines.append(
                    f"{kind}, {count}: {made['audio_per_s']:.1f} s of sound a second ({made['characters_per_s']:.0f} characters) "
                    f"in a steady state of {made['steady_s']:.0f} s (by round: {rates}); first shard after "
                    f"{made['first_shard_s']:.1f} s, all after {made['whole_s']:.0f} s"
                )
    for job in figures.get("null", ()):
        steps = ", ".join(f"{name.removesuffix('_s')} {value:.1f}" for name, value in job["timings"].items())
        lines.append(
            f"null model, {job['rows']:,} rows, {job['shards']} shards: {job['seconds']:.1f} s ({steps}), "
            f"of which start-up {job['start_s']:.1f}: {job['rows_per_s']:,.0f} rows/s without it; "
            f"resume decides in {job['resume_s']:.2f} s; at most {job['peak_gib']:.2f} GiB"
        )
    lines += [
        f"{b['name']}: {b['value']:.4g} (bar {b['bar']}) {'met' if b['met'] else 'NOT MET'}" for b in figures["bars"]
    ]
    return "\n".join(lines)
