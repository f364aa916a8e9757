"""What is trained: acoustic models, vocoders and codecs, against discriminators or on losses of their own, or to fewer steps."""

from __future__ import annotations

import abc
import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from flowtts_core.acoustic.base import AcousticBatch, AcousticModel, prompted_by_itself
from flowtts_core.acoustic.distilling import Lesson, Method, distillation_loss
from flowtts_core.audio.mel import LogMel, MelConfig
from flowtts_core.codec.base import Codec
from flowtts_core.codec.codebook import codebook_use, count_codes
from flowtts_core.errors import ConfigError
from flowtts_core.flow.consistency import Consistency, follow
from flowtts_core.flow.distillation import Distillation, GuidedDistillation
from flowtts_core.nn.share import Share
from flowtts_core.sampling import Sampling
from flowtts_core.training.batches import VocoderBatch
from flowtts_core.training.log import TrainingLog
from flowtts_core.vocoder.base import FlowVocoder, Vocoder
from flowtts_core.vocoder.discriminators import DiscriminatorConfig, Discriminators
from flowtts_core.vocoder.losses import (
    ADVERSARIAL,
    MultiMelLoss,
    MultiSTFTLoss,
    adversarial_loss,
    discriminator_loss,
    feature_loss,
)


class AcousticTask:
    """Trains an acoustic model on its own loss, those weights that want a gradient; samples the first items of `probe`.

    Args:
        settings: with which it samples; by default the model's own.
    """

    ema_module = "acoustic"

    def __init__(
        self, model: AcousticModel, probe: AcousticBatch, vocoder: Vocoder, settings: Sampling | None = None
    ) -> None:
        self.modules: dict[str, nn.Module] = {"acoustic": model}
        self.model, self.probe, self.vocoder, self.settings = model, probe, vocoder, settings or model.sampling

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"acoustic": [weight for weight in self.model.parameters() if weight.requires_grad]}

    def updates(
        self, batch: AcousticBatch, step: int, generator: torch.Generator
    ) -> Iterator[tuple[str, dict[str, Tensor]]]:
        yield "acoustic", self.model.loss(batch, generator)

    def validation(self, module: nn.Module, batch: AcousticBatch, generator: torch.Generator) -> Tensor:
        assert isinstance(module, AcousticModel)
        return module.loss(batch, generator)["loss"]

    def sampling(self) -> Sampling:
        """Return how samples are made."""
        return self.settings

    @torch.inference_mode()
    def sample(self, module: nn.Module, step: int, log: TrainingLog) -> None:
        assert isinstance(module, AcousticModel)
        condition = self.probe.condition if module.prompted == "none" else prompted_by_itself(self.probe)
        generated = module.cpu().generate(condition, list(range(len(condition.tokens))), self.sampling())
        for i, frames in enumerate(generated.lengths.tolist()):
            mel = generated.features[i : i + 1, :, :frames]
            log.mel(step, f"generated-{i}", mel[0])
            log.mel(step, f"true-{i}", self.probe.mel[i, :, : int(self.probe.mel_lengths[i])])
            log.audio(step, f"generated-{i}", self.vocoder(mel)[0], module.features.sample_rate)


