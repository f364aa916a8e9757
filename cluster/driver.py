"""Ray's driver: the process between a job (`cluster/pool.py`) and the actors of its stages, which Ray Data keeps at work.

What travels between two stages is a parcel: the task as JSON and an Arrow table.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NoReturn

import cloudpickle
import pyarrow as pa

from cluster.pool import Stage, StageWork, Task
from cluster.resources import Resources
from cluster.session import SessionInfo, root_cause, session
from cluster.storage import chosen_store
from flowtts_core.errors import ConfigError, FlowTTSError
from flowtts_core.memory import release_memory

_LOOK_EVERY_S = 5.0
_STUCK_S = 60.0  # without a result after a node was lost: then a dead actor may wait for ever for room to restart
_LEAVE_S = 5.0  # for Ray's shutdown in the middle of work
_RELEASE_EVERY_S = 60.0  # freed memory goes back to the system, so that a long job's memory stays flat
_IN_FLIGHT = 2  # tasks given to an actor at once: the next is at hand when one is done, few are redone after a death
# A parcel is one row, whatever its size: Ray Data cuts a block that grows too large between rows.
_PARCEL = pa.schema([("key", pa.int64()), ("task", pa.string()), ("table", pa.large_binary()), ("error", pa.string())])


def main() -> None:
    """Do the tasks that come through the pipe whose file descriptor is the first argument."""
    job = _Job(Connection(int(sys.argv[1])))
    try:
        address, cpus, store = job.pipe.recv()
        chosen_store.update(store)
        with session(address, cpus) as info:
            if not job.pipe.poll():
                _warm_up()
            job.work(info)
    except Exception as error:
        job.fail(*_told(error))


class _Job:
    """The job at the other end of the pipe."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe
        self._sending, self._last = threading.Lock(), time.monotonic()

    def tell(self, kind: str, value: Any) -> None:
        self._last = time.monotonic()
        with self._sending:
            self.pipe.send_bytes(json.dumps([kind, value]).encode())

    def work(self, info: SessionInfo) -> None:
        """Do the tasks and tell each result; an error ends the process before Ray's session is closed."""
        stages, tasks = cloudpickle.loads(self.pipe.recv_bytes())
        threading.Thread(target=self._watch, args=(_nodes_alive(),), daemon=True).start()
        try:
            for row in _parcels(stages, tasks, info):
                if row["error"]:
                    self.fail("error", json.loads(row["error"]))
                self.tell("result", [row["key"], json.loads(row["task"])])
        except Exception as error:
            self.fail(*_told(error))
        self.tell("done", None)

    def fail(self, kind: str, value: Any) -> NoReturn:
        """Tell of an error and end this process."""
        with suppress(OSError):  # the job's process has gone
            self.tell(kind, value)
        _leave()

    def _watch(self, nodes: set[str]) -> None:
        """End this process when the job's process has gone, or when a node was lost and nothing moves any more."""
        while not self.pipe.poll(_LOOK_EVERY_S):  # nothing comes any more but the end of the pipe
            if time.monotonic() - self._last > _STUCK_S and nodes - _nodes_alive():
                self.fail("lost", ["a node was lost, and an actor waits for room"])
        _leave()


def _leave() -> NoReturn:
    """End Ray's session and this process, whatever its other threads are at: Ray may crash over them, or wait for ever."""
    threading.Timer(_LEAVE_S, os._exit, (1,)).start()
    import ray

    with suppress(Exception):
        ray.shutdown()
    os._exit(1)


def _told(error: BaseException) -> tuple[str, list[str]]:
    """How the job is told of an error: our own error, a failure of the cluster, or a fault of the program."""
    cause = root_cause(error)
    if isinstance(cause, FlowTTSError):
        return "error", [type(cause).__name__, cause.message, cause.remedy]
    text = f"{type(cause).__name__}: {cause}"
    if _is_clusters(error) or _is_clusters(cause):
        return "lost", [text]
    return "fault", [text, "".join(traceback.format_exception(cause))]


def _is_clusters(error: BaseException) -> bool:
    """Whether machines failed, and not the work itself."""
    from ray import exceptions

    kinds = (
        ConnectionError,
        exceptions.RayActorError,
        exceptions.WorkerCrashedError,
        exceptions.NodeDiedError,
        exceptions.ObjectLostError,
        exceptions.OutOfMemoryError,
        exceptions.OwnerDiedError,
        exceptions.LocalRayletDiedError,
        exceptions.RaySystemError,
    )
    return isinstance(error, kinds)


