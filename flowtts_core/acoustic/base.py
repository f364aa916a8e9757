"""What an acoustic model is: a condition in, features out; and the batches that train it."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor, nn

from flowtts_core.audio.mel import MelConfig
from flowtts_core.errors import FlowTTSError
from flowtts_core.nn.graph import Graph, Runners
from flowtts_core.nn.share import Share
from flowtts_core.sampling import Sampling


class _OnDevice:
    """Base of frozen dataclasses whose tensors move to a device together; a field may also be None."""

    def to(self, device: torch.device | str) -> Self:
        moved = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]  # each subclass is a dataclass
        moved = {name: v.to(device) if isinstance(v, Tensor | _OnDevice) else v for name, v in moved.items()}
        return replace(self, **moved)  # type: ignore[type-var]  # each subclass is a dataclass


@dataclass(frozen=True)
class Prompt(_OnDevice):
    """What is to be continued or imitated: features of a clip, and what is said in it."""

    features: Tensor  # [B, T, D]
    lengths: Tensor  # [B] int64 frames
    tokens: Tensor  # [B, L] int64
    token_lengths: Tensor  # [B] int64


@dataclass(frozen=True)
class Condition(_OnDevice):
    """What features are generated from. Padding beyond `token_lengths` is 0 and must change nothing."""

    tokens: Tensor  # [B, L] int64
    token_lengths: Tensor  # [B] int64
    speakers: Tensor | None = None  # [B] int64, for models with several speakers
    prompt: Prompt | None = None

    def item(self, row: int) -> Condition:
        """Return one item as a batch of its own, without padding."""
        tokens = self.tokens[row : row + 1, : int(self.token_lengths[row])]
        speakers = None if self.speakers is None else self.speakers[row : row + 1]
        prompt = self.prompt
        if prompt is not None:
            frames, heard = int(prompt.lengths[row]), int(prompt.token_lengths[row])
            prompt = Prompt(
                prompt.features[row : row + 1, :frames],
                prompt.lengths[row : row + 1],
                prompt.tokens[row : row + 1, :heard],
                prompt.token_lengths[row : row + 1],
            )
        return Condition(tokens, self.token_lengths[row : row + 1], speakers, prompt)


@dataclass(frozen=True)
class AcousticBatch(_OnDevice):
    """Training pairs. `mel` is the log-mel as `MelConfig` makes it, not normalised; zeros beyond `mel_lengths`.

    With a `share` these are some items of a larger batch, padded as that is.
    """

    condition: Condition
    mel: Tensor  # [B, M, T] float32
    mel_lengths: Tensor  # [B] int64
    share: Share | None = None


def prompted_by_itself(batch: AcousticBatch) -> Condition:
    """Return the condition of a batch with each clip as the prompt to say its own text again, as samples of a training do."""
    own = batch.condition
    prompt = Prompt(batch.mel.transpose(1, 2), batch.mel_lengths, own.tokens, own.token_lengths)
    return replace(own, prompt=prompt)


@dataclass(frozen=True)
class Generated:
    """Features as the model's vocoder reads them."""

    features: Tensor  # [B, D, T], not normalised; frames beyond `lengths` are undefined
    lengths: Tensor  # [B] int64
    durations: Tensor | None = None  # [B, L] float32 frames per token; 0 on padding; sums to `lengths`
    notes: tuple[tuple[str, ...], ...] = ()  # of each item, what the listener should know; empty where there is nothing


@dataclass(frozen=True)
class FlowBatch:
    """A batch as a velocity field sees it, with what a step draws at random."""

    x_0: Tensor  # [B, T, D] standard normal noise
    x_1: Tensor  # [B, T, D] data
    counted: Tensor  # [B, T, 1] 1 where the field is taught, 0 on padding and on what is given
    condition: Any  # as the model's `velocity` takes it

    def mean_square(
        self, predicted: Tensor, wanted: Tensor, share: Share | None, weights: Tensor | None = None
    ) -> Tensor:
        """Return the mean squared error [B, T, D] over what is counted, in float32, each item times its weight [B]."""
        error = (predicted.float() - wanted.float()).square() * self.counted
        if weights is not None:
            error = error * weights[:, None, None]
        sums = torch.stack([error.sum(), self.counted.sum() * error.shape[2]])
        total, count = sums if share is None else share.sum(sums)
        return total / count.clamp(min=1.0)


