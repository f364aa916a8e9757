"""A text to be read aloud: a document of chapters of sentences, with the pause after each and its place in the source."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["heading", "sentence"]


@dataclass(frozen=True)
class Sentence:
    """One unit of synthesis.

    Attributes:
        text: as in `Chapter.text[start:end]`, with white space collapsed to single spaces.
        start, end: character offsets in the chapter's text.
        role: a heading is read too, with a longer pause after it.
        pause_s: silence after the sentence, in seconds (longer at the end of a paragraph).
        voice: to speak it, as `VOICE`, `VOICE@SPEAKER` or `@SPEAKER`; None: the one that is asked for the whole.
        rate: times as fast as the whole.
    """

    text: str
    start: int
    end: int
    role: Role = "sentence"
    pause_s: float = 0.35
    voice: str | None = None
    rate: float = 1.0


@dataclass(frozen=True)
class Chapter:
    """Title, full text (paragraphs parted by a blank line, the heading first) and its sentences in reading order.

    Every character of `text` that is not white space lies in exactly one sentence, but for marks (`text/marks.py`).
    """

    title: str
    text: str
    sentences: tuple[Sentence, ...]


@dataclass(frozen=True)
class LeftOut:
    """Text of the source that is not read.

    Attributes:
        reason: what it is: "note marks", "page numbers", "front and back matter", ...
        place: the chapter that it stands in, or the page of the book.
        text: the whole of it, with white space collapsed to single spaces.
    """

    reason: str
    place: str
    text: str


@dataclass(frozen=True)
class Document:
    """A book or text.

    Each letter and digit of the source stands in a chapter or in `left_out`.

    Attributes:
        language: as the file says, for instance "en-GB"; "" where it says nothing.
        cover: the bytes of a JPEG or PNG.
        warnings: what a reader mended, guessed or could not read.
        left_out: what is not read, in the order of the source.
    """

    title: str
    chapters: tuple[Chapter, ...]
    author: str = ""
    language: str = ""
    identifier: str = ""
    cover: bytes | None = field(default=None, repr=False)
    cover_media_type: str = ""
    warnings: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()


@dataclass(slots=True)  # not frozen: making a frozen one takes five times as long, and a corpus has millions
class TextRow:
    """One row of a corpus (of a table, a cue of subtitles, or a plain line): one utterance. Never changed in place.

    Attributes:
        id: unique in the job; made from the row number where the file gives none.
        text: what is read.
        voice: to speak it, where the file has such a column.
        settings: other fields of `SynthesisRequest` that the file has columns for.
        cue: of subtitles, the seconds between which it is shown.
        character: of subtitles, who says it, where the file tells.
    """

    id: str
    text: str
    voice: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    cue: tuple[float, float] | None = None
    character: str = ""
