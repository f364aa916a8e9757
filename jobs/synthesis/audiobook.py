"""From a book's finished rows to an audiobook: one timeline, one gain, a file per chapter and one of the whole."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cluster.storage import Storage, output_errors
from flowtts_core.audio.files import read_audio
from flowtts_core.audio.loudness import LoudnessMeter, amplify, gain_to
from flowtts_core.audio.tagged import AudioWriter, ChapterMark, Tags, cover_kind, open_writer, seconds_held
from flowtts_core.errors import OutputError, TextError
from flowtts_core.text.document import Document
from flowtts_core.text.given_phonemes import written
from jobs.synthesis.manifest import read_shard
from jobs.synthesis.plan import Book, safe_name
from jobs.synthesis.subtitles import Cue, WordAt, cut, lingering, srt, vtt
from jobs.synthesis.units import Unit

TARGET_LUFS = -19.0  # the loudness of spoken mono files that the issue of this job names
BOOK_FORMATS = ("m4b", "mp3", "opus")
CHAPTER_FORMATS = ("mp3", "flac", "opus", "wav", "none")
CHAPTERS = "chapters"
WORDS = "words.json"
_DURATION_SLACK_S = 0.3  # encoders pad to whole frames and prepend a delay

Report = Callable[[str], None]
Rows = Sequence[tuple[Unit, dict[str, Any]]]  # a book's units in order, each with its row of the manifest

_PLACE = re.compile(r"shards/(\d+)\.parquet#(\d+)")


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


@dataclass(frozen=True)
class Audiobook:
    """What was made. `loudness` in LUFS, before the gain and as written; `files` relative to the output."""

    timeline: Timeline
    files: tuple[str, ...]
    book: str
    measured_lufs: float
    written_lufs: float
    gain: float
    notes: tuple[str, ...]


class Spool:
    """The encoded utterances of a book in one local file, each found at once: a book's rows lie scattered over shards.

    Args:
        shards: where the shards are, each of which is read once.
        folder: for the file.
    """

    def __init__(self, shards: Storage, places: Sequence[str], folder: Path) -> None:
        self._spans: dict[str, tuple[int, int]] = {}
        by_shard: dict[int, list[tuple[int, str]]] = {}
        for place in places:
            match = _PLACE.fullmatch(place)
            assert match is not None, place
            by_shard.setdefault(int(match[1]), []).append((int(match[2]), place))
        local = folder / "spool"
        with output_errors(local), open(local, "wb") as file:
            for shard, rows in sorted(by_shard.items()):
                column = read_shard(shards, shard, ("flac",)).column("flac")
                for row, place in rows:
                    data = column[row].as_py()
                    self._spans[place] = (file.tell(), len(data))
                    file.write(data)
        self._file = os.open(local, os.O_RDONLY)

    def read(self, place: str) -> bytes:
        """May be called by several threads at once."""
        start, length = self._spans[place]
        return os.pread(self._file, length, start)

    def close(self) -> None:
        os.close(self._file)


def timeline_of(book: Book, rows: Rows) -> Timeline:
    """Lay the spoken units of a book end to end, in its order; a failed unit takes no time but its pause.

    Raises:
        TextError: when nothing at all was spoken.
        OutputError: when the units differ in sample rate.
    """
    rates = {row["sample_rate"] for _, row in rows if row["status"] == "ok"}
    if not rates:
        raise TextError("nothing of the book could be spoken", "quarantine.jsonl says why, sentence by sentence")
    if len(rates) > 1:
        remedy = "give another -o, or remove the folder and run again"
        raise OutputError(f"the shards mix sample rates {sorted(rates)}", remedy)
    rate, clock = int(rates.pop()), 0
    chapters: dict[int, list[TimedUnit]] = {}
    for unit, row in rows:
        length, pause = int(row["num_samples"] or 0), round(unit.pause_s * rate)
        words = None if row["words"] is None else tuple(row["words"])
        chapters.setdefault(unit.chapter, []).append(
            TimedUnit(unit, row["audio"] or "", clock, clock + length, pause, words)
        )
        clock += length + pause
    return Timeline(rate, tuple(_span(book.document, number, items) for number, items in chapters.items()))


def _span(document: Document, number: int, utterances: list[TimedUnit]) -> ChapterSpan:
    last, name = utterances[-1], _chapter_name(document, number)
    title = _chapter_title(document, number)
    return ChapterSpan(number, title, name, utterances[0].start, last.end + last.pause, tuple(utterances))


def _chapter_title(document: Document, number: int) -> str:
    return " ".join(document.chapters[number - 1].title.split()) or f"Chapter {number}"


def _chapter_name(document: Document, number: int) -> str:
    digits = max(2, len(str(len(document.chapters))))
    return f"{number:0{digits}d} - {safe_name(_chapter_title(document, number))}"


def planned_files(book: Book, numbers: Sequence[int], book_format: str, chapter_format: str) -> tuple[str, ...]:
    """The names of all files that `assemble` will make of these chapters, the book first."""
    base, document = safe_name(book.document.title), book.document
    names = [f"{base}.{book_format}", f"{base}.srt", f"{base}.vtt", WORDS]
    for number in numbers if chapter_format != "none" else ():
        chapter = f"{CHAPTERS}/{_chapter_name(document, number)}"
        names += [f"{chapter}.{chapter_format}", f"{chapter}.srt", f"{chapter}.vtt"]
    return tuple(names)


def chapter_audio(spool: Spool, chapter: ChapterSpan) -> Iterator[np.ndarray]:
    """The chapter's waveform in pieces ([S] float32): each utterance, and the silence after it."""
    for utterance in chapter.utterances:
        if utterance.spoken:
            waveform, _ = read_audio(spool.read(utterance.place))
            assert len(waveform) == utterance.end - utterance.start, utterance.unit.id
            yield waveform
        if utterance.pause:
            yield np.zeros(utterance.pause, np.float32)


