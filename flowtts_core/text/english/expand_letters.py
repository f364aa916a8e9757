"""Rules for abbreviations, initials, Roman numerals, capitals and symbols."""

from __future__ import annotations

import re
import unicodedata

from flowtts_core.text.english import numbers as say
from flowtts_core.text.english.expand_codes import mixed_code, web
from flowtts_core.text.english.expand_common import (
    Answer,
    Context,
    Rule,
    is_last,
    is_number_sign,
    is_street,
    letters,
    next_to,
    starts_sentence,
    stop,
    word_after,
    word_before,
)
from flowtts_core.text.english.expand_measures import power
from flowtts_core.text.english.expand_money import FOREIGN_MONEY_RULES
from flowtts_core.text.english.expand_short import NUMERAL_RULES, SHORT_RULES
from flowtts_core.text.english.expand_times import DATE_WORD_RULES
from flowtts_core.text.english.units import PER, UNITS
from flowtts_core.text.english.wordlists import (
    ABBREVIATIONS,
    BARE,
    BEFORE_NUMBER,
    NO_NUMERALS,
    NUMBERED,
    READ_AS_WORDS,
    RULERS,
    SCRIPTURE,
    SELDOM_NUMERALS,
    SOUNDS,
    SPELLED,
    STARTERS,
    SYMBOLS,
)

_STREETS = {"St": ("street", "saint"), "Dr": ("drive", "doctor")}


_ORDERS = {"Fr": "father", "Br": "brother", "Sr": "sister"}
_FIRST_OF_TWO = re.compile(r"([A-Z][a-z]+)\s[A-Z][a-z]+\s\Z")  # Henry Ford II
_TITLES = frozenset("king queen pope emperor tsar czar".split())


_VERSE_FOLLOWS = re.compile(r"\s+\d{1,3}:\d")


_ZIP_CODE = re.compile(r"\s\d{5}(?!\d)")


_VOWELLESS = frozenset("hm hmm mr mrs dr nth st".split())  # read as words of the lexicon, not as letters


# "Part I was", but "the book I read": words that follow the numeral but hardly ever the pronoun.
_AFTER_NUMBER = frozenset(
    "was is began ended of and or to in on for by from with begins ends opens closes has contains deals shows tells "
    "which that".split()
)
_AFTER_RULER = frozenset(
    "was is had has of and or reigned ruled died became came succeeded abdicated ascended married won lost fled in to "
    "who whom whose by from with at as".split()
)


_DETERMINERS = frozenset("a an the his her their my your no".split())
_DRIPS = frozenset(
    "drip drips line lines fluid fluids bag bags pole tube therapy needle access antibiotics push".split()
)


_SOUND_WORDS = {f"sound{i}": word for i, word in enumerate(SOUNDS.values())}
_SOUND = "|".join(f"(?P<sound{i}>{pattern})" for i, pattern in enumerate(SOUNDS))


_NUMBER_FOLLOWS = re.compile(r"\s*\d|\s+(?:[IVXLC]{2,}|[VX]|[ivx]{2,})\b|\s+[IVX]+[-–][IVX]")


_PER = re.compile(rf"(?:{'|'.join(map(re.escape, sorted(PER, key=len, reverse=True)))})(?![\w^]|\.\w)")


AFTER_LETTER = r"[,;:.!?)]|\Z|\s+(?:is|was|and|or|to|has|had|for)\b"


_VOWEL = re.compile("[AEIOUY]")


def _dotted(m: re.Match[str], context: Context) -> Answer:
    raw = m.group()
    known = ABBREVIATIONS.get(raw.rstrip("."), ABBREVIATIONS.get(raw.lower().rstrip(".")))
    end = m.end()
    return stop(m, end) if known is None else end, known or letters(raw)


def _initial(m: re.Match[str], context: Context) -> Answer:
    before, gap = next_to(m)
    if m.group(1) in "IVX" and m.string[m.end()] == "," and (before.lower() in RULERS or m.group(1) == "I" and before):
        return m.end(), f"the {say.ordinal(say.roman(m.group(1)) or 1)}"  # "in the reign of James I., who"
    if m.group(1) == "I" and (word_before(m).islower() or not word_before(m)):
        return None
    if word_before(m).lower() in NUMBERED and say.roman(m.group(1)):
        return None  # "CHAPTER I. Down the Rabbit-Hole" holds a number, which the rule for Roman numerals reads
    if before and gap.isspace() and starts_sentence(m.string, m.end()):
        return m.end() - 1, letters(m.group(1))  # "Plan C. It works."
    return m.end(), letters(m.group(1))


