"""Patterns: where the codes of several codebooks stand in the sequence that a language model reads (MusicGen, arXiv 2306.05284).

A sequence has one place for each codebook at each step. Step 0 is empty: there the model starts. Places that hold no code
hold a special token.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flowtts_core import config as _config
from flowtts_core.errors import ConfigError


class CodebookPattern(abc.ABC):
    """Puts codes [B, Q, T] into sequences [B, Q, S] and takes them out again.

    Attributes:
        codebooks: Q.
    """

    codebooks: int

    @abc.abstractmethod
    def steps_of(self, frames: int) -> Tensor:
        """Return the step [Q, T] at which each code of T frames stands; the first step with a code is 1."""

    def length(self, frames: int) -> int:
        """Return the steps S that so many frames need, with step 0."""
        return int(self.steps_of(frames).max()) + 1 if frames else 1

    def holds_code(self, frames: int) -> Tensor:
        """Return the mask [Q, S] of places that hold a code."""
        steps = self.steps_of(frames)
        held = torch.zeros(self.codebooks, self.length(frames), dtype=torch.bool)
        return held.scatter(1, steps, torch.ones_like(steps, dtype=torch.bool))

    def arrange(self, codes: Tensor, special: int) -> Tensor:
        """Return the sequence [B, Q, S] of codes [B, Q, T], with `special` where no code stands."""
        steps = self.steps_of(codes.shape[2]).to(codes.device).expand(len(codes), -1, -1)
        empty = codes.new_full((len(codes), self.codebooks, self.length(codes.shape[2])), special)
        return empty.scatter(2, steps, codes)

    def restore(self, sequence: Tensor, frames: int) -> Tensor:
        """Return the codes [B, Q, T] of a sequence [B, Q, S], or of features [B, Q, S, K] what stands where codes do."""
        steps = self.steps_of(frames).to(sequence.device)
        index = steps.reshape(1, *steps.shape, *([1] * (sequence.dim() - 3)))
        return sequence.gather(2, index.expand(len(sequence), -1, -1, *sequence.shape[3:]))


@dataclass(frozen=True)
class DelayPattern(CodebookPattern):
    """Codebook q lags `delays[q]` steps behind, so that it can read what the ones before it said of the same frame.

    Equal delays are the parallel pattern.

    Attributes:
        delays: of each codebook, not falling.
        empty: further empty steps at the start.
    """

    delays: tuple[int, ...] = (0, 1, 2, 3)
    empty: int = 0

    def __post_init__(self) -> None:
        if not self.delays or list(self.delays) != sorted(self.delays) or self.delays[0] < 0 or self.empty < 0:
            raise ConfigError(
                f"DelayPattern: delays {list(self.delays)}, empty {self.empty}",
                "give each codebook a delay of 0 or more, none smaller than the one before",
            )

    @property
    def codebooks(self) -> int:  # type: ignore[override]  # follows from the delays
        return len(self.delays)

    def steps_of(self, frames: int) -> Tensor:
        return 1 + self.empty + torch.arange(frames) + torch.tensor(self.delays)[:, None]


@dataclass(frozen=True)
class FlattenedPattern(CodebookPattern):
    """One code a step: all codebooks of a frame in turn. Exact, and Q times as long (AudioLM, arXiv 2209.03143)."""

    codebooks: int = 4

    def __post_init__(self) -> None:
        if self.codebooks < 1:
            raise ConfigError(f"FlattenedPattern.codebooks = {self.codebooks}", "use 1 or more")

    def steps_of(self, frames: int) -> Tensor:
        return 1 + torch.arange(frames) * self.codebooks + torch.arange(self.codebooks)[:, None]


@dataclass(frozen=True)
class ParallelPattern(CodebookPattern):
    """All codes of a frame at one step: shortest; codes of a frame do not see each other."""

    codebooks: int = 4

    def __post_init__(self) -> None:
        if self.codebooks < 1:
            raise ConfigError(f"ParallelPattern.codebooks = {self.codebooks}", "use 1 or more")

    def steps_of(self, frames: int) -> Tensor:
        return (1 + torch.arange(frames)).expand(self.codebooks, -1)


PATTERNS = {
    "delay": (DelayPattern, lambda config: config),
    "flattened": (FlattenedPattern, lambda config: config),
    "parallel": (ParallelPattern, lambda config: config),
}


def build_pattern(spec: Mapping[str, Any]) -> CodebookPattern:
    """Build the pattern of a spec, `{"name": "delay", "delays": [0, 1, 2, 3]}`; see `flowtts_core.config.build`."""
    pattern: CodebookPattern = _config.build(PATTERNS, spec)
    return pattern


def group(codes: Tensor, size: int, filler: int) -> Tensor:
    """Return codes [B, T] of one codebook as groups [B, size, ceil(T / size)] of neighbours, the last one filled up.

    VALL-E 2 reads and predicts a group at each step (arXiv 2406.05370, section 3.2): the sequence is `size` times shorter.
    """
    if size < 1:
        raise ConfigError(f"size = {size}", "use groups of 1 code or more")
    padded = torch.nn.functional.pad(codes, (0, -codes.shape[1] % size), value=filler)
    return padded.unflatten(1, (-1, size)).transpose(1, 2)


def ungroup(groups: Tensor, frames: int) -> Tensor:
    """Return the codes [B, T] of `group`."""
    return groups.transpose(1, 2).flatten(1)[:, :frames]
