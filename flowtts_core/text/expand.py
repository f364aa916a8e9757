"""English rules for what is not written as it is read: each looks at one place of the text and may say how it is read."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import NamedTuple

from flowtts_core.text import numbers as say
from flowtts_core.text.wordlists import (
    ABBREVIATIONS,
    BARE,
    BEFORE_NUMBER,
    NUMBERED,
    READ_AS_WORDS,
    RULERS,
    SPELLED,
    SYMBOLS,
    UNCOUNTED,
    UNITS,
    VULGAR,
)


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

_NUM = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)*|\.\d+)(?![\d])"
_SCALE = r"(?:thousand|million|billion|trillion|hundred)"
_MONTH = r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)"
_UNIT = "|".join(re.escape(unit) for unit in sorted(UNITS, key=len, reverse=True))
_LAST_WORD = re.compile(r"([A-Za-z]+)[.,]?[\s(\"']*\Z")
_NEXT_WORD = re.compile(r"\s+([A-Za-z]+)")
_NUMBER_FOLLOWS = re.compile(r"\s*\d|\s+(?:[IVXLC]{2,}|[VX])\b")
_STREET = re.compile(
    r"\s+(?:[A-Z][\w.]*\s+){1,3}(?:Street|Avenue|Road|Lane|Drive|Boulevard|Square|Court|Terrace|Place|St\b|Ave\b|Rd\b|Blvd\b)"
)
_PER = re.compile(r"(?:kg|g|lb|km|m|cm|mm|l|L|ml|h|hr|s|sec|min|m²|m³|hour|day|week|month|year|person|mile)(?![\w.])")
_LONG_DIGITS = re.compile(r"[-−+('.$£€¥₹]{0,2}\d[\d,.]{60,}")
_CLOSING = re.compile(r"[\s\"')\]]*\Z")
_AFTER_LETTER = r"[,;:.!?)]|\Z|\s+(?:is|was|and|or|to|has|had|for)\b"
_YEAR_CUES = frozenset(
    "in since of year by until till from to before after during circa around early late mid and between".split()
)
_STARTERS = frozenset(
    "The A An He She It They We You I Then But And So In On At There This That When While If As His Her".split()
)
_VOWEL = re.compile("[AEIOUY]")


def _before(m: re.Match[str]) -> str:
    found = _LAST_WORD.search(m.string, max(0, m.start() - 30), m.start())
    return found.group(1) if found else ""


def _after(m: re.Match[str], end: int) -> str:
    found = _NEXT_WORD.match(m.string, end)
    return found.group(1) if found else ""


def _is_last(m: re.Match[str], end: int) -> bool:
    return bool(_CLOSING.match(m.string, end))


def _stop(m: re.Match[str], end: int) -> int:
    """Where an abbreviation ends: at the text's end its full stop closes the sentence too and is left standing."""
    return end - 1 if m.string[end - 1] == "." and (_is_last(m, end) or _after(m, end) in _STARTERS) else end


def _letters(text: str) -> str:
    return " ".join(f"^{c.lower()}" for c in text if c.isalpha())


def _looks_like_year(m: re.Match[str], digits: str, end: int) -> bool:
    if len(digits) != 4 or not 1010 <= int(digits) <= 2099:
        return False
    if _before(m).lower() in _YEAR_CUES or _before(m)[:3].title() in {month[:3] for month in say.MONTHS}:
        return True
    after = _after(m, end)
    return int(digits) >= 1100 and not (
        after.islower() and after.endswith("s") and after not in ("is", "was", "has", "as", "does")
    )


def _web(m: re.Match[str], context: Context) -> Answer:
    raw = m.group().rstrip(".,;:!?)'\"")
    shown = re.sub(r"\A(?:https?://)?(?:www\.)?", "", raw).rstrip("/") or raw
    words = []
    for part in re.findall(r"[A-Za-z]+|\d+|[^A-Za-z\d\s]", shown):
        names = {
            ".": "dot",
            "/": "slash",
            "@": "at",
            "-": "dash",
            "_": "underscore",
            ":": "colon",
            "?": "question mark",
        }
        if part.isdigit():
            words.append(say.number(part) if len(part) < 5 else say.digits(part))
        elif part.isalpha():
            words.append(_letters(part) if len(part) < 4 and not context.is_word(part) else part)
        else:
            words.append(names.get(part) or SYMBOLS.get(part, ""))
    return m.start() + len(raw), " ".join(words)


def _dotted(m: re.Match[str], context: Context) -> Answer:
    raw = m.group()
    known = ABBREVIATIONS.get(raw.rstrip("."), ABBREVIATIONS.get(raw.lower().rstrip(".")))
    end = m.end()
    return _stop(m, end) if known is None else end, known or _letters(raw)


