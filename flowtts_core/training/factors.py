"""Trains a codec whose codes are apart: heads read from each attribute what it is to tell, adversaries what it is not."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowtts_core.audio.mel import MelConfig
from flowtts_core.audio.pitch import SCALE
from flowtts_core.codec.factorised import F0_SCALE, Factored, FactorisedCodec
from flowtts_core.engines.phone_alignment import Phone, PhoneAligner
from flowtts_core.errors import ConfigError, FlowTTSError
from flowtts_core.nn.reversal import reversed_gradient
from flowtts_core.nn.share import Share
from flowtts_core.text.frontends.symbols import symbol_table
from flowtts_core.training.batches import VocoderBatch, VocoderBatches
from flowtts_core.training.distributed import ALONE, Ranks
from flowtts_core.training.examples import Examples
from flowtts_core.training.tasks import CodecTask, VocoderTaskConfig

log = logging.getLogger(__name__)
UNKNOWN, SILENCE = -100, 0  # labels of frames; the first counts in no loss
_IDS = symbol_table("matcha").ids
PHONES = max(_IDS.values()) + 1  # classes: signs of IPA, of which a diphthong has two
_CLIPS = 8  # of a speaker, from which the level of the pitch is known
_KERNEL, _WIDTH = 5, 128  # of an adversary: what is spread over neighbours is found too


@dataclass(frozen=True)
class FactorConfig:
    """How codes are kept apart.

    Attributes:
        phones, f0, speaker: weights of what content, prosody and timbre are to tell.
        adversaries: weight of what they are not to tell.
        first_reversal, last_reversal: strength of the reversed gradients at the first step, and from half of the steps on.
        detail_dropout: share of the batches whose copies hear no details.
    """

    phones: float = 5.0
    f0: float = 5.0
    speaker: float = 2.0
    adversaries: float = 2.0
    first_reversal: float = 0.1
    last_reversal: float = 1.0
    detail_dropout: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.first_reversal <= self.last_reversal or not 0 <= self.detail_dropout <= 1:
            raise ConfigError(
                f"FactorConfig: reversal {self.first_reversal} to {self.last_reversal}, dropout {self.detail_dropout}",
                "use strengths of 0 and more that do not fall, and a dropout of 0 to 1",
            )

    def reversal(self, step: int, steps: int) -> float:
        """Return the strength at a step."""
        return self.first_reversal + min(1.0, 2 * step / steps) * (self.last_reversal - self.first_reversal)


@dataclass(frozen=True)
class FactorBatch(VocoderBatch):
    """Crops and what is known of them, at the codec's frames: phones [B, T], speakers [B], F0 of the contour [B, T]."""

    phones: Tensor | None = None
    speakers: Tensor | None = None
    f0: Tensor | None = None

    def to(self, device: torch.device | str) -> FactorBatch:
        labels = (None if own is None else own.to(device) for own in (self.phones, self.speakers, self.f0))
        return FactorBatch(self.mel.to(device), self.waveform.to(device), self.share, *labels)


