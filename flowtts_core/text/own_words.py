"""Find the words of a user's lexicon in a text: words, phrases, and patterns to be replaced.

A lexicon is a mapping of what is written to how it is read, both strings:

- what is written: a word or a phrase, or a regular expression between slashes;
- how it is read: IPA, or a text in double quotes (`"manuscript"`), in which `shi-VAWN` is one word by its syllables.

`frontends/lexicon.py` makes it of a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from copy import copy
from typing import NamedTuple

from flowtts_core.errors import TextError
from flowtts_core.text.books.clean import clean

_START = re.compile(r"\w+|[^\w\s]")
_WEB = re.compile(r"(?:[a-z]+://|www\.)\S+|\S+@\S+", re.IGNORECASE)  # within these no word is looked for
_STRAIGHT = str.maketrans("‘’“”", "''\"\"")
_OWNER = re.compile(r"'s(?!\w)", re.IGNORECASE)


class OwnWord(NamedTuple):
    """`text[start:end]` is read as `said`: IPA, or a text.

    `owner`: the 's at its end belongs to it. `replaced`: it comes from a pattern, and words may be found in what is said.
    """

    start: int
    end: int
    said: str
    is_ipa: bool
    owner: bool = False
    replaced: bool = False


class _Entry(NamedTuple):
    written: str
    value: str
    capitals: bool


class OwnWords:
    """`find(text) -> OwnWords`, in order and apart; of several that begin at one place, the longest is taken.

    A word matches however it is written, large or small; one in capitals (MS, US) matches capitals alone, and where
    several match, the one that is written the same is taken. Patterns come before words.

    Raises:
        TextError: for a regular expression that is none.
    """

    def __init__(self, lexicon: Mapping[str, str]) -> None:
        self._patterns: list[tuple[re.Pattern[str], str]] = []
        self._words: dict[str, list[_Entry]] = {}  # by their first word, lower-case
        for written, value in lexicon.items():
            if is_pattern(written):
                self._patterns.append((compiled(written, value), value))
                continue
            plain = " ".join(clean(written)[0].split())
            first = _START.match(plain)
            if first is not None:
                capitals = plain.isupper() and sum(map(str.isalpha, plain)) > 1
                self._words.setdefault(first.group().lower(), []).append(_Entry(plain, value, capitals))
        for entries in self._words.values():
            entries.sort(key=lambda entry: -len(entry.written))

    @property
    def has_patterns(self) -> bool:
        """Whether any entry is a regular expression."""
        return bool(self._patterns)

    def reading(self, written: str) -> tuple[str, bool] | None:
        """Return how a word is read, and whether that is IPA, where an entry is all of it; None where none is."""
        first = _START.match(written)
        entry = self._entry_at(written, 0, first.group().lower()) if first else None
        return _said(entry.value) if entry is not None and len(entry.written) == len(written) else None

    def without_patterns(self) -> OwnWords:
        """Return the words alone, for what took the place of a pattern."""
        words = copy(self)
        words._patterns = []
        return words

    def find(self, text: str) -> list[OwnWord]:
        """Return what is found in a text from clean.py."""
        found: list[OwnWord] = []
        taken = (
            [match.span() for match in _WEB.finditer(text)] if "@" in text or "://" in text or "www." in text else []
        )
        for pattern, value in self._patterns:
            for match in pattern.finditer(text):
                if match.end() > match.start() and not _within(match.span(), taken):
                    said, is_ipa = _said(value)
                    said = said if is_ipa else match.expand(said)
                    found.append(OwnWord(*match.span(), said, is_ipa, replaced=True))
                    taken.append(match.span())
        return sorted([*found, *self._of_words(text, taken)])

    def _of_words(self, text: str, taken: list[tuple[int, int]]) -> Iterator[OwnWord]:
        done = 0
        for first in _START.finditer(text):
            start = first.start()
            entry = self._entry_at(text, start, first.group().lower()) if start >= done else None
            if entry is None or _within((start, start + len(entry.written)), taken):
                continue
            end = start + len(entry.written)
            owner = _OWNER.match(text, end)
            done = owner.end() if owner else end
            yield OwnWord(start, done, *_said(entry.value), owner is not None)

    def _entry_at(self, text: str, start: int, first: str) -> _Entry | None:
        """Return the longest entry that stands at `start`, of equals the one that is written the same."""
        best: _Entry | None = None
        for entry in self._words.get(first, ()):
            there = text[start : start + len(entry.written)]
            if best is not None and len(best.written) > len(entry.written):
                break
            same = there == entry.written
            fits = same or (not entry.capitals and there.lower() == entry.written.lower())
            if fits and (same or best is None) and _is_whole(text, start, start + len(there)):
                best = entry
        return best


def is_pattern(written: str) -> bool:
    """Return whether an entry is a regular expression between slashes."""
    return len(written) > 2 and written[0] == written[-1] == "/"


def compiled(written: str, value: str) -> re.Pattern[str]:
    """Return the regular expression of an entry between slashes; curly quotation marks in it match straight ones.

    Raises:
        TextError: when it is none, or has no such group as what is said names.
    """
    try:
        pattern = re.compile(written[1:-1].translate(_STRAIGHT))
        pattern.sub(_said(value)[0], "")
        return pattern
    except re.error as error:
        raise TextError(
            f"{written} in the lexicon is no regular expression: {error}", "mend it; for a word, leave out the slashes"
        ) from error


def is_text(value: str) -> bool:
    """Return whether an entry is read as a text; it is IPA otherwise."""
    return len(value) > 1 and value[0] == value[-1] == '"'


def _said(value: str) -> tuple[str, bool]:
    """Return how an entry is read, and whether that is IPA."""
    return (value[1:-1], False) if is_text(value) else (value, True)


def _within(span: tuple[int, int], taken: list[tuple[int, int]]) -> bool:
    return any(span[0] < end and start < span[1] for start, end in taken)


def _is_whole(text: str, start: int, end: int) -> bool:
    """Return whether no word goes on over the edges of `text[start:end]`; an 's may follow."""
    if re.match(r"\w", text[end - 1]) and re.match(r"\w|'(?!s\b)\w", text[end : end + 3], re.IGNORECASE):
        return False
    return not (re.match(r"\w", text[start]) and re.search(r"\w'?\Z", text[max(0, start - 2) : start]))
