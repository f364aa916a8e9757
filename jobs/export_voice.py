"""`flowtts export`: a flow voice as one ONNX file, with a page about its inputs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "export",
        help="write a flow voice as one ONNX file",
        description="Write a flow voice (one that `flowtts train` made, or the bundled one) as a single ONNX file, from tokens"
        " to the waveform, for programs without torch or FlowTTS. Beside it, under the same name with .md, lies a page with"
        " its inputs, its outputs, and an example in Python. Sentences longer than a few seconds may differ a little from"
        " what FlowTTS says: it makes them window by window, the file as a whole.",
        epilog="examples:\n  flowtts export natural -o natural.onnx\n  flowtts export voices/mine -o mine.onnx",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("voice", help="a bundled flow voice's name, its folder, or an s3:// place")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the file to write, as voice.onnx")
    parser.add_argument("--json", action="store_true", help="print a summary as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from flowtts_core.engines.export import write_export
    from flowtts_core.errors import ConfigError, OutputError
    from flowtts_core.voice.card import find_voice, require_flow
    from flowtts_core.voice.parts import parts_of

    if args.output.suffix != ".onnx":
        raise ConfigError(
            f"-o {args.output}: the file's name must end in .onnx", "flowtts export natural -o natural.onnx"
        )
    voice = parts_of(find_voice(args.voice), require_flow(args.voice, "exported"))
    try:
        made = write_export(voice, args.output)
    except OSError as error:
        raise OutputError(f"{args.output}: cannot be written ({error.strerror})", "give another -o") from error
    if args.json:
        print(json.dumps(made))
    else:
        print(f"{made['file']}: {made['megabytes']} MB; its inputs and an example: {made['notes']}")
    return 0
