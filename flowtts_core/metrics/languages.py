"""What of a text counts for error rates, in each language: English words, other letters, Japanese readings."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

from flowtts_core.metrics.english import normalize_english

WITHOUT_SPACES = ("ja", "zh", "th")  # their words have no spaces between them, so there is no word error rate


def normalizer_of(language: str) -> Callable[[str], str]:
    """Return what both sides of a comparison go through; `language` as Whisper names it ("en", "ja").

    Raises:
        DependencyError: for Japanese without its extra.
    """
    if language == "en":
        return normalize_english
    if language == "ja":
        return _reading()
    return _unspaced if language in WITHOUT_SPACES else _letters


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
