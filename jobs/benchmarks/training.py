"""Measure what lost workers cost a training: the same run undisturbed, and with a worker killed again and again."""

from __future__ import annotations

import json
import os
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from cluster.machine import describe
from flowtts_core.errors import ConfigError
from flowtts_core.training.checkpoints import checkpoint_steps, load_newest
from flowtts_core.training.log import LOG
from jobs.train import train
from jobs.training.recipes import Recipe
from jobs.training.run import TrainingRun, open_run, read_progress, runs_of
from jobs.training.starts import Start, read_starts

_POLL_S = 0.2
_LAST = 20  # logged losses whose mean stands for the end


@dataclass(frozen=True)
class Kill:
    """A killed worker: when (seconds since 1970), at which step, and the newest checkpoint then."""

    time: float
    step: int
    checkpoint: int


def compare(
    data: str, recipe: Recipe, workers: int, every: float, keep: Path | None, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Return both runs' ends, and what each kill cost.

    Raises:
        ConfigError: where the run was over before the first kill.
    """
    with tempfile.TemporaryDirectory() as folder:
        base = keep or Path(folder)
        progress(f"{recipe.name}, {recipe.trainer.steps} steps by {workers} workers, left alone")
        alone = _run(data, base / "alone", recipe, workers, None)
        progress(f"the same with a worker killed every {every:g} s")
        killed = _run(data, base / "killed", recipe, workers, every)
        losses = {name: _losses(run["run"]) for name, run in (("alone", alone), ("killed", killed))}
        apart = [abs(losses["killed"][step] - loss) for step, loss in losses["alone"].items()]
        figures = {
            "benchmark": "training", "machine": describe(), "recipe": recipe.name, "steps": recipe.trainer.steps,
            "workers": workers, "every_s": every, "checkpoint_every": recipe.trainer.checkpoint_every,
            "alone": alone, "killed": killed,
            "loss": {name: statistics.fmean(list(of.values())[-_LAST:]) for name, of in losses.items()},
            "steps_logged": len(apart), "loss_apart_most": max(apart), "weights_apart_most": _apart(alone, killed),
        }  # fmt: skip
    if not killed["kills"]:
        raise ConfigError("the run was over before the first kill", "give more --steps, or less --every")
    return figures


def _run(data: str, output: Path, recipe: Recipe, workers: int, every: float | None) -> dict[str, Any]:
    this = open_run(runs_of(output), data, recipe)
    killer = Killer(this, every, output.with_name(f"{output.name}-kills.json"))
    with killer:
        trained = train(data, output, recipe, workers=workers, device="cpu", quiet=True)
    return {
        "run": trained.run, "wall_s": trained.wall_s, "from_step": trained.resumed_from, "starts": trained.starts,
        "kills": [asdict(kill) for kill in killer.kills], "lost": lost_steps(killer.kills, read_starts(this.files)),
        "restart_s": _restarts(killer.kills, read_starts(this.files)),
    }  # fmt: skip


class Killer:
    """Kills another worker of this process's Ray every so many seconds, in a thread.

    It writes the kills to a file, so that a benchmark that was interrupted knows them when it goes on.
    """

    def __init__(self, this: TrainingRun, every: float | None, notes: Path) -> None:
        self._this, self._every, self._notes, self._over = this, every, notes, threading.Event()
        self.kills = [Kill(**kill) for kill in json.loads(notes.read_text())] if notes.exists() else list[Kill]()
        self._thread = threading.Thread(target=self._kill, daemon=True)

    def __enter__(self) -> None:
        if self._every is not None:
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._every is not None:
            self._thread.join()

    def _kill(self) -> None:
        assert self._every is not None
        while not read_progress(self._this):  # the first step ends the start
            if self._over.wait(_POLL_S):
                return
        due = time.monotonic() + self._every
        while not self._over.wait(_POLL_S):
            workers = worker_processes()
            if time.monotonic() < due or not workers:
                continue
            due = time.monotonic() + self._every
            step, checkpoint = int(read_progress(self._this)["step"]), (checkpoint_steps(self._this.files) or [0])[-1]
            os.kill(workers[len(self.kills) % len(workers)], signal.SIGKILL)
            self.kills.append(Kill(time.time(), step, checkpoint))
            self._notes.write_text(json.dumps([asdict(kill) for kill in self.kills]))


def worker_processes() -> list[int]:
    """Return the process ids of this process's training workers, in the order of their start."""
    import ray  # noqa: F401  # brings psutil
    from psutil import Error, Process

    found = []
    for process in Process().children(recursive=True):
        try:
            if any("RayTrainWorker" in word for word in process.cmdline()[:1]):
                found.append((process.create_time(), process.pid))
        except Error:  # it has ended meanwhile
            continue
    return [pid for _, pid in sorted(found)]


def lost_steps(kills: list[Kill], starts: list[Start]) -> list[dict[str, int]]:
    """Return for each kill its step, the newest checkpoint then, and the step from which the next start went on."""
    lost = []
    for kill in kills:
        after = next((start for start in starts if start.time > kill.time), None)
        if after is not None:  # else the run was over
            lost.append({"at": kill.step, "checkpoint": kill.checkpoint, "resumed": after.step})
    return lost


def _restarts(kills: list[Kill], starts: list[Start]) -> list[float]:
    """Return the seconds from each kill until the workers began again."""
    return [
        round(next(start.time for start in starts if start.time > kill.time) - kill.time, 1)
        for kill in kills
        if any(start.time > kill.time for start in starts)
    ]


def _losses(run: str) -> dict[int, float]:
    lines = [json.loads(line) for line in Path(run, LOG).read_text(encoding="utf-8").splitlines()]
    if any(a["step"] >= b["step"] for a, b in pairwise(lines)):
        raise ConfigError(f"{run}: a step stands twice in the log", "this is an error of ours: please report it")
    return {line["step"]: next(v for k, v in line.items() if k.endswith("/loss")) for line in lines}


def _apart(alone: dict[str, Any], killed: dict[str, Any]) -> float:
    """Return the largest difference of any averaged weight."""
    first, second = (load_newest(Path(run["run"])) for run in (alone, killed))
    assert first is not None and second is not None
    return max(float((first["ema"][name] - second["ema"][name]).abs().max()) for name in first["ema"])


def page(figures: dict[str, Any]) -> str:
    """Return the figures as text."""
    alone, killed, loss = figures["alone"], figures["killed"], figures["loss"]
    backwards = [lost["checkpoint"] - lost["resumed"] for lost in killed["lost"]]
    redone = [lost["at"] - lost["resumed"] for lost in killed["lost"]]
    machine = figures["machine"]
    return "\n".join([
        f"{figures['recipe']}, {figures['steps']} steps, {figures['workers']} workers, a checkpoint every"
        f" {figures['checkpoint_every']} steps; {machine.get('processor')}, {machine.get('cores')} cores",
        f"left alone:  {alone['wall_s']:7.1f} s from step {alone['from_step']}, loss {loss['alone']:.6f}",
        f"killed {len(killed['kills'])} times: {killed['wall_s']:7.1f} s from step {killed['from_step']},"
        f" loss {loss['killed']:.6f}",
        f"loss of {figures['steps_logged']} logged steps apart by at most {figures['loss_apart_most']:.2e},"
        f" averaged weights by {figures['weights_apart_most']:.2e}",
        f"steps lost beyond the last checkpoint: {max([0, *backwards])}; steps redone after a kill: {redone}",
        f"seconds from a kill to the next start: {killed['restart_s']}",
    ])  # fmt: skip
