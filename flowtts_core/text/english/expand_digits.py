"""Rules for what is written with digits: numbers, money, times, dates, fractions, ranges, measures, codes."""

from __future__ import annotations

import re

from flowtts_core.text.english import numbers as say
from flowtts_core.text.english.expand_common import (
    AMOUNT,
    MONTH,
    NUM,
    SCALE,
    UNIT,
    Answer,
    Context,
    Rule,
    is_attributive,
    letters,
    stop,
    word_after,
    word_before,
)
from flowtts_core.text.english.wordlists import (
    READ_AS_WORDS,
    SCRIPTURE,
    SCRIPTURE_BOOKS,
    SYMBOLS,
    UNCOUNTED,
    UNITS,
    VULGAR,
)

_STREET = re.compile(
    r"\s+(?:[A-Z][\w.]*\s+){1,3}(?:Street|Avenue|Road|Lane|Drive|Boulevard|Square|Court|Terrace|Place|St\b|Ave\b|Rd\b|Blvd\b)"
)
_ERA = r"(?:A\.\s?D\.|AD\b|C\.?E\b\.?|B\.\s?C\.|BC\b|B\.?C\.?E\b\.?)"
_ERA_BEFORE = re.compile(r"\b(?:A\.\s?D\.|AD)\s\Z")
_ERA_AFTER = re.compile(rf"\s?{_ERA}")
_NO_SHILLINGS = frozenset(
    "in took takes take after lasted lasts last lasting within just under over every the early late mid his her their".split()
)
_O_CLOCK = re.compile(r"\s?o'\s?clock\b", re.IGNORECASE)
_HYPHENED = re.compile(r"-[A-Za-z]")
_BARE_LETTERS = frozenset("s h t L N J K".split())
_DASH = r"(?:-|\s?–\s?)"  # a hyphen between blanks may be a minus sign
_TIME_OF_DAY = r"(?P<hour{0}>\d{{1,2}})(?::(?P<minute{0}>\d\d))?(?:\s?(?P<half{0}>[AaPp](?:\.[Mm]\.|[Mm]\b)))?"
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


def _is_era_year(m: re.Match[str]) -> bool:
    """Return whether it is a year as in A.D. 1066, 1066 A.D., and "(1066)"."""
    before, after = m.string[max(0, m.start() - 6) : m.start()], m.string[m.end() : m.end() + 6]
    bracketed = before[-1:] == "(" and after[:1] == ")" and 1010 <= int(m.group(2)) <= 2099
    return bracketed or _ERA_BEFORE.search(before) is not None or _ERA_AFTER.match(after) is not None


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
    kind = is_attributive(m, m.end()) or _HYPHENED.match(m.string, m.end()) is not None
    words = say.money(m.group("currency"), m.group("amount"), m.group("scale") or "", kind)
    return m.end(), re.sub(r"\b(?=dollar)", f"{letters(country)} ", words, count=1) if country else words


def _cents(m: re.Match[str], context: Context) -> Answer:
    return m.end(), say.money(m.group(2), m.group(1))


def _old_money(m: re.Match[str], context: Context) -> Answer:
    """Read pounds, shillings and pence: £3 4s. 6d."""
    amounts = m.groupdict()
    pounds, shillings, pence = amounts.get("pounds"), amounts.get("shillings"), amounts.get("pence")
    if shillings and not pounds and not pence and word_before(m).lower() in _NO_SHILLINGS:
        return None  # "in 9s." are seconds, "the 60s." are years
    kind = is_attributive(m, m.end())
    parts = [say.money("£", pounds)] if pounds else []
    if shillings:
        parts.append(f"{say.number(shillings)} {say.plural('shilling', '1' if kind else shillings)}")
    if pence:
        parts.append(f"{say.number(pence)} {say.plural('penny', '1' if kind else pence)}")
    return stop(m, m.end()), " ".join(parts)


def _several(m: re.Match[str], context: Context) -> Answer:
    """Read the plural of a number that is a name or a count: F-16s, 100s of men."""
    count = m.group(1)
    named = re.search(r"[A-Za-z]-\Z", m.string[max(0, m.start() - 2) : m.start()])
    if named or (word_after(m, m.end()) == "of" and re.fullmatch("10+", count.replace(",", ""))):
        return m.end(), say.several(say.number(count)).removeprefix("" if named else "one ")
    return None


def _time(m: re.Match[str], context: Context) -> Answer:
    hour, minute, half = int(m.group("hour")), int(m.group("minute") or 0), (m.group("half") or "")[:1].lower()
    if hour > 24 or minute > 59 or (half and hour > 12):
        return None
    if m.group("minute") is None and not half:
        return None
    second = m.group("second")
    words = say.clock(hour, minute, int(second) if second else None, half)
    oclock = _O_CLOCK.match(m.string, m.end()) if words.endswith("o'clock") else None
    return oclock.end() if oclock else stop(m, m.end()), words


