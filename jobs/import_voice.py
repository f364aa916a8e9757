"""`flowtts import`: a published model to a voice folder that runs everywhere a voice of ours does, to a vocoder or a codec."""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowtts_core.errors import OutputError
from jobs import import_codec, import_vocoder
from jobs.voices import WORD_TIMES

if TYPE_CHECKING:
    from flowtts_core.voice.card import VoiceCard

PHONEMIZERS = ("gruut", "espeak")
_LETTERS = ("vocabulary", "characters", "bytes", "letters")  # front ends without phonemes


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "import",
        help="make a voice, a vocoder or a codec from a published checkpoint",
        description="Make a voice folder from a published model, which is then a voice like any other: in say, synthesize,"
        " serve, evaluate; a vocoder's folder, for voices to be paired with; or a codec's, for `flowtts codec`. Files are never"
        " unpickled as code; what does not fit is refused.",
        epilog="examples:\n"
        "  flowtts import piper en_US-joe-medium.onnx -o voices/joe --licence CC0-1.0\n"
        "  flowtts import kokoro kokoro-v1.0.onnx voices-v1.0.bin -o voices/kokoro --licence Apache-2.0\n"
        "  flowtts import hifigan generator_v1 -o vocoders/hifigan --licence MIT\n"
        "  flowtts import encodec encodec_24khz-d7cc33bc.th -o codecs/encodec --licence MIT\n"
        "  flowtts import zipvoice model.pt tokens.txt model.json -o voices/zipvoice --licence Apache-2.0\n"
        "  flowtts import matcha matcha_ljspeech.ckpt -o voices/ljspeech --vocoder vocoders/hifigan --licence MIT\n"
        "  flowtts import f5 model_1250000.safetensors vocab.txt -o voices/f5 --licence CC-BY-NC-4.0",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    _add_matcha(kinds)
    _add_f5(kinds)
    _add_zipvoice(kinds)
    _add_piper(kinds)
    _add_kokoro(kinds)
    _add_hibari(kinds)
    import_vocoder.add_kinds(kinds)
    import_codec.add_kinds(kinds)


