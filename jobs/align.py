"""`flowtts align`: when each word and phone of recordings is spoken, as TextGrids, a CTM or JSON."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cluster.storage import Storage, is_remote
from flowtts_core.errors import ConfigError, OutputError, TextError
from jobs.corpus.clips import SourceClip, read_clips
from jobs.request_options import add_lexicon_option, read_lexicon

FORMATS = ("textgrid", "ctm", "json")
QUARANTINE, NOT_READ = "quarantine.jsonl", "not_read.jsonl"
SOME_SET_ASIDE = 3  # exit code
CLIPS_PER_TASK = 32

DESCRIPTION = """\
Find when each word and each phone of recordings is spoken, where their texts are known. A flow voice's text encoder tells
what each phone should sound like; the best order-keeping path through the recording gives the times. The bundled voice
reads English; with --voice, one that you trained on another language reads that.

The output folder gets, for each clip,
  textgrid  ID.TextGrid, for Praat: the tiers words and phones (IPA), silences without a label
  json      ID.json: each word with its characters in the text, its phones, and how well they fit
or for all of them
  ctm       words.ctm and phones.ctm: lines of `file channel start duration token confidence`
Clips that cannot be aligned are listed with their reason in quarantine.jsonl, and words that cannot be read (another
script) in not_read.jsonl: they have no times, and the words beside them may be wrong.

A confidence is 1 where no other phone of the text fits the sound better. It compares words and clips of one corpus."""

EPILOG = """\
examples:
  flowtts align LJSpeech-1.1/ -o aligned/                       a TextGrid for each clip
  flowtts align clips.jsonl -o aligned/ --format ctm
  flowtts align corpus/ -o aligned/ --format json --lexicon names.tsv
  flowtts align thorsten/ -o aligned/ --voice voices/german     a voice that reads the language

