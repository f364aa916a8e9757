"""EnCodec: SEANet between samples and frames, residual VQ between frames and codes; causal, or in segments that overlap.

Source: Défossez et al., "High Fidelity Neural Audio Compression" (arXiv 2210.13438), section 3. State-dict names are those of
facebookresearch/encodec and audiocraft, with weight norm folded.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from flowtts_core.codec.base import Codec, Encoded, Trained
from flowtts_core.codec.quantize import Quantized, ResidualQuantizer, VectorQuantizer
from flowtts_core.errors import AudioError, ConfigError
from flowtts_core.nn.seanet import PAD_MODES, SEANetDecoder, SEANetEncoder
from flowtts_core.nn.share import Share
from flowtts_core.nn.stream import Stream


@dataclass(frozen=True)
class SEANetConfig:
    """Sizes of encoder and decoder, as `flowtts_core.nn.seanet.SEANetEncoder` takes them."""

    channels: int = 1
    dimension: int = 128
    n_filters: int = 32
    ratios: tuple[int, ...] = (8, 5, 4, 2)
    n_residual_layers: int = 1
    kernel_size: int = 7
    last_kernel_size: int = 7
    residual_kernel_size: int = 3
    dilation_base: int = 2
    compress: int = 2
    lstm: int = 2
    causal: bool = True
    pad_mode: str = "reflect"
    true_skip: bool = False
    group_norm: bool = False

    def __post_init__(self) -> None:
        sizes = {k: v for k, v in vars(self).items() if isinstance(v, int) and not isinstance(v, bool) and k != "lstm"}
        wrong = [name for name, value in sizes.items() if value < 1]
        if wrong or not self.ratios or min(self.ratios) < 1 or self.lstm < 0:
            raise ConfigError(f"SEANetConfig: {', '.join(wrong) or 'ratios or lstm'} out of range", "use 1 or more")
        if self.pad_mode not in PAD_MODES:
            raise ConfigError(f"SEANetConfig.pad_mode = {self.pad_mode!r}", f"use one of: {', '.join(PAD_MODES)}")
        if self.n_filters < self.compress:
            raise ConfigError(f"SEANetConfig: n_filters {self.n_filters}", f"use compress, {self.compress}, or more")
        if self.causal and self.group_norm:
            raise ConfigError("SEANetConfig: a norm over all time in a causal net", "set one of the two to false")

    @property
    def hop_length(self) -> int:
        return math.prod(self.ratios)

    def encoder(self) -> SEANetEncoder:
        return SEANetEncoder(**dataclasses.asdict(self))

    def decoder(self) -> SEANetDecoder:
        return SEANetDecoder(**dataclasses.asdict(self))


@dataclass(frozen=True)
class EnCodecConfig:
    """An EnCodec; the defaults are those of the published 24 kHz model.

    Attributes:
        n_q, bins: number of codebooks, and codes of each.
        normalize: whether each segment is brought to one loudness, which is kept beside the codes.
        segment_s, overlap: seconds that are coded at once, and the share of them that the next segment has too; None: all.
        quantizer_dropout, replace_after: of training, as `ResidualQuantizer` and `Codebook` take them.
    """

    sample_rate: int = 24000
    seanet: SEANetConfig = field(default_factory=SEANetConfig)
    n_q: int = 32
    bins: int = 1024
    normalize: bool = False
    segment_s: float | None = None
    overlap: float = 0.01
    quantizer_dropout: float = 0.5
    replace_after: float = 0.0

    def __post_init__(self) -> None:
        if min(self.n_q, self.bins, self.sample_rate) < 1:
            raise ConfigError(
                f"EnCodecConfig: n_q {self.n_q}, bins {self.bins}, rate {self.sample_rate}", "use 1 or more"
            )
        if not 0 <= self.overlap < 1 or (self.segment_s is not None and self.segment_s * self.sample_rate < 2):
            raise ConfigError(
                f"EnCodecConfig: segment_s {self.segment_s}, overlap {self.overlap}", "use an overlap below 1"
            )


ENCODEC_48K = EnCodecConfig(
    48000, SEANetConfig(channels=2, causal=False, group_norm=True), n_q=16, normalize=True, segment_s=1.0, overlap=0.01
)
"""The published 48 kHz stereo model."""


class _Quantizer(nn.Module):
    """A residual quantiser under its published name."""

    def __init__(self, config: EnCodecConfig) -> None:
        super().__init__()
        layers = [
            VectorQuantizer(
                config.seanet.dimension, config.bins, kmeans_iterations=50, replace_after=config.replace_after
            )
            for _ in range(config.n_q)
        ]
        self.vq = ResidualQuantizer(layers, config.quantizer_dropout)


class EnCodec(Codec):
    """The codec; `side` has the loudness ("scale") and the frames ("frames") of segments, where it works in such."""

    weight_norm = True

    def __init__(self, config: EnCodecConfig) -> None:
        super().__init__()
        seanet = config.seanet
        self.config, self.sample_rate, self.hop_length = config, config.sample_rate, seanet.hop_length
        self.channels, self.sizes = seanet.channels, (config.bins,) * config.n_q
        self.segmented = config.segment_s is not None
        self.causal = seanet.causal and not self.segmented and not config.normalize
        if seanet.pad_mode == "reflect":
            self.first_frames = max(seanet.kernel_size, seanet.last_kernel_size)
        self.encoder, self.decoder = seanet.encoder(), seanet.decoder()
        self.quantizer = _Quantizer(config)

    def frames_of(self, samples: int) -> int:
        if self.config.segment_s is None:
            return super().frames_of(samples)
        return sum(-(-(end - start) // self.hop_length) for start, end in self._segments(samples))

    def samples_of(self, frames: int) -> int:
        """Return the number of samples of so many frames; with segments, of all of which but the last are whole."""
        if self.config.segment_s is None or not frames:
            return super().samples_of(frames)
        size, stride = self._segment()
        before = -(-frames // -(-size // self.hop_length)) - 1
        return before * stride + (frames - before * -(-size // self.hop_length)) * self.hop_length

    def _segment(self) -> tuple[int, int]:
        """Return the samples of a segment, and from its start to the next one's."""
        size = int((self.config.segment_s or 0) * self.sample_rate)
        return size, max(1, int((1 - self.config.overlap) * size))

    def _segments(self, samples: int) -> list[tuple[int, int]]:
        if self.config.segment_s is None:
            return [(0, samples)]
        size, stride = self._segment()
        return [(start, min(start + size, samples)) for start in range(0, samples, stride)]

    def encode_whole(self, sound: Tensor, books: int) -> Encoded:
        codes, scales = [], []
        for start, end in self._segments(sound.shape[-1]):
            part, scale = self._normalised(sound[..., start:end])
            codes.append(self.quantizer.vq.encode(self.encoder(part), books))
            scales.append(scale)
        side = {} if not self.config.normalize else {"scale": torch.stack(scales, 1)}
        if self.config.segment_s is not None:
            counts = torch.tensor([own.shape[-1] for own in codes], device=sound.device)
            side["frames"] = counts.expand(len(sound), -1)
        return Encoded(torch.cat(codes, -1), None, side)

    def _normalised(self, sound: Tensor) -> tuple[Tensor, Tensor]:
        if not self.config.normalize:
            return sound, sound.new_ones(len(sound))
        scale = sound.mean(1).square().mean(1).sqrt() + 1e-8
        return sound / scale[:, None, None], scale

    def decode_whole(self, encoded: Encoded) -> Tensor:
        codes, side = encoded.codes, encoded.side
        if (self.config.normalize and "scale" not in side) or (
            self.config.segment_s is not None and "frames" not in side
        ):
            raise AudioError(
                "codes of segments without their loudness and frames", "give what `encode` returned, whole"
            )
        counts = [codes.shape[-1]] if self.config.segment_s is None else [n for n in side["frames"][0].tolist() if n]
        if sum(counts) != codes.shape[-1]:
            raise AudioError(f"{codes.shape[-1]} frames in segments of {counts}", "give what `encode` returned, whole")
        parts = [self.decoder(self.quantizer.vq.decode(own)) for own in codes.split(counts, -1)]
        if self.config.normalize:
            parts = [part * side["scale"][:, i, None, None] for i, part in enumerate(parts)]
        return parts[0] if self.config.segment_s is None else _overlap_add(parts, self._segment()[1])

    def encode_piece(self, sound: Tensor, books: int, stream: Stream) -> Tensor:
        if not sound.shape[-1]:
            return torch.zeros(len(sound), books, 0, dtype=torch.int64, device=sound.device)
        return self.quantizer.vq.encode(self.encoder(sound, stream), books)

    def decode_piece(self, codes: Tensor, stream: Stream) -> Tensor:
        if not codes.shape[-1]:
            return torch.zeros(len(codes), self.channels, 0, device=codes.device)
        made: Tensor = self.decoder(self.quantizer.vq.decode(codes), stream)
        return made

    def trained(
        self, waveform: Tensor, generator: torch.Generator | None = None, share: Share | None = None
    ) -> Trained:
        if self.config.segment_s is not None or self.config.normalize or self.channels > 1:
            raise ConfigError("an EnCodec of segments or of several channels cannot be trained here", "use one channel")
        made: Quantized = self.quantizer.vq(self.encoder(waveform[:, None]).float(), share, generator)
        return Trained(self.decoder(made.values)[:, 0], made.codes, made.losses)


def _overlap_add(parts: list[Tensor], stride: int) -> Tensor:
    """Return the weighted mean of parts [B, C, S_i] that begin `stride` samples apart; weights fall to either end."""
    longest = parts[0].shape[-1]
    place = torch.linspace(0, 1, longest + 2, device=parts[0].device)[1:-1]
    weight = 0.5 - (place - 0.5).abs()
    total = stride * (len(parts) - 1) + max(
        part.shape[-1] - stride * (len(parts) - 1 - i) for i, part in enumerate(parts)
    )
    sound, weights = parts[0].new_zeros(*parts[0].shape[:2], total), parts[0].new_zeros(total)
    for start, part in zip(range(0, total, stride), parts, strict=False):
        end = start + part.shape[-1]
        sound[..., start:end] += weight[: part.shape[-1]] * part
        weights[start:end] += weight[: part.shape[-1]]
    return sound / weights
