"""`flowtts export`: a flow voice or a vocoder as one ONNX file with a page about its inputs, or a vocoder with its graphs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "export",
        help="write a flow voice or a vocoder for ONNX Runtime",
        description="Write a flow voice (one that `flowtts train` made, or the bundled one) as a single ONNX file, from tokens"
        " to the waveform, for programs without torch or FlowTTS. Beside it, under the same name with .md, lies a page with"
        " its inputs, its outputs, and an example in Python. Sentences longer than a few seconds may differ a little from"
        " what FlowTTS says: it makes them window by window, the file as a whole. Of a vocoder's folder: as a single file,"
        " from mel to waveform; or, where -o is a folder, the vocoder with graphs beside its weights, so that"
        " `flowtts vocode` runs it by ONNX Runtime.",
        epilog="examples:\n  flowtts export natural -o natural.onnx\n  flowtts export voices/mine -o mine.onnx\n"
        "  flowtts export vocoders/mine -o mine-vocoder.onnx\n  flowtts export vocoders/mine -o vocoders/mine-onnx",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("voice", help="a bundled flow voice's name, its folder, an s3:// place, or a vocoder's folder")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="the file to write, as voice.onnx; or a folder for a vocoder"
    )
    parser.add_argument("--json", action="store_true", help="print a summary as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from flowtts_core.errors import OutputError
    from flowtts_core.vocoder.files import CARD

    try:
        made = _vocoder(args) if (Path(args.voice) / CARD).is_file() else _voice(args)
    except OSError as error:
        raise OutputError(f"{args.output}: cannot be written ({error.strerror})", "give another -o") from error
    if args.json:
        print(json.dumps(made))
    elif "folder" in made:
        print(
            f"{made['folder']}: with {', '.join(made['graphs'])}; try it: flowtts vocode MELS --vocoder {made['folder']}"
        )
    else:
        print(f"{made['file']}: {made['megabytes']} MB; its inputs and an example: {made['notes']}")
    return 0


def _voice(args: argparse.Namespace) -> dict[str, Any]:
    from flowtts_core.engines.export import write_export
    from flowtts_core.errors import ConfigError
    from flowtts_core.voice.card import find_voice, require_flow
    from flowtts_core.voice.parts import parts_of

    if args.output.suffix != ".onnx":
        raise ConfigError(
            f"-o {args.output}: the file's name must end in .onnx", "flowtts export natural -o natural.onnx"
        )
    return write_export(parts_of(find_voice(args.voice), require_flow(args.voice, "exported")), args.output)


def _vocoder(args: argparse.Namespace) -> dict[str, Any]:
    from flowtts_core.engines.export_vocoder import write_sound
    from flowtts_core.engines.vocoder_graphs import card_notes, write_graphs
    from flowtts_core.errors import OutputError
    from flowtts_core.vocoder.files import CARD, load_vocoder

    folder, loaded = Path(args.voice), load_vocoder(Path(args.voice))
    if args.output.suffix == ".onnx":
        return write_sound(loaded, args.output)
    if (args.output / CARD).exists():
        raise OutputError(f"{args.output} is a vocoder already", "choose another -o, or remove it first")
    return {"folder": str(args.output), "graphs": write_graphs(args.output, loaded, card_notes(folder))}
