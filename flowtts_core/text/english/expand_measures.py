"""Rules for measures: numbers with units, ranges of them, powers of ten, feet and inches, degrees of the globe."""

from __future__ import annotations

import re

from flowtts_core.text.english import numbers as say
from flowtts_core.text.english.expand_common import DASH, NUM, Answer, Context, Rule, is_attributive, stop, word_before
from flowtts_core.text.english.units import BARE_LETTERS, UNIT, unit_name

SIGN = r"(?P<sign>(?<![\w)–-])[-−–])?"
_COLD = ("°", "%", "dB", "V", "mV")  # units of which a dash before the number is a minus sign
_BEFORE_MINUS = frozenset("to from of at was is between and below above minimum".split())
_NAME = re.compile(r"\.?\s(?:[A-Z][a-z]|\d)")
_DIRECTIONS = {"N": "north", "S": "south", "E": "east", "W": "west"}


def is_minus(m: re.Match[str], unit: str = "") -> bool:
    """Return whether the sign before a number is one: an en dash may be a dash."""
    return m.group("sign") != "–" or unit.startswith(_COLD) or word_before(m).lower() in _BEFORE_MINUS


def _measure(m: re.Match[str], context: Context) -> Answer:
    count, unit = m.group("count"), m.group("unit")
    if unit in BARE_LETTERS and " " in m.group() or not is_minus(m, unit):
        return None
    if unit == "W" and _NAME.match(m.string, m.end()):
        return None  # 123 W. Main St.
    sign = "minus " if m.group("sign") else ""
    return stop(
        m, m.end()
    ), f"{sign}{say.number(count)} {unit_name(unit, '1' if is_attributive(m, m.end()) else count)}"


def _hyphened_measure(m: re.Match[str], context: Context) -> Answer:
    if m.group(2) in BARE_LETTERS:
        return None
    return stop(m, m.end()), f"{say.number(m.group(1))} {unit_name(m.group(2), '1')}"


def _unit_range(m: re.Match[str], context: Context) -> Answer:
    """Read ranges of measures: 20 kHz–40 kHz, 10%-20%, 500 m–2 km. A unit that is the same, or shorter, is said once."""
    low, unit, high, last = m.groups()
    kind = "1" if is_attributive(m, m.end()) else "2"
    first = say.number(low) if last.startswith(unit) else f"{say.number(low)} {unit_name(unit, low)}"
    return stop(m, m.end()), f"{first} to {say.number(high)} {unit_name(last, kind)}"


def _scientific(m: re.Match[str], context: Context) -> Answer:
    """Read 1.2E6 and 3e8; a code as 7E31 is none."""
    count, sign, exponent, unit = m.group("count", "minus", "exponent", "unit")
    if "." not in count and not sign and m.group("e") == "E" and count != "1":
        return None
    power = f"{'minus ' if sign in ('-', '−') else ''}{say.ordinal(int(exponent))}"
    words = f"{'minus ' if m.group('sign') else ''}{say.number(count)} times ten to the {power}"
    return m.end(), f"{words} {unit_name(unit, '2')}" if unit else words


def _power_of_number(m: re.Match[str], context: Context) -> Answer:
    words = f"{say.number(m.group('count'))} {power(m.group('exponent'))}"
    return m.end(), f"{words} {unit_name(m.group('unit'), '2')}" if m.group("unit") else words


def power(exponent: str) -> str:
    """Return how an exponent is said: squared, to the power of minus three."""
    if exponent in ("2", "3"):
        return "squared" if exponent == "2" else "cubed"
    sign = "minus " if exponent[0] in "-−" else ""
    return f"to the power of {sign}{say.number(exponent.lstrip('-−')) if exponent[-1].isdigit() else exponent}"


def _feet(m: re.Match[str], context: Context) -> Answer:
    return stop(m, m.end()), f"{say.number(m.group(1))} foot {say.number(m.group(2) or m.group(3))}"


def _inches(m: re.Match[str], context: Context) -> Answer:
    """Read 12" where the sign closes no quotation: a 12" record, 5/8" thick."""
    if len(re.findall(r'(?<!\d)"', m.string[: m.end() - 1])) % 2:
        return None
    unit = "inch" if is_attributive(m, m.end()) or m.string[m.end()] == "-" else "inches"
    whole, upper, lower, count = m.group("whole", "upper", "lower", "count")
    if count:
        return m.end(), f"{say.number(count)} {'inch' if count == '1' else unit}"
    if whole:
        return m.end(), f"{say.mixed(int(whole[:-1]), int(upper), int(lower))} {unit}"
    return m.end(), f"{say.fraction(int(upper), int(lower))} inch"


