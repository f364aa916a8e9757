"""A Ray session: a small private cluster on this machine, or an existing one by its address."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

from cluster.auth import REMEDY, authentication, refusal
from cluster.local import token_of
from cluster.scheduling import in_batches, stand_back
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
_HELPER = "ray::_AutoscalingCoordinatorActor"  # of Ray Data
_UNASKED = (
    ("datasets_stats_actor", "_dataset_stats_actor"),
    ("ActorLocationTracker", "ActorLocationTracker"),
)  # with namespaces
_PRIVATE_ENVIRONMENT = {
    # nobody reads the figures of a Ray that ends with its job, and making them takes time from a core
    "REPORTER_UPDATE_INTERVAL_MS": "600000",
    "RAY_DASHBOARD_AGENT_CHECK_PARENT_INTERVAL_S": "10",
    "RAY_metrics_report_interval_ms": "600000",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_event_stats": "0",
    # Ray ends a process that had nothing to do for a second, and starts two when it needs one: every few seconds of a job whose
    # plain tasks come now and then; those took 7 % of a core
    "RAY_idle_worker_killing_time_threshold_ms": "600000",
    "RAY_enable_worker_prestart": "0",
}


@dataclass(frozen=True)
class SessionInfo:
    """What was joined: `cpus` and `gpus` of the whole cluster, and what each of its `nodes` has, in Ray's names."""

    cpus: int
    gpus: int
    embedded: bool
    nodes: tuple[dict[str, float], ...] = ()


def default_workers() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def session(address: str | None = None, workers: int | None = None, data: bool = True) -> Iterator[SessionInfo]:
    """Start a private Ray on this machine (or join the one at `address`) and leave it at the end.

    Args:
        address: None for an embedded one, which no other session can join; `host:6379` or `auto` on a machine of a cluster;
            `ray://host:10001` from outside, by Ray Client. `http://host:8265` takes whole commands (cluster/submission.py).
        data: Ray Data will be used, which does not work through Ray Client; a private Ray's processes then wait for their turns.
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
    early = _taken(address, workers)
    if early is None:
        with _opened(address, workers, data) as info:
            yield info
        return
    try:
        yield early.info
    finally:
        early.stop()


def start_early(workers: int) -> None:
    """Begin to start a private Ray on a thread, while the caller is busy: the next `session(None, workers)` takes it over.

    It takes some ten seconds, mostly of other processes. `stop_early` lets go of one that no session has taken.
    """
    if not _early:
        _early.append(_Early(workers))
        _early[0].start()


def stop_early() -> None:
    while _early:
        _early.pop().stop()


class _Early(threading.Thread):
    """Keeps a session open on a thread of its own until `stop`: Ray's processes end with the thread that started them (Linux)."""

    def __init__(self, workers: int) -> None:
        super().__init__(daemon=True, name="ray-start")
        self.workers, self.info = workers, SessionInfo(0, 0, True)
        self.begun = False
        self._settled, self._over = threading.Event(), threading.Event()

    def run(self) -> None:
        try:
            with _opened(None, self.workers) as self.info:
                _make_helpers()
                self.begun = True
                self._settled.set()
                self._over.wait()
        except Exception:  # whoever wants it tries again, and is told
            self.begun = False
        finally:
            self._settled.set()

    def wait(self) -> None:
        self._settled.wait()

    def stop(self) -> None:
        self._over.set()
        self.join()


def _make_helpers() -> None:
    """Have Ray Data make the actors that it keeps beside its work, each a process that takes a second or two to start."""
    import ray.data

    ray.data.from_items([0]).map_batches(_same).materialize()


def _same(batch: Any) -> Any:
    return batch


_early: list[_Early] = []  # at most one


def _taken(address: str | None, workers: int | None) -> _Early | None:
    """The session that was begun early, where it is one like this."""
    if address is not None or not _early:
        return None
    early = _early.pop()
    early.wait()
    if not early.begun:
        return None
    if early.workers != workers:
        early.stop()
        return None
    return early


