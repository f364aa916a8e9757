"""`flowtts import hifigan|vocos|wavefm|rfwave`: a published vocoder to a vocoder folder, for voices to be paired with."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowtts_core.errors import OutputError

if TYPE_CHECKING:
    from flowtts_core.vocoder.importers import ImportedVocoder

CARD = "vocoder.json"


def add_kinds(kinds: Any) -> None:
    hifigan = _add_kind(kinds, "hifigan", "a HiFi-GAN generator", "its config.json")
    hifigan.add_argument(
        "--denoise",
        type=float,
        default=0.0,
        metavar="STRENGTH",
        help="subtract the generator's own hum; Matcha-TTS uses 0.00025 (default: 0, none)",
    )
    _add_kind(kinds, "vocos", "a Vocos of mels", "its config.yaml")
    rfwave = _add_kind(kinds, "rfwave", "an RFWave of mels", "its config.yaml")
    rfwave.add_argument("--steps", type=int, help="of the flow (default: 10)")
    wavefm = _add_kind(kinds, "wavefm", "a WaveFM")
    wavefm.add_argument("--steps", type=int, help="of the flow (default: 1 for a distilled model, else 6)")


def _add_kind(kinds: Any, name: str, help: str, settings: str = "") -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = kinds.add_parser(
        name, help=f"{help} (a vocoder)", description=f"Make a vocoder folder from {help}."
    )
    parser.add_argument("checkpoint", type=Path, help="its weights: a torch checkpoint or a .safetensors file")
    if settings:
        parser.add_argument("config", type=Path, nargs="?", help=f"{settings} (default: the one beside the weights)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the vocoder folder to make")
    parser.add_argument("--licence", default="", help="of the weights, for the card")
    parser.add_argument("--source", default="", help="where the weights come from, for the card")
    parser.add_argument("--json", action="store_true", help="print a summary as JSON")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    if (args.output / CARD).exists():
        raise OutputError(f"{args.output} is a vocoder already", "choose another -o, or remove it first")
    imported = _imported(args)
    try:
        imported.save(args.output, licence=args.licence, source=args.source or args.checkpoint.name)
    except OSError as error:
        raise OutputError(f"cannot write {args.output}: {error.strerror or error}", "choose another -o") from error
    mel = imported.config.mel
    summary = {
        "vocoder": str(args.output),
        "name": imported.name,
        "sample_rate": mel.sample_rate,
        "bands": mel.n_mels,
        "parameters": sum(tensor.numel() for tensor in imported.state_dict.values()),
        "assumed": imported.assumed,
    }
    if args.json:
        print(json.dumps(summary))
        return 0
    print(
        f"{args.output}: {imported.name}, {summary['parameters'] / 1e6:.1f} M parameters, reads {mel.n_mels} bands and"
        f" makes {mel.sample_rate} Hz"
    )
    if imported.assumed:
        print(imported.assumed)
    print(f"pair a voice with it: --vocoder {args.output} of `flowtts import matcha` and `flowtts train`")
    return 0


def _imported(args: argparse.Namespace) -> ImportedVocoder:
    from flowtts_core.vocoder import importers

    if args.kind == "hifigan":
        return importers.import_hifigan(args.checkpoint, args.config).changed(denoise=args.denoise)
    if args.kind == "rfwave":
        return importers.import_rfwave(args.checkpoint, args.config, args.steps)
    if args.kind == "wavefm":
        return importers.import_wavefm(args.checkpoint, args.steps)
    return importers.import_vocos(args.checkpoint, args.config)
