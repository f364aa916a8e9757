"""Kernel Audio Distance: the unbiased squared maximum mean discrepancy of two sets of embeddings, and its relatives.

Source: Chung et al., "KAD: No More FAD! An Effective and Efficient Evaluation Metric for Audio Generation"
(arXiv 2502.15602), after Gretton et al., "A Kernel Two-Sample Test" (JMLR 2012, equation 3). Lower is better. The estimate is
unbiased: for two samples of one distribution it is about 0, above or below, whatever their sizes.

All sums run over blocks of rows, so memory grows with the number of embeddings and not with its square. Distances have the
precision of the embeddings (float32 or float64); sums are in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from flowtts_core.errors import ConfigError

BandwidthFrom = Literal["reference", "evaluated"]
Comparison = Callable[[Tensor, Tensor], Tensor]  # points [n, D] and [m, D] -> their kernel [n, m]

TILE = 1024  # rows and columns of a block: 4 MiB of kernel values in float32, which a core's cache holds
_KEPT = 1 << 24  # distances to sort at once; of more, only those in the median's bin of a histogram
_BINS = 1 << 14
_EPSILON = 1e-8  # added to the squared bandwidth, as in the authors' toolkit


@dataclass(frozen=True)
class Kernel:
    """A kernel `k(a, b)` of embeddings.

    Attributes:
        name: "gaussian" `exp(-d^2 / 2 s^2)`, "iq" `1 / (1 + d^2 / 2 s^2)`, "imq" its square root, with d the distance and s
            the bandwidth; or "cubic" `(1 + <a, b>)^3`, which takes no bandwidth.
        bandwidth: s; None takes the median distance between two different embeddings of a set.
        bandwidth_from: the set of that median: "reference" as in the paper, or "evaluated" as in the authors' toolkit. With
            the reference's, all systems that are compared with it have one scale.
    """

    name: str = "gaussian"
    bandwidth: float | None = None
    bandwidth_from: BandwidthFrom = "reference"

    def __post_init__(self) -> None:
        if self.name not in (*_RADIAL, "cubic"):
            raise ConfigError(f"no kernel {self.name!r}", f"use one of: {', '.join((*_RADIAL, 'cubic'))}")
        if self.bandwidth_from not in ("reference", "evaluated"):
            raise ConfigError(f"bandwidth_from = {self.bandwidth_from!r}", "use reference or evaluated")
        if self.bandwidth is not None and not (math.isfinite(self.bandwidth) and self.bandwidth > 0):
            raise ConfigError(f"bandwidth = {self.bandwidth}", "use a number above 0")


# kernels of -u = -d^2 / 2 s^2, computed in place
_RADIAL: dict[str, Callable[[Tensor], Tensor]] = {
    "gaussian": lambda minus_u: minus_u.exp_(),
    "iq": lambda minus_u: minus_u.neg_().add_(1).reciprocal_(),
    "imq": lambda minus_u: minus_u.neg_().add_(1).rsqrt_(),
}


def kad(evaluated: Tensor, reference: Tensor, kernel: Kernel | None = None) -> float:
    """Return the unbiased squared MMD of the evaluated [N, D] and the reference [M, D] embeddings. Tables may show 100 times it.

    Raises:
        ConfigError: for fewer than two embeddings on a side, unequal widths, or values that are not finite.
    """
    evaluated, reference = checked_pair(evaluated, reference)
    kernel = kernel or Kernel()
    within: dict[str, float] = {}
    if kernel.bandwidth is None and kernel.name != "cubic":
        # the kernel of one set needs the distances whose median is the bandwidth: they are computed once
        median, squares = _median(reference if kernel.bandwidth_from == "reference" else evaluated)
        kernel = replace(kernel, bandwidth=median)
        if squares is not None:
            kernels = _RADIAL[kernel.name](squares.mul_(-(_unit(median) ** 2)))
            within[kernel.bandwidth_from] = 2 * float(kernels.view(-1, 1 << 10).sum(dim=1).sum(dtype=torch.float64))
    ours, theirs, compare = _points(evaluated, reference, kernel)
    return _mmd(ours, theirs, compare, within)


def conditional_kad(
    evaluated: tuple[Tensor, Tensor],
    reference: tuple[Tensor, Tensor],
    kernel: Kernel | None = None,
    condition_kernel: Kernel | None = None,
) -> float:
    """Return KAD of pairs (embeddings [N, D], their conditions [N, C]) under the product of two kernels.

    It sees sounds that are right but belong to the wrong texts, which `kad` does not.

    Raises:
        ConfigError: as `kad`, and when embeddings and conditions differ in number.
    """
    for who, pair in (("evaluated", evaluated), ("reference", reference)):
        if len(pair[0]) != len(pair[1]):
            raise ConfigError(f"{len(pair[0])} {who} embeddings for {len(pair[1])} conditions", "give one for each")
    sounds, conditions = checked_pair(evaluated[0], reference[0]), checked_pair(evaluated[1], reference[1])
    kind = torch.promote_types(sounds[0].dtype, conditions[0].dtype)  # both go into one tensor
    ours, theirs, of_sounds = _points(sounds[0].to(kind), sounds[1].to(kind), kernel or Kernel())
    ours_from, theirs_from, of_conditions = _points(
        conditions[0].to(kind), conditions[1].to(kind), condition_kernel or Kernel()
    )
    width = ours.shape[1]

    def compare(a: Tensor, b: Tensor) -> Tensor:
        return of_sounds(a[:, :width], b[:, :width]).mul_(of_conditions(a[:, width:], b[:, width:]))

    ours, theirs = torch.cat([ours, ours_from.to(ours)], dim=1), torch.cat([theirs, theirs_from.to(theirs)], dim=1)
    return _mmd(ours, theirs, compare)


def temporal_windows(frames: Tensor, window: int, hop: int | None = None) -> Tensor:
    """Return windows [W, window * D] of an embedding's frames [T, D]. `kad` of them compares changes over time.

    `hop` is half a window by default. A clip shorter than a window gives none.
    """
    if len(frames) < window:
        return frames.new_zeros(0, window * frames.shape[1])
    return frames.unfold(0, window, hop or max(1, window // 2)).transpose(1, 2).flatten(1)


def median_distance(embeddings: Tensor) -> float:
    """Return the median (the lower one of an even number) of the distances between different rows of [N, D]."""
    return _median(embeddings)[0]


def _median(embeddings: Tensor) -> tuple[float, Tensor | None]:
    """Return the median distance, and all squared distances (see `_squares`) where they are few enough to keep."""
    pairs = len(embeddings) * (len(embeddings) - 1) // 2
    rank = (pairs - 1) // 2
    x = embeddings - embeddings.mean(dim=0)  # smaller norms lose fewer digits in |a|^2 + |b|^2 - 2 <a, b>
    if pairs <= _KEPT:
        every, end = x.new_full((_blocks_size(len(x)),), math.inf), 0
        for squares in _squares(x):
            every[end : end + len(squares)] = squares
            end += len(squares)
        return math.sqrt(max(0.0, _smallest(every, rank))), every
    scale = _BINS / max(4 * float(x.square().sum(dim=1).max()), 1e-30)  # no distance is larger
    counts = sum(torch.bincount(_bins(squares, scale), minlength=_BINS) for squares in _squares(x))
    assert isinstance(counts, Tensor)
    chosen = int(torch.searchsorted(counts.cumsum(0), rank, right=True))
    rank -= int(counts[:chosen].sum())
    inside = torch.cat([squares[_bins(squares, scale) == chosen] for squares in _squares(x)])
    return math.sqrt(max(0.0, _smallest(inside, rank))), None


def _smallest(x: Tensor, rank: int) -> float:
    """Return the value of this rank, counted from 0. May reorder `x`."""
    if x.is_cuda:
        return float(x.kthvalue(rank + 1).values)
    values = x.numpy()
    values.partition(rank)  # several times as fast as torch's on a CPU
    return float(values[rank])


def checked_pair(evaluated: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Return both sets as float tensors of one dtype. Raise ConfigError as `kad` does."""
    for who, x in (("evaluated", evaluated), ("reference", reference)):
        if x.ndim != 2:
            raise ConfigError(f"the {who} embeddings have shape {tuple(x.shape)}", "give [N, D]")
        if len(x) < 2:
            raise ConfigError(f"{len(x)} {who} embeddings", "a distance of distributions needs 2 or more on each side")
        if not bool(torch.isfinite(x).all()):
            bad = int((~torch.isfinite(x).all(dim=1)).nonzero()[0])
            raise ConfigError(f"the {who} embeddings hold NaN or infinity, first in row {bad}", "leave that clip out")
    if evaluated.shape[1] != reference.shape[1]:
        widths = f"{evaluated.shape[1]} evaluated against {reference.shape[1]} of the reference"
        raise ConfigError(f"embeddings of different width: {widths}", "embed both by the same embedder")
    kind = torch.promote_types(torch.promote_types(evaluated.dtype, reference.dtype), torch.float32)
    return evaluated.to(kind), reference.to(evaluated.device, kind)