def _abbreviation(m: re.Match[str], context: Context) -> Answer:
    word, end = m.group(1), m.end()
    dotted = m.group(2) == "."
    if len(word) > 1 and word.isupper():  # MR. HYDE
        word = word.title()
        if not dotted and (word == "Ms" or not word_after(m, end)[:1].isupper()):
            return None
    if not dotted and word not in BARE and word not in SCRIPTURE:
        return None
    if _VERSE_FOLLOWS.match(m.string, end):
        return (end, SCRIPTURE[word]) if word in SCRIPTURE else None
    if word == "No" and dotted:
        return (end, "number") if is_number_sign(m.string, m.start(), end) else None
    if word in BEFORE_NUMBER and dotted and _NUMBER_FOLLOWS.match(m.string, end):
        dated = word not in ("b", "c", "d", "fl") or re.match(r"\s*\d{3,4}\b", m.string[end:])
        return (end, BEFORE_NUMBER[word]) if dated else None
    if word in _ORDERS and dotted and _is_name_of_order(m, end):
        return end, _ORDERS[word]
    if word in _STREETS:
        street, other = _STREETS[word]
        return stop(m, end), street if is_street(m.string, m.start(), end) else other
    return _plain_abbreviation(m, word, dotted)


def _is_name_of_order(m: re.Match[str], end: int) -> bool:
    """Return whether a name follows "Sr.", and none comes before it: Sr. Mary, but not Sammy Davis Sr. Sang."""
    before, gap = next_to(m)
    after = word_after(m, end)
    return after[:1].isupper() and after not in STARTERS and not (before[:1].isupper() and gap.isspace())


def _plain_abbreviation(m: re.Match[str], word: str, dotted: bool) -> Answer:
    """Read an abbreviation that has one reading everywhere. `word` is its spelling in the list."""
    end = m.end()
    if word not in ABBREVIATIONS or not dotted and word not in BARE:
        return None
    if word == "al" and word_before(m) != "et" or word in ("min", "max", "est", "ed", "trans") and is_last(m, end):
        return None
    if word == "etc" and dotted and re.match(r"[\"')\]]*\s+[A-Z]", m.string[end:]):
        return end - 1, ABBREVIATIONS[word]
    if word.lower() in NUMBERED:
        return end, ABBREVIATIONS[word]  # what follows "Vol." is its number, though it be I
    return stop(m, end), ABBREVIATIONS[word]


def _roman(m: re.Match[str], context: Context) -> Answer:
    text, owner = m.group(1), (m.group(2) or "")
    value = say.roman(text)
    if value is None:
        return None
    if word_after(m, m.end()) in ("century", "centuries") and not owner:
        return m.end(), say.ordinal(value)
    before, gap = next_to(m)
    if _is_numbered(m, before, gap):
        return m.end(), say.cardinal(value) + owner
    if not text.isupper():
        small = len(text) > 1 and text.islower() and set(text) <= set("ivx") and text not in ("xx", "xxx")
        return (m.end(), say.cardinal(value)) if small and not owner else None
    if gap.isspace() and before[:1].isupper() and before.lower() in RULERS and _is_ruler(m, before):
        return m.end(), f"the {say.ordinal(value)}{owner}"
    if not owner and _heads(m, context):
        return m.end(), say.cardinal(value)
    named = gap.isspace() and before[:1].isupper() and before not in STARTERS and len(text) > 1
    first = _FIRST_OF_TWO.search(m.string, max(0, m.start() - 40), m.start()) if named else None
    if first is not None and first[1].lower() in RULERS - _TITLES and set(text) <= set("IV"):
        return m.end(), f"the {say.ordinal(value)}{owner}"
    if named and set(text) <= set("IVXL") and text not in SELDOM_NUMERALS | SPELLED and not _is_drip(m, before):
        return m.end(), say.cardinal(value) + owner
    return None


def _roman_range(m: re.Match[str], context: Context) -> Answer:
    """Read Louis XIV–XVI, Chapters IV–VI, pages iv–ix, the XIV–XVI centuries."""
    low, high = (text for text in m.groups() if text)
    first, last = say.roman(low), say.roman(high)
    if first is None or last is None or first >= last:
        return None
    if word_after(m, m.end()) in ("century", "centuries"):
        return m.end(), f"{say.ordinal(first)} to {say.ordinal(last)}"
    before, gap = next_to(m)
    if before.lower() in RULERS and before[:1].isupper() and gap.isspace():
        return m.end(), f"the {say.ordinal(first)} to the {say.ordinal(last)}"
    letters_too = {low, high} & (SELDOM_NUMERALS | SPELLED) or low.islower() or min(len(low), len(high)) < 2
    if before.lower() not in NUMBERED and letters_too:
        return None
    return m.end(), f"{say.cardinal(first)} to {say.cardinal(last)}"


