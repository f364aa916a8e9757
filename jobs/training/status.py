"""How far the trainings of an output are, running, ended or dead, read from their run folders alone."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cluster.storage import Storage
from flowtts_core.errors import OutputError
from flowtts_core.training.checkpoints import checkpoint_steps
from jobs.training.outcome import DIVERGED, FAILED, FINISHED, STOPPED, read_outcome
from jobs.training.page import PAGE
from jobs.training.run import PROGRESS, RECORD, runs_of
from jobs.training.starts import read_starts

RUNNING, SILENT = "running", "silent"
SILENT_S = 120.0  # a run in an object store, which has no locks, is taken for dead after so long without a word
_GO_ON = "the same command goes on from here"


@dataclass(frozen=True)
class RunStatus:
    """How far a run is; what is not known is None.

    Attributes:
        run: its folder.
        model: the architecture that is trained.
        state: "running", "finished", "diverged", "failed", "stopped", or "silent" where an object store cannot tell.
        loss: the last one of training that was reported; `validation` and `best` are those of the held-out clips.
        steps_per_second, eta_s: of the last start, and the seconds left at this speed.
        checkpoint: step of the newest one.
        workers: at the last start.
        page: of loss curves and samples.
    """

    run: str
    model: str
    state: str
    why: str
    remedy: str
    step: int
    steps: int
    loss: float | None
    validation: float | None
    best: float | None
    best_step: int | None
    steps_per_second: float | None
    eta_s: float | None
    checkpoint: int | None
    workers: int | None
    starts: int
    updated_s_ago: float | None
    trouble: str
    page: str | None


def statuses(output: str, now: float | None = None) -> list[RunStatus]:
    """Return the runs of an output, those at work or that were so last first; those of a whole recipe's stages too.

    Raises:
        OutputError: where there are none.
    """
    found = [_status(folder, time.time() if now is None else now) for folder in _folders(runs_of(output))]
    if not found:
        raise OutputError(f"{output}: no training there", "give the -o of a `flowtts train`")
    return sorted(found, key=lambda run: (run.state != RUNNING, run.updated_s_ago is None, run.updated_s_ago or 0.0))


def _folders(runs: str, deeper: bool = True) -> Iterator[str]:
    """Yield the run folders in `OUTPUT-training/`, and in those of stages, which are outputs in it themselves."""
    names = [name for name, size in Storage(runs).list().items() if size < 0]
    for folder in (f"{runs}/{name}" for name in names):
        if RECORD in Storage(folder).list():
            yield folder
        elif deeper and folder.endswith("-training"):
            yield from _folders(folder, deeper=False)


def _status(folder: str, now: float) -> RunStatus:
    files = Storage(folder)
    recipe, shown = _json(files, RECORD).get("recipe", {}), _json(files, PROGRESS)
    outcome, starts = read_outcome(files), read_starts(files)
    written = checkpoint_steps(files)
    checkpoint = written[-1] if written else None
    steps, step = int(recipe.get("trainer", {}).get("steps", 0)), int(shown.get("step", checkpoint or 0))
    latest = max([start.time for start in starts[-1:]] + [shown.get("time", 0.0)], default=0.0)
    ago = now - latest if latest else None
    if outcome is not None and files.locked() is not True:
        state, why, remedy = outcome.state, outcome.why, outcome.remedy
        if state == FINISHED and outcome.step < steps:
            why = f"early, after {outcome.since} validations without a lower loss"
    else:
        state, why = _state(files.locked(), ago, (checkpoint or 0) >= steps > 0)
        remedy = _GO_ON if state in (STOPPED, SILENT) else ""
    speed = shown.get("steps_per_second")
    return RunStatus(
        run=folder,
        model=recipe.get("name", ""),
        state=state,
        why=why,
        remedy=remedy,
        step=step,
        steps=steps,
        loss=next((v for k, v in shown.items() if k.endswith("/loss") and not k.startswith("validation/")), None),
        validation=shown.get("validation/loss"),
        best=shown.get("validation/best"),
        best_step=None if shown.get("validation/best_step") is None else int(shown["validation/best_step"]),
        steps_per_second=speed,
        eta_s=(steps - step) / speed if speed and state == RUNNING else None,
        checkpoint=checkpoint,
        workers=starts[-1].workers if starts else None,
        starts=len(starts),
        updated_s_ago=ago,
        trouble=shown.get("trouble", ""),
        page=files.path(PAGE) if PAGE in files.list() else None,
    )


def _json(files: Storage, name: str) -> dict[str, Any]:
    try:
        found = json.loads(files.read(name))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _state(locked: bool | None, ago: float | None, at_end: bool) -> tuple[str, str]:
    """Return the state of a run that has noted no end, and why; `locked` is None where there are no locks."""
    if locked:
        return RUNNING, ""
    if at_end:
        return FINISHED, ""
    if locked is False:
        return STOPPED, "its process is gone: was it killed?"
    if ago is not None and ago < SILENT_S:
        return RUNNING, ""
    return SILENT, "it has noted nothing yet" if ago is None else f"nothing was noted for {ago:.0f} s: was it killed?"


def told(run: RunStatus) -> str:
    """Return the status as text."""
    from jobs.synthesis.report import clock

    share = 100 * run.step / max(1, run.steps)
    lines = [f"{run.run}: {run.state}{f' ({run.why})' if run.why else ''}"]
    lines.append(f"  {run.model}, step {run.step:,} of {run.steps:,} ({share:.1f} %)")
    losses = [f"training {run.loss:.4f}"] if run.loss is not None else []
    if run.validation is not None:
        losses.append(f"validation {run.validation:.4f}")
    if run.best is not None:
        losses.append(f"best {run.best:.4f} at step {run.best_step:,}")
    lines += [f"  loss: {', '.join(losses)}"] if losses else []
    if run.steps_per_second:
        left = "" if run.eta_s is None else f", {clock(run.eta_s)} left"
        workers = "" if run.workers is None else f" by {run.workers} worker{'s' * (run.workers != 1)}"
        lines.append(f"  {run.steps_per_second:.2f} steps/s{workers}{left}")
    at = "none yet" if run.checkpoint is None else f"step {run.checkpoint:,}"
    lines.append(f"  last checkpoint: {at}; starts: {run.starts}")
    lines += [f"  losses and samples: {run.page}"] if run.page else []
    lines += [f"  trouble: {run.trouble}"] if run.trouble and run.state == RUNNING else []
    lines += [f"  {run.remedy}"] if run.remedy else []
    return "\n".join(lines)


def exit_code(runs: list[RunStatus]) -> int:
    """Return the exit code that tells of the run that was at work last: as `flowtts status` has them."""
    return {DIVERGED: 1, FAILED: 1, STOPPED: 5, SILENT: 5}.get(runs[0].state, 0)
