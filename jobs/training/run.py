"""One training run: its identity and folder, what each worker does, and the voice or vocoder it ends in."""

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
from flowtts_core.acoustic import ACOUSTIC_MODELS
from flowtts_core.config import build, fingerprint, spec_of, to_dict
from flowtts_core.errors import TextError, VoiceError
from flowtts_core.text.frontends.symbols import symbol_table
from flowtts_core.training.batches import AcousticBatches, Batches, VocoderBatches
from flowtts_core.training.checkpoints import checkpoint_steps, load_newest
from flowtts_core.training.distributed import ALONE, Ranks
from flowtts_core.training.examples import META, DatasetMeta, Examples
from flowtts_core.training.files import Files, files_of, patiently
from flowtts_core.training.tasks import AcousticTask, VocoderTask
from flowtts_core.training.trainer import Task, Trainer
from flowtts_core.vocoder import VOCODERS, GriffinLimConfig, Vocoder
from flowtts_core.vocoder.files import CARD as VOCODER_CARD
from flowtts_core.vocoder.files import LoadedVocoder, load_vocoder, save_vocoder
from flowtts_core.voice.card import CARD as VOICE_CARD
from flowtts_core.voice.parts import load_parts, save_voice
from jobs.training.recipes import AcousticRecipe, Recipe, VocoderRecipe

RECORD, PROGRESS = "run.json", "progress.json"
_BOOKKEEPING = ("log_every", "checkpoint_every", "sample_every", "keep")  # change nothing of what is trained
STATISTICS = "statistics.json"
REPORT_EVERY_S = {False: 0.5, True: 5.0}  # by whether the run lies in an object store


def place_of(path: str | Path) -> Path | Files:
    """A local folder as a path, or an object store's."""
    return Storage(str(path)) if is_remote(str(path)) else Path(path).absolute()


def runs_of(output: str | Path) -> str:
    """Where the runs lie that end in an output."""
    return f"{files_of(place_of(output)).path().rstrip('/')}-training"


@dataclass(frozen=True)
class TrainingRun:
    """Everything a worker needs; the places must be seen by all workers.

    Attributes:
        folder: of checkpoints, logs and `run.json`; its name holds the fingerprint of configuration and data.
        recipe: fitted to the data.
        vocoder: a voice or vocoder folder, or a bundled voice's name, that pairs with an acoustic model; "" is Griffin-Lim.
        stop_at: stop at this step, as if cut there.
    """

    folder: str
    data: str
    recipe: Recipe
    vocoder: str = ""
    stop_at: int | None = None

    @property
    def files(self) -> Files:
        return files_of(place_of(self.folder))

    @property
    def steps(self) -> int:
        return self.recipe.trainer.steps if self.stop_at is None else self.stop_at

    @property
    def last_step(self) -> int:
        """The step of the newest checkpoint, 0 where there is none."""
        return (checkpoint_steps(self.files) or [0])[-1]


def open_run(runs: str | Path, data: str | Path, recipe: Recipe, vocoder: str = "") -> TrainingRun:
    """Make or find the folder of this very run below `runs`: other settings or data get another folder.

    Raises:
        TextError: when the data is not prepared.
        VoiceError, ConfigError: when there is no such vocoder, or it does not read the mel of the data.
    """
    examples = files_of(place_of(data))
    fitted = fit_to_data(recipe, examples)
    if isinstance(fitted, AcousticRecipe):
        _require_vocoder(fitted, vocoder)
    settings = to_dict(fitted)
    for name in _BOOKKEEPING:
        del settings["trainer"][name]
    identity = {"recipe": settings, "data": data_fingerprint(examples)}
    folder = f"{files_of(place_of(runs)).path().rstrip('/')}/{fitted.name}-{fingerprint(identity)}"
    this = TrainingRun(folder, examples.path().rstrip("/"), fitted, vocoder)
    if RECORD not in this.files.list():
        _write_json(this.files, RECORD, {**identity, "data_folder": str(data)})
    return this