def _is_numbered(m: re.Match[str], before: str, gap: str) -> bool:
    """Return whether the numeral is the number of a chapter, a part, a war; "the book I read" is not, nor is "Appendix C"."""
    text = m.group(1)
    if gap[:1] == "." and not (before.title() in ABBREVIATIONS or before.title() in BEFORE_NUMBER):
        return False  # the end of a sentence
    if before.lower() not in NUMBERED or text in NO_NUMERALS:
        return False
    if len(text) > 1:
        return True
    if text.upper() not in ("I", "V", "X") or before.lower() == "letter" and before.islower():
        return False
    if text.upper() != "I":
        return True
    if before.lower() == "no" or (text == "I" and before.islower() and gap[:1] != "."):
        return False
    follower = word_after(m, m.end())
    return not follower.islower() or follower in _AFTER_NUMBER


def _is_ruler(m: re.Match[str], before: str) -> bool:
    """Return whether the numeral after a ruler's name is one: not in "Malcolm X", "John C Calhoun" and "Mary I love"."""
    text, follower = m.group(1), word_after(m, m.end())
    if not set(text) <= set("IVX") or (before.lower(), text) == ("malcolm", "X"):
        return False
    return text != "I" or bool(m.group(2)) or not follower.islower() or follower in _AFTER_RULER


def _heads(m: re.Match[str], context: Context) -> bool:
    """Return whether the numeral is the whole text or begins it."""
    text, after = m.group(1), m.string[m.end() :]
    if len(text) == 1 and text not in "IVX":
        return False
    if context.text.strip().rstrip(".:") == text:
        return text not in SELDOM_NUMERALS or after[:1] == "." and text not in NO_NUMERALS
    if context.text[: m.start()].strip() or text in SELDOM_NUMERALS | SPELLED:
        return False
    if len(text) > 1 and re.match(r"\s+[A-Z]", after):
        return True
    return bool(re.match(r"[.:]\s", after)) and (text != "I" or word_after(m, m.end() + 1)[:1].isupper())


def _is_drip(m: re.Match[str], before: str) -> bool:
    """Return whether "IV" is intravenous."""
    return m.group(1) == "IV" and (before.lower() in _DETERMINERS or word_after(m, m.end()).lower() in _DRIPS)


def _capitals(m: re.Match[str], context: Context) -> Answer:
    word, tail = m.group(1), (m.group(2) or "").replace("'", "")
    if word in READ_AS_WORDS:
        return None
    if word in ("WWI", "WWII"):
        return (m.end(), f"World War {'one' if word == 'WWI' else 'two'}") if not tail else None
    value = say.roman(word) if set(word) <= set("IVX") else None
    if value is not None and not _is_drip(m, word_before(m)):
        return (m.end(), say.cardinal(value)) if not tail else None
    if not _is_spelled(m, word, context):
        return None
    if tail:
        return m.end(), f"{letters(word[:-1])} {word[-1].lower()}'s"
    return m.end(), letters(word)


def _is_spelled(m: re.Match[str], word: str, context: Context) -> bool:
    """Return whether capitals are read letter by letter. A shouted word, or the rest of one after a dash, is not."""
    lower = word.lower()
    if word in SPELLED:
        return not _is_shouted(m, lower, context)
    if _ZIP_CODE.match(m.string, m.end()) and m.string[max(0, m.start() - 2) : m.start()] == ", ":
        return True
    if not _VOWEL.search(word):
        return not (context.is_word(lower) and lower in _VOWELLESS)
    if context.headline or re.search(r"[a-z][—–-]\Z", m.string[max(0, m.start() - 2) : m.start()]):
        return False
    return len(word) < 5 and not context.is_word(lower)


def _is_shouted(m: re.Match[str], lower: str, context: Context) -> bool:
    """Return whether "US" is us: "LET US GO", but "the US", "IN THE US" and "a US ARMY base"."""
    if not context.is_word(lower) or word_before(m) == "THE":
        return False
    if context.headline:
        return lower in ("us", "am", "ok", "or", "la", "ad")
    if lower == "us":
        return _is_capital_word(word_before(m), context)
    return lower in ("am", "or") and _is_capital_word(word_after(m, m.end()), context)


def _is_capital_word(word: str, context: Context) -> bool:
    return len(word) > 1 and word.isupper() and word not in SPELLED and context.is_word(word.lower())


def _sound(m: re.Match[str], context: Context) -> Answer:
    name = m.lastgroup
    return (m.end(), _SOUND_WORDS[name]) if name else None


