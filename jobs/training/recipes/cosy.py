"""Recipes of speech from tokens, the lecture's hybrid: a tokeniser, and a voice of a language model and a flow on its tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from torch import nn

from flowtts_core.acoustic import CosyVoice, CosyVoiceConfig
from flowtts_core.codec.semantic import (
    TOKEN_RATE,
    SemanticConfig,
    SemanticTokenizer,
    read_tokenizer_card,
    save_tokenizer,
    tokenizer_fingerprint,
)
from flowtts_core.codec.whisper import whisper_digest
from flowtts_core.errors import ConfigError
from flowtts_core.text import frontends
from flowtts_core.text.frontends.symbols import PAD, PUNCTUATION, symbol_table
from flowtts_core.training.batches import Batches
from flowtts_core.training.examples import DatasetMeta, Examples, read_features
from flowtts_core.training.features import FeatureSet, speech_set, whisper_set
from flowtts_core.training.files import Files
from flowtts_core.training.speech_tokens import FeatureBatches, SpokenBatches, SpokenTask, TokenizerTask
from flowtts_core.training.trainer import Task, TrainConfig
from jobs.training.recipes.acoustic import AcousticRecipe
from jobs.training.recipes.base import Recipe

_STRESS = "ˈˌ"


@dataclass(frozen=True)
class TokenizerRecipe(Recipe):
    """How a tokeniser of speech is trained.

    Attributes:
        whisper: the folder of the Whisper model whose features `flowtts prepare --whisper` has kept.
        bypassed_steps: steps at the beginning in which not all items pass through tokens, see `TokenizerTask`.
        frames_per_batch: budget of padded mel frames of a batch, which the workers share.
        probe_items: clips, held out where there are any, whose phoneme error is logged now and then.
    """

    name: str = "semantic"
    model: Any = field(default_factory=SemanticConfig)
    whisper: str = ""
    bypassed_steps: int = 600
    frames_per_batch: int = 12_000
    probe_items: int = 16

    def fit(self, data: Files) -> Self:
        if not self.whisper:
            raise ConfigError("which Whisper's features?", "--set whisper=FOLDER, as it was given to `flowtts prepare`")
        fitted = super().fit(data)
        width = fitted.examples(data, ["whisper"]).whisper(0).shape[1]
        return replace(fitted, model=replace(fitted.model, features=width))

    def fit_model(self, data: Files, meta: DatasetMeta) -> Any:
        digest = whisper_digest(self.whisper)
        for features in (*meta.feature_sets, whisper_set(digest)):
            read_features(data, features)
        symbols = frontends.build(meta.frontend).n_symbols
        return replace(self.model, whisper=digest, n_symbols=symbols, silent=silent_symbols(meta.frontend))

    def identity(self) -> dict[str, Any]:
        settings = super().identity()
        del settings["whisper"]  # a place; the model has its digest
        return settings

    def examples(self, data: Path | Files, columns: list[str]) -> Examples:
        return with_further(self, data, columns, whisper_set(self.model.whisper))

    def module(self) -> SemanticTokenizer:
        return SemanticTokenizer(self.model)

    def task(self, data: Path | Files) -> tuple[Task, Batches]:
        examples, tokenizer = self.examples(data, ["tokens", "whisper"]), self.module()
        batches = FeatureBatches(examples, self.frames_per_batch, self.trainer.seed, tokenizer)
        shown = FeatureBatches(examples.held_out or examples, self.frames_per_batch, self.trainer.seed, tokenizer)
        probe = shown.items(range(min(self.probe_items, len(shown.examples))))
        return TokenizerTask(tokenizer, probe, self.bypassed_steps), batches

    def write(self, folder: Path, module: nn.Module, meta: DatasetMeta, name: str, **card: Any) -> None:
        assert isinstance(module, SemanticTokenizer)
        notes = {"licence": meta.licence, "source": meta.source, "steps": self.trainer.steps}
        save_tokenizer(folder, module, **{**notes, **card})


def with_further(recipe: Recipe, data: Path | Files, columns: list[str], features: FeatureSet) -> Examples:
    """Open a fitted recipe's examples with a set of features beside mels and tokens."""
    return Examples(
        data,
        columns,
        recipe.limit,
        mel=recipe.mel,
        frontend=recipe.frontend,
        validation=recipe.trainer.validation,
        further=(features,),
    )


