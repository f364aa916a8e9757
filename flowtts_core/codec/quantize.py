"""Quantisers: latents of frames to codes and back, one codebook or several, and how they learn.

Sources: van den Oord et al. 2017 (arXiv 1711.00937) for VQ with the straight-through gradient, and section A.1 for codebooks as
moving averages; Zeghidour et al. 2021 (arXiv 2107.03312, section III) for residual VQ, k-means start, replaced codes and
quantiser dropout; Yu et al. 2021 (arXiv 2110.04627, section 3.2) for factorised codes on the unit sphere; Mentzer et al. 2023
(arXiv 2309.15505) for FSQ. State-dict names are those of EnCodec, and of DAC for the factorised form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowtts_core.errors import ConfigError
from flowtts_core.nn.share import Share, mean_of, rows_of

_TOGETHER = 8192  # vectors that are compared with all codes at once: distances of more would fill memory


@dataclass(frozen=True)
class Quantized:
    """What a quantiser makes of latents [B, D, T].

    Attributes:
        values: [B, D, T]; the gradient of each goes to its latent unchanged.
        codes: [B, Q, T] int64.
        losses: scalars that pull latents to their codes ("commitment") and, where gradients train them, codes to theirs.
    """

    values: Tensor
    codes: Tensor
    losses: dict[str, Tensor]


@dataclass(frozen=True)
class CodebookUse:
    """How much of each codebook is used.

    Attributes:
        perplexity: [Q] exponential of the entropy of codes: the size of the book if all are used alike.
        used: [Q] share of the codes that occur.
    """

    perplexity: Tensor
    used: Tensor


def count_codes(codes: Tensor, size: int) -> Tensor:
    """Return how often each code occurs in codes [B, Q, T], as [Q, size]; counts of several batches add up."""
    return torch.stack([torch.bincount(book.flatten(), minlength=size) for book in codes.transpose(0, 1)])


def codebook_use(counts: Tensor) -> CodebookUse:
    """Return the use of codebooks by counts [Q, size]."""
    share = counts.double() / counts.sum(-1, keepdim=True).clamp(min=1)
    entropy = -torch.special.xlogy(share, share).sum(-1)
    return CodebookUse(entropy.exp(), (counts > 0).double().mean(-1))


def nearest(vectors: Tensor, table: Tensor) -> Tensor:
    """Return the index [N] of the code in a table [K, D] that is nearest to each vector [N, D]; of equals the first."""
    found = []
    for some in vectors.split(_TOGETHER):
        distance = some.square().sum(1, keepdim=True) - 2 * some @ table.T + table.square().sum(1)
        found.append(distance.argmin(1))
    return torch.cat(found) if found else vectors.new_zeros(0, dtype=torch.int64)


def kmeans(vectors: Tensor, count: int, iterations: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Return means [K, D] of vectors [N, D] by Lloyd's algorithm, and how many vectors each has [K].

    It begins at vectors drawn at random; of fewer than K some are drawn twice. Means without vectors stay where they are.
    """
    means = _drawn(vectors, count, generator).clone()
    sizes = vectors.new_zeros(count)
    for _ in range(iterations):
        sizes, sums = _sums(vectors, nearest(vectors, means), count)
        means = torch.where(sizes[:, None] > 0, sums / sizes.clamp(min=1)[:, None], means)
    return means, sizes


