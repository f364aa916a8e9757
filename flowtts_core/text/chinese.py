"""Figures in Chinese texts as they are read: 90% is 百分之九十, 3.5 is 三点五, 2024年 is 二零二四年."""

from __future__ import annotations

import re

from flowtts_core.text.pieces import Reading

_DIGITS = "零一二三四五六七八九"
_PLACES, _GROUPS = ("", "十", "百", "千"), ("", "万", "亿", "万亿")
_NUMBER = re.compile(r"(?P<whole>\d+)(?:\.(?P<part>\d+))?(?P<percent>\s?[%％])?(?=(?P<year>年)?)")
_MOST_DIGITS = 16  # longer ones are read digit by digit, as are those that begin with 0


def readings(text: str) -> list[Reading]:
    """Return what figures are read as, with their characters in the text."""
    found = []
    for match in _NUMBER.finditer(text):
        whole, part = match["whole"], match["part"]
        plainly = (
            len(whole) > _MOST_DIGITS or (len(whole) > 1 and whole[0] == "0") or (match["year"] and len(whole) == 4)
        )
        said = "".join(_DIGITS[int(digit)] for digit in whole) if plainly else number(int(whole))
        said += "点" + "".join(_DIGITS[int(digit)] for digit in part) if part else ""
        found.append(Reading(match.start(), match.end(), "百分之" + said if match["percent"] else said))
    return found


def number(value: int) -> str:
    """Read a whole number below 10**16."""
    if not 0 <= value < 10**16:
        raise ValueError(f"{value}: numbers from 0 to 10**16 are read")
    if value == 0:
        return _DIGITS[0]
    said, gap = "", False
    for place in reversed(range(4)):
        group = value // 10 ** (4 * place) % 10_000
        if group == 0:
            gap = bool(said)
            continue
        said += _DIGITS[0] * (bool(said) and (gap or group < 1000)) + _group(group) + _GROUPS[place]
        gap = False
    return said.removeprefix("一") if said.startswith("一十") else said


def _group(value: int) -> str:
    said, gap = "", False
    for place in reversed(range(4)):
        digit = value // 10**place % 10
        if digit == 0:
            gap = bool(said)
            continue
        said += _DIGITS[0] * gap + _DIGITS[digit] + _PLACES[place]
        gap = False
    return said
