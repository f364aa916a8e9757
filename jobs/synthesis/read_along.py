"""The read-along edition of a book: an EPUB 3 whose media overlays show each sentence while it is spoken."""

from __future__ import annotations

import re
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from itertools import groupby, pairwise
from pathlib import Path

from flowtts_core.audio.tagged import cover_kind
from flowtts_core.text.document import Document
from flowtts_core.text.marks import shown_words
from jobs.synthesis.plan import Book
from jobs.synthesis.timeline import ChapterSpan, TimedUnit, Timeline

READ_ALONG = ".epub"
SOUNDS = {"mp3": "audio/mpeg", "m4a": "audio/mp4"}  # formats that every EPUB reader must play
# Of the package and of the files in the zip: EPUB asks for a date, and the same rows shall give the same bytes.
_DATE, _ZIP_DATE = "1980-01-01T00:00:00Z", (1980, 1, 1, 0, 0, 0)
_ACTIVE = "-epub-media-overlay-active"
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")

_CONTAINER = """<?xml version="1.0" encoding="UTF-8"?>
<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container">
<rootfiles><rootfile full-path="EPUB/package.opf" media-type="application/oebps-package+xml"/></rootfiles>
</container>
"""
_STYLE = f"""body {{ line-height: 1.5; margin: 5%; }}
h1, h2 {{ line-height: 1.2; text-align: center; margin: 2em 0 1em; }}
p {{ margin: 0 0 0.6em; }}
img {{ display: block; margin: auto; max-width: 100%; max-height: 95vh; }}
.{_ACTIVE} {{ background-color: #ffe08a; color: #000; }}
"""


@dataclass(frozen=True)
class Line:
    """A sentence of a chapter; `clip` is when it sounds in the chapter's file, in milliseconds, None where it was not spoken."""

    text: str
    clip: tuple[int, int] | None


@dataclass(frozen=True)
class Passage:
    """A paragraph, or a heading of level 1 or 2."""

    lines: tuple[Line, ...]
    level: int = 0


@dataclass(frozen=True)
class ReadAlongChapter:
    number: int
    title: str
    passages: tuple[Passage, ...]

    @property
    def milliseconds(self) -> int:
        """How long its sentences sound, with the pauses after them."""
        lines = (line for passage in self.passages for line in passage.lines)
        return sum(line.clip[1] - line.clip[0] for line in lines if line.clip)


@dataclass(frozen=True)
class ReadAlong:
    """A book as text with times; `document` names it, without chapters; `narrator` is the voice."""

    document: Document
    chapters: tuple[ReadAlongChapter, ...]
    narrator: str

    @property
    def language(self) -> str:
        """The book's, or "und" where what it says is no tag of a language."""
        return self.document.language if _LANGUAGE.fullmatch(self.document.language) else "und"


def read_along_of(book: Book, timeline: Timeline, narrator: str) -> ReadAlong:
    """Lay the texts of a book's sentences beside their times."""
    chapters = []
    for span in timeline.chapters:
        starts = frozenset(book.paragraphs[span.number - 1]) if book.paragraphs else frozenset[int]()
        chapters.append(ReadAlongChapter(span.number, span.title, tuple(_passages(span, timeline.sample_rate, starts))))
    return ReadAlong(book.document, tuple(chapters), narrator)


def _passages(span: ChapterSpan, sample_rate: int, starts: frozenset[int]) -> Iterator[Passage]:
    """A chapter's paragraphs and headings; its first heading is of level 1."""
    clips, count, level = _clips(span, sample_rate), 0, 1
    numbered: list[tuple[int, TimedUnit]] = []
    before = ""
    for utterance in span.utterances:
        unit = utterance.unit
        count += unit.index in starts or unit.role != before or (not starts and unit.role == "heading")
        before = unit.role
        numbered.append((count, utterance))
    for _, group in groupby(numbered, key=lambda pair: pair[0]):
        units = [utterance.unit for _, utterance in group]
        lines = tuple(Line(" ".join(shown_words(unit.text).split()), clips.get(unit.index)) for unit in units)
        if units[0].role == "heading":
            yield Passage(lines, level)
            level = 2
        else:
            yield Passage(lines)


