"""Write the outputs of an evaluation: the page, and its figures as JSON, CSV and Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.storage import Storage
from flowtts_core.config import to_dict
from flowtts_core.metrics.judges import OVER_TIME, SI_SDR_RATE
from flowtts_core.metrics.requirements import Requirement
from jobs.evaluation.compare import differences_of
from jobs.evaluation.figures import of_clip, runs_of
from jobs.evaluation.report import render
from jobs.evaluation.result import Evaluation, judged_otherwise
from jobs.evaluation.run import CSV, PARQUET, REPORT, SUMMARY


def write_outputs(
    storage: Storage,
    found: Evaluation,
    requirements: Sequence[tuple[Requirement, bool]],
    compared: Sequence[tuple[str, Evaluation, dict[str, dict[str, float]]]],
    machine: dict[str, Any],
) -> dict[str, Any]:
    """Write all four. Return the summary, the contents of `scores.json`."""
    summary = {
        "generated": found.generated,
        "reference": found.reference,
        "clips": found.clips,
        "failed": found.failed,
        "reasons": found.reasons,
        "in_part": found.in_part,
        "scores": {name: score.to_json() for name, score in found.scores.items()},
        "distances": found.distances,
        "unpaired": found.unpaired,
        "panel": to_dict(found.panel),
        "requirements": [
            {"required": str(requirement), "found": found.value(requirement.metric), "met": met}
            for requirement, met in requirements
        ],
        "differences": {
            name: {test.metric: asdict(test) for test in tests}
            for (name, *_), tests in zip(compared, differences_of(runs_of(found, compared), compared), strict=True)
        },
        "not_compared": {
            name: sorted(judged_otherwise(found, other) & found.scores.keys())
            for name, other, _ in compared
            if judged_otherwise(found, other)
        },
        "wall_s": round(found.wall_s, 1),
        "machine": machine,
    }
    rows = [_flat(row, list(found.scores)) for row in found.rows]
    storage.write(SUMMARY, (json.dumps(summary, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "replace"))
    storage.write(CSV, _csv(rows))
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    storage.write(PARQUET, buffer.getvalue())
    versions = {**{k: v for k, v in machine.items() if k != "versions"}, **machine.get("versions", {})}
    storage.write(REPORT, render(found, requirements, compared, versions).encode("utf-8", "replace"))
    return summary


def _flat(row: dict[str, Any], metrics: Sequence[str]) -> dict[str, Any]:
    kept = {name: row[name] for name in ("id", "place", "status", "reason", "text", "heard")}
    rate = {SI_SDR_RATE: of_clip(row, SI_SDR_RATE)} if "si_sdr" in metrics else {}
    seconds = {f"{name}_by_second": row["over_time"].get(name) for name in metrics if name in OVER_TIME}
    return {**kept, **{name: of_clip(row, name) for name in metrics}, **rate, **seconds}


def _csv(rows: Sequence[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    for row in rows:
        writer.writerow({name: json.dumps(value) if isinstance(value, list) else value for name, value in row.items()})
    return text.getvalue().encode("utf-8", "replace")