def _initial(m: re.Match[str], context: Context) -> Answer:
    if m.group(1) == "I" and (_before(m).islower() or not _before(m)):
        return None
    return m.end(), _letters(m.group(1))


def _abbreviation(m: re.Match[str], context: Context) -> Answer:
    word, end = m.group(1), m.end()
    dotted = m.group(2) == "."
    if not dotted and word not in BARE:
        return None
    if word in BEFORE_NUMBER and dotted and _NUMBER_FOLLOWS.match(m.string, end):
        return (end, BEFORE_NUMBER[word]) if word != "c" or re.match(r"\s*\d{3,4}\b", m.string[end:]) else None
    if word in ("St", "Dr"):
        street = _before(m)[:1].isupper() and m.start() > 1 and m.string[m.start() - 2 : m.start()].strip(" ").isalnum()
        named = re.match(r"\s+[A-Z]", m.string[end:])
        if word == "Dr":
            return _stop(m, end), "drive" if street and not named else "doctor"
        return _stop(m, end), "street" if street and not named else "saint"
    if word not in ABBREVIATIONS:
        return None
    if word == "al" and _before(m) != "et" or word in ("min", "max", "est", "ed", "trans") and _is_last(m, end):
        return None
    if word in ("Gen", "Ave", "Rep", "Sen", "Mon", "Col", "Hon", "Pt", "Ft") and not dotted:
        return None
    if word == "etc" and dotted and re.match(r"[\"')\]]*\s+[A-Z]", m.string[end:]):
        return end - 1, ABBREVIATIONS[word]
    return _stop(m, end), ABBREVIATIONS[word]


def _money(m: re.Match[str], context: Context) -> Answer:
    country = m.group("country") or ""
    words = say.money(m.group("currency"), m.group("amount"), m.group("scale") or "")
    return m.end(), re.sub(r"\b(?=dollar)", f"{_letters(country)} ", words, count=1) if country else words


def _cents(m: re.Match[str], context: Context) -> Answer:
    return m.end(), say.money(m.group(2), m.group(1))


def _shillings(m: re.Match[str], context: Context) -> Answer:
    pounds, shillings, pence = m.group("pounds"), m.group("shillings"), m.group("pence")
    parts = [say.money("£", pounds)] if pounds else []
    parts.append(f"{say.number(shillings)} {say.plural('shilling', shillings)}")
    if pence:
        parts.append(f"{say.number(pence)} {'penny' if pence == '1' else 'pence'}")
    return _stop(m, m.end()), " ".join(parts)


def _time(m: re.Match[str], context: Context) -> Answer:
    hour, minute, half = int(m.group("hour")), int(m.group("minute") or 0), (m.group("half") or "")[:1].lower()
    if hour > 24 or minute > 59 or (half and hour > 12):
        return None
    if m.group("minute") is None and not half:
        return None
    second = m.group("second")
    return _stop(m, m.end()), say.clock(hour, minute, int(second) if second else None, half)


def _iso_date(m: re.Match[str], context: Context) -> Answer:
    year, month, day = (int(part) for part in m.groups())
    return (m.end(), say.date(year, month, day)) if 1 <= month <= 12 and 1 <= day <= 31 else None


def _slash_date(m: re.Match[str], context: Context) -> Answer:
    month, day, year = int(m.group(1)), int(m.group(2)), int(m.group(3))
    if month > 12:
        month, day = day, month
    if len(m.group(3)) == 2:
        year += 1900 if year > 40 else 2000
    return (m.end(), say.date(year, month, day)) if 1 <= month <= 12 and 1 <= day <= 31 else None


def _day_month(m: re.Match[str], context: Context) -> Answer:
    day = int(m.group(1))
    if not 1 <= day <= 31:
        return None
    article = "" if _before(m).lower() == "the" else "the "
    return m.end(), f"{article}{say.ordinal(day)} of"


def _vulgar(m: re.Match[str], context: Context) -> Answer:
    upper, lower = VULGAR[m.group(2)]
    whole = (m.group(1) or "").strip()
    return m.end(), say.mixed(int(whole), upper, lower) if whole else say.fraction(upper, lower)


def _fraction(m: re.Match[str], context: Context) -> Answer:
    whole, upper, lower = m.group("whole"), int(m.group("upper")), int(m.group("lower"))
    if not whole and (upper, lower) in ((24, 7), (9, 11), (7, 7)):
        return m.end(), f"{say.cardinal(upper)} {say.cardinal(lower)}"
    if whole:
        return m.end(), say.mixed(int(whole), upper, lower)
    return m.end(), say.fraction(upper, lower)