def fit_to_data(recipe: Recipe, data: Files) -> Recipe:
    """The recipe with mel, statistics, symbols and speakers of a prepared folder."""
    meta = DatasetMeta.load(data)
    if isinstance(recipe, VocoderRecipe):
        return replace(recipe, model=replace(recipe.model, mel=meta.mel))
    if STATISTICS not in data.list():
        raise TextError(f"{data.path()}: no {STATISTICS}", "make the folder with `flowtts prepare`")
    statistics = json.loads(data.read(STATISTICS))
    model = replace(
        recipe.model,
        mel=meta.mel,
        mel_mean=statistics["mel_mean"],
        mel_std=statistics["mel_std"],
        n_symbols=len(symbol_table(meta.frontend.symbols)),
        n_speakers=max(1, len(meta.speakers)),
    )
    return replace(recipe, model=model)


def data_fingerprint(data: Files) -> str:
    """Changes with the settings, the statistics, or the size of any file of a prepared folder."""
    sizes = data.list()
    texts = [data.read(name).decode() for name in (META, STATISTICS) if name in sizes]
    return fingerprint([texts, [[name, size] for name, size in sorted(sizes.items()) if name.endswith(".parquet")]])


def find_vocoder(name: str, recipe: AcousticRecipe) -> LoadedVocoder:
    """The vocoder of a vocoder folder, of a voice (folder or bundled name), or Griffin-Lim for an empty name."""
    if not name:
        spec = spec_of("griffin_lim", GriffinLimConfig(mel=recipe.model.mel))
        return LoadedVocoder(build(VOCODERS, spec), spec)
    with _local_copy(name) as folder:
        if (Path(folder) / VOCODER_CARD).is_file():
            return load_vocoder(Path(folder))
        voice = load_parts(folder)
    return LoadedVocoder(voice.vocoder, voice.card.vocoder)


@contextmanager
def _local_copy(place: str) -> Iterator[str]:
    """A folder with the files that lie in an object store; a local name as it is."""
    if not is_remote(place):
        yield place
        return
    storage = Storage(place)
    with tempfile.TemporaryDirectory() as folder:
        for name, size in storage.list().items():
            if size >= 0:
                Path(folder, name).write_bytes(storage.read(name))
        yield folder


def _require_vocoder(recipe: AcousticRecipe, vocoder: str) -> None:
    """Fail now rather than after hours: the vocoder must read the mel of the data."""
    found = find_vocoder(vocoder, recipe).vocoder
    found.features.require(recipe.model.mel, f"vocoder {vocoder or 'griffin_lim'} and data")


def train_rank(
    run: TrainingRun,
    ranks: Ranks = ALONE,
    *,
    device: torch.device | str = "cpu",
    on_resume: Callable[[int], None] = lambda step: None,
) -> dict[str, float]:
    """What one worker does: build the task and fit it, from the run's newest checkpoint on; returns the last scalars.

    Args:
        on_resume: called with the step of that checkpoint before the first step.
    """
    task, batches = make_task(run)
    progress = _Progress(run)
    trainer = Trainer(
        task,
        batches,
        run.recipe.trainer,
        place_of(run.folder),
        device=device,
        ranks=ranks,
        on_step=progress if ranks.rank == 0 else None,
        tell=progress.tell,
    )
    on_resume(trainer.resume())
    return trainer.fit(run.stop_at)


def make_task(run: TrainingRun) -> tuple[Task, Batches]:
    """The task with freshly initialised weights (equal on every rank), and its batches."""
    recipe, data = run.recipe, place_of(run.data)
    torch.manual_seed(recipe.trainer.seed)
    if isinstance(recipe, AcousticRecipe):
        examples = Examples(data, ["tokens", "mel"], recipe.limit)
        model = build(ACOUSTIC_MODELS, spec_of(recipe.name, recipe.model))
        batches = AcousticBatches(examples, recipe.frames_per_batch, recipe.trainer.seed)
        probe = batches.items(range(min(recipe.probe_items, len(examples))))
        return AcousticTask(model, probe, find_vocoder(run.vocoder, recipe).vocoder), batches
    examples = Examples(data, ["mel", "audio"], recipe.limit)
    vocoder = build(VOCODERS, spec_of(recipe.name, recipe.model))
    crops = VocoderBatches(examples, recipe.batch_size, recipe.crop_frames, recipe.trainer.seed)
    sample = VocoderBatches(examples, recipe.batch_size, min(recipe.probe_frames, int(examples.frames.max())), 1)
    return VocoderTask(vocoder, sample.at(0), recipe.task), crops


