"""Expand what German does not write as it is read. Each rule looks at one place of the text and may return its reading."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from flowtts_core.text.english.numbers import roman
from flowtts_core.text.german import numbers as say
from flowtts_core.text.german.ordinals import MONTH, ending_of, is_ordinal, is_sentence_end, word_before
from flowtts_core.text.german.wordlists import (
    ABBREVIATIONS,
    AFTER_NUMBER,
    BEFORE_NUMBER,
    CURRENCIES,
    LONE_UNITS,
    MAY_END,
    MONTHS,
    NUMBERED,
    READ_AS_WORDS,
    RULERS,
    SCALES,
    SYMBOLS,
    UNITS,
    WORDS,
)
from flowtts_core.text.pieces import Reading


class _Context(NamedTuple):
    headline: bool  # the text is in capitals throughout
    is_word: Callable[[str], bool]


_Answer = tuple[int, str] | None  # the end, and the words
_Rule = Callable[[re.Match[str], _Context], _Answer]


def _any(words: Iterable[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


_NUM = r"(?:\d{1,3}(?:\.\d{3})+(?:,\d+)?|[1-9]\d{0,2}(?: \d{3})+(?:,\d+)?|\d+,\d+|\d+(?:\.\d+)+|\d+)(?!\d)"
_SIGNED = rf"(?P<sign>(?<![\w)\d])[-−–](?=\d))?(?P<amount>{_NUM})"
_DASH = r"\s?[-–]\s?"
_SCALE = rf"(?:\s(?P<scale>{_any(SCALES)})\b\.?)?"
_CURRENCY = _any(CURRENCIES)
_UNIT = _any(UNITS)
_END = r"(?![\w/])"
_YEAR = r"(?:\s(?P<year>\d{4}|\d\d(?=[\s,.;)]|\Z))(?![\d.,:]\d|\d))?"
_ABBREVIATION = "|".join(
    re.escape(word).replace(r"\ ", r"\s?")
    for word in sorted({*ABBREVIATIONS, *BEFORE_NUMBER, *AFTER_NUMBER}, key=len, reverse=True)
)
_SPACED = {word.replace(" ", ""): word for word in ABBREVIATIONS}
_FEMININE = re.compile(
    r"\s(?:[a-zäöüß]+e\s)?(?:[A-ZÄÖÜ]\w*(?:ung|heit|keit|schaft|ion|tät|in|e|frau|stadt)|Frau|Stadt|Nacht|Mark)\b"
)
_NOUN = re.compile(r"\s(?:[a-zäöüß]+(?:e|er|es|en)\s)?[A-ZÄÖÜ][a-zäöüß]")
_LONG_DIGITS = re.compile(r"\d[\d,. ]{60,}")


def readings(text: str, is_word: Callable[[str], bool] | None = None) -> Iterator[Reading]:
    """Yield how parts of `text` (from clean.py) are said that are written otherwise (numbers, abbreviations), in order."""
    capitals = sum(map(str.isupper, text))
    headline = capitals > 3 and capitals >= 0.9 * sum(map(str.isalpha, text)) and len(text.split()) > 1
    context = _Context(headline, is_word or (lambda word: bool(re.search("[aeiouyäöü]", word.lower()))))
    position = 0
    while (place := _PLACE.search(text, position)) is not None:
        position = place.end()
        if place.lastgroup == "ipa":
            continue
        for pattern, rule in _RULES[str(place.lastgroup)]:
            match = pattern.match(text, place.start())
            answer = rule(match, context) if match is not None else None
            if answer is not None and answer[0] > place.start():
                position = answer[0]
                yield Reading(place.start(), *answer)
                break


def _sign(m: re.Match[str]) -> str:
    return "minus " if m.group("sign") else ""


def _long(m: re.Match[str], context: _Context) -> _Answer:
    """Read digit by digit what nobody reads as a number."""
    return m.end(), say.digits(m.group())


def _money(m: re.Match[str], context: _Context) -> _Answer:
    return m.end(), _sign(m) + say.money(m.group("currency"), m.group("amount"), m.group("scale") or "")


def _money_range(m: re.Match[str], context: _Context) -> _Answer:
    return (
        m.end(),
        f"{say.number(m.group('low'))} bis {say.money(m.group('currency'), m.group('amount'), m.group('scale') or '')}",
    )


def _scaled(m: re.Match[str], context: _Context) -> _Answer:
    return m.end(), _sign(m) + say.scaled(m.group("amount"), m.group("scale"))


def _full_date(m: re.Match[str], context: _Context) -> _Answer:
    """Read 03.10.1990 and 3.10.; a day and month alone need their second full stop."""
    day, month, year = int(m.group("day")), int(m.group("month")), m.group("year")
    if not (1 <= day <= 31 and 1 <= month <= 12):
        return None
    words = say.date(day, month, ending_of(m.string, m.start(), MONTHS[month - 1]), named=bool(year))
    return m.end(), f"{words} {say.year(int(year))}" if year else words


def _iso_date(m: re.Match[str], context: _Context) -> _Answer:
    year, month, day = (int(part) for part in m.groups())
    if not (1 <= day <= 31 and 1 <= month <= 12):
        return None
    return m.end(), f"{say.date(day, month, ending_of(m.string, m.start(), MONTHS[month - 1]))} {say.year(year)}"


def _day_month(m: re.Match[str], context: _Context) -> _Answer:
    """Read the 3. of "3. Oktober", and both of "1.-3. Mai"."""
    ending = ending_of(m.string, m.start(), "Oktober")
    days = [int(day) for day in re.findall(r"\d+", m.group())]
    return m.end(), " bis ".join(say.ordinal(day, ending) for day in days) if all(1 <= d <= 31 for d in days) else ""


def _ordinal(m: re.Match[str], context: _Context) -> _Answer:
    if not is_ordinal(m.string, m.start(), m.end()):
        return None
    return m.end(), say.ordinal(int(m.group(1)), ending_of(m.string, m.start(), _word_after(m)))


def _word_after(m: re.Match[str]) -> str:
    """The noun after an ordinal number, past an adjective."""
    noun = re.match(r"\s+(?:[a-zäöüß]+\s+)?([A-ZÄÖÜ]\w*)", m.string[m.end() : m.end() + 60])
    return noun[1] if noun else ""


def _time(m: re.Match[str], context: _Context) -> _Answer:
    hour, minute, second = int(m.group("hour")), int(m.group("minute")), int(m.group("second") or 0)
    if hour > 24 or minute > 59 or second > 59:
        return None
    return m.end(), say.clock(hour, minute, second)


def _score(m: re.Match[str], context: _Context) -> _Answer:
    return m.end(), f"{say.number(m.group(1))} zu {say.number(m.group(2))}"


def _fraction(m: re.Match[str], context: _Context) -> _Answer:
    return m.end(), say.fraction(int(m.group(1)), int(m.group(2)))


def _half(m: re.Match[str], context: _Context) -> _Answer:
    return m.end(), f"{say.counted(m.group(1))} {'und ' if m.group(1) != '1' else ''}{SYMBOLS[m.group(2)]}"


def _range(m: re.Match[str], context: _Context) -> _Answer:
    low, high, unit = m.group("low"), m.group("high"), m.group("unit")
    if len(low) == 4 and len(high) in (2, 4) and 1100 <= int(low) <= 2100:
        last = say.year(int(high)) if len(high) == 4 else say.cardinal(int(high))
        return m.end(), f"{say.year(int(low))} bis {last}"
    if low[0] == "0" and len(low) > 1 or high[0] == "0" and len(high) > 1:
        return None
    return m.end(), f"{say.number(low)} bis {say.measure(high, unit) if unit else say.number(high)}"


def _measure(m: re.Match[str], context: _Context) -> _Answer:
    if m.group("unit") in LONE_UNITS and m.group("unit").isupper() and m.group("blank") == "":
        return None  # "5A" is a house or a class
    return m.end(), _sign(m) + say.measure(m.group("amount"), m.group("unit"))


def _percent(m: re.Match[str], context: _Context) -> _Answer:
    return m.end(), f"{say.number(m.group(1))} prozent{m.group(2)}"


def _decade(m: re.Match[str], context: _Context) -> _Answer:
    digits = m.group(1)
    return m.end(), (say.year(int(digits)) if len(digits) == 4 else say.number(digits)) + m.group(2)


def _phone(m: re.Match[str], context: _Context) -> _Answer:
    groups = re.findall(r"\d+", m.group())
    return m.end(), ("plus " if m.group()[0] == "+" else "") + " , ".join(say.digits(group) for group in groups)


def _number(m: re.Match[str], context: _Context) -> _Answer:
    amount = m.group("amount")
    if amount.isdigit() and len(amount) == 4 and not m.group("sign"):
        return m.end(), say.year(int(amount)) if amount[0] != "0" else say.digits(amount)
    if amount == "1" and _NOUN.match(m.string, m.end()):
        return m.end(), _sign(m) + say.counted(amount, _FEMININE.match(m.string, m.end()) is not None)
    return m.end(), _sign(m) + say.number(amount)


def _web(m: re.Match[str], context: _Context) -> _Answer:
    raw = m.group().rstrip(".,;:!?)'\"")
    shown = re.sub(r"\Ahttps?://", "", raw).rstrip("/")
    names = {".": "Punkt", "/": "Schrägstrich", "@": "at", "-": "Minus", "_": "Unterstrich", ":": "Doppelpunkt"}
    words = []
    for part in re.findall(r"[^\W\d_]+|\d+|[\W_]", shown):
        if part.isdigit():
            words.append(say.number(part))
        elif part.isalpha():
            words.append(
                _letters(part) if len(part) < 3 or not context.is_word(part.lower()) and len(part) < 4 else part
            )
        else:
            words.append(names.get(part) or SYMBOLS.get(part, ""))
    return m.start() + len(raw), " ".join(filter(None, words))


def _abbreviation(m: re.Match[str], context: _Context) -> _Answer:
    """Read an abbreviation with a full stop, which stays where it also ends the sentence."""
    raw = m.group(1)
    word = _SPACED.get(re.sub(r"\s", "", raw), raw)
    after, before = m.string[m.end() :], m.string[: m.start()]
    if word in BEFORE_NUMBER:
        if not re.match(r"\s?(?:\d|[IVXLC]+\b)", after):
            return None
        return m.end(), BEFORE_NUMBER[word]
    if word in AFTER_NUMBER and not re.search(r"\d\s?\Z", before) and word not in ABBREVIATIONS:
        return None
    if word == "St" and not re.match(r"\s?[A-ZÄÖÜ]", after):
        return None
    words = ABBREVIATIONS.get(word) or AFTER_NUMBER[word]
    ends = word in MAY_END and is_sentence_end(m.string, m.end())
    return m.end() - ends, words


def _street(m: re.Match[str], context: _Context) -> _Answer:
    """Read the end of "Hauptstr. 5"."""
    return m.end() - is_sentence_end(m.string, m.end()), f"{m.group(1)}straße"


def _ruler(m: re.Match[str], context: _Context) -> _Answer:
    """Read the number of a king: Ludwig der Vierzehnte, Ludwigs des Vierzehnten, von Ludwig dem Vierzehnten."""
    name, value = m.group(1), roman(m.group(2))
    stem = name if name in RULERS else name.removesuffix("s")
    if stem not in RULERS or value is None:
        return None
    before = word_before(m.string, m.start())
    if before in ("König", "Kaiser", "Papst", "Königin", "Kaiserin", "Zar", "Prinz", "Herzog"):
        before = word_before(m.string, m.string.rfind(before, 0, m.start()))
    female = stem in ("Elisabeth", "Katharina", "Maria", "Margarethe")
    if name != stem:
        article = "der" if female else "des"
    elif before.lower() in ("von", "mit", "unter", "bei", "nach", "seit", "zu", "vor", "dem"):
        article = "der" if female else "dem"
    elif before.lower() in ("für", "gegen", "durch", "ohne", "um", "den") and not female:
        article = "den"
    else:
        return m.end(), f"{name} {'die' if female else 'der'} {say.ordinal(value)}"
    return m.end(), f"{name} {article} {say.ordinal(value, 'en')}"


def _numbered(m: re.Match[str], context: _Context) -> _Answer:
    value = roman(m.group(2))
    return (m.end(), f"{m.group(1)} {say.cardinal(value)}") if value and m.group(1) in NUMBERED else None


def _initial(m: re.Match[str], context: _Context) -> _Answer:
    return m.end(), _letters(m.group(1))


def _dotted(m: re.Match[str], context: _Context) -> _Answer:
    """Read U.S.A."""
    return m.end() - is_sentence_end(m.string, m.end()), _letters(m.group())


def _word(m: re.Match[str], context: _Context) -> _Answer:
    return m.end(), WORDS[m.group()]


def _capitals(m: re.Match[str], context: _Context) -> _Answer:
    """Spell an acronym; capitals that are a word of four letters or more are read as one, as all are in a headline."""
    word = m.group(1)
    if word in READ_AS_WORDS:
        return None
    if (context.headline or len(word) > 3) and context.is_word(word.lower()):
        return None
    if len(word) > 5 and re.search("[AEIOUÄÖÜ]", word):
        return None
    return m.end(), _letters(word) + m.group(2)


def _letters(text: str) -> str:
    return " ".join(f"^{c.lower()}" for c in text if c.isalpha())


def _symbol(m: re.Match[str], context: _Context) -> _Answer:
    words = SYMBOLS.get(m.group())
    return (m.end(), words) if words else None


_PLACE = re.compile(
    r"(?P<ipa>\[\[[^\[\]]*\]\])|(?P<digit>(?:(?:(?<![\w)])[-−–+]|[$€£¥]\s?|US-\$\s?)?\d))"
    r"|(?P<letter>(?<![^\W\d_])(?<![^\W\d_]')[^\W\d_]+)|(?P<symbol>§§?|[^\w\s.,;:!?\"'()\-–—…/\[\]{}])"
)
_DIGIT_RULES: list[tuple[str, _Rule]] = [
    (_LONG_DIGITS.pattern, _long),
    (rf"(?P<sign>)(?P<currency>{_CURRENCY})\s?(?P<amount>{_NUM}){_SCALE}", _money),
    (r"(?P<sign>)(?P<day>\d{1,2})\.\s?(?P<month>\d{1,2})\.\s?(?P<year>\d{4}|\d\d)(?!\d|\s?Uhr|[.,]\d)", _full_date),
    (r"(?P<day>0?[1-9]|[12]\d|3[01])\.(?P<month>0?[1-9]|1[0-2])\.(?P<year>)(?!\d)", _full_date),
    (r"(\d{4})-(\d\d)-(\d\d)(?!\d)", _iso_date),
    (rf"\d{{1,2}}\.(?:\s?[-–/]\s?\d{{1,2}}\.)?(?=\s?{MONTH})", _day_month),
    (r"(?P<hour>\d{1,2})[:.](?P<minute>\d\d)(?:[:.](?P<second>\d\d))?\s?Uhr\b", _time),
    (r"(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d))?(?!\d)", _time),
    (r"(\d+):(\d+)(?![\d:])", _score),
    (rf"(?P<low>{_NUM}){_DASH}(?P<amount>{_NUM}){_SCALE}\s?(?P<currency>{_CURRENCY}){_END}", _money_range),
    (rf"{_SIGNED}{_SCALE}\s?(?P<currency>{_CURRENCY}){_END}", _money),
    (rf"{_SIGNED}\s(?P<scale>{_any(SCALES)})\b\.?", _scaled),
    (r"(\d+)\s?([½¼¾⅓⅔])", _half),
    (r"(\d{1,3})/(\d{1,3})(?![\d/])", _fraction),
    (r"(\d+(?:,\d+)?)\s?-?%-?(ig\w*)", _percent),
    (r"(\d{4}|\d{1,3})(er[ns]?)\b", _decade),
    (r"\+\d{1,3}(?:[ ./-]?\(?\d{1,5}\)?){2,5}|0\d{2,5}\s?[-/ ]\s?\d{3,}(?:[ -]?\d{2,})*", _phone),
    (rf"(?P<low>{_NUM}){_DASH}(?P<high>{_NUM})(?:\s?(?P<unit>{_UNIT}){_END})?(?![-–]?\d)", _range),
    (rf"{_SIGNED}(?P<blank>\s?)(?P<unit>{_UNIT}){_END}(?!')", _measure),
    (r"(\d{1,3})\.(?=\s|[,;)])", _ordinal),
    (_SIGNED, _number),
]
_LETTER_RULES: list[tuple[str, _Rule]] = [
    (
        r"(?:https?://|www\.)[^\s<>\"]+|[\w.+-]{1,64}@[\w-]{1,63}\.[\w.-]{1,200}|[\w-]+\.(?:de|com|org|net|at|ch|eu)\b(?!\w)",
        _web,
    ),
    (rf"(?P<sign>)(?P<currency>US-\$|EUR|CHF|DM)\s?(?P<amount>{_NUM}){_SCALE}", _money),
    (rf"({_ABBREVIATION})\.", _abbreviation),
    (r"((?:[A-ZÄÖÜ]\.){2,})(?!\w)", _dotted),
    (r"([A-ZÄÖÜ]?[a-zäöüß]+)str\.", _street),
    (r"([A-ZÄÖÜ]\w+) ([IVX]+)\.(?!\w)", _ruler),
    (r"([A-ZÄÖÜ]\w+) ([IVXLC]+)\b(?!\.\w)", _numbered),
    (r"([A-ZÄÖÜ])\.(?=\s?-?[A-ZÄÖÜ])", _initial),
    (rf"(?:{_any(WORDS)})\b", _word),
    (r"([A-ZÄÖÜ]{2,})(s?)(?![^\W\d_])", _capitals),
]
_RULES: dict[str, list[tuple[re.Pattern[str], _Rule]]] = {
    "digit": [(re.compile(pattern), rule) for pattern, rule in _DIGIT_RULES],
    "letter": [(re.compile(pattern), rule) for pattern, rule in _LETTER_RULES],
    "symbol": [(re.compile(r"§§?|[\s\S]"), _symbol)],
}