def _nodes_alive() -> set[str]:
    import ray

    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def _warm_up() -> None:
    """Let Ray Data start the actors that it keeps beside its work, while the job is still planned."""
    import ray.data

    ray.data.from_items([0]).map_batches(_same).materialize()


def _same(batch: Any) -> Any:
    return batch


def _parcels(stages: Sequence[Stage], tasks: dict[int, Task], info: SessionInfo) -> Iterator[dict[str, Any]]:
    """Yield the parcels that come out of the last stage, as rows."""
    batches = _dataset(stages, tasks, info).iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    for batch in batches:
        yield from batch.to_pylist()


def _dataset(stages: Sequence[Stage], tasks: dict[int, Task], info: SessionInfo) -> Any:
    import ray.data

    assert sum(stage.takes.cpus > 0 for stage in stages) <= 1
    # A node that dies while an actor is being made would end the job; our own errors on loading come as results.
    ray.data.DataContext.get_current().max_consecutive_actor_init_deaths = 3
    rows = [{"key": key, "task": json.dumps(task), "table": None, "error": None} for key, task in tasks.items()]
    dataset: Any = ray.data.from_arrow([pa.Table.from_pylist([row], schema=_PARCEL) for row in rows])
    for stage in stages:
        least, most = sized(stage, info, len(tasks))
        pool = ray.data.ActorPoolStrategy(min_size=least, max_size=most, max_tasks_in_flight_per_actor=_IN_FLIGHT)
        dataset = dataset.map_batches(
            Worker,
            fn_constructor_kwargs={"make": stage.make},
            compute=pool,
            batch_size=1,
            batch_format="pyarrow",
            zero_copy_batch=True,
            **stage.takes.options(),
        )
    return dataset


def sized(stage: Stage, info: SessionInfo, tasks: int) -> tuple[int, int]:
    """Return the fewest and most actors: no more than there are tasks, and at first no more than there is room for.

    On a cluster that is not ours alone machines may come while the job runs: there Ray Data adds actors as room appears.

    Raises:
        ConfigError: No node has the GPU or the memory that one actor takes.
    """
    takes = stage.takes
    if takes.gpus and info.gpus < takes.gpus:
        raise ConfigError("--device cuda: Ray sees no GPU", "flowtts doctor says what this machine has")
    room = (takes if takes.cpus else Resources()).room(
        info.nodes
    )  # who takes no core in Ray's books needs one all the same
    if not room and takes.memory:
        largest = max((node.get("memory", 0) for node in info.nodes), default=0) / 2**30
        raise ConfigError(
            f"a worker takes {takes.memory / 2**30:g} GiB beside a core{' and its GPU' if takes.gpus else ''}, no node has room: "
            f"the most that Ray may give is {largest:.1f} GiB",
            "less --worker-memory, another --profile, or larger nodes",
        )
    most = min(stage.pool[1], tasks) if takes.cpus and not info.embedded else min(stage.pool[1], tasks, room)
    return max(1, min(stage.pool[0], most, room)), max(1, most)


class Worker:
    """A process of a stage: makes its work once, then does one parcel after another.

    Args:
        make: Returns what does a task; called in the worker's process.
    """

    def __init__(self, make: Callable[[], StageWork]) -> None:
        self._problem: Exception | None = None
        self._released = time.monotonic()
        try:
            self._work = make()
        except Exception as error:  # Ray would start the actor again and again; raised from a call it ends the job
            self._problem = error
        gc.collect()
        gc.freeze()  # nearly all of a worker's objects are its models and libraries: no collection need walk through them

    def __call__(self, batch: pa.Table) -> pa.Table:
        parcels = [self._parcel(row) for row in batch.to_pylist()]
        if time.monotonic() - self._released > _RELEASE_EVERY_S:
            release_memory()
            self._released = time.monotonic()
        return pa.Table.from_pylist(parcels, schema=_PARCEL)

    def _parcel(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the result, or our own error, as a row: a raised error loses its class and remedy on its way through Ray."""
        if row.get("error"):
            return row
        try:
            if self._problem is not None:
                raise self._problem
            task, table = self._work(json.loads(row["task"]), _table(row.get("table")))
            return {"key": row["key"], "task": json.dumps(task), "table": _bytes(table), "error": None}
        except FlowTTSError as error:
            told = [type(error).__name__, error.message, error.remedy]
            return {"key": row["key"], "task": None, "table": None, "error": json.dumps(told)}


def _table(data: bytes | None) -> pa.Table | None:
    return None if data is None else pa.ipc.open_stream(pa.py_buffer(data)).read_all()


def _bytes(table: pa.Table | None) -> bytes | None:
    if table is None:
        return None
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())
