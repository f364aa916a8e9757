"""An evaluation: clips judged part by part into a folder, resumable, then summed up, compared and held against requirements."""

from __future__ import annotations

import json
import operator
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from cluster.session import default_workers
from cluster.storage import Storage
from flowtts_core.config import fingerprint
from flowtts_core.errors import ConfigError, FlowTTSError, OutputError
from flowtts_core.metrics.fad import extrapolate, fad
from flowtts_core.metrics.judges import DEFAULT_JUDGES, JUDGES, METRICS
from flowtts_core.metrics.kad import kad
from flowtts_core.metrics.scores import Score, Scores, paired_difference
from jobs.evaluation_input import Item, find_items
from jobs.evaluation_worker import PARTS, judge_parts, part_is_whole, read_part

JOB, SUMMARY = "evaluation.json", "scores.json"
ROWS_OF_A_PART = 24
EXIT_BELOW, EXIT_FAILED = 4, 3
_FEWEST = 8  # embeddings on a side, below which a distance of distributions says nothing
DISTANCES = {"kad": "x 100, Gaussian kernel, bandwidth of the reference", "fad": "Frechet distance"}


@dataclass(frozen=True)
class Requirement:
    """`metric < bound` or `metric > bound`, as of `wer<0.3`."""

    metric: str
    below: bool
    bound: float

    def met(self, value: float | None) -> bool:
        compare: Callable[[float, float], bool] = operator.lt if self.below else operator.gt
        return value is not None and compare(value, self.bound)

    def __str__(self) -> str:
        return f"{self.metric} {'<' if self.below else '>'} {self.bound:g}"


def parse_requirement(text: str) -> Requirement:
    """Raises ConfigError for what is no `METRIC<NUMBER` or `METRIC>NUMBER`, or names no metric."""
    found = re.fullmatch(r"\s*([a-z0-9_.]+)\s*(<|>)\s*([-+]?[0-9.]+(?:e[-+]?\d+)?)\s*", text)
    if not found:
        raise ConfigError(f"--require {text!r}: not understood", "write for instance: wer<0.3 or 'secs > 0.8'")
    known = [*METRICS, *(f"{name}.{kind}" for name in DISTANCES for kind in ("mel", "speaker"))]
    if found[1] not in known:
        raise ConfigError(f"--require {text!r}: no metric {found[1]!r}", f"use one of: {', '.join(known)}")
    return Requirement(found[1], found[2] == "<", float(found[3]))


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        scores: by metric, of all clips.
        distances: of distributions to the reference, as "kad.mel".
        rows: judged clips, as `jobs.evaluation_worker.SCHEMA` has them.
    """

    generated: str
    reference: str | None
    clips: int
    failed: int
    reasons: dict[str, int]
    scores: dict[str, Score]
    distances: dict[str, dict[str, Any]]
    rows: list[dict[str, Any]] = field(repr=False)
    wall_s: float = 0.0
    parts_resumed: int = 0

    def value(self, metric: str) -> float | None:
        if metric in self.distances:
            return float(self.distances[metric]["value"])
        return self.scores[metric].value if metric in self.scores else None


@dataclass(frozen=True)
class Options:
    """What is judged and how; `judges` are names of `JUDGES`."""

    judges: tuple[str, ...] = DEFAULT_JUDGES
    limit: int | None = None
    workers: int | None = None
    address: str | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.judges) - JUDGES.keys()):
            raise ConfigError(f"no judge {unknown[0]!r}", f"use some of: {', '.join(JUDGES)}")
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"{self.workers} workers cannot work", "give at least 1, or leave --workers out")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"{self.limit} clips cannot be judged", "give at least 1")


def evaluate(
    generated: str, reference: str | None, output: str, options: Options, progress: Callable[[int, int], None]
) -> Evaluation:
    """Judge every clip of `generated` into the folder `output`; with the same arguments again, go on where it ended.

    A clip of the reference with the same id is what a clip is compared with. All of both are what distributions are of.

    Args:
        progress: called with clips done and in all.

    Raises:
        TextError: when there are no clips.
        OutputError: when the folder holds another evaluation, or cannot be written.
    """
    began = time.perf_counter()
    ours, theirs = _items(generated, options.limit), _items(reference, None) if reference else []
    places = {item.id: item.place for item in theirs if not item.error}
    storage = Storage(output)
    sets = {"generated": (generated, [(item, places.get(item.id)) for item in ours])}
    if reference:
        sets["reference"] = (reference, [(item, None) for item in theirs])
    _claim(storage, _identity(sets, options), options.overwrite)
    plan = {which: _parts(items) for which, (_, items) in sets.items()}
    pending = {
        which: {i: part for i, part in parts.items() if not part_is_whole(_of(storage, which), i, _ids(part))}
        for which, parts in plan.items()
    }
    total = sum(len(items) for _, items in sets.values())
    done = total - sum(len(part) for parts in pending.values() for part in parts.values())
    progress(done, total)
    for which, parts in pending.items():
        if parts:
            done = _judge(sets[which][0], reference, which, parts, storage, options, lambda n: progress(n, total), done)
    rows = {which: [row for i in parts for row in read_part(_of(storage, which), i)] for which, parts in plan.items()}
    resumed = len(plan["generated"]) - len(pending["generated"])
    return _summed(generated, reference, rows, time.perf_counter() - began, resumed)


def scores_of(rows: Sequence[dict[str, Any]]) -> dict[str, Scores]:
    """The state of each metric that any row has; a row that could not be judged counts as failed in each of them."""
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


def compare(ours: Evaluation, theirs: Evaluation) -> dict[str, dict[str, float]]:
    """By metric, ours less theirs over the clips that both have, in pairs with intervals."""
    mine, yours = scores_of(ours.rows), scores_of(theirs.rows)
    differences = {name: paired_difference(mine[name], yours[name]) for name in mine if name in yours}
    return {name: found.to_json() for name, found in differences.items() if found is not None}


def _was_asked(metric: str, row: dict[str, Any]) -> bool:
    """Whether the judge of this metric was asked about the row, and could not answer."""
    judge = next(name for name, judge in JUDGES.items() if any(m.name == metric for m in judge.metrics))
    return f"{judge}: " in (row["reason"] or "")


def _items(root: str, limit: int | None) -> list[Item]:
    return find_items(root)[:limit]


def _ids(part: Sequence[tuple[Item, str | None]]) -> list[str]:
    return [item.id for item, _ in part]


def _of(storage: Storage, which: str) -> Storage:
    return Storage(storage.path(which))


def _parts(items: Sequence[tuple[Item, str | None]]) -> dict[int, list[tuple[Item, str | None]]]:
    starts = range(0, len(items), ROWS_OF_A_PART)
    return {i: list(items[start : start + ROWS_OF_A_PART]) for i, start in enumerate(starts)}


def _identity(sets: dict[str, tuple[str, list[tuple[Item, str | None]]]], options: Options) -> dict[str, Any]:
    clips = {which: fingerprint([(i.id, i.text, i.place, p) for i, p in items]) for which, (_, items) in sets.items()}
    return {
        "places": {which: root for which, (root, _) in sets.items()},
        "clips": clips,
        "judges": list(options.judges),
    }


def _claim(storage: Storage, job: dict[str, Any], overwrite: bool) -> None:
    """Make the folder this evaluation's, or find that it already is."""
    held = json.loads(storage.read(JOB)) if storage.exists(JOB) else None
    if held == job:
        return
    if held is not None and not overwrite:
        raise OutputError(f"{storage.root} holds another evaluation", "choose another -o, or run with --overwrite")
    if held is None and storage.list():
        raise OutputError(f"{storage.root} is not empty and holds no evaluation", "choose another folder with -o")
    storage.require_writable()
    for name in ("generated", "reference"):
        storage.delete(name)
    storage.write(JOB, json.dumps(job, indent=1).encode())


