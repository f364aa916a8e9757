"""`flowtts train`: train an acoustic model into a voice, or a vocoder, on one process or many, by Ray Train."""

from __future__ import annotations

import argparse
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flowtts_core.errors import ConfigError, FlowTTSError
from jobs.prepare import parse_settings

MAX_FAILURES = 3  # restarts of the worker group before the run gives up
MOST_CPU_WORKERS = 4  # by default; each adds a batch to a step, so many more would change what is learnt
_POLL_S = 0.5
_DEFAULTS: dict[str, Any] = {  # of the options that some recipes have no use for
    "data": None, "model": "matcha", "texts": None, "vocoder": "", "steps": None, "workers": None, "device": "auto",
    "address": None, "settings": [],
}  # fmt: skip


@dataclass(frozen=True)
class Trained:
    """What a training run did; `resumed_from` is the step it went on from, `loss` the last one that was logged."""

    output: str
    run: str
    model: str
    parameters: int
    steps: int
    resumed_from: int
    workers: int
    gpu: bool
    loss: float | None
    wall_s: float


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "train",
        help="train a voice or a vocoder",
        description="Train an acoustic model on prepared data and write a voice, or train a vocoder. A run that was"
        " interrupted, or whose worker died, goes on from its last checkpoint when the same command is run again;"
        " other settings or data start another run. Checkpoints and logs lie beside the output, in OUTPUT-training/.",
        epilog="examples:\n"
        "  flowtts train data/ -o voices/amy\n"
        "  flowtts train data/ --model vocos -o vocoders/amy\n"
        "  flowtts train data/ -o voices/amy --vocoder vocoders/amy --steps 40000 --set trainer.learning_rate=3e-4\n"
        "  flowtts train --recipe bundled --texts book.epub -o voices/mine   # corpus, both models, scores: about 2 hours\n"
        "  flowtts train --recipe tiny -o out/tiny                           # two tones on the raw waveform: seconds\n"
        "  tensorboard --logdir voices/amy-training",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "data", type=Path, nargs="?", help="folder made by `flowtts prepare`; the workers must see it too"
    )
    parser.add_argument("-o", "--output", type=Path, help="folder of the voice (or vocoder) to make")
    parser.add_argument(
        "--model", choices=("matcha", "vocos"), default="matcha", help="what to train (default: matcha)"
    )
    parser.add_argument("--recipe", help="a recipe of jobs/recipes.py (default: the model's own)")
    parser.add_argument("--texts", type=Path, help="with --recipe bundled: the book or table that the teacher reads")
    parser.add_argument("--vocoder", default="", help="vocoder or voice folder for the voice (default: Griffin-Lim)")
    parser.add_argument("--steps", type=int, help="optimiser steps (default: the recipe's)")
    parser.add_argument(
        "--workers", type=int, help=f"processes (default: the GPUs, or the cores up to {MOST_CPU_WORKERS})"
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "gpu"), default="auto", help="default: GPUs where there are any"
    )
    parser.add_argument("--address", help="a Ray cluster, for example ray://head:10001 (default: this machine)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="settings",
        help="change the recipe: trainer.X, model.X, frames_per_batch, ... (an unknown key lists the valid ones)",
    )
    parser.add_argument("--json", action="store_true", help="print a summary as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.recipe in ("bundled", "bundled_debug", "tiny"):
        return _run_whole(args)
    _require_used(args, ("texts",))
    if args.data is None or args.output is None:
        raise ConfigError("DATA and -o are needed", "flowtts train data/ -o voices/mine")
    if args.workers is not None and args.workers < 1:
        raise ConfigError("--workers must be 1 or more")
    from jobs.recipes import recipe

    settings: dict[str, Any] = dict(parse_settings(args.settings))
    if args.steps is not None:
        settings["trainer.steps"] = args.steps
    chosen = recipe(args.recipe or args.model, settings)
    result = train(
        args.data,
        args.output,
        chosen,
        vocoder=args.vocoder,
        workers=args.workers,
        device=args.device,
        address=args.address,
        quiet=args.json,
    )
    if args.json:
        print(json.dumps(asdict(result)))
    else:
        print(f"{result.output}: {result.model}, {result.parameters / 1e6:.1f} M parameters, step {result.steps}")
        print(f"logs: tensorboard --logdir {result.run}")
    return 0


def _require_used(args: argparse.Namespace, unused: Sequence[str]) -> None:
    """Raise ConfigError for an option that was given and would change nothing."""
    given = [name for name in unused if getattr(args, name) != _DEFAULTS[name]]
    names = ", ".join({"data": "DATA", "settings": "--set"}.get(name, f"--{name}") for name in given)
    if given:
        recipe = args.recipe or args.model
        raise ConfigError(f"--recipe {recipe}: {names} change{'s' * (len(given) == 1)} nothing here", "leave it out")


def _run_whole(args: argparse.Namespace) -> int:
    """The recipes that need no prepared data: they make their own."""
    if args.output is None:
        raise ConfigError(f"--recipe {args.recipe}: -o is needed", f"flowtts train --recipe {args.recipe} -o FOLDER")
    used = () if args.recipe == "tiny" else ("texts", "workers")
    _require_used(args, tuple(name for name in _DEFAULTS if name not in used))
    if args.recipe == "tiny":
        from jobs.tiny import train_tiny

        print(json.dumps(train_tiny(args.output), indent=1))
        return 0
    if args.texts is None:
        raise ConfigError(
            f"--recipe {args.recipe}: --texts is needed", "give a book, a plain text, or a table of texts"
        )
    from jobs.bundled import RECIPES, make_bundled

    made = make_bundled(args.texts, args.output, RECIPES[args.recipe](), args.workers)
    if args.json:
        print(json.dumps(asdict(made)))
    else:
        print(f"{made.voice}: taught by {made.clips} clips; seconds: {made.seconds}")
    return 0


def train(
    data: Path,
    output: Path,
    recipe: Any,
    *,
    vocoder: str = "",
    workers: int | None = None,
    device: str = "auto",
    address: str | None = None,
    quiet: bool = False,
) -> Trained:
    """Train to the recipe's last step and write the voice or vocoder to `output`.

    Raises:
        FlowTTSError: what a worker raised, after `MAX_FAILURES` restarts.
    """
    began = time.perf_counter()
    from cluster.session import session
    from cluster.storage import Storage
    from jobs.training_run import open_run, parameters_of, read_progress, write_result

    runs = output.absolute().with_name(f"{output.absolute().name}-training")
    open_run(runs, data, recipe, workers or 1, vocoder)  # fail on wrong input before Ray starts
    with session(address, workers or _cores(), data=False) as info:
        gpu = _use_gpu(device, info.gpus)
        count = workers or (info.gpus if gpu else min(info.cpus - info.embedded, MOST_CPU_WORKERS))
        if gpu and count > info.gpus:  # Ray would wait for them for ever
            raise ConfigError(f"--workers {count}: Ray sees {info.gpus} GPUs", "fewer --workers, or --device cpu")
        this = open_run(runs, data, recipe, max(1, count), vocoder)
        resumed = this.last_step
        if resumed < this.steps:
            with Storage(this.folder).lock(), _progress(this, quiet):
                _fit(this, gpu)
    write_result(this, output)
    return Trained(
        output=str(output),
        run=this.folder,
        model=this.recipe.name,
        parameters=parameters_of(this),
        steps=this.steps,
        resumed_from=resumed,
        workers=this.world_size,
        gpu=gpu,
        loss=next((v for k, v in read_progress(this).items() if k.endswith("/loss")), None),
        wall_s=round(time.perf_counter() - began, 2),
    )


def _cores() -> int:
    from cluster.session import default_workers

    return min(default_workers(), MOST_CPU_WORKERS)


def _use_gpu(device: str, gpus: int) -> bool:
    if device == "gpu" and not gpus:
        raise ConfigError("--device gpu: Ray sees no GPU", "flowtts doctor says what this machine has")
    return gpus > 0 and device != "cpu"


def _fit(this: Any, gpu: bool) -> None:
    """Run the workers by Ray Train until the last step; a dead worker restarts them all from the last checkpoint.

    The checkpoints are the run folder's own, which the trainer writes atomically, so that Ray keeps no second copy and a
    later command finds them whatever became of Ray; Ray's own notes go into a folder that lives as long as this call.
    """
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from cluster.session import root_cause

    notes = Path(this.folder, "ray")
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"run": this, "gpu": gpu},
        scaling_config=ScalingConfig(
            num_workers=this.world_size, use_gpu=gpu, resources_per_worker={"CPU": 1, "GPU": int(gpu)}
        ),
        run_config=RunConfig(
            name=f"attempt-{time.time_ns()}",  # a name that Ray has seen would not train again
            storage_path=str(notes),
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
            logging_config=LoggingConfig(log_level="ERROR"),  # type: ignore[call-arg]  # the stub is of the first version
        ),
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
    )
    try:
        trainer.fit()
    except Exception as error:
        failures = getattr(error, "worker_failures", None) or {}
        cause = next((root_cause(failure) for failure in failures.values()), root_cause(error))
        if isinstance(cause, FlowTTSError):
            raise cause from None
        raise FlowTTSError(
            f"training stopped at step {this.last_step} of {this.steps}: {cause}",
            "run the same command again: it goes on",
        ) from error
    finally:
        shutil.rmtree(notes, ignore_errors=True)


