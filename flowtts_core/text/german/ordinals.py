"""Whether a number or an abbreviation with a full stop goes on, and how an ordinal number is inflected."""

from __future__ import annotations

import re

from flowtts_core.text.german.wordlists import (
    FEMININE_NOUNS,
    MASCULINE_NOUNS,
    MONTHS,
    NEUTER_NOUNS,
    NOMINATIVE,
    PREPOSITIONS,
    WEAK,
)

MONTH = rf"(?:{'|'.join(MONTHS)}|Jänner|(?:Jan|Jän|Febr?|Apr|Aug|Sept?|Okt|Nov|Dez)\.)(?!\w)"
_NOUNS = FEMININE_NOUNS | MASCULINE_NOUNS | NEUTER_NOUNS | {*MONTHS, "Jänner", "Jahrhunderts", "Jahrhunderte"}
_LAST_WORD = re.compile(r"([^\W\d_]+)[\s\"'(]*\Z")
_LAST_TWO = re.compile(r"([^\W\d_]+)\s+[^\W\d_]+[\s\"'(]*\Z")
_NEXT = re.compile(r"\s+([^\W\d_]+)")


def word_before(text: str, position: int) -> str:
    """The word directly before a place of the text, past blanks and opening marks; "" after any other mark."""
    found = _LAST_WORD.search(text, max(0, position - 40), position)
    return found[1] if found else ""


def _word_before_that(text: str, position: int) -> str:
    found = _LAST_TWO.search(text, max(0, position - 80), position)
    return found[1] if found else ""


def is_ordinal(text: str, start: int, end: int) -> bool:
    """Return whether the number and full stop `text[start:end]` is an ordinal number rather than the end of a sentence.

    It is one before a small letter, a month and a noun that is often counted ("Jahrhundert"), and after an article.
    """
    if int(re.sub(r"\D", "", text[start:end]) or 0) == 0:
        return False
    after = _NEXT.match(text, end)
    if after is None:
        return bool(re.match(r"[,;)]", text[end:])) and word_before(text, start).lower() in WEAK | NOMINATIVE
    return after[1].islower() or after[1] in _NOUNS or after_article(text, start) or not text[:start].strip()


def after_article(text: str, start: int) -> bool:
    """Return whether an article is before `start`, or what holds one ("am"); the "am" of "I am 30." does not."""
    before = word_before(text, start).lower()
    if before == "am" and _word_before_that(text, start) == "I":
        return False
    return before in (WEAK | NOMINATIVE) - {"ab", "bis", "seit"}


def ending_of(text: str, start: int, noun: str) -> str:
    """The ending of an ordinal number at `start` before a noun: "en" (am dritten), "e" (der dritte), "er" (dritter)."""
    before = word_before(text, start).lower()
    if before in WEAK:
        return "en"
    if before == "der" and (noun in FEMININE_NOUNS or _word_before_that(text, start).lower() in PREPOSITIONS):
        return "en"
    if before in NOMINATIVE:
        return "e"
    if before in ("bis", "und", "oder") and re.search(r"\d\.\s+\w+\s*\Z", text[max(0, start - 20) : start]):
        return "en"  # vom 1. bis 3. Mai
    if noun in FEMININE_NOUNS:
        return "e"
    return "es" if noun in NEUTER_NOUNS else "er"


def is_sentence_end(text: str, end: int) -> bool:
    """Return whether the text, or a quotation in it, ends at `end`."""
    return re.match(r"[\s\"')\]]*\Z", text[end:]) is not None