def _points(evaluated: Tensor, reference: Tensor, kernel: Kernel) -> tuple[Tensor, Tensor, Comparison]:
    """Return both sets and their kernel function. For a radial kernel they are centred and scaled by the bandwidth."""
    if kernel.name == "cubic":
        return evaluated, reference, lambda a, b: _cubed((a @ b.T).add_(1))
    bandwidth = kernel.bandwidth
    if bandwidth is None:
        bandwidth = median_distance(reference if kernel.bandwidth_from == "reference" else evaluated)
    unit = _unit(bandwidth)
    centre, radial = reference.mean(dim=0), _RADIAL[kernel.name]
    ours, theirs = (_with_norms((x - centre) * unit) for x in (evaluated, reference))
    scratch = ours.new_empty(TILE * TILE)  # a fresh block each time would cost as much as its exponentials
    return ours, theirs, lambda a, b: radial(_minus_squares(a, b, scratch))


def _unit(bandwidth: float) -> float:
    """Return the scale of the embeddings that makes the kernel's exponent -|x - y|^2."""
    return math.sqrt(1 / (2 * bandwidth**2 + _EPSILON))


def _with_norms(x: Tensor) -> Tensor:
    """Return `x`, 1 and `-|x|^2` side by side, [N, D] -> [N, D + 2], so that `_minus_squares` is one matrix product.

    To add the norms to the product afterwards would take two more passes over all pairs.
    """
    norms = x.square().sum(dim=1, keepdim=True)
    return torch.cat([x, torch.ones_like(norms), -norms], dim=1)


