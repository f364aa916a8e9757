"""Marks in a text that say how it is spoken: pauses, rates, voices, and what is said for what is written.

`[pause:2s]`, `[rate:0.8]...[/rate]`, `[voice:NAME]...[/voice]`, `[sub:SAID]WRITTEN[/sub]`. SSML becomes the same marks
(`text/ssml.py`), and a cast speaks in the same manners (`text/cast.py`): whatever cuts a text into parts knows this one
form. A mark is in small letters, and nothing stands beside its colon; other brackets are read as they stand.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from flowtts_core.errors import TextError
from flowtts_core.text.given_phonemes import written

TURN_S = 0.15  # seconds of silence where another voice goes on inside a sentence
MAX_PAUSE_S = 60.0  # of one mark
MAX_PAUSES_S = 600.0  # of all marks of a request: a short text must not ask for hours
_LOW, _HIGH = 0.25, 4.0  # rates
_MARK = re.compile(
    r"\[sub:(?P<said>[^\[\]\n]*)\](?P<written>[^\[\]]*)\[/sub\]"
    r"|\[(?P<name>pause|rate|voice|sub):(?P<value>[^\s\[\]][^\[\]\n]*)?\]"
    r"|\[/(?P<end>rate|voice|sub)\]"
    r"|\[(?i:pause)[: ] *(?P<time>(?:\d{1,6}(?:\.\d{1,6})?|\.\d{1,6}) *m?s)\]"  # [Pause: 2 s]
)
_SECONDS = re.compile(r"(\d{1,6}(?:\.\d{1,6})?|\.\d{1,6})\s*(m?s)")
_RATE = re.compile(r"(\d{1,4}(?:\.\d{1,6})?)(%?)")
RATES = {"x-slow": 0.5, "slow": 0.8, "medium": 1.0, "default": 1.0, "fast": 1.25, "x-fast": 1.6}


class Manner(NamedTuple):
    """How a part of a text is spoken: `rate` times as fast, by `voice`.

    That is a voice, a speaker, or a name of a cast; None is the text's own.
    """

    rate: float = 1.0
    voice: str | None = None


PLAIN = Manner()
Turn = tuple[int, Manner]  # from this character on it is spoken so
Pause = tuple[int, float]  # at this character, seconds


class Sub(NamedTuple):
    """`text[start:end]` is a mark whose `text[word_start:word_end]` is written and `said` is spoken."""

    start: int
    end: int
    word_start: int
    word_end: int
    said: str


@dataclass(frozen=True)
class Marks:
    """The marks of a text, by its characters; `holes` are those that are neither spoken nor shown."""

    holes: tuple[tuple[int, int], ...] = ()
    subs: tuple[Sub, ...] = ()
    turns: tuple[Turn, ...] = ()
    pauses: tuple[Pause, ...] = ()


@dataclass(frozen=True)
class MarkedText:
    """A text without its marks.

    Attributes:
        text: what is spoken.
        shown: what is written.
        starts, ends: of each character of `text`, where the characters that it stands for begin and end in the source.
        turns, pauses: by the characters of `text`.
    """

    text: str
    shown: str
    starts: Sequence[int]
    ends: Sequence[int]
    turns: tuple[Turn, ...] = ()
    pauses: tuple[Pause, ...] = ()

    def source(self, start: int, end: int) -> tuple[int, int]:
        """Return the characters of the source for `text[start:end]`."""
        return (self.starts[start], self.ends[end - 1]) if start < end else (0, 0)

    @property
    def manners(self) -> tuple[Manner, ...]:
        """The manners that it is spoken in, beside the plain one."""
        return tuple(dict.fromkeys(manner for _, manner in self.turns if manner != PLAIN))


class Part(NamedTuple):
    """`text[start:end]`, spoken in one manner, then `pause_s` seconds of silence; `held`: also at the end of the text."""

    start: int
    end: int
    manner: Manner
    pause_s: float
    held: bool


def marks_in(text: str) -> Marks:
    """Return the marks of a text.

    Raises:
        TextError: for a mark whose value cannot be read, or that is opened and not closed; it names the line.
    """
    if "[" not in text:
        return Marks()
    holes: list[tuple[int, int]] = []
    subs: list[Sub] = []
    turns: list[Turn] = []
    pauses: list[Pause] = []
    opened: list[tuple[str, int, Manner]] = []
    for match in _MARK.finditer(text):
        manner = opened[-1][2] if opened else PLAIN
        name, value = ("pause", match["time"]) if match["time"] else (match["name"], match["value"] or "")
        if match["said"] is not None:
            if not match["said"].strip():
                raise _bad(
                    text, match.start(), match[0], "it says nothing", "write [sub:as it is said]as it is written[/sub]"
                )
            subs.append(Sub(*match.span(), *match.span("written"), match["said"].strip()))
        elif name == "pause":
            pauses.append((match.start(), _pause(text, match, value)))
            holes.append(match.span())
        elif name in ("rate", "voice") and value:
            manner = (
                manner._replace(rate=manner.rate * _rate(text, match, value))
                if name == "rate"
                else manner._replace(voice=value.strip())
            )
            opened.append((name, match.start(), manner))
            turns.append((match.end(), manner))
            holes.append(match.span())
        elif match["end"] in ("rate", "voice") and opened and opened[-1][0] == match["end"]:
            opened.pop()
            turns.append((match.start(), opened[-1][2] if opened else PLAIN))
            holes.append(match.span())
        elif match["end"]:
            raise _bad(
                text,
                match.start(),
                match[0],
                f"no [{match['end']}:...] is open here",
                "close marks in the order in which they are nested",
            )
        else:
            raise _bad(
                text, match.start(), match[0], "it has no value or no end", "see `Marks in a text` in docs/synthesis.md"
            )
    if opened:
        name, place, _ = opened[-1]
        raise _bad(
            text, place, text[place:].partition("]")[0] + "]", "it is never closed", f"write [/{name}] where it ends"
        )
    return Marks(tuple(holes), tuple(subs), tuple(turns), tuple(pauses))


def _bad(text: str, place: int, mark: str, why: str, remedy: str) -> TextError:
    return TextError(f"line {text.count(chr(10), 0, place) + 1}: {mark[:60]}: {why}", remedy)


def _pause(text: str, match: re.Match[str], value: str) -> float:
    found = seconds_of(value)
    if found is None or found > MAX_PAUSE_S:
        raise _bad(
            text,
            match.start(),
            match[0],
            f"no pause of at most {MAX_PAUSE_S:g} s",
            "write for instance [pause:2s] or [pause:500ms]",
        )
    return found


def seconds_of(value: str) -> float | None:
    """Return the seconds of `2s`, `1.5 s` or `500ms`; None for another form."""
    match = _SECONDS.fullmatch(value.strip())
    return None if match is None else float(match[1]) * (0.001 if match[2] == "ms" else 1.0)


def _rate(text: str, match: re.Match[str], value: str) -> float:
    found = rate_of(value)
    if found is None:
        raise _bad(
            text,
            match.start(),
            match[0],
            f"no rate from {_LOW:g} to {_HIGH:g}",
            f"write for instance [rate:0.8], [rate:80%] or one of {', '.join(RATES)}",
        )
    return found


def rate_of(value: str) -> float | None:
    """Return the factor of `0.8`, `80%` or `slow`; None for another form, or out of range."""
    value = value.strip()
    if value in RATES:
        return RATES[value]
    match = _RATE.fullmatch(value)
    if match is None:
        return None
    rate = float(match[1]) * (0.01 if match[2] else 1.0)
    return rate if _LOW <= rate <= _HIGH else None


def bare(text: str) -> str:
    """Return the text, of the same length, with blanks for marks, and a word for each `[sub:...]`."""
    return _MARK.sub(_filled, text) if "[" in text else text


def _filled(match: re.Match[str]) -> str:
    said, length = match["said"], len(match[0])
    if said is None:
        return " " * length
    return (said[:1] if said[:1].isalpha() else "X").ljust(length, "x")


def without_holes(text: str, marks: Marks, start: int, end: int) -> str:
    """Return `text[start:end]` without the marks in it but `[sub:...]`."""
    pieces, done = [], start
    for low, high in marks.holes:
        if start <= low and high <= end:
            pieces.append(text[done:low])
            done = high
    return "".join([*pieces, text[done:end]])


def marked_text(text: str, places: Sequence[int] | None = None, source_end: int = 0) -> MarkedText:
    """Return a text without its marks.

    Args:
        places: of each character, where it stands in what the text was made of; None: the text is the source.
        source_end: where that source ends.

    Raises:
        TextError: as `marks_in`, and for pauses that are too long together.
    """
    marks = marks_in(text)
    if sum(seconds for _, seconds in marks.pauses) > MAX_PAUSES_S:
        raise TextError(f"the pauses of this text are longer than {MAX_PAUSES_S:g} s together", "part the text")
    whole = range(len(text) + 1) if places is None else [*places, source_end]
    if not (marks.holes or marks.subs):
        return MarkedText(text, text, whole[:-1], whole[1:])
    spoken, shown, done = _Placed(), [], 0
    paused = {place for place, _ in marks.pauses}
    gaps = [(start, end, None) for start, end in marks.holes] + [(sub.start, sub.end, sub) for sub in marks.subs]
    for start, end, sub in sorted(gaps, key=lambda gap: gap[0]):
        spoken.copy(text, done, start, whole)
        shown.append(text[done:start])
        if sub is not None:
            word = (sub.word_start, sub.word_end) if sub.word_end > sub.word_start else (start, end)
            spoken.put(sub.said, start, whole[word[0]], whole[word[1]])
            shown.append(text[sub.word_start : sub.word_end])
        elif start in paused:  # what stands on both sides of it are two words
            spoken.put(" ", start, whole[start], whole[end])
            shown.append(" ")
        done = end
    spoken.copy(text, done, len(text), whole)
    shown.append(text[done:])
    origin = spoken.origins

    def at(place: int) -> int:
        return bisect_left(origin, place)

    return MarkedText(
        "".join(spoken.pieces),
        "".join(shown),
        spoken.starts,
        spoken.ends,
        tuple((at(place), manner) for place, manner in marks.turns),
        tuple((at(place), seconds) for place, seconds in marks.pauses),
    )


class _Placed:
    """A text in the making, with the place in the source of each of its characters; `origins` are those in the marked text."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.starts: list[int] = []
        self.ends: list[int] = []
        self.origins: list[int] = []

    def copy(self, text: str, start: int, end: int, places: Sequence[int]) -> None:
        self.pieces.append(text[start:end])
        self.starts += places[start:end]
        self.ends += places[start + 1 : end + 1]
        self.origins += range(start, end)

    def put(self, said: str, origin: int, start: int, end: int) -> None:
        self.pieces.append(said)
        self.starts += [start] * len(said)
        self.ends += [end] * len(said)
        self.origins += [origin] * len(said)


