"""Rules for times of day and dates."""

from __future__ import annotations

import re

from flowtts_core.text.english import numbers as say
from flowtts_core.text.english.expand_common import DASH, MONTH, Answer, Context, Rule, stop, word_before
from flowtts_core.text.english.units import UNIT

_O_CLOCK = re.compile(r"\s?o'\s?clock\b", re.IGNORECASE)
_TIME_OF_DAY = r"(?P<hour{0}>\d{{1,2}})(?::(?P<minute{0}>\d\d))?(?:\s?(?P<half{0}>[AaPp](?:\.[Mm]\.|[Mm]\b)))?"
# What makes "7.45" a time: a word of clocks or trains anywhere in the text, or a train named by its time.
_CLOCKS = re.compile(
    r"\b(?:trains?|station|platform|railway|express|timetable|depart(?:s|ed|ure)?|o'clock|clocks?|noon|midnight|bus|ferry"
    r"|curtain|breakfast|lunch|dinner|supper|tea-?time|morning|afternoon|evening|tonight)\b"
    r"|\b(?:by|catch|caught|took|take|taking|miss|missed) the \d{1,2}\.[0-5]\d(?![\d%]|\.\d| per)"
)
_BEFORE_HOURS = frozenset("at by until till from to before after since about around of".split())
_BEFORE_CLOCK = frozenset("at by the till until from before after about past since between and of".split())
_ABBREVIATED = {month[:3]: month for month in say.MONTHS} | {"Sept": "September"}
_DAYS = {day[:3]: day for day in ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")} | {
    "Tues": "Tuesday", "Thur": "Thursday", "Thurs": "Thursday",
}  # fmt: skip
_WRITTEN = {**_ABBREVIATED, **_DAYS, **{name: name for name in (*_ABBREVIATED.values(), *_DAYS.values())}}
MONTHS_AND_DAYS = "|".join(sorted(_WRITTEN, key=len, reverse=True))


def month_or_day(written: str) -> str:
    """Return the name of a month or a day of the week: Jan, Tues, March."""
    return _WRITTEN[written]


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


def _iso_date(m: re.Match[str], context: Context) -> Answer:
    year, month, day = (int(m.group(part)) for part in ("year", "month", "day"))
    return (m.end(), say.date(year, month, day)) if 1 <= month <= 12 and 1 <= day <= 31 else None


def _timestamp(m: re.Match[str], context: Context) -> Answer:
    """Read 2021-07-04T09:30:00Z."""
    date = _iso_date(m, context)
    hour, minute, second = (int(m.group(part) or 0) for part in ("hour", "minute", "second"))
    if date is None or hour > 24 or minute > 59 or second > 60:
        return None
    return date[0], f"{date[1]} , {say.clock(hour, minute, second)}{' ^u ^t ^c' if m.group('zone') else ''}"


def _named_date(m: re.Match[str], context: Context) -> Answer:
    """Read 1-Feb-2023."""
    day, year = int(m.group(1)), m.group(3)
    if not 1 <= day <= 31:
        return None
    said = say.year(int(year)) if len(year) == 4 else say.cardinal(int(year))
    return m.end(), f"the {say.ordinal(day)} of {month_or_day(m.group(2))} {said}"


def _hours(m: re.Match[str], context: Context) -> Answer:
    """Read 0600 hours, and 1830 hours after "at" and the like, as armies do."""
    hour, minute = int(m.group(1)[:2]), int(m.group(1)[2:])
    if hour > 24 or minute > 59 or m.group(1)[0] != "0" and word_before(m).lower() not in _BEFORE_HOURS:
        return None
    words = say.pairs(m.group(1)) if hour else f"zero {say.pairs(m.group(1)[2:]) if minute else 'hundred'}"
    return stop(m, m.end()), f"{'oh ' if 0 < hour < 10 else ''}{words} hours"


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


def _days_month(m: re.Match[str], context: Context) -> Answer:
    """Read 3–5 May."""
    first, last = int(m.group(1)), int(m.group(2))
    if not 1 <= first < last <= 31:
        return None
    return m.end(), f"the {say.ordinal(first)} to the {say.ordinal(last)}{'' if m.group('of') else ' of'}"


