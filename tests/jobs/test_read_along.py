"""The read-along EPUB: each sentence's text is there under its id, and sounds where its overlay says."""

from __future__ import annotations

import io
import posixpath
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from lxml import etree

from cluster.storage import Storage
from flowtts_core.audio.files import read_audio
from flowtts_core.text.document import Chapter, Document, Sentence
from jobs.synthesis.audiobook import assemble
from jobs.synthesis.book_form import BookForm
from jobs.synthesis.books import book_rows
from jobs.synthesis.plan import plan_book, stored_book
from jobs.synthesis.settings import Speaking
from tests.fake_engine import RATE, MakeTone, speak_here

NS = {
    "o": "http://www.idpf.org/2007/opf",
    "h": "http://www.w3.org/1999/xhtml",
    "s": "http://www.w3.org/ns/SMIL",
    "d": "http://purl.org/dc/elements/1.1/",
    "e": "http://www.idpf.org/2007/ops",
}
PARAGRAPHS = {
    "I. The <Start> & on": ["I. The <Start> & on", "It began. Nobody had asked.", "UNSPEAKABLE", "But it did."],
    "": ["No heading here. None at all."],
    "III": ["UNSPEAKABLE"],
}


def document() -> Document:
    chapters = []
    for title, paragraphs in PARAGRAPHS.items():
        text, sentences = "", []
        for paragraph in paragraphs:
            text += "\n\n" if text else ""
            role = "heading" if paragraph == title else "sentence"
            for part in [paragraph] if role == "heading" else paragraph.replace(". ", ".|").split("|"):
                text += " " if text and not text.endswith("\n") else ""
                sentences.append(Sentence(part, len(text), len(text) + len(part), role, 0.4))
                text += part
        chapters.append(Chapter(title, text, tuple(sentences)))
    picture = io.BytesIO()
    pytest.importorskip("PIL.Image").new("RGB", (40, 60), (20, 90, 160)).save(picture, "PNG")
    return Document("A \x01 <Book>", tuple(chapters), "A. & B.", identifier="urn:isbn:1", cover=picture.getvalue())


