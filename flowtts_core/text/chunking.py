"""A text that is too long to be spoken at once, cut into parts that are not: at clauses, then at blanks, then anywhere."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass

from flowtts_core.errors import TextError
from flowtts_core.text.frontends.base import Frontend
from flowtts_core.text.german import sentences as german
from flowtts_core.text.given_phonemes import given_phonemes

_CLAUSE = re.compile(r"[.,;:!?…—–)\]]+[\"'”’»)\]]*\s+|\s*--+\s*|[—–…。，、；：！？]+\s*")
_BLANK = re.compile(r"\s+")
_LEAST_WINDOW = 64  # characters looked at for a cut; else as many as tokens, since a letter is one token or more


@dataclass(frozen=True)
class TextChunk:
    """`text[start:end]` of the source; the chunks of a text follow each other without gap or overlap."""

    text: str
    start: int
    end: int


def speakable_chunks(text: str, frontend: Frontend, max_tokens: int) -> list[TextChunk]:
    """Parts of `text` in order, each of at most `max_tokens` tokens as `frontend` encodes it.

    Parts with nothing to say (a row of dashes) are joined to a neighbour where that fits, and may stand alone else.

    Raises:
        TextError: when a single character is read as more than `max_tokens` tokens.
    """
    chunks: list[TextChunk] = []
    start = 0
    while start < len(text):
        end = longest_part(text, start, frontend, max_tokens)
        chunks.append(TextChunk(text[start:end], start, end))
        start = end
    return chunks


def n_tokens(text: str, frontend: Frontend) -> int:
    """Tokens that `text` is encoded to; 0 where nothing in it can be spoken."""
    try:
        return len(frontend.encode(text).tokens)
    except TextError:
        return 0


def longest_part(text: str, start: int, frontend: Frontend, max_tokens: int) -> int:
    """The end of the longest part from `start` that fits, at the best kind of place that there is.

    Raises:
        TextError: when the character at `start` alone is read as more than `max_tokens` tokens.
    """
    stop = min(len(text), start + max(_LEAST_WINDOW, max_tokens))
    if stop == len(text) and n_tokens(text[start:], frontend) <= max_tokens:
        return len(text)
    inside = {i for block in given_phonemes(text) for i in range(block.start + 1, block.end)}  # no place to cut
    for pattern in (_CLAUSE, _BLANK):
        places = [match.end() for match in pattern.finditer(text, start + 1, stop)]
        ends = [place for place in places if place not in inside and not _within(text, place)]
        end = _last_fitting(text, start, ends, frontend, max_tokens)
        if end is not None:
            return end
    ends = [place for place in range(start + 1, stop + 1) if place not in inside]
    end = _last_fitting(text, start, ends, frontend, max_tokens)
    if end is None:
        raise TextError(
            f"character {start} of the text alone is read as more than {max_tokens} tokens", "allow more tokens"
        )
    return end


def _within(text: str, end: int) -> bool:
    """Whether a full stop before `end` belongs to a German number or abbreviation that goes on: am 3. | Oktober."""
    stop = len(text[max(0, end - 8) : end].rstrip()) + max(0, end - 8) - 1
    return german.goes_on(text, stop, end)


def _last_fitting(text: str, start: int, ends: list[int], frontend: Frontend, max_tokens: int) -> int | None:
    """Return the last of `ends` up to which the text fits. Longer text has more tokens, except where a cut splits a word."""
    count = bisect_right(ends, max_tokens, key=lambda end: n_tokens(text[start:end], frontend))
    while count and n_tokens(text[start : ends[count - 1]], frontend) > max_tokens:
        count -= 1
    return ends[count - 1] if count else None
