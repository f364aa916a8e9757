"""Recipes of acoustic models: a run ends in a voice."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from torch import nn

from flowtts_core import acoustic
from flowtts_core.acoustic import ACOUSTIC_MODELS, AcousticModel, MatchaConfig, ZipVoiceConfig
from flowtts_core.audio.mel import MelConfig
from flowtts_core.config import from_dict, spec_of
from flowtts_core.errors import ConfigError
from flowtts_core.flow import Consistency, Distillation, GuidedDistillation
from flowtts_core.sampling import Sampling
from flowtts_core.text import frontends
from flowtts_core.training.batches import AcousticBatches, Batches
from flowtts_core.training.examples import DatasetMeta, read_features
from flowtts_core.training.files import Files
from flowtts_core.training.tasks import AcousticTask, DistillationTask, few_steps
from flowtts_core.training.trainer import Task, TrainConfig
from flowtts_core.vocoder.files import LoadedVocoder
from flowtts_core.voice.parts import FlowVoice, find_vocoder, load_parts, save_voice
from jobs.training.recipes.base import Recipe, local_copy


@dataclass(frozen=True)
class AcousticRecipe(Recipe):
    """How an acoustic model is trained.

    Attributes:
        name: in `ACOUSTIC_MODELS`. Mel, its statistics, and the numbers of symbols and speakers are those of the data.
        frames_per_batch: budget of padded frames of a batch, which the workers share: many of them want a larger one.
        probe_items: utterances whose synthesis is logged now and then.
        vocoder: a voice or vocoder folder, or a bundled voice's name, that goes into the voice; "" is Griffin-Lim.
    """

    name: str = "matcha"
    model: Any = field(default_factory=MatchaConfig)
    frames_per_batch: int = 8000
    probe_items: int = 4
    vocoder: str = ""

    def fit(self, data: Files) -> Self:
        fitted = super().fit(data)
        found = fitted.find_vocoder().vocoder  # fail now rather than after hours
        made: MelConfig = fitted.model.mel.as_read_by(found.features)
        found.features.require(made, f"vocoder {self.vocoder or 'griffin_lim'} and data")
        return fitted

    def identity(self) -> dict[str, Any]:
        settings = super().identity()
        del settings["vocoder"]  # it is only put into the voice
        return settings

    def fit_model(self, data: Files, meta: DatasetMeta) -> Any:
        mels, tokens = meta.feature_sets
        read_features(data, tokens)
        statistics = read_features(data, mels)
        return having(
            self.model,
            mel=meta.mel,
            mel_mean=statistics["mean"],
            mel_std=statistics["std"],
            n_symbols=frontends.build(meta.frontend).n_symbols,
            n_speakers=max(1, len(meta.speakers)),
        )

    def module(self) -> AcousticModel:
        return acoustic.build(spec_of(self.name, self.model))

    def task(self, data: Path | Files) -> tuple[Task, Batches]:
        examples, model = self.examples(data, ["tokens", "mel"]), self.module()
        batches = AcousticBatches(examples, self.frames_per_batch, self.trainer.seed)
        probe = batches.items(range(min(self.probe_items, len(examples))))
        return AcousticTask(model, probe, self.find_vocoder().vocoder), batches

    def write(self, folder: Path, module: nn.Module, meta: DatasetMeta, name: str, **card: Any) -> None:
        assert isinstance(module, AcousticModel)
        paired = self.find_vocoder()
        own = {
            "licence": meta.licence,
            "source": meta.source,
            "languages": (meta.frontend["language"],),
            "speakers": meta.speakers if module.n_speakers > 1 else (),
            "sampling": module.sampling,
        }
        save_voice(
            folder,
            name=name,
            acoustic=module,
            acoustic_spec=spec_of(self.name, self.model),
            vocoder=paired.vocoder,
            vocoder_spec=paired.spec,
            frontend=meta.frontend,
            **{**own, **card},
        )

    def find_vocoder(self) -> LoadedVocoder:
        """Load the vocoder; raises as `flowtts_core.voice.parts.find_vocoder`."""
        with local_copy(self.vocoder) as folder:
            return find_vocoder(folder, self.model.mel)


def having(model: Any, **settings: Any) -> Any:
    """Return a model's config with those of the settings that it has; one without speakers needs no number of them."""
    known = {field.name for field in fields(model)}
    return replace(model, **{name: value for name, value in settings.items() if name in known})


