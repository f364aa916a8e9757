"""`flowtts edit`: other words in a recording, in its own voice."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from jobs.request_options import (
    add_clone_options,
    add_signing_options,
    add_watermark_options,
    marking_of,
    prepared_clone,
    signing_of,
)


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "edit",
        help="say words of a recording anew, in its own voice",
        description="Replace words of an English recording of up to a minute. The sentence is spoken anew by a voice that"
        " imitates the recording, and the new words take the place of the old; all else stays as it was, but for the"
        " watermark, which the whole of it gets, since a recording with words that nobody said is synthetic. Edit the voices of"
        " people who agreed, and no others.",
        epilog="examples:\n"
        '  flowtts edit talk.wav --replace "Monday=Tuesday" --text "We meet on Monday." --voice voices/f5 -o new.wav\n'
        '  flowtts edit talk.wav --replace "um=" --voice voices/f5     leaves a word out; the text is transcribed',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recording", help="an audio file")
    parser.add_argument(
        "--replace",
        metavar="OLD=NEW",
        action="append",
        required=True,
        help="words as they are in the text, and what is to be said; nothing leaves them out. May be given again",
    )
    parser.add_argument("--text", help="what is said in the recording, word for word (default: it is transcribed)")
    parser.add_argument("--voice", required=True, help="a voice that imitates: a name, a folder or hf://owner/name")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("edited.wav"), help="the new file (default: edited.wav)"
    )
    parser.add_argument("--seed", type=int, default=0, help="another number, another reading (default: 0)")
    add_clone_options(parser)
    add_watermark_options(parser)
    add_signing_options(parser)
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from flowtts_core.audio.files import read_audio
    from flowtts_core.credentials import Statement
    from flowtts_core.engines.edit import edit_recording, find_words
    from flowtts_core.engines.forced_alignment import open_aligner
    from flowtts_core.voice import find_voice, load_card, open_voice
    from jobs.say import require_place, write

    require_place(args.output)
    marking, signing = marking_of(args), signing_of(args)
    voice = open_voice(args.voice)
    voice.check_settings({"prompt": args.recording})
    waveform, rate = read_audio(args.recording, longest_s=300.0)
    reference = prepared_clone(args.recording, args.text, args.asr, "en")
    text = " ".join((args.text or reference.text).split())
    done = []
    for given in args.replace:
        change = find_words(text, given)
        edited = edit_recording(waveform, rate, text, change, voice, reference, open_aligner(), seed=args.seed)
        done.append({"replaced": given, "at_s": round(edited.start_s, 3), "until_s": round(edited.end_s, 3)})
        waveform, text = edited.waveform, edited.text
    if marking is not None:
        waveform = marking.marked(waveform, rate)
    card = load_card(find_voice(args.voice))
    statement = Statement(edited=True, voice=card.name, licence=card.licence, consent=args.consent)
    write(args.output, waveform, rate, signing, statement)
    told = {
        "output": str(args.output),
        "text": text,
        "edits": done,
        "watermark": None if marking is None else marking.identity,
        "signed": None if signing is None else signing.facts,
        "reference": reference.provenance(args.recording, args.consent),
    }
    if args.json:
        print(json.dumps(told, ensure_ascii=False))
    else:
        places = ", ".join(f"{edit['replaced']!r} at {edit['at_s']:.1f} s" for edit in done)
        mark = "; without a watermark" if marking is None else f"; watermark number {marking.number}"
        signed = "" if signing is None else f"; signed by {signing.signer}"
        print(f"{args.output}: {places}{mark}{signed}")
    return 0
