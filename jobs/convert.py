"""`flowtts convert`: a recording in the voice of another, or spoken as another is spoken."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowtts_core.errors import ConfigError
from jobs.request_options import (
    add_consent_option,
    add_signing_options,
    add_watermark_options,
    marking_of,
    signing_of,
)

if TYPE_CHECKING:
    from flowtts_core.audio.reference import Reference

SOME_SET_ASIDE = 3  # exit code
_ONE = (".wav", ".flac", ".mp3", ".ogg", ".opus")


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "convert",
        help="a recording in another's voice, or spoken as another is",
        description="Make recordings anew with the timbre of another (--voice-of), or with another's prosody (--prosody-of):"
        " where both say the same words, its melody, word by word; where not, the level and range of its pitch and its pace."
        " It takes a codec of the FACodec kind, which `flowtts train --recipe facodec` makes. What is converted is marked as"
        " synthetic. Convert to the voices of people who agreed, and no others.",
        epilog="exit codes: 0 done, 3 some recordings of a folder were set aside, 1 failed, 2 wrong usage\n\n"
        "examples:\n"
        "  flowtts convert a.wav --voice-of b.wav -o c.wav --codec codecs/mine\n"
        "  flowtts convert a.wav --prosody-of b.wav -o c.wav --codec codecs/mine\n"
        "  flowtts convert speech/ more.parquet --voice-of b.wav -o converted/ --codec codecs/mine   # goes on where it was",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        help="a recording of at most an hour; or recordings, folders, globs, s3:// places, Parquet with audio, tars",
    )
    parser.add_argument("--voice-of", metavar="FILE", help="whose timbre: 3 to 12 s of one person who speaks")
    parser.add_argument("--prosody-of", metavar="FILE", help="as who it is spoken")
    parser.add_argument(
        "--words",
        choices=("auto", "same", "other"),
        default="auto",
        help="whether --prosody-of says the same words (default: it is found out)",
    )
    parser.add_argument("--codec", type=Path, metavar="FOLDER", help="the codec's folder; none is bundled yet")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        help=f"a file for one recording ({' '.join(_ONE)}); a folder or s3:// place for many",
    )
    parser.add_argument("--threads", type=int, default=1, help="for one recording: of the processor (default: 1)")
    add_consent_option(parser)
    add_watermark_options(parser)
    add_signing_options(parser)
    job = parser.add_argument_group("for many recordings")
    job.add_argument("--workers", type=int, metavar="N", help="processes (default: the cores of this machine)")
    job.add_argument("--address", help="a Ray cluster (default: this machine)")
    job.add_argument(
        "--overwrite", action="store_true", help="replace what stands there of other recordings or settings"
    )
    parser.add_argument("--json", action="store_true", help="print a summary as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from flowtts_core.codec.factorised import HOW_TO_TRAIN, require_factorised
    from flowtts_core.codec.files import load_codec

    if args.voice_of is None and args.prosody_of is None:
        raise ConfigError("nothing is to be converted", "give --voice-of FILE, --prosody-of FILE, or both")
    if args.words != "auto" and args.prosody_of is None:
        raise ConfigError(f"--words {args.words} is about --prosody-of", "give that too, or leave it out")
    if args.codec is None:
        raise ConfigError("no codec that converts is bundled yet", f"give --codec FOLDER; {HOW_TO_TRAIN}")
    require_factorised(load_codec(args.codec).codec, "convert")
    marking_of(args)  # what is wrong with its options is said before any work
    return _one(args) if Path(args.output).suffix.lower() in _ONE else _many(args)


def _one(args: argparse.Namespace) -> int:
    import torch

    from flowtts_core.audio.files import read_audio
    from flowtts_core.codec.convert import Converter
    from flowtts_core.codec.factorised import require_factorised
    from flowtts_core.codec.files import load_codec
    from flowtts_core.codec.tokens import LONGEST_S
    from flowtts_core.credentials import Statement
    from jobs.say import require_place, write

    if len(args.inputs) > 1 or Path(args.inputs[0]).is_dir():
        raise ConfigError(f"-o {args.output}: a file has one recording", "give a folder for several")
    if args.threads < 1:
        raise ConfigError(f"--threads {args.threads}", "give 1 or more")
    if args.workers is not None or args.address is not None or args.overwrite:
        raise ConfigError("--workers, --address and --overwrite are for many recordings", "give a folder as -o")
    output = Path(args.output)
    require_place(output)
    torch.set_num_threads(args.threads)
    marking, signing, loaded = marking_of(args), signing_of(args), load_codec(args.codec)
    voice, prosody, told = _references(args)
    codec = require_factorised(loaded.codec, "convert")
    waveform, rate = read_audio(args.inputs[0], longest_s=LONGEST_S)
    made = Converter(codec, voice, prosody, _same(args)).convert(waveform, rate)
    sound = made.waveform if marking is None else marking.marked(made.waveform, made.sample_rate)
    statement = Statement(voice=args.codec.name, licence=loaded.card.get("licence", ""), consent=args.consent)
    write(output, sound, made.sample_rate, signing, statement)
    summary = {
        "output": str(output),
        "seconds": round(len(sound) / made.sample_rate, 3),
        "codec": loaded.fingerprint,
        "prosody": made.prosody or None,
        "watermark": None if marking is None else marking.identity,
        "signed": None if signing is None else signing.facts,
        **told,
    }
    how = {"": "", "words": "; prosody word by word", "manner": "; other words: level and range of pitch, and pace"}
    signed = "" if signing is None else f"; signed by {signing.signer}"
    mark = "; without a watermark" if marking is None else f"; watermark number {marking.number}"
    print(
        json.dumps(summary) if args.json else f"{output}: {summary['seconds']:.1f} s{how[made.prosody]}{mark}{signed}"
    )
    return 0


def _many(args: argparse.Namespace) -> int:
    from jobs.bar import bar
    from jobs.codecs.conversion import convert_corpus

    if args.sign_key or args.sign_chain:
        raise ConfigError(
            "--sign-key signs one recording", "sign those of a folder afterwards: flowtts credentials sign"
        )
    if args.workers is not None and args.workers < 1:
        raise ConfigError(f"--workers {args.workers}", "give 1 or more")
    voice, prosody, told = _references(args)
    with bar(quiet=args.json) as shown:
        task = shown.add_task("converting", total=None)
        made = convert_corpus(
            args.inputs,
            args.output,
            args.codec,
            voice,
            prosody,
            same_words=_same(args),
            marking=marking_of(args),
            provenance=told,
            workers=args.workers,
            address=args.address,
            overwrite=args.overwrite,
            report=lambda done, total: shown.update(task, completed=done, total=total),
        )
    aside = f"; {made.set_aside} set aside: quarantine.jsonl says why" if made.set_aside else ""
    said = f"{made.output}: {made.sounds} recordings, {made.hours:.2f} h, in {made.wall_s:.0f} s{aside}"
    print(json.dumps({**asdict(made), **told}) if args.json else said)
    return SOME_SET_ASIDE if made.set_aside else 0


def _same(args: argparse.Namespace) -> bool | None:
    return {"auto": None, "same": True, "other": False}[args.words]


def _references(args: argparse.Namespace) -> tuple[Reference | None, Reference | None, dict[str, Any]]:
    """Return the recordings of voice and prosody, cleaned as those of clones, and what is told of them."""
    found, told = dict[str, Any](), dict[str, Any]()
    for option in ("voice_of", "prosody_of"):
        file = getattr(args, option)
        found[option] = None
        if file is not None:
            found[option], told[option] = _reference(file)
    told["consent"] = args.consent or None
    return found["voice_of"], found["prosody_of"], told


def _reference(file: str) -> tuple[Reference, dict[str, Any]]:
    from flowtts_core.audio.reference import clean_reference
    from flowtts_core.request import PromptClip
    from flowtts_core.voice.cloning import speakers_note

    clip = PromptClip(Path(file).read_bytes())
    reference = clean_reference(clip)
    notes = [*reference.notes, *filter(None, [speakers_note(reference)])]
    for note in notes:
        print(f"note: {file}: {note}", file=sys.stderr)
    return reference, {"source": file, "source_sha256": clip.digest, "notes": notes}
