"""The timeline of a book: when each of its chapters, sentences and words is spoken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flowtts_core.errors import TextError
from flowtts_core.text.document import Document
from flowtts_core.text.marks import shown_words
from jobs.synthesis.plan import Book, safe_name
from jobs.synthesis.subtitles import Cue, WordAt, cut, lingering
from jobs.synthesis.units import Unit

Rows = Sequence[tuple[Unit, dict[str, Any]]]  # a book's units in order, each with its row of the manifest


@dataclass(frozen=True)
class TimedUnit:
    """A spoken unit on the book's timeline, in samples: `[start, end)`, then `pause` samples of silence."""

    unit: Unit
    place: str  # of its audio, as the manifest has it
    start: int
    end: int
    pause: int
    words: tuple[dict[str, Any], ...] | None  # None from a voice that knows no durations

    @property
    def spoken(self) -> bool:
        return self.end > self.start


@dataclass(frozen=True)
class ChapterSpan:
    """A chapter on the timeline; `name` is its file name without suffix."""

    number: int
    title: str
    name: str
    start: int
    end: int
    utterances: tuple[TimedUnit, ...]


@dataclass(frozen=True)
class Timeline:
    sample_rate: int
    chapters: tuple[ChapterSpan, ...]

    @property
    def end(self) -> int:
        return self.chapters[-1].end

    @property
    def seconds(self) -> float:
        return self.end / self.sample_rate


def timeline_of(book: Book, rows: Rows) -> Timeline:
    """Lay the spoken units of a book end to end, in its order; a failed unit takes no time but its pause.

    Voices of several sample rates are joined at the highest of them.

    Raises:
        TextError: when nothing at all was spoken.
    """
    rates = {row["sample_rate"] for _, row in rows if row["status"] == "ok"}
    if not rates:
        raise TextError("nothing of the book could be spoken", "quarantine.jsonl says why, sentence by sentence")
    rate, clock = int(max(rates)), 0
    chapters: dict[int, list[TimedUnit]] = {}
    for unit, row in rows:
        length, pause = _length(row, rate), round(unit.pause_s * rate)
        words = None if row["words"] is None else tuple(row["words"])
        chapters.setdefault(unit.chapter, []).append(
            TimedUnit(unit, row["audio"] or "", clock, clock + length, pause, words)
        )
        clock += length + pause
    return Timeline(rate, tuple(_span(book.document, number, items) for number, items in chapters.items()))


def _length(row: dict[str, Any], rate: int) -> int:
    """Samples of a row at the book's rate; of one that was not spoken none."""
    samples, own = int(row["num_samples"] or 0), int(row["sample_rate"] or rate)
    return samples if own == rate else round(samples * rate / own)


def _span(document: Document, number: int, utterances: list[TimedUnit]) -> ChapterSpan:
    last, name = utterances[-1], chapter_name(document, number)
    title = _chapter_title(document, number)
    return ChapterSpan(number, title, name, utterances[0].start, last.end + last.pause, tuple(utterances))


def _chapter_title(document: Document, number: int) -> str:
    return " ".join(document.chapters[number - 1].title.split()) or f"Chapter {number}"


def chapter_name(document: Document, number: int) -> str:
    """The name of a chapter's files, without suffix."""
    digits = max(2, len(str(len(document.chapters))))
    return f"{number:0{digits}d} - {safe_name(_chapter_title(document, number))}"


def cues(utterances: Sequence[TimedUnit], sample_rate: int, origin: int = 0) -> list[Cue]:
    """The cues of the spoken sentences; `origin` is the sample that counts as zero."""
    found: list[Cue] = []
    for u in utterances:
        if u.spoken:
            start = (u.start - origin) / sample_rate
            words = [WordAt(w["word"], start + w["start_s"], start + w["end_s"]) for w in u.words or ()]
            found += cut(Cue(shown_words(u.unit.text), start, (u.end - origin) / sample_rate), words)
    last = utterances[-1]
    return lingering(found, (last.end + last.pause - origin) / sample_rate)


def word_times(timeline: Timeline, title: str) -> dict[str, Any]:
    """All times: `start_s`/`end_s` in the whole file, `chapter_start_s`/`chapter_end_s` in the chapter's."""
    rate = timeline.sample_rate

    def sentence(u: TimedUnit, origin: int) -> dict[str, Any]:
        def span(start: float, end: float) -> dict[str, float]:
            zero = origin / rate
            return {
                "start_s": round(start, 3),
                "end_s": round(end, 3),
                "chapter_start_s": round(start - zero, 3),
                "chapter_end_s": round(end - zero, 3),
            }

        at = u.start / rate
        words = [
            {
                "word": w["word"],
                "char_start": w["start"],
                "char_end": w["end"],
                **span(at + w["start_s"], at + w["end_s"]),
            }
            for w in u.words or ()
        ]
        return {
            "id": u.unit.id,
            "text": u.unit.text,
            **span(at, u.end / rate),
            "words": None if u.words is None else words,
        }

    chapters = [
        {
            "number": c.number,
            "title": c.title,
            "start_s": round(c.start / rate, 3),
            "end_s": round(c.end / rate, 3),
            "sentences": [sentence(u, c.start) for u in c.utterances if u.spoken],
        }
        for c in timeline.chapters
    ]
    return {"title": title, "seconds": round(timeline.seconds, 3), "chapters": chapters}
