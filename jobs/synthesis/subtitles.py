"""Subtitles: cues of at most two lines and seven seconds as SRT and WebVTT."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

# As broadcasters and Netflix's timed text guide have it; a wide character (of Japanese, say) counts as two.
LINE = 42  # characters a line
LONGEST_S = 7.0
SHORTEST_S = 5 / 6
READ_PER_S = 17.0  # characters that one reads in a second: a cue stays that long where a pause lets it

# What a break after a word costs, by how the word ends, the least first.
_SENTENCE, _CLAUSE, _COMMA, _LEAD, _PLAIN, _TRAIL, _SPLIT = 0.0, 0.2, 0.35, 0.7, 1.0, 1.5, 4.0
_CUE = 1.5  # and what a cue more costs
_ENDS = (
    (re.compile(r"[.!?…。！？][\"'”’»)\]」』]*$"), _SENTENCE),
    (re.compile(r"[;:—–)\]][\"'”’»)\]]*$"), _CLAUSE),
    (re.compile(r"[,、，][\"'”’»)\]」』]*$"), _COMMA),
)
# A line that begins with such a word is read more easily than one that ends with it.
_LEADING = frozenset(
    "and or but nor so yet that which who whose whom where when while because although though since unless until if than "
    "as of in on at by for from with without into onto over under after before between through against about to".split()
)
_TRAILING = frozenset("a an the his her its their our my your this these those no every each mr. mrs. dr. st.".split())
_WIDE_MARKS = "、。，．！？」』）】〉》”’・ーっゃゅょぁぃぅぇぉッャュョァィゥェォ々〜…"  # begin no line of Japanese
_HIRAGANA = frozenset(map(chr, range(0x3041, 0x3097)))
_TOKEN = re.compile(r"\S+")
_NEAR = 60  # characters on, where a word is looked for: one that the text shows otherwise must not be found far away


@dataclass(frozen=True)
class Cue:
    """A text and when it is spoken, in seconds."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class WordAt:
    """A word of a text and when it is spoken, in seconds."""

    word: str
    start_s: float
    end_s: float


def cut(sentence: Cue, words: Sequence[WordAt] = ()) -> list[Cue]:
    """Cut a sentence into cues that two lines and seven seconds hold, at clauses before all else.

    Args:
        words: of the sentence in order, whose times the cuts take; without them time is shared by characters.
    """
    text = " ".join(sentence.text.split())
    tokens = list(_tokens(text))
    if not tokens:
        return [replace(sentence, text="-")]
    ends = _times(text, tokens, sentence, words)
    starts = [sentence.start_s, *(start for start, _ in ends[1:])]
    found, first = [], 0
    for last in _best_cuts(text, tokens, [s for s, _ in ends], [e for _, e in ends]):
        part = text[tokens[first][0] : tokens[last - 1][1]]
        end = sentence.end_s if last == len(tokens) else ends[last - 1][1]
        start = starts[first]
        found.append(Cue(part, start, min(max(end, start), start + LONGEST_S)))
        first = last
    return found


def lingering(cues: Sequence[Cue], end_s: float) -> list[Cue]:
    """Let each cue stay until it is read, where the silence after it is long enough.

    Args:
        end_s: of the whole sound.
    """
    found = []
    starts = [*(cue.start_s for cue in cues), end_s]
    for cue, free_until in zip(cues, starts[1:], strict=True):
        wanted = cue.start_s + min(max(SHORTEST_S, _width(cue.text) / READ_PER_S), LONGEST_S)
        found.append(replace(cue, end_s=max(cue.end_s, min(wanted, free_until))))
    return found


def srt(cues: Sequence[Cue]) -> str:
    """Return SubRip: numbered cues, comma before the milliseconds."""
    blocks = [
        f"{i}\n{_clock(cue.start_s, ',')} --> {_clock(cue.end_s, ',')}\n{_lines(cue.text)}\n"
        for i, cue in enumerate(cues, 1)
    ]
    return "\n".join(blocks)


def vtt(cues: Sequence[Cue]) -> str:
    """Return WebVTT (W3C): a header, a point before the milliseconds, `&`, `<` and `>` escaped."""
    blocks = [f"{_clock(cue.start_s, '.')} --> {_clock(cue.end_s, '.')}\n{_escape(_lines(cue.text))}\n" for cue in cues]
    return "\n".join(["WEBVTT\n", *blocks])


def _tokens(text: str) -> Iterator[tuple[int, int]]:
    """Spans of what is never parted: words, wide characters with the marks that follow, pieces of words wider than a line."""
    for match in _TOKEN.finditer(text):
        start, end = match.span()
        if any(_is_wide(c) for c in match[0]):
            cuts = [i for i in range(start + 1, end) if _may_part(text[i - 1], text[i])]
            yield from pairwise([start, *cuts, end])
        else:
            yield from pairwise([*range(start, end, LINE), end])


