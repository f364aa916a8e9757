"""The audiobook: what is spoken lies where chapters, subtitles and word times say, as loud as promised, the same every time."""

from __future__ import annotations

import errno
import io
import json
import re
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from cluster.storage import Storage
from flowtts_core.audio.files import read_audio
from flowtts_core.errors import OutputError, TextError
from flowtts_core.text.document import Chapter, Document, Sentence
from jobs.synthesis import audiobook
from jobs.synthesis.audiobook import (
    Audiobook,
    Spool,
    assemble,
    planned_files,
)
from jobs.synthesis.book_form import BookForm
from jobs.synthesis.books import book_rows
from jobs.synthesis.plan import Book, plan_book, stored_book
from jobs.synthesis.settings import Speaking
from jobs.synthesis.timeline import ChapterSpan, Rows, timeline_of, word_times
from tests.audio_readers import integrated_loudness, read_tags
from tests.fake_engine import RATE, MakeTone, speak_here

FORM = BookForm(chapter_format="flac", read_along=True)
CHAPTERS = {
    "I. The Start": ["I. The Start", "It began on a grey morning.", "Nobody had asked for it."],
    "II. Tea & <Cake>": ["II. Tea & <Cake>", "There was cake, and there was tea.", "UNSPEAKABLE", "All was well."],
    "Epilogue": ["Epilogue", "So it ended, as such things do, quietly and without any haste at all."],
}


def book() -> Document:
    picture = pytest.importorskip("PIL.Image").new("RGB", (40, 60), (20, 90, 160))
    cover = io.BytesIO()
    picture.save(cover, "JPEG")
    chapters = []
    for title, texts in CHAPTERS.items():
        sentences, place = [], 0
        for i, text in enumerate(texts):
            sentences.append(
                Sentence(text, place, place + len(text), "sentence" if i else "heading", 0.3 if i else 1.0)
            )
            place += len(text) + 1
        chapters.append(Chapter(title, " ".join(texts), tuple(sentences)))
    return Document(
        "The Trial: a Book", tuple(chapters), "A. Author", cover=cover.getvalue(), cover_media_type="image/jpeg"
    )


class Spoken(NamedTuple):
    """What `assemble` begins with."""

    book: Book
    rows: Rows
    shards: Storage
    output: Storage


def spoken_book(document: Document, storage: Storage) -> Spoken:
    stored = speak_here(plan_book(document, Speaking()), storage, MakeTone())
    note = stored.notes["books"][0]
    return Spoken(stored_book(storage, note), book_rows(storage, stored, note), storage, storage)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Spoken:
    return spoken_book(book(), Storage(str(tmp_path_factory.mktemp("book"))))


@pytest.fixture(scope="module")
def made(spoken: Spoken) -> Audiobook:
    return assemble(*spoken, FORM, workers=2)


def path(spoken: Spoken, name: str) -> Path:
    return Path(spoken.output.path(name))


def test_files_are_named_after_the_book_and_its_chapters(made: Audiobook) -> None:
    assert made.book == "The Trial a Book.m4b"
    assert [name for name in made.files if name.endswith(".flac")] == [
        "chapters/01 - I. The Start.flac",
        "chapters/02 - II. Tea & Cake.flac",
        "chapters/03 - Epilogue.flac",
    ]


def test_the_one_file_has_chapters_tags_and_cover(spoken: Spoken, made: Audiobook) -> None:
    info = read_tags(path(spoken, made.book))
    assert [title for title, _, _ in info.chapters] == list(CHAPTERS)
    assert (info.tags["title"], info.tags["artist"]) == ("The Trial: a Book", "A. Author")
    assert info.cover == spoken.book.document.cover is not None
    assert read_tags(path(spoken, f"chapters/{made.timeline.chapters[0].name}.flac")).cover == info.cover
    rate = made.timeline.sample_rate
    for (_, start, end), chapter in zip(info.chapters, made.timeline.chapters, strict=True):
        assert start == pytest.approx(chapter.start / rate, abs=0.002)
        assert end == pytest.approx(chapter.end / rate, abs=0.002)
    assert info.seconds == pytest.approx(made.timeline.seconds, abs=0.2)


def test_every_sentence_sounds_where_the_timeline_says_and_pauses_are_silent(spoken: Spoken, made: Audiobook) -> None:
    for chapter in made.timeline.chapters:
        waveform, rate = read_audio(path(spoken, f"chapters/{chapter.name}.flac"))
        assert rate == RATE
        assert len(waveform) == chapter.end - chapter.start
        for u in chapter.utterances:
            start, end = u.start - chapter.start, u.end - chapter.start
            assert np.abs(waveform[end : end + u.pause]).max() < 1e-3
            assert u.pause == round(u.unit.pause_s * RATE)
            if u.spoken:
                assert np.sqrt(np.mean(np.square(waveform[start:end]))) > 0.02


def test_the_book_is_as_loud_as_promised(spoken: Spoken, made: Audiobook) -> None:
    pieces = [read_audio(path(spoken, f"chapters/{c.name}.flac"))[0] for c in made.timeline.chapters]
    whole = np.concatenate(pieces)
    assert integrated_loudness(whole, RATE) == pytest.approx(-19, abs=0.2)
    assert made.written_lufs == pytest.approx(-19, abs=0.2)
    assert np.abs(whole).max() <= 10 ** (-1 / 20) + 1e-4
    coded, rate = read_audio(path(spoken, made.book))
    assert integrated_loudness(coded, rate) == pytest.approx(-19, abs=0.5)


