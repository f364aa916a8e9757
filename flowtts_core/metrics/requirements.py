"""Requirements such as `wer<0.3` on the scores of an evaluation or of an utterance of a synthesis job."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from flowtts_core.errors import ConfigError


@dataclass(frozen=True)
class Requirement:
    """`metric < bound`, or `metric > bound` where `below` is false."""

    metric: str
    below: bool
    bound: float

    def met(self, value: float | None) -> bool:
        """Return whether the value meets the bound. None does not."""
        compare: Callable[[float, float], bool] = operator.lt if self.below else operator.gt
        return value is not None and compare(value, self.bound)

    def __str__(self) -> str:
        return f"{self.metric} {'<' if self.below else '>'} {self.bound:g}"


def parse_requirement(text: str, known: Collection[str]) -> Requirement:
    """Parse `METRIC<NUMBER` or `METRIC>NUMBER`.

    Raises:
        ConfigError: for another form, or an unknown metric.
    """
    found = re.fullmatch(r"\s*([a-z0-9_.]+)\s*(<|>)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)\s*", text)
    if not found:
        raise ConfigError(f"{text!r} is no requirement", "write for instance: 'wer<0.3' or 'secs > 0.8'")
    if found[1] not in known:
        raise ConfigError(f"{text!r}: no metric {found[1]!r}", f"use one of: {', '.join(known)}")
    return Requirement(found[1], found[2] == "<", float(found[3]))


def standing(values: Mapping[str, float], requirements: Sequence[Requirement]) -> tuple[float, ...]:
    """Return a sort key for takes of an utterance: the number of requirements met, then each value, higher being better."""
    met = sum(requirement.met(values.get(requirement.metric)) for requirement in requirements)
    rest = [
        float("-inf") if (value := values.get(r.metric)) is None else -value if r.below else value for r in requirements
    ]
    return (met, *rest)
