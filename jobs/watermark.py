"""`flowtts watermark`: put a mark that nobody hears into recordings, and find marks in sound."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flowtts_core.errors import AudioError, ConfigError, FlowTTSError, OutputError
from jobs.corpus.source import AUDIO_SUFFIXES

NOT_FOUND, SOME_FAILED = 4, 3  # exit codes
_LONGEST_S = 24 * 3600.0
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
        description="Write marked copies of recordings, of one channel.",
        epilog="example:\n  flowtts watermark embed speech.wav -o marked.wav --number 7",
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
        "examples:\n  flowtts watermark detect book.m4b\n"
        "  flowtts watermark detect library/ more.parquet s3://bucket/speech -o findings/",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    detect.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="recordings, or folders of them; with -o also globs, s3:// places, Parquet with audio, tars",
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
    for kind in (embed, detect):
        kind.add_argument(
            "--key",
            type=Path,
            metavar="FILE",
            help="a file of secret bytes, without which the mark cannot be found (default: FLOWTTS_WATERMARK_KEY, or none)",
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

    from flowtts_core.audio.files import read_audio, require_known, write_audio
    from flowtts_core.watermark.card import bundled_mark
    from flowtts_core.watermark.marker import Marker
    from flowtts_core.watermark.message import encoded

    marker = Marker.open(args.mark or bundled_mark(), _key(args.key))
    message = np.array(encoded(args.number))
    files = _files(args.inputs)
    places = _places(files, args.inputs, args.output)
    for place in places:
        require_known(place.suffix)
    failed = 0
    for file, place in zip(files, places, strict=True):
        if place.resolve() == file.resolve():
            raise ConfigError(f"{file} would be written over", "give another -o")
        try:
            sound, rate = read_audio(file, longest_s=LONGEST_S)
            before = marker.detected(sound, rate)
            marked = marker.marked(sound, rate, message)
        except AudioError as error:
            failed += 1
            print(error, file=sys.stderr)
            continue
        try:
            write_audio(place, marked, rate)
        except OSError as error:
            raise OutputError(f"cannot write {place}: {error.strerror or error}", "choose another -o") from error
        if before.score > marker.threshold:
            print(f"{file}: is marked already; its own message may not be read any more", file=sys.stderr)
        found = marker.detected(marked, rate).score > marker.threshold
        row = {"file": str(file), "output": str(place), "number": args.number, "found_again": found}
        print(
            json.dumps(row)
            if args.json
            else f"{place}: marked{'' if found else ', but the mark is not found again: too short or too quiet'}"
        )
    return _code(failed, len(files), 0)


def _detect(args: argparse.Namespace) -> int:
    if args.output is not None:
        return _find_marks(args)
    if args.overwrite or any(value is not None for value in (args.sounds_per_file, args.workers, args.address)):
        raise ConfigError(
            "--sounds-per-file, --workers, --address and --overwrite are for a job", "give -o FINDINGS too"
        )
    from flowtts_core.audio.files import read_audio
    from flowtts_core.watermark.card import bundled_mark
    from flowtts_core.watermark.finding import told
    from flowtts_core.watermark.marker import Marker

    marker = Marker.open(args.mark or bundled_mark(), _key(args.key))
    files = _files([Path(given) for given in args.inputs])
    failed = absent = 0
    for file in files:
        try:
            sound, rate = read_audio(file, longest_s=LONGEST_S)
        except AudioError as error:
            failed += 1
            print(error, file=sys.stderr)
            continue
        row = told(marker, sound, rate)
        absent += not row["marked"]
        print(json.dumps({"file": str(file), **row}) if args.json else f"{file}: {_said(row)}")
    return _code(failed, len(files), NOT_FOUND if absent else 0)


def _find_marks(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from jobs.bar import bar
    from jobs.watermarks.findings import find_marks

    if any(value is not None and value < 1 for value in (args.workers, args.sounds_per_file)):
        raise ConfigError("--workers and --sounds-per-file must be 1 or more")
    with bar(quiet=args.json) as shown:
        task = shown.add_task("looking for marks", total=None)
        found = find_marks(
            args.inputs,
            args.output,
            args.mark,
            _key(args.key),
            workers=args.workers,
            address=args.address,
            sounds_per_file=args.sounds_per_file or 256,
            overwrite=args.overwrite,
            report=lambda done, total: shown.update(task, completed=done, total=total),
        )
    why = ": the column error says why" if found.unreadable else ""
    print(
        json.dumps(asdict(found))
        if args.json
        else f"{found.output}: {found.sounds} sounds, {found.hours:.2f} h: {found.marked} marked, {found.unmarked} unmarked,"
        f" {found.unreadable} unreadable{why}; in {found.wall_s:.0f} s"
    )
    return SOME_FAILED if found.unreadable else 0


def _said(row: dict[str, Any]) -> str:
    if not row["marked"]:
        return "no mark" + ("" if row["score"] is not None else " (silence)")
    number = "its number cannot be read" if row["number"] is None else f"number {row['number']}"
    return f"marked, {row['share']:.0%} of the time, {number}"


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
