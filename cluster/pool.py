"""Tasks through a pool of actors by Ray Data: a task in, its result out as it is finished, errors as what they were."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from cluster.session import release_memory, root_cause, session
from flowtts_core import errors
from flowtts_core.errors import ConfigError, FlowTTSError

Task = dict[str, Any]  # of JSON values, as its result is
Work = Callable[[Task], Task]


class Worker:
    """An actor: makes its work once, then does one task after another.

    Args:
        make: returns what does a task; called in the actor's process.
    """

    def __init__(self, make: Callable[[], Work]) -> None:
        self._problem: Exception | None = None
        try:
            self._work = make()
        except Exception as error:  # Ray would start the actor again and again; raised from a call it ends the job
            self._problem = error

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = [self._row(json.loads(row["task"])) for row in batch.to_pylist()]
        release_memory()
        return pa.Table.from_pylist(rows)

    def _row(self, task: Task) -> dict[str, str]:
        """The result, or our own error, as a row: what Ray makes of a raised one has lost what a user can read."""
        try:
            if self._problem is not None:
                raise self._problem
            return {"result": json.dumps(self._work(task)), "error": ""}
        except FlowTTSError as error:
            told = {"kind": type(error).__name__, "message": error.message, "remedy": error.remedy}
            return {"result": "", "error": json.dumps(told)}


def results_of(batch: pa.Table) -> Iterator[Task]:
    """What a `Worker` returned; raises the error that it returned instead."""
    for row in batch.to_pylist():
        if row["error"]:
            told = json.loads(row["error"])
            raise getattr(errors, told["kind"], FlowTTSError)(told["message"], told["remedy"])
        yield json.loads(row["result"])


def run_tasks(
    make: Callable[[], Work], tasks: Sequence[Task], *, address: str | None, workers: int, gpus: float = 0
) -> Iterator[Task]:
    """Do the tasks on a pool of one-core actors; yields each result as it is there, in no fixed order.

    Args:
        make: makes what does the tasks; it travels to the actors by pickle.
        address: of a Ray cluster; None starts a private one.
        gpus: of a GPU that each actor takes.

    Raises:
        ConfigError: where the cluster cannot be reached, or has no GPU for an actor.
        FlowTTSError: what the work raised.
    """
    workers = max(1, min(workers, len(tasks)))
    with session(address, workers) as info:
        import ray.data

        if gpus and info.gpus < gpus:
            raise ConfigError("--device cuda: Ray sees no GPU", "flowtts doctor says what this machine has")
        if gpus:  # more would wait for a GPU for ever
            workers = min(workers, int(info.gpus / gpus))
        rows = [{"task": json.dumps(task)} for task in tasks]
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            Worker,
            batch_size=1,  # a block is a task, one row; Ray refuses None together with GPUs
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=workers),
            fn_constructor_kwargs={"make": make},
            num_cpus=1,
            num_gpus=gpus or None,
        )
        try:
            for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                assert isinstance(batch, pa.Table)
                yield from results_of(batch)
        except FlowTTSError:
            raise
        except Exception as error:  # a fault of this program, or of Ray: its innermost cause says most
            raise root_cause(error) from error