@pytest.fixture(scope="module", params=["m4a", "flac"])
def epub(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    storage = Storage(str(tmp_path_factory.mktemp("book")))
    stored = speak_here(plan_book(document(), Speaking()), storage, MakeTone())
    note = stored.notes["books"][0]
    rows = book_rows(storage, stored, note)
    form = BookForm(chapter_format=request.param, read_along=True)
    made = assemble(stored_book(storage, note), rows, storage, storage, form, 2)
    [name] = [name for name in made.files if name.endswith(".epub")]
    data = storage.read(name)
    assemble(stored_book(storage, note), rows, storage, storage, form, 2)
    assert storage.read(name) == data  # no dates, no random ids
    return zipfile.ZipFile(io.BytesIO(data))


def seconds_of(clock: str) -> float:
    hours, minutes, seconds = clock.split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


def package_of(epub: zipfile.ZipFile) -> etree._Element:
    return etree.fromstring(epub.read("EPUB/package.opf"))


def overlays(epub: zipfile.ZipFile) -> Iterator[tuple[etree._Element, etree._Element]]:
    """Each overlay's item in the manifest, and its SMIL."""
    for item in package_of(epub).findall(".//o:item[@media-type='application/smil+xml']", NS):
        yield item, etree.fromstring(epub.read(f"EPUB/{item.get('href')}"))


def test_the_package_lists_every_file_and_nothing_else(epub: zipfile.ZipFile) -> None:
    first = epub.infolist()[0]
    assert (first.filename, first.compress_type, first.extra) == ("mimetype", zipfile.ZIP_STORED, b"")
    assert epub.read("mimetype") == b"application/epub+zip"
    container = etree.fromstring(epub.read("META-INF/container.xml"))
    assert [root.get("full-path") for root in container.iter("{*}rootfile")] == ["EPUB/package.opf"]
    package = package_of(epub)
    items = package.findall(".//o:item", NS)
    listed = [f"EPUB/{item.get('href')}" for item in items]
    assert sorted([*listed, "mimetype", "META-INF/container.xml", "EPUB/package.opf"]) == sorted(epub.namelist())
    ids = [element.get("id") for element in package.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    by_id = {item.get("id"): item for item in items}
    spine = [by_id[ref.get("idref")] for ref in package.findall(".//o:itemref", NS)]
    assert [item.get("href") for item in spine] == [
        "cover.xhtml", "chapter0001.xhtml", "chapter0002.xhtml", "chapter0003.xhtml",
    ]  # fmt: skip
    assert [item.get("properties") for item in items if item.get("properties")] == ["nav", "cover-image"]


def test_metadata_name_the_book_and_add_up_its_durations(epub: zipfile.ZipFile) -> None:
    package = package_of(epub)
    assert package.get("version") == "3.0"
    assert package.find(f".//d:identifier[@id='{package.get('unique-identifier')}']", NS).text.startswith("urn:uuid:")
    texts = {
        name: package.findtext(f".//d:{name}", namespaces=NS) for name in ("title", "creator", "language", "source")
    }
    assert texts == {"title": "A <Book>", "creator": "A. & B.", "language": "en", "source": "urn:isbn:1"}
    metas = package.findall(".//o:meta[@property]", NS)
    of = {meta.get("refines"): seconds_of(meta.text) for meta in metas if meta.get("property") == "media:duration"}
    whole = of.pop(None)
    assert whole == pytest.approx(sum(of.values()), abs=0.001)
    assert set(of) == {f"#{item.get('id')}" for item, _ in overlays(epub)}
    assert {m.get("property"): m.text for m in metas}["media:narrator"] == "tone (synthetic voice)"
    active = {m.get("property"): m.text for m in metas}["media:active-class"]
    assert f".{active} " in epub.read("EPUB/style.css").decode()


def test_each_overlay_belongs_to_its_chapter_and_its_ids_and_clips_are_there(
    epub: zipfile.ZipFile, tmp_path: Path
) -> None:
    package = package_of(epub)
    carriers = {item.get("media-overlay"): item for item in package.findall(".//o:item[@media-overlay]", NS)}
    durations = {
        m.get("refines"): seconds_of(m.text) for m in package.findall(".//o:meta[@property='media:duration']", NS)
    }
    found = list(overlays(epub))
    assert [item.get("id") for item, _ in found] == list(carriers)
    assert len(found) == 2  # of the last chapter nothing could be spoken
    for item, smil in found:
        page = carriers[item.get("id")].get("href")
        root = etree.fromstring(epub.read(f"EPUB/{page}"))
        order = [element.get("id") for element in root.iter() if element.get("id")]
        assert len(order) == len(set(order))
        names = [text.get("src").partition("#") for text in smil.iter("{*}text")]
        assert {name for name, _, _ in names} == {page}
        places = [order.index(id) for _, _, id in names]
        assert places == sorted(set(places))
        textref = smil.find(".//s:seq", NS).get(f"{{{NS['e']}}}textref")
        assert textref.partition("#")[2] in order
        sounds = {audio.get("src") for audio in smil.iter("{*}audio")}
        (tmp_path / "sound").write_bytes(epub.read(posixpath.join("EPUB", *sounds)))
        waveform, rate = read_audio(tmp_path / "sound")
        clips = [(seconds_of(a.get("clipBegin")), seconds_of(a.get("clipEnd"))) for a in smil.iter("{*}audio")]
        flat = [time for clip in clips for time in clip]
        assert flat == sorted(flat)
        assert flat[-1] <= len(waveform) / rate
        assert durations[f"#{item.get('id')}"] == pytest.approx(sum(end - begin for begin, end in clips), abs=0.001)
        for begin, _ in clips:  # a tone begins with each clip, after a pause
            near = slice(round((begin + 0.06) * rate), round((begin + 0.16) * rate))
            assert np.sqrt(np.mean(np.square(waveform[near]))) > 0.02
            assert (
                begin == 0 or np.abs(waveform[round((begin - 0.1) * rate) : round((begin - 0.03) * rate)]).max() < 0.01
            )


def test_the_text_keeps_headings_paragraphs_and_what_could_not_be_spoken(epub: zipfile.ZipFile) -> None:
    for number, (title, paragraphs) in enumerate(PARAGRAPHS.items(), 1):
        section = etree.fromstring(epub.read(f"EPUB/chapter{number:04d}.xhtml")).find(".//h:section", NS)
        assert ["".join(element.itertext()) for element in section] == paragraphs
        tags = [etree.QName(element).localname for element in section]
        assert tags == ["h1" if paragraph == title else "p" for paragraph in paragraphs]
    titles = [a.text for a in etree.fromstring(epub.read("EPUB/nav.xhtml")).iter("{*}a")]
    assert titles == ["I. The <Start> & on", "Chapter 2", "III"]


def test_a_sentence_sounds_up_to_the_next_so_that_pauses_are_heard(epub: zipfile.ZipFile) -> None:
    _, smil = next(overlays(epub))
    clips = [(seconds_of(a.get("clipBegin")), seconds_of(a.get("clipEnd"))) for a in smil.iter("{*}audio")]
    assert [end for _, end in clips[:-1]] == [begin for begin, _ in clips[1:]]
    lengths = [0.2 + 0.01 * len(text) + 0.4 for text in ("I. The <Start> & on", "It began.", "Nobody had asked.")]
    lengths[-1] += 0.4  # the pause of what was not spoken
    assert [end - begin for begin, end in clips[:3]] == pytest.approx(lengths, abs=2 / RATE + 0.001)
