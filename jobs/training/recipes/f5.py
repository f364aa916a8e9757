"""Recipes of F5-TTS: a run ends in a voice that speaks as a clip does. Its prompt in training is the rest of the same clip."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from flowtts_core.acoustic import F5Config
from flowtts_core.audio.mel import F5_24K
from flowtts_core.config import to_dict
from flowtts_core.errors import TextError
from flowtts_core.text import frontends
from flowtts_core.text.frontends import Frontend
from flowtts_core.training.examples import DatasetMeta
from flowtts_core.training.files import Files
from flowtts_core.training.trainer import TrainConfig
from jobs.training.recipes.acoustic import AcousticRecipe


@dataclass(frozen=True)
class F5Recipe(AcousticRecipe):
    """How an F5-TTS model is trained, on the speech of one or of many: it has no table of speakers."""

    name: str = "f5"
    model: Any = field(default_factory=lambda: F5Config(durations="learnt"))

    def fit_model(self, data: Files, meta: DatasetMeta) -> Any:
        fitted = super().fit_model(data, meta)
        return replace(fitted, between=between_words(frontends.build(meta.frontend)))


def between_words(frontend: Frontend) -> tuple[int, ...]:
    """Return the tokens that stand between two words, and so between two texts; none where its language has none."""
    try:
        encoded = frontend.encode("no no")
    except TextError:
        return ()
    if len(encoded.words) != 2:
        return ()
    first, second = encoded.words
    return tuple(token for token in encoded.tokens[first.token_end : second.token_start] if token)


def f5() -> F5Recipe:
    """Return a small F5-TTS (16 M parameters) for one GPU or a patient CPU: it learns to align by itself, which takes long."""
    trainer = TrainConfig(
        steps=200_000, learning_rate=4e-4, warmup_steps=2000, log_every=20, checkpoint_every=500, sample_every=5000
    )
    return F5Recipe(trainer=trainer, frames_per_batch=20_000)


def f5_debug() -> F5Recipe:
    """Return `f5` with a tiny model and few steps."""
    trainer = TrainConfig(steps=20, warmup_steps=5, log_every=5, checkpoint_every=5, sample_every=20)
    model = replace(F5Config.debug(), durations="learnt")
    return replace(f5(), model=model, trainer=trainer, frames_per_batch=1200, probe_items=1)


def zero_shot() -> F5Recipe:
    """Return a voice that imitates clips and that two cores can train (14 M parameters): phonemes are laid out by frames."""
    trainer = TrainConfig(
        steps=60_000,
        learning_rate=5e-4,
        warmup_steps=1000,
        ema_decay=0.9995,
        log_every=10,
        checkpoint_every=250,
        keep=3,
    )
    model = F5Config(depth=8, text_dim=192, dropout=0.0, durations="aligned", duration_channels=192)
    return F5Recipe(model=model, trainer=trainer, frames_per_batch=6000)


def zero_shot_debug() -> F5Recipe:
    """Return `zero_shot` with a tiny model and few steps."""
    return replace(f5_debug(), model=replace(F5Config.debug(), durations="aligned"))


def f5_base() -> F5Recipe:
    """Return the published base model (337 M parameters) and its training, for several GPUs and tens of thousands of hours."""
    trainer = TrainConfig(
        steps=1_200_000,
        learning_rate=7.5e-5,
        betas=(0.9, 0.999),
        warmup_steps=20_000,
        ema_decay=0.9999,
        log_every=50,
        checkpoint_every=5000,
        sample_every=20_000,
        validation=0.0005,
    )
    model = replace(F5Config.published(), durations="learnt")
    return F5Recipe(model=model, trainer=trainer, frames_per_batch=307_200, mel=to_dict(F5_24K))
