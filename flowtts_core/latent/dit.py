"""Stable Audio's diffusion transformer (arXiv 2402.04825; 2407.14358): latents with a text and timing, by attention.

Its state dict has the names of stable-audio-tools.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowtts_core.errors import ConfigError
from flowtts_core.nn.attention import merge_heads, rotary_angles, rotate, split_heads

_FOURIER = 256  # features of the embedding of time
_LEAST_ROTARY = 32


@dataclass(frozen=True)
class DiTConfig:
    """Sizes of the transformer.

    Attributes:
        latent: D features of a latent frame.
        width, layers, heads: of the transformer.
        text: E features of what is attended to; its heads are as wide as the others.
        timing: G features of the global condition.
        multiple: of the width, inside the feed-forward nets.
    """

    latent: int = 64
    width: int = 1536
    layers: int = 24
    heads: int = 24
    text: int = 768
    timing: int = 1536
    multiple: int = 4

    def __post_init__(self) -> None:
        if min(self.latent, self.width, self.layers, self.heads, self.text, self.timing, self.multiple) < 1:
            raise ConfigError("DiTConfig: a size below 1", "use sizes of 1 or more")
        if self.width % self.heads or self.text % (self.width // self.heads):
            raise ConfigError(
                f"DiTConfig: width {self.width}, heads {self.heads}, text {self.text}",
                "heads must divide the width, and a head's width the text's",
            )

    @property
    def head(self) -> int:
        """Return the width of a head."""
        return self.width // self.heads


class _Norm(nn.Module):
    """Layer norm with a gain and no shift; its zeros are published, too."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))
        self.register_buffer("beta", torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.gamma.shape, self.gamma, self.get_buffer("beta"))


class _SelfAttention(nn.Module):
    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.to_qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.to_out = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
        query, key, value = (split_heads(part, self.heads) for part in self.to_qkv(x).chunk(3, 2))
        query, key = rotate(query, angles), rotate(key, angles)
        return self.to_out(merge_heads(F.scaled_dot_product_attention(query, key, value)))


class _CrossAttention(nn.Module):
    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.heads, self.text_heads = config.heads, config.text // config.head
        self.to_q = nn.Linear(config.width, config.width, bias=False)
        self.to_kv = nn.Linear(config.text, 2 * config.text, bias=False)
        self.to_out = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        query = split_heads(self.to_q(x), self.heads)
        key, value = (split_heads(part, self.text_heads) for part in self.to_kv(text).chunk(2, 2))
        shared = self.text_heads < self.heads
        return self.to_out(merge_heads(F.scaled_dot_product_attention(query, key, value, enable_gqa=shared)))


class _Gated(nn.Module):
    """Linear layer of a value and its gate: value times SiLU of the gate."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, -1)
        return value * F.silu(gate)


class _FeedForward(nn.Module):
    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        inner = config.multiple * config.width
        last = nn.Linear(inner, config.width)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.ff = nn.Sequential(_Gated(config.width, inner), nn.Identity(), last)

    def forward(self, x: Tensor) -> Tensor:
        return self.ff(x)


class _Layer(nn.Module):
    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.pre_norm, self.self_attn = _Norm(config.width), _SelfAttention(config)
        self.cross_attend_norm, self.cross_attn = _Norm(config.width), _CrossAttention(config)
        self.ff_norm, self.ff = _Norm(config.width), _FeedForward(config)
        nn.init.zeros_(self.self_attn.to_out.weight)
        nn.init.zeros_(self.cross_attn.to_out.weight)

    def forward(self, x: Tensor, text: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
        x = x + self.self_attn(self.pre_norm(x), angles)
        x = x + self.cross_attn(self.cross_attend_norm(x), text)
        return x + self.ff(self.ff_norm(x))


class _Transformer(nn.Module):
    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.turned = max(config.head // 2, _LEAST_ROTARY)
        if self.turned > config.head:
            raise ConfigError(
                f"DiTConfig: heads of {config.head} features", f"positions need {_LEAST_ROTARY}: use fewer heads"
            )
        self.project_in = nn.Linear(config.latent, config.width, bias=False)
        self.project_out = nn.Linear(config.width, config.latent, bias=False)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))

    def forward(self, x: Tensor, first: Tensor, text: Tensor) -> Tensor:
        x = torch.cat([first[:, None], self.project_in(x)], 1)
        angles = rotary_angles(x.shape[1], self.turned, x.device)
        for layer in self.layers:
            x = layer(x, text, angles)
        return self.project_out(x[:, 1:])


def _two_layers(inside: int, outside: int, bias: bool) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inside, outside, bias=bias), nn.SiLU(), nn.Linear(outside, outside, bias=bias))


class _Fourier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(_FOURIER // 2, 1))

    def forward(self, t: Tensor) -> Tensor:
        phase = 2 * math.pi * t[:, None] @ self.weight.T
        return torch.cat((phase.cos(), phase.sin()), 1)


class LatentDiT(nn.Module):
    """Predicts what the objective asks for (v, or a flow's velocity) at a point of latents [B, D, T].

    Timing is both attended to and part of one token before the frames. Padding of latents and texts takes part, as
    published: an item alone is the reference.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        self.timestep_features = _Fourier()
        self.to_timestep_embed = _two_layers(_FOURIER, config.width, True)
        self.to_cond_embed = _two_layers(config.text, config.text, False)
        self.to_global_embed = _two_layers(config.timing, config.width, False)
        self.preprocess_conv = nn.Conv1d(config.latent, config.latent, 1, bias=False)
        self.postprocess_conv = nn.Conv1d(config.latent, config.latent, 1, bias=False)
        nn.init.zeros_(self.preprocess_conv.weight)
        nn.init.zeros_(self.postprocess_conv.weight)
        self.transformer = _Transformer(config)

    def forward(self, x: Tensor, t: Tensor, text: Tensor, timing: Tensor) -> Tensor:
        """Return [B, D, T].

        Args:
            x: [B, D, T] latents with noise.
            t: [B] times.
            text: [B, L, E] what is attended to.
            timing: [B, G] the global condition.
        """
        first = self.to_global_embed(timing) + self.to_timestep_embed(self.timestep_features(t))
        x = (x + self.preprocess_conv(x)).transpose(1, 2)
        x = self.transformer(x, first, self.to_cond_embed(text)).transpose(1, 2)
        return x + self.postprocess_conv(x)
