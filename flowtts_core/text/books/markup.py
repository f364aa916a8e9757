"""Read HTML, Markdown, DOCX and RTF: each file becomes one page, which is read as the pages of an EPUB are."""

from __future__ import annotations

import html
import io
import re
import tomllib
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml
from lxml import etree
from lxml import html as lxml_html

from flowtts_core.errors import TextError
from flowtts_core.text.books.chapters import Paragraph
from flowtts_core.text.books.decode import decode_markup, decode_text
from flowtts_core.text.books.epub import EpubOptions, document_of
from flowtts_core.text.books.epub_zip import DAMAGED_ZIP, Package, TocEntry, Unreadable, descendants, refuse_bomb
from flowtts_core.text.books.gutenberg import story_between
from flowtts_core.text.books.plain import chapter_starts, read_plain, title_from_name
from flowtts_core.text.books.xhtml import Page, clean, parse_page, parse_xml
from flowtts_core.text.document import Document, LeftOut
from flowtts_core.text.given_phonemes import given_phonemes
from flowtts_core.text.sentences import Pauses

PAGE = "text"  # the path of the only page
_DAMAGED = "copy or download the file again, or save it anew"
_BESIDE_THE_TEXT = ("nav", "form", "button", "noscript", "dialog")  # of a web page
_FRONT_MATTER = re.compile(r"\A(---|\+\+\+)[^\S\n]*\n(.*?)\n(?:\1|\.\.\.)[^\S\n]*(?:\n|\Z)", re.DOTALL)
_FIELDS = re.compile(r"(?:#[^\n]*\n|\[[\w.]+\]\s*\n)*[\"']?\w[\w.-]*[\"']?\s*[:=]")  # prose between two rules has none
_NOTE = re.compile(
    r"^\[\^([^\]\s]+)\]:[^\S\n]*(.*(?:\n(?:[^\S\n]{2,}\S.*|[^\S\n]*(?=\n[^\S\n]{2,}\S)))*)", re.MULTILINE
)
_NOTE_MARK = re.compile(r"\[\^([^\]\s]+)\]")
_SITE = re.compile(r"^The Project Gutenberg e-?book of ", re.IGNORECASE)


@dataclass(frozen=True)
class Markup:
    """A text as one page of XHTML or HTML, and what its file says of it ("" for nothing).

    Attributes:
        toc: its table of contents; empty: its headings tell the chapters.
    """

    page: bytes
    title: str = ""
    author: str = ""
    language: str = ""
    toc: Sequence[TocEntry] = ()
    cover: bytes | None = None
    cover_media_type: str = ""
    warnings: Sequence[str] = ()
    left_out: Sequence[LeftOut] = ()


def read_markup(markup: Markup, name: str, options: EpubOptions, pauses: Pauses | None = None) -> Document:
    """Return the document of a text with markup.

    Raises:
        TextError: when it holds no text.
    """
    package = Package(name, zipfile.ZipFile(io.BytesIO(), "w"), toc=list(markup.toc), warnings=list(markup.warnings))
    try:
        page = parse_page(markup.page)
    except ValueError as error:
        raise TextError(f"{name}: no text to read in it ({error})", "give a file with words in it") from error
    if not page.passages:
        raise TextError(f"{name}: no text to read in it", "give a file with words in it")
    page.title = markup.title
    _mark_licence(page)
    package.toc = package.toc or _contents(page)
    package.metadata["title"] = [markup.title or title_from_name(name)]
    package.metadata |= {
        key: [value] for key, value in (("creator", markup.author), ("language", markup.language)) if value
    }
    document = document_of(package, {PAGE: page}, options, pauses)
    left_out = (*markup.left_out, *document.left_out)
    return replace(document, cover=markup.cover, cover_media_type=markup.cover_media_type, left_out=left_out)


def _mark_licence(page: Page) -> None:
    """Make matter of Project Gutenberg's header and licence, where a page has them."""
    story = range(len(page.passages))[story_between([passage.block.text for passage in page.passages])]
    for index, passage in enumerate(page.passages):
        if index not in story:
            types = passage.types | {"copyright-page"}
            page.passages[index] = replace(passage, block=replace(passage.block, level=0), types=types)


