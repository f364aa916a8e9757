"""What a recipe is: the whole configuration of a training run, which fits itself to data, trains and writes its result."""

from __future__ import annotations

import abc
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from torch import nn

from cluster.storage import Storage, is_remote
from flowtts_core.config import to_dict
from flowtts_core.errors import ConfigError
from flowtts_core.training.batches import Batches
from flowtts_core.training.examples import DatasetMeta, Examples
from flowtts_core.training.files import Files
from flowtts_core.training.trainer import Task, TrainConfig
from flowtts_core.training.validation import FEWEST_CLIPS

_BOOKKEEPING = ("log_every", "checkpoint_every", "sample_every", "keep", "patience")  # change no weights


@dataclass(frozen=True)
class Recipe(abc.ABC):
    """How something is trained.

    Attributes:
        name: of the architecture, in its family's table; `model` is its config.
        limit: train on the first so many examples only.
        mel, frontend: fields in which the features to train on differ from the data folder's default.
    """

    name: str
    model: Any
    trainer: TrainConfig = field(default_factory=TrainConfig)
    limit: int | None = None
    mel: dict[str, Any] = field(default_factory=dict)
    frontend: dict[str, Any] = field(default_factory=dict)

    def fit(self, data: Files) -> Self:
        """Return the recipe with what it takes from a prepared folder.

        Raises:
            TextError: where the folder is not prepared, or lacks the recipe's features.
            ConfigError: for early stopping without validation.
            FlowTTSError: where the recipe does not go with the data.
        """
        meta = DatasetMeta.load(data).with_features(self.mel, self.frontend)
        model = self.fit_model(data, meta)
        clips = len(Examples(data, [], self.limit, mel=self.mel, frontend=self.frontend))
        validation = self.trainer.validation if clips >= FEWEST_CLIPS else 0.0
        if self.trainer.patience and not validation:
            raise ConfigError(
                f"trainer.patience = {self.trainer.patience}: nothing is held out of {clips} clips to measure by",
                f"set trainer.patience=0, or trainer.validation above 0 with {FEWEST_CLIPS} clips or more",
            )
        trainer = replace(self.trainer, validation=validation)
        return replace(self, model=model, trainer=trainer, mel=to_dict(meta.mel), frontend=meta.frontend)

    def identity(self) -> dict[str, Any]:
        """Return the settings that decide what is trained: of equal ones a run goes on with the other's checkpoints."""
        settings = to_dict(self)
        settings["trainer"] = {name: v for name, v in settings["trainer"].items() if name not in _BOOKKEEPING}
        if not settings["trainer"]["validation"]:  # as runs of versions that held nothing out
            del settings["trainer"]["validation"]
        return settings

    def examples(self, data: Path | Files, columns: list[str]) -> Examples:
        """Open the examples that a fitted recipe trains on; beside them are those that it holds out."""
        held_out = self.trainer.validation
        return Examples(data, columns, self.limit, mel=self.mel, frontend=self.frontend, validation=held_out)

    @abc.abstractmethod
    def fit_model(self, data: Files, meta: DatasetMeta) -> Any:
        """Return the model's config with what it takes from a prepared folder."""

    @abc.abstractmethod
    def module(self) -> nn.Module:
        """Build the module that is shipped, with fresh weights."""

    @abc.abstractmethod
    def task(self, data: Path | Files) -> tuple[Task, Batches]:
        """Return the task with freshly initialised weights, and its batches."""

    @abc.abstractmethod
    def write(self, folder: Path, module: nn.Module, meta: DatasetMeta, name: str, **card: Any) -> None:
        """Write a trained module.

        Args:
            meta: of the data it was trained on.
            name: of what is written.
            card: further fields of its card.
        """


def readers_of(meta: DatasetMeta, alone: str) -> tuple[str, ...]:
    """Return the speakers of a corpus; of one that names none, `alone` or else the corpus's own name."""
    return meta.speakers or (alone or Path(meta.source).stem or "new",)


def speaker_rows(readers: Sequence[str], speakers: Sequence[str]) -> list[int] | None:
    """Return the rows that a voice's table has for a corpus's readers; None for a voice of one speaker.

    Raises:
        ConfigError: for a reader that the voice does not know.
    """
    if not speakers:
        return None
    unknown = [name for name in readers if name not in speakers]
    if unknown:
        known = ", ".join(speakers)
        raise ConfigError(f"the voice has no speaker {unknown[0]!r}, which the data have", f"its speakers: {known}")
    return [speakers.index(name) for name in readers]


def without_validation(recipe: Recipe) -> Recipe:
    """Return a recipe that holds nothing out."""
    return replace(recipe, trainer=replace(recipe.trainer, validation=0.0, patience=0))


@contextmanager
def local_copy(place: str) -> Iterator[str]:
    """Copy the files of an object store to a folder for a while; a local name is given as it is."""
    if not is_remote(place):
        yield place
        return
    storage = Storage(place)
    with tempfile.TemporaryDirectory() as folder:
        for name, size in storage.list().items():
            if size >= 0:
                Path(folder, name).write_bytes(storage.read(name))
        yield folder
