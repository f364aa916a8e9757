"""Rules for what is written with digits: years, fractions, ordinals, ranges, verses and plain numbers, in order."""

from __future__ import annotations

import re

from flowtts_core.text.english import numbers as say
from flowtts_core.text.english.expand_codes import CODE_RULES, PHONE_RULE, is_zip_code, mixed_code, web
from flowtts_core.text.english.expand_common import (
    MONTH,
    NUM,
    Answer,
    Context,
    Rule,
    stop,
    word_after,
    word_before,
)
from flowtts_core.text.english.expand_measures import MEASURE_RULES, SIGN, SIZE_RULES, UNIT_RANGE_RULE, is_minus
from flowtts_core.text.english.expand_money import MONEY_RULES
from flowtts_core.text.english.expand_times import TIME_RULES
from flowtts_core.text.english.units import UNIT, unit_name
from flowtts_core.text.english.wordlists import NUMBERED, SCRIPTURE, SCRIPTURE_BOOKS, VULGAR

_STREET = re.compile(
    r"\s+(?:[A-Z][\w.]*\s+){1,3}(?:Street|Avenue|Road|Lane|Drive|Boulevard|Square|Court|Terrace|Place|St\b|Ave\b|Rd\b|Blvd\b)"
)
_AFTER_MONTH = re.compile(rf"\b{MONTH}\.?\s+\Z")
_EMERGENCIES = frozenset("911 999 112 000 988 101 111 411".split())
_CALLS = frozenset(
    "call calls called calling dial dials dialed dialled dialing dialling phone phoned ring rang press pressed a the".split()
)
_CALLED = frozenset("call calls caller operator dispatcher dispatch emergency tape line".split())
_ERA = r"(?:A\.\s?D\.|AD\b|C\.?E\b\.?|B\.\s?C\.|BC\b|B\.?C\.?E\b\.?)"
_ERA_BEFORE = re.compile(r"\b(?:A\.\s?D\.|AD)\s\Z")
_ERA_AFTER = re.compile(rf"\s?{_ERA}")
_NAMED = re.compile(r"\b[A-Za-z]*[A-Z]-\Z")  # F-16s, MiG-29s
_DECADE = re.compile(r"1\d\d0|20\d0")
_OLD_ORDINALS = re.compile(
    rf"\s(?:of\s{MONTH}|Regiment|Cavalry|Infantry|Artillery|Division|Battalion|Brigade|Corps|Army|Company|Squadron|Congress"
    rf"|Lieut|Lieutenant|Street|Avenue|Ward|District|Virginia|[A-Z][a-z]+\s(?:Regiment|Cavalry|Infantry|Volunteers))\b"
)
_COUNTED = NUMBERED - {"no", "number", "letter", "case"} | frozenset(
    "track day disc disk page pages lesson week".split()
)
_YEAR_CUES = frozenset(
    "in since of year by until till from to before after during circa around early late mid and between".split()
)


def _looks_like_year(m: re.Match[str], digits: str, end: int) -> bool:
    if len(digits) != 4 or not 1010 <= int(digits) <= 2099:
        return False
    if word_before(m).lower() in _YEAR_CUES or word_before(m)[:3].title() in {month[:3] for month in say.MONTHS}:
        return True
    after = word_after(m, end)
    return int(digits) >= 1100 and not (
        after.islower() and after.endswith("s") and after not in ("is", "was", "has", "as", "does")
    )


def _is_era_year(m: re.Match[str], digits: str) -> bool:
    """Return whether it is a year as in A.D. 1066, 1066 A.D., and "(1066)"."""
    before, after = m.string[max(0, m.start() - 6) : m.start()], m.string[m.end() : m.end() + 6]
    bracketed = before[-1:] == "(" and after[:1] == ")" and 1010 <= int(digits) <= 2099
    return bracketed or _ERA_BEFORE.search(before) is not None or _ERA_AFTER.match(after) is not None


def _several(m: re.Match[str], context: Context) -> Answer:
    """Read the plural of a number that is a name or a count: F-16s, 100s of men."""
    count = m.group(1)
    named = _NAMED.search(m.string, max(0, m.start() - 12), m.start()) and not _DECADE.fullmatch(count)
    if named or (word_after(m, m.end()) == "of" and re.fullmatch("10+", count.replace(",", ""))):
        return m.end(), say.several(say.number(count)).removeprefix("" if named else "one ")
    return None


def _verse(m: re.Match[str], context: Context) -> Answer:
    """Read chapter and verse after the name of a book of scripture."""
    book = word_before(m)
    if book.lower() not in SCRIPTURE_BOOKS and book not in SCRIPTURE:
        return None
    parts = re.split(r"([-–:])", m.group())
    return m.end(), " ".join("" if p == ":" else "to" if p in "-–" else say.cardinal(int(p)) for p in parts)


