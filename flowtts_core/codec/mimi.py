"""Mimi: a causal SEANet with transformers at its frame rate; the first code is apart from the others, and carries meaning.

Source: Défossez et al., "Moshi: a speech-text foundation model for real-time dialogue" (arXiv 2410.00037), section 3.3.
State-dict names are those of kyutai-labs/moshi. Streams equal the whole at any length; in the published code they do up to the
window of the attention alone, whose ring of keys drops the oldest ones too early.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowtts_core.codec.base import Codec, Encoded
from flowtts_core.codec.codebook import nearest
from flowtts_core.codec.encodec import SEANetConfig
from flowtts_core.errors import ConfigError
from flowtts_core.nn.attention import merge_heads, split_heads
from flowtts_core.nn.seanet import Conv, ConvTranspose
from flowtts_core.nn.stream import Stream

_PERIOD = 10000.0


def _seanet() -> SEANetConfig:
    return SEANetConfig(
        dimension=512,
        n_filters=64,
        ratios=(8, 6, 5, 4),
        last_kernel_size=3,
        lstm=0,
        pad_mode="constant",
        true_skip=True,
    )


@dataclass(frozen=True)
class MimiConfig:
    """A Mimi; the defaults are those of the published model.

    Attributes:
        seanet: causal; the transformers are as wide as its dimension.
        heads, layers, inner, context: of both transformers; a frame sees itself and `context` - 1 before it.
        halving: by how much frames are fewer than the SEANet's.
        semantic, acoustic, bins, codebook_dim: numbers of codebooks, and their sizes.
    """

    sample_rate: int = 24000
    seanet: SEANetConfig = field(default_factory=_seanet)
    heads: int = 8
    layers: int = 8
    inner: int = 2048
    context: int = 250
    halving: int = 2
    semantic: int = 1
    acoustic: int = 31
    bins: int = 2048
    codebook_dim: int = 256

    def __post_init__(self) -> None:
        sizes = {k: v for k, v in vars(self).items() if isinstance(v, int)}
        if wrong := [name for name, value in sizes.items() if value < 1]:
            raise ConfigError(f"MimiConfig: {', '.join(wrong)} below 1", "use 1 or more")
        if self.seanet.dimension % (2 * self.heads):
            raise ConfigError(
                f"MimiConfig: {self.heads} heads of {self.seanet.dimension}", "use heads of an even width"
            )
        if not self.seanet.causal or self.seanet.pad_mode == "reflect":
            raise ConfigError("MimiConfig: its SEANet must be causal, without mirrored edges", "use pad_mode constant")


class Attention(nn.Module):
    """Causal self-attention with rotary positions, neighbours paired, in a window: [B, T, D]."""

    def __init__(self, dim: int, heads: int, context: int) -> None:
        super().__init__()
        self.heads, self.context = heads, context
        self.in_projs = nn.ModuleList([nn.Linear(dim, 3 * dim, bias=False)])
        self.out_projs = nn.ModuleList([nn.Linear(dim, dim, bias=False)])

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        query, key, value = (split_heads(part, self.heads) for part in self.in_projs[0](x).chunk(3, -1))
        kept = None if stream is None else stream.kept.get(self)
        start = 0 if kept is None else kept[2]  # the place of the first of these frames
        query, key = _rotated(query, start), _rotated(key, start)
        if kept is not None:
            key, value = torch.cat([kept[0], key], 2), torch.cat([kept[1], value], 2)
        time = x.shape[1]
        if stream is not None:
            most = self.context - 1
            last = slice(max(0, key.shape[2] - most), None)
            stream.kept[self] = key[:, :, last], value[:, :, last], start + time
        places = torch.arange(start, start + time, device=x.device)
        seen = torch.arange(start + time - key.shape[2], start + time, device=x.device)
        ago = places[:, None] - seen[None, :]
        made = F.scaled_dot_product_attention(query, key, value, attn_mask=(ago >= 0) & (ago < self.context))
        attended: Tensor = self.out_projs[0](merge_heads(made))
        return attended


def _rotated(x: Tensor, start: int) -> Tensor:
    """Turn neighbouring features of each head of [B, H, T, D] by their frames' places."""
    width = x.shape[-1]
    frequency = torch.exp(torch.arange(width // 2, device=x.device).float() * (-math.log(_PERIOD) * 2 / width))
    angle = torch.arange(start, start + x.shape[2], device=x.device).float()[:, None] * frequency
    cos, sin, even, odd = angle.cos(), angle.sin(), x[..., ::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)


class LayerScale(nn.Module):
    """A scale of each feature."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((dim,), 0.01))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x


class Layer(nn.Module):
    """Attention and a perceptron, each behind a norm and with a scale: [B, T, D]."""

    def __init__(self, dim: int, config: MimiConfig) -> None:
        super().__init__()
        self.self_attn = Attention(dim, config.heads, config.context)
        self.linear1, self.linear2 = nn.Linear(dim, config.inner, bias=False), nn.Linear(config.inner, dim, bias=False)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.layer_scale_1, self.layer_scale_2 = LayerScale(dim), LayerScale(dim)

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        x = x + self.layer_scale_1(self.self_attn(self.norm1(x), stream))
        return x + self.layer_scale_2(self.linear2(F.gelu(self.linear1(self.norm2(x)))))


class _Layers(nn.Module):
    def __init__(self, config: MimiConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config.seanet.dimension, config) for _ in range(config.layers))


class Transformer(nn.Module):
    """Layers over frames [B, D, T]."""

    def __init__(self, config: MimiConfig) -> None:
        super().__init__()
        self.transformer = _Layers(config)

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        hidden = x.transpose(1, 2)
        for layer in self.transformer.layers:
            hidden = layer(hidden, stream)
        return hidden.transpose(1, 2)


class SumCodebook(nn.Module):
    """Codes [K, D], kept as the sum of the vectors of each and their number."""

    _initialized: Tensor
    embedding_sum: Tensor
    cluster_usage: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("_initialized", torch.ones(1))
        self.register_buffer("cluster_usage", torch.ones(size))
        self.register_buffer("embedding_sum", torch.randn(size, dim))

    @property
    def table(self) -> Tensor:
        return self.embedding_sum / self.cluster_usage.clamp(min=1e-5)[:, None]


class _Book(nn.Module):
    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self._codebook = SumCodebook(size, dim)

    @property
    def table(self) -> Tensor:
        return self._codebook.table


class _Books(nn.Module):
    def __init__(self, count: int, size: int, dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Book(size, dim) for _ in range(count))


class ProjectedResidual(nn.Module):
    """Residual quantisation of latents [B, D, T] that a layer has narrowed."""

    def __init__(self, config: MimiConfig, count: int) -> None:
        super().__init__()
        dim = config.seanet.dimension
        self.input_proj = nn.Conv1d(dim, config.codebook_dim, 1, bias=False)
        self.output_proj = nn.Conv1d(config.codebook_dim, dim, 1, bias=False)
        self.vq = _Books(count, config.bins, config.codebook_dim)

    def encode(self, x: Tensor, books: int) -> Tensor:
        """Return the codes [B, Q, T] by the first `books` codebooks."""
        left, codes = self.input_proj(x).transpose(1, 2), []
        for book in list(self.vq.layers)[:books]:
            table = book.table
            codes.append(nearest(left.flatten(0, 1), table).view(left.shape[:2]))  # type: ignore[arg-type]  # a buffer, typed as a module too
            left = left - F.embedding(codes[-1], table)  # type: ignore[arg-type]  # as above
        return torch.stack(codes, 1)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the vectors [B, D, T] of codes [B, Q, T]."""
        pairs = zip(self.vq.layers, codes.unbind(1), strict=False)
        summed = torch.stack([F.embedding(own, book.table) for book, own in pairs]).sum(0)  # type: ignore[arg-type]  # as above
        made: Tensor = self.output_proj(summed.transpose(1, 2))
        return made


class _Split(nn.Module):
    """The codebooks of meaning and those of sound; both read the same latents."""

    def __init__(self, config: MimiConfig) -> None:
        super().__init__()
        self.rvq_first = ProjectedResidual(config, config.semantic)
        self.rvq_rest = ProjectedResidual(config, config.acoustic)
        self.semantic = config.semantic

    def encode(self, x: Tensor, books: int) -> Tensor:
        codes = [self.rvq_first.encode(x, min(books, self.semantic))]
        if books > self.semantic:
            codes.append(self.rvq_rest.encode(x, books - self.semantic))
        return torch.cat(codes, 1)

    def decode(self, codes: Tensor) -> Tensor:
        made = self.rvq_first.decode(codes[:, : self.semantic])
        return made + self.rvq_rest.decode(codes[:, self.semantic :]) if codes.shape[1] > self.semantic else made


class _Resample(nn.Module):
    """A layer that changes the frame rate, under its published name."""

    def __init__(self, name: str, layer: nn.Module) -> None:
        super().__init__()
        self.add_module(name, layer)
        self.name = name

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        made: Tensor = self.get_submodule(self.name)(x, stream)
        return made


class Mimi(Codec):
    """The codec; a sound is filled with zeros to whole frames."""

    causal = True

    def __init__(self, config: MimiConfig) -> None:
        super().__init__()
        self.config, self.sample_rate = config, config.sample_rate
        self.hop_length = config.seanet.hop_length * config.halving
        self.sizes = (config.bins,) * (config.semantic + config.acoustic)
        dim, halving = config.seanet.dimension, config.halving
        self.encoder, self.decoder = config.seanet.encoder(), config.seanet.decoder()
        self.encoder_transformer, self.decoder_transformer = Transformer(config), Transformer(config)
        down = Conv(dim, dim, 2 * halving, halving, causal=True, pad_mode="replicate", bias=False)
        self.downsample = _Resample("conv", down)
        up = ConvTranspose(dim, dim, 2 * halving, halving, causal=True, groups=dim, bias=False)
        self.upsample = _Resample("convtr", up)
        self.quantizer = _Split(config)

    def encode_whole(self, sound: Tensor, books: int) -> Encoded:
        return Encoded(self._codes(sound, books))

    def decode_whole(self, encoded: Encoded) -> Tensor:
        return self._sound(encoded.codes)

    def encode_piece(self, sound: Tensor, books: int, stream: Stream) -> Tensor:
        if not sound.shape[-1]:
            return torch.zeros(len(sound), books, 0, dtype=torch.int64, device=sound.device)
        return self._codes(sound, books, stream)

    def decode_piece(self, codes: Tensor, stream: Stream) -> Tensor:
        return self._sound(codes, stream) if codes.shape[-1] else torch.zeros(len(codes), 1, 0, device=codes.device)

    def _codes(self, sound: Tensor, books: int, stream: Stream | None = None) -> Tensor:
        whole = F.pad(sound, (0, -sound.shape[-1] % self.hop_length))
        hidden = self.encoder_transformer(self.encoder(whole, stream), stream)
        return self.quantizer.encode(self.downsample(hidden, stream), books)

    def _sound(self, codes: Tensor, stream: Stream | None = None) -> Tensor:
        hidden = self.upsample(self.quantizer.decode(codes), stream)
        made: Tensor = self.decoder(self.decoder_transformer(hidden, stream), stream)
        return made
