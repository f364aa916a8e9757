"""One training run: its identity and folder, what each worker does, and the voice or vocoder it ends in."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flowtts_core.acoustic import ACOUSTIC_MODELS
from flowtts_core.config import build, fingerprint, spec_of, to_dict
from flowtts_core.errors import TextError, VoiceError
from flowtts_core.text.symbols import symbol_table
from flowtts_core.training.batches import AcousticBatches, Batches, VocoderBatches
from flowtts_core.training.checkpoints import latest_checkpoint, load_newest
from flowtts_core.training.distributed import number_of_first
from flowtts_core.training.examples import META, DatasetMeta, Examples
from flowtts_core.training.tasks import AcousticTask, VocoderTask
from flowtts_core.training.trainer import Task, Trainer
from flowtts_core.vocoder import VOCODERS, GriffinLimConfig, Vocoder
from flowtts_core.vocoder.files import CARD as VOCODER_CARD
from flowtts_core.vocoder.files import LoadedVocoder, load_vocoder, save_vocoder
from flowtts_core.voice import load_voice, save_voice
from jobs.recipes import AcousticRecipe, Recipe, VocoderRecipe

RECORD, PROGRESS = "run.json", "progress.json"
_BOOKKEEPING = ("log_every", "checkpoint_every", "sample_every", "keep")  # change nothing of what is trained
_REPORT_EVERY_S = 0.5


@dataclass(frozen=True)
class TrainingRun:
    """Everything a worker needs; the folders must be seen by all workers.

    Attributes:
        folder: of checkpoints, logs and `run.json`; its name holds the fingerprint of configuration, data and world size.
        recipe: fitted to the data.
        vocoder: a voice or vocoder folder, or a bundled voice's name, that pairs with an acoustic model; "" is Griffin-Lim.
    """

    folder: str
    data: str
    recipe: Recipe
    world_size: int
    vocoder: str = ""

    @property
    def steps(self) -> int:
        return self.recipe.trainer.steps

    @property
    def last_step(self) -> int:
        """The step of the newest checkpoint, 0 where there is none."""
        found = latest_checkpoint(Path(self.folder))
        return int(found.stem.rsplit("-", 1)[-1]) if found else 0


def open_run(runs: Path, data: Path, recipe: Recipe, world_size: int = 1, vocoder: str = "") -> TrainingRun:
    """Make or find the folder of this very run below `runs`: other settings, data or worker counts get another folder.

    Raises:
        TextError: when the data is not prepared.
        VoiceError, ConfigError: when there is no such vocoder, or it does not read the mel of the data.
    """
    fitted = fit_to_data(recipe, data)
    if isinstance(fitted, AcousticRecipe):
        _require_vocoder(fitted, vocoder)
    identity = {"recipe": to_dict(fitted), "data": data_fingerprint(data), "world_size": world_size}
    for name in _BOOKKEEPING:
        del identity["recipe"]["trainer"][name]  # type: ignore[index]
    folder = runs.absolute() / f"{fitted.name}-{fingerprint(identity)}"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / RECORD).exists():
        _write_json(folder / RECORD, {**identity, "data_folder": str(data)})
    return TrainingRun(str(folder), str(data.absolute()), fitted, world_size, vocoder)


def fit_to_data(recipe: Recipe, data: Path) -> Recipe:
    """The recipe with mel, statistics, symbols and speakers of a prepared folder."""
    meta = DatasetMeta.load(data)
    if isinstance(recipe, VocoderRecipe):
        return replace(recipe, model=replace(recipe.model, mel=meta.mel))
    path = data / "statistics.json"
    if not path.exists():
        raise TextError(f"{data}: no {path.name}", "make the folder with `flowtts prepare`")
    statistics = json.loads(path.read_text(encoding="utf-8"))
    model = replace(
        recipe.model,
        mel=meta.mel,
        mel_mean=statistics["mel_mean"],
        mel_std=statistics["mel_std"],
        n_symbols=len(symbol_table(meta.frontend.symbols)),
        n_speakers=max(1, len(meta.speakers)),
    )
    return replace(recipe, model=model)


def data_fingerprint(data: Path) -> str:
    """Changes with the settings, the statistics, or the size of any file of a prepared folder."""
    texts = [(data / name).read_text(encoding="utf-8") for name in (META, "statistics.json") if (data / name).exists()]
    return fingerprint([texts, [[file.name, file.stat().st_size] for file in sorted(data.glob("*.parquet"))]])


def find_vocoder(name: str, recipe: AcousticRecipe) -> LoadedVocoder:
    """The vocoder of a vocoder folder, of a voice (folder or bundled name), or Griffin-Lim for an empty name."""
    if not name:
        spec = spec_of("griffin_lim", GriffinLimConfig(mel=recipe.model.mel))
        return LoadedVocoder(build(VOCODERS, spec), spec)
    if (Path(name) / VOCODER_CARD).is_file():
        return load_vocoder(Path(name))
    voice = load_voice(name)
    return LoadedVocoder(voice.vocoder, voice.card.vocoder)


def _require_vocoder(recipe: AcousticRecipe, vocoder: str) -> None:
    """Fail now rather than after hours: the vocoder must read the mel of the data."""
    found = find_vocoder(vocoder, recipe).vocoder
    found.mel_config.require(recipe.model.mel, f"vocoder {vocoder or 'griffin_lim'} and data")


def train_rank(
    run: TrainingRun,
    rank: int = 0,
    *,
    device: torch.device | str = "cpu",
    reduce_gradients: Callable[[list[nn.Parameter]], None] | None = None,
    on_checkpoint: Callable[[int, dict[str, float]], None] | None = None,
    stop_at: int | None = None,
) -> dict[str, float]:
    """What one worker does: build the task and fit it, from the run's newest checkpoint on; returns the last scalars.

    Args:
        on_checkpoint: called with (step, scalars) after each checkpoint, by every rank.
        stop_at: stop at this step, as if cut there.
    """
    task, batches = make_task(run)
    trainer = Trainer(
        task,
        batches,
        run.recipe.trainer,
        Path(run.folder),
        device=device,
        rank=rank,
        world_size=run.world_size,
        reduce_gradients=reduce_gradients,
        agree=None if reduce_gradients is None else number_of_first,
        on_checkpoint=None if on_checkpoint is None else lambda path, step, scalars: on_checkpoint(step, scalars),
        on_step=_ProgressFile(run) if rank == 0 else None,
    )
    return trainer.fit(stop_at)


def make_task(run: TrainingRun) -> tuple[Task, Batches]:
    """The task with freshly initialised weights (equal on every rank), and its batches."""
    recipe, folder = run.recipe, Path(run.data)
    torch.manual_seed(recipe.trainer.seed)
    if isinstance(recipe, AcousticRecipe):
        examples = Examples(folder, ["tokens", "mel"], recipe.limit)
        model = build(ACOUSTIC_MODELS, spec_of(recipe.name, recipe.model))
        batches = AcousticBatches(examples, recipe.frames_per_batch, recipe.trainer.seed)
        probe = batches.items(range(min(recipe.probe_items, len(examples))))
        return AcousticTask(model, probe, find_vocoder(run.vocoder, recipe).vocoder), batches
    examples = Examples(folder, ["mel", "audio"], recipe.limit)
    vocoder = build(VOCODERS, spec_of(recipe.name, recipe.model))
    crops = VocoderBatches(examples, recipe.batch_size, recipe.crop_frames, recipe.trainer.seed)
    sample = VocoderBatches(examples, recipe.batch_size, min(recipe.probe_frames, int(examples.frames.max())), 1)
    return VocoderTask(vocoder, sample.at(0, 0, 1), recipe.task), crops


def trained_module(run: TrainingRun) -> nn.Module:
    """The averaged module of the run's last checkpoint.

    Raises:
        VoiceError: where the run has not reached its end, or its last checkpoint is damaged.
    """
    state = load_newest(Path(run.folder))
    step = 0 if state is None else state["step"]
    if state is None or step < run.steps:
        raise VoiceError(f"{run.folder}: at step {step} of {run.steps}", "run the same command again: it goes on")
    table = ACOUSTIC_MODELS if isinstance(run.recipe, AcousticRecipe) else VOCODERS
    module: nn.Module = build(table, spec_of(run.recipe.name, run.recipe.model))
    module.load_state_dict(state["ema"])
    return module.eval()


def write_result(run: TrainingRun, output: Path, *, half: bool = False) -> None:
    """Write the finished run's voice, or its vocoder folder."""
    recipe, meta, module = run.recipe, DatasetMeta.load(Path(run.data)), trained_module(run)
    spec = spec_of(recipe.name, recipe.model)
    if isinstance(recipe, VocoderRecipe):
        assert isinstance(module, Vocoder)
        save_vocoder(output, module, spec, licence=meta.licence, source=meta.source, steps=run.steps)
        return
    paired = find_vocoder(run.vocoder, recipe)
    save_voice(
        output,
        name=output.name,
        acoustic=module,  # type: ignore[arg-type]
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


class _ProgressFile:
    """Rank 0's step and loss in `progress.json`, for whoever shows the progress, at most twice a second."""

    def __init__(self, run: TrainingRun) -> None:
        self._path, self._steps, self._next = Path(run.folder, PROGRESS), run.steps, 0.0

    def __call__(self, step: int, scalars: dict[str, float]) -> None:
        now = time.monotonic()
        if now >= self._next or step == self._steps:
            self._next = now + _REPORT_EVERY_S
            losses = {name: value for name, value in scalars.items() if name.endswith("loss")}
            _write_json(self._path, {"step": step, **losses})


def read_progress(run: TrainingRun) -> dict[str, float]:
    """What rank 0 reported last: `step` and losses; empty before the first step."""
    try:
        progress: dict[str, float] = json.loads(Path(run.folder, PROGRESS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return progress


def _write_json(path: Path, value: Any) -> None:
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def parameters_of(run: TrainingRun) -> int:
    """Number of weights of the module that is trained."""
    table = ACOUSTIC_MODELS if isinstance(run.recipe, AcousticRecipe) else VOCODERS
    with torch.device("meta"):
        module: nn.Module = build(table, spec_of(run.recipe.name, run.recipe.model))
    return sum(p.numel() for p in module.parameters())


