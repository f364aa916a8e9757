"""Write words of other scripts in Latin letters, for front ends that read no others."""

from __future__ import annotations

import re
import unicodedata

from anyascii import anyascii

LATIN = re.compile(r"[A-Za-zªº\u00c0-\u024f\u1e00-\u1eff'-]+\Z")
# The ʻokina, hamza, ayin, soft sign and saltillo, which stand beside Latin letters and have no sound of their own here.
_MODIFIERS = re.compile("[\u02b9-\u02c1\ua78b\ua78c]")
_WORD = re.compile("[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_ORNAMENTS = range(0x2500, 0x27C0)  # boxes, stars, hands, leaves


def in_latin(word: str) -> list[str]:
    """Return a word in Latin letters: `Hawaiʻi` as Hawaii, `Иван` as Ivan, `東京` as Dong, Jing; empty where none are known."""
    plain = _MODIFIERS.sub("", word)
    return [plain] if LATIN.match(plain) else _WORD.findall(anyascii(plain))


def plain_letters(letter: str) -> str:
    """Return a letter as letters without marks: é as e, ß as ss, ж as zh; empty for what is no letter, or has no such form."""
    plain = anyascii(letter) if letter.isalpha() else ""
    return plain if plain.isalpha() else ""


def unread(text: str) -> list[tuple[int, int]]:
    """Return the places `(start, end)` of a text that was passed over where a listener would miss something.

    These are letters, digits and signs with a meaning (∮, ¤, emoji), but not marks, ASCII signs and ornaments.
    """
    found = re.finditer(r"[^\W_]+|[^\x00-\x7f\w\s]", text)
    return [match.span() for match in found if match.group()[0].isalnum() or _has_meaning(match.group())]


def _has_meaning(sign: str) -> bool:
    return unicodedata.category(sign) in ("Sc", "Sm", "So") and ord(sign) not in _ORNAMENTS and sign not in "™®©℠°"
