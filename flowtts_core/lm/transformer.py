"""A decoder-only transformer: causal self-attention with a key-value cache, optionally attention to a condition.

One class for the two forms of the field: sinusoids, layer norm and GELU as MusicGen (arXiv 2306.05284) has them; rotary
positions, RMS norm and SwiGLU as Llama (2302.13971) and Qwen2, the language model of CosyVoice 2, have them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowtts_core.errors import ConfigError
from flowtts_core.lm.cache import KeyValueCache, LayerCache
from flowtts_core.nn.attention import merge_heads, rotate, split_heads
from flowtts_core.nn.dropout import Dropout
from flowtts_core.nn.masks import length_mask


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes and form of a `Transformer`.

    Attributes:
        width: C of its input and output.
        heads, key_value_heads: several query heads share one of keys and values where the latter are fewer (2305.13245).
        inner: width inside the feed-forward nets.
        positions: "rotary" or "sinusoidal".
        norm: "rms" or "layer".
        feed_forward: "swiglu" or "gelu".
        query_bias: bias of queries, keys and values, as Qwen2 has.
        cross: attend to a condition too.
        base: of the wavelengths of positions.
    """

    width: int = 256
    layers: int = 8
    heads: int = 4
    key_value_heads: int = 4
    inner: int = 704
    positions: str = "rotary"
    norm: str = "rms"
    feed_forward: str = "swiglu"
    query_bias: bool = False
    cross: bool = False
    dropout: float = 0.0
    base: float = 10000.0
    eps: float = 1e-5

    def __post_init__(self) -> None:
        for name, known in (
            ("positions", ("rotary", "sinusoidal")),
            ("norm", ("rms", "layer")),
            ("feed_forward", ("swiglu", "gelu")),
        ):
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"TransformerConfig.{name} = {getattr(self, name)!r}", f"use {known[0]!r} or {known[1]!r}"
                )
        sizes = (self.width, self.layers, self.heads, self.key_value_heads, self.inner)
        if min(sizes) < 1 or self.width % self.heads or self.heads % self.key_value_heads:
            raise ConfigError(
                f"TransformerConfig: width {self.width}, heads {self.heads}, key_value_heads {self.key_value_heads}",
                "heads must divide the width, and key_value_heads the heads",
            )
        if (self.width // self.heads if self.positions == "rotary" else self.width) % 2:
            raise ConfigError(f"TransformerConfig.width = {self.width}", "positions come in pairs: use an even width")


def sinusoids(positions: Tensor, width: int, base: float) -> Tensor:
    """Return [..., width]: cosines, then sines, of wavelengths 1 to `base`, the last included (as MusicGen has them)."""
    half = width // 2
    exponents = torch.arange(half, device=positions.device).float() / max(half - 1, 1)
    phase = positions.float()[..., None] / base**exponents
    return torch.cat((phase.cos(), phase.sin()), -1)


def _angles(positions: Tensor, width: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines [B, 1, T, width] of rotary positions [B, T]; see `flowtts_core.nn.attention.rotary_angles`."""
    frequency = base ** (-torch.arange(0, width, 2, device=positions.device).float() / width)
    angle = positions.float()[:, None, :, None] * frequency
    angle = torch.cat((angle, angle), -1)
    return angle.cos(), angle.sin()


class _Attention(nn.Module):
    """Projections of queries, keys and values, and the attention itself."""

    def __init__(self, config: TransformerConfig, bias: bool = False) -> None:
        super().__init__()
        self.config = config
        head = config.width // config.heads
        self.to_q = nn.Linear(config.width, config.heads * head, bias=bias)
        self.to_k = nn.Linear(config.width, config.key_value_heads * head, bias=bias)
        self.to_v = nn.Linear(config.width, config.key_value_heads * head, bias=bias)
        self.to_out = nn.Linear(config.heads * head, config.width, bias=False)

    def keys_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, H, T, D] each, H of keys and values."""
        count = self.config.key_value_heads
        return split_heads(self.to_k(x), count), split_heads(self.to_v(x), count)

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        """Return [B, T, C] of queries [B, H, T, D]."""
        shared = self.config.key_value_heads < self.config.heads
        dropout = self.config.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(
            query, keys, values, attn_mask=mask, is_causal=causal, enable_gqa=shared, dropout_p=dropout
        )
        return self.to_out(merge_heads(out))


@dataclass(frozen=True)
class _Reading:
    """What self-attention of all layers shares in one call."""

    angles: tuple[Tensor, Tensor] | None  # of rotary positions
    mask: Tensor | None  # [B, 1, T, N] bool, True where a query may look
    causal: bool  # a whole sequence at once, without a cache
    at: Tensor | None  # [B, T] places in the cache
    size: int  # N


class _SelfAttention(_Attention):
    def forward(self, x: Tensor, reading: _Reading, cache: LayerCache | None) -> Tensor:
        query = split_heads(self.to_q(x), self.config.heads)
        keys, values = self.keys_and_values(x)
        if reading.angles is not None:
            query, keys = rotate(query, reading.angles), rotate(keys, reading.angles)
        if cache is not None:
            assert reading.at is not None
            keys, values = cache.extend(keys, values, reading.at, reading.size)
        return self.attend(query, keys, values, reading.mask, reading.causal)


class _CrossAttention(_Attention):
    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        return self.attend(split_heads(self.to_q(x), self.config.heads), keys, values, mask, False)


class _FeedForward(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.width, config.inner, bias=False) if config.feed_forward == "swiglu" else None
        self.up = nn.Linear(config.width, config.inner, bias=False)
        self.down = nn.Linear(config.inner, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x)) if self.gate is None else F.silu(self.gate(x)) * self.up(x))