def _ordinal(m: re.Match[str], context: Context) -> Answer:
    return m.end(), say.ordinal(int(m.group(1).replace(",", "")))


def _decade(m: re.Match[str], context: Context) -> Answer:
    return m.end(), say.decade(m.group(1))


def _phone(m: re.Match[str], context: Context) -> Answer:
    groups = re.findall(r"\d+", m.group())
    return m.end(), ("plus " if m.group().startswith("+") else "") + " , ".join(say.digits(group) for group in groups)


def _range(m: re.Match[str], context: Context) -> Answer:
    low, high = m.group(1), m.group(2)
    if len(low) == 4 and len(high) in (2, 4) and 1100 <= int(low) <= 2099:
        return m.end(), f"{say.year(int(low))} to {say.year(int(high))}"
    if low[0] == "0" or high[0] == "0":
        return None
    if len(high) > 4 and high.isdigit():  # a code rather than a range
        return None
    unit = m.group(3)
    tail = f" {_unit(unit, '2')}" if unit else ""
    return m.end(), f"{say.number(low)} to {say.number(high)}{tail}"


def _unit(unit: str, count: str) -> str:
    name = UNITS[unit]
    return name if name in UNCOUNTED else say.plural(name, count)


def _measure(m: re.Match[str], context: Context) -> Answer:
    count, unit = m.group(2), m.group(3)
    if unit in ("in.", "s", "h", "t", "L", "N", "J", "K") and " " in m.group() and unit != "in.":
        return None
    if unit == "in." and _is_last(m, m.end()) and "." not in unit:
        return None
    sign = "minus " if m.group(1) else ""
    return _stop(m, m.end()), f"{sign}{say.number(count)} {_unit(unit, count)}"


def _feet(m: re.Match[str], context: Context) -> Answer:
    inches = f" {say.number(m.group(2))}" if m.group(2) else ""
    return m.end(), f"{say.number(m.group(1))} {say.plural('foot', m.group(1)) if not inches else 'foot'}{inches}"


def _mixed_code(m: re.Match[str], context: Context) -> Answer:
    words = []
    for part in re.findall(r"\d+|[A-Za-z]+", m.group()):
        if part.isdigit():
            words.append(say.number(part) if len(part) < 3 else say.digits(part))
        else:
            words.append(
                part.lower() if len(part) > 2 and (not part.isupper() or part in READ_AS_WORDS) else _letters(part)
            )
    return m.end(), " ".join(words)


def _number(m: re.Match[str], context: Context) -> Answer:
    sign, digits = m.group(1), m.group(2)
    month = re.search(rf"\b{_MONTH}\.?\s+\Z", m.string[max(0, m.start() - 12) : m.start()])
    if month and digits.isdigit() and len(digits) < 3 and 1 <= int(digits) <= 31:
        return m.end(), say.ordinal(int(digits))
    if digits.isdigit() and _before(m).lower() in ("box", "room", "flight"):
        return m.end(), say.digits(digits) if len(digits) > 2 else say.number(digits)
    if digits.isdigit() and len(digits) in (3, 4) and _STREET.match(m.string, m.end()):
        return m.end(), say.pairs(digits)
    if digits[0] == "." and re.match(r"[ -]cal", m.string[m.end() :]):
        return m.end(), say.pairs(digits[1:])
    if not sign and digits.isdigit() and _looks_like_year(m, digits, m.end()):
        return m.end(), say.year(int(digits))
    return m.end(), ("minus " if sign else "") + say.number(digits)


def _short_year(m: re.Match[str], context: Context) -> Answer:
    return m.end(), say.cardinal(int(m.group(1))) if m.group(1)[0] != "0" else "oh " + say.digits(m.group(1)[1])


def _roman(m: re.Match[str], context: Context) -> Answer:
    text = m.group(1)
    value = say.roman(text)
    if value is None:
        return None
    before, after = _before(m), _after(m, m.end())
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
        starts and re.match(r"[.:]\s", m.string[m.end() :]) and (text != "I" or _after(m, m.end() + 1)[:1].isupper())
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
        return m.end(), f"{_letters(word[:-1])} {word[-1].lower()}'s"
    return m.end(), _letters(word)


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


