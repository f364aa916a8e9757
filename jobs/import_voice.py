"""`flowtts import`: a published checkpoint to a voice folder that runs everywhere a voice of ours does."""

from __future__ import annotations

import argparse
import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowtts_core.errors import OutputError

if TYPE_CHECKING:
    from flowtts_core.audio.mel import MelConfig
    from flowtts_core.vocoder.base import Vocoder

PHONEMIZERS = ("gruut", "espeak")
GRIFFIN_LIM = "griffin_lim"


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "import",
        help="make a voice from a published checkpoint",
        description="Make a voice folder from a published checkpoint, by its own tensor names. Files are never unpickled"
        " as code: tensors and plain numbers are read, all else is refused.",
        epilog="example:\n  flowtts import matcha matcha_ljspeech.ckpt -o voices/ljspeech --licence MIT",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=("matcha",), help="the family of the checkpoint")
    parser.add_argument("checkpoint", type=Path, help="a .ckpt or .safetensors file")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the voice folder to make")
    parser.add_argument(
        "--vocoder",
        default=GRIFFIN_LIM,
        metavar="VOICE",
        help="take the vocoder of this voice, which must read the same mel (default: Griffin-Lim, which sounds metallic)",
    )
    parser.add_argument(
        "--phonemizer",
        choices=PHONEMIZERS,
        help="what makes its phonemes (default: espeak, which most were trained with, where the extra is installed)",
    )
    parser.add_argument("--language", default="en-us", help="as the phonemizer names it (default: en-us)")
    parser.add_argument("--licence", default="", help="of the weights, for the card")
    parser.add_argument("--source", default="", help="where the weights come from, for the card")
    parser.add_argument("--steps", type=int, default=10, help="steps of the flow by default (default: 10)")
    parser.add_argument("--half", action="store_true", help="store the weights as float16, half the size")
    parser.add_argument("--json", action="store_true", help="print a summary as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if (args.output / "voice.json").exists():
        raise OutputError(f"{args.output} is a voice already", "choose another -o, or remove it first")
    from flowtts_core.acoustic.matcha.importer import import_matcha
    from flowtts_core.config import spec_of
    from flowtts_core.sampling import Sampling
    from flowtts_core.text.frontends import PhonemeConfig
    from flowtts_core.voice.parts import save_voice

    imported = import_matcha(args.checkpoint)
    vocoder, vocoder_spec = vocoder_for(args.vocoder, imported.config.mel)
    phonemizer = args.phonemizer or ("espeak" if find_spec("espeakng_loader") else "gruut")
    speakers = imported.config.n_speakers
    try:
        card = save_voice(
            args.output,
            name=args.output.name,
            acoustic=imported.model(),
            acoustic_spec=imported.spec,
            vocoder=vocoder,
            vocoder_spec=vocoder_spec,
            frontend=spec_of("phonemes", PhonemeConfig(phonemizer=phonemizer, language=args.language)),
            half=args.half,
            languages=(args.language,),
            description=f"imported from {args.checkpoint.name}",
            licence=args.licence,
            source=args.source,
            speakers=tuple(str(number) for number in range(speakers)) if speakers > 1 else (),
            sampling=Sampling(steps=args.steps),
        )
    except OSError as error:
        raise OutputError(f"cannot write {args.output}: {error.strerror or error}", "choose another -o") from error
    summary = {
        "voice": str(args.output),
        "speakers": speakers,
        "phonemizer": phonemizer,
        "vocoder": vocoder_spec["name"],
        "fingerprint": card.fingerprint,
    }
    if args.json:
        print(json.dumps(summary))
    else:
        print(f"{args.output}: {speakers} speaker(s), phonemes by {phonemizer}, vocoder {vocoder_spec['name']}")
        print(f'try it: flowtts say "Good evening." --voice {args.output}')
    return 0


def vocoder_for(choice: str, mel: MelConfig) -> tuple[Vocoder, dict[str, Any]]:
    """Griffin-Lim for this mel, or the vocoder of a voice (`save_voice` checks that its mel is the same); and its spec.

    Raises:
        VoiceError: when the voice cannot be loaded.
    """
    from flowtts_core.config import build, to_dict
    from flowtts_core.vocoder import VOCODERS
    from flowtts_core.voice.parts import load_parts

    if choice != GRIFFIN_LIM:
        voice = load_parts(choice)
        return voice.vocoder, dict(voice.card.parts["vocoder"])
    spec = {"name": GRIFFIN_LIM, "mel": to_dict(mel)}
    return build(VOCODERS, spec), spec