def trained_module(run: TrainingRun) -> nn.Module:
    """The averaged module of the run's last checkpoint.

    Raises:
        VoiceError: where the run has not reached its end, or its last checkpoint is damaged.
    """
    state = load_newest(run.files)
    step = 0 if state is None else state["step"]
    if state is None or step < run.recipe.trainer.steps:
        raise VoiceError(f"{run.folder}: at step {step} of {run.steps}", "run the same command again: it goes on")
    table = ACOUSTIC_MODELS if isinstance(run.recipe, AcousticRecipe) else VOCODERS
    module: nn.Module = build(table, spec_of(run.recipe.name, run.recipe.model))
    module.load_state_dict(state["ema"])
    return module.eval()


def write_result(run: TrainingRun, output: str | Path, *, half: bool = False) -> None:
    """Write the finished run's voice, or its vocoder folder."""
    recipe, meta, module = run.recipe, DatasetMeta.load(place_of(run.data)), trained_module(run)
    spec = spec_of(recipe.name, recipe.model)
    with _output_folder(str(output)) as folder:
        if isinstance(recipe, VocoderRecipe):
            assert isinstance(module, Vocoder)
            save_vocoder(folder, module, spec, licence=meta.licence, source=meta.source, steps=run.steps)
            return
        paired = find_vocoder(run.vocoder, recipe)
        save_voice(
            folder,
            name=str(output).rstrip("/").rsplit("/", 1)[-1],
            acoustic=module,  # type: ignore[arg-type]  # a Module by its own type; the recipe says which
            acoustic_spec=spec,
            vocoder=paired.vocoder,
            vocoder_spec=paired.spec,
            frontend=meta.frontend,
            half=half,
            language=meta.frontend.language,
            licence=meta.licence,
            source=meta.source,
            speakers=meta.speakers if len(meta.speakers) > 1 else (),
        )


@contextmanager
def _output_folder(output: str) -> Iterator[Path]:
    """A local folder to write to, whose files are then put where they belong, the card last."""
    if not is_remote(output):
        yield Path(output)
        return
    storage = Storage(output)
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
        cards = (VOICE_CARD, VOCODER_CARD)
        for path in sorted(Path(folder).iterdir(), key=lambda path: path.name in cards):
            patiently(partial(storage.write, path.name, path.read_bytes()), f"writing {storage.path(path.name)}")


class _Progress:
    """Rank 0's step and loss in `progress.json`, for whoever shows the progress, and what went wrong meanwhile."""

    def __init__(self, run: TrainingRun) -> None:
        self._files, self._steps, self._next, self._trouble = run.files, run.steps, 0.0, ""
        self._every = REPORT_EVERY_S[is_remote(run.folder)]

    def tell(self, trouble: str) -> None:
        self._trouble = trouble

    def __call__(self, step: int, scalars: dict[str, float]) -> None:
        now = time.monotonic()
        if now >= self._next or step == self._steps:
            self._next = now + self._every
            losses = {name: value for name, value in scalars.items() if name.endswith("loss")}
            told = {"trouble": self._trouble} if self._trouble else {}
            with suppress(Exception):  # a store out of reach must not end the training over its progress
                _write_json(self._files, PROGRESS, {"step": step, **losses, **told})


def read_progress(run: TrainingRun) -> dict[str, Any]:
    """What rank 0 reported last: `step`, losses and `trouble`; empty before the first step."""
    try:
        progress: dict[str, Any] = json.loads(run.files.read(PROGRESS))
    except Exception:  # not there yet, or a store out of reach: it is looked for again
        return {}
    return progress


def _write_json(files: Files, name: str, value: Any) -> None:
    files.write(name, (json.dumps(value, indent=1) + "\n").encode())


def parameters_of(run: TrainingRun) -> int:
    """Number of weights of the module that is trained."""
    table = ACOUSTIC_MODELS if isinstance(run.recipe, AcousticRecipe) else VOCODERS
    with torch.device("meta"):
        module: nn.Module = build(table, spec_of(run.recipe.name, run.recipe.model))
    return sum(p.numel() for p in module.parameters())