def _add_kind(
    kinds: Any, name: str, help: str, make: Callable[[argparse.Namespace], VoiceCard]
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = kinds.add_parser(name, help=help, description=f"Make a voice folder from {help}.")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the voice folder to make")
    parser.add_argument("--licence", default="", help="of the weights, for the card")
    parser.add_argument("--source", default="", help="where the weights come from, for the card")
    parser.add_argument("--json", action="store_true", help="print a summary as JSON")
    parser.set_defaults(run=run, make=make)
    return parser


def run(args: argparse.Namespace) -> int:
    if (args.output / "voice.json").exists():
        raise OutputError(f"{args.output} is a voice already", "choose another -o, or remove it first")
    try:
        card = args.make(args)
    except OSError as error:
        raise OutputError(f"cannot write {args.output}: {error.strerror or error}", "choose another -o") from error
    frontend = card.parts["frontend"]
    summary = {
        "voice": str(args.output),
        "kind": card.kind,
        "speakers": len(card.speakers) or 1,
        "languages": list(card.languages),
        "phonemizer": frontend.get("phonemizer", "" if frontend["name"] in _LETTERS else "misaki"),
        "word_times": card.word_times,
        "fingerprint": card.fingerprint,
    }
    if "vocoder" in card.parts:
        summary["vocoder"] = card.parts["vocoder"]["name"]
    if args.json:
        print(json.dumps(summary))
    else:
        print(
            f"{args.output}: {_spoken_by(card)}, {', '.join(card.languages)}, {_read_as(summary['phonemizer'])},"
            f" word times: {WORD_TIMES[card.word_times]}"
        )
        if summary["phonemizer"] == "espeak" and importlib.util.find_spec("phonemizer") is None:
            print("before it speaks: pip install 'flowtts[espeak]'")
        clip = " --clone ref.wav" if card.prompt == "required" else ""
        print(f'try it: flowtts say "Good evening." --voice {args.output}{clip}')
    return 0


def _spoken_by(card: VoiceCard) -> str:
    return "the speaker of a prompt" if card.prompt == "required" else f"{len(card.speakers) or 1} speaker(s)"


def _read_as(phonemizer: str) -> str:
    return f"phonemes by {phonemizer}" if phonemizer else "letters as they are"


def _add_matcha(kinds: Any) -> None:
    parser = _add_kind(kinds, "matcha", "a Matcha-TTS checkpoint", _matcha)
    parser.add_argument("checkpoint", type=Path, help="a .ckpt or .safetensors file")
    parser.add_argument(
        "--vocoder",
        default="",
        help="vocoder folder, voice folder, or a bundled voice's name; it must read the same mel (default: the"
        " bundled one for any speaker that reads it, or else Griffin-Lim, which sounds metallic)",
    )
    parser.add_argument(
        "--phonemizer",
        choices=PHONEMIZERS,
        help="what makes its phonemes (default: espeak, which most were trained with, where the extra is installed)",
    )
    parser.add_argument("--language", default="en-us", help="as the phonemizer names it (default: en-us)")
    parser.add_argument("--steps", type=int, default=10, help="steps of the flow by default (default: 10)")
    parser.add_argument("--half", action="store_true", help="store the weights as float16, half the size")


def _matcha(args: argparse.Namespace) -> VoiceCard:
    from flowtts_core.acoustic.matcha.importer import import_matcha
    from flowtts_core.config import spec_of
    from flowtts_core.sampling import Sampling
    from flowtts_core.text.frontends import PhonemeConfig
    from flowtts_core.voice.parts import find_vocoder, save_voice
    from jobs.training.recipes.base import local_copy

    imported = import_matcha(args.checkpoint)
    with local_copy(args.vocoder) as place:
        paired = find_vocoder(place, imported.config.mel)
    phonemizer = args.phonemizer or ("espeak" if find_spec("espeakng_loader") else "gruut")
    speakers = imported.config.n_speakers
    return save_voice(
        args.output,
        name=args.output.name,
        acoustic=imported.model(),
        acoustic_spec=imported.spec,
        vocoder=paired.vocoder,
        vocoder_spec=paired.spec,
        frontend=spec_of("phonemes", PhonemeConfig(phonemizer=phonemizer, language=args.language)),
        half=args.half,
        languages=(args.language,),
        description=f"imported from {args.checkpoint.name}",
        licence=args.licence,
        source=args.source,
        speakers=tuple(str(number) for number in range(speakers)) if speakers > 1 else (),
        sampling=Sampling(steps=args.steps),
    )


def _add_f5(kinds: Any) -> None:
    parser = _add_kind(kinds, "f5", "an F5-TTS checkpoint", _f5)
    parser.add_argument(
        "checkpoint", type=Path, help="a .safetensors file, or a training's .pt, whose running mean is taken"
    )
    parser.add_argument("vocabulary", type=Path, nargs="?", help="its vocab.txt (default: none, for a model of bytes)")
    parser.add_argument(
        "--generation",
        choices=("v1", "v0"),
        default="v1",
        help="v1 (F5TTS_v1_Base and later), or v0 for what came before it (F5TTS_Base), with the same tensors (default: v1)",
    )
    parser.add_argument(
        "--average-upsampling",
        action="store_true",
        help="it was trained with text_embedding_average_upsampling, which its tensors do not show",
    )
    parser.add_argument(
        "--mel", choices=("vocos", "bigvgan"), default="vocos", help="mel_spec_type of its training (default: vocos)"
    )
    parser.add_argument(
        "--vocoder",
        default="",
        help="vocoder folder, voice folder, or a bundled voice's name (default: the bundled one for any speaker that reads"
        " the mel, or else Griffin-Lim, which sounds metallic)",
    )
    parser.add_argument(
        "--language",
        action="append",
        metavar="LANGUAGE",
        help="that it speaks, as en-us or zh; several times for several, the one first that texts are read in by default"
        " (default: en-us, and zh where pinyin is in its vocabulary)",
    )
    parser.add_argument(
        "--as-written",
        action="store_true",
        help="read figures and signs as they stand, as the published code does (default: English and German are written out)",
    )
    parser.add_argument("--steps", type=int, default=32, help="steps of the flow by default (default: 32)")
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16"),
        default="fp32",
        help="of products: bf16 takes less than half the time on GPUs and on CPUs with AMX (default: fp32)",
    )
    parser.add_argument("--half", action="store_true", help="store the weights as float16, half the size")


def _f5(args: argparse.Namespace) -> VoiceCard:
    from flowtts_core.acoustic.f5.importer import SAMPLING, import_f5
    from flowtts_core.audio.mel import BIGVGAN_24K, F5_24K
    from flowtts_core.text.frontends import build
    from flowtts_core.voice.parts import find_vocoder, save_voice
    from jobs.training.recipes.base import local_copy

    mel = F5_24K if args.mel == "vocos" else BIGVGAN_24K
    imported = import_f5(
        args.checkpoint,
        args.vocabulary,
        mel=mel,
        generation=args.generation,
        average_upsampling=args.average_upsampling,
        language=(args.language or ["en-us"])[0],
        write_out=not args.as_written,
        precision=args.precision,
    )
    with local_copy(args.vocoder) as place:
        paired = find_vocoder(place, mel)
    frontend = build(imported.frontend)
    chinese = ("zh",) if getattr(frontend, "reads_chinese", False) else ()
    card = save_voice(
        args.output,
        name=args.output.name,
        acoustic=imported.model(),
        acoustic_spec=imported.spec,
        vocoder=paired.vocoder,
        vocoder_spec=paired.spec,
        frontend=imported.frontend,
        half=args.half,
        languages=tuple(args.language or ("en-us", *chinese)),
        description=f"imported from {args.checkpoint.name}, as F5-TTS {args.generation}",
        licence=args.licence,
        source=args.source,
        sampling=replace(SAMPLING, steps=args.steps),
    )
    if not args.json:
        print(
            f"taken as F5-TTS {args.generation}, which its tensors do not tell: if it babbles, import it again with"
            f" --generation {'v0' if args.generation == 'v1' else 'v1'}"
        )
    return card


