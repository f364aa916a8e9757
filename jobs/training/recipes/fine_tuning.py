"""Fine-tuning: an acoustic model that goes on from a voice or a checkpoint, with other people's speech."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from flowtts_core.acoustic import ACOUSTIC_MODELS, AcousticModel
from flowtts_core.config import from_dict
from flowtts_core.errors import ConfigError, TextError, VoiceError
from flowtts_core.sampling import Sampling
from flowtts_core.training.batches import AcousticBatches, Batches
from flowtts_core.training.checkpoints import checkpoint_steps, load_checkpoint, load_newest
from flowtts_core.training.examples import DatasetMeta
from flowtts_core.training.files import Files
from flowtts_core.training.tasks import AcousticTask
from flowtts_core.training.trainer import Task, TrainConfig
from flowtts_core.voice.card import require_flow
from flowtts_core.voice.parts import load_parts
from jobs.training.recipes.acoustic import AcousticRecipe, having
from jobs.training.recipes.base import local_copy, readers_of, speaker_rows

RUN_RECORD = "run.json"  # of the folder of a training run
SPEAKERS = "spk_emb.weight"  # [speakers, channels], of models with several


@dataclass(frozen=True)
class Start:
    """What a training goes on from.

    Attributes:
        spec: of the acoustic model.
        weights: of the acoustic model.
        has_vocoder: whether it is a voice, which brings its own.
    """

    spec: dict[str, Any]
    frontend: dict[str, Any]
    speakers: tuple[str, ...]
    weights: dict[str, Tensor]
    sampling: Sampling = field(default_factory=Sampling)
    licence: str = ""
    source: str = ""
    has_vocoder: bool = False


def read_start(place: str) -> Start:
    """Read a voice (bundled name, folder, s3:// place), or the folder of a training run, or one of its checkpoints.

    Raises:
        VoiceError: where there is neither, or it is damaged.
        ConfigError: for a voice of another kind, which cannot be trained.
    """
    path = Path(place)
    if path.suffix == ".pt":
        return _of_run(path.parent, path)
    if (path / RUN_RECORD).is_file():
        return _of_run(path, None)
    with local_copy(place) as folder:
        require_flow(folder, "fine-tuned")
        voice = load_parts(folder)
    card = voice.card
    return Start(
        card.parts["acoustic"],
        card.parts["frontend"],
        card.speakers,
        voice.acoustic.state_dict(),
        card.sampling,
        card.licence,
        card.source or card.name,
        has_vocoder=True,
    )


def _of_run(run: Path, checkpoint: Path | None) -> Start:
    try:
        record = json.loads((run / RUN_RECORD).read_text(encoding="utf-8"))
        recipe, data = record["recipe"], DatasetMeta.load(Path(record["data_folder"]))
        if recipe["name"] not in ACOUSTIC_MODELS:
            raise VoiceError(f"{run}: trained {recipe['name']}, which is no acoustic model", "give a run of a voice")
    except (OSError, ValueError, KeyError) as error:
        remedy = "give a voice, or a checkpoint in the folder that `flowtts train` wrote it to"
        raise VoiceError(f"{checkpoint or run}: no {RUN_RECORD} of a training beside it ({error})", remedy) from error
    state = _state(run, checkpoint)
    speakers = data.speakers if len(data.speakers) > 1 else ()
    spec = {"name": recipe["name"], **recipe["model"]}
    return Start(spec, recipe["frontend"], speakers, state["ema"], licence=data.licence, source=data.source)


def _state(run: Path, checkpoint: Path | None) -> dict[str, Any]:
    if checkpoint is None:
        state = load_newest(run)
    else:
        step = next((step for step in checkpoint_steps(run) if f"{step:07d}" in checkpoint.name), None)
        state = None if step is None else load_checkpoint(run, step)
    if state is None:
        raise VoiceError(f"{checkpoint or run}: no such checkpoint", f"{run} has {checkpoint_steps(run) or 'none'}")
    return state


@dataclass(frozen=True)
class FineTuningRecipe(AcousticRecipe):
    """How a voice learns to speak like others: sizes, features and symbols are its own.

    Where it has several speakers, those that it does not know join its table, before those it has; a voice of one speaker
    becomes another's. The speakers it had before may change, since nothing rehearses them.

    Attributes:
        voice: what it goes on from: see `read_start`.
        speaker: name of a corpus's reader where the corpus names none (default: the corpus's own name).
        frozen: beginnings of the names of weights that stay as they are ("encoder.", "decoder.", "encoder.emb.").
        dropout: of the encoder while training; small corpora are learnt by heart without.
    """

    voice: str = ""
    speaker: str = ""
    frozen: tuple[str, ...] = ()
    dropout: float = 0.1

    def fit(self, data: Files) -> Self:
        if not self.voice:
            raise ConfigError("fine-tuning needs a voice", "flowtts train data/ --from VOICE -o voices/mine")
        start, meta = read_start(self.voice), DatasetMeta.load(data)
        rate = start.spec["mel"]["sample_rate"]
        if rate != meta.mel.sample_rate:
            raise ConfigError(
                f"{self.voice} speaks at {rate} Hz, and the data were prepared at {meta.mel.sample_rate}",
                f"flowtts prepare CORPUS -o OTHER_FOLDER --resample --like {self.voice}",
            )
        frontend = meta.with_features({}, self.frontend).frontend
        own = replace(
            self,
            name=start.spec["name"],
            mel=start.spec["mel"],
            frontend=frontend if _same_tokens(frontend, start.frontend) else start.frontend,
            vocoder=self.vocoder or (self.voice if start.has_vocoder else ""),
        )
        try:
            return super(FineTuningRecipe, own).fit(data)
        except TextError as error:
            here = data.path().rstrip("/")
            remedy = f"flowtts prepare {here} -o {here} --like {self.voice}"
            raise TextError(f"{error.message}, which is that of {self.voice}", remedy) from error

    def fit_model(self, data: Files, meta: DatasetMeta) -> Any:
        start = read_start(self.voice)
        super().fit_model(data, meta)  # requires that the features are there
        config = ACOUSTIC_MODELS[start.spec["name"]][0]
        model = from_dict(config, {k: v for k, v in start.spec.items() if k != "name"})
        model.mel.require(meta.mel, f"voice {self.voice} and data")
        speakers = self.speakers(start, meta)
        return having(model, n_speakers=max(1, len(speakers)), encoder_dropout=self.dropout, dropout=self.dropout)

    def speakers(self, start: Start, meta: DatasetMeta) -> tuple[str, ...]:
        """Return the speakers of the fine-tuned voice, in the order of its table; none for a voice of one.

        Raises:
            ConfigError: where a voice of one speaker is to learn several.
        """
        model: Any = ACOUSTIC_MODELS[start.spec["name"]][1]
        if model.prompted != "none":  # it speaks as anyone's clip does
            return ()
        if SPEAKERS not in start.weights:
            if len(meta.speakers) > 1:
                raise ConfigError(
                    f"{self.voice} has one speaker and no table of speakers; the data have {len(meta.speakers)}",
                    "give clips of one speaker, or a voice with several",
                )
            return ()
        readers = readers_of(meta, self.speaker)
        return *(name for name in readers if name not in start.speakers), *start.speakers

    def task(self, data: Path | Files) -> tuple[Task, Batches]:
        start, model = read_start(self.voice), self.module()
        examples = self.examples(data, ["tokens", "mel"])
        speakers = self.speakers(start, examples.meta)
        model.load_state_dict(grown(start.weights, len(speakers)))
        for name, weight in model.named_parameters():
            weight.requires_grad_(not name.startswith(self.frozen))
        self._require_something_to_learn(model)
        rows = speaker_rows(readers_of(examples.meta, self.speaker), speakers)
        batches = AcousticBatches(examples, self.frames_per_batch, self.trainer.seed, rows)
        probe = batches.items(range(min(self.probe_items, len(examples))))
        return AcousticTask(model, probe, self.find_vocoder().vocoder, start.sampling), batches

    def _require_something_to_learn(self, model: nn.Module) -> None:
        names = [name for name, _ in model.named_parameters()]
        unknown = [part for part in self.frozen if not any(name.startswith(part) for name in names)]
        if unknown or not any(weight.requires_grad for weight in model.parameters()):
            parts = ", ".join(dict.fromkeys(f"{name.split('.')[0]}." for name in names))
            said = f"no weights begin with {unknown[0]!r}" if unknown else "every weight is frozen"
            raise ConfigError(f"frozen = {list(self.frozen)}: {said}", f"the parts are {parts}")

    def write(self, folder: Path, module: nn.Module, meta: DatasetMeta, name: str, **card: Any) -> None:
        start = read_start(self.voice)
        fields = {
            "sampling": start.sampling,
            "licence": ", ".join(dict.fromkeys(licence for licence in (start.licence, meta.licence) if licence)),
            "source": f"{meta.source or 'a corpus'}; fine-tuned from {start.source}",
            "speakers": self.speakers(start, meta),
        }
        assert isinstance(module, AcousticModel)
        super().write(folder, module, meta, name, **{**fields, **card})


def _same_tokens(own: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether both front ends write a symbol with one token, whatever language each reads."""
    if own["name"] != other["name"] or own.get("add_blank") != other.get("add_blank"):
        return False
    mine, theirs = own.get("table"), other.get("table")
    if mine is None or theirs is None:
        return own.get("symbols") == other.get("symbols") and mine is theirs
    shared = all(mine[symbol] == theirs[symbol] for symbol in mine.keys() & theirs.keys())
    added = {token for symbol, token in mine.items() if symbol not in theirs}
    return shared and not added & set(theirs.values())


