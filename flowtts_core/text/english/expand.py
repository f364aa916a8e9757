"""Expand what English does not write as it is read. Each rule looks at one place of the text and may return its reading."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from flowtts_core.text.english import numbers as say
from flowtts_core.text.english.expand_broken import BROKEN, BROKEN_RULES
from flowtts_core.text.english.expand_common import Context, Rule, compiled
from flowtts_core.text.english.expand_digits import DIGIT_RULES
from flowtts_core.text.english.expand_letters import AFTER_LETTER, LETTER_RULES, SYMBOL_RULES
from flowtts_core.text.english.expand_short import AFTER_DOT, AT_MARK, AT_WORD
from flowtts_core.text.english.wordlists import ABBREVIATIONS, BARE, BEFORE_NUMBER, NUMBERED, RULERS, SOUNDS, SYMBOLS
from flowtts_core.text.pieces import Reading

# Of each list the first rule that answers is taken: where a word starts with a digit (or a mark before one), where it
# starts with a letter, and at any other character.
_DIGIT, _SYMBOL = compiled(DIGIT_RULES), compiled(SYMBOL_RULES)
_LETTER = compiled([*BROKEN_RULES, *LETTER_RULES])


_BEFORE_DIGIT = rf"[-−–+('.{say.CURRENCY_SIGNS}]{{0,2}}"
_LONG_DIGITS = re.compile(_BEFORE_DIGIT + r"\d[\d,.]{60,}")


def _any_of(words: Iterable[str]) -> str:
    """Return an expression that finds any of the words. It looks at first letters first, since most texts have none of them."""
    by_first: dict[str, list[str]] = {}
    for word in sorted(set(words)):
        by_first.setdefault(word[0], []).append(word[1:])
    return "|".join(f"{first}(?:{'|'.join(rest)})" for first, rest in by_first.items())


_NEEDED = re.compile(
    rf"[\d{re.escape(''.join(SYMBOLS) + say.CURRENCY_SIGNS)}#/~<>^\u0370-\u03ff\u00bc-\u00be\u2150-\u215e]"
    + rf"|[A-Z]{{2}}|\b[A-Za-z]\.|\w A(?:{AFTER_LETTER})|\b(?:[VX]|{AT_WORD}|"
    + _any_of(
        re.escape(word) + (r"\b" if word in BARE else r"\.")
        for word in [*ABBREVIATIONS, *BEFORE_NUMBER, "St", "Dr", "Fr", "Br"]
    )
    + "|(?:"
    + _any_of([*(form for w in NUMBERED for form in (w, w[0].upper() + w[1:], w.upper())), *map(str.title, RULERS)])
    + r")\s+[ivxlcIVXLC]+\b|(?i:"
    + "|".join(SOUNDS)
    + rf")\b)|\.(?:com|org|net|edu|gov|io|{AFTER_DOT})\b|www\.|://|\A\s*[IVXLC]+[.:\s]*(?:\Z|\s)|{BROKEN}|{AT_MARK}"
)


_PLACE = re.compile(
    r"(?P<ipa>\[\[ˈ+\]\])|(?<![^\W_])(?:(?P<digit>"
    + _BEFORE_DIGIT
    + r"\d|[¼-¾⅐-⅞])|(?P<letter>(?<![^\W\d_]')[^\W\d_]))|(?P<symbol>[^\w\s.,;:!?\"'()\-])"
)


_WORD_END = re.compile(r"[^\W_]*")


def readings(text: str, is_word: Callable[[str], bool] | None = None) -> Iterator[Reading]:
    """Yield how parts of `text` (from clean.py) are said that are written otherwise (numbers, abbreviations), in order."""
    if not _NEEDED.search(text):
        return
    capitals = sum(map(str.isupper, text))
    headline = capitals > 3 and capitals >= 0.9 * sum(map(str.isalpha, text)) and len(text.split()) > 1
    context = Context(text, headline, is_word or (lambda word: bool(re.search("[aeiouy]", word))))
    position = 0
    while (place := _PLACE.search(text, position)) is not None:
        if place.group("ipa"):
            position = place.end()
            continue
        answer = _answer(text, place, context)
        if answer is None:
            position = max(place.start() + 1, _WORD_END.match(text, place.start()).end())  # type: ignore[union-attr]
            continue
        start, end, words = answer
        yield Reading(start, end, words)
        position = end


def _answer(text: str, place: re.Match[str], context: Context) -> Reading | None:
    start = place.start()
    if place.group("letter"):
        return _first(_LETTER, text, start, context)
    if place.group("symbol"):
        return _first(_SYMBOL, text, start, context)
    long = _LONG_DIGITS.match(text, start)
    if long:  # nobody reads such a number, and the rules below would take long
        return Reading(start, long.end(), say.digits(long.group()))
    for skipped in range(place.end() - start):  # "($5": the bracket is not part of it
        found = _first(_DIGIT, text, start + skipped, context)
        if found is not None:
            return found
        if text[start + skipped] in SYMBOLS:
            return _first(_SYMBOL, text, start + skipped, context)
    return None


def _first(rules: list[tuple[re.Pattern[str], Rule]], text: str, start: int, context: Context) -> Reading | None:
    for pattern, rule in rules:
        match = pattern.match(text, start)
        if match is not None:
            answer = rule(match, context)
            if answer is not None and answer[0] > start:
                return Reading(start, *answer)
    return None
