"""Work through stages of processes by Ray Data: a task in, its result out as it is finished, errors as what they were.

A stage is a pool of actors (what must be loaded once: a voice, a judge) or of plain tasks. What stands between two stages is a
parcel: the task as JSON and an Arrow table. A task must be safe to do again: whatever dies on the way, it is.
"""

from __future__ import annotations

import gc
import json
import queue
import threading
import time
import types
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa

from cluster.resources import Resources
from cluster.scheduling import take_long_turns
from cluster.session import SessionInfo, helpers_stand_back, root_cause, session
from flowtts_core import errors
from flowtts_core.errors import ConfigError, FlowTTSError
from flowtts_core.memory import release_memory

Task = dict[str, Any]  # of JSON values, as its result is
Work = Callable[[Task], Task]
StageWork = Callable[[Task, "pa.Table | None"], "tuple[Task, pa.Table | None]"]

WAVE = (
    4096  # tasks that Ray Data is given at once: the driver's memory and its start-up stay small however many there are
)
STRIKES = 3  # failures of the cluster in a row, none of them after any progress, before the job gives up
_LOOK_EVERY_S = 1.0
_STOP_S = 20.0  # that the thread which fetches results may take to end
_STUCK_S = 40.0  # that actors may wait for room while nothing is finished, before the pools are made anew
_ROUNDS_S = (0.1, 0.5)  # that Ray Data waits for tasks between its rounds: its own choice, and the longest of ours
_FEW = 4  # results that say nothing yet of how often they come
_RELEASE_EVERY_S = (
    60.0  # freed memory is handed back, so that a long job stays flat; what is handed back is entered again
)
_IN_FLIGHT = (
    2  # tasks given to an actor at once: the next is at hand when one is done, and few are redone after a death
)


@dataclass(frozen=True)
class Stage:
    """One kind of work.

    Only one stage of a job may take CPUs in Ray's books. Two that do can wait for each other for ever once a node is lost: idle
    actors of the one hold the cores that the other needs to make their input, and Ray Data takes no core from an idle actor.

    Attributes:
        make: makes what does it; called once in each process.
        pool: fewest and most processes.
        actors: keep the processes for the whole job (what is costly to make); else plain tasks, at most `pool[1]` at once.
        takes: what each process takes in Ray's books.
    """

    name: str
    make: Callable[[], StageWork]
    pool: tuple[int, int] = (1, 1)
    actors: bool = True
    takes: Resources = Resources(cpus=0)


@dataclass(frozen=True)
class Patience:
    """When a job that makes no progress is begun anew: after `stall_s` seconds without any task finished."""

    stall_s: float = 1800.0
    told: Callable[[str], None] = lambda what: None


class Stalled(Exception):
    """Nothing was finished for too long."""


def run_stages(
    stages: Sequence[Stage],
    tasks: Sequence[Task],
    *,
    address: str | None,
    cpus: int,
    patience: Patience | None = None,
) -> Iterator[Task]:
    """Do the tasks, stage after stage; yields each result as it is there, in no fixed order.

    When the cluster fails (a node is lost, actors wait for room that is gone, nothing moves), what is not finished is begun anew
    with the machines that are there: a dead actor's tasks otherwise wait for ever for a restart that has no room.

    Args:
        address: of a Ray cluster; None starts a private one with room for `cpus` one-core actors.

    Raises:
        ConfigError: where the cluster cannot be reached, or has no GPU for an actor.
        FlowTTSError: what the work raised, or that the cluster failed `STRIKES` times without any progress.
    """
    patience = patience or Patience()
    left, strikes = dict(enumerate(tasks)), 0
    while left:
        wave, before = dict(islice(left.items(), WAVE)), len(left)
        try:
            with session(address, cpus) as info:
                for key, result in _stream(stages, wave, info, patience):
                    if left.pop(key, None) is not None:  # a task that was done twice counts once
                        yield result
        except FlowTTSError:
            raise
        except Exception as error:
            cause = root_cause(error)
            if not _clusters(error):  # a fault of this program: its innermost cause says most
                raise cause from error
            strikes = 0 if len(left) < before else strikes + 1
            if strikes >= STRIKES:
                raise FlowTTSError(
                    f"the cluster failed {strikes} times without progress: {type(cause).__name__}: {cause}"[:2000],
                    "is there memory and room enough? run the same command again: finished work is kept",
                ) from error
            patience.told(
                f"begun anew with {len(left)} tasks left: {type(cause).__name__}: {str(cause).splitlines()[0]}"[:300]
            )


