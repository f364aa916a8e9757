"""Run an evaluation: judge clips part by part into a folder, resume, sum up, and compare with another run."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cluster.journal import drop_journals
from cluster.session import default_workers
from cluster.storage import Storage
from flowtts_core.config import fingerprint, to_dict
from flowtts_core.errors import ConfigError, OutputError
from flowtts_core.metrics.judges import JUDGES, METRICS, PanelConfig, judges_of
from flowtts_core.metrics.requirements import Requirement, parse_requirement
from flowtts_core.watermark.marking import key_fingerprint
from flowtts_core.watermark.message import encoded
from jobs.evaluation.distances import KINDS, DistanceConfig
from jobs.evaluation.input import Item, find_items, lies_at
from jobs.evaluation.result import JOB, Evaluation, folder_of, summed_up
from jobs.evaluation.worker import PARTS, journal_name, judge_parts, part_is_whole, read_part

SUMMARY = "scores.json"
REPORT, CSV, PARQUET = "report.html", "clips.csv", "clips.parquet"
ROWS_OF_A_PART = 24
MAX_MINUTES = 60.0  # of a clip, by default
EXIT_BELOW, EXIT_FAILED = 4, 3


def chosen_judges(names: Sequence[str]) -> tuple[str, ...]:
    """Return the judges for names of judges, metrics or distances. Raise ConfigError for an unknown name."""
    wanted = {*names, *judges_of(set(names))}
    for name in names:
        distance, _, kind = name.partition(".")
        if distance in KINDS:
            wanted.add("series" if distance == "tkad" else "speaker" if kind == "speaker" else "shape")
        elif name not in JUDGES and name not in METRICS:
            known = dict.fromkeys([*JUDGES, *METRICS, *(f"{distance}.mel" for distance in KINDS)])
            raise ConfigError(f"no judge or metric {name!r}", f"use some of: {', '.join(known)}")
    return tuple(judge for judge in JUDGES if judge in wanted)


def requirement_of(text: str, panel: PanelConfig) -> Requirement:
    """Parse a requirement on a metric or, as "kad.mel<0.01", on a distance. Raise ConfigError for an invalid one."""
    embedders = ["speaker", "mel", *(spec.partition(":")[0] for spec in panel.embedders)]
    found = parse_requirement(text, [*METRICS, *(f"{distance}.{kind}" for distance in KINDS for kind in embedders)])
    needed = chosen_judges([found.metric])
    if not set(needed) & set(panel.judges):
        raise ConfigError(f"{text!r}: nobody is asked for {found.metric}", f"add {needed[0]} to --judges")
    return found


@dataclass(frozen=True)
class EvaluationOptions:
    """Who judges, how distances are computed, and how the job runs; clips of more than `max_minutes` are set aside.

    Attributes:
        watermark_number: that all clips judged should bear; None: what the manifest says of each.
        watermark_key: whose mark is looked for, beside the public one; empty for none.
    """

    panel: PanelConfig = field(default_factory=PanelConfig)
    distance: DistanceConfig = field(default_factory=DistanceConfig)
    limit: int | None = None
    workers: int | None = None
    address: str | None = None
    gpus: float = 0
    overwrite: bool = False
    max_minutes: float = MAX_MINUTES
    watermark_number: int | None = None
    watermark_key: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        if not self.max_minutes > 0:
            raise ConfigError(f"clips of up to {self.max_minutes:g} minutes are none", "give --max-minutes above 0")
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"{self.workers} workers cannot work", "give at least 1, or leave --workers out")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"{self.limit} clips cannot be judged", "give at least 1")
        if self.watermark_number is not None:
            encoded(self.watermark_number)
            if "watermark" not in self.panel.judges:
                raise ConfigError("nobody is asked for the watermark's number", "add watermark to --judges")


def evaluate(
    generated: str, reference: str | None, output: str, options: EvaluationOptions, progress: Callable[[int, int], None]
) -> Evaluation:
    """Judge every clip of `generated` into the folder `output`. Called again with the same arguments, it resumes.

    A clip is compared with the clip of the same id in the reference. Distances compare all clips of both.

    Args:
        progress: called with the number of clips done and in all.

    Raises:
        TextError: when there are no clips.
        ConfigError: for judges that need a reference, without one, or without a clip of the same id in it.
        OutputError: when the folder holds another evaluation, cannot be written, or is in use.
    """
    storage = Storage(output)
    with storage.lock():
        return _evaluate(generated, reference, storage, options, progress)


def _evaluate(
    generated: str,
    reference: str | None,
    storage: Storage,
    options: EvaluationOptions,
    progress: Callable[[int, int], None],
) -> Evaluation:
    began = time.perf_counter()
    _require_judges(options.panel, reference)
    ours, theirs = _items(generated, options.limit), _items(reference, None) if reference else []
    if options.watermark_number is not None:
        ours = [replace(item, mark=options.watermark_number) for item in ours]
    places = {item.id: item.place for item in theirs if not item.error}
    if reference:
        _require_pairs(options.panel, (generated, ours), (reference, theirs))
    sets = {"generated": (generated, [(item, places.get(item.id)) for item in ours])}
    if reference:
        sets["reference"] = (reference, [(item, None) for item in theirs])
    _claim(storage, _identity(sets, options), options.overwrite)
    plan = {which: _parts(items) for which, (_, items) in sets.items()}
    pending = {
        which: {i: part for i, part in parts.items() if not part_is_whole(folder_of(storage, which), i, _ids(part))}
        for which, parts in plan.items()
    }
    total = sum(len(items) for _, items in sets.values())
    done = total - sum(len(part) for parts in pending.values() for part in parts.values())
    progress(done, total)
    if any(pending.values()):
        places = {which: root for which, (root, _) in sets.items()}
        arguments = {
            "places": places,
            "panel": options.panel,
            "output": storage,
            "run": uuid.uuid4().hex,
            "longest_s": 60 * options.max_minutes,
            "mark_key": options.watermark_key,
        }
        workers = options.workers or default_workers()
        for clips in judge_parts(pending, arguments, options.address, workers, options.gpus):
            done += clips
            progress(done, total)
    rows = {
        which: [row for i in parts for row in read_part(folder_of(storage, which), i)] for which, parts in plan.items()
    }
    for which, parts in plan.items():
        drop_journals(folder_of(storage, which), PARTS, {journal_name(i) for i in parts})
    resumed = len(plan["generated"]) - len(pending["generated"])
    return summed_up(generated, reference, rows, options.panel, options.distance, time.perf_counter() - began, resumed)


def _require_judges(panel: PanelConfig, reference: str | None) -> None:
    """Raise ConfigError for a chosen judge that needs a reference when there is none."""
    comparing = _comparing(panel)
    if comparing and reference is None:
        raise ConfigError(f"{', '.join(comparing)}: compare clips with a reference", "give --reference")


def _require_pairs(panel: PanelConfig, ours: tuple[str, list[Item]], theirs: tuple[str, list[Item]]) -> None:
    """Raise ConfigError for chosen judges that compare clip by clip where no id is in both sets."""
    comparing = _comparing(panel)
    ids = [{item.id for item in items if not item.error} for _, items in (ours, theirs)]
    if comparing and not ids[0] & ids[1]:
        shown = " and ".join(f"{root} has {items[0].id!r}" for root, items in (ours, theirs))
        raise ConfigError(
            f"{', '.join(comparing)}: compare clips of the same id, and there are none: {shown}",
            "name the clips of both alike, or leave these judges out of --judges: distances need no pairs",
        )


def _comparing(panel: PanelConfig) -> list[str]:
    return [name for name in panel.judges if "reference" in JUDGES[name].needs]


def _items(root: str, limit: int | None) -> list[Item]:
    return find_items(root)[:limit]


def _ids(part: Sequence[tuple[Item, str | None]]) -> list[str]:
    return [item.id for item, _ in part]


def _parts(items: Sequence[tuple[Item, str | None]]) -> dict[int, list[tuple[Item, str | None]]]:
    items, starts = sorted(items, key=lambda pair: lies_at(pair[0])), range(0, len(items), ROWS_OF_A_PART)
    return {i: list(items[start : start + ROWS_OF_A_PART]) for i, start in enumerate(starts)}


def _identity(sets: dict[str, tuple[str, list[tuple[Item, str | None]]]], options: EvaluationOptions) -> dict[str, Any]:

    def marked(
        item: Item,
    ) -> tuple[int | None, ...]:  # where it is judged, so that evaluations of earlier versions go on
        return (item.mark,) if "watermark" in options.panel.judges else ()

    clips = {
        which: fingerprint([(i.id, i.text, i.place, i.stamp, i.error, place, *marked(i)) for i, place in items])
        for which, (_, items) in sets.items()
    }
    return {
        "places": {which: root for which, (root, _) in sets.items()},
        "clips": clips,
        "counts": {which: len(items) for which, (_, items) in sets.items()},
        "panel": to_dict(options.panel),
        "target": _digest(options.panel.target),
        # left out by default, so that evaluations of earlier versions go on
        **({"max_minutes": options.max_minutes} if options.max_minutes != MAX_MINUTES else {}),
        **({"watermark_key": key_fingerprint(options.watermark_key)} if options.watermark_key else {}),
    }


def _digest(target: str | None) -> str | None:
    """Return the digest of the target speaker's clip, since another clip may have the same name."""
    try:
        return None if target is None else hashlib.sha256(Path(target).read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"the target speaker's clip {target}: {error.strerror or error}", "give another") from error


def _claim(storage: Storage, job: dict[str, Any], overwrite: bool) -> None:
    """Claim the folder for this evaluation, unless it has done so before."""
    held = json.loads(storage.read(JOB)) if storage.exists(JOB) else None
    if held == job:
        return
    judged = any(
        name.endswith(".parquet")
        for which in ("generated", "reference")
        for name in folder_of(storage, which).list(PARTS)
    )
    if held is not None and judged and not overwrite:  # one that failed before its first clip has nothing to keep
        differs = ", ".join(name for name in {**held, **job} if held.get(name) != job.get(name))
        raise OutputError(
            f"{storage.root} holds another evaluation (differs in {differs})",
            "choose another -o, or run with --overwrite",
        )
    if held is None and any(not name.startswith(".") for name in storage.list()):
        raise OutputError(f"{storage.root} is not empty and holds no evaluation", "choose another folder with -o")
    storage.require_writable()
    for name in ("generated", "reference", SUMMARY, REPORT, CSV, PARQUET):  # they are out of date
        storage.delete(name)
    storage.write(JOB, json.dumps(job, indent=1).encode())