def _clips(span: ChapterSpan, sample_rate: int) -> dict[int, tuple[int, int]]:
    """When each spoken sentence sounds, up to the next: players leap from clip to clip, and pauses are to be heard."""
    spoken = [u for u in span.utterances if u.spoken]
    times = [round(1000 * (u.start - span.start) / sample_rate) for u in spoken]
    times.append(1000 * (span.end - span.start) // sample_rate)
    return {u.unit.index: clip for u, clip in zip(spoken, pairwise(times), strict=True)}


def write_read_along(path: Path, book: ReadAlong, sounds: Mapping[int, Path]) -> None:
    """Write the EPUB. The same book and sounds give the same bytes.

    Args:
        sounds: the sound of each chapter, by number: MP3 or M4A.
    """
    with zipfile.ZipFile(path, "w") as target:
        _put(target, "mimetype", b"application/epub+zip", zipfile.ZIP_STORED)
        _put(target, "META-INF/container.xml", _CONTAINER.encode())
        for name, text in _texts(book, {number: sound.suffix[1:] for number, sound in sounds.items()}).items():
            _put(target, f"EPUB/{name}", text.encode())
        if book.document.cover:
            _put(target, f"EPUB/{_cover_name(book.document.cover)[0]}", book.document.cover, zipfile.ZIP_STORED)
        for chapter in book.chapters:
            if chapter.milliseconds:
                sound = sounds[chapter.number]
                info = _entry(f"EPUB/{_sound_name(chapter, sound.suffix[1:])}", zipfile.ZIP_STORED)
                with open(sound, "rb") as source, target.open(info, "w", force_zip64=True) as entry:
                    while piece := source.read(1 << 20):
                        entry.write(piece)


def _entry(name: str, kind: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _ZIP_DATE)
    info.compress_type, info.external_attr = kind, 0o644 << 16
    return info


def _put(target: zipfile.ZipFile, name: str, data: bytes, kind: int = zipfile.ZIP_DEFLATED) -> None:
    target.writestr(_entry(name, kind), data)


def _texts(book: ReadAlong, formats: Mapping[int, str]) -> dict[str, str]:
    """All files but sounds and pictures."""
    texts = {"package.opf": _package(book, formats), "nav.xhtml": _navigation(book), "style.css": _STYLE}
    if book.document.cover:
        picture, _ = _cover_name(book.document.cover)
        image = f'<section epub:type="cover"><img src="{picture}" alt="Cover"/></section>'
        texts["cover.xhtml"] = _page(book, book.document.title, image)
    for chapter in book.chapters:
        texts[f"{_name(chapter)}.xhtml"] = _page(book, chapter.title, _body(chapter))
        if chapter.milliseconds:
            texts[f"{_name(chapter)}.smil"] = _overlay(chapter, formats[chapter.number])
    return texts


def _name(chapter: ReadAlongChapter) -> str:
    return f"chapter{chapter.number:04d}"


def _sound_name(chapter: ReadAlongChapter, format: str) -> str:
    return f"audio/{_name(chapter)}.{format}"


def _cover_name(cover: bytes) -> tuple[str, str]:
    """The name of the cover's file, and its type."""
    kind = cover_kind(cover)
    return ("cover.png", "image/png") if kind and kind[0] == "png" else ("cover.jpg", "image/jpeg")


def _page(book: ReadAlong, title: str, body: str) -> str:
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE html>
<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops" lang="{book.language}" \
xml:lang="{book.language}">
<head><title>{_xml(title) or "Untitled"}</title><link rel="stylesheet" type="text/css" href="style.css"/></head>
<body>
{body}
</body>
</html>
"""


def _ids(chapter: ReadAlongChapter) -> Iterator[tuple[Passage, list[tuple[str, Line]]]]:
    """Each passage, and its sentences with the ids that text and overlay share."""
    count = 0
    for passage in chapter.passages:
        yield passage, [(f"s{count + place + 1}", line) for place, line in enumerate(passage.lines)]
        count += len(passage.lines)


def _body(chapter: ReadAlongChapter) -> str:
    parts = []
    for passage, lines in _ids(chapter):
        element = f"h{passage.level}" if passage.level else "p"
        spans = " ".join(f'<span id="{id}">{_xml(line.text)}</span>' for id, line in lines)
        parts.append(f"<{element}>{spans}</{element}>")
    return "\n".join([f'<section epub:type="chapter" id="{_name(chapter)}">', *parts, "</section>"])


def _overlay(chapter: ReadAlongChapter, format: str) -> str:
    text, sound, pars = f"{_name(chapter)}.xhtml", _sound_name(chapter, format), []
    for _, lines in _ids(chapter):
        for id, line in lines:
            if line.clip:
                begin, end = map(_clock, line.clip)
                clip = f'<audio src="{sound}" clipBegin="{begin}" clipEnd="{end}"/>'
                pars.append(f'<par id="p{id[1:]}"><text src="{text}#{id}"/>{clip}</par>')
    whole = f'<seq id="chapter" epub:textref="{text}#{_name(chapter)}" epub:type="chapter">'
    return "\n".join(
        [
            '<?xml version="1.0" encoding="UTF-8"?>',
            '<smil xmlns="http://www.w3.org/ns/SMIL" xmlns:epub="http://www.idpf.org/2007/ops" version="3.0">',
            f"<body>{whole}",
            *pars,
            "</seq></body>",
            "</smil>",
            "",
        ]
    )


def _navigation(book: ReadAlong) -> str:
    links = [f'<li><a href="{_name(c)}.xhtml">{_xml(c.title) or c.number}</a></li>' for c in book.chapters]
    body = "\n".join(['<nav epub:type="toc" id="toc"><h1>Contents</h1><ol>', *links, "</ol></nav>"])
    return _page(book, book.document.title, body)


def _package(book: ReadAlong, formats: Mapping[int, str]) -> str:
    return "\n".join(
        [
            '<?xml version="1.0" encoding="UTF-8"?>',
            f'<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="id" xml:lang="{book.language}">',
            '<metadata xmlns:dc="http://purl.org/dc/elements/1.1/">',
            *_metadata(book),
            "</metadata>",
            "<manifest>",
            *_manifest(book, formats),
            "</manifest>",
            "<spine>",
            *(['<itemref idref="coverpage"/>'] if book.document.cover else []),
            *(f'<itemref idref="{_name(chapter)}"/>' for chapter in book.chapters),
            "</spine>",
            "</package>",
            "",
        ]
    )


def _metadata(book: ReadAlong) -> Iterator[str]:
    document = book.document
    texts = [line.text for c in book.chapters for passage in c.passages for line in passage.lines]
    own = "\n".join([document.title, document.author, document.identifier, book.narrator, *texts])
    yield f'<dc:identifier id="id">urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, own)}</dc:identifier>'
    yield f"<dc:title>{_xml(document.title) or 'Untitled'}</dc:title>"
    if _xml(document.author):
        yield f'<dc:creator id="author">{_xml(document.author)}</dc:creator>'
    yield f"<dc:language>{book.language}</dc:language>"
    if _xml(document.identifier):
        yield f"<dc:source>{_xml(document.identifier)}</dc:source>"
    yield _meta("dcterms:modified", _DATE)
    yield _meta("media:duration", _clock(sum(chapter.milliseconds for chapter in book.chapters)))
    for chapter in book.chapters:
        if chapter.milliseconds:
            yield _meta("media:duration", _clock(chapter.milliseconds), f"{_name(chapter)}-overlay")
    yield _meta("media:active-class", _ACTIVE)
    yield _meta("media:narrator", f"{book.narrator} (synthetic voice)")
    yield _meta("schema:accessMode", "textual")
    yield _meta("schema:accessMode", "auditory")
    yield _meta("schema:accessModeSufficient", "textual")
    yield _meta("schema:accessModeSufficient", "auditory")
    yield _meta("schema:accessibilityFeature", "synchronizedAudioText")
    yield _meta("schema:accessibilityFeature", "tableOfContents")
    yield _meta("schema:accessibilityHazard", "none")
    yield _meta(
        "schema:accessibilitySummary", "Text and synthetic speech, synchronised by sentences. Pictures are left out."
    )
    if document.cover:
        yield '<meta name="cover" content="cover"/>'


def _meta(name: str, value: str, refines: str = "") -> str:
    of = f' refines="#{refines}"' if refines else ""
    return f'<meta property="{name}"{of}>{_xml(value)}</meta>'


def _manifest(book: ReadAlong, formats: Mapping[int, str]) -> Iterator[str]:
    page = "application/xhtml+xml"
    yield _item("nav", "nav.xhtml", page, 'properties="nav"')
    yield _item("style", "style.css", "text/css")
    if book.document.cover:
        yield _item("cover", *_cover_name(book.document.cover), 'properties="cover-image"')
        yield _item("coverpage", "cover.xhtml", page)
    for chapter in book.chapters:
        name = _name(chapter)
        if not chapter.milliseconds:
            yield _item(name, f"{name}.xhtml", page)
            continue
        format = formats[chapter.number]
        yield _item(name, f"{name}.xhtml", page, f'media-overlay="{name}-overlay"')
        yield _item(f"{name}-overlay", f"{name}.smil", "application/smil+xml")
        yield _item(f"{name}-sound", _sound_name(chapter, format), SOUNDS[format])


def _item(id: str, name: str, kind: str, more: str = "") -> str:
    return f'<item id="{id}" href="{name}" media-type="{kind}"{" " + more if more else ""}/>'


def _clock(milliseconds: int) -> str:
    """A SMIL clock value, as 0:01:02.345."""
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest // 1000:02d}.{rest % 1000:03d}"


def _xml(text: str) -> str:
    """Text for XML, without the control characters that it cannot have."""
    return escape(" ".join(_NO_XML.sub("", text).split()))
