"""Rules for numbers that are names: telephones, ISBNs, postcodes, models, and figures mixed with letters."""

from __future__ import annotations

import re

from flowtts_core.text.english import numbers as say
from flowtts_core.text.english.expand_common import Answer, Context, Rule, letters, word_before
from flowtts_core.text.english.wordlists import READ_AS_WORDS, STATES, SYMBOLS
from flowtts_core.text.latin import in_latin

_STATE = "|".join(sorted(STATES))
_BEFORE_ZIP = re.compile(rf"(?:\b(?:[Zz]ip|ZIP)(?:[ -][Cc]ode)?:?|,\s[A-Z]{{2}}|\b(?:{_STATE}))\s\Z")
_MODELS = frozenset("boeing airbus model type form part serial flight extension lot item catalog catalogue".split())
_WEB_SIGNS = {
    ".": "dot", "/": "slash", "@": "at", "-": "dash", "_": "underscore", ":": "colon", "?": "question mark",
}  # fmt: skip


def web(m: re.Match[str], context: Context) -> Answer:
    raw = m.group().rstrip(".,;:!?)'\"")
    shown = re.sub(r"\A(?:https?://)?(?:www\.)?", "", raw).rstrip("/") or raw
    words = []
    for part in re.findall(r"[A-Za-z]+|\d+|[^A-Za-z\d\s]", shown):
        if part.isdigit():
            words.append(say.number(part) if len(part) < 5 else say.digits(part))
        elif part.isalpha():
            words.append(letters(part) if len(part) < 4 and not context.is_word(part) else part)
        else:
            words.append(_WEB_SIGNS.get(part) or SYMBOLS.get(part, ""))
    return m.start() + len(raw), " ".join(words)


def mixed_code(m: re.Match[str], context: Context) -> Answer:
    words = []
    for part in re.findall(r"\d+|[^\W\d_]+", m.group()):
        if part.isdigit():
            words.append(say.number(part) if len(part) < 3 else say.digits(part))
        elif not part.isascii():
            words += in_latin(part)
        else:
            words.append(
                part.lower() if len(part) > 2 and (not part.isupper() or part in READ_AS_WORDS) else letters(part)
            )
    return m.end(), " ".join(words)


def is_zip_code(m: re.Match[str], digits: str) -> bool:
    """Return whether five figures are a postcode of the United States: after "zip" and the code of a state."""
    return (
        len(digits) == 5
        and digits.isdigit()
        and _BEFORE_ZIP.search(m.string, max(0, m.start() - 12), m.start()) is not None
    )


def _digits_in_groups(m: re.Match[str], context: Context) -> Answer:
    groups = re.findall(r"\d+|X", m.group())
    said = " , ".join(say.digits(group) if group != "X" else "^x" for group in groups)
    return m.end(), f"plus {said}" if m.group().startswith("+") else said


def _hyphened_groups(m: re.Match[str], context: Context) -> Answer:
    """Read three groups or more: an ISBN in its digits, but a 4-4-2 line-up in numbers."""
    groups = m.group().split("-")
    if all(len(group) < 3 and group[0] != "0" for group in groups) and groups[-1] != "X":
        return m.end(), " ".join(say.cardinal(int(group)) for group in groups)
    return _digits_in_groups(m, context)


def _national_phone(m: re.Match[str], context: Context) -> Answer:
    return _digits_in_groups(m, context) if sum(map(str.isdigit, m.group())) >= 8 else None


def _free_phone(m: re.Match[str], context: Context) -> Answer:
    """Read the figures of 1-800-FLOWERS."""
    area = "eight hundred" if m.group(1) == "800" else say.digits(m.group(1))
    return m.end(), f"one , {area} ,"


def _airliner(m: re.Match[str], context: Context) -> Answer:
    return m.end(), f"{say.pairs(m.group(1))} {say.pairs(m.group(2))}"


def _model(m: re.Match[str], context: Context) -> Answer:
    return _airliner(m, context) if word_before(m).lower() in _MODELS else None


CODE_RULES: list[tuple[str, Rule]] = [
    (r"\d{1,7}(?:-\d{1,7}){2,5}(?:-X)?(?![\w/]|-\d)", _hyphened_groups),
    (r"1-(8\d\d)-(?=[A-Z]{2})", _free_phone),
    (r"\d{5}-\d{4}(?!\d)", _digits_in_groups),
    (r"0\d{1,4}(?:[ -]\d{2,8}){1,4}(?![\d/]|[.,:-]\d)", _national_phone),
    (r"(7[0-8]7)-([1-9]00)(?![\d-])", _airliner),
    (r"(\d{3,4})-(\d{2,4})(?![\d-])", _model),
]
PHONE_RULE: tuple[str, Rule] = (
    r"(?:\+?\d{1,3}[ .-])?\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?!\d)|\d{3}-\d{4}(?!\d)"
    r"|\+\d{1,3}(?:[ .-]\(?\d{2,4}\)?){2,4}(?!\d)|\+\d{6,15}",
    _digits_in_groups,
)