def run_tasks(
    make: Callable[[], Work], tasks: Sequence[Task], *, address: str | None, workers: int, gpus: float = 0
) -> Iterator[Task]:
    """Do the tasks on a pool of one-core actors: `run_stages` with a single stage.

    Args:
        make: makes what does the tasks; it travels to the actors by pickle.
        gpus: of a GPU that each actor takes.
    """
    workers = max(1, min(workers, len(tasks)))
    stage = Stage("work", _MakePlain(make), (workers, workers), takes=Resources(gpus=gpus))
    return run_stages([stage], tasks, address=address, cpus=workers)


@dataclass(frozen=True)
class _MakePlain:
    """From work on tasks alone to work on parcels."""

    make: Callable[[], Work]

    def __call__(self) -> StageWork:
        work = self.make()
        return lambda task, table: (work(task), None)


class Worker:
    """A process of a stage: makes its work once, then does one parcel after another.

    Args:
        make: returns what does a task; called in the worker's process.
    """

    def __init__(self, make: Callable[[], StageWork]) -> None:
        take_long_turns()
        self._problem: Exception | None = None
        self._released = time.monotonic()
        try:
            self._work = make()
        except Exception as error:  # Ray would start the actor again and again; raised from a call it ends the job
            self._problem = error
        gc.collect()
        gc.freeze()  # of a worker's objects nearly all are its models' and libraries', which every collection would walk through

    def __call__(self, batch: pa.Table) -> pa.Table:
        parcels = [self._parcel(row) for row in batch.to_pylist()]
        if time.monotonic() - self._released > _RELEASE_EVERY_S:
            release_memory()
            self._released = time.monotonic()
        return pa.Table.from_pylist(parcels, schema=_PARCEL)

    def _parcel(self, row: dict[str, Any]) -> dict[str, Any]:
        """The result, or our own error, as a row: what Ray makes of a raised one has lost what a user can read."""
        if row.get("error"):
            return row
        try:
            if self._problem is not None:
                raise self._problem
            task, table = self._work(json.loads(row["task"]), _table(row.get("table")))
            return {"key": row["key"], "task": json.dumps(task), "table": _bytes(table), "error": None}
        except FlowTTSError as error:
            told = {"kind": type(error).__name__, "message": error.message, "remedy": error.remedy}
            return {"key": row["key"], "task": None, "table": None, "error": json.dumps(told)}


# A parcel is one row, whatever its size: Ray Data cuts a block that grows too large between rows.
_PARCEL = pa.schema([("key", pa.int64()), ("task", pa.string()), ("table", pa.large_binary()), ("error", pa.string())])
_workers: dict[str, Worker] = {}  # of the stages of plain tasks, in the processes that have done any


def _in_task(batch: pa.Table, name: str, make: Callable[[], StageWork]) -> pa.Table:
    if name not in _workers:
        _workers[name] = Worker(make)
    return _workers[name](batch)


def _table(data: bytes | None) -> pa.Table | None:
    return None if data is None else pa.ipc.open_stream(pa.py_buffer(data)).read_all()


def _bytes(table: pa.Table | None) -> bytes | None:
    if table is None:
        return None
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _stream(
    stages: Sequence[Stage], tasks: dict[int, Task], info: SessionInfo, patience: Patience
) -> Iterator[tuple[int, Task]]:
    """(key, result) of each task; raises `Stalled` where nothing moves any more."""
    dataset = _dataset(stages, tasks, info)
    found: queue.Queue[Any] = queue.Queue()
    pump = threading.Thread(target=_pump, args=(dataset, found), daemon=True, name="results")
    pump.start()
    try:
        yield from _results(found, patience, info.embedded)
    finally:  # before Ray goes: its core dies, and this process with it, when a thread is still asking it for results
        _stop(dataset)
        pump.join(_STOP_S)
        _set_rounds(None)