class DistillationTask(AcousticTask):
    """Trains an acoustic model, which begins as a copy of its teacher, to take fewer steps.

    Args:
        sampling: of the teacher's voice: its temperature, and the guidance of students that are not told any.
        updates: of the whole training, of which a part may be a later stage.
    """

    def __init__(
        self,
        model: AcousticModel,
        teacher: AcousticModel,
        how: Method,
        probe: AcousticBatch,
        vocoder: Vocoder,
        sampling: Sampling,
        updates: int,
    ) -> None:
        super().__init__(model, probe, vocoder)
        self.teacher, self.how, self.taught_by = teacher.requires_grad_(False).eval(), how, sampling
        teacher.runners = {}  # which take one item at a time
        self.target: AcousticModel | None = None
        self.later_from = how.later_from(updates) if isinstance(how, GuidedDistillation) else updates
        if isinstance(how, Consistency) or self.later_from < updates:
            self.target = copy.deepcopy(model).requires_grad_(False)
            self.modules["target"] = self.target  # so that checkpoints have it

    def updates(
        self, batch: AcousticBatch, step: int, generator: torch.Generator
    ) -> Iterator[tuple[str, dict[str, Tensor]]]:
        later = step >= self.later_from
        if self.target is not None and step == self.later_from:
            self.target.load_state_dict(self.model.state_dict())  # the later stage's average begins here
        yield "acoustic", self._losses(self.model, batch, generator, later)
        if self.target is not None and (later or isinstance(self.how, Consistency)):
            assert not isinstance(self.how, Distillation)
            follow(self.target.parameters(), self.model.parameters(), self.how.decay)

    def validation(self, module: nn.Module, batch: AcousticBatch, generator: torch.Generator) -> Tensor:
        assert isinstance(module, AcousticModel)
        return self._losses(module, batch, generator, later=False)["loss"]

    def sampling(self) -> Sampling:
        return few_steps(self.taught_by, self.how, self.model)

    def _losses(
        self, model: AcousticModel, batch: AcousticBatch, generator: torch.Generator, later: bool
    ) -> dict[str, Tensor]:
        target = None if self.target is None else self.target.eval()
        teacher, sampling = self.teacher.to(batch.mel.device), self.taught_by
        lesson = Lesson(teacher, self.how, target, sampling.temperature, sampling.guidance, later)
        return distillation_loss(model, batch, lesson, generator)


def few_steps(taught_by: Sampling, how: Method, student: AcousticModel) -> Sampling:
    """Return how a student is sampled, from how its teacher's voice is."""
    sampling = replace(taught_by, steps=how.steps, solver="euler")
    if student.guided and not student.embeds_guidance:
        sampling = replace(sampling, guidance=0.0)  # the teacher's is in the weights
    if isinstance(how, Distillation):
        return replace(sampling, temperature=how.temperature, grid=None)
    return replace(sampling, grid=None) if isinstance(how, Consistency) else sampling


@dataclass(frozen=True)
class VocoderTaskConfig:
    """Weights of a vocoder's losses; the discriminators come in at step `adversarial_from`, spectra alone train it before.

    Without that step there are no discriminators. `adversarial` is the form of their losses, "hinge" or "least_squares".
    """

    adversarial_from: int | None = 1000
    mel_weight: float = 15.0
    stft_weight: float = 2.5
    feature_weight: float = 2.0
    discriminators: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    adversarial: str = "hinge"

    def __post_init__(self) -> None:
        if self.adversarial not in ADVERSARIAL:
            raise ConfigError(f"losses.adversarial = {self.adversarial!r}", f"use one of: {', '.join(ADVERSARIAL)}")