def _symbol(m: re.Match[str], context: Context) -> Answer:
    char, after = m.group(), m.string[m.end() : m.end() + 1]
    if char == "#":
        return m.end(), "number" if after.isdigit() else "hashtag" if after.isalpha() else ""
    if char == "/":
        unit = _PER.match(m.string, m.end())
        return (unit.end(), f"per {PER[unit.group()]}") if unit else None
    if char == "&" and after == "c":
        return m.end() + 1 + (m.string[m.end() + 1 : m.end() + 2] == "."), "et cetera"
    if char == "~":
        return m.end(), "about" if after.isdigit() else ""
    if char in "<>":
        return m.end(), ("less than" if char == "<" else "greater than") if after in " " or after.isdigit() else ""
    if char in say.CURRENCY_SIGNS:
        return m.end(), say.currency(char)
    return (m.end(), SYMBOLS[char]) if char in SYMBOLS else None


def _sections(m: re.Match[str], context: Context) -> Answer:
    name = "section" if m.group(1) == "§" else "paragraph"
    return m.end(), say.plural(name, str(len(m.group())))


def _area(m: re.Match[str], context: Context) -> Answer:
    """Read a unit of area without a number: plural, except after "per" and a slash. "m" alone is a letter."""
    before, unit = word_before(m).lower(), m.group()
    if unit[0] == "m" and unit[1] == "^" and before not in ("per", "in", "of"):
        return None
    return m.end(), say.plural(UNITS[unit], "1" if before in ("per", "a", "one") else "2")


def _greek(m: re.Match[str], context: Context) -> Answer:
    return m.end(), unicodedata.name(m.group()).split(" WITH ")[0].split()[-1].lower().replace("lamda", "lambda")


LETTER_RULES: list[tuple[str, Rule]] = [
    *FOREIGN_MONEY_RULES,
    (
        r"(?:https?://|www\.)\S+|[\w.+-]{1,64}@[\w-]{1,63}\.[\w.-]{1,200}|[a-z\d-]{2,63}(?:\.[a-z]{2,})?\.(?:com|org|net|edu|gov|io|co\.uk)\b\S*",
        web,
    ),
    *SHORT_RULES,
    *DATE_WORD_RULES,
    (
        r"([A-G])[#♯](?=m?\d|m(?:aj|in)?(?![A-Za-z]))|([A-Z])[#♯](?!\w)",
        lambda m, c: (m.end(), f"{letters(m.group()[0])} sharp"),
    ),
    (r"([A-G])♭", lambda m, c: (m.end(), f"{letters(m.group(1))} flat")),
    (r"Ph\.\s?D\.|(?:[A-Za-z]\.\s?){1,12}[A-Za-z]\.(?!\w)", _dotted),
    (r"([A-Z]{2,6}|[A-Z][a-z]*|[a-z]{1,6})(\.?)(?![\w.@]|(?<=[a-z])'[a-z]{2})", _abbreviation),
    (r"([A-Z][a-z]{0,4}|[a-z]{1,4})(\.)(?=\d)", _abbreviation),
    (r"([A-Z])\.(?=\s+[A-Z][\w.]|,)", _initial),
    (r"([MDCLXVI]{1,15})[-–]([MDCLXVI]{1,15})(?![\w'-])|([ivxlc]{1,8})[-–]([ivxlc]{1,8})(?![\w'-])", _roman_range),
    (r"([MDCLXVI]{1,15}|[ivxlc]{1,15})\b('s\b)?(?![\w'-])", _roman),
    *NUMERAL_RULES,
    (rf"(?i:{_SOUND})(?![\w'])", _sound),
    (r"[Aa](?=\^)", lambda m, c: (m.end(), "^a")),
    (r"x(?=\s?\d)(?:(?<=\dx)|(?<=\d x))", lambda m, c: (m.end(), "times")),
    (r"[wW]/(?=\s|[a-z])", lambda m, c: (m.end(), "with")),
    (r"v(\d+(?:\.\d+)+)", lambda m, c: (m.end(), f"version {say.number(m.group(1))}")),
    (r"[^\W\d_]+\d[^\W_]*", mixed_code),
    (r"([A-Z]{2,})('?s'?|'S)?(?!\w|'[A-Z])", _capitals),
    (r"(?:[kcm]m|m|ft)\^[23](?!\w)", lambda m, c: _area(m, c) if m.group() in UNITS else None),
    (r"[\u0370-\u03ff](?!\w)", _greek),
    (rf"A(?={AFTER_LETTER})", lambda m, c: (m.end(), "^a") if word_before(m) and not c.headline else None),
]


SYMBOL_RULES: list[tuple[str, Rule]] = [
    (r"(?<=\d)\*\*(?=\d)", lambda m, c: (m.end(), "to the power of")),
    (r"(?:(?<=\d)[*·](?=\d|[a-z]\b)|(?<=\d )[*·](?= \d))", lambda m, c: (m.end(), "times")),
    (r"([§¶])\1?(?=\s?[\dIVXLC])", _sections),
    (r"\^([-−]?(?:\d+|[a-z]\b))", lambda m, c: (m.end(), power(m.group(1)))),
    (r"[^\w\s]", _symbol),
]