@contextmanager
def _opened(address: str | None, workers: int | None, data: bool = True) -> Iterator[SessionInfo]:
    os.environ.update({key: os.environ.get(key, value) for key, value in _ENVIRONMENT.items()})
    import ray  # after the environment, which Ray reads on import

    with authentication(address, token_of(address or "")), _native_notes_dropped(), _deaths_not_printed():
        try:
            with (
                _same_sigterm(),
                _with_environment({} if address else _PRIVATE_ENVIRONMENT),
                in_batches() if data and not address else nullcontext(),  # a server answers at once
            ):
                ray.init(**_options(address, workers))
        except ConfigError:
            raise
        except Exception as error:  # a node that starts too slowly is a bare Exception to Ray
            where, remedy = (address, _ADDRESSES) if address else ("this machine", "is it overloaded? run it again")
            raise ConfigError(f"cannot start or join Ray at {where}: {error}", remedy) from error
        _quiet_ray_data()
        if address is None:
            _end_idle_helpers()
        try:
            nodes = tuple(node["Resources"] for node in ray.nodes() if node["Alive"])
            cpus, gpus = (int(sum(node.get(kind, 0) for node in nodes)) for kind in ("CPU", "GPU"))
            with _helpers_not_asked() if data and not address else nullcontext():
                yield SessionInfo(cpus, gpus, address is None, nodes)
        finally:
            ray.shutdown()


def _options(address: str | None, workers: int | None) -> dict[str, Any]:
    """What `ray.init` takes; an address that would not let us in is refused here and at once."""
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


def _end_idle_helpers() -> None:
    """End what Ray starts for clusters: who reads logs for the driver, asks for more machines, serves the dashboard.

    A private Ray has nobody to read, no machines to ask for and no dashboard; each would take some 1 % of a core all the same.
    """
    from ray._private.worker import global_worker

    node: Any = global_worker.node
    for end in ("kill_log_monitor", "kill_monitor", "kill_dashboard"):
        with suppress(Exception):  # inner functions of Ray, which has no setting: without them all is as it was
            getattr(node, end)(check_alive=False)


def helpers_stand_back() -> None:
    """End those helpers of a private Ray Data that nobody asks, and have the third run when a core has nothing else to do.

    Call it once Ray Data is at work. Each helper wakes 100 times a second, and every time would take the core, and its cache,
    from a process at work. One gathers figures for a dashboard, one knows on which machine an actor is; Ray Data makes both anew
    where it wants them.
    """
    import ray
    from ray._private.worker import global_worker

    for name, namespace in _UNASKED:
        with suppress(Exception):  # there is none
            ray.kill(ray.get_actor(name, namespace))
    with suppress(Exception):  # a matter of speed alone, on what is Ray's own
        import psutil  # Ray brings it along

        node: Any = global_worker.node
        for started in node.all_processes["raylet"]:
            for process in psutil.Process(started.process.pid).children():
                if process.cmdline()[0].startswith(_HELPER):
                    stand_back(process.pid)


@contextmanager
def _helpers_not_asked() -> Iterator[None]:
    """Keep Ray Data from telling one helper its figures, and from asking another each second where actors are: on this machine.

    It would begin them anew where they are gone.
    """
    from ray.data._internal import stats
    from ray.data._internal.execution.operators import actor_pool_map_operator

    places: list[tuple[Any, str, Any]] = [
        *((stats._StatsManager, name, None) for name in ("update_execution_metrics", "update_iteration_metrics")),
        (actor_pool_map_operator, "get_actor_locations", {}),
    ]
    changed = []
    for owner, name, answer in places:
        if name in vars(owner):  # inner functions of Ray, which has no setting: without them all is as it was
            changed.append((owner, name, vars(owner)[name]))
            setattr(owner, name, lambda *_, answer=answer, **__: answer)
    try:
        yield
    finally:
        for owner, name, before in changed:
            setattr(owner, name, before)


@contextmanager
def _with_environment(settings: dict[str, str]) -> Iterator[None]:
    """Have what is started meanwhile see these settings, but for those that the user has made."""
    ours = {key: value for key, value in settings.items() if key not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for key in ours:
            os.environ.pop(key, None)


@contextmanager
def _same_sigterm() -> Iterator[None]:
    """Keep the caller's handler: under the one that `ray.init` sets, the driver aborts before anything is let go."""
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


@contextmanager
def _deaths_not_printed() -> Iterator[None]:
    """Keep Ray from printing each worker's death on standard output, where `--json` has its say; `log_to_driver` does not."""
    from ray._private import worker as inner  # Ray has no setting for it

    worker: Any = inner
    before = getattr(worker, "print_to_stdstream", None)
    worker.print_to_stdstream = lambda *_, **__: None
    try:
        yield
    finally:
        if before is not None:
            worker.print_to_stdstream = before


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
    """Our own error inside what Ray wraps around a worker's exception, or the innermost where none is ours.

    Ray's wrapper is often of both classes, its own and ours, with a whole traceback as text; so the innermost counts.
    """
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        inner = getattr(current, "cause", None)
        current = inner if isinstance(inner, BaseException) else current.__cause__
    return next((e for e in reversed(chain) if isinstance(e, FlowTTSError)), chain[-1])
