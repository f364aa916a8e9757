"""Normalise English text to the words that a recogniser writes, for word error rates.

Applied to both sides, in this order: curly quotes straightened; `&` to "and"; titles written out (Mr. -> mister);
money, ordinals, years, other numbers and percent signs to words; lower case; accents dropped; all but letters,
apostrophes inside words and spaces to a space. Hyphenated words become two.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from decimal import Decimal

import numpy as np
from num2words import num2words

_TITLES = {
    "mr": "mister", "mrs": "missus", "dr": "doctor", "st": "saint", "prof": "professor", "rev": "reverend",
    "capt": "captain", "col": "colonel", "gen": "general", "messrs": "messieurs", "etc": "et cetera",
}  # fmt: skip
_TITLE = re.compile(rf"\b({'|'.join(_TITLES)})\.", re.IGNORECASE)
_CURRENCIES = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"),
}
_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"
_MONEY = re.compile(rf"([$£€])\s?({_NUMBER})")
_ORDINAL = re.compile(r"\b(\d{1,3}(?:,\d{3})+|\d+)(?:st|nd|rd|th)\b", re.IGNORECASE)
_PLAIN = re.compile(_NUMBER)
_BUCKETS = 256
_YEAR = re.compile(r"(?:1[1-9]|20)\d\d")


def normalize_english(text: str) -> str:
    """Return lower-case words separated by single spaces; "" for a text without words."""
    text = text.replace("\u2019", "'").replace("\u2018", "'").replace("&", " and ")
    text = _TITLE.sub(lambda match: _TITLES[match[1].lower()], text)
    text = _MONEY.sub(lambda match: _money(match[1], match[2]), text)
    text = _ORDINAL.sub(lambda match: _spoken(match[1], "ordinal"), text)
    text = _PLAIN.sub(lambda match: _number(match[0]), text).replace("%", " percent ")
    letters = "".join(c for c in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(c))
    letters = re.sub(r"[^a-z']+", " ", letters)
    return " ".join(word.strip("'") for word in letters.split() if word.strip("'"))


def trigram_embedding(text: str) -> np.ndarray:
    """Embed a text without a model: counts of its letter trigrams, hashed to [256] and scaled to length 1.

    Texts that share words are near each other. Conditional distances use it where no trained text embedder is given.
    """
    letters = f" {normalize_english(text)} "
    buckets = [zlib.crc32(letters[i : i + 3].encode()) % _BUCKETS for i in range(len(letters) - 2)]
    counts = np.bincount(buckets, minlength=_BUCKETS).astype(np.float32)
    return np.asarray(counts / max(float(np.linalg.norm(counts)), 1.0))


def _money(sign: str, digits: str) -> str:
    one, many, small_one, small_many = _CURRENCIES[sign]
    amount = Decimal(digits.replace(",", ""))
    whole, hundredths = int(amount), int(amount * 100) % 100
    parts = [f"{_spoken(whole)} {one if whole == 1 else many}"] if whole or not hundredths else []
    if hundredths:
        parts.append(f"{_spoken(hundredths)} {small_one if hundredths == 1 else small_many}")
    return f" {' '.join(parts)} "


def _number(digits: str) -> str:
    return _spoken(digits, "year") if _YEAR.fullmatch(digits) else _spoken(digits)


def _spoken(digits: str | int, how: str = "cardinal") -> str:
    value = Decimal(str(digits).replace(",", ""))
    number = value if value != value.to_integral_value() else int(value)
    return f" {num2words(number, to=how)} "
