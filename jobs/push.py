"""`flowtts push`: publish a voice on a model hub."""

from __future__ import annotations

import argparse
from typing import Any

DESCRIPTION = """\
Publish a voice on the Hugging Face hub, in one commit: its card, its weights, its notices, and a model card (README.md)
written from the voice's card: licence, languages, speakers, source, scores, how to use it. A README.md of your own in the
voice's folder goes instead. The repository is made where it is absent; one that holds something else is left alone.

The token is that of HF_TOKEN or `hf auth login`; HF_ENDPOINT names another hub."""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "push",
        help="publish a voice on a model hub",
        description=DESCRIPTION,
        epilog="examples:\n  flowtts push voices/mine hf://me/my-voice --private\n"
        "  flowtts push voices/mine hf://me/my-voice --revision v2       a branch of its own",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("voice", help="a voice folder, or a bundled voice's name")
    parser.add_argument("place", help="hf://owner/name")
    parser.add_argument("--private", action="store_true", help="make the repository private, where it is made")
    parser.add_argument("--revision", help="branch to write, made where it is absent (default: main)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from flowtts_core.voice.card import find_voice
    from flowtts_core.voice.hub import hub_place, push

    place = hub_place(args.place, args.revision)
    page = push(find_voice(args.voice), place, private=args.private)
    print(f"{page}\nsay something with it: flowtts say \"Good evening.\" --voice '{place}'")
    return 0
