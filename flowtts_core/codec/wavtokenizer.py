"""WavTokenizer: one codebook behind EnCodec's encoder; attention, ConvNeXt blocks and an inverse STFT decode it.

Source: Ji et al., "WavTokenizer: an efficient acoustic discrete codec tokenizer" (arXiv 2408.16532), section 3. State-dict names
are those of jishengpeng/WavTokenizer, but for the decoder of EnCodec that its checkpoints hold and never use.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowtts_core.codec.base import Codec, Encoded, Trained
from flowtts_core.codec.encodec import SEANetConfig
from flowtts_core.codec.quantize import Quantized, ResidualQuantizer, VectorQuantizer
from flowtts_core.errors import ConfigError
from flowtts_core.nn.convnext import KERNEL, PAD, ConvNeXtBlock
from flowtts_core.nn.istft import ISTFTHead
from flowtts_core.nn.seanet import SEANetEncoder
from flowtts_core.nn.share import Share

_GROUPS = 32  # of the group norms, as published


@dataclass(frozen=True)
class WavTokenizerConfig:
    """A WavTokenizer; the defaults are those of the published 75 Hz models, whose seanet's dimension is that of the codes.

    Attributes:
        bins: codes of the codebook.
        dim, intermediate_dim, num_layers: of the decoder's ConvNeXt blocks.
        bandwidths: rows of the adaptive norms; `bandwidth_id` is the one that is used (0 wherever there is one codebook).
        replace_after: of training, as `Codebook` takes it.
    """

    sample_rate: int = 24000
    seanet: SEANetConfig = field(default_factory=lambda: SEANetConfig(dimension=512, causal=False))
    bins: int = 4096
    dim: int = 768
    intermediate_dim: int = 2304
    num_layers: int = 12
    bandwidths: int = 4
    bandwidth_id: int = 0
    replace_after: float = 0.0

    def __post_init__(self) -> None:
        if min(self.bins, self.dim, self.intermediate_dim, self.num_layers, self.sample_rate) < 1 or self.dim % _GROUPS:
            raise ConfigError(
                f"WavTokenizerConfig: dim {self.dim} or another size", f"use multiples of {_GROUPS} as dim"
            )
        if not 0 <= self.bandwidth_id < self.bandwidths:
            raise ConfigError(f"bandwidth_id = {self.bandwidth_id} of {self.bandwidths}", "use 0 to one less")


class AdaptiveNorm(nn.Module):
    """A layer norm of [..., D] whose scale and shift are those of a bandwidth."""

    def __init__(self, bandwidths: int, dim: int, chosen: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Embedding(bandwidths, dim), nn.Embedding(bandwidths, dim)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)
        self.chosen = chosen

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.scale.weight[self.chosen], self.shift.weight[self.chosen], 1e-6)


class ResNetBlock(nn.Module):
    """Two convolutions, each behind a group norm over time and a swish: [B, D, T]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(_GROUPS, dim, eps=1e-6), nn.GroupNorm(_GROUPS, dim, eps=1e-6)
        self.conv1, self.conv2 = nn.Conv1d(dim, dim, 3, padding=1), nn.Conv1d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(hidden)))


class AttentionBlock(nn.Module):
    """Attention of one head over all time: [B, D, T]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(_GROUPS, dim, eps=1e-6)
        self.q, self.k, self.v, self.proj_out = (nn.Conv1d(dim, dim, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(x)
        query, key, value = (part(hidden).transpose(1, 2) for part in (self.q, self.k, self.v))
        return x + self.proj_out(F.scaled_dot_product_attention(query, key, value).transpose(1, 2))


class Backbone(nn.Module):
    """[B, channels, T] to hidden [B, T, dim]."""

    def __init__(self, channels: int, config: WavTokenizerConfig) -> None:
        super().__init__()
        dim, layers = config.dim, config.num_layers
        self.embed = nn.Conv1d(channels, dim, KERNEL, padding=PAD)
        self.norm = AdaptiveNorm(config.bandwidths, dim, config.bandwidth_id)
        self.convnext = nn.ModuleList(ConvNeXtBlock(dim, config.intermediate_dim, 1 / layers) for _ in range(layers))
        for block in self.convnext:
            block.norm = AdaptiveNorm(config.bandwidths, dim, config.bandwidth_id)
        self.final_layer_norm = nn.LayerNorm(dim, eps=1e-6)
        self.pos_net = nn.Sequential(
            ResNetBlock(dim),
            ResNetBlock(dim),
            AttentionBlock(dim),
            ResNetBlock(dim),
            ResNetBlock(dim),
            nn.GroupNorm(_GROUPS, dim, eps=1e-6),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.pos_net(self.embed(x))
        x = self.norm(x.transpose(1, 2)).transpose(1, 2)
        for block in self.convnext:
            x = block(x)
        normed: Tensor = self.final_layer_norm(x.transpose(1, 2))
        return normed


class _Quantizer(nn.Module):
    def __init__(self, config: WavTokenizerConfig) -> None:
        super().__init__()
        book = VectorQuantizer(
            config.seanet.dimension, config.bins, kmeans_iterations=50, replace_after=config.replace_after
        )
        self.vq = ResidualQuantizer([book])


class _EnCodec(nn.Module):
    """What it has of an EnCodec, under its published name."""

    def __init__(self, config: WavTokenizerConfig) -> None:
        super().__init__()
        self.encoder: SEANetEncoder = config.seanet.encoder()
        self.quantizer = _Quantizer(config)


class _Features(nn.Module):
    def __init__(self, config: WavTokenizerConfig) -> None:
        super().__init__()
        self.encodec = _EnCodec(config)


class WavTokenizer(Codec):
    """The codec; it codes whole sounds, since norms and attention run over all time."""

    weight_norm = True

    def __init__(self, config: WavTokenizerConfig) -> None:
        super().__init__()
        self.config, self.sample_rate, self.hop_length = config, config.sample_rate, config.seanet.hop_length
        self.sizes = (config.bins,)
        self.feature_extractor = _Features(config)
        self.backbone = Backbone(config.seanet.dimension, config)
        self.head = ISTFTHead(config.dim, 4 * self.hop_length, self.hop_length, "same")

    def encode_whole(self, sound: Tensor, books: int) -> Encoded:
        own = self.feature_extractor.encodec
        return Encoded(own.quantizer.vq.encode(own.encoder(sound)))

    def decode_whole(self, encoded: Encoded) -> Tensor:
        return self._sound(self.feature_extractor.encodec.quantizer.vq.decode(encoded.codes))[:, None]

    def _sound(self, latents: Tensor) -> Tensor:
        waveform: Tensor = self.head(self.head.out(self.backbone(latents)))
        return waveform

    def trained(
        self, waveform: Tensor, generator: torch.Generator | None = None, share: Share | None = None
    ) -> Trained:
        own = self.feature_extractor.encodec
        made: Quantized = own.quantizer.vq(own.encoder(waveform[:, None]).float(), share, generator)
        return Trained(self._sound(made.values), made.codes, made.losses)