def _clock_with_point(m: re.Match[str], context: Context) -> Answer:
    """Read 7.45 as a time, as in older British books, where the text speaks of clocks or trains."""
    if word_before(m).lower() not in _BEFORE_CLOCK or not _CLOCKS.search(m.string):
        return None
    return _time(m, context)


def _month(m: re.Match[str], context: Context) -> Answer:
    return m.end(), _ABBREVIATED[m.group(1)]


def _weekday(m: re.Match[str], context: Context) -> Answer:
    return m.end(), _DAYS[m.group(1)]


_ISO = r"(?P<year>\d{4})(?P<sign>[-/])(?P<month>\d\d?)(?P=sign)(?P<day>\d\d?)"
TIME_RULES: list[tuple[str, Rule]] = [
    (
        rf"{_ISO}T(?P<hour>\d\d):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:\.\d+)?)?(?:(?P<zone>Z)\b)?(?![\d:])",
        _timestamp,
    ),
    (rf"{_ISO}(?!\d)", _iso_date),
    (rf"(\d{{1,2}})-({MONTH})-(\d{{4}}|\d\d)(?![\w-])", _named_date),
    (r"(\d{4})\s?(?:hours|hrs\.?|h)(?!\w)", _hours),
    (rf"(\d{{1,2}})\s?[-–]\s?(\d{{1,2}})(?=\s(?P<of>of\s)?{MONTH}\b)", _days_month),
    (r"(\d{1,2})(?:/(?=\d+/)|\.(?=\d+\.))(\d{1,2})[/.](\d{4}|\d\d)(?![\d/])(?<!\.\d\d)", _slash_date),
    (r"(\d{1,2})-(\d{1,2})-(\d{4})(?![\d/-])", _slash_date),
    (
        rf"(?=[\d:]{{1,5}}(?:\s?[AaPp]\.?[Mm]|{DASH}[\d:]{{1,5}}\s?[AaPp]\.?[Mm]\b)|\d\d?:\d\d{DASH}\d\d?:\d\d)"
        rf"{_TIME_OF_DAY.format(1)}{DASH}{_TIME_OF_DAY.format(2)}(?![\d:%])",
        _time_range,
    ),
    (r"(?P<hour>\d{1,2})[:.](?P<minute>\d\d)(?P<second>)\s?(?P<half>[AaPp]\.?[Mm]\b\.?)", _time),
    (r"(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d))?(?!\d|,\d{3})(?P<half>)", _time),
    (
        rf"(?P<hour>\d{{1,2}})\.(?P<minute>[0-5]\d)(?P<second>)(?P<half>)(?![\d%]|[.,]\d|\s?(?:{UNIT}|per|percent|million|billion)\b)",
        _clock_with_point,
    ),
    (r"(?P<hour>\d{1,2})(?P<minute>)(?P<second>)\s?(?P<half>[AaPp]\.?[Mm]\b\.?)", lambda m, c: _whole_hour(m)),
    (rf"(\d{{1,2}})(?=\s+{MONTH}\b(?!\s\d{{1,2}}\b))", _day_month),
    (rf"(\d{{1,2}})\.(?=\s+{MONTH}\.?,?\s\d{{4}}\b)", _day_month),
]
# Where a word begins: Oct 1890, 14th Feb, Mon 5 Nov.
_MONTHS = "|".join(sorted(_ABBREVIATED.keys() - {"May"}, key=len, reverse=True))
DATE_WORD_RULES: list[tuple[str, Rule]] = [
    (rf"({_MONTHS})\.?(?=\s'?\d)", _month),
    (rf"(?<=\d\s)({_MONTHS})(?![\w.])|(?<=(?:st|nd|rd|th)\s)({_MONTHS})(?![\w.])", _month),
    (rf"({'|'.join(_DAYS)})\.?(?=,?\s\d{{1,2}}(?:st|nd|rd|th)?\s{MONTH}\b|,?\s{MONTH}\.?\s\d)", _weekday),
]
