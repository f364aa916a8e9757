"""`flowtts evaluate`: scores every clip of a folder, and the folder against a reference or another run."""

from __future__ import annotations

import argparse
import json
from typing import Any

EPILOG = """\
GENERATED and --reference are each one of: what `flowtts synthesize` wrote (its manifest tells the texts), a folder in
LJSpeech's form, a folder of audio files (texts in FILE.txt beside them, or LibriSpeech's .trans.txt), or Parquet with a
column of audio. Clips of equal id are compared one to one; all clips of both as distributions.

examples:
  flowtts evaluate audiobook/                                  are the words understood, does it sound clean
  flowtts evaluate speech/ --reference ljspeech/               and how far is it from real speech
  flowtts evaluate speech/ --require 'wer<0.3' --require 'mos_overall>3'    exit code 4 when it is not
  flowtts evaluate new/ -o new-scores --against old-scores     is it better than what was judged before

exit codes: 0 judged, and all requirements met; 3 some clips could not be judged; 4 a requirement is not met."""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "evaluate",
        help="score what was made",
        description="Judge every clip (words, sound, speaker, shape) and write one page, tables and an exit code.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("generated", metavar="GENERATED", help="the clips to judge")
    parser.add_argument("--reference", metavar="REF", help="clips to hold them against")
    parser.add_argument("-o", "--output", metavar="DIR", help="folder of the results (default: GENERATED-evaluation)")
    parser.add_argument(
        "--judges",
        metavar="A,B",
        help="of words, opinions, speaker, shape (these by default; words need texts), and, of clips that should equal "
        "those of the reference, warp (cepstra, pitch), copy (spectra, SI-SDR, STOI), pesq",
    )
    parser.add_argument(
        "--require", action="append", default=[], metavar="'M<X'", help="a bound that must hold; may be given again"
    )
    parser.add_argument(
        "--against", action="append", default=[], metavar="DIR", help="results of another run to compare with, in pairs"
    )
    parser.add_argument("--limit", type=int, help="judge the first so many clips only, by id")
    parser.add_argument("--workers", type=int, help="judging processes (default: one per core)")
    parser.add_argument("--address", help="of a Ray cluster (default: a private one on this machine)")
    parser.add_argument(
        "--overwrite", action="store_true", help="judge anew what another evaluation left in the folder"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.add_argument("--no-progress", action="store_true", help="show no progress bar")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from cluster.storage import Storage
    from flowtts_core.metrics.judges import DEFAULT_JUDGES
    from jobs import evaluation as job
    from jobs.evaluation_output import write_outputs
    from jobs.machine import describe

    requirements = [job.parse_requirement(text) for text in args.require]
    judges = tuple(args.judges.split(",")) if args.judges else DEFAULT_JUDGES
    options = job.Options(judges, args.limit, args.workers, args.address, overwrite=args.overwrite)
    others = [(folder, job.load(folder)) for folder in args.against]
    output = args.output or f"{args.generated.rstrip('/').removesuffix('.parquet')}-evaluation"
    with _Bar(show=not (args.no_progress or args.json)) as progress:
        found = job.evaluate(args.generated, args.reference, output, options, progress)
    held = [(requirement, requirement.met(found.value(requirement.metric))) for requirement in requirements]
    compared = [(folder, other, job.compare(found, other)) for folder, other in others]
    summary = write_outputs(Storage(output), found, held, compared, describe())
    if args.json:
        print(json.dumps(summary, indent=1, ensure_ascii=False))
    else:
        _print(summary, output)
    if not all(met for _, met in held):
        return job.EXIT_BELOW
    return job.EXIT_FAILED if found.failed else 0


def _print(summary: dict[str, Any], output: str) -> None:
    from rich.console import Console
    from rich.table import Table

    from jobs.evaluation_report import shown

    table = Table("metric", "value", "95 % interval", "unit", "clips", "failed")
    for name, score in summary["scores"].items():
        low, high = shown(score["low"]), shown(score["high"])
        table.add_row(
            name, shown(score["value"]), f"{low} to {high}", score["unit"], str(score["n"]), str(score["failed"])
        )
    for name, found in summary["distances"].items():
        counts = f"{found['n']}/{found['n_reference']}"
        table.add_row(name, shown(found["value"]), f"{shown(found['at_infinity'])} at infinity", found["unit"], counts)
    console = Console()
    console.print(table)
    for requirement in summary["requirements"]:
        console.print(f"{requirement['required']}: {'met' if requirement['met'] else 'NOT MET'}", highlight=False)
    if summary["failed"]:
        console.print(f"{summary['failed']} of {summary['clips']} clips could not be judged:", highlight=False)
        for reason, count in summary["reasons"].items():
            console.print(f"  {count} x {reason}", highlight=False, markup=False)
    console.print(f"page: {output}/report.html", highlight=False, markup=False)


class _Bar:
    """A progress bar of clips; called with (done, total)."""

    def __init__(self, show: bool) -> None:
        self._progress: Any = None
        if show:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("judging"), BarColumn(), MofNCompleteColumn(), TextColumn("left"))
            self._progress = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
            self._task = self._progress.add_task("judging", total=None)

    def __enter__(self) -> _Bar:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def __call__(self, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress.update(self._task, completed=done, total=total)
