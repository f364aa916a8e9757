"""`flowtts credentials`: sign recordings with what they are and who made them (C2PA), and read such credentials."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from flowtts_core.errors import AudioError, ConfigError

NOT_VALID, SOME_FAILED = 4, 3  # exit codes


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "credentials",
        help="sign what recordings are, and read what they say",
        description="Content credentials (C2PA): a signed statement, in a file or beside it, that its sound was made by"
        " FlowTTS. They are lost with a conversion, and whoever wants to can take them out: docs/watermark.md says what they"
        " protect. Needs pip install 'flowtts[credentials]'.",
    )
    kinds = parser.add_subparsers(title="what to do", metavar="sign|show|make-chain", required=True)
    sign = kinds.add_parser(
        "sign",
        help="put credentials into a recording",
        description="Sign a recording, in place unless -o is given. M4B, M4A, MP3, WAV and FLAC hold the credentials"
        " themselves; Opus and Ogg have them beside, in a file of the suffix .c2pa. The sound stays as it is.",
        epilog="example:\n  flowtts credentials sign book.m4b --key key.pem --chain chain.pem --voice heart --licence CC-BY-4.0",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sign.add_argument("input", type=Path, metavar="FILE", help="a recording")
    sign.add_argument(
        "-o",
        "--output",
        type=Path,
        help="write a signed copy there, a file or a folder (default: sign the file itself)",
    )
    sign.add_argument("--key", type=Path, required=True, metavar="FILE", help="the private key, PEM without a password")
    sign.add_argument(
        "--chain",
        type=Path,
        required=True,
        metavar="FILE",
        help="certificates, PEM: the signer's, then its authorities'",
    )
    sign.add_argument("--edited", action="store_true", help="say that a part was made by a model, and not the whole")
    sign.add_argument("--voice", default="", metavar="TEXT", help="state the voice")
    sign.add_argument("--licence", default="", metavar="TEXT", help="state the licence")
    sign.add_argument("--consent", default="", metavar="TEXT", help="state who agreed to the use of the voice")
    sign.add_argument("--replace", action="store_true", help="new credentials take the place of those that are there")
    sign.set_defaults(run=run, verb=_sign)
    show = kinds.add_parser(
        "show",
        help="read and check credentials",
        description="Tell for each recording what its credentials say, and whether they and the sound are unchanged.",
        epilog="exit codes: 0 credentials in each, unchanged (signers are checked with --trust); 4 not in each, or invalid; with"
        " --trust also\n  untrusted; 3 some could not be read, 1 none could, 2 wrong usage\n\n"
        "example:\n  flowtts credentials show book.m4b --trust authorities.pem",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    show.add_argument("inputs", nargs="+", type=Path, metavar="FILE", help="recordings")
    show.add_argument("--trust", type=Path, metavar="FILE", help="certificates of the authorities that you trust, PEM")
    show.add_argument("--json", action="store_true", help="print JSON, a line for each file")
    show.set_defaults(run=run, verb=_show)
    chain = kinds.add_parser(
        "make-chain",
        help="make a key and certificates to try it with",
        description="Make a key and certificates to try signing with. No verifier knows them: what they sign is told as"
        " untrusted. For use, get a certificate of an authority on C2PA's trust list.",
        epilog="example:\n  flowtts credentials make-chain keys/ --organisation 'Our press'",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    chain.add_argument("folder", type=Path, metavar="FOLDER", help="where key.pem and chain.pem go")
    chain.add_argument(
        "--organisation", default="FlowTTS trial", metavar="NAME", help="the signer's (default: %(default)s)"
    )
    chain.add_argument("--days", type=int, default=365, help="how long they hold (default: %(default)s)")
    chain.add_argument("--replace", action="store_true", help="write over a key that is there")
    chain.set_defaults(run=run, verb=_make_chain)


def run(args: argparse.Namespace) -> int:
    code: int = args.verb(args)
    return code


def _sign(args: argparse.Namespace) -> int:
    from flowtts_core.credentials import Statement, sign_file

    output = args.output or args.input
    if output.is_dir() or not output.suffix:
        output = output / args.input.name
    statement = Statement(args.edited, args.voice, args.licence, args.consent)
    print(f"{sign_file(args.input, output, args.key, args.chain, statement, replace=args.replace)}: signed")
    return 0


def _show(args: argparse.Namespace) -> int:
    from flowtts_core.credentials import read_file

    failed = wrong = 0
    inputs = _sounds_of(args.inputs)
    for file in inputs:
        try:
            found = read_file(file, args.trust)
        except AudioError as error:
            failed += 1
            print(error, file=sys.stderr)
            continue
        wrong += found.status in ("none", "invalid") or (args.trust is not None and found.status != "valid")
        print(json.dumps({"file": str(file), **_row(found)}) if args.json else f"{file}: {_said(found)}")
    if failed:
        return 1 if failed == len(inputs) else SOME_FAILED
    return NOT_VALID if wrong else 0


def _sounds_of(files: list[Path]) -> list[Path]:
    """Return the files that can have credentials; those beside them, as subtitles, are passed over and told."""
    from flowtts_core.credentials import BESIDE, EMBEDS

    sounds = [file for file in files if file.suffix.lower() in (*EMBEDS, *BESIDE) or not file.is_file()]
    if not sounds:  # each is refused
        return files
    for file in files:
        if file not in sounds:
            print(f"note: {file}: not a sound, passed over", file=sys.stderr)
    return sounds


def _make_chain(args: argparse.Namespace) -> int:
    from flowtts_core.signing import make_chain

    if args.folder.exists() and not args.folder.is_dir():
        raise ConfigError(f"{args.folder} is no folder", "give another place")
    key, chain = make_chain(args.folder, args.organisation, days=args.days, replace=args.replace)
    print(f"{key}: the private key; keep it secret\n{chain}: the certificates, which no verifier knows")
    return 0


def _row(found: Any) -> dict[str, Any]:
    return {
        "status": found.status,
        "problems": list(found.problems),
        "signer": found.signer,
        "actions": list(found.actions),
        "generator": found.generator,
        "when": found.when,
        "note": found.note,
        "place": None if found.place is None else str(found.place),
    }


def _said(found: Any) -> str:
    if found.status == "none":
        return "no credentials"
    lines = [found.status]
    if found.status == "invalid":
        what = "changed since it was signed" if found.changed else "the file or its credentials are damaged"
        lines[0] = f"{what} ({', '.join(('invalid', *found.faults))})"
    if found.status == "untrusted":
        lines[0] += ": unchanged since it was signed, by a certificate that is not known here"
    for action in found.actions:
        source = str(action.get("digitalSourceType", "")).rsplit("/", 1)[-1]
        lines.append(f"{action.get('action', '')} {source}".rstrip())
    for name, value in (("signer", found.signer), ("by", found.generator), ("when", found.when)):
        lines += [f"{name}: {value}"] if value else []
    lines += [f"{name}: {value}" for name, value in (found.note or {}).items()]
    return "\n  ".join(lines)