@dataclass(slots=True)
class _Open:
    """A part in the making; `asked` is the pause that a mark asks for after it."""

    start: int
    end: int
    manner: Manner
    pause_s: float
    asked: float | None = None


def cut(
    text: str, sentences: Iterable[tuple[int, int, float]], turns: Sequence[Turn], pauses: Sequence[Pause]
) -> tuple[float, list[Part]]:
    """Cut sentences where the manner turns and where a pause is asked for.

    Args:
        text: without marks, or as `bare` gives it.
        sentences: start, end, and the pause after each in seconds.

    Returns:
        the silence that is asked for before the first part, and the parts. A pause that is asked for takes the place of
        the text's own.
    """
    places = sorted({place for place, _ in turns} | {place for place, _ in pauses})
    parts: list[_Open] = []
    for start, end, pause_s in sentences:
        inner = places[bisect_right(places, start) : bisect_left(places, end)]
        own = (
            _parts_of(text, [start, *inner, end], turns)
            if inner
            else [_Open(start, end, _manner_at(turns, start), 0.0)]
        )
        for part, following in zip(own, own[1:], strict=False):
            part.pause_s = TURN_S if part.manner.voice != following.manner.voice else 0.0
        own[-1].pause_s = pause_s
        parts += own
    lead, starts = 0.0, [part.start for part in parts]
    for place, seconds in pauses:
        before = bisect_left(starts, place) - 1
        if before < 0:
            lead += seconds
        else:
            parts[before].asked = (parts[before].asked or 0.0) + seconds
    return lead, [
        Part(p.start, p.end, p.manner, p.pause_s if p.asked is None else p.asked, p.asked is not None) for p in parts
    ]