def grown(weights: dict[str, Tensor], speakers: int) -> dict[str, Tensor]:
    """Return weights for so many speakers; the new ones come first, each the mean of those that are there."""
    if not speakers:
        return weights
    table = weights[SPEAKERS]
    new = table.mean(0, keepdim=True).expand(speakers - len(table), -1)
    return {**weights, SPEAKERS: torch.cat([new, table])}


def fine_tuning() -> FineTuningRecipe:
    """Return how a voice is fine-tuned on ten minutes to an hour of speech: at most 3,000 steps, an hour of one core.

    Such a corpus is soon learnt by heart: the weights that its held-out tenth likes best are kept.
    """
    trainer = TrainConfig(
        steps=3000,
        learning_rate=2e-4,
        warmup_steps=100,
        decay=0.5,
        ema_decay=0.995,
        log_every=10,
        checkpoint_every=100,
        validation=0.1,
        patience=6,
    )
    return FineTuningRecipe(trainer=trainer, frames_per_batch=6000)


def fine_tuning_debug() -> FineTuningRecipe:
    """Return `fine_tuning` with few steps."""
    trainer = TrainConfig(steps=8, warmup_steps=2, log_every=2, checkpoint_every=4, sample_every=8, validation=0.1)
    return replace(fine_tuning(), trainer=trainer, frames_per_batch=1200, probe_items=1)
