"""Rules for abbreviations, initials, Roman numerals, capitals and symbols."""

from __future__ import annotations

import re
import unicodedata

from flowtts_core.text import numbers as say
from flowtts_core.text.expand_common import (
    AMOUNT,
    Answer,
    Context,
    Rule,
    is_last,
    letters,
    stop,
    word_after,
    word_before,
)
from flowtts_core.text.expand_digits import mixed_code, money, web
from flowtts_core.text.wordlists import (
    ABBREVIATIONS,
    BARE,
    BEFORE_NUMBER,
    NUMBERED,
    READ_AS_WORDS,
    RULERS,
    SPELLED,
    SYMBOLS,
    UNITS,
)

_NUMBER_FOLLOWS = re.compile(r"\s*\d|\s+(?:[IVXLC]{2,}|[VX])\b")


_PER = re.compile(r"(?:kg|g|lb|km|m|cm|mm|l|L|ml|h|hr|s|sec|min|m²|m³|hour|day|week|month|year|person|mile)(?![\w.])")


AFTER_LETTER = r"[,;:.!?)]|\Z|\s+(?:is|was|and|or|to|has|had|for)\b"


_VOWEL = re.compile("[AEIOUY]")


def _dotted(m: re.Match[str], context: Context) -> Answer:
    raw = m.group()
    known = ABBREVIATIONS.get(raw.rstrip("."), ABBREVIATIONS.get(raw.lower().rstrip(".")))
    end = m.end()
    return stop(m, end) if known is None else end, known or letters(raw)


def _initial(m: re.Match[str], context: Context) -> Answer:
    if m.group(1) == "I" and (word_before(m).islower() or not word_before(m)):
        return None
    if word_before(m).lower() in NUMBERED and say.roman(m.group(1)):
        return None  # "CHAPTER I. Down the Rabbit-Hole" holds a number, which the rule for Roman numerals reads
    return m.end(), letters(m.group(1))


def _abbreviation(m: re.Match[str], context: Context) -> Answer:
    word, end = m.group(1), m.end()
    dotted = m.group(2) == "."
    if not dotted and word not in BARE:
        return None
    if word in BEFORE_NUMBER and dotted and _NUMBER_FOLLOWS.match(m.string, end):
        return (end, BEFORE_NUMBER[word]) if word != "c" or re.match(r"\s*\d{3,4}\b", m.string[end:]) else None
    if word in ("St", "Dr"):
        street = (
            word_before(m)[:1].isupper() and m.start() > 1 and m.string[m.start() - 2 : m.start()].strip(" ").isalnum()
        )
        named = re.match(r"\s+[A-Z]", m.string[end:])
        if word == "Dr":
            return stop(m, end), "drive" if street and not named else "doctor"
        return stop(m, end), "street" if street and not named else "saint"
    if word not in ABBREVIATIONS:
        return None
    if word == "al" and word_before(m) != "et" or word in ("min", "max", "est", "ed", "trans") and is_last(m, end):
        return None
    if word in ("Gen", "Ave", "Rep", "Sen", "Mon", "Col", "Hon", "Pt", "Ft") and not dotted:
        return None
    if word == "etc" and dotted and re.match(r"[\"')\]]*\s+[A-Z]", m.string[end:]):
        return end - 1, ABBREVIATIONS[word]
    return stop(m, end), ABBREVIATIONS[word]


def _roman(m: re.Match[str], context: Context) -> Answer:
    text = m.group(1)
    value = say.roman(text)
    if value is None:
        return None
    before, after = word_before(m), word_after(m, m.end())
    whole = context.text.strip().rstrip(".:") == text
    starts = not context.text[: m.start()].strip()
    if after == "century" or after == "centuries":
        return m.end(), say.ordinal(value)
    if (
        before.lower() in NUMBERED
        and (text != "I" or before != "No")
        and m.string[m.start() - 1 : m.start()] in (" ", ".")
    ):
        return m.end(), say.cardinal(value)
    if not text.isupper():
        return None
    if before.lower() in RULERS and before[:1].isupper() and m.string[m.start() - 1] == " ":
        return (
            None
            if text == "I" and after in ("am", "have", "will", "was", "think")
            else (m.end(), f"the {say.ordinal(value)}")
        )
    if starts and len(text) > 1 and re.match(r"\s+[A-Z]", m.string[m.end() :]) and text not in SPELLED:
        return m.end(), say.cardinal(value)
    if whole or (
        starts
        and re.match(r"[.:]\s", m.string[m.end() :])
        and (text != "I" or word_after(m, m.end() + 1)[:1].isupper())
    ):
        return m.end(), say.cardinal(value)
    if (
        len(text) > 1
        and before[:1].isupper()
        and text not in SPELLED | {"MD", "DI", "CV", "MC", "MIX", "MM", "CC", "CD", "DM"}
    ):
        return m.end(), say.cardinal(value)
    return None


