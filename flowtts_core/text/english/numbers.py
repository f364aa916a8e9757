"""Numbers, years, money, dates and clock times as English words."""

from __future__ import annotations

import functools
import re
from typing import Any

MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_DENOMINATORS = {2: ("half", "halves"), 4: ("quarter", "quarters")}
_CURRENCIES = {
    "$": ("dollar", "cent"), "£": ("pound", "penny"), "€": ("euro", "cent"), "¥": ("yen", "sen"), "₹": ("rupee", "paisa"),
    "¢": ("cent", ""), "₩": ("won", ""), "₽": ("ruble", "kopeck"), "₺": ("lira", "kurush"), "₪": ("shekel", "agora"),
    "₫": ("dong", ""), "₴": ("hryvnia", "kopeck"), "₦": ("naira", "kobo"), "₱": ("peso", "centavo"), "฿": ("baht", "satang"),
    "₿": ("bitcoin", ""), "₡": ("colon", ""), "₲": ("guarani", ""), "₸": ("tenge", ""), "₭": ("kip", ""), "₮": ("tugrik", ""),
    "₵": ("cedi", ""), "₼": ("manat", ""), "₾": ("lari", ""), "₣": ("franc", "centime"), "₤": ("lira", ""),
    "R$": ("real", "centavo"), "kr": ("krone", ""), "SEK": ("krona", ""), "PLN": ("zloty", ""), "CZK": ("koruna", ""),
    "HUF": ("forint", ""), "CNY": ("yuan", ""), "ZAR": ("rand", ""),
}  # fmt: skip
CURRENCY_SIGNS = "".join(sign for sign in _CURRENCIES if len(sign) == 1)
# Signs and codes of countries' money: what stands before the name of the unit, and the unit's sign.
FOREIGN_MONEY = {
    "US$": ("^u ^s", "$"), "A$": ("Australian", "$"), "AU$": ("Australian", "$"), "C$": ("Canadian", "$"),
    "CA$": ("Canadian", "$"), "NZ$": ("New Zealand", "$"), "HK$": ("Hong Kong", "$"), "S$": ("Singapore", "$"),
    "NT$": ("Taiwan", "$"), "MX$": ("Mexican", "₱"), "R$": ("", "R$"), "USD": ("^u ^s", "$"), "AUD": ("Australian", "$"),
    "CAD": ("Canadian", "$"), "NZD": ("New Zealand", "$"), "HKD": ("Hong Kong", "$"), "EUR": ("", "€"), "GBP": ("", "£"),
    "JPY": ("", "¥"), "CHF": ("Swiss", "₣"), "INR": ("", "₹"), "KRW": ("", "₩"), "RUB": ("", "₽"), "BRL": ("", "R$"),
    "Rs": ("", "₹"), "Rs.": ("", "₹"), "SGD": ("Singapore", "$"), "MXN": ("Mexican", "₱"), "TRY": ("", "₺"), "THB": ("", "฿"),
    "SEK": ("Swedish", "SEK"), "NOK": ("Norwegian", "kr"), "DKK": ("Danish", "kr"), "PLN": ("", "PLN"), "CZK": ("", "CZK"),
    "HUF": ("", "HUF"), "CNY": ("", "CNY"), "ZAR": ("", "ZAR"),
}  # fmt: skip
_PLURALS = {
    "penny": "pence", "paisa": "paise", "foot": "feet", "inch": "inches", "real": "reais", "henry": "henries",
    "agora": "agorot", "krone": "kroner", "krona": "kronor", "stone": "stone",
    **{word: word for word in "yen sen won lira naira baht dong kip satang kurush kobo tenge molar yuan rand".split()},
}  # fmt: skip
_SCALES = {"k": "thousand", "m": "million", "mn": "million", "bn": "billion", "b": "billion", "tn": "trillion"}
_SPELLED_OUT_FROM = 10**36  # longer numbers are read digit by digit


def _num2words(number: int, to: str) -> str:
    from num2words import num2words  # imported here, since it loads every language

    converter: Any = num2words
    return str(converter(number, to=to)).replace(",", "").replace("-", " ")


@functools.lru_cache(maxsize=20_000)
def cardinal(number: int) -> str:
    return _num2words(number, "cardinal") if abs(number) < _SPELLED_OUT_FROM else digits(str(number))


@functools.lru_cache(maxsize=5_000)
def ordinal(number: int) -> str:
    return _num2words(number, "ordinal") if number < _SPELLED_OUT_FROM else digits(str(number))


@functools.lru_cache(maxsize=5_000)
def year(number: int) -> str:
    return _num2words(number, "year") if 1000 <= number < 10_000 else cardinal(number)


def digits(text: str) -> str:
    """Return the names of the digits. Other characters are dropped."""
    return " ".join(DIGITS[int(c)] for c in text if c in "0123456789")


def _ungrouped(text: str) -> str:
    return text.replace(",", "").replace(" ", "")


def value(text: str) -> float:
    """Return the value of a written number; for `2.0.1` that of the first two parts."""
    return float(".".join(_ungrouped(text).split(".")[:2]))


