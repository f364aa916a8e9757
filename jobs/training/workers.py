"""The workers of `flowtts train`: started by Ray Train, and again from the last checkpoint whenever one is lost."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

from cluster.storage import is_remote
from flowtts_core.errors import ConfigError, DivergedError, FlowTTSError
from jobs.training.outcome import read_outcome
from jobs.training.starts import note_start

MAX_FAILURES = 3  # restarts of the worker group without progress before the run gives up
_START_S = "180"  # Ray's own minute is too short where other programs keep the machine busy: it would start anew
RESIZE_S = 60.0  # how often an elastic group looks whether it can grow
_DRAIN_POLL_S = 5.0
_notice = threading.Event()  # of this worker's process, which is one per worker


def fit(this: Any, workers: tuple[int, int], gpu: bool, embedded: bool) -> None:
    """Run between `workers[0]` and `workers[1]` workers by Ray Train until the last step.

    Failures between which there is progress are not counted: a long run may lose a hundred workers. The checkpoints are
    the run folder's own, which the trainer writes atomically, so that Ray keeps no second copy and a later command finds
    them whatever became of Ray; Ray's own notes go into a folder that lives as long as this call.

    Raises:
        DivergedError: at once, when the training diverged.
        FlowTTSError: what a worker raised, after `MAX_FAILURES` restarts without progress.
    """
    if embedded:  # a cluster may have lost the node that Ray waits for
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", _START_S)
    notes = Path(tempfile.mkdtemp()) if embedded else None
    try:
        while not this.ended:
            began = this.last_step
            try:
                with (
                    open(os.devnull, "w") as nowhere,
                    redirect_stdout(nowhere),
                ):  # there Ray prints each death of a worker
                    _trainer(this, workers, gpu, f"{this.folder}/ray" if notes is None else str(notes)).fit()
            except Exception as error:
                if this.last_step <= began:
                    raise _told(this, error) from error
            outcome = read_outcome(this.files)
            if outcome is not None:
                outcome.require_sound()
    finally:
        _drop_notes(this, notes)


def _trainer(this: Any, workers: tuple[int, int], gpu: bool, notes: str) -> Any:
    from ray.train import FailureConfig, LoggingConfig, RunConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    return TorchTrainer(
        train_worker,
        train_loop_config={"run": this, "gpu": gpu},
        scaling_config=_scaling(workers, gpu),
        run_config=RunConfig(
            name=f"attempt-{time.time_ns()}",  # a name that Ray has seen would not train again
            storage_path=notes,
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
            logging_config=LoggingConfig(log_level="ERROR"),  # type: ignore[call-arg]  # the stub is of the first version
        ),
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
    )


def _told(this: Any, error: Exception) -> FlowTTSError:
    """Turn Ray's error into ours; of several workers' errors, take the one that caused the others."""
    from cluster.session import root_cause

    failures = list((getattr(error, "worker_failures", None) or {}).values()) or [error]
    causes = [root_cause(failure) for failure in failures]
    own = next((cause for cause in causes if isinstance(cause, FlowTTSError)), None)
    return own or FlowTTSError(
        f"training stopped at step {this.last_step} of {this.steps}: {causes[0]}",
        "run the same command again: it goes on",
    )


def _drop_notes(this: Any, notes: Path | None) -> None:
    if notes is not None:
        shutil.rmtree(notes, ignore_errors=True)
    elif is_remote(this.folder):
        with suppress(Exception):
            this.files.delete("ray")
    else:
        shutil.rmtree(Path(this.folder, "ray"), ignore_errors=True)


def _scaling(workers: tuple[int, int], gpu: bool) -> Any:
    from ray.train import ScalingConfig

    least, most = workers
    elastic = {"elastic_resize_monitor_interval_s": RESIZE_S} if least < most else {}
    try:
        return ScalingConfig(
            num_workers=(least, most) if elastic else most,  # type: ignore[arg-type]  # the stub is of the first version
            use_gpu=gpu,
            resources_per_worker={"CPU": 1, "GPU": int(gpu)},
            **elastic,  # type: ignore[arg-type]  # as above
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"--workers {least}-{most}: this Ray cannot change the number of workers", "give one number, or update Ray"
        ) from error


def train_worker(config: dict[str, Any]) -> None:
    """What each Ray Train worker runs."""
    import ray.train
    import ray.train.torch
    import torch

    from flowtts_core.training.distributed import Ranks, TorchRanks
    from jobs.training.run import train_rank

    this, context = config["run"], ray.train.get_context()
    device = ray.train.torch.get_device() if config["gpu"] else torch.device("cpu")
    if not config["gpu"]:
        torch.set_num_threads(1)
    kind = TorchRanks if context.get_world_size() > 1 else Ranks
    ranks = kind(context.get_world_rank(), context.get_world_size(), _notice)
    threading.Thread(target=_watch_for_drain, name="drain", daemon=True).start()

    def on_resume(step: int) -> None:
        if ranks.rank == 0:
            note_start(this.files, step, ranks.size)

    with suppress(DivergedError):  # all workers raise it together, and it is noted: Ray would only start them again
        train_rank(this, ranks, device=device, on_resume=on_resume)


def _watch_for_drain() -> None:
    """Notice that a node of the group will be taken away; each look is one that all workers take together."""
    import ray.train

    look = getattr(ray.train, "get_preemption_info", None)
    while look is not None and not _notice.is_set():
        try:
            if look() is not None:
                _notice.set()
        except Exception:  # the group is being taken down
            return
        time.sleep(_DRAIN_POLL_S)
