"""The command-line options that a request's fields give: derived from `REQUEST_FIELDS`, so that a new field has its option."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowtts_core.request import REQUEST_FIELDS, PromptClip

if TYPE_CHECKING:
    from flowtts_core.signing import Signing
    from flowtts_core.text.cast import Cast
    from flowtts_core.voice.cloning import PreparedReference
    from flowtts_core.watermark.marking import Marking


def add_request_options(group: Any) -> None:
    """Add an option for each field of a request but its text; one that is not given is None."""
    for name, field in REQUEST_FIELDS.items():
        default = "the voice's own" if field.default is None else field.default
        kind = {"type": field.kind} if field.kind in (int, float) else {}
        choices: dict[str, Any] = {"choices": field.choices} if field.choices else {}
        names = {int: "N", float: "X", PromptClip: "FILE"}
        metavar = None if choices else names.get(field.kind, "TEXT" if field.option else "NAME")
        own = "" if field.option else f" (default: {default})"  # a recording is nobody's default
        meaning = f"{field.meaning}{own}".replace("%", "%%")
        known = {"dest": name, "metavar": metavar, **kind, **choices}
        group.add_argument(f"--{(field.option or name).replace('_', '-')}", help=meaning, **known)
        if field.option:  # its name in the library and in older commands
            group.add_argument(
                f"--{name.replace('_', '-')}", help=argparse.SUPPRESS, default=argparse.SUPPRESS, **known
            )
    group.add_argument(
        "--ssml", action="store_const", const="ssml", dest="input_type", help="the text is SSML, as --input-type ssml"
    )


def add_clone_options(group: Any) -> None:
    """Add the options about the recording that `--clone` names, beside those of a request."""
    group.add_argument(
        "--asr",
        metavar="KIND[:MODEL]",
        help="what transcribes: a recording without --ref-text (default: pocketsphinx, which hears English roughly; name a"
        " Whisper for others), and checks one with it; see flowtts evaluate --help",
    )
    add_consent_option(group)


def add_consent_option(group: Any) -> None:
    """Add `--consent`."""
    group.add_argument(
        "--consent",
        metavar="TEXT",
        default="",
        help="who agreed to be imitated, and when, for the record: it is kept with the recording's SHA-256 and name. Clone the"
        " voices of people who agreed, and no others",
    )


def prepared_clone(file: str, text: str | None, asr: str | None, language: str) -> PreparedReference:
    """Return what a recording gives to imitate, and tell on standard error what was done to it.

    Args:
        text: what is said in it; None has it transcribed.
        asr: by which recogniser.
        language: of the recording.

    Raises:
        FlowTTSError: for a recording or a text that cannot serve.
    """
    from flowtts_core.voice.cloning import prepare_reference

    prepared = prepare_reference(PromptClip(Path(file).read_bytes()), text, asr=asr, language=language)
    for note in prepared.notes:
        print(f"note: {file}: {note}", file=sys.stderr)
    if prepared.transcribed:
        print(
            f"heard in {file} by {prepared.transcribed}: {prepared.text!r}; where that is wrong, give --ref-text",
            file=sys.stderr,
        )
    return prepared


def add_watermark_options(group: Any) -> None:
    """Add the options about the mark that all that is spoken gets; `marking_of` reads them."""
    group.add_argument(
        "--no-watermark",
        action="store_true",
        help="leave out the mark that nobody hears and `flowtts watermark detect` finds; the law may ask for one",
    )
    group.add_argument(
        "--watermark-number", type=int, metavar="N", help="what the mark says, from 0 to 2047 (default: 0)"
    )
    group.add_argument(
        "--watermark-key",
        metavar="FILE",
        help="a file of secret bytes, without which the mark can be neither found nor made (default:"
        " FLOWTTS_WATERMARK_KEY, or none, so that all can look for it)",
    )


def marking_of(args: argparse.Namespace) -> Marking | None:
    """Return the mark that the options of `add_watermark_options` ask for; None leaves it out.

    Raises:
        ConfigError: for a number out of range, a key that is none, or a mark that is to be left out and to say something.
    """
    from flowtts_core.errors import ConfigError
    from flowtts_core.watermark.marking import Marking, read_key

    if not args.no_watermark:
        return Marking(args.watermark_number or 0, read_key(args.watermark_key, "--watermark-key"))
    if watermark_asked(args):
        raise ConfigError("--no-watermark leaves out what the other options about it ask for", "give one of them")
    return None


def watermark_asked(args: argparse.Namespace) -> bool:
    """Return whether the command line names a mark of its own."""
    return args.watermark_number is not None or args.watermark_key is not None


def add_signing_options(group: Any) -> None:
    """Add the options about content credentials; `signing_of` reads them."""
    group.add_argument(
        "--sign-key",
        type=Path,
        metavar="FILE",
        help="sign what is made, with content credentials (C2PA): the private key, PEM without a password; it is read here, and"
        " goes nowhere. Needs --sign-chain and pip install 'flowtts[credentials]'",
    )
    group.add_argument(
        "--sign-chain",
        type=Path,
        metavar="FILE",
        help="certificates, PEM: the signer's, then its authorities' (flowtts credentials make-chain makes a pair to try)",
    )


def signing_of(args: argparse.Namespace) -> Signing | None:
    """Return what signs, by the options of `add_signing_options`, once it has signed a trial; None where nothing is asked.

    Raises:
        ConfigError: for one option without the other, and a key or certificates that cannot sign.
        DependencyError: where the package is not installed.
    """
    from flowtts_core.errors import ConfigError

    if args.sign_key is None and args.sign_chain is None:
        return None
    if args.sign_key is None or args.sign_chain is None:
        raise ConfigError(
            "--sign-key and --sign-chain belong together", "give the key, and the certificates made for it"
        )
    from flowtts_core.signing import open_signing

    return open_signing(args.sign_key, args.sign_chain)


def add_lexicon_option(group: Any) -> None:
    """Add `--lexicon`, which `read_lexicon` reads."""
    group.add_argument(
        "--lexicon",
        metavar="FILE",
        help="your own words: lines of what is written (a word, a phrase, or a /regular expression/), a tab, and how it is"
        " read: IPA, a respelling (shi-VAWN) or other words; or a JSON object of the same. They go before all else",
    )


def read_lexicon(path: str | Path | None) -> dict[str, str]:
    """Return the words of a lexicon, none where no file is given; see `flowtts_core.text.frontends.lexicon`.

    Raises:
        TextError: when the file cannot be read or a line is wrong.
    """
    if path is None:
        return {}
    from flowtts_core.text.frontends.lexicon import load_lexicon

    return load_lexicon(path)


def request_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return the fields that were given; a clip as its path."""
    return {name: value for name in REQUEST_FIELDS if (value := getattr(args, name)) is not None}


def add_cast_options(group: Any) -> None:
    """Add the options that say who speaks which part of a text."""
    group.add_argument(
        "--cast",
        metavar="FILE",
        help='who speaks: JSON or TOML as {"Anna": "heart", "Bob": "VOICE@SPEAKER", "narrator": "natural"}, for lines that begin '
        "with [Anna]",
    )
    group.add_argument(
        "--dialogue", metavar="VOICE", help="what is said in quotation marks, by VOICE, VOICE@SPEAKER or @SPEAKER"
    )


def cast_of(args: argparse.Namespace) -> Cast:
    """Return who speaks, by the options of `add_cast_options`; raises ConfigError for a file that is no cast."""
    from flowtts_core.text.cast import Cast, load_cast
    from flowtts_core.text.marks import Manner

    cast = load_cast(args.cast) if args.cast else Cast()
    return replace(cast, dialogue=Manner(voice=args.dialogue)) if args.dialogue else cast
