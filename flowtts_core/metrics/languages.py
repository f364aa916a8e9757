"""What of a text counts for error rates, in each language: English and German words, other letters, Japanese readings."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from itertools import groupby

from flowtts_core.metrics.english import normalize_english
from flowtts_core.text.normalize import normalize

WITHOUT_SPACES = ("ja", "zh", "th")  # their words have no spaces between them, so there is no word error rate


def normalizer_of(language: str) -> Callable[[str], str]:
    """Return what both sides of a comparison go through; `language` as Whisper names it ("en", "de", "ja").

    Raises:
        DependencyError: for Japanese without its extra.
    """
    if language == "en":
        return normalize_english
    if language == "ja":
        return _reading()
    if language == "de":
        return normalize_german
    return _unspaced if language in WITHOUT_SPACES else _letters


def normalize_german(text: str) -> str:
    """Return lower-case German words as they are spoken: figures, signs and abbreviations written out, ss for ß.

    The letters of an acronym make one word, and the parts of a hyphenated word one each.
    """
    spoken = [piece for piece in normalize(text, "de") if piece.kind in ("word", "letter")]
    said = []
    for letters, run in groupby(spoken, lambda piece: (piece.start, piece.end) if piece.kind == "letter" else None):
        said.append(("" if letters else " ").join(piece.text for piece in run))
    return _letters(" ".join(said).replace("'", "")).replace("ß", "ss")


def _letters(text: str) -> str:
    """Return lower-case letters, their accents and digits, with single spaces for all else."""
    kept = (c if unicodedata.category(c)[0] in "LMN" else " " for c in unicodedata.normalize("NFKC", text).lower())
    return " ".join("".join(kept).split())


def _unspaced(text: str) -> str:
    return re.sub(r"\s", "", _letters(text))


@lru_cache(maxsize=1)
def _reading() -> Callable[[str], str]:
    """Return a function to katakana as it is pronounced, since a recogniser may write 九匹 for 9匹, or きれい for 綺麗."""
    from flowtts_core.text.frontends.openjtalk import OpenJtalkPhonemizer

    pieces = OpenJtalkPhonemizer().pieces
    return lambda text: "".join(piece.text for piece in pieces(text) if piece.kind == "word")
