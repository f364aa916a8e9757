"""What a vocoder is: log-mel in, waveform out, whole or by chunks."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator

from torch import Tensor, nn

from flowtts_core.audio.mel import MelConfig


class Vocoder(nn.Module, abc.ABC):
    """Contract: `forward(mel[B, M, T], lengths[B]) -> [B, features.samples_of(T)]`.

    Padding changes nothing, and a stream of chunks equals the whole.
    """

    features: MelConfig
    context_frames: int | None = None  # frames on either side that a frame's samples depend on; None: all of them

    @abc.abstractmethod
    def forward(self, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Waveform of log-mels.

        Args:
            mel: [B, M, T], as `MelConfig` makes it.
            lengths: [B] valid frames; samples beyond `features.samples_of(length)` are zero.

        Returns:
            [B, samples_of(T)] float32 in about [-1, 1]; T * hop_length samples for "same" mels, one hop less for "center".
        """

    def stream(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Waveform chunks [1, S_i] of mel chunks [1, M, T_i]; joined they equal `forward` of the joined mel within 1e-4."""
        raise NotImplementedError(f"{type(self).__name__} cannot stream")