def _may_part(before: str, after: str) -> bool:
    return (_is_wide(before) or _is_wide(after)) and after not in _WIDE_MARKS and before not in "「『（【〈《“‘"


def _is_wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in "WF"


def _width(text: str) -> int:
    return len(text) if text.isascii() else sum(2 if _is_wide(c) else 1 for c in text)


def _times(
    text: str, tokens: Sequence[tuple[int, int]], sentence: Cue, words: Sequence[WordAt]
) -> list[tuple[float, float]]:
    """When each token begins and ends: as its words do; between words whose times are known by characters."""
    known = [(0, sentence.start_s)]  # characters, and when they are spoken
    place = 0
    for word in words:
        shown = " ".join(word.word.split())
        at = text.find(shown, place, place + len(shown) + _NEAR)
        if not shown or at < 0:
            continue
        place = at + len(shown)
        known += [(at, word.start_s), (place, word.end_s)]
    known.append((len(text), sentence.end_s))
    steps, clock = iter(pairwise(known)), sentence.start_s
    (a, time_a), (b, time_b) = next(steps)
    found = []
    for position in (position for span in tokens for position in span):
        while position > b:
            (a, time_a), (b, time_b) = next(steps)
        share = (position - a) / (b - a) if b > a else 1.0
        clock = max(clock, time_a + share * (time_b - time_a))
        found.append(clock)
    return list(zip(found[::2], found[1::2], strict=True))


def _best_cuts(
    text: str, tokens: Sequence[tuple[int, int]], starts: Sequence[float], ends: Sequence[float]
) -> list[int]:
    """Return the ends of the cues, as numbers of tokens, whose breaks cost least in all."""
    columns = [0, *accumulate(_width(c) for c in text)]
    left, right = [columns[start] for start, _ in tokens], [columns[end] for _, end in tokens]
    best: list[tuple[float, int]] = [(0.0, 0)]  # cost of the first n tokens, and where their last cue begins
    for last in range(1, len(tokens) + 1):
        options = []
        after = _break_cost(text, tokens, last)
        for first in range(last - 1, -1, -1):
            too_long = ends[last - 1] - starts[first] > LONGEST_S or not _fits(left, right, first, last)
            if too_long and first < last - 1:
                break
            thin = max(0.0, 1 - (right[last - 1] - left[first]) / LINE)  # a few words alone flash by
            options.append((best[first][0] + _CUE + thin * thin + after, first))
        best.append(min(options))
    cuts, last = [], len(tokens)
    while last:
        cuts.append(last)
        last = best[last][1]
    return cuts[::-1]


def _fits(left: Sequence[int], right: Sequence[int], first: int, last: int) -> bool:
    """Whether two lines hold the tokens [first, last), which begin and end at these columns."""
    second = first + bisect_right(right[first:last], left[first] + LINE)
    return second == last or right[last - 1] - left[second] <= LINE


def _break_cost(text: str, tokens: Sequence[tuple[int, int]], last: int) -> float:
    """What a break after so many tokens costs; none at the end of the text."""
    if last == len(tokens):
        return 0.0
    word, following = text[slice(*tokens[last - 1])], text[slice(*tokens[last])]
    if tokens[last - 1][1] == tokens[last][0] and not _is_wide(word[-1]):
        return _SPLIT  # within a long word
    if following[0] in "([—–":
        return _CLAUSE
    for pattern, cost in _ENDS:
        if pattern.search(word) and word.lower() not in _TRAILING:
            return cost
    if word.lower() in _TRAILING or word.lower() in _LEADING:
        return _TRAIL
    if _is_wide(word[-1]):  # of Japanese most words end in hiragana, and begin with something else
        return _LEAD if word[-1] in _HIRAGANA and following[0] not in _HIRAGANA else _TRAIL
    return _LEAD if following.lower() in _LEADING else _PLAIN


def _lines(text: str) -> str:
    return "\n".join(_wrapped(text)) or "-"


def _wrapped(text: str) -> list[str]:
    """Return the text as one line, or as two of which none is too long, the break where it costs least; more if need be."""
    text = " ".join(text.split())
    if _width(text) <= LINE:
        return [text] if text else []
    tokens = list(_tokens(text))
    halves = [(text[: tokens[i - 1][1]], text[tokens[i][0] :], i) for i in range(1, len(tokens))]
    both = [half for half in halves if _width(half[0]) <= LINE and _width(half[1]) <= LINE]
    if both:
        uneven = [abs(_width(a) - _width(b)) / LINE for a, b, _ in both]
        costs = [u + 0.5 * _break_cost(text, tokens, i) for u, (_, _, i) in zip(uneven, both, strict=True)]
        first, second, _ = both[costs.index(min(costs))]
        return [first, second]
    longest = max((half for half in halves if _width(half[0]) <= LINE), key=lambda half: half[2], default=None)
    return [text] if longest is None else [longest[0], *_wrapped(longest[1])]


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _clock(seconds: float, point: str) -> str:
    milliseconds = max(0, round(seconds * 1000))
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"