def _stop(dataset: Any) -> None:
    """Let go of what a dataset is still at work on; nothing where it has ended.

    Plain tasks are not cancelled, they end with the session: where one is just done as it is cancelled, Ray's core ends this
    process (2.60: "Tried to complete task that was not pending"), and with it what the job had to say.
    """
    executor: Any = getattr(dataset, "_current_executor", None)
    if executor is None:
        return
    with suppress(ImportError):  # an inner name of Ray's
        from ray.data._internal.execution.operators.task_pool_map_operator import TaskPoolMapOperator

        operator: Any
        for operator in getattr(executor, "_topology", None) or ():
            if isinstance(operator, TaskPoolMapOperator):
                operator.__dict__["_cancel_active_tasks"] = _left_alone
    with suppress(Exception):
        executor.shutdown(force=True)


def _left_alone(force: bool) -> None:
    """In place of cancelling."""


def _results(found: queue.Queue[Any], patience: Patience, embedded: bool) -> Iterator[tuple[int, Task]]:
    began = last = time.monotonic()
    watch, done, at_work = _Watch(), 0, False
    while True:
        try:
            what = found.get(timeout=_LOOK_EVERY_S)
        except queue.Empty:
            idle = time.monotonic() - last
            if idle > patience.stall_s:
                raise Stalled(f"no task was finished for {idle:.0f} s") from None
            watch.look(idle)
            continue
        if what is None:
            return
        if isinstance(what, BaseException):
            raise what
        last = time.monotonic()
        watch.moved()
        for row in what.to_pylist():
            if row["error"]:
                told = json.loads(row["error"])
                raise getattr(errors, told["kind"], FlowTTSError)(told["message"], told["remedy"])
            done += 1
            yield row["key"], json.loads(row["task"])
        if done >= _FEW:
            _set_rounds((last - began) / done)
            if embedded and not at_work:
                helpers_stand_back()
                at_work = True


def _set_rounds(task_s: float | None) -> None:
    """Let Ray Data look for finished tasks as often as they come, one in `task_s` seconds, and no more often; None: as it would.

    Each round is some 4 ms of Python, whatever there is to do: ten in a second took 4 % of a core from those who speak. Its
    looking for results to hand on, 100 times a second, took 0.7 %, and the core each time.
    """
    from ray.data._internal.execution import streaming_executor_state  # Ray has no setting for either

    inner: Any = streaming_executor_state
    least, most = _ROUNDS_S
    round_s = min(most, max(least, (task_s or 0.0) / 10))
    inner.WAIT_FOR_TASK_COMPLETION_TIMEOUT_S = round_s
    rare: Any = types.SimpleNamespace(time=time.time, sleep=lambda seconds: time.sleep(max(seconds, round_s / 2)))
    inner.time = time if task_s is None else rare


def _dataset(stages: Sequence[Stage], tasks: dict[int, Task], info: SessionInfo) -> Any:
    import ray.data

    assert sum(stage.takes.cpus > 0 for stage in stages) <= 1
    # A node that dies while an actor is being made would end the job; our own errors on loading come as results.
    ray.data.DataContext.get_current().max_consecutive_actor_init_deaths = 3
    rows = [{"key": key, "task": json.dumps(task), "table": None, "error": None} for key, task in tasks.items()]
    dataset: Any = ray.data.from_arrow([pa.Table.from_pylist([row], schema=_PARCEL) for row in rows])
    run = uuid.uuid4().hex
    for stage in stages:
        options = {"batch_size": 1, "batch_format": "pyarrow", "zero_copy_batch": True, **stage.takes.options()}
        least, most = _sized(stage, info, len(tasks))
        if not stage.actors:
            arguments = {"name": f"{run}-{stage.name}", "make": stage.make}
            at_once = ray.data.TaskPoolStrategy(size=most)
            dataset = dataset.map_batches(_in_task, fn_kwargs=arguments, compute=at_once, **options)
            continue
        pool = ray.data.ActorPoolStrategy(min_size=least, max_size=most, max_tasks_in_flight_per_actor=_IN_FLIGHT)
        dataset = dataset.map_batches(Worker, fn_constructor_kwargs={"make": stage.make}, compute=pool, **options)
    return dataset


