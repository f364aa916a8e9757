"""The command-line options that a request's fields give: derived from `REQUEST_FIELDS`, so that a new field has its option."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from flowtts_core.request import REQUEST_FIELDS, PromptClip


def add_request_options(group: Any) -> None:
    """Add an option for each field of a request but its text; one that is not given is None."""
    for name, field in REQUEST_FIELDS.items():
        default = "the voice's own" if field.default is None else field.default
        kind = {"type": field.kind} if field.kind in (int, float) else {}
        choices = {"choices": field.choices} if field.choices else {}
        named = "FILE" if field.kind is PromptClip else {int: "N", float: "X"}.get(field.kind, "NAME")
        metavar = None if choices else named  # argparse shows the choices themselves
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
