"""Recipes of vocoders: a run ends in a vocoder folder, which voices can be paired with."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from torch import nn

from flowtts_core.audio.mel import MelConfig
from flowtts_core.config import build, from_dict, spec_of, to_dict
from flowtts_core.errors import ConfigError
from flowtts_core.flow import Consistency
from flowtts_core.nn.weight_norm import add_weight_norm
from flowtts_core.training.augmentation import Augmentation
from flowtts_core.training.batches import AlignedVocoderBatches, Batches, VocoderBatch, VocoderBatches
from flowtts_core.training.examples import DatasetMeta, read_features
from flowtts_core.training.files import Files
from flowtts_core.training.tasks import ConsistencyTask, VocoderTaskConfig, vocoder_task
from flowtts_core.training.trainer import Task, TrainConfig
from flowtts_core.vocoder import (
    VOCODERS,
    BandSplitConfig,
    DiffusionConfig,
    RFWaveConfig,
    SourceFilterConfig,
    Vocoder,
    VocosConfig,
    WaveFM,
    WaveFMConfig,
)
from flowtts_core.vocoder.base import FlowVocoder
from flowtts_core.vocoder.discriminators import DiscriminatorConfig
from flowtts_core.vocoder.files import CARD, LoadedVocoder, load_vocoder, save_vocoder
from flowtts_core.vocoder.hifigan import HIFIGAN_V2, HIFIGAN_V3
from flowtts_core.vocoder.wave_unet import WaveUNetConfig
from flowtts_core.voice.parts import FlowVoice, find_vocoder, load_parts
from jobs.training.recipes.base import Recipe, local_copy, readers_of, speaker_rows


@dataclass(frozen=True)
class VocoderRecipe(Recipe):
    """How a vocoder is trained.

    Attributes:
        name: in `VOCODERS`; the model's mel becomes that of the data.
        losses: weights of the losses, and the discriminators.
        batch_size, crop_frames: crops of a batch, which the workers share, and the length of each.
        probe_frames: length of the crops that are logged now and then.
        augmentation: of the recordings, before their mels are computed; none by default.
    """

    name: str = "vocos"
    model: Any = field(default_factory=VocosConfig)
    trainer: TrainConfig = field(default_factory=lambda: TrainConfig(betas=(0.8, 0.99)))
    losses: VocoderTaskConfig = field(default_factory=VocoderTaskConfig)
    batch_size: int = 4
    crop_frames: int = 64
    probe_frames: int = 128
    augmentation: Augmentation = field(default_factory=Augmentation)

    def identity(self) -> dict[str, Any]:
        settings = super().identity()
        if not self.augmentation.changes:
            del settings["augmentation"]  # so that runs of earlier versions go on
        for later in ("shaped", "flat"):
            if settings["model"].get(later) is False:
                del settings["model"][later]
        losses = settings["losses"]
        if losses["adversarial"] == "hinge":
            del losses["adversarial"]
        if not losses["discriminators"]["scales"]:
            del losses["discriminators"]["scales"], losses["discriminators"]["scale_channels"]
        return settings

    def fit_model(self, data: Files, meta: DatasetMeta) -> Any:
        for features in meta.feature_sets:
            read_features(data, features)
        top = meta.mel.f_max or meta.mel.sample_rate / 2
        if any(edge > top for edge in self.augmentation.band_hz):  # else the mel would not show what is missing
            raise ConfigError(
                f"augmentation.band_hz = {list(self.augmentation.band_hz)}: the mel ends at {top:g} Hz",
                f"use up to {top:g}",
            )
        return replace(self.model, mel=meta.mel)

    def module(self) -> Vocoder:
        vocoder: Vocoder = build(VOCODERS, spec_of(self.name, self.model))
        if vocoder.weight_norm:
            add_weight_norm(vocoder)  # `save_vocoder` folds it
        return vocoder

    def task(self, data: Path | Files) -> tuple[Task, Batches]:
        vocoder = self.module()
        crops, probe = self._batches(data)
        return vocoder_task(vocoder, probe, self.losses), crops

    def _batches(self, data: Path | Files) -> tuple[VocoderBatches, VocoderBatch]:
        """Return what is trained on, and the crops that are logged now and then."""
        examples = self.examples(data, ["mel", "audio"])
        crops = VocoderBatches(examples, self.batch_size, self.crop_frames, self.trainer.seed, self.augmentation)
        probe_frames = min(self.probe_frames, int(examples.frames.max()))
        return crops, VocoderBatches(examples, self.batch_size, probe_frames, 1).at(0)

    def write(self, folder: Path, module: nn.Module, meta: DatasetMeta, name: str, **card: Any) -> None:
        assert isinstance(module, Vocoder)
        notes = {"licence": meta.licence, "source": meta.source, "steps": self.trainer.steps}
        save_vocoder(folder, module, spec_of(self.name, self.model), **{**notes, **card})


@dataclass(frozen=True)
class TuningRecipe(VocoderRecipe):
    """How the vocoder of a voice is tuned to the mels that its acoustic model makes, which are smoother than recordings'.

    Attributes:
        voice: a bundled name, a folder or an s3:// place; sizes of the vocoder are its own.
        speaker: of a voice with several, who reads a corpus that names none (default: the corpus's own name).
    """

    voice: str = ""
    speaker: str = ""

    def __post_init__(self) -> None:
        if self.augmentation.changes:
            raise ConfigError(
                "augmentation: a vocoder is tuned to mels that an acoustic model makes of texts, not of the recordings",
                "leave it out, or train the vocoder with it",
            )

    def fit_model(self, data: Files, meta: DatasetMeta) -> Any:
        fitted = super().fit_model(data, meta)
        spec = self._voice().card.parts["vocoder"]
        model = from_dict(VOCODERS[spec["name"]][0], {k: v for k, v in spec.items() if k != "name"})
        model.mel.require(fitted.mel, f"voice {self.voice} and data")
        return model

    def fit(self, data: Files) -> Self:
        return replace(super().fit(data), name=self._voice().card.parts["vocoder"]["name"])

    def task(self, data: Path | Files) -> tuple[Task, Batches]:
        examples, voice = self.examples(data, ["mel", "audio", "tokens"]), self._voice()
        vocoder = copy.deepcopy(voice.vocoder).train()
        vocoder.runners = {}  # which take one item at a time, without gradients
        if vocoder.weight_norm:
            add_weight_norm(vocoder)
        sizes = (self.batch_size, self.crop_frames, self.trainer.seed)
        rows = speaker_rows(readers_of(examples.meta, self.speaker), voice.card.speakers)
        crops = AlignedVocoderBatches(examples, *sizes, voice.acoustic, voice.card.sampling, rows)
        return vocoder_task(vocoder, crops.at(0), self.losses), crops

    def _voice(self) -> FlowVoice:
        with local_copy(self.voice) as folder:
            return load_parts(folder)


@dataclass(frozen=True)
class ConsistencyRecipe(VocoderRecipe):
    """How a vocoder that is a flow is taught to take one step: its sizes and its mel are those of its teacher.

    Attributes:
        teacher: the vocoder's folder, or its s3:// place.
        how: by which times, and how fast the student's target follows it.
    """

    teacher: str = ""
    how: Consistency = field(default_factory=Consistency)

    def fit_model(self, data: Files, meta: DatasetMeta) -> Any:
        if not self.teacher:
            raise ConfigError("consistency: no teacher is named", "flowtts distill VOCODER_FOLDER DATA -o OUT")
        teacher, fitted = self._taught_by().vocoder, super().fit_model(data, meta)
        if not isinstance(teacher, WaveFM):
            raise ConfigError(
                f"teacher {self.teacher}: a {type(teacher).__name__}, which cannot be distilled", "give a WaveFM"
            )
        teacher.features.require(fitted.mel, f"vocoder {self.teacher} and data")
        return replace(teacher.config, steps=1, solver="euler", grid={"name": "uniform"})

    def task(self, data: Path | Files) -> tuple[Task, Batches]:
        teacher = self._taught_by().vocoder
        crops, probe = self._batches(data)
        student = self.module()
        student.load_state_dict(teacher.state_dict())
        assert isinstance(student, FlowVocoder) and isinstance(teacher, FlowVocoder)
        return ConsistencyTask(student, teacher, self.how, probe), crops

    def write(self, folder: Path, module: nn.Module, meta: DatasetMeta, name: str, **card: Any) -> None:
        with local_copy(self.teacher) as place:
            known = json.loads(Path(place, CARD).read_text(encoding="utf-8"))
        notes = {key: known[key] for key in ("licence", "source") if key in known}
        super().write(folder, module, meta, name, **{**notes, **card})

    def _taught_by(self) -> LoadedVocoder:
        with local_copy(self.teacher) as folder:
            return load_vocoder(Path(folder))


def vocos() -> VocoderRecipe:
    """Return Vocos with magnitudes that begin at the mel's own; spectra alone train it for the first 2,000 steps."""
    trainer = TrainConfig(steps=10_500, learning_rate=5e-4, betas=(0.8, 0.99), sample_every=500, checkpoint_every=250)
    discriminators = DiscriminatorConfig(period_channels=(16, 32, 64, 128), resolution_channels=16)
    losses = VocoderTaskConfig(adversarial_from=2000, discriminators=discriminators)
    return VocoderRecipe(model=VocosConfig(mel_prior=True), trainer=trainer, losses=losses)


def vocos_debug() -> VocoderRecipe:
    """Return `vocos` with a tiny model, tiny discriminators and few steps."""
    trainer = replace(vocos().trainer, steps=8, warmup_steps=2, log_every=2, checkpoint_every=4, sample_every=8)
    discriminators = DiscriminatorConfig(periods=(2, 3), period_channels=(4, 8), n_ffts=(512,), resolution_channels=4)
    return VocoderRecipe(
        model=VocosConfig(dim=32, intermediate_dim=64, num_layers=2, mel_prior=True),
        trainer=trainer,
        losses=VocoderTaskConfig(adversarial_from=4, discriminators=discriminators),
        batch_size=2,
        crop_frames=32,
        probe_frames=32,
    )


def hifigan() -> VocoderRecipe:
    """Return HiFi-GAN's V2 by its paper's kinds of discriminators and their losses, narrower; data with a hop of 256 fit it."""
    trainer = TrainConfig(steps=40_000, learning_rate=2e-4, betas=(0.8, 0.99), sample_every=500, checkpoint_every=250)
    discriminators = DiscriminatorConfig(period_channels=(8, 32, 128, 256, 256), n_ffts=(), scales=3)
    losses = VocoderTaskConfig(adversarial_from=4000, discriminators=discriminators, adversarial="least_squares")
    return VocoderRecipe(name="hifigan", model=HIFIGAN_V2, trainer=trainer, losses=losses, batch_size=8, crop_frames=32)


def hifigan_debug() -> VocoderRecipe:
    """Return `hifigan` with a tiny model, tiny discriminators and few steps."""
    trainer = replace(hifigan().trainer, steps=8, warmup_steps=2, log_every=2, checkpoint_every=4, sample_every=8)
    discriminators = DiscriminatorConfig((2, 3), (4, 8), n_ffts=(), scales=2, scale_channels=(4, 4, 4, 8, 8, 8, 8))
    return replace(
        hifigan(),
        model=replace(
            HIFIGAN_V3, upsample_initial_channel=32, resblock_kernel_sizes=(3,), resblock_dilation_sizes=((1, 2),)
        ),
        trainer=trainer,
        losses=replace(hifigan().losses, adversarial_from=4, discriminators=discriminators),
        batch_size=2,
        probe_frames=32,
    )


def rfwave() -> VocoderRecipe:
    """Return a small RFWave that streams.

    It has 0.32 million parameters. Ten steps take 1.7 GMAC a second of sound of 22.05 kHz (1.9 of 24 kHz), and took 0.20 s of
    one thread by torch, 0.14 by ONNX Runtime. Noise of waveforms, as published, came nearer in 400 training steps than noise
    of spectra (1.4 against 1.9 nats of mel distance), which take two thirds of the time.
    """
    trainer = TrainConfig(
        steps=25_000, learning_rate=1e-3, betas=(0.9, 0.99), warmup_steps=500, sample_every=1000, checkpoint_every=250
    )
    model = RFWaveConfig(
        dim=96, intermediate_dim=256, num_layers=4, embed_kernel=1, fourier=False, frame_norm=True, skip=True
    )
    return VocoderRecipe(name="rfwave", model=model, trainer=trainer, batch_size=8)


def rfwave_debug() -> VocoderRecipe:
    """Return `rfwave` with a tiny model and few steps."""
    trainer = replace(rfwave().trainer, steps=8, warmup_steps=2, log_every=2, checkpoint_every=4, sample_every=8)
    model = replace(rfwave().model, dim=32, intermediate_dim=64, num_layers=2, steps=2)
    return replace(rfwave(), model=model, trainer=trainer, batch_size=2, crop_frames=32, probe_frames=32)


def band_split() -> VocoderRecipe:
    """Return a vocoder whose two lower bands are flows of 20 and 10 steps, and whose highest is trained as `vocos` is.

    It has 2.8 million parameters. A second of sound of 22.05 kHz takes 1.5 GMAC, and took 0.09 s of one thread by torch, 0.05
    by ONNX Runtime.
    """
    trainer = replace(rfwave().trainer, learning_rate=5e-4, betas=(0.8, 0.99))
    return VocoderRecipe(name="band_split", model=BandSplitConfig(), trainer=trainer, losses=vocos().losses)


def band_split_debug() -> VocoderRecipe:
    """Return `band_split` with a tiny model, tiny discriminators and few steps."""
    trainer = replace(band_split().trainer, steps=8, warmup_steps=2, log_every=2, checkpoint_every=4, sample_every=8)
    model = BandSplitConfig(
        steps=(3, 2),
        dim=32,
        intermediate_dim=64,
        num_layers=2,
        head_dim=32,
        head_intermediate_dim=64,
        head_layers=2,
    )
    return replace(vocos_debug(), name="band_split", model=model, trainer=trainer)


def wavefm() -> VocoderRecipe:
    """Return a WaveFM for data with a hop of 256, some four hours of one core: 0.8 M parameters, four steps.

    Each step takes 0.49 GMAC a second of sound, all of them less than 2; distilled to one step, it takes 0.49 in all.
    """
    model = WaveFMConfig(
        channels=(160, 64, 24, 8),
        upsample_rates=(8, 8, 4),
        kernel_sizes=(3, 7),
        dilations=(1, 3),
        down_dilations=(1,),
        time_channels=128,
        steps=4,
    )
    trainer = TrainConfig(
        steps=12_000, learning_rate=5e-4, betas=(0.9, 0.99), warmup_steps=300, sample_every=1000, checkpoint_every=250
    )
    return VocoderRecipe(name="wavefm", model=model, trainer=trainer, batch_size=8)


def wavefm_debug() -> VocoderRecipe:
    """Return `wavefm` with a tiny model and few steps."""
    trainer = replace(wavefm().trainer, steps=8, warmup_steps=2, log_every=2, checkpoint_every=4, sample_every=8)
    model = replace(wavefm().model, **_TINY_UNET)
    return replace(wavefm(), model=model, trainer=trainer, batch_size=2, crop_frames=32, probe_frames=32)


def consistency() -> ConsistencyRecipe:
    """Return how `wavefm` is distilled to one step, in some two hours; times and average are the published ones."""
    trainer = replace(wavefm().trainer, steps=4000, learning_rate=2e-4, warmup_steps=100)
    return ConsistencyRecipe(name="wavefm", model=wavefm().model, trainer=trainer, batch_size=8)


def consistency_debug() -> ConsistencyRecipe:
    """Return `consistency` with few steps."""
    trainer = replace(consistency().trainer, steps=8, warmup_steps=2, log_every=2, checkpoint_every=4, sample_every=8)
    return replace(consistency(), trainer=trainer, batch_size=2, crop_frames=32, probe_frames=32)


def diffusion() -> VocoderRecipe:
    """Return the baseline: the net of `wavefm`, which is asked 50 times, by 24 GMAC a second of sound."""
    sizes = {one.name: getattr(wavefm().model, one.name) for one in fields(WaveUNetConfig)}
    return replace(wavefm(), name="diffusion", model=DiffusionConfig(**sizes))


def diffusion_debug() -> VocoderRecipe:
    """Return `diffusion` with a tiny model and few steps, of the training and of the sampler."""
    model = replace(diffusion().model, **_TINY_UNET, steps=4)
    return replace(
        diffusion(), model=model, trainer=wavefm_debug().trainer, batch_size=2, crop_frames=32, probe_frames=32
    )


_TINY_UNET: dict[str, Any] = {
    "channels": (16, 8, 4),
    "upsample_rates": (16, 16),
    "kernel_sizes": (3,),
    "dilations": (1,),
    "time_channels": 16,
}


def natural_vocoder() -> VocoderRecipe:
    """Return the vocoder of `natural`: a source filter on spectral distances alone, half an hour of one core."""
    trainer = TrainConfig(
        steps=8000, learning_rate=1e-3, betas=(0.8, 0.99), decay=0.5, sample_every=1000, checkpoint_every=250
    )
    return VocoderRecipe(
        name="source_filter",
        model=SourceFilterConfig(),
        trainer=trainer,
        losses=VocoderTaskConfig(adversarial_from=None),
        batch_size=8,
    )


def general_vocoder() -> VocoderRecipe:
    """Return a source filter for any speaker and any acoustic model: it finds the pitch in the mel, and hears other levels.

    Data are prepared with mel.pitch=true, which the vocoder learns from and does not read; many speakers and some hours.
    """
    trainer = replace(natural_vocoder().trainer, steps=7000)
    model = SourceFilterConfig(num_layers=8, finds_pitch=True)
    return replace(
        natural_vocoder(),
        model=model,
        trainer=trainer,
        mel={"pitch": True},
        augmentation=Augmentation(gain_db=(-20, 6)),
    )


def general_vocoder_debug() -> VocoderRecipe:
    """Return `general_vocoder` with a tiny model and few steps."""
    return replace(
        source_filter_debug(),
        model=replace(source_filter_debug().model, finds_pitch=True),
        mel=general_vocoder().mel,
        augmentation=general_vocoder().augmentation,
    )


def tuning() -> TuningRecipe:
    """Return how the vocoder of `natural` is tuned: some 20 minutes of one core."""
    trainer = TrainConfig(
        steps=4000,
        learning_rate=5e-4,
        betas=(0.8, 0.99),
        warmup_steps=50,
        decay=0.7,
        sample_every=1000,
        checkpoint_every=250,
    )
    return TuningRecipe(trainer=trainer, losses=VocoderTaskConfig(adversarial_from=None), batch_size=8, limit=3000)


def tuning_debug() -> TuningRecipe:
    """Return `tuning` with few steps."""
    trainer = replace(tuning().trainer, steps=8, warmup_steps=2, log_every=2, checkpoint_every=4, sample_every=8)
    return replace(tuning(), trainer=trainer, batch_size=2, crop_frames=32, probe_frames=32)


def source_filter_debug() -> VocoderRecipe:
    """Return `natural_vocoder` with a tiny model and few steps."""
    trainer = replace(
        natural_vocoder().trainer, steps=8, warmup_steps=2, log_every=2, checkpoint_every=4, sample_every=8
    )
    model = SourceFilterConfig(dim=32, intermediate_dim=64, num_layers=2, free_bins=64)
    return replace(natural_vocoder(), model=model, trainer=trainer, batch_size=2, crop_frames=32, probe_frames=32)


def bundled_vocoder() -> VocoderRecipe:
    """Return the bundled voice's vocoder: `vocos` on the first 1,600 clips, within an hour and a half of one core."""
    return replace(vocos(), limit=1600, trainer=replace(vocos().trainer, steps=6500))


@dataclass(frozen=True)
class StartedVocoderRecipe(TuningRecipe):
    """How a vocoder goes on from one that is there: on the mels that a voice makes, or on those of the recordings.

    Attributes:
        voice: whose acoustic model makes the mels: a bundled name, a folder or an s3:// place. Empty: those of the recordings.
        start: the vocoder to begin with: its folder, or a voice that has one. Empty: that of `voice`.
    """

    start: str = ""

    def __post_init__(self) -> None:
        if self.voice:
            super().__post_init__()

    def fit(self, data: Files) -> Self:
        if not self.voice and not self.start:
            raise ConfigError(
                "--recipe vocoder: which vocoder is to go on?",
                "--mels-of VOICE to tune one to a voice's mels, --from VOCODER to train one on; a fresh one is --model vocos",
            )
        loaded = self._start()
        spec, here = loaded.spec, data.path().rstrip("/")
        if not list(loaded.vocoder.parameters()):
            raise ConfigError(f"{self.start or self.voice}: {spec['name']} has nothing to learn", "give another --from")
        rate, meta = loaded.vocoder.features.sample_rate, DatasetMeta.load(data)
        if rate != meta.mel.sample_rate:
            raise ConfigError(
                f"{self.start or self.voice} is of {rate} Hz, and the data were prepared at {meta.mel.sample_rate}",
                f"prepare them again into another folder: flowtts prepare {here} -o FOLDER --resample"
                f" --set mel.sample_rate={rate}",
            )
        own = replace(self, name=spec["name"], mel=to_dict(loaded.vocoder.features))
        if self.voice and not self.frontend:
            own = replace(own, frontend=dict(self._voice().card.parts["frontend"]))
        return super(TuningRecipe, own).fit(data)

    def fit_model(self, data: Files, meta: DatasetMeta) -> Any:
        VocoderRecipe.fit_model(self, data, meta)  # requires that the features are there
        loaded = self._start()
        if self.voice:
            self._voice().acoustic.features.require(
                loaded.vocoder.features, f"the mels of {self.voice} and the vocoder {self.start or 'of the voice'}"
            )
        return from_dict(VOCODERS[loaded.spec["name"]][0], {k: v for k, v in loaded.spec.items() if k != "name"})

    def task(self, data: Path | Files) -> tuple[Task, Batches]:
        vocoder = copy.deepcopy(self._start().vocoder).train()
        vocoder.runners = {}  # which take one item at a time, without gradients
        if vocoder.weight_norm:
            add_weight_norm(vocoder)
        sizes = (self.batch_size, self.crop_frames, self.trainer.seed)
        crops: VocoderBatches
        if self.voice:
            examples, voice = self.examples(data, ["mel", "audio", "tokens"]), self._voice()
            rows = speaker_rows(readers_of(examples.meta, self.speaker), voice.card.speakers)
            crops = AlignedVocoderBatches(examples, *sizes, voice.acoustic, voice.card.sampling, rows)
        else:
            crops = VocoderBatches(self.examples(data, ["mel", "audio"]), *sizes, self.augmentation)
        return vocoder_task(vocoder, crops.at(0), self.losses), crops

    def write(self, folder: Path, module: nn.Module, meta: DatasetMeta, name: str, **card: Any) -> None:
        begun = f"{meta.source or 'a corpus'}; from {self.start or self.voice}"
        source = f"{begun}, on the mels of {self.voice}" if self.voice else begun
        super().write(folder, module, meta, name, **{"source": source, **card})

    def _start(self) -> LoadedVocoder:
        if not self.start:
            voice = self._voice()
            return LoadedVocoder(voice.vocoder, dict(voice.card.parts["vocoder"]))
        with local_copy(self.start) as place:
            return find_vocoder(place, MelConfig())


def vocoder() -> StartedVocoderRecipe:
    """Return how a vocoder is fine-tuned: as `tuning`, from any vocoder, on the mels of a voice or of the recordings."""
    how = tuning()
    return StartedVocoderRecipe(
        trainer=how.trainer, losses=how.losses, batch_size=how.batch_size, limit=how.limit, voice="", start=""
    )


def vocoder_debug() -> StartedVocoderRecipe:
    """Return `vocoder` with few steps."""
    return replace(vocoder(), trainer=tuning_debug().trainer, batch_size=2, crop_frames=32, probe_frames=32)