class AcousticModel(nn.Module, abc.ABC):
    """Contract: a padded batch, a crop of the padding and a single item agree within 1e-4.

    A model that offers its flow (`flow_batch`, `velocity`) can be distilled to fewer steps; see `acoustic/distilling.py`.

    Attributes:
        features: what it makes; its vocoder must read the same.
        guided: follows `Sampling.guidance`.
        embeds_guidance: its net is told the weight of the guidance, and so is asked but once; a field of its config, too.
        prompted: takes a `Prompt`; "none", "optional" or "required".
        runners: what runs instead of its own modules, by the names of `graphs()`; empty where torch runs all.
    """

    features: MelConfig
    n_symbols: int
    n_speakers: int
    guided: bool = False
    embeds_guidance: bool = False
    prompted: str = "none"
    runners: Runners = MappingProxyType({})

    @abc.abstractmethod
    def loss(self, batch: AcousticBatch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Return named scalar losses; `"loss"` is their sum, which is trained. Random draws come from `generator`.

        Of a batch with a share they are the losses of the whole batch, and their gradients the part of its items.
        """

    @property
    def sampling(self) -> Sampling:
        """Return how it is sampled unless a voice's card or a request says otherwise."""
        return Sampling()

    def flow_batch(self, batch: AcousticBatch, generator: torch.Generator | None = None) -> FlowBatch:
        """Return a batch, or windows of its items, as the velocity field is trained on it; draws come from `generator`.

        Raises:
            FlowTTSError: for a model that cannot be distilled.
        """
        raise FlowTTSError(f"{type(self).__name__} cannot be distilled", "give a voice whose acoustic model can")

    def velocity(self, x: Tensor, t: Tensor, condition: Any, guidance: Tensor | None = None) -> Tensor:
        """Return velocities [B, T, D] at points [B, T, D] and times [B] of flow time.

        Args:
            condition: of `flow_batch`.
            guidance: weights [B] of classifier-free guidance, of a guided model; None for none.
        """
        raise FlowTTSError(f"{type(self).__name__} cannot be distilled", "give a voice whose acoustic model can")

    def aligned_features(self, recording: AcousticBatch, seed: int, settings: Sampling) -> Tensor:
        """Return what the model makes of the text of a recording (a batch of 1), [D, T], in the time that the recording takes.

        Vocoders that are tuned on such features read those of the model better (Tacotron 2, arXiv 1712.05884, section 2.3).

        Raises:
            FlowTTSError: for a model that does not align texts with recordings.
        """
        raise FlowTTSError(
            f"{type(self).__name__} does not align texts with recordings",
            "train the vocoder on the recordings' own mels",
        )

    def graphs(self) -> dict[str, Graph]:
        """Return the parts that can run outside torch."""
        return {}

    @abc.abstractmethod
    def generate(self, condition: Condition, seeds: Sequence[int], settings: Sampling) -> Generated:
        """Sample features. Item b's noise is drawn from `seeds[b]` alone, so its result does not depend on the batch."""


@dataclass(frozen=True)
class Layout:
    """How long an item is, before it is made."""

    frames: int
    durations: Tensor | None  # [L] whole frames of each token


class DurationModel(abc.ABC):
    """Decides how long an item is. Frames are whole, so that no batch's rounding may reach them: it takes items one by one."""

    @abc.abstractmethod
    def lay_out(self, item: Condition, speed: float) -> Layout:
        """Lay one item (a batch of 1) out in time.

        Raises:
            FlowTTSError: for durations that the item's tokens cannot account for.
        """
