"""From a book's finished rows to an audiobook: one timeline, one gain, a file per chapter and one of the whole."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cluster.storage import Storage, output_errors
from flowtts_core.audio.files import read_audio, resample
from flowtts_core.audio.loudness import LoudnessMeter, amplify, gain_to
from flowtts_core.audio.tagged import AudioWriter, ChapterMark, Tags, bit_rate_of, open_writer, seconds_held
from flowtts_core.errors import OutputError
from flowtts_core.text.document import Document
from jobs.synthesis.book_form import BookForm, cover_problem
from jobs.synthesis.manifest import read_shard
from jobs.synthesis.plan import Book, safe_name
from jobs.synthesis.read_along import READ_ALONG, SOUNDS, read_along_of, write_read_along
from jobs.synthesis.subtitles import srt, vtt
from jobs.synthesis.timeline import ChapterSpan, Rows, Timeline, chapter_name, cues, timeline_of, word_times

TARGET_LUFS = -19.0  # the loudness of spoken mono files that the issue of this job names
CHAPTERS = "chapters"
WORDS = "words.json"
_DURATION_SLACK_S = 0.3  # encoders pad to whole frames and prepend a delay

Report = Callable[[str], None]
_PLACE = re.compile(r"shards/(\d+)\.parquet#(\d+)")


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


def planned_files(book: Book, numbers: Sequence[int], form: BookForm) -> tuple[str, ...]:
    """The names of all files that `assemble` will make of these chapters, the book first."""
    base, document = safe_name(book.document.title), book.document
    names = [f"{base}.{form.book_format}", f"{base}.srt", f"{base}.vtt", WORDS]
    names += [f"{base}{READ_ALONG}"] if form.read_along else []
    for number in numbers if form.chapter_format != "none" else ():
        chapter = f"{CHAPTERS}/{chapter_name(document, number)}"
        names += [f"{chapter}.{form.chapter_format}", f"{chapter}.srt", f"{chapter}.vtt"]
    return tuple(names)


def chapter_audio(spool: Spool, chapter: ChapterSpan, sample_rate: int) -> Iterator[np.ndarray]:
    """The chapter's waveform in pieces ([S] float32) at `sample_rate`: each utterance, and the silence after it."""
    for utterance in chapter.utterances:
        if utterance.spoken:
            waveform, own = read_audio(spool.read(utterance.place))
            length = utterance.end - utterance.start
            if own != sample_rate:
                waveform = np.pad(resample(waveform, own, sample_rate), (0, 2))[:length]  # which may lack a sample
            assert len(waveform) == length, utterance.unit.id
            yield waveform
        if utterance.pause:
            yield np.zeros(utterance.pause, np.float32)


def assemble(
    book: Book,
    rows: Rows,
    shards: Storage,
    output: Storage,
    form: BookForm,
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
            problem = "" if book.document.cover is None else cover_problem(book.document.cover)
            document = replace(book.document, cover=None) if problem else book.document
            job = _Writing(document, form, timeline, spool, output, folder, gain, report, stop)
            whole = pool.submit(job.book)
            singles = [pool.submit(job.chapter, chapter) for chapter in timeline.chapters]
            _raise_first([whole, *singles])
            along = [job.read_along(replace(book, document=document), _voices(rows))] if form.read_along else []
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
        *along,
        *_write_texts(book.document, timeline, output, form.chapter_format != "none"),
    ]
    notes = ([f"{problem}: left out"] if problem else []) + _bit_rate_notes(form, timeline.sample_rate)
    loudness = _joined([meter for _, meter in written], timeline.sample_rate)
    return Audiobook(timeline, tuple(files), book_name, measured, loudness, gain, tuple(notes))


def _voices(rows: Rows) -> str:
    """The names of the voices that spoke, without their folders."""
    return ", ".join(sorted({row["voice"].rstrip("/").rpartition("/")[2] for _, row in rows if row["status"] == "ok"}))


