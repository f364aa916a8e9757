"""Measure a voice's speed: the real-time factor on one thread, and the time until sound is on disk, cold and warm."""

from __future__ import annotations

import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.machine import Watch
from flowtts_core.engines.base import Speech, SynthesisFailure, UtteranceSynthesizer
from flowtts_core.errors import FlowTTSError, TextError
from flowtts_core.request import SynthesisRequest
from flowtts_core.voice import open_voice

DEMO = Path(__file__).resolve().parents[1] / "demo" / "alice-chapter-1.txt"
SECONDS = (5.0, 7.0)  # "single sentences of about 6 s"
SENTENCES = 20
COLD_RUNS = 3
COLD_TEXT = "The rain has stopped, and the evening is quiet again."
SHORT_TEXTS = (
    "The door is open.",
    "Nobody was at home.",
    "It is a quarter past nine.",
    "She put the kettle on.",
    "We shall see tomorrow.",
    "The train was late again.",
    "He laughed and sat down.",
    "Bring me the blue book.",
    "What a strange old clock.",
)


def read_texts(path: Path | None) -> list[tuple[str, str]]:
    """Return (id, text) pairs: the lines of a text file, or a TSV's columns `id` and `normalized` or `text`.

    Without a path, the sentences of the demo chapter.

    Raises:
        TextError: when the file cannot be read or holds no text.
    """
    if path is None:
        from flowtts_core.text.sentences import split_sentences

        found = [sentence.text for sentence in split_sentences(DEMO.read_text(encoding="utf-8"))]
        return [(f"alice-{number:04d}", text) for number, text in enumerate(found)]
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TextError(f"{path}: cannot be read ({error})", "give a UTF-8 text file or TSV") from error
    lines = [line for line in content.splitlines() if line.strip()]
    if not lines:
        raise TextError(f"{path}: holds no text")
    if "\t" not in lines[0]:
        return [(f"{path.stem}-{number:05d}", line.strip()) for number, line in enumerate(lines)]
    rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    column = next((name for name in ("normalized", "text") if name in rows[0]), None) if rows else None
    if column is None or "id" not in rows[0]:
        raise TextError(f"{path}: a TSV needs a header with id and text", "columns: id, text (and normalized, if any)")
    return [(row["id"], row[column]) for row in rows]


def say_one(synthesizer: UtteranceSynthesizer, text: str, **settings: Any) -> Speech:
    """Speak one text. Raise a failure: a benchmark of only what succeeds would mislead."""
    [result] = synthesizer.synthesize([SynthesisRequest(text=text, **settings)])
    if isinstance(result, SynthesisFailure):
        raise TextError(f"cannot say {text[:60]!r}: {result.reason}", "leave this text out")
    return result


def speed(voice: str | None, texts: Sequence[str]) -> dict[str, Any]:
    """Measure end to end on one thread. Each sentence is new to the process; its words may be cached, as in a book.

    Returns:
        `rtf` (wall seconds by audio seconds: median, low and high over the sentences), the share of each stage, and
        the load of other processes.
    """
    synthesizer = open_voice(voice, threads=1)
    pace = statistics.median(say_one(synthesizer, text).seconds / len(text) for text in SHORT_TEXTS)
    factors: list[float] = []
    stages: Counter[str] = Counter()
    audio = wall = 0.0
    with Watch() as watch:
        for text in _about_six_seconds(texts, pace):
            started = time.perf_counter()
            speech = say_one(synthesizer, text)
            took = time.perf_counter() - started
            if SECONDS[0] <= speech.seconds <= SECONDS[1]:
                factors.append(took / speech.seconds)
                stages.update(synthesizer.last_timings)
                audio, wall = audio + speech.seconds, wall + took
            if len(factors) == SENTENCES:
                break
    if not factors:
        raise TextError("no text takes about 6 s to say", "give --texts with longer and shorter sentences")
    shares = {stage: took / wall for stage, took in stages.items()}
    return {
        "threads": 1,
        "sentences": len(factors),
        "audio_s": audio,
        "rtf": {"median": statistics.median(factors), "low": min(factors), "high": max(factors)},
        "shares": {"frontend and the rest": 1 - sum(shares.values()), **shares},
        "busy": watch.busy.to_json(),
    }


def _about_six_seconds(texts: Sequence[str], pace: float) -> list[str]:
    """Return the texts whose predicted length is about 6 s at so many seconds per character, the nearest first."""
    wanted = statistics.mean(SECONDS) / pace
    return sorted(dict.fromkeys(texts), key=lambda text: abs(len(text) - wanted))[: 3 * SENTENCES]


def ready(voice: str | None) -> dict[str, Any]:
    """Return the seconds from `flowtts say` to sound on disk in a new process, and from a short text to a file in a warm one."""
    with tempfile.TemporaryDirectory() as folder, Watch() as watch:
        cold = [_cold(voice, Path(folder) / f"cold-{run}.wav") for run in range(COLD_RUNS)]
        warm = _warm(voice, Path(folder))
    return {
        "cold_s": {"median": statistics.median(cold), "runs": cold},
        "warm_s": {"median": statistics.median(warm), "high": max(warm), "runs": warm},
        "busy": watch.busy.to_json(),
    }


def _cold(voice: str | None, output: Path) -> float:
    command = [sys.executable, "-m", "jobs.cli", "say", COLD_TEXT, "-o", str(output)] + (
        ["--voice", voice] if voice else []
    )
    paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    took = time.perf_counter() - started
    if done.returncode or not output.exists():
        raise FlowTTSError(f"`flowtts say` failed: {done.stderr.strip()[-400:]}", "flowtts doctor")
    return took


def _warm(voice: str | None, folder: Path) -> list[float]:
    from jobs.say import speak, write

    synthesizer = open_voice(voice)
    took = []
    for number, text in enumerate(SHORT_TEXTS):
        started = time.perf_counter()
        waveform = speak(synthesizer, text, {})
        write(folder / f"warm-{number}.wav", waveform, synthesizer.sample_rate)
        took.append(time.perf_counter() - started)
    return took[1:]  # the first one warms the process
