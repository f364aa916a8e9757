"""`flowtts watermark`: put a mark that nobody hears into recordings, and find marks in sound."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowtts_core.errors import AudioError, ConfigError, DependencyError, FlowTTSError, OutputError
from jobs.corpus.source import AUDIO_SUFFIXES

if TYPE_CHECKING:
    import numpy as np

    from flowtts_core.watermark.marker import Marker, MarkStream

NOT_FOUND, SOME_FAILED = 4, 3  # exit codes
LONGEST_S = 24 * 3600.0


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "watermark",
        help="mark sound as synthetic, and find marks",
        description="Put a watermark into recordings, and look for it. A mark is a change of up to two decibels that"
        " nobody hears and a detector finds, also after MP3, Opus, resampling or cuts; it carries a number from 0 to 2047. It is"
        " no proof: who wants to can remove it (docs/watermark.md says how far it holds), and where none is found, sound may"
        " be synthetic all the same.",
    )
    kinds = parser.add_subparsers(title="what to do", metavar="embed|detect", required=True)
    embed = kinds.add_parser(
        "embed",
        help="mark recordings",
        description="Write marked copies of recordings, each channel marked. Sample rate and length stay; samples have 16 bits,"
        " and tags, pictures and content credentials are not copied: sign the copies. Copies are .wav .flac .mp3 .ogg or"
        " .opus; M4A and M4B can be read too.",
        epilog="exit codes: 0 all were marked, 3 some could not be read, 1 none could, 2 wrong usage\n\n"
        "examples:\n  flowtts watermark embed speech.wav -o marked.wav --number 7\n"
        "  flowtts watermark embed recordings/ -o marked/ --key key",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    embed.add_argument("inputs", nargs="+", type=Path, metavar="FILE", help="recordings, or folders of them")
    embed.add_argument("-o", "--output", type=Path, required=True, help="a file for one input, else a folder")
    embed.add_argument("--number", type=int, default=0, help="the message, from 0 to 2047 (default: 0)")
    embed.set_defaults(run=run, verb=_embed)
    detect = kinds.add_parser(
        "detect",
        help="look for marks",
        description="Tell for each recording whether it is marked, where, and with which number; with -o as a job, into"
        " Parquet files with a row for each sound. An interrupted job goes on where it was.",
        epilog="exit codes: 0 a mark in each, 4 not in each, 3 some could not be read, 1 none could, 2 wrong usage;\n"
        "with -o: 0 all were looked at, marked or not, 3 some could not be read, 1 failed, 2 wrong usage\n\n"
        "examples:\n  flowtts watermark detect book.m4b --every 60\n"
        "  flowtts watermark detect library/ more.parquet s3://bucket/speech -o findings/",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    detect.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="recordings, or folders of them; with -o also globs, s3:// places, Parquet with audio, tars",
    )
    detect.add_argument(
        "--every",
        type=float,
        metavar="SECONDS",
        help="tell also of each piece of so many seconds (1 to 300), as 60: a line for each, with --json a list `pieces`",
    )
    job = detect.add_argument_group("as a job")
    job.add_argument("-o", "--output", metavar="FINDINGS", help="a folder or s3:// place for Parquet files of findings")
    job.add_argument("--sounds-per-file", type=int, metavar="N", help="bound of each Parquet file (default: 256)")
    job.add_argument("--workers", type=int, metavar="N", help="processes (default: the cores of this machine)")
    job.add_argument("--address", help="a Ray cluster (default: this machine)")
    job.add_argument(
        "--overwrite", action="store_true", help="replace findings that stand there of other sounds or keys"
    )
    detect.set_defaults(run=run, verb=_detect)
    secret = "a file of secret bytes, without which the mark cannot be found"
    for kind, about_key in (
        (embed, f"{secret} (default: FLOWTTS_WATERMARK_KEY, or none)"),
        (detect, f"{secret}; public marks are looked for too (default: FLOWTTS_WATERMARK_KEY, or none)"),
    ):
        kind.add_argument(
            "--key",
            type=Path,
            metavar="FILE",
            help=about_key,
        )
        kind.add_argument(
            "--mark", type=Path, metavar="FOLDER", help="another watermark (default: the one of the installation)"
        )
        kind.add_argument("--json", action="store_true", help="print JSON, a line for each file")


def run(args: argparse.Namespace) -> int:
    code: int = args.verb(args)
    return code


def _embed(args: argparse.Namespace) -> int:
    import numpy as np

    from flowtts_core.audio.files import require_known
    from flowtts_core.watermark.card import bundled_mark
    from flowtts_core.watermark.marker import Marker
    from flowtts_core.watermark.message import encoded

    message = np.array(encoded(args.number))
    marker = Marker.open(args.mark or bundled_mark(), _key(args.key))
    files = _files(args.inputs)
    places = _places(files, args.inputs, args.output)
    inputs = {file.resolve() for file in files}
    for file, place in zip(files, places, strict=True):
        try:
            require_known(place.suffix)
        except AudioError as error:
            if place == args.output:
                raise ConfigError(f"-o {place}: {error.message}", error.remedy) from error
            raise ConfigError(f"{file}: {error.message}", f"{error.remedy}, or leave it out") from error
        if place.resolve() in inputs:
            raise ConfigError(f"{place} would be written over", "give another -o")
    failed = 0
    for file, place in zip(files, places, strict=True):
        try:
            with _minutes(file, args.json) as report:
                before, found = _embedded(marker, file, place, message, report)
        except AudioError as error:
            failed += 1
            print(error, file=sys.stderr)
            continue
        except OSError as error:
            where = f" ({error.filename})" if Path(error.filename or place) in place.parents else ""
            raise OutputError(f"cannot write {place}: {error.strerror or error}{where}", "choose another -o") from error
        if _is_signed(file):
            print(f"{file}: its content credentials are not copied: sign the marked copy", file=sys.stderr)
        if before:
            print(f"{file}: is marked already; its own message may not be read any more", file=sys.stderr)
        row = {
            "file": str(file),
            "output": str(place),
            "number": args.number,
            "found_again": found,
            "marked_before": before,
        }
        print(
            json.dumps(row, ensure_ascii=False)
            if args.json
            else f"{place}: marked{'' if found else ', but the mark is not found again: too short or too quiet'}",
            flush=True,
        )
    return _code(failed, len(files), 0)


def _is_signed(file: Path) -> bool:
    """Return whether a file is known to have content credentials, which nothing here can read without the package for them."""
    from flowtts_core.credentials import read_file

    try:
        return read_file(file).status != "none"
    except (AudioError, DependencyError):  # a format that has none, or nobody to ask
        return False


def _embedded(
    marker: Marker, file: Path, place: Path, message: np.ndarray, report: Callable[[float], None]
) -> tuple[bool, bool]:
    """Write a marked copy, piece by piece; return whether a mark was found before, and whether it is found in the copy."""
    import numpy as np

    from flowtts_core.audio.pieces import audio_pieces, audio_writer
    from flowtts_core.watermark.finding import PIECE_S, detected_in

    before, found, done = False, False, 0.0
    with ExitStack() as opened:
        streams: list[MarkStream] = []
        for piece, rate in audio_pieces(file, PIECE_S, longest_s=LONGEST_S):
            if not streams:
                streams = [marker.stream(rate, message) for _ in range(piece.shape[1])]
                write = opened.enter_context(audio_writer(place, rate, len(streams)))
            marked = np.stack([stream.feed(piece[:, channel]) for channel, stream in enumerate(streams)], axis=1)
            write(marked)
            before = before or detected_in(marker, piece, rate).found > 0
            found = found or detected_in(marker, marked, rate).found > 0
            done += len(piece) / rate
            report(done)
        write(np.stack([stream.finish() for stream in streams], axis=1))
    return before, found


def _detect(args: argparse.Namespace) -> int:
    if args.output is not None:
        if args.every is not None:
            raise ConfigError("--every is not for a job: findings have spans", "leave out --every, or -o FINDINGS")
        return _find_marks(args)
    if args.overwrite or any(value is not None for value in (args.sounds_per_file, args.workers, args.address)):
        raise ConfigError(
            "--sounds-per-file, --workers, --address and --overwrite are for a job", "give -o FINDINGS too"
        )
    from flowtts_core.watermark.card import bundled_mark
    from flowtts_core.watermark.finding import Finder

    key = _key(args.key)
    finder = Finder(args.mark or bundled_mark(), key)
    files = _files([Path(given) for given in args.inputs])
    failed = absent = 0
    for file in files:
        try:
            with _minutes(file, args.json) as report:
                row = finder.told_of(file, longest_s=LONGEST_S, every_s=args.every, report=report)
        except AudioError as error:
            failed += 1
            print(error, file=sys.stderr)
            continue
        absent += not row["marked"]
        print(
            json.dumps({"file": str(file), **row}, ensure_ascii=False)
            if args.json
            else "\n".join(
                [
                    f"{file}: {_said(row, bool(key))}",
                    *(f"  {_when(one)}: {_said(one, bool(key))}" for one in row.get("pieces", ())),
                ]
            ),
            flush=True,
        )
    return _code(failed, len(files), NOT_FOUND if absent else 0)


@contextmanager
def _minutes(file: Path, quiet: bool) -> Iterator[Callable[[float], None]]:
    """Give what tells, of a file that is longer than one piece, how many of its minutes are done."""
    from flowtts_core.watermark.finding import PIECE_S
    from jobs.bar import bar

    with ExitStack() as opened:
        shown: list[Callable[[float], None]] = []

        def report(seconds: float) -> None:
            if not shown and seconds < PIECE_S:
                return  # it is at its end already
            if not shown:
                progress = opened.enter_context(bar(quiet=quiet))
                task = progress.add_task(f"{file.name}, minutes", total=None)
                shown.append(lambda seconds: progress.update(task, completed=round(seconds / 60)))
            shown[0](seconds)

        yield report


def _find_marks(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from jobs.bar import bar
    from jobs.watermarks.findings import find_marks

    if any(value is not None and value < 1 for value in (args.workers, args.sounds_per_file)):
        raise ConfigError("--workers and --sounds-per-file must be 1 or more")
    key = _key(args.key)
    with bar(quiet=args.json) as shown:
        task = shown.add_task("looking for marks", total=None)
        found = find_marks(
            args.inputs,
            args.output,
            args.mark,
            key,
            workers=args.workers,
            address=args.address,
            sounds_per_file=args.sounds_per_file or 256,
            overwrite=args.overwrite,
            report=lambda done, total: shown.update(task, completed=done, total=total),
        )
    why = ": the column error says why" if found.unreadable else ""
    public = found.marked - found.own_key
    marked = f"{found.own_key} marked by the key, {public} by the public pattern" if key else f"{found.marked} marked"
    print(
        json.dumps(asdict(found))
        if args.json
        else f"{found.output}: {found.sounds} sounds, {found.hours:.2f} h: {marked}, {found.unmarked} unmarked,"
        f" {found.unreadable} unreadable{why}; in {found.wall_s:.0f} s"
    )
    return SOME_FAILED if found.unreadable else 0


def _said(row: dict[str, Any], keyed: bool) -> str:
    """Return a row in words; where a key was given, they tell by which of the two the sound is marked."""
    if not row["marked"]:
        none = "no mark, neither by the key nor by the public pattern" if keyed else "no mark"
        return none + ("" if row["score"] is not None else " (less than half a second of sound, or silence)")
    number = "its number cannot be read" if row["number"] is None else f"number {row['number']}"
    whose = ("by the key " if row["own_key"] else "by the public pattern ") if keyed else ""
    return f"marked {whose}(found in {row['share']:.0%} of the sound), {number}"


def _when(piece: dict[str, Any]) -> str:
    return " to ".join(str(timedelta(seconds=round(piece[end]))) for end in ("begin_s", "end_s"))


def _key(path: Path | None) -> bytes:
    from flowtts_core.watermark.marking import read_key

    return read_key(path)


def _files(inputs: Sequence[Path]) -> list[Path]:
    """Return the files of folders among the inputs, and the others as they are.

    Raises:
        FlowTTSError: for a folder without recordings.
    """
    files: list[Path] = []
    for place in inputs:
        if not place.is_dir():
            files.append(place)
            continue
        found = sorted(path for path in place.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file())
        if not found:
            raise FlowTTSError(f"{place}: no recordings", f"give files, or a folder of {' '.join(AUDIO_SUFFIXES)}")
        files += found
    return files


def _places(files: Sequence[Path], inputs: Sequence[Path], output: Path) -> list[Path]:
    """Return where each marked copy goes."""
    if len(files) == 1 and output.suffix and not output.is_dir():
        return [output]
    if output.suffix.lower() in AUDIO_SUFFIXES and not output.is_dir():
        raise ConfigError(f"-o {output}: {len(files)} recordings do not go into one file", "give a folder as -o")
    roots = [place for place in inputs if place.is_dir()]
    places = []
    for file in files:
        root = next((root for root in roots if file.is_relative_to(root)), file.parent)
        places.append(output / file.relative_to(root))
    twice = next((place for place in places if places.count(place) > 1), None)
    if twice is not None:
        raise ConfigError(f"two inputs would be written to {twice}", "mark them one folder at a time")
    return places


def _code(failed: int, total: int, otherwise: int) -> int:
    if failed:
        return 1 if failed == total else SOME_FAILED
    return otherwise
