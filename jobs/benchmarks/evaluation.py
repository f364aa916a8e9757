"""Measure how an evaluation scales: the same clips judged by one worker and by more."""

from __future__ import annotations

import io
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.machine import describe
from flowtts_core.audio.files import encode
from flowtts_core.errors import ConfigError
from flowtts_core.metrics.judges import PanelConfig
from jobs.evaluation.input import find_items, read_clip
from jobs.evaluation.run import EvaluationOptions, evaluate


def scaling(
    source: str, clips: int, workers: Sequence[int], judges: tuple[str, ...], progress: Callable[[str], None]
) -> dict[str, Any]:
    """Judge so many clips, repeating those of the source, once for each number of workers.

    Returns:
        For each run `wall_s`, its whole time, and `per_s`, the clips a second from the first committed part to the last. That
        leaves out the start of Ray and the loading of the judges.
    """
    if len(workers) < 2 or min(workers) < 1:
        raise ConfigError(f"--workers {workers}: nothing to compare", "give two numbers or more, for instance 1,2")
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        table = f"{folder}/clips.parquet"
        seconds = _write(source, clips, table)
        for count in workers:
            progress(f"{clips} clips by {count} workers")
            runs.append(_run(table, f"{folder}/{count}", count, judges))
    first = runs[0]
    for run in runs:
        run |= {"times": first["wall_s"] / run["wall_s"], "times_steady": run["per_s"] / first["per_s"]}
    return {
        "benchmark": "evaluation", "machine": describe(), "source": source, "clips": clips, "audio_s": seconds,
        "judges": list(judges), "runs": runs,
    }  # fmt: skip


def _write(source: str, clips: int, path: str) -> float:
    """Write a Parquet file of so many clips. Return their length in seconds."""
    rows, seconds = [], 0.0
    for number, item in enumerate(islice(cycle(find_items(source)), clips)):
        waveform, rate = read_clip(source, item.place)
        seconds += len(waveform) / rate
        rows.append({"id": f"{number:06d}", "text": item.text or "", "audio": encode(waveform, rate, ".flac")})
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    Path(path).write_bytes(buffer.getvalue())
    return seconds


def _run(source: str, output: str, workers: int, judges: tuple[str, ...]) -> dict[str, Any]:
    began, load = time.perf_counter(), os.getloadavg()[0]
    marks: list[tuple[int, float]] = []
    options = EvaluationOptions(PanelConfig(judges), workers=workers)
    found = evaluate(source, None, output, options, lambda done, total: marks.append((done, time.perf_counter())))
    wall_s = time.perf_counter() - began
    (first, since), (last, until) = marks[1], marks[-1]
    per_s = (last - first) / (until - since) if until > since else float("nan")
    return {"workers": workers, "wall_s": wall_s, "per_s": per_s, "failed": found.failed, "load_before": load}


def page(figures: dict[str, Any]) -> str:
    """Return the figures as text."""
    machine = figures["machine"]
    lines = [
        f"{run['workers']:>2} workers: {run['wall_s']:7.1f} s ({run['times']:.2f} times as fast), "
        f"{run['per_s']:.2f} clips/s once at work ({run['times_steady']:.2f} times), {run['failed']} failed, "
        f"load before it {run['load_before']:.1f}"
        for run in figures["runs"]
    ]
    what = f"{figures['clips']} clips, {figures['audio_s'] / 60:.0f} min of audio, judged by {', '.join(figures['judges'])}"
    return "\n".join([what, *lines, f"{machine.get('processor')}, {machine.get('cores')} cores"])