def _parts_of(text: str, places: Sequence[int], turns: Sequence[Turn]) -> list[_Open]:
    """The parts of a sentence between places; marks of punctuation alone are joined to a neighbour, as no voice can say them."""
    parts: list[_Open] = []
    waiting: int | None = None  # where punctuation began that has nothing before it
    for low, high in zip(places, places[1:], strict=False):
        piece = text[low:high]
        start, end = low + len(piece) - len(piece.lstrip()), low + len(piece.rstrip())
        if start >= end:
            continue
        if any(character.isalnum() for character in piece):
            parts.append(_Open(start if waiting is None else waiting, end, _manner_at(turns, start), 0.0))
            waiting = None
        elif parts:
            parts[-1].end = end
        elif waiting is None:
            waiting = start
    return parts or [_Open(places[0], places[-1], _manner_at(turns, places[0]), 0.0)]


def _manner_at(turns: Sequence[Turn], place: int) -> Manner:
    index = bisect_right(turns, place, key=lambda turn: turn[0])
    return turns[index - 1][1] if index else PLAIN


@lru_cache(64)
def read_marks(text: str, input_type: str = "text") -> MarkedText:
    """Return the text of a request, of its `input_type`, without its marks or tags.

    Raises:
        TextError: for marks or SSML that cannot be followed; it names the line.
    """
    if input_type == "ssml":
        from flowtts_core.text.ssml import from_ssml

        made = from_ssml(text)
        return marked_text(made.text, made.places, made.end)
    return marked_text(text)


def silence_of(text: str, input_type: str = "text") -> float | None:
    """Return the seconds of pauses in a text without a letter or a digit ("...", an emoji); None where there are words.

    Raises:
        TextError: as `read_marks`.
    """
    marked = read_marks(text, input_type)
    return None if any(c.isalnum() for c in marked.text) else sum(seconds for _, seconds in marked.pauses)


def spoken_words(text: str, input_type: str | None = None) -> str:
    """Return the words that are heard of a text, for those who compare them with what a recogniser heard."""
    return written(_read(text, input_type).text)


def shown_words(text: str, input_type: str | None = None) -> str:
    """Return the words that are written in a text, for readers: without marks, tags and phonemes."""
    return written(_read(text, input_type).shown)


def _read(text: str, input_type: str | None) -> MarkedText:
    try:
        return read_marks(text, input_type or "text")
    except TextError:  # a text that failed is shown as it came
        return MarkedText(text, text, range(len(text)), range(1, len(text) + 1))