def _contents(page: Page) -> list[TocEntry]:
    """Return the table of contents that a page's headings make, with an anchor in the page for each.

    A heading straight after another (the book's title, a part) begins with that one, which is read at its head.
    """
    paragraphs = [Paragraph((clean(p.block.text).replace("\n", " "),), p.block.level) for p in page.passages]
    toc: list[TocEntry] = []
    begins = 0
    prose = True
    starts = chapter_starts(paragraphs)
    for index, paragraph in enumerate(paragraphs):
        if index in starts:
            if prose:
                begins = index
            elif toc:
                toc.pop()
            part, anchor = starts[index], f"heading-{index}"
            page.anchors[anchor] = begins
            toc.append(TocEntry(paragraph.text, PAGE, anchor, (part,) if part else ()))
            prose = False
        prose = prose or not paragraph.level
    return toc


def html_markup(data: bytes, name: str) -> Markup:
    """Return a web page; menus, forms and, beside a main part, all else are left out, which a warning says."""
    decoded = decode_markup(data)
    try:
        root = lxml_html.document_fromstring(
            decoded.text, parser=lxml_html.HTMLParser(no_network=True, remove_comments=True)
        )
    except (etree.ParserError, etree.XMLSyntaxError, ValueError) as error:
        raise TextError(f"{name}: no page can be made of it ({error})", _DAMAGED) from error
    said = {(meta.get("name") or "").lower(): clean(meta.get("content") or "") for meta in root.iter("meta")}
    title = said.get("dc.title") or clean("".join(next(root.iter("title"), etree.Element("title")).itertext()))
    left_out = [LeftOut("menus and forms", tag, text) for tag in _BESIDE_THE_TEXT for text in _dropped(root, tag)]
    body = _main_part(root)
    if body is not root:
        left_out += [LeftOut("text outside the main part", PAGE, text) for text in _around(root, body)]
    return Markup(
        etree.tostring(body, encoding="utf-8", with_tail=False),
        title=_SITE.sub("", title.replace("\n", " ")),
        author=said.get("dc.creator") or said.get("author") or "",
        language=said.get("dc.language")
        or root.get("lang")
        or root.get("{http://www.w3.org/XML/1998/namespace}lang")
        or "",
        warnings=[decoded.warning] if decoded.warning else [],
        left_out=left_out,
    )


def _dropped(root: Any, tag: str) -> Iterator[str]:
    """Drop all elements of a tag; yields the words of each that has some."""
    for element in list(root.iter(tag)):
        text = " ".join(element.text_content().split())
        element.drop_tree()
        if any(map(str.isalnum, text)):
            yield text


def _main_part(root: Any) -> Any:
    """Return the only <main> of a page, else its only <article>, else all of it."""
    for tag in ("main", "article"):
        found = list(root.iter(tag))
        if len(found) == 1:
            return found[0]
    return root


def _around(root: Any, main: Any) -> Iterator[str]:
    """Yield the texts of a page's body beside its main part."""
    inside = {*main.iter()}
    for element in root.iter():
        if not isinstance(element.tag, str) or element.tag in ("html", "head", "title", "script", "style"):
            continue
        own = "" if element in inside else element.text
        after = element.tail if element is main or element not in inside else ""
        for text in (own, after):
            if text and any(map(str.isalnum, text)):
                yield " ".join(text.split())


def markdown_markup(data: bytes, name: str) -> Markup:
    """Return a Markdown text (CommonMark, tables, footnotes); a YAML or TOML header names its title, author and language."""
    from markdown_it import MarkdownIt

    text, warnings = decode_text(data, name)
    left_out: list[LeftOut] = []
    said, text = _front_matter(text, warnings, left_out)
    blocks = given_phonemes(text)  # `[word](/IPA/)` is no link
    given = [text[block.start : block.end] for block in blocks]
    for number in range(len(blocks) - 1, -1, -1):
        text = f"{text[: blocks[number].start]}\ue000{number}\ue001{text[blocks[number].end :]}"
    text = _NOTE.sub(
        lambda note: f'<aside role="doc-footnote" id="note-{html.escape(note[1])}">\n\n{note[2]}\n\n</aside>\n', text
    )
    text = _NOTE_MARK.sub(
        lambda mark: f'<a role="doc-noteref" href="#note-{html.escape(mark[1])}">{html.escape(mark[1])}</a>', text
    )
    page = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)
    page = re.sub("\ue000(\\d+)\ue001", lambda place: html.escape(given[int(place[1])]), page)
    authors = said.get("author") or said.get("authors") or ""
    return Markup(
        f"<html><body>{page}</body></html>".encode(),
        title=str(said.get("title") or _only_heading(page)),
        author=", ".join(map(str, authors)) if isinstance(authors, list) else str(authors),
        language=str(said.get("language") or said.get("lang") or ""),
        warnings=warnings,
        left_out=left_out,
    )


