"""Subtitles: cues of sentences as SRT and WebVTT."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

LINE = 64  # characters a line; players wrap again in smaller windows


@dataclass(frozen=True)
class Cue:
    """A text and when it is spoken, in seconds."""

    text: str
    start_s: float
    end_s: float


def srt(cues: Sequence[Cue]) -> str:
    """Return SubRip: numbered cues, comma before the milliseconds."""
    blocks = [
        f"{i}\n{_clock(cue.start_s, ',')} --> {_clock(cue.end_s, ',')}\n{_lines(cue.text)}\n"
        for i, cue in enumerate(cues, 1)
    ]
    return "\n".join(blocks)


def vtt(cues: Sequence[Cue]) -> str:
    """Return WebVTT (W3C): a header, a point before the milliseconds, `&`, `<` and `>` escaped."""
    blocks = [f"{_clock(cue.start_s, '.')} --> {_clock(cue.end_s, '.')}\n{_lines(_escape(cue.text))}\n" for cue in cues]
    return "\n".join(["WEBVTT\n", *blocks])


def _lines(text: str) -> str:
    return "\n".join(textwrap.wrap(" ".join(text.split()), LINE, break_long_words=False, break_on_hyphens=False)) or "-"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _clock(seconds: float, point: str) -> str:
    milliseconds = max(0, round(seconds * 1000))
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"