def number(text: str) -> str:
    """Return a written number in words: `1,234`, `1 000 000`, `3.14`, `.45`, `007` (its digits), `2.0.1`."""
    whole, *decimals = _ungrouped(text).split(".")
    if not decimals and ((len(whole) > 1 and whole[0] == "0") or len(whole) > 9 and whole == text):
        return digits(whole)
    if len(decimals) > 1:
        return " point ".join(
            cardinal(int(part)) if len(part) < 4 else digits(part) for part in (whole, *decimals) if part
        )
    words = cardinal(int(whole)) if whole else ""
    return " ".join([words, *(f"point {digits(part)}" for part in decimals)]).strip()


def plural(word: str, count: str) -> str:
    """Return the form of `word` after the number `count`."""
    if _ungrouped(count) in ("1", "1.0"):
        return word
    first, *rest = word.split(" ")  # miles an hour, degrees Celsius
    if rest and (first in ("square", "cubic") or rest[0] in ("hour", "ounce", "volt", "meter")):
        return " ".join([first, plural(rest[0], count), *rest[1:]])
    return " ".join([_PLURALS.get(first, first if first.endswith("s") or first in ("hertz",) else first + "s"), *rest])


def pairs(text: str) -> str:
    """Return `214` as two fourteen, `1026` as ten twenty six, as for house numbers and calibres."""
    head, tail = text[:-2], text[-2:]
    if tail == "00":
        return f"{cardinal(int(head))} hundred" if head else "zero zero"
    words = f"oh {digits(tail[1])}" if tail[0] == "0" else cardinal(int(tail))
    return f"{cardinal(int(head))} {words}" if head else words


def decade(text: str) -> str:
    """Return `1960` or `60` as a decade: nineteen sixties, sixties."""
    return several(year(int(text)) if len(text) == 4 else cardinal(int(text)))


def several(words: str) -> str:
    """Return a number in the plural: sixteens, sixes, sixties."""
    return re.sub("ys$", "ies", words + ("es" if words.endswith("x") else "s"))


def fraction(upper: int, lower: int) -> str:
    if lower == 0 or lower > 1000 or (lower > 20 and lower % 10):
        return f"{cardinal(upper)} over {cardinal(lower)}"
    one, many = _DENOMINATORS.get(lower) or ((name := ordinal(lower)), name + "s")
    if lower == 1:
        return f"{cardinal(upper)} over one"
    return f"{cardinal(upper)} {one if upper == 1 else many}"


def mixed(whole: int, upper: int, lower: int) -> str:
    part = fraction(upper, lower)
    return f"{cardinal(whole)} and {'a ' + part.removeprefix('one ') if upper == 1 else part}"


def scaled(amount: str, scale: str) -> str:
    """Return `2`, `m` as two million; `2`, `` as two."""
    return f"{number(amount)} {_SCALES.get(scale.lower(), scale.lower())}".strip()


def money(symbol: str, amount: str, scale: str = "", attributive: bool = False) -> str:
    """Return `$`, `3.50`, `` as three dollars and fifty cents; `£`, `2`, `m` as two million pounds.

    An `attributive` amount precedes a noun: a twenty dollar bill.
    """
    unit, small = _CURRENCIES[symbol]
    some = "1" if attributive else "2"
    whole, _, decimals = _ungrouped(amount).partition(".")
    if scale or (decimals and (len(decimals) > 2 or not small)):
        return f"{scaled(amount, scale)} {plural(unit, some)}"
    cents = int((decimals + "0")[:2]) if decimals else 0
    parts = (
        [f"{cardinal(int(whole or 0))} {plural(unit, '1' if attributive else whole)}"]
        if int(whole or 0) or not cents
        else []
    )
    if cents:
        parts.append(f"{cardinal(cents)} {plural(small, '1' if attributive else str(cents))}")
    return " and ".join(parts)


def currency(sign: str) -> str:
    """Return the name of a currency: dollars for `$`."""
    return plural(_CURRENCIES[sign][0], "2")


def clock(hour: int, minute: int, second: int | None = None, half: str = "") -> str:
    """Return a time of day in words. `half` is "", "a" or "p"."""
    words = [cardinal(hour)]
    if minute:
        words.append(("oh " if minute < 10 else "") + cardinal(minute))
    elif second is None and not half:
        words.append("o'clock" if 0 < hour <= 12 else "hundred" if hour else "hours")
    if second:
        words.append(f"and {cardinal(second)} {plural('second', str(second))}")
    if half:
        words.append(f"^{half} ^m")
    return " ".join(words)


def date(year_number: int, month: int, day: int) -> str:
    return f"{MONTHS[month - 1]} {ordinal(day)} {year(year_number)}"


_ROMAN = re.compile(r"(?=[MDCLXVI])M{0,3}(CM|CD|D?C{0,3})(XC|XL|L?X{0,3})(IX|IV|V?I{0,3})\Z")
_ROMAN_VALUES = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}


def roman(text: str) -> int | None:
    """Return the value of a Roman numeral in its usual form, else None."""
    upper = text.upper()
    if not _ROMAN.match(upper):
        return None
    values = [_ROMAN_VALUES[c] for c in upper]
    return sum(-v if i + 1 < len(values) and v < values[i + 1] else v for i, v in enumerate(values))