def _front_matter(text: str, warnings: list[str], left_out: list[LeftOut]) -> tuple[dict[str, Any], str]:
    """Return the fields of a text's header and the text below it; prose between two rules is no header."""
    header = _FRONT_MATTER.match(text)
    if header is None or not _FIELDS.match(header[2]):
        return {}, text
    kind = "YAML" if header[1] == "---" else "TOML"
    said: Any = None
    try:
        said = yaml.safe_load(header[2]) if kind == "YAML" else tomllib.loads(header[2])
    except (yaml.YAMLError, tomllib.TOMLDecodeError) as error:
        warnings.append(f"its {kind} header cannot be read ({str(error).splitlines()[0]}): left out")
    left_out.append(LeftOut("header of fields", PAGE, " ".join(header[2].split())))
    return said if isinstance(said, dict) else {}, text[header.end() :]


def _only_heading(page: str) -> str:
    found = re.findall(r"<h1>(.*?)</h1>", page, re.DOTALL)
    return clean(html.unescape(re.sub(r"<[^>]+>", "", found[0]))) if len(found) == 1 else ""


def docx_markup(data: bytes, name: str) -> Markup:
    """Return a Word document, by mammoth: its headings, footnotes and tables; headers and footers of its pages are left out."""
    import mammoth

    package = zipped(data, name)
    style = "p[style-name='Title'] => h1:fresh\nr[style-name='Strong'] => strong"
    try:
        page = mammoth.convert_to_html(
            io.BytesIO(data), style_map=style, convert_image=mammoth.images.img_element(lambda image: {"src": ""})
        ).value
    except Exception as error:  # whatever a damaged part makes it raise
        raise TextError(f"{name}: damaged DOCX ({type(error).__name__}: {str(error)[:200]})", _DAMAGED) from error
    return described(f"<html><body>{page}</body></html>", package, "docProps/core.xml")


def read_rtf(data: bytes, name: str, pauses: Pauses | None = None) -> Document:
    """Read an RTF text, by striprtf; its chapters are told by their headings' words, as in plain text.

    Raises:
        TextError: when it cannot be read or holds no text.
    """
    from striprtf.striprtf import rtf_to_text

    try:
        text = rtf_to_text(data.decode("latin-1"), errors="replace")
    except Exception as error:  # whatever a damaged file makes it raise
        raise TextError(f"{name}: damaged RTF ({type(error).__name__}: {str(error)[:200]})", _DAMAGED) from error
    document = read_plain(text.replace("\n", "\n\n").encode("utf-8", "replace"), name, pauses=pauses)
    notes = len(re.findall(rb"\\footnote\b", data))
    return replace(document, warnings=(*document.warnings, *([f"{notes} footnotes left out"] if notes else [])))


def zipped(data: bytes, name: str) -> Package:
    """Return a document that is a zip, within the limits of unpacking.

    Raises:
        TextError: for a damaged zip or a zip bomb.
    """
    try:
        package = Package(name, zipfile.ZipFile(io.BytesIO(data)))
    except DAMAGED_ZIP as error:
        raise TextError(f"{name}: damaged ({error})", _DAMAGED) from error
    refuse_bomb(package)
    return package


def described(page: str, package: Package, path: str) -> Markup:
    """Return a page with the title, author and language that the file `path` of its office document names."""
    try:
        root = parse_xml(package.read(path))
    except (Unreadable, etree.XMLSyntaxError, ValueError):
        return Markup(page.encode())
    names = {"title": "title", "creator": "author", "initial-creator": "author", "language": "language"}
    found: dict[str, str] = {}
    for element in descendants(root, *names):
        text = clean("".join(element.itertext())).replace("\n", " ")
        if text:
            found.setdefault(names[etree.QName(element).localname], text)
    return Markup(page.encode(), found.get("title", ""), found.get("author", ""), found.get("language", ""))
