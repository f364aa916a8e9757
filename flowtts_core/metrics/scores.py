"""Metrics, and their state that turns what each clip measured into one score with its interval."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from flowtts_core.errors import FlowTTSError
from flowtts_core.metrics import bootstrap

Kind = Literal["mean", "ratio", "quantile"]


@dataclass(frozen=True)
class Metric:
    """A metric of a set of clips.

    Attributes:
        kind: "mean" of the clips' values, "ratio" of two sums over the clips (as errors by words), or "quantile".
        higher_is_better: None where neither end is better, as for a duration.
        about: what it says, in one line.
        q: the quantile, as 0.95.
    """

    name: str
    unit: str
    higher_is_better: bool | None
    about: str
    kind: Kind = "mean"
    q: float = 0.5


@dataclass(frozen=True)
class Score:
    """A metric's `value` with its 95 % interval over `n` clips; `failed` others could not be measured.

    `value`, `low` and `high` are None where no clip could be measured.
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
    """The state of a metric: what each clip measured, by its id. The order of clips does not change the score."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.measured: dict[str, tuple[float, float]] = {}  # numerator, denominator (1 for a mean)
        self.failed: set[str] = set()

    def update(self, id: str, value: float | None, of: float = 1.0) -> None:
        """Add a clip's value (for a ratio the numerator, with `of` as denominator), or None when it could not be measured.

        Raises:
            FlowTTSError: for an id that was added before.
        """
        self._require_new({id})
        if value is None:
            self.failed.add(id)
        else:
            self.measured[id] = (float(value), float(of))

    def compute(self) -> Score:
        """Return the score. Clips that could not be measured are counted apart."""
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
    """Return ours minus theirs over the clips that both measured, with its paired interval; None without such clips.

    It is None for a quantile too. For a ratio, clips whose denominators differ (as of different texts) are left out.
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
