"""One training run: its identity and folder, what each worker does, and what it ends in."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cluster.storage import Storage, is_remote
from flowtts_core.config import fingerprint
from flowtts_core.errors import DivergedError, VoiceError
from flowtts_core.training.checkpoints import checkpoint_steps, load_best, load_newest
from flowtts_core.training.distributed import ALONE, Ranks
from flowtts_core.training.example_files import AUDIO
from flowtts_core.training.examples import DatasetMeta, read_features
from flowtts_core.training.files import Files, files_of, patiently
from flowtts_core.training.log import finite
from flowtts_core.training.trainer import Trainer
from jobs.training.outcome import DIVERGED, FINISHED, Outcome, note_outcome, read_outcome
from jobs.training.page import page_writer, write_page
from jobs.training.recipes import Recipe
from jobs.training.recipes.base import without_validation
from jobs.training.tracking import Tracking

RECORD, PROGRESS = "run.json", "progress.json"
REPORT_EVERY_S = {False: 0.5, True: 5.0}  # by whether the run lies in an object store


def place_of(path: str | Path) -> Path | Files:
    """Return a local folder as a path, or an object store's."""
    return Storage(str(path)) if is_remote(str(path)) else Path(path).absolute()


def runs_of(output: str | Path) -> str:
    """Return where the runs lie that end in an output."""
    return f"{files_of(place_of(output)).path().rstrip('/')}-training"


@dataclass(frozen=True)
class TrainingRun:
    """Everything a worker needs; the places must be seen by all workers.

    Attributes:
        folder: of checkpoints, logs and `run.json`; its name holds the fingerprint of configuration and data.
        recipe: fitted to the data.
        stop_at: stop at this step, as if cut there.
        mlflow: URI of an MLflow server or store that losses are logged to; "" for none.
    """

    folder: str
    data: str
    recipe: Recipe
    stop_at: int | None = None
    mlflow: str = ""

    @property
    def files(self) -> Files:
        return files_of(place_of(self.folder))

    @property
    def meta(self) -> DatasetMeta:
        """Return the data's meta, with the features that the recipe trains on."""
        return DatasetMeta.load(place_of(self.data)).with_features(self.recipe.mel, self.recipe.frontend)

    @property
    def steps(self) -> int:
        return self.recipe.trainer.steps if self.stop_at is None else self.stop_at

    @property
    def ended(self) -> bool:
        """Return whether nothing is left to train: the last step is done, or validations have stopped it earlier."""
        if self.last_step >= self.steps:
            return True
        outcome, patience = read_outcome(self.files), self.recipe.trainer.patience
        early = outcome is not None and outcome.state == FINISHED and 0 < patience <= outcome.since
        return early and outcome is not None and self.last_step >= outcome.step

    @property
    def title(self) -> str:
        """Return what to call the run: the output and the folder's own name."""
        return "/".join(self.folder.rstrip("/").split("/")[-2:]).replace("-training/", ": ")

    @property
    def last_step(self) -> int:
        """Return the step of the newest checkpoint, 0 where there is none."""
        return (checkpoint_steps(self.files) or [0])[-1]


def open_run(runs: str | Path, data: str | Path, recipe: Recipe) -> TrainingRun:
    """Make or find the folder of this very run below `runs`: other settings or data get another folder.

    Raises:
        FlowTTSError: as `Recipe.fit`.
    """
    files = files_of(place_of(data))
    this = TrainingRun("", files.path().rstrip("/"), recipe.fit(files))
    this = replace(this, folder=_folder(files_of(place_of(runs)).path().rstrip("/"), this))
    if RECORD not in this.files.list():
        _write_json(this.files, RECORD, {**_identity(this), "data_folder": str(data)})
    return this


def run_without_validation(run: TrainingRun) -> TrainingRun:
    """Return the run of the same settings that holds no clips out, which need not exist."""
    other = replace(run, recipe=without_validation(run.recipe))
    return replace(other, folder=_folder(run.folder.rpartition("/")[0], other))


def _folder(runs: str, run: TrainingRun) -> str:
    return f"{runs}/{run.recipe.name}-{fingerprint(_identity(run))}"


def _identity(run: TrainingRun) -> dict[str, Any]:
    """Return what tells a run from others."""
    return {"recipe": run.recipe.identity(), "data": data_fingerprint(files_of(place_of(run.data)), run.meta)}


def data_fingerprint(data: Files, meta: DatasetMeta) -> str:
    """Return what changes with the corpus, its features' settings and statistics, or the size of any of their files."""
    known = [read_features(data, features) for features in meta.feature_sets]
    folders = [AUDIO, *(features.folder for features in meta.feature_sets)]
    sizes = [[n, size] for folder in folders for n, size in sorted(data.list(folder).items()) if n.endswith(".parquet")]
    settings = [meta.audio] if meta.audio else []  # folders of earlier versions keep their fingerprint
    return fingerprint([meta.speakers, known, sizes, *settings])


