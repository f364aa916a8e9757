"""What the rules of expand.py share: their answers, and what stands before and after a place of the text."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from flowtts_core.text.wordlists import UNITS


class Reading(NamedTuple):
    """`text[start:end]` is read as `words`, parted by blanks; `^x` is the letter x, a comma a pause."""

    start: int
    end: int
    words: str


class Context(NamedTuple):
    text: str
    headline: bool  # the text is in capitals throughout
    is_word: Callable[[str], bool]


Answer = tuple[int, str] | None  # end and words


Rule = Callable[[re.Match[str], Context], Answer]


NUM = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)*|\.\d+)(?![\d])"


SCALE = r"(?:thousand|million|billion|trillion|hundred)"


AMOUNT = rf"(?P<amount>{NUM})(?:\s?-?(?P<scale>{SCALE}|(?:k|m|mn|bn|tn|K|M|B)\b)(?![\w.]\w))?"


MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?"
    r"|Sept?(?:ember)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)"
)


UNIT = "|".join(re.escape(unit) for unit in sorted(UNITS, key=len, reverse=True))


_LAST_WORD = re.compile(r"([A-Za-z]+)[.,]?[\s(\"']*\Z")


_NEXT_WORD = re.compile(r"\s+([A-Za-z]+)")


_CLOSING = re.compile(r"[\s\"')\]]*\Z")


_STARTERS = frozenset(
    "The A An He She It They We You I Then But And So In On At There This That When While If As His Her".split()
)


def word_before(m: re.Match[str]) -> str:
    found = _LAST_WORD.search(m.string, max(0, m.start() - 30), m.start())
    return found.group(1) if found else ""


def word_after(m: re.Match[str], end: int) -> str:
    found = _NEXT_WORD.match(m.string, end)
    return found.group(1) if found else ""


def is_last(m: re.Match[str], end: int) -> bool:
    return bool(_CLOSING.match(m.string, end))


def stop(m: re.Match[str], end: int) -> int:
    """Where an abbreviation ends: at the text's end its full stop closes the sentence too and is left standing."""
    return end - 1 if m.string[end - 1] == "." and (is_last(m, end) or word_after(m, end) in _STARTERS) else end


def letters(text: str) -> str:
    return " ".join(f"^{c.lower()}" for c in text if c.isalpha())


def compiled(rules: list[tuple[str, Rule]]) -> list[tuple[re.Pattern[str], Rule]]:
    return [(re.compile(pattern), rule) for pattern, rule in rules]