def _add_zipvoice(kinds: Any) -> None:
    parser = _add_kind(kinds, "zipvoice", "a ZipVoice checkpoint, distilled or not", _zipvoice)
    parser.add_argument("checkpoint", type=Path, help="a .safetensors or .pt file")
    parser.add_argument("tokens", type=Path, help="its tokens.txt")
    parser.add_argument("config", type=Path, nargs="?", help="its model.json, which alone tells numbers of heads but 4")
    parser.add_argument(
        "--vocoder",
        default="",
        help="vocoder folder, voice folder, or a bundled voice's name; it must read the mel of 24 kHz Vocos (default: the"
        " bundled one for any speaker that reads it)",
    )
    parser.add_argument(
        "--tokenizer",
        choices=("emilia", "espeak", "libritts", "simple"),
        help="that it was trained with: Chinese and English, phonemes, letters of English, or characters as they stand"
        " (default: as the tokens look)",
    )
    parser.add_argument(
        "--phonemizer",
        choices=PHONEMIZERS,
        help="what makes its phonemes (default: espeak, which it was trained with, where the extra is installed)",
    )
    parser.add_argument("--language", default="en-us", help="as the phonemizer names it (default: en-us)")
    parser.add_argument("--steps", type=int, help="steps of the flow by default (default: 16, of a distilled one 8)")
    parser.add_argument("--half", action="store_true", help="store the weights as float16, half the size")


def _zipvoice(args: argparse.Namespace) -> VoiceCard:
    from dataclasses import replace

    from flowtts_core.acoustic.zipvoice.importer import import_zipvoice, tokenizer_of
    from flowtts_core.config import spec_of
    from flowtts_core.text.frontends import EmiliaConfig, LetterConfig, PhonemeConfig
    from flowtts_core.voice.parts import find_vocoder, save_voice
    from jobs.training.recipes.base import local_copy

    imported = import_zipvoice(args.checkpoint, args.tokens, args.config)
    with local_copy(args.vocoder) as place:
        paired = find_vocoder(place, imported.config.mel)
    phonemizer = args.phonemizer or ("espeak" if find_spec("espeakng_loader") else "gruut")
    kind = args.tokenizer or tokenizer_of(imported.table)
    frontend, languages = spec_of("letters", LetterConfig(imported.table, language="")), tuple[str, ...]()
    if kind == "emilia":
        frontend = spec_of("emilia", EmiliaConfig(imported.table, phonemizer, args.language))
        languages = (args.language, "zh")
    elif kind == "espeak":
        own = PhonemeConfig(phonemizer, args.language, add_blank=False, table=imported.table)
        frontend, languages = spec_of("phonemes", own), (args.language,)
    elif kind == "libritts":
        frontend, languages = spec_of("letters", LetterConfig(imported.table)), ("en-us",)
    model = imported.model()
    return save_voice(
        args.output,
        name=args.output.name,
        acoustic=model,
        acoustic_spec=imported.spec,
        vocoder=paired.vocoder,
        vocoder_spec=paired.spec,
        frontend=frontend,
        half=args.half,
        languages=languages,
        description=f"imported from {args.checkpoint.name}",
        licence=args.licence,
        source=args.source,
        sampling=model.sampling if args.steps is None else replace(model.sampling, steps=args.steps),
    )


def _add_piper(kinds: Any) -> None:
    parser = _add_kind(kinds, "piper", "a Piper voice", _piper)
    parser.add_argument("graph", type=Path, help="the voice's .onnx file")
    parser.add_argument("config", type=Path, nargs="?", help="its JSON (default: the same name with .json added)")


def _piper(args: argparse.Namespace) -> VoiceCard:
    from flowtts_core.engines.piper import import_piper

    config = args.config or args.graph.with_name(f"{args.graph.name}.json")
    return import_piper(args.graph, config, args.output, licence=args.licence, source=args.source)


def _add_kokoro(kinds: Any) -> None:
    parser = _add_kind(kinds, "kokoro", "Kokoro's graph and its speakers", _kokoro)
    parser.add_argument("graph", type=Path, help="the model's .onnx file")
    parser.add_argument(
        "styles",
        type=Path,
        nargs="+",
        help="its voices: .bin files of one each, a folder of them, or an archive of several",
    )
    parser.add_argument("--vocab", type=Path, help="JSON of its symbols (default: those of Kokoro v1.0)")


def _kokoro(args: argparse.Namespace) -> VoiceCard:
    from flowtts_core.engines.kokoro import import_kokoro

    return import_kokoro(args.graph, args.styles, args.vocab, args.output, licence=args.licence, source=args.source)


def _add_hibari(kinds: Any) -> None:
    parser = _add_kind(kinds, "hibari", "a hibari voice", _hibari)
    parser.add_argument("graph", type=Path, help="the voice's .onnx file")
    parser.add_argument("--language", choices=("en-us", "en-gb"), default="en-us", help="(default: en-us)")


def _hibari(args: argparse.Namespace) -> VoiceCard:
    from flowtts_core.engines.hibari import import_hibari

    return import_hibari(args.graph, args.output, language=args.language, licence=args.licence, source=args.source)