def train_rank(
    run: TrainingRun,
    ranks: Ranks = ALONE,
    *,
    device: torch.device | str = "cpu",
    on_resume: Callable[[int], None] = lambda step: None,
) -> dict[str, float]:
    """Do what one worker does: build the task and fit it, from the run's newest checkpoint on; returns the last scalars.

    Args:
        on_resume: called with the step of that checkpoint before the first step.
    """
    torch.manual_seed(run.recipe.trainer.seed)  # equal weights on every rank
    task, batches = run.recipe.task(place_of(run.data))
    progress = _Progress(run)
    trainer = Trainer(
        task,
        batches,
        run.recipe.trainer,
        place_of(run.folder),
        device=device,
        ranks=ranks,
        on_step=progress if ranks.rank == 0 else None,
        on_log=page_writer(run.title, run.steps),
        tell=progress.tell,
    )
    on_resume(trainer.resume())
    try:
        with _tracked(run, trainer):
            scalars = trainer.fit(run.stop_at)
    except DivergedError as error:
        if ranks.rank == 0:
            note_outcome(run.files, Outcome(DIVERGED, trainer.step, error.message, error.remedy))
            write_page(run.files, run.title, run.steps, error.message, running=False)
        raise
    if ranks.rank == 0:
        since = 0 if trainer.validated is None else trainer.validated.since
        note_outcome(run.files, Outcome(FINISHED, trainer.step, since=since))
    return scalars


@contextmanager
def _tracked(run: TrainingRun, trainer: Trainer) -> Iterator[None]:
    """Log what the trainer of rank 0 does to MLflow where that is asked for: with each line of its log, and each checkpoint."""
    if not run.mlflow or trainer.ranks.rank:
        yield
        return
    tracking = Tracking(run.mlflow, run.title, run.recipe.identity(), trainer.tell)
    config, shown = run.recipe.trainer, trainer.on_step

    def on_step(step: int, scalars: dict[str, float]) -> None:
        if shown is not None:
            shown(step, scalars)
        if step % config.log_every == 0 or step % config.checkpoint_every == 0 or step == run.steps:
            tracking.log(step, scalars)

    trainer.on_step = on_step
    finished = False
    try:
        yield
        finished = True
    finally:
        tracking.end(finished)


def trained_module(run: TrainingRun) -> nn.Module:
    """Return the averaged module of the run's last checkpoint, or of its best validation where it may stop early.

    Raises:
        VoiceError: where the run has not reached its end, or its last checkpoint is damaged.
        DivergedError: where weights are not finite.
    """
    state = load_newest(run.files)
    step = 0 if state is None else state["step"]
    if state is None or not (step >= run.recipe.trainer.steps or run.ended):
        raise VoiceError(f"{run.folder}: at step {step} of {run.steps}", "run the same command again: it goes on")
    weights = load_best(run.files)["ema"] if run.recipe.trainer.patience else state["ema"]
    if not all(bool(value.isfinite().all()) for value in weights.values()):
        raise DivergedError(f"{run.folder}: weights of step {step} are not finite", "lower trainer.learning_rate")
    module = run.recipe.module()
    module.load_state_dict(weights)
    return module.eval()


def write_result(run: TrainingRun, output: str | Path, **card: Any) -> None:
    """Write what the finished run ends in; `card` are further fields of its card."""
    module, name = trained_module(run), str(output).rstrip("/").rsplit("/", 1)[-1]
    with _output_folder(str(output)) as folder:
        run.recipe.write(folder, module, run.meta, name, **card)


@contextmanager
def _output_folder(output: str) -> Iterator[Path]:
    """Give a local folder to write to, and put its files where they belong afterwards, the card last."""
    if not is_remote(output):
        yield Path(output)
        return
    storage = Storage(output)
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
        for path in sorted(Path(folder).iterdir(), key=lambda path: path.suffix == ".json"):
            patiently(partial(storage.write, path.name, path.read_bytes()), f"writing {storage.path(path.name)}")


class _Progress:
    """Rank 0's step, losses and speed in `progress.json`, for whoever shows the progress, and what went wrong meanwhile."""

    def __init__(self, run: TrainingRun) -> None:
        self._files, self._steps, self._next, self._trouble = run.files, run.steps, 0.0, ""
        self._every = REPORT_EVERY_S[is_remote(run.folder)]
        self._began: tuple[int, float] | None = None  # step and time of the first report

    def tell(self, trouble: str) -> None:
        self._trouble = trouble

    def __call__(self, step: int, scalars: dict[str, float]) -> None:
        now = time.monotonic()
        if now >= self._next or step == self._steps:
            self._next = now + self._every
            first_step, began = self._began = self._began or (step, now)
            shown = {name: value for name, value in scalars.items() if name.endswith("loss") or "validation/" in name}
            speed = {"steps_per_second": (step - first_step) / (now - began)} if now > began else {}
            told = {"trouble": self._trouble} if self._trouble else {}
            values = {"step": step, **finite(shown | speed), **told, "time": round(time.time(), 2)}
            with suppress(Exception):  # a store out of reach must not end the training over its progress
                _write_json(self._files, PROGRESS, values)


def read_progress(run: TrainingRun) -> dict[str, Any]:
    """Return what rank 0 reported last; empty before the first step.

    `step`, losses (None where not finite), `steps_per_second`, `time` (seconds since 1970), and `trouble`.
    """
    try:
        progress: dict[str, Any] = json.loads(run.files.read(PROGRESS))
    except Exception:  # not there yet, or a store out of reach: it is looked for again
        return {}
    return progress


def _write_json(files: Files, name: str, value: Any) -> None:
    files.write(name, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def parameters_of(run: TrainingRun) -> int:
    """Return the number of weights of the module that is trained."""
    with torch.device("meta"):
        module = run.recipe.module()
    return sum(p.numel() for p in module.parameters())