def _whole_hour(m: re.Match[str]) -> Answer:
    hour = int(m.group("hour"))
    return (stop(m, m.end()), say.clock(hour, 0, None, m.group("half")[0].lower())) if 1 <= hour <= 12 else None


def _time_range(m: re.Match[str], context: Context) -> Answer:
    """Read ranges of times: 10am-5pm, 9:00-17:00, 5-7 pm."""
    times = []
    for side in ("1", "2"):
        hour, minute, half = (m.group(name + side) for name in ("hour", "minute", "half"))
        if int(hour) > (12 if half else 24) or int(minute or 0) > 59:
            return None
        times.append((int(hour), int(minute or 0), (half or "")[:1].lower()))
    (hour, minute, half), last = times
    first = say.clock(hour, minute, None, half) if half or minute or not last[2] else say.cardinal(hour)
    return stop(m, m.end()), f"{first} to {say.clock(last[0], last[1], None, last[2])}"


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
    if not whole and ((upper, lower) in ((24, 7), (9, 11), (7, 7)) or upper + lower == 100 and upper >= 50):
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
    if len(low) == 4 and len(high) in (2, 4) and low.isdigit() and high.isdigit() and 1010 <= int(low) <= 2099:
        return m.end(), f"{say.year(int(low))} to {say.year(int(high))}"
    if low[0] == "0" or high[0] == "0":
        return None
    if len(high) > 4 and high.isdigit():  # a code rather than a range
        return None
    unit = m.group(3)
    tail = f" {_unit(unit, '2')}" if unit else ""
    return m.end(), f"{say.number(low)} to {say.number(high)}{tail}"


def _unit_range(m: re.Match[str], context: Context) -> Answer:
    """Read ranges of measures: 20 kHz–40 kHz, 10%-20%, 500 m–2 km. A unit that is the same, or shorter, is said once."""
    low, unit, high, last = m.groups()
    kind = "1" if is_attributive(m, m.end()) else "2"
    first = say.number(low) if last.startswith(unit) else f"{say.number(low)} {_unit(unit, low)}"
    return stop(m, m.end()), f"{first} to {say.number(high)} {_unit(last, kind)}"


def _money_range(m: re.Match[str], context: Context) -> Answer:
    """Read ranges of money: $10-$20, $1–2 million. Currency and scale are said once unless the lower amount has its own."""
    symbol, low, high = m.group("currency"), m.group("low"), m.group("amount")
    scale, last = m.group("low_scale") or "", m.group("scale") or ""
    if "." in low + high and not last:
        return m.end(), f"{say.money(symbol, low, scale)} to {say.money(symbol, high)}"
    if last and not scale and say.value(low) >= say.value(high):
        return m.end(), f"{say.money(symbol, low)} to {say.money(symbol, high, last)}"  # $500–$1 million
    kind = is_attributive(m, m.end())
    return m.end(), f"{say.scaled(low, scale)} to {say.money(symbol, high, last, kind)}"


def _unit(unit: str, count: str) -> str:
    name = UNITS[unit]
    return name if name in UNCOUNTED else say.plural(name, count)


def _measure(m: re.Match[str], context: Context) -> Answer:
    count, unit = m.group(2), m.group(3)
    if unit in _BARE_LETTERS and " " in m.group():
        return None  # a letter that stands alone is seldom a unit
    sign = "minus " if m.group(1) else ""
    return stop(m, m.end()), f"{sign}{say.number(count)} {_unit(unit, '1' if is_attributive(m, m.end()) else count)}"


def _hyphened_measure(m: re.Match[str], context: Context) -> Answer:
    return stop(m, m.end()), f"{say.number(m.group(1))} {_unit(m.group(2), '1')}"


def _feet(m: re.Match[str], context: Context) -> Answer:
    return stop(m, m.end()), f"{say.number(m.group(1))} foot {say.number(m.group(2) or m.group(3))}"


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
    if not sign and digits.isdigit() and len(digits) < 5 and _is_era_year(m):
        return m.end(), say.year(int(digits))
    if not sign and digits.isdigit() and _looks_like_year(m, digits, m.end()):
        return m.end(), say.year(int(digits))
    return m.end(), ("minus " if sign else "") + say.number(digits)


def _short_year(m: re.Match[str], context: Context) -> Answer:
    return m.end(), say.cardinal(int(m.group(1))) if m.group(1)[0] != "0" else "oh " + say.digits(m.group(1)[1])


