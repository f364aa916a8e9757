"""The command-line options that a request's fields give: derived from `REQUEST_FIELDS`, so that a new field has its option."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowtts_core.request import REQUEST_FIELDS, PromptClip

if TYPE_CHECKING:
    from flowtts_core.text.cast import Cast


def add_request_options(group: Any) -> None:
    """Add an option for each field of a request but its text; one that is not given is None."""
    for name, field in REQUEST_FIELDS.items():
        default = "the voice's own" if field.default is None else field.default
        kind = {"type": field.kind} if field.kind in (int, float) else {}
        choices: dict[str, Any] = {"choices": field.choices} if field.choices else {}
        names = {int: "N", float: "X", PromptClip: "FILE"}
        metavar = None if choices else names.get(field.kind, "NAME")
        meaning = f"{field.meaning} (default: {default})".replace("%", "%%")
        group.add_argument(f"--{name.replace('_', '-')}", metavar=metavar, help=meaning, **kind, **choices)
    group.add_argument(
        "--ssml", action="store_const", const="ssml", dest="input_type", help="the text is SSML, as --input-type ssml"
    )


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
