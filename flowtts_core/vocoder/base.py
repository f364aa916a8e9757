"""What a vocoder is: log-mel in, waveform out."""

from __future__ import annotations

import abc

from torch import Tensor, nn

from flowtts_core.audio.mel import MelConfig


class Vocoder(nn.Module, abc.ABC):
    """Contract: `forward(mel[B, M, T], lengths[B]) -> [B, features.samples_of(T)]`.

    Padding changes nothing.

    Attributes:
        features: the mel it reads.
        context_frames: how many frames on either side a frame's samples depend on; None: on all of them.
    """

    features: MelConfig
    context_frames: int | None = None

    @abc.abstractmethod
    def forward(self, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the waveforms of log-mels.

        Args:
            mel: [B, M, T], as `MelConfig` makes it.
            lengths: [B] valid frames; samples beyond `features.samples_of(length)` are zero.

        Returns:
            [B, samples_of(T)] float32 in about [-1, 1]; T * hop_length samples for "same" mels, one hop less for "center".
        """
