"""`flowtts train`: train an acoustic model into a voice, or a vocoder, on one process or many, by Ray Train."""

from __future__ import annotations

import argparse
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from flowtts_core.errors import ConfigError
from jobs.prepare import parse_settings

MOST_CPU_WORKERS = 4  # by default; they share the items of a batch, of which our recipes' have a dozen or two
_DEFAULTS: dict[str, Any] = {  # of the options that some recipes have no use for
    "data": None, "start": None, "mels_of": None, "speaker": "", "model": "matcha", "texts": None, "teachers": None,
    "vocoder": "", "steps": None, "workers": None,
    "device": "auto", "address": None, "settings": [], "mlflow": "",
}  # fmt: skip


@dataclass(frozen=True)
class Trained:
    """What a training run did.

    Attributes:
        resumed_from: the step it went on from.
        starts: how often its workers were started in all, by this command and those before.
        workers: how many there were at the last start.
        steps: the last step; before the recipe's where validations stopped the training.
        loss: the last one that was logged.
        validation: the loss of the held-out clips by the weights that were written; None where nothing was held out.
        best_step: the step whose validation loss was the lowest.
    """

    output: str
    run: str
    model: str
    parameters: int
    steps: int
    resumed_from: int
    starts: int
    workers: int
    gpu: bool
    loss: float | None
    validation: float | None
    best_step: int | None
    wall_s: float


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "train",
        help="train a voice or a vocoder",
        description="Train an acoustic model on prepared data and write a voice, or train a vocoder. A run that was"
        " interrupted goes on from its last checkpoint when the same command is run again, on any number of workers:"
        " they share each batch, whose items and order do not depend on them. Where a worker dies, those that are left go"
        " on from the last checkpoint. Other settings or data start another run. Checkpoints and logs lie beside the"
        " output, in OUTPUT-training/. Data and output may be s3:// places, with endpoint and keys from the AWS_"
        " variables; examples are read as they are needed.",
        epilog="examples:\n"
        "  flowtts train data/ -o voices/amy\n"
        "  flowtts train data/ --model vocos -o vocoders/amy\n"
        "  flowtts train data/ -o voices/amy --vocoder vocoders/amy --steps 40000 --set trainer.learning_rate=3e-4\n"
        "  flowtts train data/ -o voices/jo --from natural --speaker jo      # fine-tune, from ten minutes of speech on\n"
        "  flowtts train data/ --recipe vocoder --mels-of voices/jo -o vocoders/jo     # its vocoder, on the mels it makes\n"
        "  flowtts train data/ --recipe vocoder --from vocoders/any -o vocoders/jo     # a vocoder, on recordings\n"
        "  flowtts train s3://bucket/data -o s3://bucket/voices/amy --workers 1-8 --address ray://head:10001\n"
        "  flowtts train -o voices/amy --status                              # how far it is\n"
        "  flowtts train --recipe natural --texts texts.tsv -o voices/mine   # corpus, models, scores: a night and more\n"
        "  flowtts train --recipe natural --texts texts.tsv --teacher heart --teacher kokoro/@am_michael -o voices/two\n"
        "  flowtts train --recipe tiny -o out/tiny                           # two tones on the raw waveform: seconds\n"
        "  tensorboard --logdir voices/amy-training",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "data", nargs="?", help="folder or s3:// place made by `flowtts prepare`; the workers must see it"
    )
    parser.add_argument("-o", "--output", help="folder or s3:// place of the voice (or vocoder) to make")
    parser.add_argument(
        "--model", choices=("matcha", "vocos"), default="matcha", help="what to train (default: matcha)"
    )
    parser.add_argument(
        "--from",
        dest="start",
        metavar="VOICE|CHECKPOINT",
        help="fine-tune: go on from a bundled voice, a voice folder (imported ones too), or a training's checkpoint;"
        " data are prepared with `flowtts prepare --like VOICE`. With --recipe vocoder: the vocoder to go on from, or a voice"
        " that has one (default: that of --mels-of)",
    )
    parser.add_argument(
        "--mels-of",
        metavar="VOICE",
        help="with --recipe vocoder: train on the mels that this voice makes of the texts (default: those of the recordings)",
    )
    parser.add_argument(
        "--speaker", default="", help="with --from or --mels-of: who reads the clips, where they name no speaker"
    )
    parser.add_argument("--recipe", help="a recipe of jobs/training/recipes/ (default: the model's own)")
    parser.add_argument("--texts", type=Path, help="with --recipe natural: the book or table that the teachers read")
    parser.add_argument(
        "--teacher",
        action="append",
        dest="teachers",
        metavar="VOICE[@SPEAKER]",
        help="with --recipe natural: a voice that reads; its licence binds its pupil. May be given again: each is a speaker"
        " (default: the recipe's)",
    )
    parser.add_argument(
        "--vocoder",
        default="",
        help="vocoder folder, voice folder, or a bundled voice's name, for the voice (default: the"
        " bundled one for any speaker that reads its mel, or else Griffin-Lim)",
    )
    parser.add_argument("--steps", type=int, help="optimiser steps (default: the recipe's)")
    parser.add_argument(
        "--status",
        action="store_true",
        help="train nothing: tell how far the trainings of -o are. Exit codes: 0 the last one runs or has finished,"
        " 1 it failed or there is none, 5 it was stopped",
    )
    parser.add_argument(
        "--mlflow",
        default="",
        metavar="URI",
        help="log settings and losses to an MLflow server or store too, such as http://host:5000 or"
        " sqlite:////data/mlflow.db (needs pip install 'flowtts[mlflow]')",
    )
    add_run_options(parser)
    parser.set_defaults(run=run)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of how a training runs: those of `distill` too."""
    parser.add_argument(
        "--workers",
        help="processes, or the fewest and the most, as in 1-4: as many as there is room for"
        f" (default: the GPUs, or the cores up to {MOST_CPU_WORKERS})",
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


def run(args: argparse.Namespace) -> int:
    if args.status:
        return _tell_status(args)
    from jobs.training import taught

    if args.recipe == "tiny" or args.recipe in taught.RECIPES:
        return _run_whole(args)
    _require_used(args, ("texts", "teachers"))
    if args.data is None or args.output is None:
        raise ConfigError("DATA and -o are needed", "flowtts train data/ -o voices/mine")
    workers = None if args.workers is None else workers_of(args.workers)
    from jobs.training.recipes import recipe

    settings: dict[str, Any] = dict(parse_settings(args.settings))
    if args.steps is not None:
        settings["trainer.steps"] = args.steps
    name = args.recipe or (args.model if args.start is None else "fine_tuning")
    asked = recipe(name)
    if args.mels_of is not None:
        if not hasattr(asked, "start"):
            raise ConfigError("--mels-of goes with --recipe vocoder", "flowtts train --recipe vocoder --mels-of VOICE")
        settings["voice"] = _place(args.mels_of)
    if args.start is not None:
        if not hasattr(asked, "voice"):
            raise ConfigError(f"--from: --recipe {name} begins with fresh weights", "leave one of them out")
        settings["start" if hasattr(asked, "start") else "voice"] = _place(args.start)
    if args.speaker:
        if "voice" not in settings:
            remedy = "without it, speakers are those that the clips name"
            raise ConfigError("--speaker goes with --from a voice, or with --mels-of", remedy)
        settings["speaker"] = args.speaker
    if args.vocoder:
        if not hasattr(asked, "vocoder"):
            raise ConfigError(f"--vocoder: --recipe {name} makes one", "name the one to begin with by --from")
        settings["vocoder"] = _place(args.vocoder)
    chosen = recipe(name, settings)
    result = train(
        args.data,
        args.output,
        chosen,
        workers=workers,
        device=args.device,
        address=args.address,
        quiet=args.json,
        mlflow=args.mlflow,
    )
    if args.json:
        print(json.dumps(asdict(result)))
    else:
        print(f"{result.output}: {result.model}, {result.parameters / 1e6:.1f} M parameters, step {result.steps}")
        print(f"logs: tensorboard --logdir {result.run}")
    return 0


def _place(given: str) -> str:
    """Return what an option names; a path from the root of the file system, since workers run elsewhere."""
    return str(Path(given).absolute()) if Path(given).exists() else given


def _tell_status(args: argparse.Namespace) -> int:
    from jobs.training.status import exit_code, statuses, told

    output = args.output or args.data  # who asks for the status of a training often names it first
    if output is None:
        raise ConfigError("--status: which training?", "flowtts train -o voices/mine --status")
    runs = statuses(str(output))
    print(json.dumps([asdict(run) for run in runs]) if args.json else "\n".join(map(told, runs)))
    return exit_code(runs)


def workers_of(text: str) -> tuple[int, int]:
    """Return the fewest and the most workers of `2` or `1-4`.

    Raises:
        ConfigError: for anything else.
    """
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    least, most = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= least <= most:
        raise ConfigError(f"--workers {text}", "give a number from 1 on, or the fewest and the most, as in 1-4")
    return least, most


def _require_used(args: argparse.Namespace, unused: Sequence[str]) -> None:
    """Raise ConfigError for an option that was given and would change nothing."""
    given = [name for name in unused if getattr(args, name) != _DEFAULTS[name]]
    words = {"data": "DATA", "settings": "--set", "start": "--from", "teachers": "--teacher"}
    names = ", ".join(words.get(name, f"--{name.replace('_', '-')}") for name in given)
    if given:
        recipe = args.recipe or args.model
        raise ConfigError(f"--recipe {recipe}: {names} change{'s' * (len(given) == 1)} nothing here", "leave it out")


def _run_whole(args: argparse.Namespace) -> int:
    """Run one of the recipes that make their data themselves."""
    if args.output is None:
        raise ConfigError(f"--recipe {args.recipe}: -o is needed", f"flowtts train --recipe {args.recipe} -o FOLDER")
    used = () if args.recipe == "tiny" else ("texts", "teachers", "workers")
    _require_used(args, tuple(name for name in _DEFAULTS if name not in used))
    if args.recipe == "tiny":
        from jobs.training.tiny import train_tiny

        summary = train_tiny(_local(args.output))
        if args.json:
            print(json.dumps(summary))
        else:
            print(f"{args.output}: the phonemes a and i as tones, in a.wav and i.wav; what was measured: summary.json")
            print(f'try it: flowtts say "a i a" --voice {args.output}')
        return 0
    if args.texts is None:
        raise ConfigError(
            f"--recipe {args.recipe}: --texts is needed", "give a book, a plain text, or a table of texts"
        )
    from jobs.training.taught import RECIPES, make_taught

    workers = None if args.workers is None else workers_of(args.workers)[1]
    chosen = RECIPES[args.recipe]()
    if args.teachers is not None:
        chosen = replace(chosen, teachers=tuple(args.teachers))
    made = make_taught(args.texts, _local(args.output), chosen, workers)
    if args.json:
        print(json.dumps(asdict(made)))
    else:
        print(f"{made.voice}: taught by {made.clips} clips; seconds: {made.seconds}")
    return 0


def _local(output: str) -> Path:
    from cluster.storage import is_remote

    if is_remote(output):
        raise ConfigError(f"-o {output}: this recipe works in a local folder", "give one, and copy the voice")
    return Path(output)


def train(
    data: str | Path,
    output: str | Path,
    recipe: Any,
    *,
    workers: int | tuple[int, int] | None = None,
    device: str = "auto",
    address: str | None = None,
    quiet: bool = False,
    mlflow: str = "",
) -> Trained:
    """Train to the recipe's last step and write the voice or vocoder to `output`.

    Args:
        data, output: folders or s3:// places.
        workers: how many, or the fewest and the most.
        mlflow: URI of an MLflow server or store that losses are logged to; "" for none.

    Raises:
        DependencyError: for `mlflow` where it is not installed.
        DivergedError: where the training did not stay finite; nothing is written then.
        FlowTTSError: what a worker raised, after several starts without progress.
    """
    began = time.perf_counter()
    from cluster.session import session
    from cluster.storage import Storage
    from jobs.training.outcome import noted
    from jobs.training.run import open_run, parameters_of, read_progress, runs_of, write_result
    from jobs.training.starts import read_starts
    from jobs.training.tracking import require_mlflow
    from jobs.training.workers import fit

    this = open_run(runs_of(output), data, recipe)  # fails on wrong input before Ray starts
    if mlflow:
        require_mlflow()
        this = replace(this, mlflow=mlflow)
    _tell_of_validation(recipe, this)
    resumed, gpu = this.last_step, False
    if not this.ended:
        asked = (workers, workers) if isinstance(workers, int) else workers
        with (
            Storage(this.folder).lock(),
            noted(this.files),
            session(address, asked[1] if asked else _cores(), data=False) as info,
        ):
            gpu = _use_gpu(device, info.gpus)
            count = max(1, info.gpus if gpu else min(info.cpus - info.embedded, MOST_CPU_WORKERS))
            least, most = asked or (count, count)
            if gpu and least > info.gpus:  # Ray would wait for them for ever
                raise ConfigError(f"--workers {least}: Ray sees {info.gpus} GPUs", "fewer --workers, or --device cpu")
            with _progress(this, quiet):
                fit(this, (least, most), gpu, info.embedded)
    starts, shown = read_starts(this.files), read_progress(this)
    write_result(this, output)
    return Trained(
        output=str(output),
        run=this.folder,
        model=this.recipe.name,
        parameters=parameters_of(this),
        steps=this.last_step,
        resumed_from=resumed,
        starts=len(starts),
        workers=starts[-1].workers if starts else 0,
        gpu=gpu,
        loss=_training_loss(shown),
        validation=shown.get("validation/best" if this.recipe.trainer.patience else "validation/loss"),
        best_step=shown.get("validation/best_step"),
        wall_s=round(time.perf_counter() - began, 2),
    )


def _tell_of_validation(asked: Any, this: Any) -> None:
    """Say where nothing is held out though it was asked for, and where a run without validation could be gone on with."""
    from jobs.training.run import run_without_validation

    if this.recipe.trainer.validation:
        before = run_without_validation(this)
        if before.last_step and not this.last_step:
            print(
                f"a run that held nothing out is at step {before.last_step} in {before.folder};"
                " --set trainer.validation=0 goes on with it",
                file=sys.stderr,
            )
    elif asked.trainer.validation:
        print("too few clips to hold some out: there is no validation loss", file=sys.stderr)


def _training_loss(seen: dict[str, Any]) -> float | None:
    """Return the first of the losses in what rank 0 reported: of validation there may be one too."""
    return next((v for k, v in seen.items() if k.endswith("/loss") and not k.startswith("validation/")), None)


def _losses_told(seen: dict[str, Any]) -> str:
    """Return the losses of training and validation, for the progress bar."""
    loss, held_out = _training_loss(seen), seen.get("validation/loss")
    told = "loss not finite" if loss is None else f"loss {loss:.3f}"
    if held_out is not None:
        told += f", validation {held_out:.3f} (best at {seen['validation/best_step']:.0f})"
    return told


def _cores() -> int:
    from cluster.session import default_workers

    return min(default_workers(), MOST_CPU_WORKERS)


def _use_gpu(device: str, gpus: int) -> bool:
    if device == "gpu" and not gpus:
        raise ConfigError("--device gpu: Ray sees no GPU", "flowtts doctor says what this machine has")
    return gpus > 0 and device != "cpu"


@contextmanager
def _progress(this: Any, quiet: bool) -> Iterator[None]:
    """Show a bar on standard error, drawn by a thread from what rank 0 writes."""
    from jobs.bar import bar

    stop = threading.Event()
    with bar("{task.fields[loss]}", quiet=quiet) as shown:
        task = shown.add_task(f"training {this.recipe.name}", total=this.steps, completed=this.last_step, loss="")
        watcher = threading.Thread(
            target=_watch,
            args=(this, lambda **new: shown.update(task, **new), shown.console.print, stop),
            daemon=True,
        )
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()


def _watch(this: Any, update: Callable[..., None], tell: Callable[[str], None], stop: threading.Event) -> None:
    from cluster.storage import is_remote
    from jobs.training.run import REPORT_EVERY_S, read_progress

    told = ""
    while True:
        last_look = stop.wait(REPORT_EVERY_S[is_remote(this.folder)])
        seen = read_progress(this)
        if seen:
            update(completed=seen["step"], loss=_losses_told(seen))
            if seen.get("trouble", told) != told:
                told = seen["trouble"]
                tell(told)
        if last_look:
            return