def _judge(
    root: str,
    reference: str | None,
    which: str,
    parts: dict[int, list[tuple[Item, str | None]]],
    storage: Storage,
    options: Options,
    progress: Callable[[int], None],
    done: int,
) -> int:
    judges = options.judges
    if which == "reference":  # its embeddings are what distributions are compared with; its scores set the scale
        judges = tuple(name for name in judges if name != "words")
    arguments = {"generated": root, "reference": reference, "judges": judges, "output": _of(storage, which)}
    for clips in judge_parts(parts, arguments, options.address, options.workers or default_workers()):
        done += clips
        progress(done)
    return done


def _summed(
    generated: str, reference: str | None, rows: dict[str, list[dict[str, Any]]], wall_s: float, resumed: int
) -> Evaluation:
    ours = rows["generated"]
    failed = [row for row in ours if row["status"] != "ok"]
    distances = _distances(ours, rows["reference"]) if "reference" in rows else {}
    return Evaluation(
        generated=generated,
        reference=reference,
        clips=len(ours),
        failed=len(failed),
        reasons=dict(Counter(str(row["reason"]) for row in failed).most_common()),
        scores={name: state.compute() for name, state in scores_of(ours).items()},
        distances=distances,
        rows=ours,
        wall_s=wall_s,
        parts_resumed=resumed,
    )


def _distances(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """KAD and FAD between the embeddings of both sets, each with its value at infinitely many clips."""
    found: dict[str, dict[str, Any]] = {}
    for kind in sorted({kind for row in ours for kind in row["embeddings"]}):
        sides = [_embeddings(rows, kind) for rows in (ours, theirs)]
        if min(len(side) for side in sides) < _FEWEST:
            continue
        for name, distance in (("kad", lambda a, b: 100 * kad(a, b)), ("fad", fad)):
            line = extrapolate(distance, *sides)
            found[f"{name}.{kind}"] = {
                "value": distance(*sides),
                "at_infinity": line.value,
                "r2": line.r2,
                "sizes": line.sizes,
                "measured": line.measured,
                "n": len(sides[0]),
                "n_reference": len(sides[1]),
                "unit": DISTANCES[name],
            }
    return found


def _embeddings(rows: Sequence[dict[str, Any]], kind: str) -> torch.Tensor:
    vectors = [row["embeddings"][kind] for row in sorted(rows, key=lambda row: row["id"]) if kind in row["embeddings"]]
    return torch.from_numpy(np.array(vectors, dtype=np.float64)) if vectors else torch.zeros(0, 1)


def load(folder: str) -> Evaluation:
    """An evaluation that was finished in this folder.

    Raises:
        FlowTTSError: when there is none.
    """
    storage = Storage(folder)
    try:
        job = json.loads(storage.read(JOB))
        parts = {w: sorted(n for n in _of(storage, w).list(PARTS) if n.endswith(".parquet")) for w in job["places"]}
        rows = {
            w: [row for i in range(len(names)) for row in read_part(_of(storage, w), i)] for w, names in parts.items()
        }
    except (FileNotFoundError, KeyError, ValueError) as error:
        raise FlowTTSError(f"{folder}: holds no evaluation ({error})", "give the -o of a flowtts evaluate") from error
    return _summed(job["places"]["generated"], job["places"].get("reference"), rows, 0.0, len(parts["generated"]))