class ClipLabels:
    """What is known of clips at any time: phones by alignment with their texts, and F0 relative to the speaker's.

    Each clip is aligned once, when it is first asked for.

    Args:
        examples: with the columns "mel" (which has pitch), "audio" and "text".
        levels: of the speakers' pitch, by their numbers; None: of these clips.
    """

    def __init__(self, examples: Examples, aligner: PhoneAligner, levels: Mapping[int, float] | None = None) -> None:
        self.examples, self.aligner = examples, aligner
        self.levels = _levels(examples) if levels is None else levels
        self._aligned = dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]]()

    def over(self, examples: Examples) -> ClipLabels:
        """Return those of other clips of the same speakers."""
        return ClipLabels(examples, self.aligner, self.levels)

    def phones(self, clip: int, times: np.ndarray) -> np.ndarray:
        """Return the classes [T] at seconds [T]; `UNKNOWN` throughout for a clip that cannot be aligned."""
        if clip not in self._aligned:
            self._aligned[clip] = self._align(clip)
        starts, ends, classes = self._aligned[clip]
        if not len(starts):
            return np.full(len(times), UNKNOWN)
        place = np.searchsorted(starts, times, "right") - 1
        inside = (place >= 0) & (times < ends[place])
        return np.where(inside, classes[place], SILENCE)

    def f0(self, clip: int, times: np.ndarray) -> np.ndarray:
        """Return the contour's F0 [T] at seconds [T]."""
        mel = self.examples.meta.mel
        row = self.examples.mel(clip)[mel.n_mels].astype(np.float64)
        level = self.levels.get(int(self.examples.speaker_ids[clip]), float(np.median(row)))
        own = (np.arange(len(row))) * mel.hop_length / mel.sample_rate
        return np.interp(times, own, (row - level) / SCALE * F0_SCALE)

    def _align(self, clip: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        mel, text = self.examples.meta.mel, self.examples.text(clip)
        waveform = self.examples.audio(clip, 0, int(self.examples.frames[clip]) * mel.hop_length)
        try:
            words = self.aligner.align(text, waveform, mel.sample_rate).words
        except FlowTTSError as error:
            log.warning("its phones are not known: %r (%s)", text[:60], error.message)
            words = ()
        pieces = [piece for word in words for phone in word.phones for piece in _signs(phone)]
        starts, ends, classes = (np.array([piece[i] for piece in pieces]) for i in range(3))
        return starts, ends, classes.astype(np.int64)


def _signs(phone: Phone) -> list[tuple[float, float, int]]:
    """Return start, end and class of each sign of a phone, which share its time."""
    start, end = phone.start_s, phone.end_s
    signs = [_IDS[sign] for sign in phone.phone if sign in _IDS and sign.isalpha() and sign not in "ːˑʰʱʲʷˠˤ˞ʼ"]
    each = (end - start) / max(len(signs), 1)
    return [(start + i * each, start + (i + 1) * each, sign) for i, sign in enumerate(signs)]


def _levels(examples: Examples) -> dict[int, float]:
    levels = {}
    for speaker in np.unique(examples.speaker_ids):
        clips = np.flatnonzero(examples.speaker_ids == speaker)[:_CLIPS]
        rows = [examples.mel(int(clip))[examples.meta.mel.n_mels] for clip in clips]
        levels[int(speaker)] = float(np.median(np.concatenate(rows).astype(np.float64)))
    return levels


class FactorBatches(VocoderBatches):
    """Crops with their labels, at frames of `hop_length` samples."""

    def __init__(self, labels: ClipLabels, hop_length: int, batch_size: int, crop_frames: int, seed: int) -> None:
        super().__init__(labels.examples, batch_size, crop_frames, seed)
        self.labels, self.hop_length = labels, hop_length

    def at(self, step: int, ranks: Ranks = ALONE) -> FactorBatch:
        batch = super().at(step, ranks)
        clips, starts = self._drawn(step)
        mine = range(self.batch_size) if batch.share is None else batch.share.rows.tolist()
        return self._labelled(batch, [int(clips[row]) for row in mine], [starts[row] for row in mine])

    def _middles(self, clips: np.ndarray) -> FactorBatch:
        own = [int(clip) for clip in clips]
        return self._labelled(super()._middles(clips), own, [self._middle(clip) for clip in own])

    def _over(self, examples: Examples) -> FactorBatches:
        labels = self.labels.over(examples)
        return FactorBatches(labels, self.hop_length, self.batch_size, self.crop_frames, self.seed)

    def _labelled(self, batch: VocoderBatch, clips: list[int], starts: list[int]) -> FactorBatch:
        mel, frames = self.examples.meta.mel, batch.waveform.shape[1] // self.hop_length
        offsets = (np.arange(frames) + 0.5) * self.hop_length
        times = [(start * mel.hop_length + offsets) / mel.sample_rate for start in starts]
        phones = np.stack([self.labels.phones(clip, own) for clip, own in zip(clips, times, strict=True)])
        f0 = np.stack([self.labels.f0(clip, own) for clip, own in zip(clips, times, strict=True)])
        speakers = torch.from_numpy(self.examples.speaker_ids[clips])
        return FactorBatch(
            batch.mel, batch.waveform, batch.share, torch.from_numpy(phones), speakers, torch.from_numpy(f0).float()
        )


class FactorHeads(nn.Module):
    """What reads attributes in training; nothing of it is shipped.

    Args:
        dim, speaker_dim: of the codec's attributes and of its timbre.
    """

    def __init__(self, dim: int, speaker_dim: int, speakers: int) -> None:
        super().__init__()
        self.phones, self.speaker = nn.Linear(dim, PHONES), nn.Linear(speaker_dim, speakers)
        self.prosody_phones = _adversary(dim, PHONES)
        self.prosody_speaker, self.content_speaker = _adversary(dim, speakers), _adversary(dim, speakers)
        self.content_f0 = _adversary(dim, 1)

    def losses(
        self, made: Factored, batch: FactorBatch, weights: FactorConfig, strength: float
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the losses of heads and adversaries, weighted, and what is only told: how often each is right."""
        assert batch.phones is not None and batch.speakers is not None and batch.f0 is not None
        phones, share = batch.phones, batch.share
        sounding = (phones != SILENCE) & (phones != UNKNOWN)
        prosody, content = (reversed_gradient(made.values[name], strength) for name in ("prosody", "content"))
        each = batch.speakers[:, None].expand(phones.shape)
        read = {
            "phones": (self.phones(made.values["content"]), phones),
            "speaker": (self.speaker(made.speaker), batch.speakers),
            "prosody_phones": (_through(self.prosody_phones, prosody), phones),
            "prosody_speaker": (_through(self.prosody_speaker, prosody), each),
            "content_speaker": (_through(self.content_speaker, content), each),
        }
        own = {"phones": weights.phones, "speaker": weights.speaker, "f0": weights.f0}
        losses, told = dict[str, Tensor](), dict[str, Tensor]()
        for name, (logits, wanted) in read.items():
            known = wanted != UNKNOWN
            entropy = F.cross_entropy(
                logits.float().flatten(0, -2), wanted.flatten(), ignore_index=UNKNOWN, reduction="sum"
            )
            losses[name] = own.get(name, weights.adversaries) * _mean(share, entropy, known)
            told[f"{name}_right"] = _mean(share, ((logits.argmax(-1) == wanted) & known).sum().float(), known)
        heard = {"f0": made.contour[..., 0], "content_f0": _through(self.content_f0, content)[..., 0]}
        for name, predicted in heard.items():
            distance = ((predicted.float() - batch.f0).abs().clamp(max=4.0) * sounding).sum()
            losses[name] = own.get(name, weights.adversaries) * _mean(share, distance, sounding)
        return losses, told


def _adversary(dim: int, size: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv1d(dim, _WIDTH, _KERNEL, padding=_KERNEL // 2), nn.ReLU(), nn.Conv1d(_WIDTH, size, 1))


def _through(adversary: nn.Module, values: Tensor) -> Tensor:
    made: Tensor = adversary(values.transpose(1, 2)).transpose(1, 2)
    return made


def _mean(share: Share | None, total: Tensor, counted: Tensor) -> Tensor:
    """Return a sum over what counts, by its number in the whole batch."""
    count = counted.sum().float()
    return total / count.clamp(min=1) if share is None else share.sum(total) / share.sum(count).clamp(min=1)


class FactorTask(CodecTask):
    """Trains a `FactorisedCodec` on its copies, with heads and adversaries on its attributes.

    Args:
        steps: of the whole training, over which adversaries grow strong.
    """

    def __init__(
        self,
        codec: FactorisedCodec,
        features: MelConfig,
        probe: VocoderBatch,
        config: VocoderTaskConfig,
        weights: Mapping[str, float],
        factors: FactorConfig,
        speakers: int,
        steps: int,
    ) -> None:
        super().__init__(codec, features, probe, config, weights)
        self.factors, self.steps, self.strength = factors, steps, factors.first_reversal
        self.factorised = codec
        self.heads = FactorHeads(codec.config.encoder_dim, codec.config.speaker_dim, speakers)
        self.modules["heads"] = self.heads  # so that checkpoints have them

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        groups = super().parameter_groups()
        heads = groups.pop("heads")
        return {**groups, "codec": [*groups["codec"], *heads]}

    def updates(
        self, batch: VocoderBatch, step: int, generator: torch.Generator
    ) -> Iterator[tuple[str, dict[str, Tensor]]]:
        self.strength = self.factors.reversal(step, self.steps)
        yield from super().updates(batch, step, generator)

    def heard(
        self, batch: VocoderBatch, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, dict[str, Tensor], dict[str, Tensor]]:
        assert isinstance(batch, FactorBatch)
        real = self._whole(batch.waveform)
        detailed = bool(torch.rand((), generator=generator) >= self.factors.detail_dropout)
        made = self.factorised.factored(real, generator, batch.share, detailed=detailed)
        own = {name: self.weights.get(name, 1.0) * loss for name, loss in made.losses.items()}
        losses, told = self.heads.losses(made, batch, self.factors, self.strength)
        return real, made.waveform, {**own, **losses}, {"perplexity": self._perplexity(made.codes, batch.share), **told}


def open_labels(examples: Examples, voice: str | None) -> ClipLabels:
    """Return the labels of a corpus's clips, aligned by a voice (None: the bundled one, which reads English).

    Raises:
        ConfigError: for a voice that does not read a language of the corpus.
    """
    threads = torch.get_num_threads()
    aligner = PhoneAligner(voice)
    torch.set_num_threads(threads)  # an aligner takes one for itself
    if other := [language for language in examples.meta.languages if not aligner.reads(language)]:
        raise ConfigError(
            f"phones of {other[0]!r} cannot be aligned by the voice {aligner.card.name}",
            "name a flow voice that reads it: --set aligner=VOICE",
        )
    return ClipLabels(examples, aligner)