def assemble(
    book: Book,
    rows: Rows,
    shards: Storage,
    output: Storage,
    book_format: str,
    chapter_format: str,
    workers: int,
    report: Report = lambda _: None,
) -> Audiobook:
    """Measure, level and write the whole book; each file appears complete or not at all.

    The gain is one for the book, so that its own dynamics stay; a limiter holds peaks under -1 dBFS
    (`flowtts_core.audio.loudness.amplify`). The same rows give the same bytes.

    Args:
        shards: where the audio lies.
        output: the book's own folder.

    Raises:
        OutputError: when a file cannot be written or does not read back as long as it should be.
    """
    timeline = timeline_of(book, rows)
    with (
        output.workspace() as folder,
        ThreadPoolExecutor(max_workers=max(1, workers)) as pool,  # encoders release the GIL
    ):
        stop = threading.Event()
        spool = Spool(shards, [row["audio"] for _, row in rows if row["num_samples"]], folder)
        try:
            report("measuring loudness")
            meters = [pool.submit(_measure, timeline, chapter, spool, stop) for chapter in timeline.chapters]
            _raise_first(meters)
            measured = _joined([future.result() for future in meters], timeline.sample_rate)
            gain = gain_to(TARGET_LUFS, measured)
            job = _Writing(book.document, timeline, spool, output, folder, gain, report, stop)
            whole = pool.submit(job.book, book_format)
            singles = [pool.submit(job.chapter, chapter, chapter_format) for chapter in timeline.chapters]
            _raise_first([whole, *singles])
        except BaseException:  # Ctrl-C or a full disk: the others must not write hours of audio to no end
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
        finally:
            spool.close()
        written = [future.result() for future in singles]
        book_name = whole.result()
    files = [
        book_name,
        *(name for name, _ in written if name),
        *_write_texts(book.document, timeline, output, chapter_format != "none"),
    ]
    notes = (
        ()
        if book.document.cover is None or cover_kind(book.document.cover)
        else ("the cover is neither JPEG nor PNG: left out",)
    )
    loudness = _joined([meter for _, meter in written], timeline.sample_rate)
    return Audiobook(timeline, tuple(files), book_name, measured, loudness, gain, notes)


def _raise_first(futures: Sequence[Future[Any]]) -> None:
    """Wait for all; raise what one of them raises as soon as it does, whatever its place."""
    done, _ = wait(futures, return_when=FIRST_EXCEPTION)
    for future in done:
        future.result()


class _Stopped(Exception):
    """Another file has failed, so that this one need not be finished."""


