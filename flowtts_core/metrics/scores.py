"""What a metric is, and the mergeable state that turns what was measured of each clip into one figure with its interval."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from flowtts_core.errors import FlowTTSError
from flowtts_core.metrics import bootstrap

Kind = Literal["mean", "ratio", "quantile"]


@dataclass(frozen=True)
class Metric:
    """A figure of a set of clips.

    Attributes:
        kind: "mean" of a value of each clip, "ratio" of two sums over the clips, as of errors to words, or "quantile".
        higher_is_better: None where neither is, as of a duration.
        about: what it says, for people; one line.
        q: of a quantile, as 0.95.
    """

    name: str
    unit: str
    higher_is_better: bool | None
    about: str
    kind: Kind = "mean"
    q: float = 0.5


@dataclass(frozen=True)
class Score:
    """A metric of a set: `value` with its 95 % interval over `n` clips, beside `failed` that could not be measured.

    `value`, `low` and `high` are None where nothing could be.
    """

    metric: str
    unit: str
    higher_is_better: bool | None
    value: float | None
    low: float | None
    high: float | None
    n: int
    failed: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Scores:
    """The state of one metric: what each clip, by its id, measured. Any order and partition of clips gives the same score."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.measured: dict[str, tuple[float, float]] = {}  # numerator, denominator (1 for a mean)
        self.failed: set[str] = set()

    def update(self, id: str, value: float | None, of: float = 1.0) -> None:
        """One clip's value (of a ratio its numerator, with `of` as denominator), or None when it could not be measured.

        Raises:
            FlowTTSError: for an id that was there before.
        """
        self._require_new({id})
        if value is None:
            self.failed.add(id)
        else:
            self.measured[id] = (float(value), float(of))

    def compute(self) -> Score:
        """Return the score; clips that could not be measured are counted beside it."""
        values = [self.measured[id] for id in sorted(self.measured)]
        interval = None
        if values and sum(of for _, of in values) > 0:
            tops, bottoms = zip(*values, strict=True)
            match self.metric.kind:
                case "mean":
                    interval = bootstrap.mean(tops)
                case "ratio":
                    interval = bootstrap.ratio(tops, bottoms)
                case "quantile":
                    interval = bootstrap.quantile(tops, self.metric.q)
        m = self.metric
        value, low, high = (interval.value, interval.low, interval.high) if interval else (None, None, None)
        return Score(m.name, m.unit, m.higher_is_better, value, low, high, len(values), len(self.failed))

    def _require_new(self, ids: set[str]) -> None:
        doubled = sorted(ids & (self.measured.keys() | self.failed))
        if doubled:
            raise FlowTTSError(f"{self.metric.name}: clip {doubled[0]!r} is there twice")


def paired_difference(ours: Scores, theirs: Scores) -> bootstrap.Interval | None:
    """Ours less theirs over the clips that both measured, in pairs, with its interval; None where there are none.

    A quantile has no pairs: of one it is None too. A ratio's denominators must agree, as the words of the same texts do; clips
    where they do not are left out.
    """
    shared = sorted(ours.measured.keys() & theirs.measured.keys())
    if ours.metric.kind == "ratio":
        shared = [id for id in shared if ours.measured[id][1] == theirs.measured[id][1]]
    if not shared or ours.metric.kind == "quantile":
        return None
    mine, yours = ([side.measured[id] for id in shared] for side in (ours, theirs))
    if ours.metric.kind == "mean":
        return bootstrap.mean_difference([a for a, _ in mine], [b for b, _ in yours])
    if not sum(of for _, of in mine):
        return None
    return bootstrap.ratio_difference([a for a, _ in mine], [b for b, _ in yours], [of for _, of in mine])
