"""Numbers, years, money, dates and clock times as German words."""

from __future__ import annotations

import functools
from typing import Any

from flowtts_core.text.german.wordlists import CURRENCIES, FEMININE_UNITS, MONTHS, SCALES, UNITS

DIGITS = ("null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun")
_SPELLED_OUT_FROM = 10**36  # longer numbers are read digit by digit
_FRACTIONS = {2: "halb", 3: "drittel", 7: "siebtel", 8: "achtel"}


def _num2words(number: int, to: str) -> str:
    from num2words import num2words  # imported here, since it loads every language

    converter: Any = num2words
    return str(converter(number, to=to, lang="de"))


@functools.lru_cache(maxsize=20_000)
def cardinal(number: int) -> str:
    return _num2words(number, "cardinal") if abs(number) < _SPELLED_OUT_FROM else digits(str(number))


@functools.lru_cache(maxsize=5_000)
def ordinal(number: int, ending: str = "e") -> str:
    """Return dritte, or with the ending "en" dritten."""
    return _num2words(number, "ordinal").replace(" ", "").lower().removesuffix("e") + ending


@functools.lru_cache(maxsize=5_000)
def year(number: int) -> str:
    """Return 1984 as neunzehnhundertvierundachtzig; before 1100 and from 2000 a year is read as any number."""
    hundreds, rest = divmod(number, 100)
    if not 11 <= hundreds <= 19:
        return cardinal(number)
    return f"{cardinal(hundreds)}hundert{cardinal(rest) if rest else ''}"


def digits(text: str) -> str:
    """Return the names of the digits. Other characters are dropped."""
    return " ".join(DIGITS[int(c)] for c in text if c in "0123456789")


def number(text: str) -> str:
    """Return a written number in words: `1.234`, `1 000 000`, `3,14`, `007` (its digits), `2.0.1`, `3.5`."""
    whole, comma, decimals = text.replace(" ", "").partition(",")
    if comma:
        return f"{cardinal(int(whole.replace('.', '')))} Komma {digits(decimals)}"
    parts = whole.split(".")
    if len(parts) > 1 and not all(len(part) == 3 for part in parts[1:]):
        return " Punkt ".join(cardinal(int(part)) if len(part) < 4 else digits(part) for part in parts)
    whole = "".join(parts)
    if len(whole) > 1 and whole[0] == "0":
        return digits(whole)
    return cardinal(int(whole)) if len(whole) <= 12 else digits(whole)


def counted(text: str, feminine: bool = False) -> str:
    """Return a number before a noun: ein Kilometer, eine Tonne, hundertein Meter."""
    words = number(text)
    return words[:-1] + "e" * feminine if words.endswith("eins") and "," not in text else words


def scaled(amount: str, scale: str) -> str:
    """Return `2,5`, `Mio` as zwei Komma fünf Millionen; `2`, `` as zwei."""
    if not scale:
        return counted(amount)
    one, many = SCALES[scale]
    if one == "tausend":
        return f"{counted(amount)} {one}"
    return f"eine {one}" if amount == "1" else f"{number(amount)} {many}"


def money(currency: str, amount: str, scale: str = "") -> str:
    """Return `€`, `3,50`, `` as drei Euro fünfzig; `€`, `0,99` as neunundneunzig Cent; `$`, `2`, `Mio`."""
    unit, small = CURRENCIES[currency]
    whole, _, decimals = amount.partition(",")
    if scale or len(decimals) > 2 or (decimals.strip("0") and not small):
        return f"{scaled(amount, scale)} {unit}"
    cents = int(f"{decimals}0"[:2]) if decimals else 0
    words = f"{counted(whole)} {unit}"
    if not cents:
        return words
    return f"{counted(str(cents))} {small}" if not whole.strip("0") else f"{words} {cardinal(cents)}"


def measure(amount: str, unit: str) -> str:
    """Return `1`, `t` as eine Tonne; `2,5`, `km` as zwei Komma fünf Kilometer."""
    name = UNITS[unit]
    feminine = name.split(" ")[0] in FEMININE_UNITS
    plural = f"{name}n" if feminine and amount != "1" else name
    return f"{counted(amount, feminine)} {plural}"


def clock(hour: int, minute: int, second: int = 0) -> str:
    """Return a time of day: vierzehn Uhr dreißig, ein Uhr."""
    words = [f"{counted(str(hour))} Uhr"]
    if minute or second:
        words.append(cardinal(minute))
    if second:
        words.append(f"und {measure(str(second), 's')}")
    return " ".join(words)


def date(day: int, month: int, ending: str, named: bool = True) -> str:
    """Return dritter Oktober, or with a month that is not `named` dritter zehnter; `ending` as `ordinal` takes it."""
    return f"{ordinal(day, ending)} {MONTHS[month - 1] if named else ordinal(month, ending)}"


def fraction(upper: int, lower: int) -> str:
    """Return ein halb, drei viertel, fünf zwölftel; "durch" between others."""
    if not 2 <= lower <= 100:
        return f"{cardinal(upper)} durch {cardinal(lower)}"
    name = _FRACTIONS.get(lower) or ordinal(lower, "el")
    return f"{counted(str(upper))} {name}"
