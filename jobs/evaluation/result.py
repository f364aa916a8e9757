"""The result of an evaluation: summed up from judged clips, loaded from a finished folder, and compared with another."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cluster.storage import Storage
from flowtts_core.config import from_dict
from flowtts_core.errors import ConfigError, FlowTTSError
from flowtts_core.metrics.judges import JUDGES, METRICS, SI_SDR_RATE, PanelConfig, judges_of
from flowtts_core.metrics.scores import Score, Scores, paired_difference
from jobs.evaluation.distances import DistanceConfig, add_fad_of_clips, distances
from jobs.evaluation.worker import PARTS, read_part

JOB = "evaluation.json"


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        reasons: why clips could not be judged at all -> how many.
        in_part: judge -> how many clips it could not judge although others could.
        scores: of all clips, by metric.
        distances: to the reference, by name as "kad.mel".
        rows: the judged clips, with the columns of `jobs.evaluation.worker.SCHEMA`.
        panel: who judged.
        unpaired: how many clips have no clip of the same id in the reference; None without a reference.
    """

    generated: str
    reference: str | None
    clips: int
    failed: int
    reasons: dict[str, int]
    scores: dict[str, Score]
    distances: dict[str, dict[str, Any]]
    rows: list[dict[str, Any]] = field(repr=False)
    panel: PanelConfig
    unpaired: int | None = None
    wall_s: float = 0.0
    parts_resumed: int = 0
    in_part: dict[str, int] = field(default_factory=dict)

    def value(self, metric: str) -> float | None:
        """Return the value of a metric or distance; None where it was not measured."""
        if metric in self.distances:
            value: float | None = self.distances[metric]["value"]
            return value
        return self.scores[metric].value if metric in self.scores else None


def summed_up(
    generated: str,
    reference: str | None,
    rows: dict[str, list[dict[str, Any]]],
    panel: PanelConfig,
    distance: DistanceConfig,
    wall_s: float,
    resumed: int,
) -> Evaluation:
    rows = {which: sorted(judged, key=lambda row: str(row["id"])) for which, judged in rows.items()}
    ours, theirs = rows["generated"], rows.get("reference")
    failed = [row for row in ours if row["status"] != "ok"]
    if theirs is not None:
        add_fad_of_clips(ours, theirs)
    return Evaluation(
        generated=generated,
        reference=reference,
        clips=len(ours),
        failed=len(failed),
        reasons=dict(Counter(str(row["reason"]) for row in failed).most_common()),
        scores={name: _told(state.compute(), ours) for name, state in scores_of(ours).items()},
        distances={} if theirs is None else distances(ours, theirs, distance),
        rows=ours,
        panel=panel,
        unpaired=None if theirs is None else sum(row["status"] == "ok" and not row["reference"] for row in ours),
        wall_s=wall_s,
        parts_resumed=resumed,
        in_part={judge: n for judge in panel.judges if (n := sum(_was_asked_by(judge, row) for row in ours))},
    )


def load(folder: str, distance: DistanceConfig | None = None) -> Evaluation:
    """Load a finished evaluation from its folder.

    Raises:
        FlowTTSError: when there is none, or it is not finished.
    """
    storage = Storage(folder)
    try:
        job = json.loads(storage.read(JOB))
        panel = from_dict(PanelConfig, job["panel"])
        parts = {
            w: sorted(n for n in folder_of(storage, w).list(PARTS) if n.endswith(".parquet")) for w in job["places"]
        }
        rows = {
            w: [row for i in range(len(names)) for row in read_part(folder_of(storage, w), i)]
            for w, names in parts.items()
        }
    except (OSError, KeyError, ValueError, ConfigError) as error:
        raise FlowTTSError(f"{folder}: holds no evaluation ({error})", "give the -o of a flowtts evaluate") from error
    for which, count in job.get("counts", {}).items():
        if len(rows[which]) != count:
            raise FlowTTSError(
                f"{folder}: only {len(rows[which])} of {count} clips ({which}) are judged",
                "run its flowtts evaluate again first",
            )
    places = job["places"]
    resumed = len(parts["generated"])
    return summed_up(
        places["generated"], places.get("reference"), rows, panel, distance or DistanceConfig(), 0.0, resumed
    )


def folder_of(storage: Storage, which: str) -> Storage:
    """Return the folder of "generated" or "reference"."""
    return Storage(storage.path(which))


def scores_of(rows: Sequence[dict[str, Any]]) -> dict[str, Scores]:
    """Return the state of each metric that any row has. A row that could not be judged counts as failed in each."""
    names = [name for name in METRICS if any(name in row["values"] for row in rows)]
    states = {name: Scores(METRICS[name]) for name in names}
    for row in rows:
        for name, state in states.items():
            value = row["values"].get(name)
            if value is not None:
                state.update(row["id"], value[0], value[1])
            elif row["status"] != "ok" or _was_asked(name, row):
                state.update(row["id"], None)
    return states


def _was_asked(metric: str, row: dict[str, Any]) -> bool:
    """Return whether the judge of this metric was asked about the row and failed."""
    return any(_was_asked_by(judge, row) for judge in judges_of({metric}))


def _was_asked_by(judge: str, row: dict[str, Any]) -> bool:
    return row["status"] == "ok" and f"; {judge}: " in f"; {row['reason'] or ''}"


def si_sdr_rates(rows: Sequence[dict[str, Any]]) -> list[float]:
    """Return the sample rates in Hz that SI-SDR was computed at, ascending; evaluations that do not tell took 16 kHz."""
    judged = (row["values"] for row in rows if "si_sdr" in row["values"])
    return sorted({values.get(SI_SDR_RATE, (16_000.0, 1.0))[0] for values in judged})


def _told(score: Score, rows: Sequence[dict[str, Any]]) -> Score:
    """Return the score with the sample rate in its unit, where it depends on one."""
    if score.metric != "si_sdr":
        return score
    rates = " and ".join(f"{rate / 1000:g} kHz" for rate in si_sdr_rates(rows))
    return replace(score, unit=f"{score.unit} at {rates}")


def compare(ours: Evaluation, theirs: Evaluation) -> dict[str, dict[str, float]]:
    """Return ours minus theirs by metric, over the clips that both have, with paired intervals.

    Metrics that different models judged are left out: see `judged_otherwise`.
    """
    mine, yours, barred = scores_of(ours.rows), scores_of(theirs.rows), judged_otherwise(ours, theirs)
    differences = {
        name: paired_difference(mine[name], yours[name]) for name in mine if name in yours and name not in barred
    }
    return {name: found.to_json() for name, found in differences.items() if found is not None}


def judged_otherwise(ours: Evaluation, theirs: Evaluation) -> set[str]:
    """Return the metrics for which the runs used different models or sample rates, so that their values are not comparable."""
    behind = {"words": "asr", "opinions": "mos", "speaker": "speaker"}
    differing = [judge for judge, model in behind.items() if getattr(ours.panel, model) != getattr(theirs.panel, model)]
    differing += ["words"] if ours.panel.language != theirs.panel.language else []
    differing += ["speaker"] if ours.panel.target != theirs.panel.target else []  # similarity to another voice
    barred = {metric.name for judge in differing for metric in JUDGES[judge].metrics}
    claps = [[spec for spec in run.panel.embedders if spec.startswith("clap")] for run in (ours, theirs)]
    rates = [si_sdr_rates(run.rows) for run in (ours, theirs)]
    barred |= {"si_sdr"} if all(rates) and rates[0] != rates[1] else set()
    return barred | ({"clap_score"} if claps[0] != claps[1] else set())
