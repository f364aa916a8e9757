"""Whole books: each letter and digit of the source is spoken, or stands in a list that the user sees."""

from __future__ import annotations

import re
import unicodedata
import zipfile
from collections import Counter
from pathlib import Path

import ftfy
import pytest
from lxml import html

from flowtts_core.text.books.epub import read_epub
from flowtts_core.text.books.read import read_document
from flowtts_core.text.document import Document
from flowtts_core.text.frontends import PhonemeConfig, PhonemeFrontend
from tests.flowtts_core.test_epub import book, chapter, line, page

_INLINE = set("a abbr b big cite code del em font i ins kbd mark q s small span strong sub sup u var wbr".split())


def words(text: str) -> Counter[str]:
    text = re.sub("[\u00ad\u200b\u2060\ufeff]", "", unicodedata.normalize("NFKC", text))
    return Counter(re.findall(r"[^\W_]+", text.casefold()))


def visible_text(path: Path) -> str:
    """The text of a book by another way than ours: all pages of the zip but its navigation, as lxml reads HTML."""
    if path.suffix != ".epub":
        return path.read_text("utf-8-sig")
    with zipfile.ZipFile(path) as archive:
        pages = [
            n for n in archive.namelist() if n.endswith((".xhtml", ".html")) and Path(n).stem not in ("nav", "toc")
        ]
        return " ".join(visible_text_of(decoded(archive.read(name))) for name in pages)


def visible_text_of(source: str) -> str:
    source = re.sub(r"<\?xml[^>]*\?>|<(script|style)\b.*?</\1>", "", source, flags=re.DOTALL)
    body = html.document_fromstring(source.encode(), parser=html.HTMLParser(encoding="utf-8")).find("body")
    for element in body.iter():
        if isinstance(element.tag, str) and element.tag.split(":")[-1] not in _INLINE:
            element.text = f" {element.text or ''}"
            element.tail = f" {element.tail or ''}"
    return str(body.text_content())


def decoded(data: bytes) -> str:
    for encoding in ("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8", "cp1252"):
        try:
            return ftfy.fix_text(data.decode(encoding), unescape_html=False, uncurl_quotes=False)
        except UnicodeDecodeError:
            continue
    raise AssertionError("undecodable")


def lost(source: str, document: Document) -> Counter[str]:
    """The words of the source that are neither in the chapters nor listed.

    A word that stands joined or parted there ("T HE", "treaty1") counts by its letters.
    """
    listed = [piece.text for piece in document.left_out] + list(document.warnings)
    found = words(" ".join([*(c.text for c in document.chapters), *listed]))
    missing, added = words(source) - found, found - words(source)
    letters = Counter("".join(missing.elements())) - Counter("".join(added.elements()))
    return missing if letters else Counter()


def unsaid(document: Document) -> list[str]:
    """The letters and digits of the sentences that a front end neither speaks nor names as dropped."""
    frontend, found = PhonemeFrontend(PhonemeConfig()), []
    for sentence in (s for c in document.chapters for s in c.sentences):
        encoded = frontend.encode(sentence.text)
        spoken = {place for word in encoded.words for place in range(word.start, word.end)}
        silent = Counter(c for place, c in enumerate(sentence.text) if c.isalnum() and place not in spoken)
        if silent - Counter("".join(encoded.dropped)):
            found.append(sentence.text)
    return found


@pytest.mark.parametrize("name", ["the-time-machine.epub", "alice-in-wonderland.txt"])
def test_nothing_of_a_real_book_vanishes(shared_data, name):
    path = shared_data / "books" / name
    document = read_document(path)
    assert lost(visible_text(path), document) == {}
    assert unsaid(document) == []
    assert lost(visible_text(path), read_document(path, include_matter=True, include_notes=True)) == {}


def test_nothing_of_the_cases_vanishes(shared_cases):
    paths = [path for path in sorted((shared_cases / "books").iterdir()) if path.suffix in (".epub", ".txt")]
    documents = {path.name: read_document(path) for path in paths}
    assert {path.name: lost(visible_text(path), documents[path.name]) for path in paths} == dict.fromkeys(documents, {})
    assert {name: unsaid(document) for name, document in documents.items()} == dict.fromkeys(documents, [])


def test_a_word_that_vanishes_is_found():
    pages = {"a.xhtml": chapter("One", "The cat sat."), "b.xhtml": page("<p hidden='hidden'>Unseen</p>")}
    document = read_epub(book(pages, line("a.xhtml", "One")), "x.epub")
    source = " ".join(map(visible_text_of, pages.values()))
    assert lost(source, document) == {}
    assert lost(source + " on a mat", document) == {"on": 1, "a": 1, "mat": 1}


def test_pages_aside_of_the_reading_order_and_headings_without_text_are_listed():
    pages = {
        "a.xhtml": chapter("One"),
        "b.xhtml": page("<h2>Two, the Empty</h2>"),
        "c.xhtml": chapter("Aside", "So it was."),
    }
    toc = line("a.xhtml", "One") + line("b.xhtml", "Two")
    document = read_epub(book(pages, toc, spine=["a.xhtml", "b.xhtml"]), "x.epub")
    assert [(each.reason, each.text) for each in document.left_out] == [
        ("pages outside the reading order", "Aside So it was."),
    ]
    assert document.warnings == ("chapter 'Two' holds no text but 'Two, the Empty': left out",)
