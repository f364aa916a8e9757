"""Samplers: which code comes next, from the scores of all and from those that came before.

Each item is drawn by its own generator, so that its codes do not depend on the batch.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flowtts_core import config as _config
from flowtts_core.errors import ConfigError


class Sampler(abc.ABC):
    """Draws the next code of one item."""

    @abc.abstractmethod
    def draw(self, logits: Tensor, history: Sequence[int], generator: torch.Generator) -> int:
        """Return a code.

        Args:
            logits: [K] scores; minus infinity forbids a code.
            history: the codes drawn so far, the latest last.
            generator: on the device of the logits.
        """


def candidates(probabilities: Tensor, top_k: int, top_p: float) -> tuple[Tensor, Tensor]:
    """Return the codes that may be drawn, the likeliest first, and their probabilities, which do not add up to 1.

    Codes are taken while those before them have less than `top_p` together (so that the one that passes it is in), and
    fewer than `top_k` have been taken (0: no limit). The likeliest always is.
    """
    ordered, codes = probabilities.sort(descending=True, stable=True)
    before = ordered.cumsum(0) - ordered
    count = max(1, int((before < top_p).sum()))
    if top_k:
        count = min(count, top_k)
    return codes[:count], ordered[:count]


@dataclass(frozen=True)
class TopSampler(Sampler):
    """Draws among the likeliest codes (top-k: arXiv 1805.04833; top-p, nucleus: 1904.09751).

    Attributes:
        temperature: 0 always takes the likeliest.
        top_k: of so many at most; 0 for no limit.
        top_p: of the fewest that have this probability together; 1 for all.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.temperature < math.inf and self.top_k >= 0 and 0 < self.top_p <= 1):
            raise ConfigError(
                f"{type(self).__name__}: temperature {self.temperature}, top_k {self.top_k}, top_p {self.top_p}",
                "use a temperature and a top_k of 0 or more, and a top_p above 0, up to 1",
            )

    def draw(self, logits: Tensor, history: Sequence[int], generator: torch.Generator) -> int:
        if self.temperature == 0:
            return int(logits.argmax())
        probabilities = (logits.float() / self.temperature).softmax(0)
        codes, weights = candidates(probabilities, self.top_k, self.top_p)
        return int(codes[torch.multinomial(weights, 1, replacement=True, generator=generator)])


@dataclass(frozen=True)
class RepetitionAwareSampler(TopSampler):
    """VALL-E 2's: a code that fills too much of the last ones is drawn anew among all codes (arXiv 2406.05370, algorithm 1).

    Attributes:
        window: of the last so many codes.
        threshold: the share of the window above which a code is drawn anew.
    """

    top_p: float = 0.8
    window: int = 10
    threshold: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window < 1 or not 0 <= self.threshold <= 1:
            raise ConfigError(
                f"{type(self).__name__}: window {self.window}, threshold {self.threshold}",
                "use a window of 1 or more, and a threshold from 0 to 1",
            )

    def draw(self, logits: Tensor, history: Sequence[int], generator: torch.Generator) -> int:
        code = super().draw(logits, history, generator)
        if not self._repeated(history[-self.window :].count(code)):
            return code
        return self._anew(logits, code, generator)

    def _repeated(self, count: int) -> bool:
        return count > self.window * self.threshold

    def _anew(self, logits: Tensor, code: int, generator: torch.Generator) -> int:
        return int(torch.multinomial(logits.float().softmax(0), 1, replacement=True, generator=generator))


@dataclass(frozen=True)
class CosyVoiceSampler(RepetitionAwareSampler):
    """CosyVoice's form of it (`ras_sampling`): the repeated code itself is out when one is drawn anew, and one may be enough."""

    top_k: int = 25

    def _repeated(self, count: int) -> bool:
        return count >= self.window * self.threshold

    def _anew(self, logits: Tensor, code: int, generator: torch.Generator) -> int:
        if int(logits.isfinite().sum()) > 1:  # the only code that is allowed may repeat
            logits = logits.index_fill(0, torch.tensor([code], device=logits.device), -math.inf)
        return super()._anew(logits, code, generator)


@dataclass(frozen=True)
class PenaltySampler(TopSampler):
    """Takes `strength` times how often a code came in the window from its score, before drawing.

    Attributes:
        strength: 0 changes nothing; infinite forbids every code of the window.
        window: of the last so many codes; 0 for all.
    """

    strength: float = 1.0
    window: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.strength >= 0 or self.window < 0:
            raise ConfigError(
                f"PenaltySampler: strength {self.strength}, window {self.window}", "use values of 0 or more"
            )

    def draw(self, logits: Tensor, history: Sequence[int], generator: torch.Generator) -> int:
        recent = torch.tensor(history[-self.window :], dtype=torch.int64, device=logits.device)
        counts = torch.bincount(recent, minlength=len(logits))[: len(logits)]
        punished = torch.where(counts > 0, logits - self.strength * counts, logits)
        # where all codes came before and none may come again, the scores alone decide
        return super().draw(punished if punished.isfinite().any() else logits, history, generator)


SAMPLERS = {
    "top": (TopSampler, lambda config: config),
    "repetition_aware": (RepetitionAwareSampler, lambda config: config),
    "cosyvoice": (CosyVoiceSampler, lambda config: config),
    "penalty": (PenaltySampler, lambda config: config),
}


def build_sampler(spec: Mapping[str, Any]) -> Sampler:
    """Build the sampler of a spec, `{"name": "top", "top_k": 250}`; see `flowtts_core.config.build`."""
    sampler: Sampler = _config.build(SAMPLERS, spec)
    return sampler
