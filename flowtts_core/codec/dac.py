"""DAC: convolutions with periodic activations between samples and frames, and residual quantisation by factorised codes.

Source: Kumar et al., "High-Fidelity Audio Compression with Improved RVQGAN" (arXiv 2306.06546). State-dict names are those of
descript-audio-codec, without weight norm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from flowtts_core.codec.base import Codec, Encoded, Trained
from flowtts_core.codec.quantize import FactorizedQuantizer, Quantized, ResidualQuantizer
from flowtts_core.errors import ConfigError
from flowtts_core.nn.dacnet import DACDecoder, DACEncoder, Snake
from flowtts_core.nn.share import Share


@dataclass(frozen=True)
class DACConfig:
    """A DAC; the defaults are those of the published 44.1 kHz model.

    Attributes:
        width, strides: of the encoder; frames have `width * 2 ** len(strides)` dimensions.
        decoder_width: at the frames; each stride halves it.
        codebooks, bins, codebook_dim: of the quantiser.
        quantizer_dropout: of training, as `ResidualQuantizer` takes it.
    """

    sample_rate: int = 44100
    width: int = 64
    strides: tuple[int, ...] = (2, 4, 8, 8)
    decoder_width: int = 1536
    codebooks: int = 9
    bins: int = 1024
    codebook_dim: int = 8
    quantizer_dropout: float = 0.5

    def __post_init__(self) -> None:
        sizes = {k: v for k, v in vars(self).items() if isinstance(v, int)}
        if wrong := [name for name, value in sizes.items() if value < 1]:
            raise ConfigError(f"DACConfig: {', '.join(wrong)} below 1", "use 1 or more")
        if not self.strides or min(self.strides) < 2 or self.decoder_width < 2 ** len(self.strides):
            raise ConfigError(
                f"DACConfig: strides {list(self.strides)}", "use 2 or more, and a decoder_width they can halve"
            )


class DAC(Codec):
    """The codec; a sound is filled with zeros to whole frames."""

    weight_norm = True

    def __init__(self, config: DACConfig) -> None:
        super().__init__()
        c = config
        self.config, self.sample_rate, self.hop_length = c, c.sample_rate, math.prod(c.strides)
        self.sizes = (c.bins,) * c.codebooks
        dimension = c.width * 2 ** len(c.strides)
        self.encoder = DACEncoder(c.width, c.strides, dimension, Snake)
        books = [FactorizedQuantizer(dimension, c.bins, c.codebook_dim) for _ in range(c.codebooks)]
        self.quantizer = ResidualQuantizer(books, c.quantizer_dropout, "quantizers")
        self.decoder = DACDecoder(dimension, c.decoder_width, tuple(reversed(c.strides)), Snake)

    def encode_whole(self, sound: Tensor, books: int) -> Encoded:
        return Encoded(self.quantizer.encode(self._latents(sound), books))

    def decode_whole(self, encoded: Encoded) -> Tensor:
        made: Tensor = self.decoder(self.quantizer.decode(encoded.codes))
        return made

    def _latents(self, sound: Tensor) -> Tensor:
        latents: Tensor = self.encoder(F.pad(sound, (0, -sound.shape[-1] % self.hop_length)))
        return latents

    def trained(
        self, waveform: Tensor, generator: torch.Generator | None = None, share: Share | None = None
    ) -> Trained:
        made: Quantized = self.quantizer(self._latents(waveform[:, None]).float(), share, generator)
        return Trained(self.decoder(made.values)[:, 0], made.codes, made.losses)
