"""Codebooks that follow the moving average of what they code, and how much of each is used.

Sources: van den Oord et al. 2017 (arXiv 1711.00937, appendix A.1) for the moving average; Zeghidour et al. 2021 (arXiv
2107.03312, section III) for the k-means start and replaced codes. State-dict names are those of EnCodec.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowtts_core.nn.share import Share

_TOGETHER = (
    1 << 16
)  # comparisons at once, so that they stay in a core's cache: 1,500 vectors with 4,096 codes 11 ms, not 59


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
    half, turned, found = table.square().sum(1) / 2, table.T, list[Tensor]()
    for some in vectors.split(max(1, _TOGETHER // len(table))):
        # half the squared distance, without the vector's own square, which is the same for all codes
        found.append(torch.addmm(half, some, turned, alpha=-1).min(1).indices)
    return torch.cat(found) if found else vectors.new_zeros(0, dtype=torch.int64)


def kmeans(
    vectors: Tensor, count: int, iterations: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
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
        replace_after: a code that has no use while codes on average have so many is replaced by a vector of the batch; 0
            replaces none, and then nothing is counted.
        normalised: vectors and codes are compared on the unit sphere, where both lie.
    """

    LEARNING = ("cluster_size", "embed_avg", "idle")  # buffers of training alone

    inited: Tensor
    cluster_size: Tensor
    embed: Tensor
    embed_avg: Tensor
    idle: Tensor

    def __init__(
        self,
        size: int,
        dim: int,
        *,
        kmeans_iterations: int = 0,
        decay: float = 0.99,
        epsilon: float = 1e-5,
        replace_after: float = 0.0,
        normalised: bool = False,
    ) -> None:
        super().__init__()
        self.size, self.normalised = size, normalised
        self.kmeans_iterations, self.decay, self.epsilon = kmeans_iterations, decay, epsilon
        self.replace_after = replace_after
        embed = torch.empty(size, dim)
        nn.init.kaiming_uniform_(embed)
        embed = F.normalize(embed, dim=1) if normalised else embed
        self.register_buffer("inited", torch.tensor([float(not kmeans_iterations)]))
        self.register_buffer("cluster_size", torch.zeros(size))
        self.register_buffer("embed", embed)
        self.register_buffer("embed_avg", embed.clone())
        if replace_after:
            self.register_buffer("idle", torch.zeros(size))  # vectors that came since each code's last use

    @property
    def table(self) -> Tensor:
        """The codes [K, D]."""
        return F.normalize(self.embed, dim=1) if self.normalised else self.embed

    @torch.no_grad()
    def settle(self) -> None:
        """Begin the moving average anew at the codes as they are, each used once."""
        self.embed_avg.copy_(self.embed)
        self.cluster_size.fill_(1)
        if self.replace_after:
            self.idle.zero_()

    def forward(
        self,
        x: Tensor,
        weights: Tensor | None = None,
        share: Share | None = None,
        generator: torch.Generator | None = None,
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
        codes = self.codes_of(x)
        found = F.embedding(codes, self.table)
        if self.training:
            self._follow(x.detach().float(), codes, weights, share, generator)
        return x, found, codes

    def codes_of(self, x: Tensor) -> Tensor:
        """Return the nearest codes [B, T] of vectors [B, T, D]; nothing moves."""
        x = F.normalize(x, dim=-1) if self.normalised else x
        return nearest(x.detach().flatten(0, 1).float(), self.table).view(x.shape[:2])

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
        if self.replace_after:
            self.idle.add_(counts.sum()).mul_(counts == 0)
            dead = self.idle > self.replace_after * self.size
            if bool(dead.any()):
                self._replace(dead, _of_all(x, share), generator)

    def _replace(self, dead: Tensor, vectors: Tensor, generator: torch.Generator | None) -> None:
        new, use = _drawn(vectors, int(dead.sum()), generator), self.cluster_size.mean()
        self.embed[dead] = new
        self.embed_avg[dead] = new * use
        self.cluster_size[dead] = use
        self.idle[dead] = 0


def _of_all(x: Tensor, share: Share | None) -> Tensor:
    """Return the vectors [N, D] of the whole batch of [B, T, D], in the order of its items, on every process."""
    if share is None:
        return x.flatten(0, 1).float()
    everyone = x.new_zeros(share.size, *x.shape[1:], dtype=torch.float32)
    everyone[share.rows.to(x.device)] = x.float()
    return share.sum(everyone).flatten(0, 1)