def _bit_rate_notes(form: BookForm, sample_rate: int) -> list[str]:
    """What a format could not have as it was asked."""
    asked, notes = 1000 * (form.bitrate or 0), []
    for format in dict.fromkeys([form.book_format, form.chapter_format]) if asked else ():
        rate = bit_rate_of(format, sample_rate, asked)
        if rate not in (None, asked):
            notes.append(f"{format} at {sample_rate:,} Hz has no {form.bitrate} kbit/s: {rate / 1000:.0f} are taken")
    return notes


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
    for piece in _until(stop, chapter_audio(spool, chapter, timeline.sample_rate)):
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
    form: BookForm
    timeline: Timeline
    spool: Spool
    output: Storage
    folder: Path
    gain: float
    report: Report
    stop: threading.Event

    def book(self) -> str:
        document, format = self.document, self.form.book_format
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
        with output_errors(self.output.path(name)), self._open(local, format, tags) as writer:
            for chapter in self.timeline.chapters:
                self._write(writer, chapter)
        _require_whole(local, name, self.timeline.seconds)
        self.output.put_file(local, name)
        return name

    def chapter(self, chapter: ChapterSpan) -> tuple[str, LoudnessMeter]:
        """Write a chapter's file, and keep its sound for the read-along book; returns the name, empty where there is none."""
        format, meter = self.form.chapter_format, LoudnessMeter(self.timeline.sample_rate)
        name = "" if format == "none" else f"{CHAPTERS}/{chapter.name}.{format}"
        along = self._along(chapter) if self.form.read_along else None
        if name:
            local = self._encoded(chapter, self.folder / f"{chapter.number}.{format}", name, meter)
            if along is not None and along.suffix == local.suffix:
                os.link(local, along)
            self.output.put_file(local, name)
        if along is not None and not along.exists():
            self._encoded(chapter, along, along.name, LoudnessMeter(self.timeline.sample_rate) if name else meter)
        elif not name:
            for piece in self._pieces(chapter):
                meter.update(piece)
        if name:
            self.report(f"wrote {chapter.name}")
        return name, meter

    def read_along(self, book: Book, narrator: str) -> str:
        """Write the EPUB of the chapters' texts and sounds, once these are there."""
        name = f"{safe_name(self.document.title)}{READ_ALONG}"
        local = self.folder / f"book{READ_ALONG}"
        sounds = {chapter.number: self._along(chapter) for chapter in self.timeline.chapters}
        with output_errors(self.output.path(name)):
            write_read_along(local, read_along_of(book, self.timeline, narrator), sounds)
        self.output.put_file(local, name)
        return name

    def _along(self, chapter: ChapterSpan) -> Path:
        """Where the sound of a chapter lies that goes into the read-along book."""
        format = self.form.chapter_format if self.form.chapter_format in SOUNDS else "mp3"
        return self.folder / f"along-{chapter.number}.{format}"

    def _encoded(self, chapter: ChapterSpan, local: Path, name: str, meter: LoudnessMeter) -> Path:
        document = self.document
        tags = Tags(
            chapter.title,
            document.author,
            document.title,
            track=str(chapter.number),
            language=document.language,
            cover=document.cover,
        )
        with output_errors(self.output.path(name)), self._open(local, local.suffix[1:], tags) as writer:
            self._write(writer, chapter, meter)
        _require_whole(local, name, (chapter.end - chapter.start) / self.timeline.sample_rate)
        return local

    def _open(self, local: Path, format: str, tags: Tags) -> AudioWriter:
        rate, asked = self.timeline.sample_rate, self.form.bitrate
        return open_writer(local, format, rate, tags, bit_rate_of(format, rate, 1000 * asked) if asked else None)

    def _pieces(self, chapter: ChapterSpan) -> Iterator[np.ndarray]:
        for piece in _until(self.stop, chapter_audio(self.spool, chapter, self.timeline.sample_rate)):
            yield amplify(piece, self.gain, self.timeline.sample_rate)

    def _write(self, writer: AudioWriter, chapter: ChapterSpan, meter: LoudnessMeter | None = None) -> None:
        for piece in self._pieces(chapter):
            writer.write(piece)
            if meter is not None:
                meter.update(piece)


def _require_whole(local: Path, name: str, seconds: float) -> None:
    """Raise OutputError for a file that is cut short: an encoder that ran out of disk may not say so."""
    try:
        found = seconds_held(local)
    except OSError:
        found = 0.0
    if abs(found - seconds) > _DURATION_SLACK_S:
        raise OutputError(
            f"{name} holds {found:.1f} s instead of {seconds:.1f} s", "is the disk full? run the command again"
        )


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