class AdversarialTask(abc.ABC):
    """Trains a module whose sound is compared with recordings: on spectral distances and, from a given step, against
    discriminators that are trained with it.

    What the module has of losses besides is added to them.

    Args:
        name: of the module, which is the one that is shipped.
        features: mels of which are compared.
    """

    def __init__(
        self, name: str, module: nn.Module, features: MelConfig, probe: VocoderBatch, config: VocoderTaskConfig
    ) -> None:
        self.ema_module, self.probe, self.config = name, probe, config
        self.modules: dict[str, nn.Module] = {name: module}
        if config.adversarial_from is not None:
            self.discriminators = Discriminators(config.discriminators)
            self.modules["discriminators"] = self.discriminators
        self.mel_loss, self.stft_loss = MultiMelLoss(features), MultiSTFTLoss()

    @abc.abstractmethod
    def heard(
        self, batch: VocoderBatch, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Return recordings and their copies, both [B, S], losses to be added, and what is only logged."""

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {name: list(module.parameters()) for name, module in self.modules.items()}

    def updates(
        self, batch: VocoderBatch, step: int, generator: torch.Generator
    ) -> Iterator[tuple[str, dict[str, Tensor]]]:
        self.mel_loss.to(batch.mel.device)
        self.stft_loss.to(batch.mel.device)
        c, share = self.config, batch.share
        real, fake, own, told = self.heard(batch, generator)
        fake = fake.float()
        adversarial = c.adversarial_from is not None and step >= c.adversarial_from
        if adversarial:
            scored = self.discriminators(real), self.discriminators(fake.detach())
            yield "discriminators", {"loss": discriminator_loss(*scored, share, c.adversarial)}
        with torch.autocast(real.device.type, enabled=False):
            mel, stft = self.mel_loss(fake, real, share), self.stft_loss(fake, real, share)
        losses = {"mel": mel, "stft": stft, **own, **told}
        loss = torch.stack([c.mel_weight * mel + c.stft_weight * stft, *own.values()]).sum()
        if adversarial:
            self.discriminators.requires_grad_(False)  # the module's step needs no gradient of their weights
            with torch.no_grad():
                real_scored = self.discriminators(real)
            fake_scored = self.discriminators(fake)
            losses |= {
                "adversarial": adversarial_loss(fake_scored, share, c.adversarial),
                "feature": feature_loss(real_scored, fake_scored, share),
            }
            loss = loss + losses["adversarial"] + c.feature_weight * losses["feature"]
        yield self.ema_module, {**losses, "loss": loss}
        if adversarial:
            self.discriminators.requires_grad_(True)

    def distance(self, fake: Tensor, real: Tensor) -> Tensor:
        """Return the distance of mels alone: what the discriminators say of a sound changes with them."""
        self.mel_loss.to(real.device)
        with torch.autocast(real.device.type, enabled=False):
            return self.mel_loss(fake.float(), real)


class VocoderTask(AdversarialTask):
    """Trains a vocoder; its own losses are those of `Vocoder.trained`."""

    def __init__(self, vocoder: Vocoder, probe: VocoderBatch, config: VocoderTaskConfig) -> None:
        super().__init__("vocoder", vocoder, vocoder.features, probe, config)
        self.vocoder = vocoder

    def heard(
        self, batch: VocoderBatch, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, dict[str, Tensor], dict[str, Tensor]]:
        fake, own = self.vocoder.trained(batch.mel, batch.waveform, generator, batch.share)
        return batch.waveform, fake, own, {}

    def validation(self, module: nn.Module, batch: VocoderBatch, generator: torch.Generator) -> Tensor:
        return self.distance(module(batch.mel), batch.waveform)

    def sample(self, module: nn.Module, step: int, log: TrainingLog) -> None:
        _sample_crops(module, self.probe, step, log)


class CodecTask(AdversarialTask):
    """Trains a codec; its own losses are those of `Codec.trained`.

    Args:
        features: mels of which are compared.
        weights: of the codec's own losses; 1 where left out.
    """

    def __init__(
        self,
        codec: Codec,
        features: MelConfig,
        probe: VocoderBatch,
        config: VocoderTaskConfig,
        weights: Mapping[str, float],
    ) -> None:
        super().__init__("codec", codec, features, probe, config)
        self.codec, self.features, self.weights = codec, features, weights

    def heard(
        self, batch: VocoderBatch, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, dict[str, Tensor], dict[str, Tensor]]:
        real = self._whole(batch.waveform)
        made = self.codec.trained(real, generator, batch.share)
        own = {name: self.weights.get(name, 1.0) * loss for name, loss in made.losses.items()}
        return real, made.waveform, own, {"perplexity": self._perplexity(made.codes, batch.share)}

    def _perplexity(self, codes: Tensor, share: Share | None) -> Tensor:
        """Return the perplexity of the batch's codes, the mean over codebooks."""
        counts = count_codes(codes, max(self.codec.sizes)).float()
        return codebook_use(counts if share is None else share.sum(counts)).perplexity.mean().float()

    def _whole(self, waveform: Tensor) -> Tensor:
        """Return what a crop has of the codec's frames."""
        return waveform[:, : waveform.shape[1] // self.codec.hop_length * self.codec.hop_length]

    def validation(self, module: nn.Module, batch: VocoderBatch, generator: torch.Generator) -> Tensor:
        assert isinstance(module, Codec)
        real = self._whole(batch.waveform)
        return self.distance(module.decode(module.encode(real))[:, : real.shape[1]], real)

    @torch.inference_mode()
    def sample(self, module: nn.Module, step: int, log: TrainingLog) -> None:
        assert isinstance(module, Codec)
        real = self._whole(self.probe.waveform.cpu())
        copy = module.cpu().decode(module.encode(real))[:, : real.shape[1]].flatten()
        log.audio(step, "copy", copy, module.sample_rate)
        mel = LogMel(replace(self.features, pitch=False))
        log.mel(step, "copy", mel(copy[None])[0])
        log.mel(step, "true", mel(real.flatten()[None])[0])


class FlowVocoderTask:
    """Trains a vocoder on its own loss."""

    ema_module = "vocoder"

    def __init__(self, vocoder: FlowVocoder, probe: VocoderBatch) -> None:
        self.vocoder, self.probe = vocoder, probe
        self.modules: dict[str, nn.Module] = {"vocoder": vocoder}

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"vocoder": list(self.vocoder.parameters())}

    def updates(
        self, batch: VocoderBatch, step: int, generator: torch.Generator
    ) -> Iterator[tuple[str, dict[str, Tensor]]]:
        yield "vocoder", self.vocoder.loss(batch.mel, batch.waveform, generator, batch.share)

    def validation(self, module: nn.Module, batch: VocoderBatch, generator: torch.Generator) -> Tensor:
        assert isinstance(module, FlowVocoder)
        return module.loss(batch.mel, batch.waveform, generator)["loss"]

    def sample(self, module: nn.Module, step: int, log: TrainingLog) -> None:
        _sample_crops(module, self.probe, step, log)


class ConsistencyTask(FlowVocoderTask):
    """Trains a vocoder, which begins as a copy of its teacher, to take one step; its own average is its target."""

    def __init__(self, vocoder: FlowVocoder, teacher: FlowVocoder, how: Consistency, probe: VocoderBatch) -> None:
        super().__init__(vocoder, probe)
        self.teacher, self.how = teacher.requires_grad_(False).eval(), how
        self.target = copy.deepcopy(vocoder).requires_grad_(False)
        self.modules["target"] = self.target  # so that checkpoints have it

    def updates(
        self, batch: VocoderBatch, step: int, generator: torch.Generator
    ) -> Iterator[tuple[str, dict[str, Tensor]]]:
        yield "vocoder", self._losses(self.vocoder, batch, generator, batch.share)
        follow(self.target.parameters(), self.vocoder.parameters(), self.how.decay)

    def validation(self, module: nn.Module, batch: VocoderBatch, generator: torch.Generator) -> Tensor:
        assert isinstance(module, FlowVocoder)
        return self._losses(module, batch, generator)["loss"]

    def _losses(
        self, vocoder: FlowVocoder, batch: VocoderBatch, generator: torch.Generator, share: Share | None = None
    ) -> dict[str, Tensor]:
        teacher = self.teacher.to(batch.mel.device)
        return vocoder.consistency_loss(batch.mel, batch.waveform, teacher, self.target, self.how, generator, share)


def vocoder_task(vocoder: Vocoder, probe: VocoderBatch, config: VocoderTaskConfig) -> VocoderTask | FlowVocoderTask:
    """Return the task that trains a vocoder; `config` is of those without a loss of their own."""
    if isinstance(vocoder, FlowVocoder):
        return FlowVocoderTask(vocoder, probe)
    return VocoderTask(vocoder, probe, config)


@torch.inference_mode()
def _sample_crops(module: nn.Module, probe: VocoderBatch, step: int, log: TrainingLog) -> None:
    assert isinstance(module, Vocoder)
    mel = probe.mel.cpu()
    waveform = module.cpu()(mel).flatten()
    log.audio(step, "generated", waveform, module.features.sample_rate)
    log.mel(step, "generated", LogMel(module.features)(waveform[None])[0])
    log.mel(step, "true", torch.cat(list(mel), dim=-1))
