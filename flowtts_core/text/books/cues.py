"""Read subtitles (SRT, WebVTT): each cue is a row, with the time at which it is shown."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

_CLOCK = r"(?:(\d+):)?(\d{1,2}):(\d{1,2})[,.](\d{1,3})"
_TIMES = re.compile(rf"\s*{_CLOCK}\s*-->\s*{_CLOCK}(?:\s.*)?")
_COMMENT = re.compile(r"(?:NOTE|STYLE|REGION)\b|WEBVTT")
_VOICE = re.compile(r"<v(?:\.[^\s<>]*)?[ \t]+(?P<name>[^<>]+)>|</v>", re.IGNORECASE)
_TAG = re.compile(r"</?(?:[ibus]|font|c|v|lang|ruby|rt|\d+:[\d:.]+)\b[^<>]*>|\{\\[^{}]*\}", re.IGNORECASE)


@dataclass(frozen=True)
class ReadCue:
    """A cue: the line of its times from 1, its text in one line, seconds of its start and end; or why it cannot be read.

    `voices` has who says it, where the file names them (`<v Anna>`): from which character on, "" for nobody.
    """

    line: int
    text: str = ""
    start_s: float = 0.0
    end_s: float = 0.0
    problem: str = ""
    voices: tuple[tuple[int, str], ...] = ()


def read_cues(text: str) -> Iterator[ReadCue]:
    """Yield the cues of a file in order. Marks of style are left out; a text may have blank lines within."""
    lines = [*text.split("\n"), ""]
    starts = [number for number, line in enumerate(lines) if "-->" in line]
    for at, following in pairwise([*starts, len(lines)]):
        own = lines[at + 1 : following]
        if following < len(lines) and own and own[-1].strip():
            named = own[-1].strip().isdigit() or len(own) == 1 or not own[-2].strip()
            own = own[:-1] if named else own  # the number or name of the next cue
        yield _cue(at + 1, lines[at], own)


def _cue(number: int, times: str, own: list[str]) -> ReadCue:
    match = _TIMES.fullmatch(times)
    if match is None:
        return ReadCue(number, problem=f"line {number}: its times cannot be read: {times.strip()[:80]}")
    start, end = _seconds(match.groups()[:4]), _seconds(match.groups()[4:])
    if end < start:
        return ReadCue(number, problem=f"line {number}: it ends before it begins: {times.strip()[:80]}")
    said, voices = _by_voices(" ".join(_spoken(own)))
    return ReadCue(number, said, start, end, "" if said else f"line {number}: no words in it", voices)


def _by_voices(marked: str) -> tuple[str, tuple[tuple[int, str], ...]]:
    """Return the words of a cue, and who says them from which character on."""
    said = ""
    voices: list[tuple[int, str]] = []
    ends = [*(match.start() for match in _VOICE.finditer(marked)), len(marked)]
    turns = [(0, ""), *((match.end(), _plain(match["name"] or "")) for match in _VOICE.finditer(marked))]
    for (start, name), end in zip(turns, ends, strict=True):
        words = _plain(marked[start:end])
        if not words:
            continue
        said += " " if said else ""
        if name != (voices[-1][1] if voices else ""):
            voices.append((len(said), name))
        said += words
    return said, tuple(voices)


def _plain(marked: str) -> str:
    return " ".join(html.unescape(_TAG.sub("", marked)).split())


def _spoken(lines: list[str]) -> Iterator[str]:
    """Yield the lines of a cue without the comments and styles that follow it, each up to a blank line."""
    comment, blank = False, False
    for line in lines:
        comment = bool(line.strip()) and (comment or (blank and bool(_COMMENT.match(line))))
        blank = not line.strip()
        if not comment:
            yield line


def _seconds(clock: tuple[str | None, ...]) -> float:
    hours, minutes, seconds, fraction = (part or "0" for part in clock)
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{fraction}")
