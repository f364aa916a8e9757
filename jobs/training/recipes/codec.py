"""Recipes of codecs: a run ends in a codec folder, which `flowtts codec` encodes and decodes with."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from flowtts_core.codec import (
    CODECS,
    Codec,
    EnCodecConfig,
    FactorisedCodec,
    FactorisedCodecConfig,
    FrameCodecConfig,
    VQVAEConfig,
)
from flowtts_core.codec.files import save_codec
from flowtts_core.config import build, spec_of
from flowtts_core.errors import ConfigError
from flowtts_core.nn.weight_norm import add_weight_norm
from flowtts_core.training.augmentation import Augmentation
from flowtts_core.training.batches import Batches, VocoderBatches
from flowtts_core.training.examples import DatasetMeta, read_features
from flowtts_core.training.factors import FactorBatches, FactorConfig, FactorTask, open_labels
from flowtts_core.training.files import Files
from flowtts_core.training.tasks import CodecTask, VocoderTaskConfig
from flowtts_core.training.trainer import Task, TrainConfig
from flowtts_core.vocoder.discriminators import DiscriminatorConfig
from jobs.training.recipes.base import Recipe


@dataclass(frozen=True)
class CodecRecipe(Recipe):
    """How a codec is trained.

    Attributes:
        name: in `CODECS`; the model's sample rate becomes that of the data.
        losses: weights of spectral and adversarial losses, and the discriminators.
        commitment, codebook: weights of the quantiser's losses.
        batch_size, crop_frames: crops of a batch, which the workers share, and the length of each in frames of the data's mel.
        probe_frames: length of the crops that are logged now and then.
        augmentation: of the recordings; none by default.
        half: store the weights as float16, half the size.
    """

    name: str = "frames"
    model: Any = field(default_factory=FrameCodecConfig)
    trainer: TrainConfig = field(default_factory=lambda: TrainConfig(betas=(0.8, 0.99)))
    losses: VocoderTaskConfig = field(default_factory=VocoderTaskConfig)
    commitment: float = 1.0
    codebook: float = 1.0
    batch_size: int = 8
    crop_frames: int = 64
    probe_frames: int = 128
    augmentation: Augmentation = field(default_factory=Augmentation)
    half: bool = True

    def fit_model(self, data: Files, meta: DatasetMeta) -> Any:
        for features in meta.feature_sets:
            read_features(data, features)
        model = replace(self.model, sample_rate=meta.mel.sample_rate)
        hop = build(CODECS, spec_of(self.name, model)).hop_length
        if self.crop_frames * meta.mel.hop_length < 4 * hop:
            raise ConfigError(
                f"crop_frames = {self.crop_frames} are {self.crop_frames * meta.mel.hop_length} samples, and a frame of the"
                f" codec has {hop}",
                f"use {-(-4 * hop // meta.mel.hop_length)} or more",
            )
        return model

    def module(self) -> Codec:
        codec: Codec = build(CODECS, spec_of(self.name, self.model))
        if codec.weight_norm:
            add_weight_norm(codec)  # `save_codec` folds it
        return codec

    def task(self, data: Path | Files) -> tuple[Task, Batches]:
        examples = self.examples(data, ["mel", "audio"])
        crops = VocoderBatches(examples, self.batch_size, self.crop_frames, self.trainer.seed, self.augmentation)
        probe_frames = min(self.probe_frames, int(examples.frames.max()))
        probe = VocoderBatches(examples, self.batch_size, probe_frames, 1).at(0)
        weights = {"commitment": self.commitment, "codebook": self.codebook}
        return CodecTask(self.module(), examples.meta.mel, probe, self.losses, weights), crops

    def write(self, folder: Path, module: nn.Module, meta: DatasetMeta, name: str, **card: Any) -> None:
        assert isinstance(module, Codec)
        notes = {"licence": meta.licence, "source": meta.source, "steps": self.trainer.steps}
        save_codec(folder, module, spec_of(self.name, self.model), half=self.half, **{**notes, **card})


def codec() -> CodecRecipe:
    """Return a speech codec of one codebook, of the WavTokenizer kind, cheap on a CPU: for data of 24 kHz 75 codes a second.

    A code is one of 4096 on a sphere of 8 dimensions: 0.9 kbit/s.
    """
    trainer = TrainConfig(
        steps=60_000, learning_rate=5e-4, betas=(0.8, 0.99), warmup_steps=500, sample_every=2000, checkpoint_every=500
    )
    discriminators = DiscriminatorConfig(period_channels=(16, 32, 64, 128), resolution_channels=16)
    losses = VocoderTaskConfig(adversarial_from=20_000, discriminators=discriminators)
    return CodecRecipe(trainer=trainer, losses=losses, batch_size=16)


def codec_debug() -> CodecRecipe:
    """Return `codec` with a tiny model, tiny discriminators and few steps."""
    trainer = replace(codec().trainer, steps=8, warmup_steps=2, log_every=2, checkpoint_every=4, sample_every=8)
    discriminators = DiscriminatorConfig(periods=(2, 3), period_channels=(4, 8), n_ffts=(512,), resolution_channels=4)
    model = replace(
        codec().model,
        encoder_dim=16,
        encoder_intermediate=32,
        encoder_layers=1,
        decoder_dim=16,
        decoder_intermediate=32,
        decoder_layers=1,
        bins=32,
    )
    return replace(
        codec(),
        model=model,
        trainer=trainer,
        losses=VocoderTaskConfig(adversarial_from=4, discriminators=discriminators),
        batch_size=2,
        crop_frames=32,
        probe_frames=32,
    )


def codec_rvq() -> CodecRecipe:
    """Return `codec` with eight codebooks of 1024, any number of which can be used: 0.75 to 6 kbit/s."""
    return replace(codec(), model=replace(codec().model, codebooks=8, bins=1024))


def codec_rvq_debug() -> CodecRecipe:
    """Return `codec_rvq` with a tiny model, tiny discriminators and few steps."""
    return replace(codec_debug(), model=replace(codec_debug().model, codebooks=3, bins=16))


def vqvae() -> CodecRecipe:
    """Return the VQ-VAE that courses teach: a code of 1024 for 320 samples, of 128 dimensions, on waveforms."""
    return replace(codec(), name="vqvae", model=VQVAEConfig())


def vqvae_debug() -> CodecRecipe:
    """Return `vqvae` with a tiny model, tiny discriminators and few steps."""
    return replace(codec_debug(), name="vqvae", model=VQVAEConfig(n_filters=4, dimension=8, bins=16))


def encodec() -> CodecRecipe:
    """Return a narrow causal EnCodec of eight codebooks, on waveforms: it streams, and takes some ten times `codec_rvq`."""
    seanet = replace(EnCodecConfig().seanet, n_filters=8, lstm=1)
    return replace(codec(), name="encodec", model=EnCodecConfig(seanet=seanet, n_q=8, replace_after=10.0))


def encodec_debug() -> CodecRecipe:
    """Return `encodec` with a tiny model, tiny discriminators and few steps."""
    seanet = replace(encodec().model.seanet, n_filters=4, dimension=8)
    return replace(
        codec_debug(), name="encodec", model=EnCodecConfig(seanet=seanet, n_q=2, bins=16, replace_after=10.0)
    )


@dataclass(frozen=True)
class FactorisedRecipe(CodecRecipe):
    """How a codec whose codes are apart is trained, on clips of several speakers with their texts.

    Attributes:
        factors: weights of heads and adversaries.
        aligner: the voice by which phones are aligned; none: the bundled one, which reads English.
    """

    name: str = "factorised"
    model: Any = field(default_factory=FactorisedCodecConfig)
    factors: FactorConfig = field(default_factory=FactorConfig)
    aligner: str = ""

    def fit_model(self, data: Files, meta: DatasetMeta) -> Any:
        if len(meta.speakers) < 2:
            raise ConfigError(
                f"{data.path()} names {len(meta.speakers)} speaker(s): timbre is learnt of several",
                "prepare a corpus with a column of speakers",
            )
        if self.augmentation.changes:
            raise ConfigError("augmentation changes what codes are to tell", "leave it out")
        return super().fit_model(data, meta)

    def task(self, data: Path | Files) -> tuple[Task, Batches]:
        examples = self.examples(data, ["mel", "audio", "text"])
        codec = self.module()
        assert isinstance(codec, FactorisedCodec)
        labels, seed = open_labels(examples, self.aligner or None), self.trainer.seed
        crops = FactorBatches(labels, codec.hop_length, self.batch_size, self.crop_frames, seed)
        probe_frames = min(self.probe_frames, int(examples.frames.max()))
        probe = VocoderBatches(examples, self.batch_size, probe_frames, 1).at(0)
        weights = {"commitment": self.commitment}
        speakers = len(examples.meta.speakers)
        task = FactorTask(
            codec, examples.meta.mel, probe, self.losses, weights, self.factors, speakers, self.trainer.steps
        )
        return task, crops


def facodec() -> FactorisedRecipe:
    """Return a codec of the FACodec kind, cheap on a CPU: a code of prosody, two of content and three of details each frame.

    Discriminators are off: codes have to be apart first. `--set losses.adversarial_from=20000` brings them in.
    """
    discriminators = codec().losses.discriminators
    losses = VocoderTaskConfig(adversarial_from=None, discriminators=discriminators)
    return FactorisedRecipe(trainer=codec().trainer, losses=losses, batch_size=16, crop_frames=160, mel={"pitch": True})


def facodec_debug() -> FactorisedRecipe:
    """Return `facodec` with a tiny model and few steps."""
    model = FactorisedCodecConfig(
        encoder_dim=16,
        encoder_intermediate=32,
        encoder_layers=1,
        prosody_dim=8,
        prosody_layers=1,
        decoder_dim=16,
        decoder_intermediate=32,
        decoder_layers=1,
        bins=16,
        speaker_dim=8,
    )
    return replace(facodec(), model=model, trainer=codec_debug().trainer, batch_size=2, crop_frames=32, probe_frames=32)
