"""Quantisers: latents of frames to codes and back, one codebook or several, and how they learn.

Sources: van den Oord et al. 2017 (arXiv 1711.00937) for VQ with the straight-through gradient; Zeghidour et al. 2021 (arXiv
2107.03312, section III) for residual VQ and quantiser dropout; Yu et al. 2021 (arXiv 2110.04627, section 3.2) for factorised
codes on the unit sphere; Mentzer et al. 2023 (arXiv 2309.15505) for FSQ. State-dict names are those of EnCodec, and of DAC for
the factorised form.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowtts_core.codec.codebook import Codebook, nearest
from flowtts_core.errors import ConfigError
from flowtts_core.nn.share import Share, mean_of, rows_of


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


class Quantizer(nn.Module, abc.ABC):
    """One codebook: latents [B, D, T] to codes [B, T] and back.

    Attributes:
        size: number of codes.
    """

    size: int

    @abc.abstractmethod
    def forward(
        self,
        x: Tensor,
        weights: Tensor | None = None,
        share: Share | None = None,
        generator: torch.Generator | None = None,
    ) -> Quantized:
        """Quantise [B, D, T] in training; arguments as `Codebook`'s."""

    @abc.abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Return the codes [B, T] of [B, D, T]."""

    @abc.abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """Return the vectors [B, D, T] of codes [B, T]."""


class VectorQuantizer(Quantizer):
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
        self.size = size
        self._codebook = Codebook(size, own, **settings)  # type: ignore[arg-type]  # of several types

    @property
    def use(self) -> Tensor:
        """How often each code [K] was used in training, of late."""
        return self._codebook.cluster_size

    def forward(
        self,
        x: Tensor,
        weights: Tensor | None = None,
        share: Share | None = None,
        generator: torch.Generator | None = None,
    ) -> Quantized:
        """Quantise [B, D, T]; arguments as `Codebook`'s."""
        latents, found, codes = self._codebook(self.project_in(x.transpose(1, 2)), weights, share, generator)
        each = (latents - found.detach()).square().mean((1, 2))  # [B]
        commitment = mean_of(share, (each if weights is None else each * weights).mean())
        values = self.project_out(latents + (found - latents).detach()).transpose(1, 2)
        return Quantized(values, codes[:, None], {"commitment": commitment})

    def encode(self, x: Tensor) -> Tensor:
        return self._codebook.codes_of(self.project_in(x.transpose(1, 2)))

    def decode(self, codes: Tensor) -> Tensor:
        values: Tensor = self.project_out(F.embedding(codes, self._codebook.table))
        return values.transpose(1, 2)


class FactorizedQuantizer(Quantizer):
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
        self,
        x: Tensor,
        weights: Tensor | None = None,
        share: Share | None = None,
        generator: torch.Generator | None = None,
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
        return self._nearest(self._through(self.in_proj, x))

    def decode(self, codes: Tensor) -> Tensor:
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
        name: of the quantisers in the state dict.
    """

    def __init__(self, layers: Sequence[Quantizer], dropout: float = 0.0, name: str = "layers") -> None:
        super().__init__()
        self.add_module(name, nn.ModuleList(layers))
        self.dropout, self.name = dropout, name

    @property
    def stages(self) -> list[Quantizer]:
        """The quantisers of one codebook each."""
        return cast(list[Quantizer], list(self.get_submodule(self.name).children()))

    def forward(self, x: Tensor, share: Share | None = None, generator: torch.Generator | None = None) -> Quantized:
        """Quantise [B, D, T]; losses are means over the codebooks."""
        used = self._used(x, share, generator) if self.training and self.dropout else None  # [B]
        left, values, codes, losses = x, torch.zeros_like(x), [], list[dict[str, Tensor]]()
        for index, layer in enumerate(self.stages):
            weights = None if used is None else (used > index).to(x.dtype)
            made = layer(left, weights, share, generator)
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
        drawn = torch.randint(1, len(self.stages) + 1, (count,), generator=generator)
        return torch.where(fewer, drawn, len(self.stages))[rows].to(x.device)

    def encode(self, x: Tensor, books: int | None = None) -> Tensor:
        """Return the codes [B, Q, T] of [B, D, T] by the first `books` codebooks (None: all)."""
        codes = []
        for layer in self.stages[:books]:
            codes.append(layer.encode(x))
            x = x - layer.decode(codes[-1])
        return torch.stack(codes, 1)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the vectors [B, D, T] of codes [B, Q, T] of the first Q codebooks."""
        return torch.stack([layer.decode(own) for layer, own in zip(self.stages, codes.unbind(1), strict=False)]).sum(0)


class FiniteScalarQuantizer(Quantizer):
    """FSQ: each of a few bounded numbers is rounded to one of its levels; the codebook is all combinations of them.

    Args:
        levels: of each number, 2 or more; their product is the number of codes.
    """

    level: Tensor
    basis: Tensor

    def __init__(self, dim: int, levels: Sequence[int]) -> None:
        super().__init__()
        if not levels or min(levels) < 2:
            raise ConfigError(f"levels = {list(levels)}", "use 2 or more levels of each number")
        self.levels, self.size = tuple(levels), math.prod(levels)
        self.project_in = nn.Linear(dim, len(levels))
        self.project_out = nn.Linear(len(levels), dim)
        self.register_buffer("level", torch.tensor(levels), persistent=False)
        self.register_buffer(
            "basis", torch.tensor([math.prod(levels[:i]) for i in range(len(levels))]), persistent=False
        )

    def bounded(self, x: Tensor) -> Tensor:
        """Return numbers [..., levels] squeezed to where rounding gives `level` whole numbers, around 0."""
        half = (self.level - 1) * (1 + 1e-3) / 2  # a little more, else the offset of 2 levels were out of reach
        offset = torch.where(self.level % 2 == 1, 0.0, 0.5)
        return (x + (offset / half).atanh()).tanh() * half - offset

    def forward(
        self,
        x: Tensor,
        weights: Tensor | None = None,
        share: Share | None = None,
        generator: torch.Generator | None = None,
    ) -> Quantized:
        """Quantise [B, D, T]; arguments as `VectorQuantizer`'s. There is nothing to be lost."""
        numbers = self.bounded(self.project_in(x.transpose(1, 2)))
        rounded = numbers + (numbers.round() - numbers).detach()
        values = self.project_out(rounded / (self.level // 2)).transpose(1, 2)
        return Quantized(values, self._codes(rounded)[:, None], {"commitment": values.new_zeros(())})

    def encode(self, x: Tensor) -> Tensor:
        return self._codes(self.bounded(self.project_in(x.transpose(1, 2))).round())

    def decode(self, codes: Tensor) -> Tensor:
        digits = codes[..., None] // self.basis % self.level - self.level // 2
        values: Tensor = self.project_out((digits / (self.level // 2)).to(self.project_out.weight.dtype))
        return values.transpose(1, 2)

    def _codes(self, rounded: Tensor) -> Tensor:
        digits = rounded.detach().round().long() + self.level // 2
        return (digits * self.basis).sum(-1)
