"""A piece of text to be read: a word, spelled letter, inline IPA, mark or space; and how a place of the text is read."""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["word", "letter", "syllables", "ipa", "mark", "space", "skip"]


class Piece(NamedTuple):
    """`text` is what is read; `start, end` are characters of the source.

    Consecutive spoken pieces with the same span belong to one written word ("$3" is read "three dollars").
    Kind "syllables" is one word by its syllables, with hyphens between ("shi-VAWN").
    Kind "skip" is a written word that this language cannot read (another script).
    """

    text: str
    start: int
    end: int
    kind: Kind

    @property
    def spoken(self) -> bool:
        return self.kind in ("word", "letter", "syllables", "ipa")


class Reading(NamedTuple):
    """`text[start:end]` is read as `words`, separated by blanks. `^x` is the letter x, a comma a pause."""

    start: int
    end: int
    words: str