def _sized(stage: Stage, info: SessionInfo, tasks: int) -> tuple[int, int]:
    """Fewest and most actors: no more than there are tasks, and at first no more than there is room for.

    On a cluster that is not ours alone machines may come while the job runs: there Ray Data adds actors as room appears.
    """
    takes = stage.takes
    if takes.gpus and info.gpus < takes.gpus:
        raise ConfigError("--device cuda: Ray sees no GPU", "flowtts doctor says what this machine has")
    # one that takes no core in Ray's books needs one all the same
    room = (takes if takes.cpus else Resources()).room(info.nodes)
    if not room and takes.memory:
        largest = max((node.get("memory", 0) for node in info.nodes), default=0) / 2**30
        raise ConfigError(
            f"a worker takes {takes.memory / 2**30:g} GiB beside a core{' and its GPU' if takes.gpus else ''}, no node has room: "
            f"the most that Ray may give is {largest:.1f} GiB",
            "less --worker-memory, another --profile, or larger nodes",
        )
    most = min(stage.pool[1], tasks) if takes.cpus and not info.embedded else min(stage.pool[1], tasks, room)
    return max(1, min(stage.pool[0], most, room)), max(1, most)


def _pump(dataset: Any, found: queue.Queue[Any]) -> None:
    """Hands on what the stages make, so that whoever waits for it can also watch the clock."""
    try:
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            found.put(batch)
        found.put(None)
    except BaseException as error:
        found.put(error)


class _Watch:
    """Sees that actors wait for room which the cluster no longer has: a dead actor's tasks wait for its restart, for ever."""

    def __init__(self) -> None:
        self._since: float | None = None

    def moved(self) -> None:
        self._since = None

    def look(self, idle: float) -> None:
        """Raise `Stalled` when actors have waited for room, and nothing has moved, for too long."""
        if idle < _STUCK_S / 2 or not (_room_is_wanted() and _actors_restart()):
            self._since = None
            return
        self._since = self._since or time.monotonic()
        if time.monotonic() - self._since > _STUCK_S / 2:
            raise Stalled("a lost actor waits for room that the cluster no longer has")


def _actors_restart() -> bool:
    try:
        from ray._private import state

        return any(actor.get("State") == "RESTARTING" for actor in state.actors().values())
    except Exception:  # an inner interface: without it the plain time limit still holds
        return False


def _room_is_wanted() -> bool:
    """Whether something waits for resources; an actor that is merely slow to start has been given its own already."""
    try:
        from ray._private.worker import global_worker
        from ray.autoscaler.v2.sdk import get_cluster_resource_state

        inner: Any = global_worker
        return bool(get_cluster_resource_state(inner.gcs_client).pending_resource_requests)
    except Exception:
        return False


def _clusters(error: BaseException) -> bool:
    """Whether machines failed, and not the work itself."""
    from ray import exceptions as ray_errors

    kinds: tuple[type[BaseException], ...] = (
        Stalled,
        ConnectionError,
        ray_errors.RayActorError,
        ray_errors.WorkerCrashedError,
        ray_errors.NodeDiedError,
        ray_errors.ObjectLostError,
        ray_errors.OutOfMemoryError,
        ray_errors.OwnerDiedError,
        ray_errors.LocalRayletDiedError,
        ray_errors.RaySystemError,
    )
    return isinstance(error, kinds) or isinstance(root_cause(error), kinds)