def silent_symbols(frontend: dict[str, Any]) -> tuple[int, ...]:
    """Return the tokens of a front end's spec that are not heard as sounds of their own: stress, spaces, punctuation."""
    if frontend["name"] != "phonemes":
        return ()
    ids = frontend["table"] or symbol_table(frontend["symbols"]).ids
    silent = {PAD, *PUNCTUATION, *_STRESS, frontend["begin"], frontend["end"]}
    return tuple(sorted(ids[symbol] for symbol in silent if symbol in ids))


def cosy_tokens() -> TokenizerRecipe:
    """Return a tokeniser of speech: 1000 tokens, 25 a second, on features of Whisper's encoder (3 M parameters)."""
    trainer = TrainConfig(
        steps=20_000, learning_rate=1e-3, warmup_steps=300, ema_decay=0.999, log_every=20, checkpoint_every=500
    )
    return TokenizerRecipe(trainer=trainer)


def cosy_tokens_debug() -> TokenizerRecipe:
    """Return `cosy_tokens` with a tiny model and few steps."""
    trainer = replace(cosy_tokens().trainer, steps=8, warmup_steps=2, log_every=2, checkpoint_every=4, sample_every=8)
    model = SemanticConfig(width=16, before=1, after=1, levels=(4, 3))
    return replace(cosy_tokens(), model=model, trainer=trainer, bypassed_steps=3, frames_per_batch=1200, probe_items=2)


@dataclass(frozen=True)
class CosyRecipe(AcousticRecipe):
    """How a voice of speech tokens is trained: its language model and its flow at once, on the tokens of one tokeniser.

    Attributes:
        tokeniser: the folder of the tokeniser whose tokens `flowtts prepare --speech-tokens` has kept.
    """

    name: str = "cosyvoice"
    model: Any = field(default_factory=CosyVoiceConfig)
    tokeniser: str = ""

    def fit(self, data: Files) -> Self:
        if not self.tokeniser:
            raise ConfigError("which tokeniser?", "--set tokeniser=FOLDER, as it was given to `flowtts prepare`")
        return super().fit(data)

    def fit_model(self, data: Files, meta: DatasetMeta) -> Any:
        card = read_tokenizer_card(Path(self.tokeniser))
        made_by = tokenizer_fingerprint(card)
        read_features(data, speech_set(made_by))
        codes = math.prod(card["tokeniser"]["levels"])
        return replace(super().fit_model(data, meta), codes=codes, token_rate=TOKEN_RATE, tokeniser=made_by)

    def identity(self) -> dict[str, Any]:
        settings = super().identity()
        del settings["tokeniser"]  # a place; the model has its fingerprint
        return settings

    def examples(self, data: Path | Files, columns: list[str]) -> Examples:
        return with_further(self, data, columns, speech_set(self.model.tokeniser))

    def module(self) -> CosyVoice:
        return CosyVoice(self.model)

    def task(self, data: Path | Files) -> tuple[Task, Batches]:
        examples, model = self.examples(data, ["tokens", "mel", "speech"]), self.module()
        batches = SpokenBatches(examples, self.frames_per_batch, self.trainer.seed)
        probe = batches.items(range(min(self.probe_items, len(examples))))
        return SpokenTask(model, probe, self.find_vocoder().vocoder), batches

    def write(self, folder: Path, module: nn.Module, meta: DatasetMeta, name: str, **card: Any) -> None:
        super().write(folder, module, meta, name, **{"kind": "tokens", **card})


def cosy() -> CosyRecipe:
    """Return a voice of speech tokens that imitates clips (15 M parameters), of many speakers: the lecture's hybrid."""
    trainer = TrainConfig(
        steps=60_000,
        learning_rate=5e-4,
        warmup_steps=1000,
        ema_decay=0.9995,
        log_every=10,
        checkpoint_every=250,
        keep=3,
    )
    return CosyRecipe(trainer=trainer, frames_per_batch=6000)


def cosy_debug() -> CosyRecipe:
    """Return `cosy` with a tiny model and few steps."""
    trainer = TrainConfig(steps=20, warmup_steps=5, log_every=5, checkpoint_every=5, sample_every=20)
    return replace(cosy(), model=CosyVoiceConfig.debug(), trainer=trainer, frames_per_batch=1200, probe_items=1)
