"""`flowtts status`: tells from a job's output how far it is and whether it still runs."""

from __future__ import annotations

import argparse
import json
import socket
import time
from dataclasses import asdict, dataclass
from typing import Any

SILENT_S = 120.0  # a job that has noted nothing for so long, and is not done, is taken for dead
_GONE = "run the same command again, with --overwrite if it asks for that"
_NO_JOB = "give the -o of a `flowtts synthesize` or `flowtts corpus`; of a training: flowtts train -o OUTPUT --status"


_GO_ON = "the same command goes on from here"


@dataclass(frozen=True)
class Status:
    """How far a job is. `rate` is seconds of audio a second, `eta_s` the seconds left at this rate; None where unknown.

    `state` is "finished", "running", "stopped" or "silent". An object store has no locks: a job there that has written nothing
    for long is "silent"; it was killed, or has a very long shard. Until the job is finished `audio_s` and `failed` are those
    of this run. `worker_hours` are those of this run; `cost` is `worker_hours` at the given price.
    """

    output: str
    state: str
    title: str
    voice: str
    rows: int
    rows_done: int
    failed: int | None
    shards: int
    shards_done: int
    audio_s: float
    rate: float | None
    eta_s: float | None
    updated_s_ago: float | None
    worker_hours: float | None
    cost: float | None
    trouble: tuple[str, ...]
    why: str = ""
    resumed: bool = False
    remedy: str = ""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "status",
        help="how far a job is",
        description="Show progress, rate, time left, cost and failures of a synthesis job, running or dead, from its output.",
        epilog="examples:\n  flowtts status audiobook/\n  flowtts status s3://speech/corpus --price 0.80 --watch 10\n\n"
        "exit codes: 0 finished or running; 1 no job there; 3 finished, but some rows were set aside; 5 stopped or silent.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("output", help="the job's output folder or s3:// prefix")
    parser.add_argument("--price", type=float, metavar="P", help="of one worker for an hour, in your currency")
    parser.add_argument("--watch", type=float, metavar="S", help="show it again every S seconds, until the job ends")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    while True:
        found = status(args.output, args.price)
        print(json.dumps(asdict(found), ensure_ascii=False) if args.json else told(found), flush=True)
        if args.watch is None or found.state != "running":
            break
        time.sleep(max(0.5, args.watch))
    if found.state in ("stopped", "silent"):
        return 5
    return 3 if found.state == "finished" and found.failed else 0


def status(output: str, price: float | None = None, now: float | None = None) -> Status:
    """Read how far a job is.

    Raises:
        OutputError: where there is no job.
    """
    from cluster import plan as plans
    from cluster.storage import Storage
    from flowtts_core.errors import OutputError
    from jobs.synthesis.folder import JOB, SUMMARY, older_remedy
    from jobs.synthesis.manifest import shard_indexes
    from jobs.synthesis.progress import RECORD

    storage = Storage(output)
    plan, job = plans.load(storage), _json(storage, JOB)
    record, summary = _json(storage, RECORD), _json(storage, SUMMARY)
    if plan is None or not job:
        if storage.list(plans.PLANS) and not record:
            raise OutputError(f"{output}: the job there has not planned its work yet", "look again in a minute")
        if record:
            raise OutputError(f"{output}: {plans.PLAN if plan is None else JOB} is gone or cannot be read", _GONE)
        raise OutputError(f"{output}: no job of ours", _NO_JOB)
    there = set(shard_indexes(storage))
    done = [shard for shard in plan.shards if shard.index in there]
    rows = sum(shard.rows for shard in done)
    ago = (now or time.time()) - record["updated"] if record else None
    locked = storage.locked()
    if locked is False and record.get("host") not in (None, socket.gethostname()):
        locked = None  # not every file system shows the locks of other machines
    state, why = _state(record, bool(summary), ago, locked, len(plan.shards) - len(done))
    pace = _pace(record, plan, sum(shard.characters for shard in done))
    hours = record["workers"] * (record["updated"] - record["started"]) / 3600 if record else None
    return Status(
        output=output,
        state=state,
        title=job.get("title", ""),
        voice=job.get("voice", ""),
        rows=plan.units,
        rows_done=rows,
        failed=summary.get("failed") if summary else record.get("failed") if record else None,
        shards=len(plan.shards),
        shards_done=len(done),
        audio_s=summary.get("seconds", 0.0) if summary else record.get("seconds", 0.0) if record else 0.0,
        rate=pace[0],
        eta_s=0.0 if state == "finished" else pace[1],
        updated_s_ago=ago,
        worker_hours=hours,
        cost=None if price is None or hours is None else round(price * hours, 4),
        trouble=tuple(record.get("trouble", ())) if record else (),
        why=why,
        resumed=not summary and bool(record.get("rows_before")),
        remedy=(older_remedy(job) or _GO_ON) if state in ("stopped", "silent") else "",
    )


def _json(storage: Any, name: str) -> dict[str, Any]:
    try:
        found = json.loads(storage.read(name))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _state(record: dict[str, Any], summary: bool, ago: float | None, locked: bool | None, left: int) -> tuple[str, str]:
    """Return the state and why. `locked` tells whether a run holds the lock, None where unknown; `left` counts missing shards."""
    if summary and not locked and record.get("state", "finished") == "finished":
        return (
            ("stopped", f"it was finished, but {left} shards are gone: flowtts verify --repair")
            if left
            else ("finished", "")
        )
    if locked:
        return "running", f"nothing was finished for {ago:.0f} s" if ago and ago >= SILENT_S else ""
    noted = str(record.get("state", ""))
    if noted.startswith("stopped"):
        return "stopped", noted.partition(": ")[2]
    if locked is False:
        return "stopped", "its process is gone: was it killed?"
    if ago is None:
        return "silent", "it has noted nothing"
    return ("running", "") if ago < SILENT_S else ("silent", f"nothing was noted for {ago:.0f} s: was it killed?")


def _pace(record: dict[str, Any], plan: Any, characters_done: int) -> tuple[float | None, float | None]:
    """Return the seconds of audio a second in this run, and the seconds left."""
    spent = record["updated"] - record["started"] if record else 0.0
    new = record["characters_done"] - record["characters_before"] if record else 0
    if spent <= 0 or new <= 0:
        return None, None
    left = sum(shard.characters for shard in plan.shards) - characters_done
    return record["seconds"] / spent, left * spent / new


def told(found: Status) -> str:
    """Return the status as text."""
    from jobs.synthesis.report import clock

    share = 100 * found.rows_done / max(1, found.rows)
    lines = [f"{found.title or found.output}: {found.state}{f' ({found.why})' if found.why else ''}"]
    lines.append(
        f"  {found.rows_done:,} of {found.rows:,} rows ({share:.1f} %), {found.shards_done} of {found.shards} shards"
    )
    failed = "" if found.failed is None else f", {found.failed} set aside"
    failed += " in this run" if found.resumed else ""
    lines.append(f"  {clock(found.audio_s)} of audio by voice {found.voice}{failed}")
    if found.rate is not None:
        left = "" if found.state == "finished" else f", {clock(found.eta_s or 0)} left"
        lines.append(f"  {found.rate:.1f} times real time{left}")
    if found.worker_hours is not None:
        cost = "" if found.cost is None else f", {found.cost:.2f} at that price"
        lines.append(f"  {found.worker_hours:.2f} worker hours in this run{cost}")
    lines += [f"  trouble: {what}" for what in found.trouble]
    if found.remedy:
        lines.append(f"  {found.remedy}")
    return "\n".join(lines)
