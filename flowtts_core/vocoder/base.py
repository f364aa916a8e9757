"""What a vocoder is: log-mel, with pitch where it needs that, in, waveform out."""

from __future__ import annotations

import abc
from collections.abc import Callable
from types import MappingProxyType

import torch
from torch import Tensor, nn

from flowtts_core.audio.mel import MelConfig
from flowtts_core.errors import FlowTTSError
from flowtts_core.flow.consistency import Consistency
from flowtts_core.nn.graph import Graph, Runners
from flowtts_core.nn.masks import length_mask
from flowtts_core.nn.share import Share

_NOISE_FRAMES = 512


class Vocoder(nn.Module, abc.ABC):
    """Contract: `forward(mel[B, M, T], lengths[B], start) -> [B, features.samples_of(T)]`.

    Padding changes nothing, and a window of the frames gives the samples that the whole has there: where the sources of sound
    go on from frame to frame, `start` says where they stand.

    Attributes:
        features: the mel it reads.
        context_frames: how many frames on either side a frame's samples depend on; None: on all of them.
        weight_norm: whether it is trained with weight norm, which is folded into the weights that are saved.
        runners: what runs instead of its own modules, by the names of `graphs()`; empty where torch runs all.
    """

    features: MelConfig
    context_frames: int | None = None
    weight_norm: bool = False
    runners: Runners = MappingProxyType({})

    def graphs(self) -> dict[str, Graph]:
        """Return the parts that can run outside torch."""
        return {}

    def start_at(self, mel: Tensor, frame: int, earlier: Tensor | None = None) -> Tensor | None:
        """Return where sources of sound stand at a frame of a whole mel [M, T]; None for a vocoder without any.

        Args:
            earlier: what it returned for an earlier frame of this mel; what lies before that is not read again.

        Returns:
            [2] or more, the second of which is the frame.
        """
        return None

    def ended(self, waveform: Tensor, lengths: Tensor | None) -> Tensor:
        """Return waveforms [B, S] with zeros behind the samples of each item's frames."""
        if lengths is None:
            return waveform
        ends = torch.tensor([self.features.samples_of(frames) for frames in lengths.tolist()], device=waveform.device)
        return waveform * length_mask(ends, waveform.shape[1])

    def trained(
        self, mel: Tensor, waveform: Tensor, generator: torch.Generator | None = None, share: Share | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sound of crops that training compares with the recording, and scalar losses to be added to its own.

        Args:
            mel: [B, M, T].
            waveform: [B, samples_of(T)], of the same time.
        """
        return self(mel), {}

    @abc.abstractmethod
    def forward(self, mel: Tensor, lengths: Tensor | None = None, start: Tensor | None = None) -> Tensor:
        """Return the waveforms of log-mels.

        Args:
            mel: [B, M, T], as `MelConfig` makes it.
            lengths: [B] valid frames; samples beyond `features.samples_of(length)` are zero.
            start: [B, ...] of `start_at`, for windows of longer mels; None where the first frame is that of the whole.

        Returns:
            [B, samples_of(T)] float32 in about [-1, 1]; T * hop_length samples for "same" mels, one hop less for "center".
        """


def each_length(
    features: MelConfig,
    mel: Tensor,
    lengths: Tensor | None,
    start: Tensor | None,
    make: Callable[[Tensor, Tensor | None], Tensor],
) -> Tensor:
    """Return waveforms of mels by a `make` that knows no padding: it gets items of the same length, and their `start`."""
    frames = [mel.shape[-1]] * len(mel) if lengths is None else lengths.tolist()
    waveform = mel.new_zeros(len(mel), features.samples_of(mel.shape[-1]), dtype=torch.float32)
    for count in set(frames):
        rows = [row for row, own in enumerate(frames) if own == count]
        samples = features.samples_of(count)
        if samples:
            waveform[rows, :samples] = make(mel[rows, :, :count], None if start is None else start[rows])
    return waveform


def drawn_frames(width: int) -> Tensor:
    """Return the noise [frames, width] that flows begin at, always the same; after its frames it repeats."""
    return torch.randn(_NOISE_FRAMES, width, generator=torch.Generator().manual_seed(0), device="cpu")


def noise_of_frames(drawn: Tensor, mel: Tensor, start: Tensor | None) -> Tensor:
    """Return the noise [B, T, width] of the frames of mels [B, M, T], which begin at frame `start[:, 1]` of the whole."""
    frames = torch.arange(mel.shape[-1], device=drawn.device)[None]
    if start is not None:
        frames = frames + start[:, 1:].to(drawn.device).long()
    return drawn[frames % len(drawn)].to(mel).expand(len(mel), -1, -1)


class FlowVocoder(Vocoder):
    """A vocoder that learns a flow from noise to sound by a loss of its own, without discriminators."""

    @abc.abstractmethod
    def loss(
        self, mel: Tensor, waveform: Tensor, generator: torch.Generator | None = None, share: Share | None = None
    ) -> dict[str, Tensor]:
        """Return named scalar losses of crops; `"loss"` is their sum, which is trained. Random draws come from `generator`.

        Of crops with a share they are the losses of the whole batch, and their gradients the part of these crops.

        Args:
            mel: [B, M, T].
            waveform: [B, samples_of(T)], of the same time.
        """

    def consistency_loss(
        self,
        mel: Tensor,
        waveform: Tensor,
        teacher: FlowVocoder,
        target: FlowVocoder,
        how: Consistency,
        generator: torch.Generator | None = None,
        share: Share | None = None,
    ) -> dict[str, Tensor]:
        """Return the losses that teach this vocoder to take one step where its teacher takes many, named as those of `loss`.

        Args:
            teacher, target: vocoders of the same kind; the target's weights are the average of this one's.

        Raises:
            FlowTTSError: for a vocoder that cannot be distilled.
        """
        raise FlowTTSError(f"{type(self).__name__} cannot be distilled", "give a vocoder that can: a WaveFM")
