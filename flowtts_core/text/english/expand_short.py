"""Rules for what is written short: Gov't, w/o, N. Main St., Mon.–Fri., readme.txt, the XXIst century, A–Z."""

from __future__ import annotations

import re

from flowtts_core.text.english import numbers as say
from flowtts_core.text.english.expand_codes import web
from flowtts_core.text.english.expand_common import Answer, Context, Rule, stop
from flowtts_core.text.english.expand_times import MONTHS_AND_DAYS, month_or_day

_CONTRACTED = {
    "gov't": "government", "gen'l": "general", "int'l": "international", "nat'l": "national",
    "dep't": "department", "sec'y": "secretary", "capt'n": "captain", "ass'n": "association", "sup't": "superintendent",
    "cont'd": "continued", "comm'r": "commissioner", "att'y": "attorney", "rec'd": "received", "treas'r": "treasurer",
}  # fmt: skip
_SLASHED = {"w/o": "without", "c/o": "care of", "b/c": "because"}
_FILES = (
    "txt|pdf|docx?|html?|jpe?g|png|gif|svg|exe|zip|js|ts|py|rs|cpp|java|sh|csv|tsv|xlsx?|pptx?|mp3|mp4|wav|md|json|xml|ya?ml|dll|log"
    "|bat|epub|ini|iso"
)
_COMPASS = {"N": "north", "S": "south", "E": "east", "W": "west"}
_ROADS = r"(?:St|Ave|Rd|Blvd|Dr|Ln|Pl|Ct|Pkwy|Hwy|Street|Avenue|Road|Boulevard|Drive|Lane|Place|Court|Parkway|Highway|Broadway)\b"
_LANDS = r"(?:Dakota|Carolina|America|Korea|Africa|Ireland|Virginia|Germany|Anglia)\b"
# What makes a text have such words: parts of the expression by which a text is looked at first, so few and cheap.
AFTER_DOT = _FILES
AT_WORD = r"[ivx]{2,8}\b|[Aa][-–][Zz]\b"
AT_MARK = rf"['–-](?:(?<=ov'|en'|nt'|at'|ep'|ec'|pt'|ss'|up'|mm'|tt'|as')[a-z]\b|\s?(?:{MONTHS_AND_DAYS})\b)"


def _contracted(m: re.Match[str], context: Context) -> Answer:
    return stop(m, m.end()), _CONTRACTED[m.group(1).lower()]


def _period(m: re.Match[str], context: Context) -> Answer:
    """Read Mon.–Fri. and Jan–Mar as Monday to Friday, January to March."""
    return stop(m, m.end()), f"{month_or_day(m.group(1))} to {month_or_day(m.group(2))}"


def _roman_ordinal(m: re.Match[str], context: Context) -> Answer:
    value = say.roman(m.group(1))
    return (m.end(), say.ordinal(value)) if value else None


def _roman_year(m: re.Match[str], context: Context) -> Answer:
    value = say.roman(m.group(1))
    return (m.end(), say.year(value)) if value and 1100 <= value <= 2100 else None


def _road(m: re.Match[str], context: Context) -> Answer:
    """Read the N of "12 N. Main St." as north; initials before it make it one."""
    return (
        None
        if re.search(r"[A-Z]\.?\s\Z", m.string[max(0, m.start() - 3) : m.start()])
        else (m.end(), _COMPASS[m.group(1)])
    )


def _item(m: re.Match[str], context: Context) -> Answer:
    """Read (i) as one, where it is no letter between (h) and (j)."""
    return None if re.search(r"\([hj]\)", m.string) else (m.end(), "one")


def _first_numeral(m: re.Match[str], context: Context) -> Answer:
    """Read the I of "Types I and II"."""
    return m.end(), "one"


def _number_without_stop(m: re.Match[str], context: Context) -> Answer:
    """Read "at No 10" as number ten; "No 10" that begins a sentence may be a no."""
    return (m.end(), "number") if re.search(r"[A-Za-z]\s\Z", m.string[max(0, m.start() - 2) : m.start()]) else None


SHORT_RULES: list[tuple[str, Rule]] = [
    (rf"(?i:({'|'.join(_CONTRACTED)}))\b\.?", _contracted),
    (rf"({MONTHS_AND_DAYS})\b\.?\s?[-–]\s?({MONTHS_AND_DAYS})\b\.?", _period),
    (r"(?:w/o|c/o|b/c)\b", lambda m, c: (m.end(), _SLASHED[m.group()])),
    (rf"[A-Za-z][\w-]{{0,40}}\.(?:{_FILES})(?![\w'’]|\.\w)", web),
    (rf"([NSEW])\.?(?=\s(?:\d+(?:st|nd|rd|th)|[A-Z][a-z]+)\s{_ROADS})", _road),
    (rf"([NSEW])\.(?=\s{_LANDS})", lambda m, c: (m.end(), _COMPASS[m.group(1)])),
    (r"([Aa])[-–]([Zz])(?!\w)", lambda m, c: (m.end(), "^a to ^z")),
    (r"([MDCLXVI]{2,15})(?:(?:st|nd|rd|th)\b|(?=-[Cc]entury\b))", _roman_ordinal),
    (r"(M[MDCLXVI]{3,14})\b(?![\w'-])", _roman_year),
    (r"N[º°]\.?(?=\s?\d)", lambda m, c: (m.end(), "number")),
    (r"No(?=\s\d{1,4}\b(?!-|[.,]\d|%))", _number_without_stop),
    (r"i(?=\))(?<=\(i)", _item),
    (r"(?<=(?:st|nd|rd|th)\s)c\b\.", lambda m, c: (stop(m, m.end()), "century")),
    (r"(?:F|C)(?<=degrees [FC])(?!\w)", lambda m, c: (m.end(), "Fahrenheit" if m.group() == "F" else "Celsius")),
]  # fmt: skip
NUMERAL_RULES: list[tuple[str, Rule]] = [
    (r"I(?=(?:,|,? (?:and|or|to|&)) II\b)", _first_numeral)
]  # after the other numerals