DIGIT_RULES: list[tuple[str, Rule]] = [
    (r"(?:£(?P<pounds>\d[\d,]*)\s)?(?P<shillings>\d{1,2})s\b\.?,?\s?(?P<pence>\d{1,2})d\b\.?", _old_money),
    (r"£(?P<pounds>\d[\d,]*)\s(?:(?P<shillings>\d{1,2})s|(?P<pence>\d{1,2})d)\b\.?", _old_money),
    (r"(?P<shillings>\d{1,2})s\.(?!\w)|(?P<pence>\d{1,2})d\.(?!\w)", _old_money),
    (
        rf"(?P<country>)(?P<currency>[$£€¥₹])\s?(?P<low>{NUM})(?:\s?(?P<low_scale>{SCALE}|(?:k|m|mn|bn|tn|K|M|B)\b))?"
        rf"{_DASH}(?P=currency)?{AMOUNT}(?![\w%-])",
        _money_range,
    ),
    (r"(?P<country>)(?P<currency>[$£€¥₹])\s?" + AMOUNT, money),
    (r"[\w.+-]{1,64}@[\w-]{1,63}\.[\w.-]{1,200}", web),
    (rf"({NUM})\s?([€¢])", _cents),
    (r"(\d{4})-(\d\d)-(\d\d)(?!\d)", _iso_date),
    (r"(\d{1,2})[/.](\d{1,2})[/.](\d{4}|\d\d)(?![\d/])(?<!\.\d\d)", _slash_date),
    (r"\d{1,3}:\d{1,3}(?:[-–]\d{1,3}(?::\d{1,3})?)?(?![\d:]|\s?[AaPp]\.?[Mm]\b)", _verse),
    (r"([123])(?=\s([A-Z][a-z]+)\.?\s\d{1,3}:\d)", _numbered_book),
    (
        rf"(?=[\d:]{{1,5}}(?:\s?[AaPp]\.?[Mm]|{_DASH}[\d:]{{1,5}}\s?[AaPp]\.?[Mm]\b)|\d\d?:\d\d{_DASH}\d\d?:\d\d)"
        rf"{_TIME_OF_DAY.format(1)}{_DASH}{_TIME_OF_DAY.format(2)}(?![\d:%])",
        _time_range,
    ),
    (r"(?P<hour>\d{1,2})[:.](?P<minute>\d\d)(?P<second>)\s?(?P<half>[AaPp]\.?[Mm]\b\.?)", _time),
    (r"(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d))?(?!\d)(?P<half>)", _time),
    (r"(?P<hour>\d{1,2})(?P<minute>)(?P<second>)\s?(?P<half>[AaPp]\.?[Mm]\b\.?)", lambda m, c: _whole_hour(m)),
    (rf"(\d{{1,2}})(?=\s+{MONTH}\b(?!\s\d{{1,2}}\b))", _day_month),
    (r"(\d+):(\d+)(?![\d:])", lambda m, c: (m.end(), f"{say.number(m.group(1))} to {say.number(m.group(2))}")),
    (r"(?P<whole>\d+)[ -](?P<upper>\d{1,3})/(?P<lower>\d{1,4})(?:(?:st|nd|rd|th)s?\b)?(?![\d/])", _fraction),
    (r"(?P<whole>)(?P<upper>\d{1,3})/(?P<lower>\d{1,4})(?:(?:st|nd|rd|th)s?\b)?(?![\d/])", _fraction),
    (rf"(\d+\s?)?([{''.join(VULGAR)}])", _vulgar),
    (r"(\d{1,3}(?:,\d{3})*|\d+)(?:st|nd|rd|th|ST|ND|RD|TH)\b", _ordinal),
    (
        r"(?:\+?\d{1,3}[ .-])?\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?!\d)|\d{3}-\d{4}(?!\d)"
        r"|\+\d{1,3}(?:[ .-]\(?\d{2,4}\)?){2,4}(?!\d)|\+\d{6,15}",
        _phone,
    ),
    (r"(\d[\d,]*)'?s\b", _several),
    (r"'?(\d{3}0|\d0)'?s\b", _decade),
    (r"(\d+(?:\.\d+)?)[kK]\b", lambda m, c: (m.end(), f"{say.number(m.group(1))} thousand")),
    (rf"({NUM})\s?({UNIT}){_DASH}({NUM})\s?({UNIT})(?![\w/])", _unit_range),
    (rf"(\d[\d,.]*)\s?[-–]\s?(\d(?:[\d,.]*\d)?)(?![-–]?\d)(?:\s?({UNIT})(?![\w/]))?", _range),
    (
        r"(\d{1,2})(?:'\s?(\d{1,2})(?:\"|'')|\s?ft\b\.?\s?(\d{1,2})\s?in(?:s?\b(?!\s(?:the|a|an|his|her)\b)\.?))",
        _feet,
    ),
    (rf"({NUM})-({UNIT})(?![\w/]|-\d)", lambda m, c: None if m.group(2) in _BARE_LETTERS else _hyphened_measure(m, c)),
    (rf"((?<![\w)])[-−])?({NUM})\s?({UNIT})(?![\w/])", _measure),
    (r"\d+(?!(?:st|nd|rd|th)\b)[A-Za-z][A-Za-z\d]*", mixed_code),
    (rf"((?<![\w)])[-−])?({NUM})", _number),
    (r"'(\d\d)\b", _short_year),
]