@dataclass(frozen=True)
class DistillationRecipe(AcousticRecipe):
    """How the acoustic model of a voice is taught to take fewer steps: sizes, features and vocoder are the voice's.

    A model that can be told the weight of the guidance is told it; the student of another guided one has its voice's in its
    weights. Neither needs a second call.

    Attributes:
        teacher: the voice: a bundled name, a folder or an s3:// place.
        how: the method, with the steps that the voice will take.
    """

    teacher: str = ""
    how: Any = field(default_factory=Distillation)  # a Method

    def fit_model(self, data: Files, meta: DatasetMeta) -> Any:
        card = self._taught_by().card
        model = from_dict(
            ACOUSTIC_MODELS[card.parts["acoustic"]["name"]][0],
            {k: v for k, v in card.parts["acoustic"].items() if k != "name"},
        )
        fitted = replace(self, name=card.parts["acoustic"]["name"], model=model)
        fitted = super(DistillationRecipe, fitted).fit_model(data, meta)
        model.mel.require(fitted.mel, f"voice {self.teacher} and data")
        same = [name for name in ("n_symbols", "n_speakers") if hasattr(model, name)]
        if any(getattr(model, name) != getattr(fitted, name) for name in same):
            told = ", ".join(f"{name} {getattr(model, name)} and {getattr(fitted, name)}" for name in same)
            raise ConfigError(f"voice {self.teacher} and data differ: {told}", "give the data it was trained on")
        return replace(model, embeds_guidance=True) if hasattr(model, "embeds_guidance") else model

    def fit(self, data: Files) -> Self:
        named = replace(self, name=self._taught_by().card.parts["acoustic"]["name"])
        return super(DistillationRecipe, named).fit(data)

    def task(self, data: Path | Files) -> tuple[Task, Batches]:
        examples, voice, model = self.examples(data, ["tokens", "mel"]), self._taught_by(), self.module()
        begin_as(model, voice.acoustic)
        batches = AcousticBatches(examples, self.frames_per_batch, self.trainer.seed)
        probe = batches.items(range(min(self.probe_items, len(examples))))
        sampling, updates = voice.card.sampling, self.trainer.steps
        return DistillationTask(model, voice.acoustic, self.how, probe, voice.vocoder, sampling, updates), batches

    def write(self, folder: Path, module: nn.Module, meta: DatasetMeta, name: str, **card: Any) -> None:
        assert isinstance(module, AcousticModel)
        teacher = self._taught_by().card
        own = {
            "sampling": few_steps(teacher.sampling, self.how, module),
            "licence": teacher.licence,
            "source": teacher.source,
            "languages": teacher.languages,
            "speakers": teacher.speakers,
            "description": f"{teacher.description}{'; ' * bool(teacher.description)}{self._said(module, teacher.sampling)}",
        }
        super().write(folder, module, meta, name, **{**own, **card})

    def _said(self, module: AcousticModel, taught_by: Sampling) -> str:
        said = f"distilled to {self.how.steps} step{'s' * (self.how.steps > 1)}"
        if not module.guided:
            return said
        told = (
            "guidance is embedded" if module.embeds_guidance else f"guidance {taught_by.guidance:g} is in its weights"
        )
        return f"{said}; {told}, without a second call"

    def _taught_by(self) -> FlowVoice:
        with local_copy(self.teacher) as folder:
            return load_parts(folder)


def begin_as(student: nn.Module, teacher: nn.Module) -> None:
    """Copy the teacher's weights; those by which the student alone is told the guidance stay as they are."""
    found = student.load_state_dict(teacher.state_dict(), strict=False)
    wrong = [*found.unexpected_keys, *(name for name in found.missing_keys if "guidance" not in name)]
    if wrong:
        raise ConfigError(f"the teacher's weights do not fit: {', '.join(wrong[:4])}", "name another teacher")


def matcha() -> AcousticRecipe:
    """Return the compact Matcha-TTS voice (about 5 M parameters): hours on two cores, minutes on a GPU."""
    return AcousticRecipe(trainer=TrainConfig(steps=20_000, learning_rate=5e-4, warmup_steps=500))