def _numbered_book(m: re.Match[str], context: Context) -> Answer:
    book = SCRIPTURE.get(m.group(2), m.group(2)).lower()
    return (m.end(), say.ordinal(int(m.group(1)))) if book in SCRIPTURE_BOOKS else None


def _and_following(m: re.Match[str], context: Context) -> Answer:
    """Read pages and verses "and following": 45 ff."""
    page, verse = m.groups()
    if len(page) == 4 and not verse:
        return stop(m, m.end()), f"{say.year(int(page))} and following"
    counts = " ".join(say.cardinal(int(count)) for count in (page, verse) if count)
    return stop(m, m.end()), f"{counts} and following"


def _vulgar(m: re.Match[str], context: Context) -> Answer:
    upper, lower = VULGAR[m.group(2)]
    whole = (m.group(1) or "").strip()
    return m.end(), say.mixed(int(whole), upper, lower) if whole else say.fraction(upper, lower)


def _fraction(m: re.Match[str], context: Context) -> Answer:
    whole, upper, lower = m.group("whole"), int(m.group("upper")), int(m.group("lower"))
    if not whole and ((upper, lower) in ((24, 7), (20, 20), (9, 11), (7, 7)) or upper + lower == 100 and upper >= 50):
        return m.end(), f"{say.cardinal(upper)} {say.cardinal(lower)}"
    if whole:
        return m.end(), say.mixed(int(whole), upper, lower)
    return m.end(), say.fraction(upper, lower)


def _ordinal(m: re.Match[str], context: Context) -> Answer:
    if m.group(2) == "st" and (m.group(1)[-1] != "1" or m.group(1)[-2:] == "11"):
        return None  # 8st are stone
    return m.end(), say.ordinal(int(m.group(1).replace(",", "")))


def _ordinals(m: re.Match[str], context: Context) -> Answer:
    return m.end(), f"{say.ordinal(int(m.group(1)))} to {say.ordinal(int(m.group(2)))}"


def _old_ordinal(m: re.Match[str], context: Context) -> Answer:
    """Read 2d and 23d as in the 2d Regiment, the 22d of June and May 3d."""
    after_month = re.search(rf"\b{MONTH}\.?\s\Z", m.string[max(0, m.start() - 12) : m.start()])
    if not after_month and not _OLD_ORDINALS.match(m.string, m.end()):
        return None
    return m.end(), say.ordinal(int(m.group(1)))


def _decade(m: re.Match[str], context: Context) -> Answer:
    return m.end(), say.decade(m.group(1))


def _range(m: re.Match[str], context: Context) -> Answer:
    low, high = m.group(1), m.group(2)
    if low == high and low in ("50", "20") and not m.group(3):
        return m.end(), f"{say.number(low)} {say.number(high)}"  # a 50-50 chance, 20-20 vision
    if (
        low.isdigit()
        and high.isdigit()
        and 1 <= int(low) < int(high) <= 31
        and _AFTER_MONTH.search(m.string, max(0, m.start() - 12), m.start())
    ):
        return m.end(), f"{say.ordinal(int(low))} to {say.ordinal(int(high))}"
    if len(low) == 4 and len(high) in (2, 4) and low.isdigit() and high.isdigit() and 1010 <= int(low) <= 2099:
        return m.end(), f"{say.year(int(low))} to {say.year(int(high))}"
    if len(low) == 4 and len(high) == 1 and low.isdigit() and 1010 <= int(low) <= 2099 and high > low[-1]:
        last = high if low[2] == "0" else low[2] + high
        return m.end(), f"{say.year(int(low))} to {say.cardinal(int(last))}"
    if low[0] == "0" or high[0] == "0":
        return None
    if len(high) > 4 and high.isdigit():  # a code rather than a range
        return None
    unit = m.group(3)
    tail = f" {unit_name(unit, '2')}" if unit else ""
    return m.end(), f"{say.number(low)} to {say.number(high)}{tail}"


def _number(m: re.Match[str], context: Context) -> Answer:
    sign, digits = m.group("sign"), m.group("count")
    if not is_minus(m):
        return None
    if sign or not digits.isdigit():
        point = re.match(r"[ -]cal", m.string[m.end() :]) if digits[0] == "." else None
        return m.end(), say.pairs(digits[1:]) if point else ("minus " if sign else "") + say.number(digits)
    return m.end(), _whole_number(m, digits)


