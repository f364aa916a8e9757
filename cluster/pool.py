"""Run tasks through stages of worker processes by Ray Data; results come back as they are finished.

Ray's driver runs in a process of its own, `cluster/driver.py`, and a pipe leads to it. So a job can be ended at any moment by
ending that process, what Ray prints stays out of our standard output, and a crash of Ray's core costs a new start, not the job:
the core ends its whole process where a task finishes just as it is cancelled ("Tried to complete task that was not pending",
task_manager.cc; ray-project/ray#54527, #54798).

A task must be safe to do again: whatever dies on the way, the task is repeated.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import cloudpickle

from cluster.resources import Resources
from cluster.storage import chosen_store
from flowtts_core import errors
from flowtts_core.errors import FlowTTSError

if TYPE_CHECKING:
    import pyarrow as pa

Task = dict[str, Any]  # of JSON values, as its result is
Work = Callable[[Task], Task]
StageWork = Callable[[Task, "pa.Table | None"], "tuple[Task, pa.Table | None]"]

WAVE = 4096  # tasks that Ray Data gets at once, so that memory and start-up time stay small however many there are
STRIKES = 3  # failures of the cluster in a row, without progress in between, before the job gives up
_LOOK_EVERY_S = 1.0
_END_S = 15.0  # time that a driver has to end by itself


@dataclass(frozen=True)
class Stage:
    """One kind of work, done by a pool of actors.

    Only one stage of a job may take CPUs in Ray's books. Two that do can wait for each other for ever once a node is lost: idle
    actors of the one hold the cores that the other needs to make their input, and Ray Data takes no core from an idle actor.

    Attributes:
        make: Makes what does the work; called once in each process.
        pool: Fewest and most processes.
        takes: What each process takes in Ray's books.
    """

    name: str
    make: Callable[[], StageWork]
    pool: tuple[int, int] = (1, 1)
    takes: Resources = Resources(cpus=0)


@dataclass(frozen=True)
class Patience:
    """When to start anew a job that makes no progress: after `stall_s` seconds without a finished task."""

    stall_s: float = 1800.0
    told: Callable[[str], None] = lambda what: None


class ClusterFailure(Exception):
    """Machines or Ray failed, not the work: start anew."""


def run_stages(
    stages: Sequence[Stage],
    tasks: Sequence[Task],
    *,
    address: str | None,
    cpus: int,
    patience: Patience | None = None,
) -> Iterator[Task]:
    """Do the tasks, stage after stage; yield each result as soon as it is there, in no fixed order.

    When the cluster fails (a node is lost, nothing moves, Ray crashes), unfinished tasks start anew on what machines are left.

    Args:
        address: Of a Ray cluster; None starts a private one with room for `cpus` one-core actors.

    Raises:
        ConfigError: The cluster cannot be reached, or has no GPU for an actor.
        FlowTTSError: What the work raised, or that the cluster failed `STRIKES` times without progress.
        RuntimeError: The work failed with an error that is not ours; its traceback is in the notes.
    """
    patience = patience or Patience()
    left, strikes = dict(enumerate(tasks)), 0
    while left:
        wave, before = dict(islice(left.items(), WAVE)), len(left)
        driver = _early_or_new(address, cpus)
        try:
            for key, result in driver.results(stages, wave, patience.stall_s):
                if left.pop(key, None) is not None:  # a task that was done twice counts once
                    yield result
        except ClusterFailure as failure:
            strikes = 0 if len(left) < before else strikes + 1
            if strikes >= STRIKES:
                raise FlowTTSError(
                    f"the cluster failed {strikes} times without progress: {failure}"[:2000],
                    "is there memory and room enough? run the same command again: finished work is kept",
                ) from failure
            patience.told(f"begun anew with {len(left)} tasks left: {str(failure).splitlines()[0]}"[:300])
        finally:
            driver.end()


def run_tasks(
    make: Callable[[], Work], tasks: Sequence[Task], *, address: str | None, workers: int, gpus: float = 0
) -> Iterator[Task]:
    """Do the tasks on a pool of one-core actors: `run_stages` with a single stage.

    Args:
        make: Makes what does the tasks; it travels to the actors by pickle.
        gpus: Part of a GPU that each actor takes.
    """
    workers = max(1, min(workers, len(tasks)))
    stage = Stage("work", _MakePlain(make), (workers, workers), Resources(gpus=gpus))
    return run_stages([stage], tasks, address=address, cpus=workers)


@dataclass(frozen=True)
class _MakePlain:
    """Makes stage work of work that knows tasks alone."""

    make: Callable[[], Work]

    def __call__(self) -> StageWork:
        work = self.make()
        return lambda task, table: (work(task), None)


class Driver:
    """The process that is Ray's driver, from its start to `end`; it ends by itself when this process does."""

    def __init__(self, address: str | None, cpus: int) -> None:
        self.serves = address, cpus
        self._pipe, other = multiprocessing.Pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from cluster.driver import main; main()", str(other.fileno())],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # Ray prints each death of a worker there, where --json writes
            stderr=subprocess.DEVNULL,  # Ray's own notes would tear the progress line; its log files have them
            pass_fds=[other.fileno()],
            start_new_session=True,  # so that Ctrl-C in a terminal reaches us alone
        )
        other.close()
        self._pipe.send((address, cpus, dict(chosen_store)))

    def results(self, stages: Sequence[Stage], tasks: dict[int, Task], stall_s: float) -> Iterator[tuple[int, Task]]:
        """Yield (key, result) of each task.

        Raises:
            ClusterFailure: Also after `stall_s` seconds without a result.
            FlowTTSError, RuntimeError: As `run_stages`.
        """
        last = time.monotonic()
        try:
            self._pipe.send_bytes(cloudpickle.dumps((list(stages), tasks)))
            while True:
                while not self._pipe.poll(_LOOK_EVERY_S):
                    if time.monotonic() - last > stall_s:
                        raise ClusterFailure(f"no task was finished for {stall_s:.0f} s")
                kind, value = json.loads(self._pipe.recv_bytes())
                if kind == "done":
                    return
                if kind != "result":
                    _raise(kind, value)
                last = time.monotonic()
                yield value[0], value[1]
        except (EOFError, ConnectionError) as error:
            raise ClusterFailure("Ray's driver crashed") from error

    def end(self) -> None:
        """End the process, which stops what is under way and shuts Ray down when its pipe is closed."""
        self._pipe.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        self._process.kill()
        self._process.wait()


def _raise(kind: str, value: list[str]) -> None:
    if kind == "error":
        name, message, remedy = value
        raise getattr(errors, name, FlowTTSError)(message, remedy)
    if kind == "lost":
        raise ClusterFailure(value[0])
    error = RuntimeError(value[0])
    error.add_note(value[1])
    raise error


_early: list[Driver] = []  # at most one


def start_early(workers: int) -> None:
    """Start the driver of a private Ray while the caller is busy; the next `run_stages` with as many `cpus` takes it over.

    Ray needs some ten seconds to start. `stop_early` ends a driver that nobody has taken.
    """
    if not _early:
        _early.append(Driver(None, workers))


def stop_early() -> None:
    while _early:
        _early.pop().end()


def _early_or_new(address: str | None, cpus: int) -> Driver:
    if _early and _early[0].serves == (address, cpus):
        return _early.pop()
    stop_early()
    return Driver(address, cpus)