# In order: the first that answers is taken. Those of the first list are tried where a word starts with a digit (or a mark
# before one), of the second where it starts with a letter, of the third at any other character.
_AMOUNT = rf"(?P<amount>{_NUM})(?:\s?-?(?P<scale>{_SCALE}|(?:k|m|mn|bn|tn|K|M|B)\b)(?![\w.]\w))?"
_DIGIT_RULES: list[tuple[str, Rule]] = [
    (r"(?:£(?P<pounds>\d+)\s)?(?P<shillings>\d+)s\.\s?(?P<pence>\d+)d\.", _shillings),
    (r"£(?P<pounds>\d+)\s(?P<shillings>\d+)s\.(?P<pence>)", _shillings),
    (r"(?P<country>)(?P<currency>[$£€¥₹])\s?" + _AMOUNT, _money),
    (r"[\w.+-]{1,64}@[\w-]{1,63}\.[\w.-]{1,200}", _web),
    (rf"({_NUM})\s?([€¢])", _cents),
    (r"(\d{4})-(\d\d)-(\d\d)(?!\d)", _iso_date),
    (r"(\d{1,2})[/.](\d{1,2})[/.](\d{4}|\d\d)(?![\d/])(?<!\.\d\d)", _slash_date),
    (r"(?P<hour>\d{1,2})[:.](?P<minute>\d\d)(?P<second>)\s?(?P<half>[AaPp]\.?[Mm]\b\.?)", _time),
    (r"(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d))?(?!\d)(?P<half>)", _time),
    (r"(?P<hour>\d{1,2})(?P<minute>)(?P<second>)\s?(?P<half>[AaPp]\.?[Mm]\b\.?)", lambda m, c: _whole_hour(m)),
    (rf"(\d{{1,2}})(?=\s+{_MONTH}\b(?!\s\d{{1,2}}\b))", _day_month),
    (r"(\d+):(\d+)(?![\d:])", lambda m, c: (m.end(), f"{say.number(m.group(1))} to {say.number(m.group(2))}")),
    (r"(?P<whole>\d+)[ -](?P<upper>\d{1,3})/(?P<lower>\d{1,4})(?![\d/])", _fraction),
    (r"(?P<whole>)(?P<upper>\d{1,3})/(?P<lower>\d{1,4})(?![\d/])", _fraction),
    (rf"(\d+\s?)?([{''.join(VULGAR)}])", _vulgar),
    (r"(\d{1,3}(?:,\d{3})*|\d+)(?:st|nd|rd|th|ST|ND|RD|TH)\b", _ordinal),
    (
        r"(?:\+?\d{1,3}[ .-])?\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?!\d)|\d{3}-\d{4}(?!\d)|\+\d{1,3}(?:[ .-]\(?\d{2,4}\)?){2,4}(?!\d)|\+\d{6,15}",
        _phone,
    ),
    (r"'?(\d{3}0|\d0)'?s\b", _decade),
    (r"(\d+(?:\.\d+)?)[kK]\b", lambda m, c: (m.end(), f"{say.number(m.group(1))} thousand")),
    (rf"(\d[\d,.]*)\s?[-–]\s?(\d(?:[\d,.]*\d)?)(?![-–]?\d)(?:\s?({_UNIT})(?![\w/]))?", _range),
    (r"(\d)'\s?(\d{1,2})(?:\"|'')", _feet),
    (rf"((?<![\w)])[-−])?({_NUM})\s?({_UNIT})(?![\w/])", _measure),
    (r"\d+(?!(?:st|nd|rd|th)\b)[A-Za-z][A-Za-z\d]*", _mixed_code),
    (rf"((?<![\w)])[-−])?({_NUM})", _number),
    (r"'(\d\d)\b", _short_year),
]
_LETTER_RULES: list[tuple[str, Rule]] = [
    (r"(?P<country>US|C|CA|A|AU|NZ|HK)(?P<currency>\$)\s?" + _AMOUNT, _money),
    (
        r"(?:https?://|www\.)\S+|[\w.+-]{1,64}@[\w-]{1,63}\.[\w.-]{1,200}|[a-z\d-]{2,63}(?:\.[a-z]{2,})?\.(?:com|org|net|edu|gov|io|co\.uk)\b\S*",
        _web,
    ),
    (r"Ph\.\s?D\.|(?:[A-Za-z]\.\s?){1,12}[A-Za-z]\.(?!\w)", _dotted),
    (r"([A-Z][a-z]*|[a-z]{1,6})(\.?)(?![\w.@])", _abbreviation),
    (r"([A-Z])\.(?=\s+[A-Z][\w.])", _initial),
    (r"([MDCLXVI]{1,15}|[ivxlc]{1,15})\b(?![\w'-])", _roman),
    (r"x(?=\s?\d)(?:(?<=\dx)|(?<=\d x))", lambda m, c: (m.end(), "times")),
    (r"[wW]/(?=\s|[a-z])", lambda m, c: (m.end(), "with")),
    (r"v(\d+(?:\.\d+)+)", lambda m, c: (m.end(), f"version {say.number(m.group(1))}")),
    (r"[A-Za-z]+\d[A-Za-z\d]*", _mixed_code),
    (r"([A-Z]{2,})('?s)?(?![\w])", _capitals),
    (r"[\u0370-\u03ff](?!\w)", _greek),
    (rf"A(?={_AFTER_LETTER})", lambda m, c: (m.end(), "^a") if _before(m) and not c.headline else None),
]
_SYMBOL_RULES: list[tuple[str, Rule]] = [(r"[^\w\s]", _symbol)]


