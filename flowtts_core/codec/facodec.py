"""FACodec: codes of prosody, of content and of what is left, apart from each other, and the timbre of the speaker beside them.

Source: Ju et al., "NaturalSpeech 3" (arXiv 2403.03100, section 3.3). State-dict names are those of Amphion's ns3_codec, without
weight norm, tables of positions and the adversaries of its training. Unlike in the published code, which takes the place in the
batch for the place in time, each item is coded as it is there alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowtts_core.audio.mel import LogMel, MelConfig
from flowtts_core.codec.base import Codec, Encoded
from flowtts_core.codec.quantize import FactorizedQuantizer, ResidualQuantizer
from flowtts_core.errors import AudioError, ConfigError
from flowtts_core.nn.dacnet import AntiAliased, DACEncoder, ResidualUnit, decoder_layers

PROSODY_BINS = 20  # the lowest of the mel's, which prosody is read from in the second version


@dataclass(frozen=True)
class FACodecConfig:
    """A FACodec; the defaults are those of the published models.

    Attributes:
        version: 1 reads prosody from the encoder, 2 from the lowest bins of a mel.
        width, strides, dimension: of the encoder, whose decoder begins with `decoder_width`.
        prosody, content, residual: numbers of codebooks.
        prosody_bins, content_bins, residual_bins: codes of each of them.
        layers, heads, inner, kernel: of the transformers.
        phones: classes of the head that reads phones from content.
    """

    version: int = 1
    sample_rate: int = 16000
    width: int = 32
    strides: tuple[int, ...] = (2, 4, 5, 5)
    dimension: int = 256
    decoder_width: int = 1024
    prosody: int = 1
    content: int = 2
    residual: int = 3
    prosody_bins: int = 1024
    content_bins: int = 1024
    residual_bins: int = 1024
    codebook_dim: int = 8
    layers: int = 4
    heads: int = 4
    inner: int = 1024
    kernel: int = 5
    phones: int = 5003

    def __post_init__(self) -> None:
        sizes = {k: v for k, v in vars(self).items() if isinstance(v, int)}
        if wrong := [name for name, value in sizes.items() if value < 1]:
            raise ConfigError(f"FACodecConfig: {', '.join(wrong)} below 1", "use 1 or more")
        if self.version not in (1, 2) or self.dimension % self.heads or self.kernel % 2 == 0:
            raise ConfigError(
                f"FACodecConfig: version {self.version}, kernel {self.kernel}", "use version 1 or 2, odd kernels"
            )

    @property
    def mel(self) -> MelConfig:
        """The mel whose lowest bins tell prosody."""
        hop = 1
        for stride in self.strides:
            hop *= stride
        return MelConfig(
            self.sample_rate,
            hop,
            "same",
            n_fft=1024,
            win_length=800,
            n_mels=80,
            f_min=0.0,
            f_max=8000.0,
            magnitude_eps=1e-9,
        )


class StyleNorm(nn.Module):
    """A layer norm of [B, T, D] whose scale and shift are read from a speaker [B, D]; without one, its own."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.style = nn.Linear(dim, 2 * dim)

    def forward(self, x: Tensor, speaker: Tensor) -> Tensor:
        scale, shift = self.style(speaker)[:, None].chunk(2, -1)
        return F.layer_norm(x, x.shape[-1:]) * scale + shift