def test_subtitles_hold_every_spoken_sentence_at_its_time(spoken: Spoken, made: Audiobook) -> None:
    text = path(spoken, "The Trial a Book.srt").read_text()
    cues = re.findall(r"(\d\d):(\d\d):(\d\d),(\d{3}) --> \S+\n(.*?)\n(?:\n|$)", text, re.S)
    texts = [" ".join(cue[4].split()) for cue in cues]
    assert texts == [t for chapter in CHAPTERS.values() for t in chapter if t != "UNSPEAKABLE"]
    starts = [int(h) * 3600 + int(m) * 60 + int(s) + int(ms) / 1000 for h, m, s, ms, _ in cues]
    spoken_at = [u.start / RATE for c in made.timeline.chapters for u in c.utterances if u.spoken]
    assert starts == pytest.approx(spoken_at, abs=0.001)
    own = path(spoken, "chapters/02 - II. Tea & Cake.vtt").read_text()
    assert own.startswith("WEBVTT\n\n00:00:00.000 --> ")
    assert "II. Tea &amp; &lt;Cake&gt;" in own


def test_word_times_are_in_order_and_inside_their_sentence(spoken: Spoken, made: Audiobook) -> None:
    found = json.loads(path(spoken, "words.json").read_text())
    assert found == word_times(made.timeline, "The Trial: a Book")
    for chapter in found["chapters"]:
        for sentence in chapter["sentences"]:
            assert [w["word"] for w in sentence["words"]] == sentence["text"].split()
            times = [t for w in sentence["words"] for t in (w["start_s"], w["end_s"])]
            assert times == sorted(times)
            assert sentence["start_s"] - 0.002 <= times[0]
            assert times[-1] <= sentence["end_s"] + 0.002
            for word in sentence["words"]:
                assert word["start_s"] - word["chapter_start_s"] == pytest.approx(chapter["start_s"], abs=0.002)
                assert sentence["text"][word["char_start"] : word["char_end"]] == word["word"]


@pytest.mark.parametrize("format", ["m4b", "mp3", "opus"])
def test_the_same_shards_make_the_same_bytes(spoken: Spoken, format: str) -> None:
    def bytes_of() -> dict[str, bytes]:
        return {name: spoken.output.read(name) for name in assemble(*spoken, BookForm(format), workers=2).files}

    first = bytes_of()
    assert first == bytes_of()
    assert len(read_tags(path(spoken, f"The Trial a Book.{format}")).chapters) == 3


@pytest.mark.parametrize("format", ["m4b", "mp3", "opus"])
def test_a_file_cut_short_by_a_full_disk_is_never_committed(
    spoken: Spoken, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = spoken.output
    before = storage.list()
    real = audiobook.seconds_held

    def cut(local: Path) -> float:
        local.write_bytes(local.read_bytes()[: local.stat().st_size // 2])
        return real(local)

    monkeypatch.setattr(audiobook, "seconds_held", cut)
    with pytest.raises(OutputError, match="instead of"):
        assemble(*spoken, BookForm(format, "none"), workers=1)
    assert storage.list() == before


def test_what_is_planned_is_what_is_made(spoken: Spoken, made: Audiobook) -> None:
    assert sorted(planned_files(spoken.book, [1, 2, 3], FORM)) == sorted(made.files)


@pytest.mark.parametrize("phase", ["measuring", "writing"])
def test_one_failure_stops_the_others(spoken: Spoken, monkeypatch: pytest.MonkeyPatch, phase: str) -> None:
    calls, real = count(), audiobook.chapter_audio

    def endless(spool: Spool, chapter: ChapterSpan, sample_rate: int) -> Iterator[np.ndarray]:
        if phase == "writing" and next(calls) < 3:
            yield from real(spool, chapter, sample_rate)
            return
        if chapter.number == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        while True:
            time.sleep(0.01)
            yield np.zeros(100, np.float32)

    monkeypatch.setattr(audiobook, "chapter_audio", endless)
    with pytest.raises((OSError, OutputError), match="No space left"):
        assemble(*spoken, FORM, workers=4)


def test_a_book_of_which_nothing_was_spoken_is_an_error(tmp_path: Path) -> None:
    document = Document("X", (Chapter("c", "UNSPEAKABLE", (Sentence("UNSPEAKABLE", 0, 11),)),))
    nothing = spoken_book(document, Storage(str(tmp_path)))
    with pytest.raises(TextError, match="nothing of the book"):
        timeline_of(nothing.book, nothing.rows)


def test_the_users_title_author_cover_and_bit_rate_go_before_the_books(spoken: Spoken, tmp_path: Path) -> None:
    cover = io.BytesIO()
    pytest.importorskip("PIL.Image").new("RGB", (30, 30), (200, 0, 0)).save(cover, "PNG")
    form = BookForm("mp3", "m4a", title="Mine", author="Me", cover=cover.getvalue(), bitrate=320)
    output = Storage(str(tmp_path))
    named = spoken._replace(book=Book("", form.of(spoken.book.document)), output=output)
    made = assemble(*named, form, workers=1)
    assert made.notes == (
        "mp3 at 16,000 Hz has no 320 kbit/s: 160 are taken",
        "m4a at 16,000 Hz has no 320 kbit/s: 96 are taken",
    )
    assert made.book == "Mine.mp3"
    for name in (made.book, "chapters/01 - I. The Start.m4a"):
        info = read_tags(path(named, name))
        assert (info.tags["album"], info.tags["artist"], info.cover) == ("Mine", "Me", cover.getvalue())
