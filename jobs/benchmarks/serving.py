"""Measure a server on one machine: first sound, goodput against the bare engine, overload, killed replicas, memory."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.machine import describe
from flowtts_core.errors import ConfigError, FlowTTSError
from flowtts_core.voice.card import FLOW_VOICE
from jobs.benchmarks.serving_load import (
    MIX,
    Answered,
    as_they_come,
    at_once,
    mixed_texts,
    one_by_one,
    percentiles,
    sentences_of,
    summed,
    summed_loads,
)

if TYPE_CHECKING:
    from flowtts_core.engines.flow import FlowSynthesizer

PARTS = ("first", "goodput", "overload", "killed", "memory")
FIRSTS, TURNS = 200, 4  # requests whose first sound is timed; turns of server and bare engine
USERS = 8  # at saturation: as many answers as a speaker makes at once
KILL_EVERY_S, KILLED_USERS = 5.0, 3
START_S = 120.0
OWN = ("Pss_Anon:", "Pss_Shmem:")  # without program files, whose share falls as soon as another process reads them too
SETTLE_S = 6.0  # after which a server with nothing to do has handed back what it does not need
Say = Callable[[str], None]


def serving(url: str | None, parts: Sequence[str], seconds: float, requests: int, say: Say) -> dict[str, Any]:
    """Measure a server that is started here, or the one at `url` (without killed replicas and memory).

    Args:
        seconds: of each load.
        requests: of the memory test.

    Raises:
        ConfigError: for a part that does not exist, or needs a server of our own.
    """
    if unknown := sorted(set(parts) - set(PARTS)):
        raise ConfigError(f"no part {unknown[0]!r}", f"use some of: {', '.join(PARTS)}")
    if url is not None and (own := {"killed", "memory"} & set(parts)):
        raise ConfigError(f"{', '.join(sorted(own))}: kills or counts processes of a server", "leave out --url")
    figures: dict[str, Any] = {"benchmark": "serving", "machine": describe(), "load_before": os.getloadavg()[0]}
    with _server(say) if url is None else contextlib.nullcontext((url, 0)) as (place, pid):
        one_by_one(place, [("medium", text) for text in sentences_of(12, 8)])
        measure: dict[str, Callable[[], Any]] = {
            "first": lambda: _first(place),
            "goodput": lambda: _goodput(place, seconds, say),
            "overload": lambda: _overload(place, seconds, say),
            "killed": lambda: _killed(seconds, say),
            "memory": lambda: _memory(place, pid, requests, say),
        }
        for part in parts:
            say(part)
            figures[part] = measure[part]()
    figures["bars"] = _bars(figures)
    return figures


def _twelve_words(n: int) -> list[tuple[str, str]]:
    return [("medium", text) for text in sentences_of(12, n)]


def _bare_engine() -> FlowSynthesizer:
    """Return an engine in this process, without HTTP and Ray, with one thread as a replica of the server has."""
    from flowtts_core.engines.flow import FlowSynthesizer

    return FlowSynthesizer.load(threads=1)


def _first(url: str) -> dict[str, Any]:
    """Measure the first sound for one user, of server and bare engine in turns, since the machine's other load changes."""
    from jobs.benchmarks.engine import first_sounds

    synthesizer, texts = _bare_engine(), _twelve_words(FIRSTS)
    loads, bare = [], []
    for start in range(0, FIRSTS, FIRSTS // TURNS):
        turn = texts[start : start + FIRSTS // TURNS]
        loads.append(one_by_one(url, turn))
        bare += first_sounds(synthesizer, [text for _, text in turn])
    return {**summed_loads(loads), "bare_first_s": percentiles(bare)}


def _goodput(url: str, seconds: float, say: Say) -> dict[str, Any]:
    """Measure the throughput of the saturated server, and of the bare engine, in turns."""
    from jobs.benchmarks.engine import goodput

    synthesizer, loads = _bare_engine(), []
    bare: list[float] = []
    for turn in range(1, TURNS + 1):
        loads.append(_for_seconds(url, USERS, seconds / TURNS))
        bare.append(goodput(synthesizer, 1, USERS, seconds / TURNS))
        say(f"goodput: turn {turn} of {TURNS}, {summed(loads[-1])['goodput']:.1f} s of sound a second; "
            f"bare {bare[-1]:.1f}")  # fmt: skip
    return {**summed_loads(loads), "bare": statistics.fmean(bare)}


def _for_seconds(url: str, users: int, seconds: float) -> list[Answered]:
    """Send mixed texts in a closed loop for so many seconds."""
    until = time.perf_counter() + seconds

    def while_time() -> Iterator[tuple[str, str]]:
        for text in mixed_texts(100_000):
            if time.perf_counter() >= until:
                return
            yield text

    return at_once(url, while_time(), users)


def _overload(url: str, seconds: float, say: Say) -> dict[str, Any]:
    """Send half as many requests as can be answered, then three times as many. Accepted ones must not become slower."""
    saturated = summed(_for_seconds(url, USERS, min(seconds, 20)))
    capacity = saturated["good"] / max(saturated["seconds"], 1e-9)
    say(f"capacity: {capacity:.1f} requests a second")
    calm = summed(as_they_come(url, mixed_texts(2000, seed=1), 0.5 * capacity, seconds))
    flooded = summed(as_they_come(url, mixed_texts(2000, seed=2), 3 * capacity, seconds))
    after = summed(one_by_one(url, _twelve_words(20)))
    return {"capacity_per_s": capacity, "calm": calm, "flooded": flooded, "after": after}


def _killed(seconds: float, say: Say) -> dict[str, Any]:
    """Load a server of two replicas and kill one every few seconds. A request may wait for a new one but must not be lost."""
    stop, kills = threading.Event(), []
    with _server(say, replicas=2) as (url, pid):
        one_by_one(url, _twelve_words(8))

        def kill() -> None:
            while not stop.wait(KILL_EVERY_S):
                for speaker in _speakers(pid)[:1]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(speaker, signal.SIGKILL)
                        kills.append(speaker)

        thread = threading.Thread(target=kill)
        thread.start()
        try:
            answers = _for_seconds(url, KILLED_USERS, seconds)
        finally:
            stop.set()
            thread.join()
    return {**summed(answers), "kills": len(kills)}


def _memory(url: str, pid: int, requests: int, say: Say) -> dict[str, Any]:
    """Measure the idle memory of the server's processes after each tenth of the requests; the first is the warm-up."""
    texts, marks = mixed_texts(requests, seed=4), []
    step = max(1, requests // 10)
    for start in range(0, requests, step):
        answers = at_once(url, texts[start : start + step], 4)
        if not all(answer.good for answer in answers):
            raise FlowTTSError(f"requests failed while memory was measured: {summed(answers)['errors']}")
        time.sleep(SETTLE_S)
        marks.append(memory_mib(pid, OWN))
        say(f"memory: {start + len(answers):,} of {requests:,} requests, {marks[-1]:.0f} MiB")
    # the last mark or the mean of the last three: a chance dip at the end must not hide growth
    return {"requests": requests, "mib": marks, "growth": max(marks[-1], sum(marks[-3:]) / 3) / marks[0] - 1}


def _bars(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the name, value, bar, and whether it is met, of each figure that was measured."""
    found: list[tuple[str, float, str, bool]] = []
    if first := figures.get("first"):
        p50, p99, added = (
            first["first_s"]["p50"],
            first["first_s"]["p99"],
            first["first_s"]["p50"] - first["bare_first_s"]["p50"],
        )
        found += [
            ("first sound of 12 words, p50, ms", 1e3 * p50, "80", p50 <= 0.08),
            ("the same, p99, ms", 1e3 * p99, "200", p99 <= 0.2),
            ("added by HTTP and Serve, p50, ms", 1e3 * added, "8", added <= 0.008),
        ]
    if goodput := figures.get("goodput"):
        share = goodput["goodput"] / goodput["bare"]
        found.append(("of the bare engine", share, "0.85", share >= 0.85))
    if overload := figures.get("overload"):
        times = overload["flooded"]["first_s"]["p99"] / overload["calm"]["first_s"]["p99"]
        lost = overload["flooded"]["lost_before_sound"] + overload["flooded"]["cut_in_sound"]
        found += [("p99 under 3 times the load", times, "3", times <= 3), ("lost under it", lost, "0", lost == 0)]
    if killed := figures.get("killed"):
        found.append(
            ("lost before sound, speakers killed", killed["lost_before_sound"], "0", not killed["lost_before_sound"])
        )
    if memory := figures.get("memory"):
        found.append(("memory's growth", memory["growth"], "0.05", memory["growth"] <= 0.05))
    return [{"name": name, "value": value, "bar": bar, "met": met} for name, value, bar, met in found]


def page(figures: dict[str, Any]) -> str:
    """Return the figures as text."""
    machine, lines = figures["machine"], []
    lines.append(f"{machine.get('processor')}, {machine.get('cores')} cores, load before {figures['load_before']:.1f}; "
                 "the load shares the cores with the server")  # fmt: skip
    for part in ("first", "goodput", "killed"):
        if part in figures:
            lines.append(f"{part}: {_told(figures[part])}")
    for name in ("calm", "flooded", "after"):
        if "overload" in figures:
            lines.append(f"overload, {name}: {_told(figures['overload'][name])}")
    if first := figures.get("first"):
        lines.append(f"bare engine: first sound, ms: {_milliseconds(first['bare_first_s'])}")
    if goodput := figures.get("goodput"):
        lines.append(f"bare engine: {goodput['bare']:.1f} s of sound a second")
    if memory := figures.get("memory"):
        lines.append(f"memory, MiB after each tenth of {memory['requests']}: {[round(mib) for mib in memory['mib']]}")
    lines += [
        f"{b['name']}: {b['value']:.4g} (bar {b['bar']}) {'met' if b['met'] else 'NOT MET'}" for b in figures["bars"]
    ]
    return "\n".join(lines)


def _told(found: dict[str, Any]) -> str:
    times = _milliseconds(found["first_s"] or {})
    kinds = "; ".join(
        f"{k} p50 {1e3 * found['first_s_by_kind'][k]['p50']:.0f}" for k, _ in MIX if found["first_s_by_kind"][k]
    )
    kills = f", {found['kills']} speakers killed" if "kills" in found else ""
    return (
        f"{found['good']} of {found['requests']} good, {found['refused']} refused, {found['lost_before_sound']} lost before "
        f"sound, {found['cut_in_sound']} cut{kills}; first sound, ms: {times} ({kinds}); "
        f"{found['goodput']:.1f} s of sound a second; {found['errors'] or 'no errors'}"
    )


def _milliseconds(seconds: dict[str, float]) -> str:
    return ", ".join(f"{name} {1e3 * value:.0f}" for name, value in seconds.items())


# --- a server of our own ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _server(say: Say, replicas: int = 1) -> Iterator[tuple[str, int]]:
    """Start `flowtts serve` without its cache. Yield its URL and process."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    say("starting the server")
    command = [sys.executable, "-m", "jobs.cli", "serve", "--port", str(port), "--no-cache", "--voice", FLOW_VOICE]
    command += ["--replicas", str(replicas)]
    root = Path(__file__).resolve().parents[2]
    server = subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    url, until = f"http://127.0.0.1:{port}", time.perf_counter() + START_S
    try:
        while not _ready(url):
            if server.poll() is not None:
                assert server.stderr is not None
                raise FlowTTSError(f"the server ended: {server.stderr.read()[-500:]}")
            if time.perf_counter() > until:
                raise FlowTTSError(f"the server was not ready in {START_S:.0f} s", "is the machine overloaded?")
            time.sleep(0.5)
        yield url, server.pid
    finally:
        server.terminate()  # not SIGINT: processes in a shell's background ignore it
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _processes(pid: int) -> dict[int, str]:
    """Return the command lines of a process and its descendants, by process id (Linux)."""
    parents, names = {}, {}
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            if folder.name.isdigit():
                stat = (folder / "stat").read_text()
                parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
                names[int(folder.name)] = (
                    (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
    found, grown = {pid}, True
    while grown:
        more = {child for child, parent in parents.items() if parent in found} - found
        found |= more
        grown = bool(more)
    return {number: names.get(number, "") for number in found}


def _speakers(pid: int) -> list[int]:
    return sorted(number for number, name in _processes(pid).items() if "ServeReplica:flowtts:Speaker" in name)


def memory_mib(pid: int, kinds: Sequence[str] = ("Pss:",)) -> float:
    """Return the memory of its processes of these kinds, shared pages divided (PSS)."""
    total = 0
    for number in _processes(pid):
        with contextlib.suppress(OSError):
            lines = (Path("/proc") / str(number) / "smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith(tuple(kinds)))
    return total / 1024