def matcha_debug() -> AcousticRecipe:
    """Return `matcha` with a tiny model and few steps."""
    trainer = TrainConfig(steps=20, warmup_steps=5, log_every=5, checkpoint_every=5, sample_every=20)
    return replace(matcha(), model=MatchaConfig.debug(), trainer=trainer, frames_per_batch=1200, probe_items=1)


def natural_acoustic() -> AcousticRecipe:
    """Return the acoustic model of `natural`: `matcha` with windows of 192 frames, some 13 hours of one core."""
    trainer = TrainConfig(
        steps=80_000, learning_rate=8e-4, warmup_steps=300, decay=0.15, log_every=10, checkpoint_every=250, keep=3
    )
    model = MatchaConfig(
        speaker_channels=16,
        encoder_dropout=0.0,  # a teacher reads a text always alike, and there are more texts than can be learnt by heart
        prenet_dropout=0.0,
        predicts="data",
        segment_frames=192,
    )
    return replace(matcha(), model=model, trainer=trainer, frames_per_batch=6000)


def distillation() -> DistillationRecipe:
    """Return how a voice is distilled to fewer steps of the flow: 1,000 updates of its decoder."""
    trainer = TrainConfig(
        steps=1000, learning_rate=3e-4, warmup_steps=50, ema_decay=0.99, log_every=10, checkpoint_every=100
    )
    return DistillationRecipe(trainer=trainer, frames_per_batch=6000)


def distillation_debug() -> DistillationRecipe:
    """Return `distillation` with few steps."""
    trainer = TrainConfig(steps=8, warmup_steps=2, log_every=2, checkpoint_every=4, sample_every=8)
    return replace(distillation(), trainer=trainer, frames_per_batch=1200, probe_items=1)


def guided_distillation() -> DistillationRecipe:
    """Return how a guided voice is distilled: the last tenth of the updates is the later stage."""
    trainer = replace(distillation().trainer, steps=4000, learning_rate=2e-4)
    return replace(distillation(), trainer=trainer, how=GuidedDistillation(decay=0.999))


def guided_distillation_debug() -> DistillationRecipe:
    """Return `guided_distillation` with few steps, half of them of the later stage."""
    return replace(distillation_debug(), how=GuidedDistillation(later=0.5, decay=0.9))


def acoustic_consistency() -> DistillationRecipe:
    """Return how a voice is distilled to one step by consistency."""
    trainer = replace(distillation().trainer, steps=4000, learning_rate=2e-4)
    return replace(distillation(), trainer=trainer, how=Consistency(gap=0.05, deviation=1.0, latest=0.95, decay=0.99))


def acoustic_consistency_debug() -> DistillationRecipe:
    """Return `acoustic_consistency` with few steps."""
    return replace(distillation_debug(), how=acoustic_consistency().how)


def zipvoice() -> AcousticRecipe:
    """Return a compact ZipVoice (18 M parameters), for many speakers: days on two cores, hours on a GPU."""
    trainer = TrainConfig(steps=100_000, learning_rate=5e-4, warmup_steps=2000, ema_decay=0.9995, checkpoint_every=1000)
    return AcousticRecipe(name="zipvoice", model=ZipVoiceConfig(), trainer=trainer, frames_per_batch=12_000)


def zipvoice_base() -> AcousticRecipe:
    """Return ZipVoice in its published sizes, 123 M parameters, with batches of eight times 500 s: for GPUs."""
    trainer = replace(zipvoice().trainer, steps=500_000, learning_rate=2e-4, warmup_steps=5000, ema_decay=0.9999)
    return replace(zipvoice(), model=ZipVoiceConfig.published(), trainer=trainer, frames_per_batch=375_000)


def zipvoice_debug() -> AcousticRecipe:
    """Return `zipvoice` with a tiny model and few steps."""
    return replace(
        zipvoice(),
        model=ZipVoiceConfig.debug(),
        trainer=matcha_debug().trainer,
        frames_per_batch=1200,
        probe_items=1,
    )


def bundled_acoustic() -> AcousticRecipe:
    """Return the bundled voice's acoustic model: `matcha` with windows of 160 frames, within an hour or so of one core."""
    trainer = TrainConfig(steps=4500, learning_rate=8e-4, warmup_steps=300, log_every=10, checkpoint_every=250)
    return replace(matcha(), model=MatchaConfig(segment_frames=160), trainer=trainer)
