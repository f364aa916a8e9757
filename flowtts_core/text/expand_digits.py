"""Rules for what is written with digits: numbers, money, times, dates, fractions, ranges, measures, codes."""

from __future__ import annotations

import re

from flowtts_core.text import numbers as say
from flowtts_core.text.expand_common import (
    AMOUNT,
    MONTH,
    NUM,
    UNIT,
    Answer,
    Context,
    Rule,
    letters,
    stop,
    word_after,
    word_before,
)
from flowtts_core.text.wordlists import READ_AS_WORDS, SYMBOLS, UNCOUNTED, UNITS, VULGAR

_STREET = re.compile(
    r"\s+(?:[A-Z][\w.]*\s+){1,3}(?:Street|Avenue|Road|Lane|Drive|Boulevard|Square|Court|Terrace|Place|St\b|Ave\b|Rd\b|Blvd\b)"
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


def web(m: re.Match[str], context: Context) -> Answer:
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
            words.append(letters(part) if len(part) < 4 and not context.is_word(part) else part)
        else:
            words.append(names.get(part) or SYMBOLS.get(part, ""))
    return m.start() + len(raw), " ".join(words)


def money(m: re.Match[str], context: Context) -> Answer:
    country = m.group("country") or ""
    words = say.money(m.group("currency"), m.group("amount"), m.group("scale") or "")
    return m.end(), re.sub(r"\b(?=dollar)", f"{letters(country)} ", words, count=1) if country else words


def _cents(m: re.Match[str], context: Context) -> Answer:
    return m.end(), say.money(m.group(2), m.group(1))


def _shillings(m: re.Match[str], context: Context) -> Answer:
    pounds, shillings, pence = m.group("pounds"), m.group("shillings"), m.group("pence")
    parts = [say.money("£", pounds)] if pounds else []
    parts.append(f"{say.number(shillings)} {say.plural('shilling', shillings)}")
    if pence:
        parts.append(f"{say.number(pence)} {'penny' if pence == '1' else 'pence'}")
    return stop(m, m.end()), " ".join(parts)


def _time(m: re.Match[str], context: Context) -> Answer:
    hour, minute, half = int(m.group("hour")), int(m.group("minute") or 0), (m.group("half") or "")[:1].lower()
    if hour > 24 or minute > 59 or (half and hour > 12):
        return None
    if m.group("minute") is None and not half:
        return None
    second = m.group("second")
    return stop(m, m.end()), say.clock(hour, minute, int(second) if second else None, half)


def _whole_hour(m: re.Match[str]) -> Answer:
    hour = int(m.group("hour"))
    return (stop(m, m.end()), say.clock(hour, 0, None, m.group("half")[0].lower())) if 1 <= hour <= 12 else None


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
    article = "" if word_before(m).lower() == "the" else "the "
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
    if unit in ("s", "h", "t", "L", "N", "J", "K") and " " in m.group():
        return None  # a letter that stands alone is seldom a unit
    sign = "minus " if m.group(1) else ""
    return stop(m, m.end()), f"{sign}{say.number(count)} {_unit(unit, count)}"


def _feet(m: re.Match[str], context: Context) -> Answer:
    inches = f" {say.number(m.group(2))}" if m.group(2) else ""
    return m.end(), f"{say.number(m.group(1))} {say.plural('foot', m.group(1)) if not inches else 'foot'}{inches}"


def mixed_code(m: re.Match[str], context: Context) -> Answer:
    words = []
    for part in re.findall(r"\d+|[A-Za-z]+", m.group()):
        if part.isdigit():
            words.append(say.number(part) if len(part) < 3 else say.digits(part))
        else:
            words.append(
                part.lower() if len(part) > 2 and (not part.isupper() or part in READ_AS_WORDS) else letters(part)
            )
    return m.end(), " ".join(words)


def _number(m: re.Match[str], context: Context) -> Answer:
    sign, digits = m.group(1), m.group(2)
    month = re.search(rf"\b{MONTH}\.?\s+\Z", m.string[max(0, m.start() - 12) : m.start()])
    if month and digits.isdigit() and len(digits) < 3 and 1 <= int(digits) <= 31:
        return m.end(), say.ordinal(int(digits))
    if digits.isdigit() and word_before(m).lower() in ("box", "room", "flight"):
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


DIGIT_RULES: list[tuple[str, Rule]] = [
    (r"(?:£(?P<pounds>\d+)\s)?(?P<shillings>\d+)s\.\s?(?P<pence>\d+)d\.", _shillings),
    (r"£(?P<pounds>\d+)\s(?P<shillings>\d+)s\.(?P<pence>)", _shillings),
    (r"(?P<country>)(?P<currency>[$£€¥₹])\s?" + AMOUNT, money),
    (r"[\w.+-]{1,64}@[\w-]{1,63}\.[\w.-]{1,200}", web),
    (rf"({NUM})\s?([€¢])", _cents),
    (r"(\d{4})-(\d\d)-(\d\d)(?!\d)", _iso_date),
    (r"(\d{1,2})[/.](\d{1,2})[/.](\d{4}|\d\d)(?![\d/])(?<!\.\d\d)", _slash_date),
    (r"(?P<hour>\d{1,2})[:.](?P<minute>\d\d)(?P<second>)\s?(?P<half>[AaPp]\.?[Mm]\b\.?)", _time),
    (r"(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d))?(?!\d)(?P<half>)", _time),
    (r"(?P<hour>\d{1,2})(?P<minute>)(?P<second>)\s?(?P<half>[AaPp]\.?[Mm]\b\.?)", lambda m, c: _whole_hour(m)),
    (rf"(\d{{1,2}})(?=\s+{MONTH}\b(?!\s\d{{1,2}}\b))", _day_month),
    (r"(\d+):(\d+)(?![\d:])", lambda m, c: (m.end(), f"{say.number(m.group(1))} to {say.number(m.group(2))}")),
    (r"(?P<whole>\d+)[ -](?P<upper>\d{1,3})/(?P<lower>\d{1,4})(?![\d/])", _fraction),
    (r"(?P<whole>)(?P<upper>\d{1,3})/(?P<lower>\d{1,4})(?![\d/])", _fraction),
    (rf"(\d+\s?)?([{''.join(VULGAR)}])", _vulgar),
    (r"(\d{1,3}(?:,\d{3})*|\d+)(?:st|nd|rd|th|ST|ND|RD|TH)\b", _ordinal),
    (
        r"(?:\+?\d{1,3}[ .-])?\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?!\d)|\d{3}-\d{4}(?!\d)"
        r"|\+\d{1,3}(?:[ .-]\(?\d{2,4}\)?){2,4}(?!\d)|\+\d{6,15}",
        _phone,
    ),
    (r"'?(\d{3}0|\d0)'?s\b", _decade),
    (r"(\d+(?:\.\d+)?)[kK]\b", lambda m, c: (m.end(), f"{say.number(m.group(1))} thousand")),
    (rf"(\d[\d,.]*)\s?[-–]\s?(\d(?:[\d,.]*\d)?)(?![-–]?\d)(?:\s?({UNIT})(?![\w/]))?", _range),
    (r"(\d)'\s?(\d{1,2})(?:\"|'')", _feet),
    (rf"((?<![\w)])[-−])?({NUM})\s?({UNIT})(?![\w/])", _measure),
    (r"\d+(?!(?:st|nd|rd|th)\b)[A-Za-z][A-Za-z\d]*", mixed_code),
    (rf"((?<![\w)])[-−])?({NUM})", _number),
    (r"'(\d\d)\b", _short_year),
]
