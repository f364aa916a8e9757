"""`flowtts import encodec|wavtokenizer|...`: a published codec to a codec folder."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from flowtts_core.errors import OutputError

CARD = "codec.json"
KINDS = {  # name -> (what it is, its second file and whether that must be given)
    "dac": ("a DAC", "its config.json of transformers (default: the one beside it)", False),
    "encodec": ("an EnCodec", "its config.json of transformers (default: the one beside it)", False),
    "facodec": ("a FACodec", "the weights of its decoder; the first file has those of its encoder", True),
    "mimi": ("a Mimi", "its config.json of transformers (default: the one beside it)", False),
    "wavtokenizer": ("a WavTokenizer", "the YAML of its training, for the sample rate (default: 24 kHz)", False),
}


def add_kinds(kinds: Any) -> None:
    for name, (said, second, needed) in KINDS.items():
        parser = kinds.add_parser(
            name, help=f"{said} (a codec)", description=f"Make a codec folder from {said}, for `flowtts codec`."
        )
        parser.add_argument("checkpoint", type=Path, help="its weights: a torch checkpoint or a .safetensors file")
        parser.add_argument("second", type=Path, nargs=None if needed else "?", help=second)
        parser.add_argument("-o", "--output", type=Path, required=True, help="the codec folder to make")
        parser.add_argument("--licence", default="", help="of the weights, for the card")
        parser.add_argument("--source", default="", help="where the weights come from, for the card")
        parser.add_argument("--json", action="store_true", help="print a summary as JSON")
        parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if (args.output / CARD).exists():
        raise OutputError(f"{args.output} is a codec already", "choose another -o, or remove it first")
    from flowtts_core.codec.files import load_codec
    from flowtts_core.codec.importers import IMPORTERS

    files = [args.checkpoint] if args.second is None else [args.checkpoint, args.second]
    imported = IMPORTERS[args.kind](*files)
    try:
        imported.save(args.output, licence=args.licence, source=args.source or args.checkpoint.name)
    except OSError as error:
        raise OutputError(f"cannot write {args.output}: {error.strerror or error}", "choose another -o") from error
    loaded = load_codec(args.output)
    codec = loaded.codec
    summary: dict[str, Any] = {
        "codec": str(args.output),
        "name": imported.name,
        "fingerprint": loaded.fingerprint,
        "sample_rate": codec.sample_rate,
        "channels": codec.channels,
        "frame_rate": codec.frame_rate,
        "codebooks": list(codec.sizes),
        "parameters": sum(tensor.numel() for tensor in imported.state_dict.values()),
        "assumed": imported.assumed,
    }
    if args.json:
        print(json.dumps(summary))
        return 0
    print(
        f"{args.output}: {imported.name}, {summary['parameters'] / 1e6:.1f} M parameters, {codec.sample_rate} Hz,"
        f" {codec.frame_rate:g} frames a second of {codec.books} code(s)"
    )
    if imported.assumed:
        print(imported.assumed)
    print(f"try it: flowtts codec encode SOUND.wav -o CODES.npz --codec {args.output}")
    return 0