exit codes: 0 all clips aligned, 3 some were set aside, 1 failed, 2 wrong usage, 130 interrupted, 143 terminated"""


@dataclass(frozen=True)
class Aligned:
    """What became of a corpus. `confidence` is the mean over clips; `not_read` counts clips with words that have no times."""

    clips: int
    set_aside: int
    not_read: int
    words: int
    hours: float
    confidence: float
    wall_s: float


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "align",
        help="find when each word and phone of recordings is spoken",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("input", help="recordings with their texts, in any form that `flowtts prepare` takes")
    parser.add_argument(
        "-o", "--output", required=True, help="folder or s3:// place to make; the workers must see it too"
    )
    parser.add_argument("--format", choices=FORMATS, default="textgrid", help="what to write (default: textgrid)")
    parser.add_argument("--voice", help="a flow voice that reads the language (default: the bundled one, English)")
    add_lexicon_option(parser)
    parser.add_argument("--max-seconds", type=float, default=60.0, help="set longer clips aside (default: 60)")
    parser.add_argument("--workers", type=int, help="processes (default: the cores of this machine)")
    parser.add_argument("--address", help="a Ray cluster, for example http://head:8265 (default: this machine)")
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that has files already")
    parser.add_argument("--json", action="store_true", help="print a summary as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.workers is not None and args.workers < 1:
        raise ConfigError(f"--workers {args.workers}: must be 1 or more")
    if not 0 < args.max_seconds <= 600:
        raise ConfigError(
            f"--max-seconds {args.max_seconds:g}: use a value up to 600", "cut longer recordings at pauses first"
        )
    from jobs.bar import bar

    with bar(quiet=args.json) as shown:
        task = shown.add_task("aligning clips", total=None)
        result = align(
            args.input,
            args.output,
            args.format,
            voice=args.voice,
            lexicon=read_lexicon(args.lexicon),
            max_seconds=args.max_seconds,
            workers=args.workers,
            address=args.address,
            overwrite=args.overwrite,
            report=lambda done, total: shown.update(task, completed=done, total=total),
        )
    if args.json:
        print(json.dumps(asdict(result)))
    else:
        _tell(result, args.output)
    return SOME_SET_ASIDE if result.set_aside else 0


def _tell(result: Aligned, output: str) -> None:
    said = f"{result.words} words of {result.clips} clips, {result.hours:.2f} h, in {result.wall_s:.0f} s"
    print(f"{output}: {said}; mean confidence {result.confidence:.2f}")
    if result.not_read:
        print(f"{result.not_read} clips have words that cannot be read: {_storage(output).path(NOT_READ)} lists them")
    if result.set_aside:
        print(f"{result.set_aside} clips set aside: {_storage(output).path(QUARANTINE)} says why")


def align(
    source: str | Path,
    output: str | Path,
    form: str = "textgrid",
    *,
    voice: str | None = None,
    lexicon: dict[str, str] | None = None,
    max_seconds: float = 60.0,
    workers: int | None = None,
    address: str | None = None,
    overwrite: bool = False,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Aligned:
    """Align a corpus into a folder; see `DESCRIPTION`.

    Args:
        form: one of `FORMATS`.
        report: called with (clips done, clips in all).

    Raises:
        TextError: when the corpus is not one, or none of its clips can be aligned.
        ConfigError: for a voice without an encoder to align with.
        OutputError: when the folder has files already, cannot be written, or another run is at work there.
    """
    from flowtts_core.engines.phone_alignment import require_aligner

    began = time.perf_counter()
    require_aligner(voice)
    storage, clips = _storage(output), read_clips(Path(source))
    names = _names(clips)
    tasks = [
        {
            "place": at,
            "clips": [asdict(c) for c in clips[at : at + CLIPS_PER_TASK]],
            "names": names[at : at + CLIPS_PER_TASK],
        }
        for at in range(0, len(clips), CLIPS_PER_TASK)
    ]
    with storage.lock():
        storage.require_writable()
        _require_empty(storage, overwrite)
        made, done = [], 0
        report(0, len(clips))
        work = partial(_worker, storage, form, voice, lexicon, max_seconds)
        for result in _run(work, tasks, address, workers):
            made.append(result)
            done += result["clips"] + len(result["set_aside"])
            report(done, len(clips))
        made.sort(key=lambda result: int(result["place"]))
        return _finish(storage, form, made, Path(source).name, began)


def _worker(*arguments: Any) -> Any:
    from jobs.corpus.align_worker import ClipAligner  # here: it loads torch, which the command itself has no use for

    return ClipAligner(*arguments)


def _run(
    work: Callable[[], Any], tasks: list[dict[str, Any]], address: str | None, workers: int | None
) -> Iterator[dict[str, Any]]:
    from cluster.pool import run_tasks
    from cluster.session import default_workers

    return run_tasks(work, tasks, address=address, workers=workers or default_workers())


def _storage(output: str | Path) -> Storage:
    return Storage(str(output) if is_remote(str(output)) else str(Path(output).absolute()))


def _names(clips: list[SourceClip]) -> list[str]:
    """The names of the clips' files: their ids, with folders where these have slashes, each once."""
    from jobs.synthesis.plan import safe_name, unique_name

    taken = {Path(name).stem for name in (QUARANTINE, NOT_READ)}
    return [unique_name("/".join(map(safe_name, clip.id.split("/"))), taken) for clip in clips]


def _require_empty(storage: Storage, overwrite: bool) -> None:
    there = [name for name in storage.list() if not name.startswith(".")]
    if there and not overwrite:
        raise OutputError(
            f"{storage.root}: has files already, {there[0]!r} first", "choose another folder with -o, or --overwrite"
        )


def _finish(storage: Storage, form: str, made: list[dict[str, Any]], source: str, began: float) -> Aligned:
    """Write the lists, and the CTM where that is wanted."""
    aside = [entry for result in made for entry in result["set_aside"]]
    not_read = [entry for result in made for entry in result["not_read"]]
    for name, entries in ((QUARANTINE, aside), (NOT_READ, not_read)):
        lines = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
        storage.write(name, lines.encode("utf-8", "replace"))
    clips = sum(result["clips"] for result in made)
    if not clips:
        raise TextError(
            f"{source}: no clip can be aligned: {aside[0]['id']}: {aside[0]['reason']}",
            f"{storage.path(QUARANTINE)} says why for each",
        )
    if form == "ctm":
        for tier in ("words", "phones"):
            lines = "".join(result["ctm"][tier] for result in made)
            storage.write(f"{tier}.ctm", lines.encode("utf-8", "replace"))
    return Aligned(
        clips=clips,
        set_aside=len(aside),
        not_read=len(not_read),
        words=sum(result["words"] for result in made),
        hours=round(sum(result["seconds"] for result in made) / 3600, 4),
        confidence=round(sum(result["confidence"] for result in made) / clips, 3),
        wall_s=round(time.perf_counter() - began, 2),
    )