def _whole_hour(m: re.Match[str]) -> Answer:
    hour = int(m.group("hour"))
    return (_stop(m, m.end()), say.clock(hour, 0, None, m.group("half")[0].lower())) if 1 <= hour <= 12 else None


def _compiled(rules: list[tuple[str, Rule]]) -> list[tuple[re.Pattern[str], Rule]]:
    return [(re.compile(pattern), rule) for pattern, rule in rules]


_DIGIT, _LETTER, _SYMBOL = _compiled(_DIGIT_RULES), _compiled(_LETTER_RULES), _compiled(_SYMBOL_RULES)

_NEEDED = re.compile(
    r"[\d&+=@#%°/×±÷£$€¥¢₹§√≈≠≤≥∞−→~<>^²³\u0370-\u03ff\u00bc-\u00be\u2150-\u215e]|[A-Z]{2}|\b[A-Za-z]\.|\w A(?:"
    + _AFTER_LETTER
    + r")|\b(?:[VX]|"
    + "|".join(
        sorted(
            {
                re.escape(w) + r"\b" if w in BARE else re.escape(w) + r"\."
                for w in [*ABBREVIATIONS, *BEFORE_NUMBER, "St", "Dr"]
            }
        )
    )
    + r")|\.(?:com|org|net|edu|gov|io)\b|www\.|://|\b(?:[cC]hapter|CHAPTER|[bB]ook|[pP]art|[aA]ct|[vV]olume|[sS]cene|"
    + "|".join(r.title() for r in sorted(RULERS))
    + r")\s+[ivxlcIVXLC]+\b|\A\s*[IVXLC]+[.:\s]*(?:\Z|\s)"
)
_PLACE = re.compile(
    r"(?P<ipa>\[\[.*?\]\])|(?<![^\W_])(?:(?P<digit>[-−+('.$£€¥₹]{0,2}\d|[¼-¾⅐-⅞])|(?P<letter>[^\W\d_]))|(?P<symbol>[^\w\s.,;:!?\"'()\-])"
)
_WORD_END = re.compile(r"[^\W_]*")


def readings(text: str, is_word: Callable[[str], bool] | None = None) -> Iterator[Reading]:
    """What of `text` (clean, see clean.py) is not read as it is written; in order, not overlapping."""
    if not _NEEDED.search(text):
        return
    capitals = sum(map(str.isupper, text))
    headline = capitals > 3 and capitals >= 0.9 * sum(map(str.isalpha, text)) and len(text.split()) > 1
    context = Context(text, headline, is_word or (lambda word: bool(re.search("[aeiouy]", word))))
    position = 0
    while (place := _PLACE.search(text, position)) is not None:
        if place.group("ipa"):
            position = place.end()
            continue
        answer = _answer(text, place, context)
        if answer is None:
            position = max(place.start() + 1, _WORD_END.match(text, place.start()).end())  # type: ignore[union-attr]
            continue
        start, end, words = answer
        yield Reading(start, end, words)
        position = end


def _answer(text: str, place: re.Match[str], context: Context) -> Reading | None:
    start = place.start()
    if place.group("letter"):
        return _first(_LETTER, text, start, context)
    if place.group("symbol"):
        return _first(_SYMBOL, text, start, context)
    long = _LONG_DIGITS.match(text, start)
    if long:  # no number that anyone reads, and more than the rules below should look through
        return Reading(start, long.end(), say.digits(long.group()))
    for skipped in range(place.end() - start):  # "($5": the bracket is not part of it
        found = _first(_DIGIT, text, start + skipped, context)
        if found is not None:
            return found
        if text[start + skipped] in SYMBOLS:
            return _first(_SYMBOL, text, start + skipped, context)
    return None


def _first(rules: list[tuple[re.Pattern[str], Rule]], text: str, start: int, context: Context) -> Reading | None:
    for pattern, rule in rules:
        match = pattern.match(text, start)
        if match is not None:
            answer = rule(match, context)
            if answer is not None and answer[0] > start:
                return Reading(start, *answer)
    return None
