"""A codec of STFT frames whose codes are apart: prosody, content and details, with the timbre of the speaker beside them.

After FACodec (Ju et al., "NaturalSpeech 3", arXiv 2403.03100, section 3.3), with the frame-domain parts of `frames`, so that it
is cheap on a CPU. Prosody hears the level and the bins below 500 Hz alone; prosody and content are normalised over time, which
takes out of them most of what stays the same in a sound: its speaker. What keeps the codes apart is learnt in training
(`flowtts_core.training.factors`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowtts_core.codec.base import Codec, Encoded, Trained
from flowtts_core.codec.frames import FrameNet, frame_features
from flowtts_core.codec.quantize import Quantized, ResidualQuantizer, VectorQuantizer
from flowtts_core.errors import AudioError, ConfigError
from flowtts_core.nn.convnext import StyledConvNeXtBlock
from flowtts_core.nn.istft import InverseSTFT, ISTFTHead
from flowtts_core.nn.share import Share, mean_of

ATTRIBUTES = ("prosody", "content", "detail")
SPEAKER = "speaker"  # of what is kept beside codes
F0_SCALE = 5.0  # of the natural logarithm, in a contour: 3.5 semitones have the value 1
ENERGY_SCALE = 0.25  # of the natural logarithm of the level, likewise
_PROSODY_HZ = 500.0  # below are the first harmonics of any voice, and hardly a formant


@dataclass(frozen=True)
class FactorisedCodecConfig:
    """Sizes of a factorised codec.

    Attributes:
        hop_length, n_fft: a frame, and the window around its middle.
        encoder_dim, encoder_intermediate, encoder_layers: of the encoder's blocks; those of the decoder and of prosody likewise.
        prosody, content, detail: numbers of codebooks, each of so many `bins` of `codebook_dim` dimensions on a sphere.
        speaker_dim: of the vector of timbre.
        decay, replace_after: of training, as `Codebook` takes them.
    """

    sample_rate: int = 24000
    hop_length: int = 320
    n_fft: int = 1280
    encoder_dim: int = 192
    encoder_intermediate: int = 576
    encoder_layers: int = 4
    prosody_dim: int = 64
    prosody_layers: int = 3
    decoder_dim: int = 256
    decoder_intermediate: int = 768
    decoder_layers: int = 5
    prosody: int = 1
    content: int = 2
    detail: int = 3
    bins: int = 1024
    codebook_dim: int = 8
    speaker_dim: int = 128
    decay: float = 0.99
    replace_after: float = 10.0

    def __post_init__(self) -> None:
        if wrong := [name for name, value in vars(self).items() if isinstance(value, int) and value < 1]:
            raise ConfigError(f"FactorisedCodecConfig: {', '.join(wrong)} below 1", "use 1 or more")
        if self.n_fft < self.hop_length or self.n_fft % 2 or (self.n_fft - self.hop_length) % 2:
            raise ConfigError(
                f"FactorisedCodecConfig: n_fft {self.n_fft}, hop_length {self.hop_length}",
                "use even ones, n_fft at least the hop",
            )
        if not 0 < self.decay < 1:
            raise ConfigError(f"FactorisedCodecConfig: decay {self.decay}", "use 0 to 1")


@dataclass(frozen=True)
class Factored:
    """Attributes of sounds in training.

    Attributes:
        waveform: [B, S], the copies.
        codes: [B, Q, T].
        values: [B, T, D] by attribute, with gradients.
        speaker: [B, S].
        contour: [B, T, 2], F0 and energy as the codes of prosody tell them.
        losses: of the quantisers, and of the energy that codes of prosody tell.
    """

    waveform: Tensor
    codes: Tensor
    values: dict[str, Tensor]
    speaker: Tensor
    contour: Tensor
    losses: dict[str, Tensor]


class FactorisedCodec(Codec):
    """The codec; codes are in the order of `ATTRIBUTES`, and `side` has the timbre ("speaker").

    Codes of one sound with the timbre of another are a conversion (`flowtts_core.codec.convert`).
    """

    def __init__(self, config: FactorisedCodecConfig) -> None:
        super().__init__()
        c = config
        self.config, self.sample_rate, self.hop_length = c, c.sample_rate, c.hop_length
        self.counts = (c.prosody, c.content, c.detail)
        self.sizes = (c.bins,) * sum(self.counts)
        self.least_books = c.prosody + c.content
        self.stft = InverseSTFT(c.n_fft, c.hop_length, c.n_fft, "same")
        bins = c.n_fft // 2 + 1
        self.low = max(2, min(bins, round(_PROSODY_HZ * c.n_fft / c.sample_rate)))
        self.encoder = FrameNet(3 * bins, c.encoder_dim, c.encoder_intermediate, c.encoder_layers, causal=False)
        self.prosody_encoder = FrameNet(self.low + 1, c.prosody_dim, 3 * c.prosody_dim, c.prosody_layers, causal=False)
        self.prosody_out = nn.Linear(c.prosody_dim, c.encoder_dim)
        self.content_out = nn.Linear(c.encoder_dim, c.encoder_dim)
        self.timbre = nn.Sequential(nn.Linear(c.encoder_dim, c.speaker_dim), nn.GELU())
        self.timbre_out = nn.Linear(c.speaker_dim, c.speaker_dim)
        self.quantizers = nn.ModuleDict(
            {name: _quantizer(c, count) for name, count in zip(ATTRIBUTES, self.counts, strict=True)}
        )
        self.contour_out = nn.Linear(c.encoder_dim, 2)
        self.embed = nn.Linear(c.encoder_dim, c.decoder_dim)
        self.decoder = nn.ModuleList(
            StyledConvNeXtBlock(c.decoder_dim, c.decoder_intermediate, 1 / c.decoder_layers, c.speaker_dim)
            for _ in range(c.decoder_layers)
        )
        self.norm = nn.LayerNorm(c.decoder_dim, eps=1e-6)
        self.head = ISTFTHead(c.decoder_dim, c.n_fft, c.hop_length, "same")

    def encode_whole(self, sound: Tensor, books: int) -> Encoded:
        hidden, prosody, content, _ = self._latents(sound[:, 0])
        quantizers = self._quantizers()
        codes = [quantizers["prosody"].encode(prosody), quantizers["content"].encode(content)]
        if books > self.least_books:
            left = hidden - quantizers["prosody"].decode(codes[0]) - quantizers["content"].decode(codes[1])
            codes.append(quantizers["detail"].encode(left, books - self.least_books))
        return Encoded(torch.cat(codes, 1), None, {SPEAKER: self._speaker(hidden)})

    def decode_whole(self, encoded: Encoded) -> Tensor:
        if SPEAKER not in encoded.side:
            raise AudioError("codes without the timbre of a speaker", "give what `encode` returned, whole")
        frames = torch.stack(list(self.attributes(encoded.codes).values())).sum(0)
        return self._sound(frames, encoded.side[SPEAKER])[:, None]

    def attributes(self, codes: Tensor) -> dict[str, Tensor]:
        """Return the vectors [B, D, T] of each attribute of codes [B, Q, T]; of details where there are any."""
        made, start = {}, 0
        for name, count in zip(ATTRIBUTES, self.counts, strict=True):
            if codes.shape[1] > start:
                made[name] = self._quantizers()[name].decode(codes[:, start : start + count])
            start += count
        return made

    def contour(self, codes: Tensor) -> Tensor:
        """Return F0 and energy [B, T, 2] that codes of prosody tell, by `F0_SCALE` and `ENERGY_SCALE`, around the speaker's."""
        vectors = self._quantizers()["prosody"].decode(codes[:, : self.config.prosody])
        read: Tensor = self.contour_out(vectors.transpose(1, 2))
        return read

    def trained(
        self, waveform: Tensor, generator: torch.Generator | None = None, share: Share | None = None
    ) -> Trained:
        made = self.factored(waveform, generator, share)
        return Trained(made.waveform, made.codes, made.losses)

    def factored(
        self,
        waveform: Tensor,
        generator: torch.Generator | None = None,
        share: Share | None = None,
        *,
        detailed: bool = True,
    ) -> Factored:
        """Return the attributes and the copies of crops [B, S] of whole frames.

        Args:
            detailed: whether the copies hear details; without them, prosody, content and timbre must tell all.
        """
        hidden, prosody, content, energy = self._latents(waveform)
        quantizers, made = self._quantizers(), dict[str, Quantized]()
        made["prosody"] = quantizers["prosody"](prosody.float(), share, generator)
        made["content"] = quantizers["content"](content.float(), share, generator)
        known = made["prosody"].values + made["content"].values
        made["detail"] = quantizers["detail"]((hidden - known.detach()).float(), share, generator)
        frames = known + made["detail"].values * float(detailed)  # times zero, so that every weight has a gradient
        speaker = self._speaker(hidden)
        values = {name: own.values.transpose(1, 2) for name, own in made.items()}
        losses = {
            name: torch.stack([own.losses[name] for own in made.values()]).mean() for name in made["detail"].losses
        }
        codes = torch.cat([own.codes for own in made.values()], 1)
        contour = self.contour_out(values["prosody"])
        losses["energy"] = mean_of(share, (contour[..., 1] - energy).abs().mean())
        return Factored(self._sound(frames, speaker), codes, values, speaker, contour, losses)

    def _latents(self, waveform: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what details, prosody and content are read from [B, D, T], and energy [B, T], of waveforms [B, S]."""
        whole = F.pad(waveform, (0, -waveform.shape[-1] % self.hop_length))
        spectrum = self.stft.stft(whole)
        hidden = self.encoder(frame_features(spectrum))
        level = spectrum.abs().square().mean(1, keepdim=True).sqrt()
        low = torch.cat([level, spectrum[:, : self.low].abs()], 1).clamp(min=1e-5).log() * ENERGY_SCALE
        prosody = self.prosody_out(self.prosody_encoder(low))
        energy = low[:, 0] - low[:, 0].mean(1, keepdim=True)
        return hidden.transpose(1, 2), _over_time(prosody), _over_time(self.content_out(hidden)), energy

    def _speaker(self, hidden: Tensor) -> Tensor:
        speaker: Tensor = self.timbre_out(self.timbre(hidden.transpose(1, 2)).mean(1))
        return speaker

    def _sound(self, frames: Tensor, speaker: Tensor) -> Tensor:
        x = self.embed(frames.transpose(1, 2)).transpose(1, 2)
        for block in self.decoder:
            x = block(x, speaker)
        waveform: Tensor = self.head(self.head.out(self.norm(x.transpose(1, 2))))
        return waveform

    def _quantizers(self) -> dict[str, ResidualQuantizer]:
        return {name: q for name, q in self.quantizers.items() if isinstance(q, ResidualQuantizer)}


def require_factorised(codec: Codec, what: str) -> FactorisedCodec:
    """Return the codec; raise ConfigError for one whose codes are not apart."""
    if isinstance(codec, FactorisedCodec):
        return codec
    raise ConfigError(f"a {type(codec).__name__} cannot {what}: its codes are not apart", HOW_TO_TRAIN)


HOW_TO_TRAIN = (
    "train one: flowtts prepare CORPUS -o data/ --resample --set mel.sample_rate=24000 --set mel.pitch=true, then flowtts train"
    " data/ --recipe facodec -o codecs/mine (docs/convert.md)"
)


def without_detail(codec: FactorisedCodec, encoded: Encoded) -> Encoded:
    """Return the codes of prosody and content alone, which tell least of the speaker."""
    return replace(encoded, codes=encoded.codes[:, : codec.least_books])


def _quantizer(config: FactorisedCodecConfig, count: int) -> ResidualQuantizer:
    c = config
    return ResidualQuantizer(
        [
            VectorQuantizer(
                c.encoder_dim,
                c.bins,
                c.codebook_dim,
                kmeans_iterations=20,
                decay=c.decay,
                replace_after=c.replace_after,
                normalised=True,
            )
            for _ in range(count)
        ]
    )


def _over_time(x: Tensor) -> Tensor:
    """Return [B, T, D] as [B, D, T], each row without its mean over time and of spread 1."""
    centred = (x - x.mean(1, keepdim=True)).transpose(1, 2)
    return centred * torch.rsqrt(centred.square().mean(2, keepdim=True) + 1e-2)