def _minus_squares(a: Tensor, b: Tensor, scratch: Tensor | None = None) -> Tensor:
    """Return minus the squared distances [n, m] of rows [n, D + 2] and [m, D + 2] of `_with_norms`.

    Rounding may leave one a little above 0. With `scratch` the result lies in it, until the next call.
    """
    width = a.shape[1] - 2
    turned = torch.cat([2 * b[:, :width], b[:, width + 1 :], b[:, width : width + 1]], dim=1)
    out = None if scratch is None else scratch[: len(a) * len(b)].view(len(a), len(b))
    return torch.mm(a, turned.T, out=out)


def _cubed(x: Tensor) -> Tensor:
    return x.square().mul_(x)


def _mmd(ours: Tensor, theirs: Tensor, compare: Comparison, known: Mapping[str, float] | None = None) -> float:
    """Return the squared MMD. `known` holds the sums within "evaluated" or "reference" that are computed already."""
    known = known or {}
    sums = {
        side: known[side] if side in known else _sum_within(x, compare)
        for side, x in (("evaluated", ours), ("reference", theirs))
    }
    within = sums["evaluated"] / (len(ours) * (len(ours) - 1)) + sums["reference"] / (len(theirs) * (len(theirs) - 1))
    between = sum(_total(compare(a, b)) for a in ours.split(TILE) for b in theirs.split(TILE))
    return within - 2 * between / (len(ours) * len(theirs))


def _total(x: Tensor) -> float:
    """Return the sum of [n, m]: rows in their own precision, which is fast and exact enough, and their sums in float64."""
    return float(x.sum(dim=1).sum(dtype=torch.float64))


def _sum_within(x: Tensor, compare: Comparison) -> float:
    """Return the sum of the kernel over all ordered pairs of different rows."""
    total, tiles = 0.0, x.split(TILE)
    for i, a in enumerate(tiles):
        total += _total(compare(a, a).fill_diagonal_(0))
        total += 2 * sum(_total(compare(a, b)) for b in tiles[i + 1 :])
    return total


def _squares(x: Tensor) -> Iterator[Tensor]:
    """Yield the squared distances of each pair of different rows once, in blocks [P] that the next one overwrites.

    Infinities stand for the pairs that a block on the diagonal would repeat. Rounding may leave others a little below 0.
    """
    tiles, scratch = _with_norms(x).split(TILE), x.new_empty(TILE * TILE)
    done = torch.ones(TILE, TILE, dtype=torch.bool, device=x.device).tril()
    for i, a in enumerate(tiles):
        yield _minus_squares(a, a, scratch).neg_().masked_fill_(done[: len(a), : len(a)], math.inf).flatten()
        for b in tiles[i + 1 :]:
            yield _minus_squares(a, b, scratch).neg_().flatten()


def _blocks_size(n: int) -> int:
    """Return how many values `_squares` yields for n rows, rounded up to a multiple of 1024."""
    sizes = [min(TILE, n - start) for start in range(0, n, TILE)]
    return -(-sum(size * sum(sizes[i:]) for i, size in enumerate(sizes)) // 1024) * 1024


def _bins(squares: Tensor, scale: float) -> Tensor:
    return (squares * scale).clamp_(0, _BINS - 1).long()
