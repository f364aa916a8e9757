"""Measure batching in one process without Ray: throughput by tokens in a batch, and of the streaming engine by users."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch

from cluster.machine import Watch, describe, require_device
from flowtts_core.engines.base import Speech, SynthesisFailure
from flowtts_core.engines.flow import FlowSynthesizer
from flowtts_core.errors import ConfigError, TextError
from flowtts_core.request import SynthesisRequest
from flowtts_core.streaming.engine import StreamingEngine, source_of
from flowtts_core.text.plan import TextPlan
from jobs.benchmarks.serving_load import mixed_texts, percentiles, sentences_of

PARTS = ("jobs", "streams")
FIRSTS = 100  # requests by a single user whose first sound is timed
SHARD = 400  # texts that a job's worker is given at once
Say = Callable[[str], None]


def engine(
    voice: str | None,
    device: str,
    texts: Sequence[str],
    parts: Sequence[str],
    tokens: Sequence[int],
    users: Sequence[int],
    frames: Sequence[int],
    seconds: float,
    say: Say,
) -> dict[str, Any]:
    """Measure the parts on one device and one thread.

    Args:
        texts: for "jobs": spoken once for each of `tokens`.
        tokens: for "jobs": the most padded tokens in a batch.
        users: for "streams": how many send requests at the same time.
        frames: for "streams": the most padded mel frames in a batch.
        seconds: for "streams": the length of each load.

    Raises:
        ConfigError: for a part that does not exist, or a device that this machine lacks.
    """
    if unknown := sorted(set(parts) - set(PARTS)):
        raise ConfigError(f"no part {unknown[0]!r}", f"use some of: {', '.join(PARTS)}")
    require_device(device)
    figures: dict[str, Any] = {"benchmark": "engine", "machine": describe(), "device": device}
    synthesizer = FlowSynthesizer.load(voice, device=device, threads=1)
    with Watch() as watch:
        if "jobs" in parts:
            figures["jobs"] = by_tokens(synthesizer, texts, tokens, say)
        if "streams" in parts:
            figures["streams"] = by_users(synthesizer, users, frames, seconds, say)
    figures["busy"] = watch.busy.to_json()
    return figures


def by_tokens(synthesizer: FlowSynthesizer, texts: Sequence[str], tokens: Sequence[int], say: Say) -> dict[str, Any]:
    """Speak all texts, shard by shard as a job's worker does, for each budget of tokens. The front end is timed apart."""
    began = time.perf_counter()
    asked = [SynthesisRequest(text=text, seed=n) for n, text in enumerate(texts)]
    requests = [(request, synthesizer.plan(request)) for request in asked]
    found: dict[str, Any] = {
        "texts": len(texts),
        "frontend_ms": 1e3 * (time.perf_counter() - began) / len(texts),
        "runs": [],
    }
    for budget in tokens:
        say(f"{len(texts)} texts, {budget} tokens together")
        speaker = FlowSynthesizer(synthesizer.voice, tokens_per_batch=budget, device=str(synthesizer.device))
        _spoken(speaker, requests[:SHARD])  # the first call with a shape loads or chooses kernels
        stages: Counter[str] = Counter()
        audio_s, used, padded, began = 0.0, 0, 0, time.perf_counter()
        for start in range(0, len(requests), SHARD):
            audio_s += _spoken(speaker, requests[start : start + SHARD])
            stages.update(speaker.last_timings)
            used, padded = used + speaker.last_tokens[0], padded + speaker.last_tokens[1]
        wall = time.perf_counter() - began
        shares = {name: stages[name] / wall for name in ("acoustic", "vocoder")}
        found["runs"].append(
            {"tokens": budget, "audio_per_s": audio_s / wall, "shares": shares, "padding": 1 - used / padded}
        )
    return found