def _whole_number(m: re.Match[str], digits: str) -> str:
    """Read a number of nothing but digits: a day, a postcode, the number of a house or chapter, a year, a count."""
    before = word_before(m).lower()
    month = _AFTER_MONTH.search(m.string, max(0, m.start() - 12), m.start())
    if month and len(digits) < 3 and 1 <= int(digits) <= 31:
        return say.ordinal(int(digits))
    if is_zip_code(m, digits) or digits in _EMERGENCIES and _is_called(m, before):
        return say.digits(digits)
    if before in ("box", "room", "flight"):
        return say.digits(digits) if len(digits) > 2 else say.number(digits)
    if digits[0] == "0" and len(digits) < 4 and before in _COUNTED and int(digits):
        return say.cardinal(int(digits))  # Chapter 01
    if len(digits) in (3, 4) and _STREET.match(m.string, m.end()):
        return say.pairs(digits)
    if len(digits) < 5 and _is_era_year(m, digits) or _looks_like_year(m, digits, m.end()):
        return say.year(int(digits))
    return say.number(digits)


def _is_called(m: re.Match[str], before: str) -> bool:
    """Return whether 911 is dialled: "call 911", "a 911 call"; a Porsche 911 is not."""
    return before in _CALLS and (before not in ("a", "the") or word_after(m, m.end()) in _CALLED)


def _european_number(m: re.Match[str], context: Context) -> Answer:
    return m.end(), say.number(m.group("count").replace(".", "").replace(",", "."))


def _short_year(m: re.Match[str], context: Context) -> Answer:
    return m.end(), say.cardinal(int(m.group(1))) if m.group(1)[0] != "0" else "oh " + say.digits(m.group(1)[1])


DIGIT_RULES: list[tuple[str, Rule]] = [
    *MONEY_RULES,
    (r"[\w.+-]{1,64}@[\w-]{1,63}\.[\w.-]{1,200}", web),
    (r"(\d{1,4})(?::(\d{1,3}))?\s?ff\b\.?", _and_following),
    (r"\d{1,3}:\d{1,3}(?:[-–]\d{1,3}(?::\d{1,3})?)?(?![\d:]|\s?[AaPp]\.?[Mm]\b)", _verse),
    (r"([123])(?=\s([A-Z][a-z]+)\.?\s\d{1,3}:\d)", _numbered_book),
    *TIME_RULES,
    *SIZE_RULES,
    *CODE_RULES,
    (
        r"(\d+\.\d+)/(\d{1,3})(?![\d/.])",
        lambda m, c: (m.end(), f"{say.number(m.group(1))} out of {say.number(m.group(2))}"),
    ),
    (
        r"(\d+(?:,\d{3})*(?:\.\d+)?):(\d+(?:,\d{3})*(?:\.\d+)?)(?![\d:])",
        lambda m, c: (m.end(), f"{say.number(m.group(1))} to {say.number(m.group(2))}"),
    ),
    (r"(?P<whole>\d+)[ -](?P<upper>\d{1,3})/(?P<lower>\d{1,4})(?:(?:st|nd|rd|th)s?\b)?(?![\d/])", _fraction),
    (r"(?P<whole>)(?P<upper>\d{1,3})/(?P<lower>\d{1,4})(?:(?:st|nd|rd|th)s?\b)?(?![\d/])", _fraction),
    (rf"(\d+\s?)?([{''.join(VULGAR)}])", _vulgar),
    (r"(\d{1,3})(?:st|nd|rd|th)\s?[-–]\s?(\d{1,3})(?:st|nd|rd|th)\b", _ordinals),
    (r"(\d{1,3}(?:,\d{3})*|\d+)(st|nd|rd|th|ST|ND|RD|TH|Th)\b", _ordinal),
    (r"(\d*[23])d(?![\w.])(?<!1[23]d)", _old_ordinal),
    PHONE_RULE,
    (r"(\d[\d,]*)'?s\b", _several),
    (r"'?(\d{3}0|\d0)'?s\b", _decade),
    (r"(\d+(?:\.\d+)?)[kK]\b", lambda m, c: (m.end(), f"{say.number(m.group(1))} thousand")),
    (r"(\d[\d,]*(?:\.\d+)?)\s?(bn|mn|tn)\b", lambda m, c: (m.end(), say.scaled(m.group(1), m.group(2)))),
    UNIT_RANGE_RULE,
    (rf"(\d[\d,.]*)\s?[-–]\s?(\d(?:[\d,.]*\d)?)(?![-–]?\d)(?:\s?({UNIT})(?![\w/]))?", _range),
    *MEASURE_RULES,
    (r"\d+(?!(?:st|nd|rd|th)\b)[^\W\d_][^\W_]*", mixed_code),
    (r"(?P<sign>)(?P<count>\d{1,3}(?:\.\d{3})+,\d+)(?![\d,])", _european_number),
    (rf"{SIGN}(?P<count>{NUM})", _number),
    (r"'(\d\d)\b", _short_year),
]