def train_worker(config: dict[str, Any]) -> None:
    """What each Ray Train worker runs."""
    import ray.train
    import ray.train.torch
    import torch

    from flowtts_core.training.distributed import average_gradients
    from jobs.training_run import train_rank

    this, context = config["run"], ray.train.get_context()
    device = ray.train.torch.get_device() if config["gpu"] else torch.device("cpu")
    if not config["gpu"]:
        torch.set_num_threads(1)
    train_rank(
        this,
        context.get_world_rank(),
        device=device,
        reduce_gradients=average_gradients if context.get_world_size() > 1 else None,
        on_checkpoint=lambda step, scalars: ray.train.report({"step": step, **scalars}),
    )


@contextmanager
def _progress(this: Any, quiet: bool) -> Iterator[None]:
    """A bar on the terminal's error stream, drawn by a thread from what rank 0 writes."""
    from rich import progress as bar
    from rich.console import Console

    columns = (
        bar.TextColumn("{task.description}"),
        bar.BarColumn(),
        bar.MofNCompleteColumn(),
        bar.TextColumn("{task.fields[loss]} {task.fields[speed]}"),
        bar.TimeElapsedColumn(),
        bar.TimeRemainingColumn(elapsed_when_finished=True),
    )
    stop = threading.Event()
    with bar.Progress(*columns, console=Console(stderr=True), disable=quiet, speed_estimate_period=120) as shown:
        task = shown.add_task(
            f"training {this.recipe.name}", total=this.steps, completed=this.last_step, loss="", speed=""
        )
        watcher = threading.Thread(
            target=_watch, args=(this, lambda **new: shown.update(task, **new), stop), daemon=True
        )
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()


def _watch(this: Any, update: Callable[..., None], stop: threading.Event) -> None:
    from jobs.training_run import read_progress

    first: tuple[float, float] | None = None
    while True:
        last_look = stop.wait(_POLL_S)
        seen = read_progress(this)
        if seen:
            now, step = time.monotonic(), seen["step"]
            first = (now, step) if first is None or step < first[1] else first
            speed = (step - first[1]) / (now - first[0]) if now > first[0] else 0.0
            loss = next((f"loss {value:.3f}" for name, value in seen.items() if name.endswith("/loss")), "")
            update(completed=step, loss=loss, speed=f"{speed:.1f} steps/s" if speed else "")
        if last_look:
            return
