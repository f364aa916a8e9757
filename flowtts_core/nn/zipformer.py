"""The Zipformer of ZipVoice: stacks of layers at lower frame rates, each layer with one set of attention weights used thrice.

Source: Yao et al., "Zipformer" (arXiv 2310.11230), as ZipVoice has it (arXiv 2506.13053): no convolution before the stacks,
and a time embedding in each. Parameters have the published names; activations are [B, T, C]. What only steers the published
training (balancers, whitening, layers that are skipped at random) is left out: it changes nothing of what a model computes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowtts_core.nn.attention import merge_heads, split_heads
from flowtts_core.nn.conv import conv_frames
from flowtts_core.nn.dropout import Dropout
from flowtts_core.nn.masks import length_mask

_HIDDEN = -1000.0  # the score of a frame that is padding, as published


@dataclass(frozen=True)
class LayerSizes:
    """Sizes of a layer, the same in all stacks.

    Attributes:
        feed_forward: width of the second of the three feed-forward nets; the first has 3/4 of it, the third 5/4.
        query, value, position: width of each head's queries and keys, values, and queries of positions.
        positions: width of the encoding of relative positions.
    """

    dim: int
    feed_forward: int
    heads: int
    query: int
    value: int
    position: int
    positions: int


@dataclass(frozen=True)
class _Rate:
    """A batch at one frame rate."""

    valid: Tensor | None  # [B, T]; None where nothing is padded
    positions: Tensor  # [2 T - 1, P]


class Zipformer(nn.Module):
    """[B, T, inputs] -> [B, T, outputs], in the frame rates of a U: a batch, its padding and a single item agree.

    Args:
        factors, layers, kernels: of each stack: by how much its frame rate is lower, its number of layers, and the kernel of
            their convolutions.
        time_dim: width of the time embedding; None for a net without time.
        guidance_dim: width of the embedding of a guidance weight, which joins that of time; None for a net without.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        sizes: LayerSizes,
        *,
        factors: Sequence[int],
        layers: Sequence[int],
        kernels: Sequence[int],
        time_dim: int | None = None,
        guidance_dim: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.sizes, self.factors = sizes, tuple(factors)
        self.time_dim, self.guidance_dim = time_dim, guidance_dim
        self.in_proj, self.out_proj = nn.Linear(inputs, sizes.dim), nn.Linear(sizes.dim, outputs)
        stacks: list[nn.Module] = []
        for factor, count, kernel in zip(factors, layers, kernels, strict=True):
            stack = Stack(sizes, count, kernel, time_dim, dropout)
            stacks.append(stack if factor == 1 else SlowStack(stack, sizes.dim, factor))
        self.encoders = nn.ModuleList(stacks)
        if time_dim is not None:
            self.time_embed = nn.Sequential(
                nn.Linear(time_dim, 2 * time_dim), SwooshR(), nn.Linear(2 * time_dim, time_dim)
            )
        if guidance_dim is not None:
            assert time_dim is not None, "guidance joins the time"
            self.guidance_scale_embed = nn.Linear(guidance_dim, time_dim, bias=False)
            nn.init.zeros_(self.guidance_scale_embed.weight)  # a student begins as its teacher

    def forward(
        self, x: Tensor, lengths: Tensor | None, t: Tensor | None = None, guidance: Tensor | None = None
    ) -> Tensor:
        """Run all stacks.

        Args:
            lengths: [B] valid frames; None where nothing is padded.
            t: [B], or [1] for all items, of a net with time.
            guidance: [B] or [1] weights, of a net that embeds them.
        """
        time = None if t is None else self.embed_time(t, guidance)
        rates = {factor: self._rate(x, lengths, factor) for factor in set(self.factors)}
        x = self.in_proj(x)
        for factor, stack in zip(self.factors, self.encoders, strict=True):
            x = stack(x, rates[factor], time) if factor == 1 else stack(x, lengths, rates[factor], time)
        out: Tensor = self.out_proj(x)
        return out

    def embed_time(self, t: Tensor, guidance: Tensor | None = None) -> Tensor:
        """Return the embedding [B, time_dim] of times and guidance weights, each [B] or [1]."""
        assert self.time_dim is not None
        embedded = cosine_embedding(t, self.time_dim)
        if guidance is not None:
            assert self.guidance_dim is not None, "the net embeds no guidance"
            embedded = embedded + self.guidance_scale_embed(cosine_embedding(guidance, self.guidance_dim))
        out: Tensor = self.time_embed(embedded)
        return out

    def _rate(self, x: Tensor, lengths: Tensor | None, factor: int) -> _Rate:
        time = -(-x.shape[1] // factor)
        valid = None if lengths is None else length_mask((lengths + factor - 1) // factor, time)
        return _Rate(valid, relative_positions(time, self.sizes.positions, x.device))


class Stack(nn.Module):
    """Layers at one frame rate, with the time embedding projected once for all of them."""

    def __init__(self, sizes: LayerSizes, layers: int, kernel: int, time_dim: int | None, dropout: float) -> None:
        super().__init__()
        self.time_emb = None if time_dim is None else nn.Sequential(SwooshR(), nn.Linear(time_dim, sizes.dim))
        self.layers = nn.ModuleList(Layer(sizes, kernel, dropout) for _ in range(layers))

    def forward(self, x: Tensor, rate: _Rate, time: Tensor | None) -> Tensor:
        now = None if time is None or self.time_emb is None else self.time_emb(time).unsqueeze(1)  # [B, 1, C]
        for layer in self.layers:
            x = layer(x, rate, now)
        return x


class SlowStack(nn.Module):
    """A stack at a lower frame rate: frames are averaged by learnt weights, and repeated after it."""

    def __init__(self, stack: Stack, dim: int, factor: int) -> None:
        super().__init__()
        self.factor, self.encoder = factor, stack
        self.downsample, self.out_combiner = _Weights(factor), Bypass(dim)

    def forward(self, x: Tensor, lengths: Tensor | None, rate: _Rate, time: Tensor | None) -> Tensor:
        slow = self.encoder(self._averaged(x, lengths), rate, time)
        return self.out_combiner(x, slow.repeat_interleave(self.factor, 1)[:, : x.shape[1]])

    def _averaged(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """Average neighbours: where an item ends within a group, its last frame stands for those that are missing."""
        groups = -(-x.shape[1] // self.factor)
        last = torch.full((1,), x.shape[1], device=x.device) if lengths is None else lengths
        places = torch.arange(groups * self.factor, device=x.device)[None].minimum(last[:, None] - 1)  # [B or 1, T']
        if lengths is not None or groups * self.factor != x.shape[1]:
            x = x.gather(1, places.expand(len(x), -1).unsqueeze(2).expand(-1, -1, x.shape[2]))
        weights = self.downsample.bias.softmax(0).to(x.dtype)
        return (x.unflatten(1, (groups, self.factor)) * weights[:, None]).sum(2)


class _Weights(nn.Module):
    """Holds the weights of neighbouring frames under their published name."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(count))


class Layer(nn.Module):
    """Three feed-forward nets, two convolutions and three uses of the attention weights, with a bypass in the middle."""

    def __init__(self, sizes: LayerSizes, kernel: int, dropout: float) -> None:
        super().__init__()
        dim, inner = sizes.dim, sizes.feed_forward
        self.self_attn_weights = AttentionWeights(sizes)
        self.self_attn1, self.self_attn2 = WeightedValues(sizes), WeightedValues(sizes)
        self.feed_forward1 = FeedForward(dim, inner * 3 // 4, dropout)
        self.feed_forward2 = FeedForward(dim, inner, dropout)
        self.feed_forward3 = FeedForward(dim, inner * 5 // 4, dropout)
        self.nonlin_attention = GatedAverage(dim, 3 * dim // 4)
        self.conv_module1, self.conv_module2 = GatedConv(dim, kernel), GatedConv(dim, kernel)
        self.norm = BiasNorm(dim)
        self.bypass, self.bypass_mid = Bypass(dim), Bypass(dim)

    def forward(self, x: Tensor, rate: _Rate, now: Tensor | None) -> Tensor:
        begun, weights = x, self.self_attn_weights(x, rate)
        x = x if now is None else x + now
        x = x + self.feed_forward1(x)
        x = _plus(x, self.nonlin_attention(x, weights[:, 0]))
        x = _plus(x, self.self_attn1(x, weights))
        x = x if now is None else _plus(x, now)
        x = _plus(x, self.conv_module1(x, rate.valid))
        x = _plus(x, self.feed_forward2(x))
        x = self.bypass_mid(begun, x)
        x = _plus(x, self.self_attn2(x, weights))
        x = x if now is None else _plus(x, now)
        x = _plus(x, self.conv_module2(x, rate.valid))
        x = _plus(x, self.feed_forward3(x))
        out: Tensor = self.bypass(begun, self.norm(x))
        return out


def _plus(x: Tensor, more: Tensor) -> Tensor:
    """Add to an activation, in its place where no gradient needs what it was."""
    return x + more if torch.is_grad_enabled() else x.add_(more)


class AttentionWeights(nn.Module):
    """Attention weights [B, H, T, T] from likeness and relative position; the scale of the scores lies in the projection."""

    def __init__(self, sizes: LayerSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.widths = [sizes.heads * width for width in (sizes.query, sizes.query, sizes.position)]
        self.in_proj = _scaled(nn.Linear(sizes.dim, sum(self.widths)), sizes.query**-0.25)
        self.linear_pos = _scaled(nn.Linear(sizes.positions, sizes.heads * sizes.position, bias=False), 0.05)

    def forward(self, x: Tensor, rate: _Rate) -> Tensor:
        query, key, asked = (split_heads(part, self.sizes.heads) for part in self.in_proj(x).split(self.widths, 2))
        where = self.linear_pos(rate.positions).unflatten(1, (self.sizes.heads, -1)).permute(1, 2, 0)  # [H, P, 2 T - 1]
        pairs = (part.flatten(0, 1) for part in (_by_key(asked @ where), query, key.transpose(2, 3)))
        scores = torch.baddbmm(*pairs).unflatten(0, (-1, self.sizes.heads))
        if rate.valid is not None:
            scores = scores.masked_fill(~rate.valid[:, None, None, :], _HIDDEN)
        return scores.softmax(3)


def _by_key(scores: Tensor) -> Tensor:
    """Turn scores of relative positions [B, H, T, 2 T - 1] into those of keys [B, H, T, T], without a copy.

    Key j lies j - i from query i, in column T - 1 + j - i. In memory that is place (2 T - 2) i + T - 1 + j: rows that are one
    number shorter, from the middle of the first row on.
    """
    time = scores.shape[2]
    if time == 1:
        return scores
    rows = scores.flatten(2)[..., time - 1 : time - 1 + time * (2 * time - 2)].unflatten(2, (time, 2 * time - 2))
    return rows[..., :time]


class WeightedValues(nn.Module):
    """The second half of attention: values summed by weights that are given."""

    def __init__(self, sizes: LayerSizes) -> None:
        super().__init__()
        width = sizes.heads * sizes.value
        self.heads = sizes.heads
        self.in_proj, self.out_proj = nn.Linear(sizes.dim, width), _scaled(nn.Linear(width, sizes.dim), 0.05)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        out: Tensor = self.out_proj(merge_heads(weights @ split_heads(self.in_proj(x), self.heads)))
        return out


class GatedAverage(nn.Module):
    """Frames averaged by one head's attention weights, between two gates."""

    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.in_proj, self.out_proj = nn.Linear(dim, 3 * inner), _scaled(nn.Linear(inner, dim), 0.05)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        gate, value, after = self.in_proj(x).chunk(3, 2)
        out: Tensor = self.out_proj((weights @ (value * gate.tanh())) * after)
        return out


class GatedConv(nn.Module):
    """A gated linear unit, a depthwise convolution over time, and a projection."""

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.in_proj = nn.Linear(dim, 2 * dim)
        self.depthwise_conv = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.out_proj = _scaled(nn.Linear(dim, dim), 0.05)

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        x = F.glu(self.in_proj(x), 2)
        if valid is not None:
            x = x.masked_fill(~valid.unsqueeze(2), 0.0)
        seen = conv_frames(self.depthwise_conv, x.transpose(1, 2)).transpose(1, 2)
        return _projected(seen - 1.0, 0.08 + 0.313261687, self.out_proj)


class FeedForward(nn.Module):
    """Two layers with SwooshL between them; dropout leaves a feature out of all frames."""

    def __init__(self, dim: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.in_proj, self.out_proj = nn.Linear(dim, inner), _scaled(nn.Linear(inner, dim), 0.1)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.dropout.probability:
            hidden = F.linear(x, self.in_proj.weight, self.in_proj.bias - 4.0)
            return _projected(hidden, 0.08 * 4.0 + 0.035, self.out_proj)
        hidden = swoosh_l(self.in_proj(x))
        hidden = hidden * self.dropout(torch.ones_like(hidden[:, :1]))
        out: Tensor = self.out_proj(hidden)
        return out


class BiasNorm(nn.Module):
    """Divides each frame by its size about a learnt point, which keeps what layer norm would take away."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.bias, self.log_scale = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        size = (x - self.bias).float().square().mean(2, keepdim=True)
        return x * (size.rsqrt() * self.log_scale.exp()).to(x.dtype)


class Bypass(nn.Module):
    """Goes from what was before to what is new, as far as each channel's scale says."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.bypass_scale = nn.Parameter(torch.full((dim,), 0.5))

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        return torch.lerp(before, after, self.bypass_scale.to(before.dtype))


def _projected(x: Tensor, less: float, layer: nn.Linear) -> Tensor:
    """Return a layer of log(1 + e^x) - 0.08 x - less; the constant goes into its bias, which saves a pass over memory."""
    hidden = F.softplus(x).sub_(x, alpha=0.08)
    return F.linear(hidden, layer.weight, layer.bias - less * layer.weight.sum(1))


def swoosh_l(x: Tensor) -> Tensor:
    """Return log(1 + e^(x - 4)) - 0.08 x - 0.035."""
    return F.softplus(x - 4.0).sub(x, alpha=0.08).sub_(0.035)


def swoosh_r(x: Tensor) -> Tensor:
    """Return log(1 + e^(x - 1)) - 0.08 x - 0.3133, which is 0 at 0."""
    return F.softplus(x - 1.0).sub(x, alpha=0.08).sub_(0.313261687)


class SwooshR(nn.Module):
    """`swoosh_r` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        return swoosh_r(x)


def cosine_embedding(values: Tensor, width: int) -> Tensor:
    """Embed numbers [B] as [B, width]: cosines, then sines, of geometric frequencies from 1 towards 1 / 10000."""
    half = width // 2
    frequency = torch.exp(torch.arange(half, device=values.device).float() * (-math.log(10000.0) / half))
    angle = values.float()[:, None] * frequency
    return torch.cat((angle.cos(), angle.sin()), 1)


def relative_positions(time: int, width: int, device: torch.device) -> Tensor:
    """Encode positions -(time - 1) to time - 1 relative to a frame as [2 time - 1, width]: near ones apart, far ones alike.

    A logarithm and an arc tangent bring all distances into (-pi / 2, pi / 2), of which sines and cosines are taken.
    """
    distance = torch.arange(1 - time, time, device=device).float()[:, None]
    room = width**0.5
    nearer = room * distance.sign() * ((distance.abs() + room).log() - math.log(room))
    angle = (nearer / (width / (2 * math.pi))).atan() * (1 + torch.arange(width // 2, device=device))
    encoded = torch.stack((angle.cos(), angle.sin()), 2).flatten(1)
    encoded[:, -1] = 1.0  # for a bias
    return encoded


def _scaled(layer: nn.Linear, scale: float) -> nn.Linear:
    """Make a fresh layer's weights smaller, so that what it adds to the residual is little at first."""
    with torch.no_grad():
        layer.weight.mul_(scale)
        if layer.bias is not None:
            layer.bias.uniform_(-0.1 * scale, 0.1 * scale)
    return layer
