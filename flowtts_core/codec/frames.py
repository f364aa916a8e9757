"""A codec of STFT frames, cheap on a CPU: ConvNeXt blocks at the frame rate on either side of the quantiser.

The decoder is that of Vocos (arXiv 2306.00814, section 3); the encoder mirrors it. No layer runs at the sample rate.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flowtts_core.codec.base import Codec, Encoded, Trained
from flowtts_core.codec.quantize import FiniteScalarQuantizer, Quantized, Quantizer, ResidualQuantizer, VectorQuantizer
from flowtts_core.errors import ConfigError
from flowtts_core.nn.convnext import PAD, CausalConvNeXtBlock, ConvNeXtBlock
from flowtts_core.nn.istft import InverseSTFT, ISTFTHead
from flowtts_core.nn.share import Share
from flowtts_core.nn.stream import Stream

_LEAST = 1e-5  # magnitude below which a bin is silent
_POWER = 0.3  # of magnitudes, which speech spreads over five decades


@dataclass(frozen=True)
class FrameCodecConfig:
    """Sizes of a codec of frames.

    Attributes:
        hop_length, n_fft: a frame, and the window around its middle.
        encoder_dim, encoder_intermediate, encoder_layers: of the encoder's blocks; those of the decoder likewise.
        codebooks, bins, codebook_dim, normalised: of the residual quantiser.
        levels: of a finite scalar quantiser, which then takes its place.
        causal: whether frames see those before them alone; codes and sound then wait for half a window each.
        quantizer_dropout, decay, replace_after: of training, as `ResidualQuantizer` and `Codebook` take them.
    """

    sample_rate: int = 24000
    hop_length: int = 320
    n_fft: int = 1280
    encoder_dim: int = 192
    encoder_intermediate: int = 576
    encoder_layers: int = 4
    decoder_dim: int = 256
    decoder_intermediate: int = 768
    decoder_layers: int = 5
    codebooks: int = 1
    bins: int = 4096
    codebook_dim: int = 8
    normalised: bool = True
    levels: tuple[int, ...] = ()
    causal: bool = False
    quantizer_dropout: float = 0.5
    decay: float = 0.99
    replace_after: float = 10.0

    def __post_init__(self) -> None:
        sizes = {k: v for k, v in vars(self).items() if isinstance(v, int) and not isinstance(v, bool)}
        if wrong := [name for name, value in sizes.items() if value < 1]:
            raise ConfigError(f"FrameCodecConfig: {', '.join(wrong)} below 1", "use 1 or more")
        if self.n_fft < self.hop_length or self.n_fft % 2 or (self.n_fft - self.hop_length) % 2:
            raise ConfigError(
                f"FrameCodecConfig: n_fft {self.n_fft}, hop_length {self.hop_length}",
                "use even ones, n_fft at least the hop",
            )
        if not 0 < self.decay < 1 or not 0 <= self.quantizer_dropout <= 1:
            raise ConfigError(f"FrameCodecConfig: decay {self.decay}, dropout {self.quantizer_dropout}", "use 0 to 1")


class FrameNet(nn.Module):
    """ConvNeXt blocks at the frame rate: [B, C, T] -> [B, T, dim]."""

    def __init__(self, channels: int, dim: int, intermediate: int, layers: int, causal: bool) -> None:
        super().__init__()
        self.embed, self.norm = nn.Linear(channels, dim), nn.LayerNorm(dim, eps=1e-6)
        kind = CausalConvNeXtBlock if causal else ConvNeXtBlock
        self.convnext = nn.ModuleList(kind(dim, intermediate, 1 / layers) for _ in range(layers))
        self.final_layer_norm = nn.LayerNorm(dim, eps=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias) if module.bias is not None else None

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        x = self.norm(self.embed(x.transpose(1, 2))).transpose(1, 2)
        for block in self.convnext:
            x = block(x) if stream is None else block(x, stream)
        normed: Tensor = self.final_layer_norm(x.transpose(1, 2))
        return normed


class FrameCodec(Codec):
    """The codec."""

    def __init__(self, config: FrameCodecConfig) -> None:
        super().__init__()
        c = config
        self.config, self.sample_rate, self.hop_length, self.causal = c, c.sample_rate, c.hop_length, c.causal
        half = (c.n_fft - c.hop_length) // 2
        self.lookahead = -(-half // c.hop_length) * c.hop_length + half  # codes come when a frame is whole
        around = -(-c.n_fft // (2 * c.hop_length))
        self.context_frames = PAD * (c.encoder_layers + c.decoder_layers) * (2 if c.causal else 1) + 2 * around
        self.stft = InverseSTFT(c.n_fft, c.hop_length, c.n_fft, "same")
        bins = c.n_fft // 2 + 1
        self.encoder = FrameNet(3 * bins, c.encoder_dim, c.encoder_intermediate, c.encoder_layers, c.causal)
        if c.levels:
            layers: list[Quantizer] = [FiniteScalarQuantizer(c.encoder_dim, c.levels)]
        else:
            layers = [
                VectorQuantizer(
                    c.encoder_dim,
                    c.bins,
                    c.codebook_dim,
                    kmeans_iterations=20,
                    decay=c.decay,
                    replace_after=c.replace_after,
                    normalised=c.normalised,
                )
                for _ in range(c.codebooks)
            ]
        self.quantizer = ResidualQuantizer(layers, c.quantizer_dropout)
        self.sizes = tuple(layer.size for layer in layers)
        self.decoder = FrameNet(c.encoder_dim, c.decoder_dim, c.decoder_intermediate, c.decoder_layers, c.causal)
        self.head = ISTFTHead(c.decoder_dim, c.n_fft, c.hop_length, "same")

    def encode_whole(self, sound: Tensor, books: int) -> Encoded:
        return Encoded(self.quantizer.encode(self._latents(sound[:, 0]), books))

    def decode_whole(self, encoded: Encoded) -> Tensor:
        return self._sound(self.quantizer.decode(encoded.codes))[:, None]

    def _latents(self, waveform: Tensor) -> Tensor:
        """Return the encoder's latents [B, D, T] of waveforms [B, S], of which the last frame is filled with zeros."""
        whole = nn.functional.pad(waveform, (0, -waveform.shape[-1] % self.hop_length))
        latents: Tensor = self.encoder(frame_features(self.stft.stft(whole)))
        return latents.transpose(1, 2)

    def _sound(self, latents: Tensor) -> Tensor:
        waveform: Tensor = self.head(self.head.out(self.decoder(latents)))
        return waveform

    def encode_piece(self, sound: Tensor, books: int, stream: Stream) -> Tensor:
        whole = nn.functional.pad(sound[:, 0], (0, -sound.shape[-1] % self.hop_length))
        latents = self.encoder(frame_features(self.stft.stft_piece(whole, stream)), stream).transpose(1, 2)
        return self.quantizer.encode(latents, books)

    def decode_piece(self, codes: Tensor, stream: Stream) -> Tensor:
        predicted = self.head.out(self.decoder(self.quantizer.decode(codes), stream))
        return self.head.istft.forward_piece(self.head.spectrum(predicted), stream)[:, None]

    def trained(
        self, waveform: Tensor, generator: torch.Generator | None = None, share: Share | None = None
    ) -> Trained:
        made: Quantized = self.quantizer(self._latents(waveform).float(), share, generator)
        return Trained(self._sound(made.values), made.codes, made.losses)


def frame_features(spectrum: Tensor) -> Tensor:
    """Return what the encoder reads of a spectrum [B, F, T]: log magnitudes, and the spectrum compressed; [B, 3 F, T]."""
    frames = spectrum.transpose(1, 2)  # as an STFT lays them out
    real, imaginary = frames.real, frames.imag
    log = torch.addcmul(real.square(), imaginary, imaginary).clamp(min=_LEAST**2).log() / 2
    gain = ((_POWER - 1) * log).exp()
    return torch.cat([log / 4, real * gain, imaginary * gain], 2).transpose(1, 2)