def _spoken(synthesizer: FlowSynthesizer, requests: Sequence[tuple[SynthesisRequest, TextPlan]]) -> float:
    """Return seconds of sound. Raise a failure: a benchmark of only what succeeds would mislead."""
    seconds = 0.0
    results = synthesizer.synthesize([request for request, _ in requests], [plan for _, plan in requests])
    for (request, _), result in zip(requests, results, strict=True):
        if isinstance(result, SynthesisFailure):
            raise TextError(f"cannot say {request.text[:60]!r}: {result.reason}", "leave this text out")
        assert isinstance(result, Speech)
        seconds += result.seconds
    return seconds


def by_users(
    synthesizer: FlowSynthesizer, users: Sequence[int], frames: Sequence[int], seconds: float, say: Say
) -> dict[str, Any]:
    """Measure the streaming engine: first sound of 12 words for a single user, then its throughput, without and with batches."""
    say(f"first sound, {FIRSTS} requests one by one")
    found: dict[str, Any] = {"first_s": percentiles(first_sounds(synthesizer, sentences_of(12, FIRSTS))), "runs": []}
    for budget in (1, *frames):
        for count in (
            users if budget > 1 else (max(users),)
        ):  # piece by piece with most, so that some piece always waits
            say(f"{count} users, {budget} frames together" if budget > 1 else f"{count} users, piece by piece")
            rate = goodput(synthesizer, budget, count, seconds)
            found["runs"].append({"frames": budget, "users": count, "audio_per_s": rate})
    return found


def first_sounds(synthesizer: FlowSynthesizer, texts: Sequence[str]) -> list[float]:
    """Return the seconds until the first sound of each text. Each is spoken to its end before the next."""
    made = StreamingEngine(synthesizer)
    made.warm_up()
    firsts = []
    for text in texts:
        began = time.perf_counter()
        for number, _chunk in enumerate(made.submit(SynthesisRequest(text=text)).chunks()):
            if number == 0:
                firsts.append(time.perf_counter() - began)
    made.close()
    return firsts


def goodput(synthesizer: FlowSynthesizer, frames: int, users: int, seconds: float) -> float:
    """Return seconds of sound a second while so many streamed requests of mixed texts are always in progress."""
    source = source_of(synthesizer)
    source.most_together = frames
    made = StreamingEngine(source, max_queued_s=math.inf)
    made.warm_up()
    texts, audio_s, lock, until = iter(mixed_texts(100_000)), 0.0, threading.Lock(), time.perf_counter() + seconds

    def user() -> None:
        nonlocal audio_s
        while time.perf_counter() < until:
            with lock:
                _, text = next(texts)
            spoken = sum(len(c.waveform) for c in made.submit(SynthesisRequest(text=text)).chunks()) / made.sample_rate
            with lock:
                audio_s += spoken

    began = time.perf_counter()
    threads = [threading.Thread(target=user) for _ in range(users)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made.close()
    return audio_s / (time.perf_counter() - began)


def page(figures: dict[str, Any]) -> str:
    """Return the figures as text."""
    machine = figures["machine"]
    lines = [f"{machine['processor']}, {machine['cores']} cores, GPU: {machine['gpu']}, torch {torch.__version__}; on "
             f"{figures['device']}, one thread; others kept {figures['busy']['others_cores'] or 0:.1f} cores busy"]  # fmt: skip
    if made := figures.get("jobs"):
        lines.append(f"{made['texts']} texts, the front end {made['frontend_ms']:.1f} ms a text, apart")
        for run in made["runs"]:
            lines.append(
                f"{run['tokens']} tokens together: {run['audio_per_s']:.1f} s of sound a second, padding {run['padding']:.1%}; "
                + ", ".join(f"{name} {share:.0%}" for name, share in run["shares"].items())
            )
    if made := figures.get("streams"):
        first = {name: f"{1e3 * value:.0f}" for name, value in (made["first_s"] or {}).items()}
        lines.append(f"first sound of 12 words, ms: {first}")
        single = made["runs"][0]["audio_per_s"]
        for run in made["runs"]:
            how = "piece by piece" if run["frames"] == 1 else f"{run['frames']} frames together"
            lines.append(f"{run['users']} users, {how}: {run['audio_per_s']:.1f} s of sound a second, "
                         f"{run['audio_per_s'] / single:.2f} times")  # fmt: skip
    return "\n".join(lines)