class _FeedForward(nn.Module):
    def __init__(self, dim: int, inner: int, kernel: int) -> None:
        super().__init__()
        self.ffn_1, self.ffn_2 = nn.Conv1d(dim, inner, kernel, padding=kernel // 2), nn.Linear(inner, dim)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.ffn_2(F.relu(self.ffn_1(x.transpose(1, 2)).transpose(1, 2)))
        return made


class _Layer(nn.Module):
    def __init__(self, config: FACodecConfig, styled: bool) -> None:
        super().__init__()
        dim = config.dimension
        self.self_attn = nn.MultiheadAttention(dim, config.heads, batch_first=True)
        self.ffn = _FeedForward(dim, config.inner, config.kernel)
        self.ln_1: nn.Module = StyleNorm(dim) if styled else nn.LayerNorm(dim)
        self.ln_2: nn.Module = StyleNorm(dim) if styled else nn.LayerNorm(dim)

    def forward(self, x: Tensor, speaker: Tensor | None) -> Tensor:
        normed = _normed(self.ln_1, x, speaker)
        x = x + self.self_attn(normed, normed, normed, need_weights=False)[0]
        made: Tensor = x + self.ffn(_normed(self.ln_2, x, speaker))
        return made


class Transformer(nn.Module):
    """A transformer of frames [B, T, D], without positions in effect; of speakers [B, D] where its norms are styled."""

    def __init__(self, config: FACodecConfig, styled: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(config, styled) for _ in range(config.layers))
        self.last_ln: nn.Module = StyleNorm(config.dimension) if styled else nn.LayerNorm(config.dimension)

    def forward(self, x: Tensor, speaker: Tensor | None = None) -> Tensor:
        first = torch.zeros(x.shape[-1], device=x.device)
        first[1::2] = 1  # sinusoids of place 0: the published code adds them to every frame of a single item
        x = x + first
        for layer in self.layers:
            x = layer(x, speaker)
        return _normed(self.last_ln, x, speaker)


def _normed(norm: nn.Module, x: Tensor, speaker: Tensor | None) -> Tensor:
    made: Tensor = norm(x) if speaker is None else norm(x, speaker)
    return made


class Head(nn.Module):
    """What is read of frames [B, D, T]: a tensor [B, T, n] for each n of `sizes`."""

    def __init__(self, dim: int, sizes: tuple[int, ...]) -> None:
        super().__init__()
        units = [ResidualUnit(dim, dilation, AntiAliased) for dilation in (1, 2, 3)]
        self.model = nn.Sequential(*units, AntiAliased(dim))
        self.heads = nn.ModuleList(nn.Linear(dim, size) for size in sizes)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        hidden = self.model(x).transpose(1, 2)
        return tuple(head(hidden) for head in self.heads)


class TimbreDecoder(nn.Module):
    """Frames [B, D, T] and speakers [B, D] to sounds [B, 1, S]: a norm of each frame is scaled and shifted by the speaker."""

    def __init__(self, config: FACodecConfig) -> None:
        super().__init__()
        self.timbre_linear = nn.Linear(config.dimension, 2 * config.dimension)
        strides = tuple(reversed(config.strides))
        self.model = decoder_layers(config.dimension, config.decoder_width, strides, AntiAliased, complete=True)

    def sound(self, frames: Tensor, speaker: Tensor) -> Tensor:
        """Return the sounds."""
        scale, shift = self.timbre_linear(speaker)[:, :, None].chunk(2, 1)
        normed = F.layer_norm(frames.transpose(1, 2), frames.shape[1:2]).transpose(1, 2)
        made: Tensor = self.model(normed * scale + shift)
        return made


class FACodecDecoder(TimbreDecoder):
    """The quantisers of prosody, content and the rest, the timbre's transformer, and the heads of supervision."""

    def __init__(self, config: FACodecConfig) -> None:
        super().__init__(config)
        dim = config.dimension
        counts = (config.prosody, config.content, config.residual)
        sizes = (config.prosody_bins, config.content_bins, config.residual_bins)
        self.quantizer = nn.ModuleList(
            ResidualQuantizer(
                [
                    FactorizedQuantizer(dim, size, config.codebook_dim, conv=False, book="_codebook")
                    for _ in range(count)
                ]
            )
            for count, size in zip(counts, sizes, strict=True)
        )
        self.timbre_encoder = Transformer(config)
        self.f0_predictor, self.phone_predictor = Head(dim, (1, 1)), Head(dim, (config.phones,))
        if config.version == 2:
            self.melspec_linear = nn.Linear(PROSODY_BINS, dim)
            self.melspec_encoder = Transformer(config)


class FACodec(Codec):
    """The codec; codes are in the order prosody, content, residual, and `side` has the timbre ("speaker").

    Codes of one speaker with the timbre of another are a conversion.
    """

    weight_norm = True

    def __init__(self, config: FACodecConfig) -> None:
        super().__init__()
        self.config, self.sample_rate, self.hop_length = config, config.sample_rate, config.mel.hop_length
        self.counts = (config.prosody, config.content, config.residual)
        bins = (config.prosody_bins, config.content_bins, config.residual_bins)
        self.sizes = tuple(size for count, size in zip(self.counts, bins, strict=True) for _ in range(count))
        self.least_books = config.prosody + config.content
        self.encoder = DACEncoder(config.width, config.strides, config.dimension, AntiAliased)
        self.decoder = FACodecDecoder(config)
        self.mel = LogMel(config.mel) if config.version == 2 else None

    def encode_whole(self, sound: Tensor, books: int) -> Encoded:
        whole = F.pad(sound, (0, -sound.shape[-1] % self.hop_length))
        latents, (prosody, content, residual) = self.encoder(whole), self._quantizers()
        codes = [prosody.encode(self.prosody_of(whole, latents)), content.encode(latents)]
        if books > self.least_books:
            left = latents - prosody.decode(codes[0]) - content.decode(codes[1])
            codes.append(residual.encode(left, books - self.least_books))
        return Encoded(torch.cat(codes, 1), None, {"speaker": self.speaker_of(latents)})

    def decode_whole(self, encoded: Encoded) -> Tensor:
        if "speaker" not in encoded.side:
            raise AudioError("codes without the timbre of a speaker", "give what `encode` returned, whole")
        return self.decoder.sound(self.frames(encoded.codes), encoded.side["speaker"])

    def prosody_of(self, sound: Tensor, latents: Tensor) -> Tensor:
        """Return the frames [B, D, T] that codes of prosody are read from."""
        if self.mel is None:
            return latents
        low = self.mel(sound[:, 0])[:, :PROSODY_BINS].transpose(1, 2)
        made: Tensor = self.decoder.melspec_encoder(self.decoder.melspec_linear(low)).transpose(1, 2)
        return made

    def speaker_of(self, latents: Tensor) -> Tensor:
        """Return the timbre [B, D] of latents [B, D, T]."""
        made: Tensor = self.decoder.timbre_encoder(latents.transpose(1, 2)).mean(1)
        return made

    def frames(self, codes: Tensor) -> Tensor:
        """Return the sum [B, D, T] of the vectors of codes [B, Q, T]."""
        return torch.stack(list(self.attributes(codes).values())).sum(0)

    def attributes(self, codes: Tensor) -> dict[str, Tensor]:
        """Return the vectors [B, D, T] of each attribute: "prosody", "content" and, where there are such codes, "residual"."""
        names, made, start = ("prosody", "content", "residual"), {}, 0
        for name, count, quantizer in zip(names, self.counts, self._quantizers(), strict=True):
            if codes.shape[1] > start:
                made[name] = quantizer.decode(codes[:, start : start + count])
            start += count
        return made

    def _quantizers(self) -> tuple[ResidualQuantizer, ...]:
        return tuple(quantizer for quantizer in self.decoder.quantizer if isinstance(quantizer, ResidualQuantizer))


class Redecoder(TimbreDecoder):
    """Makes sounds of a FACodec's codes anew with the timbre of another speaker: for conversion."""

    def __init__(self, config: FACodecConfig) -> None:
        super().__init__(config)
        dim = config.dimension
        self.prosody_embs = nn.ModuleList(nn.Embedding(config.prosody_bins, dim) for _ in range(config.prosody))
        self.content_embs = nn.ModuleList(nn.Embedding(config.content_bins, dim) for _ in range(config.content))
        self.residual_embs = nn.ModuleList(nn.Embedding(config.residual_bins, dim) for _ in range(config.residual))
        self.timbre_cond_prosody_enc = Transformer(config, styled=True)

    def forward(self, codes: Tensor, speaker: Tensor) -> Tensor:
        """Return the sounds [B, 1, S] of codes [B, Q, T], in the codec's order; without residual ones timbre is purer."""
        return self.sound(self.frames(codes, speaker), speaker)

    def frames(self, codes: Tensor, speaker: Tensor) -> Tensor:
        """Return the frames [B, D, T] that sounds are made of."""
        prosody, content = len(self.prosody_embs), len(self.content_embs)
        split = codes.split([prosody, content, codes.shape[1] - prosody - content], 1)
        books = (self.prosody_embs, self.content_embs, self.residual_embs)
        parts = [
            [embed(own) for embed, own in zip(book, some.unbind(1), strict=False)]
            for book, some in zip(books, split, strict=True)
        ]
        voiced = self.timbre_cond_prosody_enc(torch.stack(parts[0]).sum(0), speaker)
        made: Tensor = torch.stack([voiced, *parts[1], *parts[2]]).sum(0).transpose(1, 2)
        return made