def _until(stop: threading.Event, pieces: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    for piece in pieces:
        if stop.is_set():
            raise _Stopped
        yield piece


def _measure(timeline: Timeline, chapter: ChapterSpan, spool: Spool, stop: threading.Event) -> LoudnessMeter:
    meter = LoudnessMeter(timeline.sample_rate)
    for piece in _until(stop, chapter_audio(spool, chapter)):
        meter.update(piece)
    return meter


def _joined(meters: Sequence[LoudnessMeter], sample_rate: int) -> float:
    whole = LoudnessMeter(sample_rate)
    for meter in meters:
        whole.extend(meter)
    return whole.integrated()


@dataclass(frozen=True)
class _Writing:
    document: Document
    timeline: Timeline
    spool: Spool
    output: Storage
    folder: Path
    gain: float
    report: Report
    stop: threading.Event

    def book(self, format: str) -> str:
        document = self.document
        marks = tuple(ChapterMark(c.title, c.start, c.end) for c in self.timeline.chapters)
        tags = Tags(
            document.title,
            document.author,
            document.title,
            language=document.language,
            cover=document.cover,
            chapters=marks,
        )
        name = f"{safe_name(document.title)}.{format}"
        local = self.folder / f"book.{format}"
        rate = self.timeline.sample_rate
        with output_errors(self.output.path(name)), open_writer(local, format, rate, tags) as writer:
            for chapter in self.timeline.chapters:
                self._write(writer, chapter)
        self._commit(local, name, self.timeline.seconds)
        return name

    def chapter(self, chapter: ChapterSpan, format: str) -> tuple[str, LoudnessMeter]:
        document, rate = self.document, self.timeline.sample_rate
        meter = LoudnessMeter(rate)
        if format == "none":
            for piece in self._pieces(chapter):
                meter.update(piece)
            return "", meter
        tags = Tags(
            chapter.title, document.author, document.title, track=str(chapter.number), language=document.language
        )
        name = f"{CHAPTERS}/{chapter.name}.{format}"
        local = self.folder / f"{chapter.number}.{format}"
        with output_errors(self.output.path(name)), open_writer(local, format, rate, tags) as writer:
            self._write(writer, chapter, meter)
        self._commit(local, name, (chapter.end - chapter.start) / rate)
        self.report(f"wrote {chapter.name}")
        return name, meter

    def _pieces(self, chapter: ChapterSpan) -> Iterator[np.ndarray]:
        for piece in _until(self.stop, chapter_audio(self.spool, chapter)):
            yield amplify(piece, self.gain, self.timeline.sample_rate)

    def _write(self, writer: AudioWriter, chapter: ChapterSpan, meter: LoudnessMeter | None = None) -> None:
        for piece in self._pieces(chapter):
            writer.write(piece)
            if meter is not None:
                meter.update(piece)

    def _commit(self, local: Path, name: str, seconds: float) -> None:
        try:
            found = seconds_held(local)
        except OSError:
            found = 0.0
        if abs(found - seconds) > _DURATION_SLACK_S:  # an encoder that ran out of disk may not say so
            raise OutputError(
                f"{name} holds {found:.1f} s instead of {seconds:.1f} s", "is the disk full? run the command again"
            )
        self.output.put_file(local, name)


def cues(utterances: Sequence[TimedUnit], sample_rate: int, origin: int = 0) -> list[Cue]:
    """The cues of the spoken sentences; `origin` is the sample that counts as zero."""
    found: list[Cue] = []
    for u in utterances:
        if u.spoken:
            start = (u.start - origin) / sample_rate
            words = [WordAt(w["word"], start + w["start_s"], start + w["end_s"]) for w in u.words or ()]
            found += cut(Cue(written(u.unit.text), start, (u.end - origin) / sample_rate), words)
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


def _write_texts(document: Document, timeline: Timeline, output: Storage, per_chapter: bool) -> list[str]:
    """Subtitles of the whole and of each chapter, and the word times; returns their names."""
    rate, base = timeline.sample_rate, safe_name(document.title)
    whole = cues([u for c in timeline.chapters for u in c.utterances], rate)
    texts = {f"{base}.srt": srt(whole), f"{base}.vtt": vtt(whole)}
    for chapter in timeline.chapters if per_chapter else ():
        own = cues(chapter.utterances, rate, chapter.start)
        texts |= {f"{CHAPTERS}/{chapter.name}.srt": srt(own), f"{CHAPTERS}/{chapter.name}.vtt": vtt(own)}
    texts[WORDS] = json.dumps(word_times(timeline, document.title), ensure_ascii=False, indent=1)
    for name, text in texts.items():
        output.write(name, text.encode("utf-8", "replace"))
    return list(texts)
