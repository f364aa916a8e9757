"""Rules for money: signs and codes of currencies, ranges, and pounds, shillings and pence."""

from __future__ import annotations

import math
import re

from flowtts_core.text.english import numbers as say
from flowtts_core.text.english.expand_common import (
    AMOUNT,
    DASH,
    NUM,
    SCALE,
    Answer,
    Context,
    Rule,
    is_attributive,
    is_hyphened,
    stop,
    word_before,
)

_SIGN = f"[{say.CURRENCY_SIGNS}]"
_CODE = "|".join(re.escape(code) for code in say.FOREIGN_MONEY if code.isalpha() and code.isupper())
_FOREIGN = "|".join(map(re.escape, sorted(say.FOREIGN_MONEY, key=len, reverse=True)))
_EUROPEAN = r"\d{1,3}(?:[. ]\d{3})+(?:,\d\d)?|\d+,\d\d"  # 1.234,56 and 10 000 and 3,50
_NO_SHILLINGS = frozenset(
    "in took takes take after lasted lasts last lasting within just under over every the early late mid his her their".split()
)
_DATED = frozenset("on since by from until till dated before after of".split())
# What tells that a text has shillings; and what makes "10/6", which is no usual fraction, a price.
_SHILLINGS = re.compile(r"\d/[-–]|\d[sd]\.|\b(?:shillings?|guineas?|farthings?|half-?crowns?|pence|ha'?penny)\b")
_PRICES = re.compile(r"£|\b(?:prices?|priced|costs?|paid|pays?|sold|bought|charged?|worth|tickets?|fares?)\b")


def money(m: re.Match[str], context: Context) -> Answer:
    kind = is_attributive(m, m.end()) or is_hyphened(m)
    return m.end(), _money(m.group("currency"), m.group("amount"), m.group("scale") or "", kind)


def _below_zero(m: re.Match[str], context: Context) -> Answer:
    """Read -$50."""
    end, words = money(m, context) or (0, "")
    return end, f"minus {words}"


def _money(currency: str, amount: str, scale: str = "", attributive: bool = False) -> str:
    country, sign = say.FOREIGN_MONEY.get(currency, ("", currency))
    words = say.money(sign, amount, scale, attributive)
    return re.sub(r"\b(?=dollar|peso|franc|krone|krona|kronor)", f"{country} ", words, count=1) if country else words


def _money_after(m: re.Match[str], context: Context) -> Answer:
    """Read an amount before its sign or code: 5¢, 20 €, 20 USD."""
    return m.end(), _money(m.group(2), m.group(1))


def _european(m: re.Match[str], context: Context) -> Answer:
    """Read an amount as the Continent writes it: €1.234,56 and 10 000 €."""
    amount, before, after = m.group("amount"), m.group("before"), m.group("after")
    if not after and (not before or "," not in amount):
        return None  # "$1.234" has decimals, and no sign is no money
    return m.end(), _money(before or after, re.sub("[. ]", "", amount).replace(",", "."))


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


def _slashed_shillings(m: re.Match[str], context: Context) -> Answer:
    """Read shillings and pence with a slash: £1/2/6, 10/6 and 2/-. Where no money is near, 10/6 is a fraction."""
    pounds, shillings, pence = m.group("pounds"), m.group("shillings"), m.group("pence")
    if pence in ("-", "–"):
        return m.end(), f"{say.number(shillings)} {say.plural('shilling', shillings)}"
    if int(pence) > 11 or not pounds and not _is_price(m, int(shillings), int(pence)):
        return None
    words = f"{say.cardinal(int(shillings))} and {say.cardinal(int(pence))}"
    return m.end(), f"{say.money('£', pounds)} {words}" if pounds else words


def _is_price(m: re.Match[str], shillings: int, pence: int) -> bool:
    if shillings > 40 or word_before(m).lower() in _DATED:
        return False
    unusual = shillings > pence or math.gcd(shillings, pence) > 1  # as a fraction
    return bool(_SHILLINGS.search(m.string)) or unusual and bool(_PRICES.search(m.string))


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


MONEY_RULES: list[tuple[str, Rule]] = [
    (r"(?:£(?P<pounds>\d[\d,]*)\s)?(?P<shillings>\d{1,2})s\b\.?,?\s?(?P<pence>\d{1,2})d\b\.?", _old_money),
    (r"£(?P<pounds>\d[\d,]*)\s(?:(?P<shillings>\d{1,2})s|(?P<pence>\d{1,2})d)\b\.?", _old_money),
    (r"(?P<shillings>\d{1,2})s\.(?!\w)|(?P<pence>\d{1,2})d\.(?!\w)", _old_money),
    (r"(?:£(?P<pounds>\d[\d,]*)/)?(?P<shillings>\d{1,2})/(?P<pence>\d{1,2}|[-–](?!\d))(?![\d/])(?:d\b)?", _slashed_shillings),
    (rf"(?P<before>{_SIGN})?\s?(?P<amount>{_EUROPEAN})(?!\d|,\d)(?:\s?(?P<after>{_SIGN}))?", _european),
    (
        rf"(?P<currency>{_SIGN})\s?(?P<low>{NUM})(?:\s?(?P<low_scale>{SCALE}|(?:k|m|mn|bn|tn|K|M|B)\b))?"
        rf"{DASH}(?P=currency)?{AMOUNT}(?![\w%-])",
        _money_range,
    ),
    (rf"(?P<currency>{_SIGN})\s?" + AMOUNT, money),
    (rf"(?<![\w)–-])[-−](?P<currency>{_SIGN})" + AMOUNT, _below_zero),
    (rf"({NUM})\s?({_SIGN}(?!\d)|(?:{_CODE}|kr)\b)", _money_after),
]  # fmt: skip
# Where a word begins: A$10, USD 20, R$2.000,50.
FOREIGN_MONEY_RULES: list[tuple[str, Rule]] = [
    (rf"(?P<before>{_FOREIGN})\s?(?P<amount>{_EUROPEAN})(?!\d|,\d)(?P<after>)", _european),
    (rf"(?P<currency>{_FOREIGN})\s?" + AMOUNT, money),
]
