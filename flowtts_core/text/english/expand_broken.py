"""Rules for words that are broken up: stutters (W-what) and letters set apart (C H A P T E R)."""

from __future__ import annotations

import re
from functools import cache

from flowtts_core.text.english import numbers as say
from flowtts_core.text.english.expand_common import Answer, Context, Rule
from flowtts_core.text.english.wordlists import NUMBERED, SPELLED

# What is said of the letters that a stutter repeats, where it is not the letters and "uh".
_SOUNDS = {
    "a": "a", "e": "eh", "i": "ih", "o": "oh", "u": "uh", "c": "kuh", "ph": "fuh", "q": "kwuh", "qu": "kwuh", "wh": "wuh",
    "x": "zuh", "kn": "nuh", "wr": "ruh",
}  # fmt: skip
_DIGRAPHS = ("ch", "ph", "sh", "th", "wh", "kn", "wr")
_SOFT = re.compile(r"g(?:e(?!t)|i(?!v|rl|ft|gg)|y)", re.IGNORECASE)
_LONGEST = 40  # letters set apart that are looked at
_NO_STUTTERS = frozenset("d-day d-days t-test t-tests b-boy b-boys b-ball c-clamp c-clamps c-class e-edition".split())
_STUTTER = r"(?P<onset>[bcdfghjklmnpqrstvwxyz]{1,3}|[aeiou])-(?=(?P=onset))"
BROKEN = rf"\b(?i:{_STUTTER})|(?<![\w'.])[A-Za-z](?:\s+[A-Za-z]){{3}}(?![\w'])"  # what a text with such words has


def _stutter(m: re.Match[str], context: Context) -> Answer:
    """Read what is repeated as its sound: "wuh what". "I-I" says the word again."""
    onset, word = m["onset"].lower(), m["word"].lower()
    if f"{onset}-{word}" in _NO_STUTTERS or word == onset or len(onset) > 1 and m["onset"].isupper():
        return None
    first = word[:2] if len(onset) == 1 and word[:2] in _DIGRAPHS else onset
    if _SOFT.match(word) or onset == "c" and word[1:2] in tuple("eiy"):
        first = "j" if onset == "g" else "s"
    sound = _SOUNDS.get(first, f"{first}uh")
    return m.end("repeats"), " ".join([sound] * m["repeats"].count("-"))


def _apart(m: re.Match[str], context: Context) -> Answer:
    """Read letters set apart as the words that they make, if they make some; two blanks part words."""
    words: list[str] = []
    for part in re.split(r"\s{2,}", m.group()):
        found = _words_of("".join(part.split()).lower(), words[-1] if words else "", context)
        if not found:
            return None
        words += found
    if not any(len(word) > 2 for word in words):
        return None
    read = [_number(word) if before in NUMBERED and say.roman(word.upper()) else word for before, word in _pairs(words)]
    return m.end(), " ".join(read)


def _pairs(words: list[str]) -> list[tuple[str, str]]:
    return list(zip(["", *words], words, strict=False))


def _number(numeral: str) -> str:
    return say.cardinal(say.roman(numeral.upper()) or 0)


def _words_of(letters: str, before: str, context: Context) -> list[str]:
    """Return the fewest words that the letters make, of those the longest first; none where they make no words."""

    @cache
    def rest(start: int, before: str) -> tuple[str, ...] | None:
        best: tuple[str, ...] | None = () if start == len(letters) else None
        for end in range(len(letters), start, -1):
            word = letters[start:end]
            if not _is_one(word, before, context):
                continue
            more = rest(end, word)
            if more is not None and (best is None or len(more) + 1 < len(best)):
                best = (word, *more)
        return best

    return list(rest(0, before) or ()) if len(letters) <= _LONGEST else []


def _is_one(word: str, before: str, context: Context) -> bool:
    if before in NUMBERED and say.roman(word.upper()):
        return True
    if len(word) == 1:
        return word in "ai"
    return bool(re.search("[aeiouy]", word)) and word.upper() not in SPELLED and context.is_word(word)


BROKEN_RULES: list[tuple[str, Rule]] = [
    (rf"(?i:(?P<repeats>(?:{_STUTTER})(?:(?P=onset)-)*)(?P<word>(?P=onset)[a-z]*))", _stutter),
    (r"[A-Za-z](?:\s+[A-Za-z]){3,}(?![\w'-])", _apart),
]
