"""Run a slow judge over many clips in processes of one thread each."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def parallel_starmap(
    function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]], workers: int | None = None
) -> list[Any]:
    """Return `[function(*a) for a in arguments]`, computed in `workers` processes (default: one per core).

    `function` must be importable by name. With one worker it runs in this process. The first exception is raised.
    """
    todo = list(arguments)
    workers = min(workers or os.cpu_count() or 1, len(todo))
    if workers <= 1:
        return [function(*one) for one in todo]
    context = multiprocessing.get_context("spawn")  # a fork would copy torch's locks but not its threads
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))  # children read it as they start
    try:
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            return list(pool.map(_call, [function] * len(todo), todo))
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return function(*arguments)