def _capitals(m: re.Match[str], context: Context) -> Answer:
    word, tail = m.group(1), (m.group(2) or "").replace("'", "")
    lower = word.lower()
    if word in READ_AS_WORDS:
        return None
    if word in ("WWI", "WWII"):
        return (m.end(), f"World War {'one' if word == 'WWI' else 'two'}") if not tail else None
    value = say.roman(word) if set(word) <= set("IVX") else None
    if value is not None:
        return (m.end(), say.cardinal(value)) if not tail else None
    spelled = word in SPELLED
    if not spelled and not context.headline:
        spelled = not _VOWEL.search(word) or (len(word) < 5 and not context.is_word(lower))
    elif not spelled:
        spelled = not _VOWEL.search(word) and not context.is_word(lower)
    elif context.headline and context.is_word(lower) and lower in ("us", "am", "ok", "or", "la", "ad"):
        spelled = False
    if not spelled:
        return None
    if tail:
        return m.end(), f"{letters(word[:-1])} {word[-1].lower()}'s"
    return m.end(), letters(word)


def _symbol(m: re.Match[str], context: Context) -> Answer:
    char, after = m.group(), m.string[m.end() : m.end() + 1]
    if char == "#":
        return m.end(), "number" if after.isdigit() else "hashtag" if after.isalpha() else ""
    if char == "/":
        unit = _PER.match(m.string, m.end())
        return (unit.end(), f"per {UNITS.get(unit.group(), unit.group())}") if unit else None
    if char == "&" and after == "c":
        return m.end() + 1 + (m.string[m.end() + 1 : m.end() + 2] == "."), "et cetera"
    if char == "~":
        return m.end(), "about" if after.isdigit() else ""
    if char in "<>":
        return m.end(), ("less than" if char == "<" else "greater than") if after in " " or after.isdigit() else ""
    if char == "^":
        return m.end(), "to the power of" if after.isdigit() else ""
    return (m.end(), SYMBOLS[char]) if char in SYMBOLS else None


def _greek(m: re.Match[str], context: Context) -> Answer:
    return m.end(), unicodedata.name(m.group()).split(" WITH ")[0].split()[-1].lower().replace("lamda", "lambda")


LETTER_RULES: list[tuple[str, Rule]] = [
    (r"(?P<country>US|C|CA|A|AU|NZ|HK)(?P<currency>\$)\s?" + AMOUNT, money),
    (
        r"(?:https?://|www\.)\S+|[\w.+-]{1,64}@[\w-]{1,63}\.[\w.-]{1,200}|[a-z\d-]{2,63}(?:\.[a-z]{2,})?\.(?:com|org|net|edu|gov|io|co\.uk)\b\S*",
        web,
    ),
    (r"Ph\.\s?D\.|(?:[A-Za-z]\.\s?){1,12}[A-Za-z]\.(?!\w)", _dotted),
    (r"([A-Z][a-z]*|[a-z]{1,6})(\.?)(?![\w.@])", _abbreviation),
    (r"([A-Z])\.(?=\s+[A-Z][\w.])", _initial),
    (r"([MDCLXVI]{1,15}|[ivxlc]{1,15})\b(?![\w'-])", _roman),
    (r"x(?=\s?\d)(?:(?<=\dx)|(?<=\d x))", lambda m, c: (m.end(), "times")),
    (r"[wW]/(?=\s|[a-z])", lambda m, c: (m.end(), "with")),
    (r"v(\d+(?:\.\d+)+)", lambda m, c: (m.end(), f"version {say.number(m.group(1))}")),
    (r"[A-Za-z]+\d[A-Za-z\d]*", mixed_code),
    (r"([A-Z]{2,})('?s)?(?![\w])", _capitals),
    (r"[\u0370-\u03ff](?!\w)", _greek),
    (rf"A(?={AFTER_LETTER})", lambda m, c: (m.end(), "^a") if word_before(m) and not c.headline else None),
]


SYMBOL_RULES: list[tuple[str, Rule]] = [(r"[^\w\s]", _symbol)]
