"""Shared by the rules of expand.py: their answers, and what comes before and after a place of the text."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from flowtts_core.text.english.wordlists import ABBREVIATIONS, NUMBER_WORDS, STARTERS


class Context(NamedTuple):
    text: str
    headline: bool  # the text is in capitals throughout
    is_word: Callable[[str], bool]


Answer = tuple[int, str] | None  # the end, and the words


Rule = Callable[[re.Match[str], Context], Answer]


_GROUPED = (
    r"[1-9]\d?(?:,\d\d)+,\d{3}|\d{1,3}(?:,\d{3})+|[1-9]\d{0,2}(?: \d{3})* 000(?: \d{3})*|[1-9]\d{0,2}(?: \d{3}){2,6}"
)
NUM = rf"(?:(?:{_GROUPED})(?:\.\d+)?|\d+(?:\.\d+)*|\.\d+)(?![\d])"


SCALE = r"(?:thousand|million|billion|trillion|hundred|crore|lakh)"


AMOUNT = rf"(?P<amount>{NUM})(?:\s?-?(?P<scale>{SCALE}|(?:k|m|mn|bn|tn|K|M|B)\b)(?![\w.]\w))?"


MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?"
    r"|Sept?(?:ember)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)"
)


DASH = r"(?:-|\s?–\s?)"  # a hyphen between blanks may be a minus sign


_LAST_WORD = re.compile(r"([A-Za-z]+)[.,]?[\s(\"']*\Z")


_ADJACENT = re.compile(r"([A-Za-z]+)(\.?\s|\.)\Z")


_NEXT_WORD = re.compile(r"\s+([A-Za-z]+)")


_CLOSING = re.compile(r"[\s\"')\]]*\Z")


_FIRST = re.compile(r"\s+([A-Z][A-Za-z]*)(?![\w.])")


_STREET = re.compile(
    r"(?P<house>\d+[A-Za-z]?\s+(?:[NSEW]\.?\s+)?(?:[A-Z][\w'-]*\s+)?)?(?P<name>[A-Z][\w'-]*|\d+(?:st|nd|rd|th))\s\Z"
)


_AFTER_NO = re.compile(r"\s*\d|\s+(?:[IVXLC]{2,}|[VX])\b")


_WORD_AFTER_NO = re.compile(r"\s+([A-Z][a-z]+|[A-Z]{3,})\b(?P<end>\Z)?")


_BEFORE_NO = re.compile(
    r"(?:\A|\b(?:[Tt]o|[Aa]t|[Oo]f|[Ii]n|[Oo]n|[Ff]rom|[Tt]he|[Ff]or|[Nn]ear|[Ii]nto|[Oo]utside|[Bb]ehind|[Bb]y|[Pp]ast|[Pp]ier)\s)\Z"
)


_HYPHENED = re.compile(r"-[A-Za-z]")


# Words after an amount that are not the noun it belongs to.
_NO_NOUNS = frozenset(
    "of in for to and a an per each or at on by from with as is was are were be been has had have will would can could "
    "shall should may might must than that which who whose when where while if it he she they we i you but so not nor more "
    "less into over under between before after above below away apart ago due paid lost won spent left made went came got "
    "given sent taken worth out up down off back then there here now until till since about did does do he's it's said "
    "this these those his her their my your our its through across along behind beyond during within without because".split()
)
_ALSO_AFTER_A = frozenset(("or",))  # "a $5 or $10 bill"


def word_before(m: re.Match[str]) -> str:
    found = _LAST_WORD.search(m.string, max(0, m.start() - 30), m.start())
    return found.group(1) if found else ""


def next_to(m: re.Match[str]) -> tuple[str, str]:
    """Return the word directly before, and the blank or full stop and blank between; ("", "") after any other mark."""
    found = _ADJACENT.search(m.string, max(0, m.start() - 30), m.start())
    return (found.group(1), found.group(2)) if found else ("", "")


def word_after(m: re.Match[str], end: int) -> str:
    found = _NEXT_WORD.match(m.string, end)
    return found.group(1) if found else ""


def is_last(m: re.Match[str], end: int) -> bool:
    return bool(_CLOSING.match(m.string, end))


def stop(m: re.Match[str], end: int) -> int:
    """Return where an abbreviation ends: before its full stop where that also ends the sentence."""
    closes = m.string[end - 1] == "." and (is_last(m, end) or starts_sentence(m.string, end))
    return end - 1 if closes else end


def starts_sentence(text: str, position: int) -> bool:
    """Return whether the word after `position` begins a sentence, which the second A. of "A. A. Milne" does not."""
    found = _FIRST.match(text, position)
    return found is not None and (found.group(1) in STARTERS or found.group(1).title() in STARTERS)


def is_street(text: str, start: int, end: int) -> bool:
    """Return whether the "St." or "Dr." at `text[start:end]` is a street: it follows a name, and no name follows it."""
    found = _STREET.search(text, max(0, start - 60), start)
    if found is None or found["name"].title() in STARTERS or found["name"].title() in ABBREVIATIONS:
        return False
    house = found["house"] and not re.fullmatch(MONTH, found["name"])
    return bool(house) or starts_sentence(text, end) or not re.match(r"\s+[A-Z]", text[end : end + 3])


def is_number_sign(text: str, start: int, end: int) -> bool:
    """Return whether the "No." at `text[start:end]` means "number", as in "No. 5" and "at No. Ten"."""
    if _AFTER_NO.match(text, end):
        return True
    word = _WORD_AFTER_NO.match(text, end)
    if word is None or word.group(1).title() not in NUMBER_WORDS:
        return False
    before = _BEFORE_NO.search(text, max(0, start - 12), start)
    return before is not None and (before.end() > before.start() or word["end"] is not None)


def is_attributive(m: re.Match[str], end: int) -> bool:
    """Return whether the amount at `m` qualifies a noun and is singular: "a $20 bill", "the 12 V battery"."""
    after = word_after(m, end)
    if not after.islower() or after in _NO_NOUNS:
        return after in _ALSO_AFTER_A and word_before(m).lower() in ("a", "an")
    if after in ("bill", "bills", "note", "notes", "coin", "coins"):
        return True
    article = next_to(m)[0].lower()
    return article in ("a", "an") or article == "the" and not after.endswith(("ed", "ly"))


def is_hyphened(m: re.Match[str]) -> bool:
    """Return whether a word is joined to the amount at `m`: a $20-bill."""
    return _HYPHENED.match(m.string, m.end()) is not None


def letters(text: str) -> str:
    return " ".join(f"^{c.lower()}" for c in text if c.isalpha())


def compiled(rules: list[tuple[str, Rule]]) -> list[tuple[re.Pattern[str], Rule]]:
    return [(re.compile(pattern), rule) for pattern, rule in rules]
