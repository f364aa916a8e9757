"""Simplify the characters of a text (compatibility forms, quotes, dashes, control characters), with a map to the source."""

from __future__ import annotations

import re
import unicodedata

from flowtts_core.text.english.units import UNITS

# Characters and their replacements. NFKC does not see them, since it would change the meaning ("1½" is not "11/2").
_PLAIN = {
    **dict.fromkeys("\u2018\u2019\u201a\u201b\u02bc\u2032\uff07`\u00b4", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033\uff02", '"'),
    **dict.fromkeys("\u2010\u2011\u00ad\ufe63\uff0d", "-"),
    **dict.fromkeys("\u2012\u2013", "\u2013"),
    **dict.fromkeys("\u2014\u2015\u2e3a\u2e3b", "\u2014"),
    **dict.fromkeys("™®©℠\u200b\u200c\u200d\u2060\ufeff\ufffd", ""),
    "\u00ad": "",  # a soft hyphen only says where a line may break
    "\u2212": "\u2212",
    "\u2116": "No.",
    "\u2044": "/",
    "\u2026": "\u2026",
    "\u2103": "°C",
    "\u2109": "°F",
}
_KEEP = frozenset("¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞²³°ºª")
_CLUSTER = re.compile(r"[\s\S][\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]*")
_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻ⁿ", "0123456789-n", strict=True))
# What a superscript is an exponent of: a number (but no year), a letter, a bracket, a side of an equation, "mc", a unit.
_BASE = re.compile(
    r"(?:(?<![\w.])(?!1[5-9]\d\d\Z|20\d\d\Z)[\d.,]*\d|\)|(?<![^\W\d_])(?<!')[^\W\d_]|[=+*/×·−]\s?[A-Za-z]{2}"
    r"|\b[b-df-hj-np-tv-xz]{2}|(?<![A-Za-z'])(?P<unit>[A-Za-zµμ/]+))\Z"
)
_PLAIN_TEXT = re.compile(r"[ -_a-~]*\Z")  # printable ASCII but the backquote


def clean(text: str, powers: bool = True) -> tuple[str, list[int] | None, list[int] | None]:
    """Return the plain text, and for each character the source characters `[starts[i], ends[i])` that it came from.

    The maps are None when nothing changed. Control characters, null bytes, lone surrogates and private-use characters are
    dropped; white space becomes a blank. It never raises. With `powers` an exponent becomes "x^2", and superscripts after a
    word, which point to a note, are dropped.
    """
    if _PLAIN_TEXT.match(text):
        return text, None, None
    out: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    for match in _CLUSTER.finditer(text):
        plain = _plain(match.group())
        if powers and match.group() in _SUPERSCRIPTS:
            plain = _power(match.group(), out, match.start() > 0 and text[match.start() - 1] in _SUPERSCRIPTS)
        out.append(plain)
        starts.extend([match.start()] * len(plain))
        ends.extend([match.end()] * len(plain))
    return "".join(out), starts, ends


def _power(superscript: str, before: list[str], goes_on: bool) -> str:
    """Return "^2" after what may have an exponent, "" after a word. Later digits follow the first."""
    if goes_on:
        return _SUPERSCRIPTS[superscript] if before[-1] else ""
    base = _BASE.search("".join(before[-24:]))
    if base is None or (base["unit"] and base["unit"].rpartition("/")[2] not in UNITS):
        return ""
    return "^" + _SUPERSCRIPTS[superscript]


def _plain(cluster: str) -> str:
    first = cluster[0]
    if first in _PLAIN:
        return _PLAIN[first]
    if first in _KEEP:
        return first
    if first.isspace():
        return " "
    if " " <= cluster <= "~" and len(cluster) == 1:
        return cluster
    if unicodedata.category(first) in ("Cc", "Cf", "Cs", "Co", "Cn"):
        return ""
    composed = unicodedata.normalize("NFKC", cluster)
    if len(composed) == 1:
        return _PLAIN.get(composed, composed)
    return "".join(_PLAIN.get(c, c) for c in composed if unicodedata.category(c) not in ("Cc", "Cs"))