def _norm(config: TransformerConfig) -> nn.Module:
    if config.norm == "rms":
        return nn.RMSNorm(config.width, eps=config.eps)
    return nn.LayerNorm(config.width, eps=config.eps)


class _Block(nn.Module):
    """Self-attention, attention to the condition, feed-forward net; each with its norm before and a sum behind."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.norm = _norm(config)
        self.attention = _SelfAttention(config, config.query_bias)
        if config.cross:
            self.cross_norm = _norm(config)
            self.cross = _CrossAttention(config)
        self.feed_norm = _norm(config)
        self.feed_forward = _FeedForward(config)
        self.drop = Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        reading: _Reading,
        cache: LayerCache | None,
        condition: tuple[Tensor, Tensor] | None,
        condition_mask: Tensor | None,
    ) -> Tensor:
        x = x + self.drop(self.attention(self.norm(x), reading, cache))
        if condition is not None:
            x = x + self.drop(self.cross(self.cross_norm(x), *condition, condition_mask))
        return x + self.drop(self.feed_forward(self.feed_norm(x)))


@dataclass(frozen=True)
class Attended:
    """A condition as each layer attends to it: keys and values [B, H, L, D], computed once for a whole generation."""

    layers: tuple[tuple[Tensor, Tensor], ...]
    mask: Tensor | None  # [B, 1, 1, L] bool, True where there is something


class Transformer(nn.Module):
    """Maps embeddings [B, T, C] to features [B, T, C] of each position, which see no later one.

    A sequence in one call, in several, or step by step gives the same features (to rounding), as do an item alone and in
    a padded batch.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.layers))
        self.norm = _norm(config)
        deep = 0.02 / math.sqrt(2 * config.layers)  # GPT-2's: what is added to the residual stream stays small
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=deep if name.endswith(("to_out.weight", "down.weight")) else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def new_cache(self, batch: int, device: torch.device | str = "cpu") -> KeyValueCache:
        """Return an empty cache, to be given to each call of one generation."""
        return KeyValueCache.empty(self.config.layers, batch, device)

    def attended(self, condition: Tensor, lengths: Tensor | None = None) -> Attended:
        """Return what the layers attend to of a condition [B, L, C]; positions from `lengths` [B] on are hidden.

        Raises:
            ConfigError: for a transformer without attention to a condition.
        """
        if not self.config.cross:
            raise ConfigError("this transformer attends to no condition", "build it with cross=True")
        mask = None if lengths is None else length_mask(lengths, condition.shape[1])[:, None, None]
        layers = [cast(_Block, block).cross.keys_and_values(condition) for block in self.blocks]
        return Attended(tuple(layers), mask)

    def forward(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        condition: Attended | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Return features [B, T, C].

        Args:
            x: [B, T, C] embeddings of the next T positions of each item.
            lengths: [B] valid positions of `x`; None: all. Features beyond them are undefined.
            cache: what came before; it is extended by the valid positions.
        """
        batch, time = x.shape[:2]
        begun = torch.zeros(batch, dtype=torch.int64, device=x.device) if cache is None else cache.lengths
        same = cache is None or bool((begun == begun[0]).all())
        positions = (begun[:1] if same else begun)[:, None] + torch.arange(time, device=x.device)  # [1 or B, T]
        if self.config.positions == "sinusoidal":
            x = x + sinusoids(positions, x.shape[2], self.config.base).to(x.dtype)
        reading = self._reading(positions, cache, batch, time)
        for number, block in enumerate(self.blocks):
            own = None if condition is None else condition.layers[number]
            mask = None if condition is None else condition.mask
            x = block(x, reading, None if cache is None else cache.layers[number], own, mask)
        if cache is not None:
            cache.lengths = begun + (time if lengths is None else lengths)
            cache.longest = int(cache.lengths.max())
        return self.norm(x)

    def _reading(self, positions: Tensor, cache: KeyValueCache | None, batch: int, time: int) -> _Reading:
        rotary = self.config.positions == "rotary"
        angles = _angles(positions, self.config.width // self.config.heads, self.config.base) if rotary else None
        if cache is None:
            return _Reading(angles, None, time > 1, None, time)
        size = cache.longest + time
        seen = torch.arange(size, device=positions.device)
        mask = None
        if len(positions) > 1 or time > 1:  # else the one position sees all that there is
            mask = (seen <= positions[..., None])[:, None]  # [1 or B, 1, T, N]
        return _Reading(angles, mask, False, positions.expand(batch, -1), size)