def _by(m: re.Match[str], context: Context) -> Answer:
    """Read sizes: 2x4, 1920x1080, 10' x 12', 3 x 4 m, 8½ × 11 in."""
    sizes = re.split(r"\s?[x×]\s?", m.group())
    glued = all(re.fullmatch(r"\d+(?:\.\d+)?", size) for size in sizes) and "x" in m.group() and " " not in m.group()
    if m.group()[:2] == "0x" or not glued and not re.search(r"[^\d.,]$", sizes[-1]):
        return None
    return stop(m, m.end()), " by ".join(_size(size) for size in sizes)


def _size(size: str) -> str:
    found = re.fullmatch(rf"({NUM})\s?(.*)", size)
    assert found is not None
    count, unit = found.groups()
    words = say.pairs(count) if re.fullmatch(r"[1-9]\d{3}", count) else say.number(count)
    if unit in ("'", '"'):
        return words + (" inch" if unit == '"' else " foot")
    return f"{words} {unit_name(unit, count)}" if unit else words


def _globe(m: re.Match[str], context: Context) -> Answer:
    """Read degrees, minutes and seconds of the globe: 51° 26′ 46″ N."""
    degrees, minutes, seconds, direction = m.group("degrees", "minutes", "seconds", "direction")
    if not direction and not (degrees and minutes):
        return None
    named = ((degrees, "degree"), (minutes, "minute"), (seconds, "second"))
    words = [f"{say.number(count)} {say.plural(name, count)}" for count, name in named if count]
    return m.end(), " ".join([*words, _DIRECTIONS[direction]] if direction else words)


_COUNT = rf"(?P<count>{NUM})"
_UNIT = rf"(?P<unit>{UNIT})"
_SIZED = rf"{NUM}(?:['\"]|\s?(?:mm|cm|km|m|ft|in|yd)(?!\w))?"
SIZE_RULES: list[tuple[str, Rule]] = [
    (rf"{_SIZED}(?:\s?[x×]\s?{_SIZED})+(?![\w'\"])", _by),
    (
        r"(?:(?P<whole>\d+[ -])?(?P<upper>\d{1,2})/(?P<lower>\d{1,2})|(?P<count>\d+(?:\.\d+)?))\"(?=\s?[a-z]|-[a-z])",
        _inches,
    ),
]
MEASURE_RULES: list[tuple[str, Rule]] = [
    (
        r"(?:(?P<degrees>\d+(?:\.\d+)?)\s?[°º]\s?)(?:(?P<minutes>\d+(?:\.\d+)?)'\s?(?:(?P<seconds>\d+(?:\.\d+)?)(?:\"|'')\s?)?)?"
        r"(?:(?P<direction>[NSEW])(?![\w.]\w))?(?!\w)",
        _globe,
    ),
    (
        r"(?P<degrees>)(?P<minutes>\d+(?:\.\d+)?)'\s?(?:(?P<seconds>\d+(?:\.\d+)?)(?:\"|'')\s?)?(?P<direction>[NSEW])(?![\w'])",
        _globe,
    ),
    (
        r"(\d{1,2})(?:'\s?(\d{1,2})(?:\"|'')|\s?ft\b\.?\s?(\d{1,2})\s?in(?:s?\b(?!\s(?:the|a|an|his|her)\b)\.?))",
        _feet,
    ),
    (
        rf"{SIGN}(?P<count>\d+(?:\.\d+)?)(?P<e>[eE])(?P<minus>[-−+]?)(?P<exponent>\d{{1,3}})(?!\w)(?:\s?{_UNIT}(?![\w/]))?",
        _scientific,
    ),
    (rf"{_COUNT}\^(?P<exponent>[-−]?\d+)(?:\s?{_UNIT}(?![\w/]))?", _power_of_number),
    (rf"({NUM})-({UNIT})(?![\w/]|-\d)", _hyphened_measure),
    (rf"{SIGN}{_COUNT}\s?{_UNIT}(?![\w/])", _measure),
]  # fmt: skip
UNIT_RANGE_RULE: tuple[str, Rule] = (rf"({NUM})\s?({UNIT}){DASH}({NUM})\s?({UNIT})(?![\w/])", _unit_range)
