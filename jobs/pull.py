"""`flowtts pull`: copy a voice from a model hub."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

DESCRIPTION = """\
Copy a voice from the Hugging Face hub into a folder. It is checked first: its card, the SHA-256 of each file, and that
there are no formats that may hold code (json, safetensors and onnx are allowed). A folder that holds anything but a voice is
never written into.

Other commands take the same name without a copy: --voice hf://owner/name fetches it once into the hub's cache."""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "pull",
        help="copy a voice from a model hub",
        description=DESCRIPTION,
        epilog="examples:\n  flowtts pull hf://owner/name -o voices/theirs\n"
        "  flowtts pull hf://owner/name --revision v2\n"
        '  flowtts say "Good evening." --voice hf://owner/name#v2',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("place", help="hf://owner/name, perhaps with #REVISION")
    parser.add_argument("-o", "--output", type=Path, help="the folder (default: NAME, here)")
    parser.add_argument("--revision", help="branch, tag or commit (default: main)")
    parser.add_argument("--overwrite", action="store_true", help="replace another voice that stands there")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from flowtts_core.voice.hub import hub_place, pull

    place = hub_place(args.place, args.revision)
    folder = args.output or Path(place.repo.rpartition("/")[2])
    card = pull(place, folder, overwrite=args.overwrite)
    print(f"{folder}: voice {card.name} ({card.licence or 'no licence stated'}), fingerprint {card.fingerprint}")
    return 0
