"""Recipes: functions that return the whole configuration of a training run; each has a debug sibling of seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from flowtts_core.acoustic import MatchaConfig
from flowtts_core.config import override
from flowtts_core.errors import ConfigError
from flowtts_core.training.tasks import VocoderTaskConfig
from flowtts_core.training.trainer import TrainConfig
from flowtts_core.vocoder import VocosConfig
from flowtts_core.vocoder.discriminators import DiscriminatorConfig


@dataclass(frozen=True)
class AcousticRecipe:
    """How an acoustic model is trained.

    Attributes:
        name: in `ACOUSTIC_MODELS`; `model` is its config. Mel, its statistics, and the numbers of symbols and speakers
            are those of the data, whatever stands here.
        frames_per_batch: budget of padded frames of a batch, which the workers share: many of them want a larger one.
        probe_items: utterances whose synthesis is logged now and then.
        limit: train on the first so many examples only.
    """

    name: str = "matcha"
    model: Any = field(default_factory=MatchaConfig)
    trainer: TrainConfig = field(default_factory=TrainConfig)
    frames_per_batch: int = 8000
    probe_items: int = 4
    limit: int | None = None


@dataclass(frozen=True)
class VocoderRecipe:
    """How a vocoder is trained.

    Attributes:
        name: in `VOCODERS`; `model` is its config, whose mel becomes that of the data.
        batch_size, crop_frames: crops of a batch, which the workers share, and the length of each.
        probe_frames: length of the crops that are logged now and then.
    """

    name: str = "vocos"
    model: Any = field(default_factory=VocosConfig)
    trainer: TrainConfig = field(default_factory=lambda: TrainConfig(betas=(0.8, 0.99)))
    task: VocoderTaskConfig = field(default_factory=VocoderTaskConfig)
    batch_size: int = 4
    crop_frames: int = 64
    probe_frames: int = 128
    limit: int | None = None


Recipe = AcousticRecipe | VocoderRecipe


def matcha() -> AcousticRecipe:
    """The compact Matcha-TTS voice (about 5 M parameters): hours on two cores, minutes on a GPU."""
    return AcousticRecipe(trainer=TrainConfig(steps=20_000, learning_rate=5e-4, warmup_steps=500))


def matcha_debug() -> AcousticRecipe:
    """`matcha` with a tiny model and few steps."""
    trainer = TrainConfig(steps=20, warmup_steps=5, log_every=5, checkpoint_every=5, sample_every=20)
    return replace(matcha(), model=MatchaConfig.debug(), trainer=trainer, frames_per_batch=1200, probe_items=1)


def vocos() -> VocoderRecipe:
    """Vocos with magnitudes that begin at the mel's own; spectra alone train it for the first 2,000 steps."""
    trainer = TrainConfig(steps=10_500, learning_rate=5e-4, betas=(0.8, 0.99), sample_every=500, checkpoint_every=250)
    judges = DiscriminatorConfig(period_channels=(16, 32, 64, 128), resolution_channels=16)
    task = VocoderTaskConfig(adversarial_from=2000, discriminators=judges)
    return VocoderRecipe(model=VocosConfig(mel_prior=True), trainer=trainer, task=task)


def vocos_debug() -> VocoderRecipe:
    """`vocos` with a tiny model, tiny judges and few steps."""
    trainer = replace(vocos().trainer, steps=8, warmup_steps=2, log_every=2, checkpoint_every=4, sample_every=8)
    judges = DiscriminatorConfig(periods=(2, 3), period_channels=(4, 8), n_ffts=(512,), resolution_channels=4)
    return VocoderRecipe(
        model=VocosConfig(dim=32, intermediate_dim=64, num_layers=2, mel_prior=True),
        trainer=trainer,
        task=VocoderTaskConfig(adversarial_from=4, discriminators=judges),
        batch_size=2,
        crop_frames=32,
        probe_frames=32,
    )


def bundled_acoustic() -> AcousticRecipe:
    """The bundled voice's acoustic model: `matcha` with windows of 160 frames, within an hour or so of one core."""
    trainer = TrainConfig(steps=4500, learning_rate=8e-4, warmup_steps=300, log_every=10, checkpoint_every=250)
    return replace(matcha(), model=MatchaConfig(segment_frames=160), trainer=trainer)


def bundled_vocoder() -> VocoderRecipe:
    """The bundled voice's vocoder: `vocos` on the first 1,600 clips, within an hour and a half of one core."""
    return replace(vocos(), limit=1600, trainer=replace(vocos().trainer, steps=6500))


RECIPES: dict[str, Callable[[], Recipe]] = {
    "bundled_acoustic": bundled_acoustic,
    "bundled_vocoder": bundled_vocoder,
    "matcha": matcha,
    "matcha_debug": matcha_debug,
    "vocos": vocos,
    "vocos_debug": vocos_debug,
}


def recipe(name: str, settings: dict[str, Any] | None = None) -> Recipe:
    """A recipe by name with `--set key=value` overrides (`trainer.learning_rate`, `model.encoder_layers`, ...).

    Raises:
        ConfigError: for an unknown recipe or setting, listing those that there are.
    """
    if name not in RECIPES:
        raise ConfigError(f"no recipe {name!r}", f"use one of: {', '.join(sorted(RECIPES))}")
    changed: Recipe = override(RECIPES[name](), settings or {})
    return changed