def _drawn(vectors: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Return `count` vectors at random, each at most once where there are enough."""
    order = torch.randperm(len(vectors), generator=generator)
    if len(vectors) < count:
        order = torch.randint(len(vectors), (count,), generator=generator)
    return vectors[order[:count].to(vectors.device)]


def _sums(vectors: Tensor, codes: Tensor, size: int, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the number [K] and the sum [K, D] of the vectors of each code, each counted by its weight [N]."""
    weights = vectors.new_ones(len(vectors)) if weights is None else weights
    counts = vectors.new_zeros(size).index_add_(0, codes, weights)
    return counts, vectors.new_zeros(size, vectors.shape[1]).index_add_(0, codes, vectors * weights[:, None])


class Codebook(nn.Module):
    """Codes [K, D] that follow the moving average of the vectors nearest to them.

    Args:
        kmeans_iterations: codes begin at means of the first batch; with 0 at random.
        decay: of the average.
        replace_below: a code that is used by less than this share of the mean use, on average, is replaced by a vector of the
            batch; 0 replaces none.
        normalised: vectors and codes are compared on the unit sphere, where both lie.
    """

    inited: Tensor
    cluster_size: Tensor
    embed: Tensor
    embed_avg: Tensor

    def __init__(
        self,
        size: int,
        dim: int,
        *,
        kmeans_iterations: int = 0,
        decay: float = 0.99,
        epsilon: float = 1e-5,
        replace_below: float = 0.0,
        normalised: bool = False,
    ) -> None:
        super().__init__()
        self.size, self.normalised = size, normalised
        self.kmeans_iterations, self.decay, self.epsilon = kmeans_iterations, decay, epsilon
        self.replace_below = replace_below
        embed = torch.empty(size, dim)
        nn.init.kaiming_uniform_(embed)
        embed = F.normalize(embed, dim=1) if normalised else embed
        self.register_buffer("inited", torch.tensor([float(not kmeans_iterations)]))
        self.register_buffer("cluster_size", torch.zeros(size))
        self.register_buffer("embed", embed)
        self.register_buffer("embed_avg", embed.clone())

    @property
    def table(self) -> Tensor:
        """The codes [K, D]."""
        return F.normalize(self.embed, dim=1) if self.normalised else self.embed

    def forward(
        self, x: Tensor, weights: Tensor | None = None, share: Share | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Look up vectors [B, T, D]; in training, then move the codes.

        Args:
            weights: [B], 0 for items whose vectors do not count.
            share: of the batch; the codes move by all of it, alike on every process.
            generator: of what is drawn for the whole batch.

        Returns:
            The vectors as they are compared, the nearest codes' vectors (both [B, T, D]), and the codes [B, T].
        """
        x = F.normalize(x, dim=-1) if self.normalised else x
        if self.training and not bool(self.inited):
            self._start(_of_all(x.detach(), share), generator)
        codes = nearest(x.detach().flatten(0, 1).float(), self.table).view(x.shape[:2])
        found = F.embedding(codes, self.table)
        if self.training:
            self._follow(x.detach().float(), codes, weights, share, generator)
        return x, found, codes

    @torch.no_grad()
    def _start(self, vectors: Tensor, generator: torch.Generator | None) -> None:
        means, sizes = kmeans(vectors, self.size, self.kmeans_iterations, generator)
        self.embed.copy_(F.normalize(means, dim=1) if self.normalised else means)
        # a mean without vectors counts as one, else its average would be 0 / 0
        self.cluster_size.copy_(sizes.clamp(min=1))
        self.embed_avg.copy_(means * self.cluster_size[:, None])
        self.inited.fill_(1)

    @torch.no_grad()
    def _follow(
        self, x: Tensor, codes: Tensor, weights: Tensor | None, share: Share | None, generator: torch.Generator | None
    ) -> None:
        each = None if weights is None else weights[:, None].expand(codes.shape).flatten().float()
        counts, sums = _sums(x.flatten(0, 1), codes.flatten(), self.size, each)
        if share is not None:
            counts, sums = share.sum(counts), share.sum(sums)
        self.cluster_size.lerp_(counts, 1 - self.decay)
        self.embed_avg.lerp_(sums, 1 - self.decay)
        total = self.cluster_size.sum()
        smoothed = (self.cluster_size + self.epsilon) / (total + self.size * self.epsilon) * total
        means = self.embed_avg / smoothed[:, None]
        self.embed.copy_(F.normalize(means, dim=1) if self.normalised else means)
        if self.replace_below:
            dead = self.cluster_size < self.replace_below * self.cluster_size.mean()
            if bool(dead.any()):
                self._replace(dead, _of_all(x, share), generator)

    def _replace(self, dead: Tensor, vectors: Tensor, generator: torch.Generator | None) -> None:
        new, use = _drawn(vectors, int(dead.sum()), generator), self.cluster_size.mean()
        self.embed[dead] = new
        self.embed_avg[dead] = new * use
        self.cluster_size[dead] = use


def _of_all(x: Tensor, share: Share | None) -> Tensor:
    """Return the vectors [N, D] of the whole batch of [B, T, D], in the order of its items, on every process."""
    if share is None:
        return x.flatten(0, 1).float()
    everyone = x.new_zeros(share.size, *x.shape[1:], dtype=torch.float32)
    everyone[share.rows.to(x.device)] = x.float()
    return share.sum(everyone).flatten(0, 1)


class VectorQuantizer(nn.Module):
    """One codebook, of vectors that linear layers narrow and widen where it has fewer dimensions: [B, D, T].

    Args:
        codebook_dim: None: `dim`.
        settings: of the `Codebook`.
    """

    def __init__(self, dim: int, size: int, codebook_dim: int | None = None, **settings: float | bool) -> None:
        super().__init__()
        own = codebook_dim or dim
        self.project_in: nn.Module = nn.Linear(dim, own) if own != dim else nn.Identity()
        self.project_out: nn.Module = nn.Linear(own, dim) if own != dim else nn.Identity()
        self._codebook = Codebook(size, own, **settings)  # type: ignore[arg-type]

    @property
    def size(self) -> int:
        return self._codebook.size

    @property
    def use(self) -> Tensor:
        """How often each code [K] was used in training, of late."""
        return self._codebook.cluster_size

    def forward(
        self, x: Tensor, weights: Tensor | None = None, share: Share | None = None, generator: torch.Generator | None = None
    ) -> Quantized:
        """Quantise [B, D, T]; arguments as `Codebook`'s."""
        latents, found, codes = self._codebook(self.project_in(x.transpose(1, 2)), weights, share, generator)
        each = (latents - found.detach()).square().mean((1, 2))  # [B]
        commitment = mean_of(share, (each if weights is None else each * weights).mean())
        values = self.project_out(latents + (found - latents).detach()).transpose(1, 2)
        return Quantized(values, codes[:, None], {"commitment": commitment})

    def encode(self, x: Tensor) -> Tensor:
        """Return the codes [B, T] of [B, D, T]."""
        codes: Tensor = self._codebook(self.project_in(x.transpose(1, 2)))[2]
        return codes

    def decode(self, codes: Tensor) -> Tensor:
        """Return the vectors [B, D, T] of codes [B, T]."""
        values: Tensor = self.project_out(F.embedding(codes, self._codebook.table))
        return values.transpose(1, 2)


class FactorizedQuantizer(nn.Module):
    """One codebook of few dimensions between projections; gradients train it: [B, D, T].

    The nearest code is found on the unit sphere; its plain vector is projected back.

    Args:
        conv: whether projections are convolutions of width 1, as in DAC, or linear layers, as in FACodec.
        book: the name of the codebook in the state dict.
    """

    def __init__(self, dim: int, size: int, codebook_dim: int, *, conv: bool = True, book: str = "codebook") -> None:
        super().__init__()
        self.size, self.book = size, book
        self.in_proj: nn.Module = nn.Conv1d(dim, codebook_dim, 1) if conv else nn.Linear(dim, codebook_dim)
        self.out_proj: nn.Module = nn.Conv1d(codebook_dim, dim, 1) if conv else nn.Linear(codebook_dim, dim)
        self.add_module(book, nn.Embedding(size, codebook_dim))
        self.conv = conv

    @property
    def table(self) -> Tensor:
        """The codes [K, D]."""
        return self.get_submodule(self.book).get_parameter("weight")

    def forward(
        self, x: Tensor, weights: Tensor | None = None, share: Share | None = None, generator: torch.Generator | None = None
    ) -> Quantized:
        """Quantise [B, D, T]; arguments as `VectorQuantizer`'s, so that either serves in a residual one."""
        latents = self._through(self.in_proj, x)
        codes = self._nearest(latents)
        found = F.embedding(codes, self.table).transpose(1, 2)
        each = torch.stack([(latents - found.detach()).square(), (latents.detach() - found).square()]).mean((2, 3))
        commitment, codebook = mean_of(share, (each if weights is None else each * weights).mean(1))
        values = self._through(self.out_proj, latents + (found - latents).detach())
        return Quantized(values, codes[:, None], {"commitment": commitment, "codebook": codebook})

    def encode(self, x: Tensor) -> Tensor:
        """Return the codes [B, T] of [B, D, T]."""
        return self._nearest(self._through(self.in_proj, x))

    def decode(self, codes: Tensor) -> Tensor:
        """Return the vectors [B, D, T] of codes [B, T]."""
        return self._through(self.out_proj, F.embedding(codes, self.table).transpose(1, 2))

    def _nearest(self, latents: Tensor) -> Tensor:
        vectors = F.normalize(latents.detach().transpose(1, 2), dim=-1)
        return nearest(vectors.flatten(0, 1), F.normalize(self.table.detach(), dim=1)).view(vectors.shape[:2])

    def _through(self, projection: nn.Module, x: Tensor) -> Tensor:
        made: Tensor = projection(x) if self.conv else projection(x.transpose(1, 2)).transpose(1, 2)
        return made


class ResidualQuantizer(nn.Module):
    """Several codebooks, each of which quantises what those before it left over.

    Args:
        layers: quantisers of one codebook each.
        dropout: share of the items of a batch that are trained with fewer codebooks, of a number drawn evenly from 1 to all,
            so that any number of them can be used afterwards.
    """

    def __init__(self, layers: Sequence[nn.Module], dropout: float = 0.0) -> None:
        super().__init__()
        self.layers, self.dropout = nn.ModuleList(layers), dropout

    def forward(self, x: Tensor, share: Share | None = None, generator: torch.Generator | None = None) -> Quantized:
        """Quantise [B, D, T]; losses are means over the codebooks."""
        used = self._used(x, share, generator) if self.training and self.dropout else None  # [B]
        left, values, codes, losses = x, torch.zeros_like(x), [], list[dict[str, Tensor]]()
        for index, layer in enumerate(self.layers):
            weights = None if used is None else (used > index).to(x.dtype)
            made: Quantized = layer(left, weights, share, generator)
            own = made.values if weights is None else made.values * weights[:, None, None]
            left, values = left - own.detach(), values + own
            codes.append(made.codes[:, 0])
            losses.append(made.losses)
        means = {name: torch.stack([loss[name] for loss in losses]).mean() for name in losses[0]}
        return Quantized(values, torch.stack(codes, 1), means)

    def _used(self, x: Tensor, share: Share | None, generator: torch.Generator | None) -> Tensor:
        """Return the number of codebooks [B] that each item is trained with."""
        count, rows = rows_of(share, len(x))
        fewer = torch.rand(count, generator=generator) < self.dropout
        drawn = torch.randint(1, len(self.layers) + 1, (count,), generator=generator)
        return torch.where(fewer, drawn, len(self.layers))[rows].to(x.device)

    def encode(self, x: Tensor, books: int | None = None) -> Tensor:
        """Return the codes [B, Q, T] of [B, D, T] by the first `books` codebooks (None: all)."""
        codes = []
        for layer in list(self.layers)[:books]:
            codes.append(layer.encode(x))
            x = x - layer.decode(codes[-1])
        return torch.stack(codes, 1)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the vectors [B, D, T] of codes [B, Q, T] of the first Q codebooks."""
        return torch.stack([layer.decode(own) for layer, own in zip(self.layers, codes.unbind(1), strict=False)]).sum(0)


class FiniteScalarQuantizer(nn.Module):
    """FSQ: each of a few bounded numbers is rounded to one of its levels; the codebook is all combinations of them.

    Args:
        levels: of each number, 2 or more; their product is the number of codes.
    """

    def __init__(self, dim: int, levels: Sequence[int]) -> None:
        super().__init__()
        if not levels or min(levels) < 2:
            raise ConfigError(f"levels = {list(levels)}", "use 2 or more levels of each number")
        self.levels, self.size = tuple(levels), math.prod(levels)
        self.project_in = nn.Linear(dim, len(levels))
        self.project_out = nn.Linear(len(levels), dim)
        self.register_buffer("level", torch.tensor(levels), persistent=False)
        self.register_buffer("basis", torch.tensor([math.prod(levels[:i]) for i in range(len(levels))]), persistent=False)
        self.level: Tensor
        self.basis: Tensor

    def bounded(self, x: Tensor) -> Tensor:
        """Return numbers [..., levels] squeezed to where rounding gives `level` whole numbers, around 0."""
        half = (self.level - 1) * (1 + 1e-3) / 2  # a little more, else the offset of 2 levels were out of reach
        offset = torch.where(self.level % 2 == 1, 0.0, 0.5)
        return (x + (offset / half).atanh()).tanh() * half - offset

    def forward(
        self, x: Tensor, weights: Tensor | None = None, share: Share | None = None, generator: torch.Generator | None = None
    ) -> Quantized:
        """Quantise [B, D, T]; arguments as `VectorQuantizer`'s. There is nothing to be lost."""
        numbers = self.bounded(self.project_in(x.transpose(1, 2)))
        rounded = numbers + (numbers.round() - numbers).detach()
        values = self.project_out(rounded / (self.level // 2)).transpose(1, 2)
        return Quantized(values, self._codes(rounded)[:, None], {"commitment": values.new_zeros(())})

    def encode(self, x: Tensor) -> Tensor:
        """Return the codes [B, T] of [B, D, T]."""
        return self._codes(self.bounded(self.project_in(x.transpose(1, 2))).round())

    def decode(self, codes: Tensor) -> Tensor:
        """Return the vectors [B, D, T] of codes [B, T]."""
        digits = codes[..., None] // self.basis % self.level - self.level // 2
        values: Tensor = self.project_out((digits / (self.level // 2)).to(self.project_out.weight.dtype))
        return values.transpose(1, 2)

    def _codes(self, rounded: Tensor) -> Tensor:
        digits = rounded.detach().round().long() + self.level // 2
        return (digits * self.basis).sum(-1)
