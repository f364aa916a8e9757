"""A Ray session: a small private cluster on this machine, or an existing one by its address."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cluster.auth import REMEDY, authentication, refusal, token_changed
from cluster.local import token_of
from cluster.sockets import ray_folder
from cluster.storage import chosen_store
from flowtts_core.errors import ConfigError, FlowTTSError

OBJECT_STORE_BYTES = 256 << 20  # rows of text and small summaries travel through it, never audio
_ADDRESSES = (
    "check --address: http://HOST:8265 sends the command as a job; auto or HOST:6379 on a machine of the cluster; "
    "ray://HOST:10001 for training alone"
)
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # a thread that still asks for results after the end must not start another Ray
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # keeps Ray from hiding (and warning about) accelerators of CPU actors
    "RAY_worker_niceness": "0",  # Ray's default of 15 lets any other busy program stop a job altogether
    "MALLOC_ARENA_MAX": "2",  # of glibc: each arena keeps what was freed in it
    "OMP_NUM_THREADS": "1",  # workers inherit it: one thread each, or two torch workers on two cores collapse
}
_PRIVATE_ENVIRONMENT = {
    # nobody reads the figures of a Ray that ends with its job, and making them takes time from a core
    "REPORTER_UPDATE_INTERVAL_MS": "600000",
    "RAY_DASHBOARD_AGENT_CHECK_PARENT_INTERVAL_S": "2",
    "RAY_metrics_report_interval_ms": "600000",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_event_stats": "0",
}


@dataclass(frozen=True)
class SessionInfo:
    """What was joined: `cpus` and `gpus` of the whole cluster, and what each of its `nodes` has, in Ray's names."""

    cpus: int
    gpus: int
    embedded: bool
    nodes: tuple[dict[str, float], ...] = ()


def default_workers() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def session(address: str | None = None, workers: int | None = None, data: bool = True) -> Iterator[SessionInfo]:
    """Start a private Ray on this machine (or join the one at `address`) and leave it at the end.

    Args:
        address: None for an embedded one, which no other session can join; `host:6379` or `auto` on a machine of a cluster;
            `ray://host:10001` from outside, by Ray Client. `http://host:8265` takes whole commands (cluster/submission.py).
        data: Ray Data will be used, which does not work through Ray Client.
        workers: how many one-core actors will run at once; the embedded Ray gets one logical core more for its tasks.

    Raises:
        ConfigError: when the cluster cannot be reached, its token is missing or another one, or the address is of the wrong form.
    """
    if (
        data and address is not None and address.startswith("ray://")
    ):  # 2.60: 'Worker' object has no attribute 'core_worker'
        raise ConfigError(
            f"{address}: Ray Data does not work through Ray Client, only training does",
            "send the command as a job: --address http://HOST:8265; or run it on a machine of the cluster: --address auto",
        )
    os.environ.update({key: os.environ.get(key, value) for key, value in _ENVIRONMENT.items()})
    with authentication(address, token_of(address or "")), _native_notes_dropped():
        import ray  # after the environment and the token, which Ray reads once in a process

        try:
            with _same_sigterm(), _with_environment({} if address else _PRIVATE_ENVIRONMENT | ray_folder()):
                ray.init(**_options(address, workers))
        except ConfigError:
            raise
        except Exception as error:  # a node that starts too slowly is a bare Exception to Ray
            where, remedy = (address, _ADDRESSES) if address else ("this machine", "is it overloaded? run it again")
            if token_changed():
                remedy = "this process used another token before, which Ray keeps: run this in a new process"
            raise ConfigError(f"cannot start or join Ray at {where}: {error}", remedy) from error
        _quiet_ray_data()
        try:
            nodes = tuple(node["Resources"] for node in ray.nodes() if node["Alive"])
            cpus, gpus = (int(sum(node.get(kind, 0) for node in nodes)) for kind in ("CPU", "GPU"))
            yield SessionInfo(cpus, gpus, address is None, nodes)
        finally:
            ray.shutdown()


def _options(address: str | None, workers: int | None) -> dict[str, Any]:
    """Return the arguments of `ray.init`; refuse at once an address that would not let us in."""
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if address is None:
        return quiet | {
            "address": "local",
            "num_cpus": (workers or default_workers()) + 1,
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
        }
    if address.startswith(("http://", "https://")):
        raise ConfigError(f"{address}: a dashboard takes jobs, not sessions", _ADDRESSES)
    if ":" in address and (why := refusal(address)):
        raise ConfigError(f"cannot join Ray at {address}: {why}", REMEDY if "token" in why else _ADDRESSES)
    there = {"runtime_env": {"env_vars": dict(chosen_store)}} if chosen_store else {}
    return quiet | there | {"address": address}


@contextmanager
def _with_environment(settings: dict[str, str]) -> Iterator[None]:
    """Set environment variables within the block, but for those that the user has set."""
    ours = {key: value for key, value in settings.items() if key not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for key in ours:
            os.environ.pop(key, None)


@contextmanager
def _same_sigterm() -> Iterator[None]:
    """Keep the caller's signal handler: the one that `ray.init` sets aborts the process before it can clean up."""
    if threading.current_thread() is not threading.main_thread():  # there neither Ray nor we may set one
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


@contextmanager
def _native_notes_dropped() -> Iterator[None]:
    """Keep what Ray's C++ core writes to file descriptor 2 out of the terminal; Python's own `sys.stderr` goes on.

    Its notes (a warning for each actor pool, for one) would tear the progress line; its log files have them all.
    """
    try:
        own = sys.stderr.fileno() == 2
    except (OSError, ValueError, AttributeError):
        own = False
    if not own:  # a test or a notebook has put another stream in place
        yield
        return
    terminal, stream = os.dup(2), sys.stderr
    nowhere = os.open(os.devnull, os.O_WRONLY)
    sys.stderr = os.fdopen(os.dup(terminal), "w", buffering=1, encoding=stream.encoding, errors="backslashreplace")
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        sys.stderr.close()
        sys.stderr = stream
        os.close(terminal)
        os.close(nowhere)


def _quiet_ray_data() -> None:
    """Ray Data's own progress bars and notes would tear the terminal: we report in our own words."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    logging.getLogger("ray").setLevel(logging.CRITICAL)


def root_cause(error: BaseException) -> BaseException:
    """Return our own error inside what Ray wraps around a worker's exception, or the innermost where none is ours.

    Ray's wrapper is often of both classes, its own and ours, with a whole traceback as text; so the innermost counts.
    """
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        inner = getattr(current, "cause", None)
        current = inner if isinstance(inner, BaseException) else current.__cause__
    return next((e for e in reversed(chain) if isinstance(e, FlowTTSError)), chain[-1])
