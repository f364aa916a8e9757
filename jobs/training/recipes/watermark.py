"""The recipe of a watermark: a run ends in a folder with the net that finds it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from flowtts_core.config import spec_of
from flowtts_core.training.batches import Batches, VocoderBatches
from flowtts_core.training.examples import DatasetMeta, read_features
from flowtts_core.training.files import Files
from flowtts_core.training.trainer import Task, TrainConfig
from flowtts_core.training.watermark import WatermarkTask, WatermarkTaskConfig
from flowtts_core.watermark.files import load_mark, save_mark
from flowtts_core.watermark.spectral import SpectralMark, SpectralMarkConfig
from jobs.training.recipes.base import Recipe, local_copy


@dataclass(frozen=True)
class WatermarkRecipe(Recipe):
    """How a watermark is trained, on the recordings of a prepared folder; their mels and texts are not looked at.

    Attributes:
        losses: gains of the clips that it is trained on.
        start: a watermark's folder, whose weights it begins with; the net of another seed by default.
        batch_size, crop_frames: crops of a batch, which the workers share, and the length of each in frames of the mel.
    """

    name: str = "spectral"
    model: Any = field(default_factory=SpectralMarkConfig)
    losses: WatermarkTaskConfig = field(default_factory=WatermarkTaskConfig)
    batch_size: int = 16
    crop_frames: int = 144
    start: str = ""

    def fit_model(self, data: Files, meta: DatasetMeta) -> Any:
        for features in meta.feature_sets:
            read_features(data, features)
        return self.model

    def module(self) -> SpectralMark:
        mark = SpectralMark(self.model)
        if self.start:
            with local_copy(self.start) as folder:
                mark.load_state_dict(load_mark(Path(folder)).state_dict())
        return mark

    def task(self, data: Path | Files) -> tuple[Task, Batches]:
        examples = self.examples(data, ["mel", "audio"])
        crops = VocoderBatches(examples, self.batch_size, self.crop_frames, self.trainer.seed)
        rate = examples.meta.mel.sample_rate
        return WatermarkTask(self.module(), rate, self.trainer.steps, crops.at(0), self.losses), crops

    def write(self, folder: Path, module: nn.Module, meta: DatasetMeta, name: str, **card: Any) -> None:
        assert isinstance(module, SpectralMark)
        notes = {"licence": meta.licence, "source": meta.source, "steps": self.trainer.steps}
        save_mark(folder, module, spec_of(self.name, self.model), **{**notes, **card})


def watermark() -> WatermarkRecipe:
    """Return the watermark that comes with the installation: a net of 0.9 M parameters finds it."""
    trainer = TrainConfig(
        steps=20_000,
        learning_rate=1e-3,
        betas=(0.9, 0.99),
        warmup_steps=200,
        decay=0.3,
        log_every=10,
        checkpoint_every=250,
    )
    return WatermarkRecipe(trainer=trainer)


def watermark_debug() -> WatermarkRecipe:
    """Return `watermark` with tiny nets and few steps."""
    trainer = TrainConfig(steps=8, warmup_steps=2, log_every=2, checkpoint_every=4, sample_every=8)
    model = SpectralMarkConfig(bits=4, width=16, layers=1)
    return replace(watermark(), model=model, trainer=trainer, batch_size=2, crop_frames=48)
