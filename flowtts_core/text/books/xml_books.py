"""Read FictionBook (FB2) and OpenDocument (ODT): their XML becomes a page of XHTML."""

from __future__ import annotations

import base64
import binascii
import html
import zipfile
from collections.abc import Iterator

from lxml import etree

from flowtts_core.errors import TextError
from flowtts_core.text.books.epub_zip import TocEntry, Unreadable, descendants
from flowtts_core.text.books.markup import PAGE, Markup, described, zipped
from flowtts_core.text.books.xhtml import clean, parse_xml

_HREF = "{http://www.w3.org/1999/xlink}href"
_TEXT = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
_STYLE = "{urn:oasis:names:tc:opendocument:xmlns:style:1.0}"
_DAMAGED = "download or copy the file again"
_FB2_TAGS = {
    **{
        "strong": "b",
        "emphasis": "i",
        "style": "span",
        "sub": "sub",
        "sup": "sup",
        "code": "code",
        "strikethrough": "s",
    },
    **{
        "p": "p",
        "v": "p",
        "text-author": "p",
        "date": "p",
        "subtitle": "h6",
        "table": "table",
        "tr": "tr",
        "td": "td",
        "th": "th",
    },
    **{"poem": "div", "cite": "blockquote", "epigraph": "blockquote", "annotation": "blockquote"},
}
_ODT_TAGS = {
    **{"p": "p", "span": "span", "list": "ul", "list-item": "li", "list-header": "li", "section": "div", "a": "span"},
    **{
        "table": "table",
        "table-row": "tr",
        "table-cell": "td",
        "table-header-rows": "tbody",
        "frame": "div",
        "text-box": "div",
    },
}
_ODT_LEFT_OUT = {
    "tracked-changes",
    "annotation",
    "note-citation",
    "table-of-content",
    "alphabetical-index",
    "bibliography",
    "forms",
    "desc",
    "title",
}


class _Fb2:
    """Writes the page of a FictionBook and its table of contents."""

    def __init__(self) -> None:
        self.toc: list[TocEntry] = []

    def body(self, body: etree._Element) -> str:
        if (body.get("name") or "") in ("notes", "comments", "footnotes"):
            notes = "".join(
                f'<aside role="doc-footnote" id="{_id(section)}">{self.inner(section)}</aside>'
                for section in descendants(body, "section")
            )
            return f'<section role="doc-endnotes">{notes}</section>'
        return "".join(self.element(child, 1, ()) for child in body)

    def section(self, section: etree._Element, depth: int, parents: tuple[str, ...]) -> str:
        title = next((child for child in section if _name(child) == "title"), None)
        nested = any(_name(child) == "section" for child in section)
        out, own = "", parents
        if title is not None and (named := clean(_words(title))):
            place = f"section-{len(self.toc)}"
            self.toc.append(TocEntry(named, PAGE, place, parents, nested))
            out, own = f'<a id="{place}"/>{self.heading(title, depth)}', (*parents, named)
        inner = "".join(self.element(child, depth + 1, own) for child in section if child is not title)
        return f'<div id="{_id(section)}">{out}{inner}</div>'

    def heading(self, title: etree._Element, depth: int) -> str:
        lines = [self.inner(child) for child in title if _name(child) == "p"] or [self.inner(title)]
        return f"<h{min(depth, 6)}>{'<br/>'.join(lines)}</h{min(depth, 6)}>"

    def element(self, element: etree._Element, depth: int = 6, parents: tuple[str, ...] = ()) -> str:
        name = _name(element)
        if name == "section":
            return self.section(element, depth, parents)
        if name == "title":
            return self.heading(element, depth)
        if name == "stanza":
            return f"<p>{'<br/>'.join(self.inner(verse) for verse in element if _name(verse) == 'v')}</p>"
        if name == "empty-line":
            return "<hr/>"
        if name == "image":
            return f'<img alt="{html.escape(element.get("alt") or "")}"/>'
        if name == "a":
            role = ' role="doc-noteref"' if element.get("type") == "note" else ""
            return f'<a{role} href="{html.escape(element.get(_HREF) or "")}">{self.inner(element)}</a>'
        tag = _FB2_TAGS.get(name, "span")
        return f"<{tag}>{self.inner(element)}</{tag}>" if name else ""

    def inner(self, element: etree._Element) -> str:
        return html.escape(element.text or "") + "".join(self.element(e) + html.escape(e.tail or "") for e in element)


def fb2_markup(data: bytes, name: str) -> Markup:
    """Return a FictionBook, or the one in a zip.

    Raises:
        TextError: when it is no XML, or the zip does not hold one book.
    """
    if data[:2] == b"PK":
        data = _only_book(data, name)
    root, warnings = _parsed(data, name)
    about = next(iter(descendants(root, "title-info")), None)
    said = {} if about is None else {n: _first(about, n) for n in ("book-title", "lang")}
    writer = _Fb2()
    page = "".join(writer.body(body) for body in root if _name(body) == "body")
    cover, media_type = _cover(root)
    return Markup(
        f"<html><body>{page}</body></html>".encode(),
        title=said.get("book-title", ""),
        author=", ".join(_authors(about)),
        language=said.get("lang", ""),
        toc=writer.toc,
        cover=cover,
        cover_media_type=media_type,
        warnings=warnings,
    )


def _only_book(data: bytes, name: str) -> bytes:
    package = zipped(data, name)
    books = [each for each in package.archive.namelist() if each.lower().endswith(".fb2")]
    if len(books) != 1:
        raise TextError(f"{name}: a zip of {len(books)} FB2 books", "unpack it, and give each book")
    try:
        return package.read(books[0])
    except Unreadable as error:
        raise TextError(f"{name}: {error}", _DAMAGED) from error


def _parsed(data: bytes, name: str) -> tuple[etree._Element, list[str]]:
    try:
        return parse_xml(data), []
    except (etree.XMLSyntaxError, ValueError) as error:
        cause = str(error).splitlines()[0]
    try:
        return parse_xml(data, recover=True), [f"not well-formed XML ({cause}): read as far as it goes"]
    except (etree.XMLSyntaxError, ValueError) as error:
        raise TextError(f"{name}: cannot be read as XML ({cause})", _DAMAGED) from error


def _authors(about: etree._Element | None) -> Iterator[str]:
    for author in [] if about is None else descendants(about, "author"):
        names = [_first(author, part) for part in ("first-name", "middle-name", "last-name")]
        yield " ".join(filter(None, names)) or _first(author, "nickname")


def _cover(root: etree._Element) -> tuple[bytes | None, str]:
    for page in descendants(root, "coverpage"):
        for image in descendants(page, "image"):
            place = (image.get(_HREF) or "").removeprefix("#")
            for binary in descendants(root, "binary"):
                kind = binary.get("content-type") or ""
                if binary.get("id") == place and kind in ("image/jpeg", "image/jpg", "image/png"):
                    try:
                        return base64.b64decode("".join((binary.text or "").split()), validate=True), kind.replace(
                            "jpg", "jpeg"
                        )
                    except binascii.Error:
                        continue
    return None, ""


def odt_markup(data: bytes, name: str) -> Markup:
    """Return an OpenDocument text: headings, paragraphs, lists, tables, footnotes; its own indexes are left out.

    Raises:
        TextError: when it is damaged or encrypted.
    """
    package = zipped(data, name)
    try:
        root = parse_xml(package.read("content.xml"))
    except (Unreadable, etree.XMLSyntaxError, ValueError, zipfile.BadZipFile) as error:
        raise TextError(
            f"{name}: content.xml cannot be read ({error})", f"{_DAMAGED}, or save it without a password"
        ) from error
    titles = {
        style.get(f"{_STYLE}name")
        for style in descendants(root, "style")
        if style.get(f"{_STYLE}parent-style-name") == "Title"
    } | {"Title"}
    notes: list[str] = []
    page = "".join(
        _odt(body, titles, notes)
        for body in descendants(root, "text")
        if body.tag.startswith("{urn:oasis:names:tc:opendocument:xmlns:office")
    )
    return described(f"<html><body>{page}{''.join(notes)}</body></html>", package, "meta.xml")


def _odt(element: etree._Element, titles: set[str | None], notes: list[str]) -> str:
    name = _name(element)
    if not name or name in _ODT_LEFT_OUT:
        return ""
    if name in ("s", "tab"):
        return " "
    if name == "line-break":
        return "<br/>"
    if name == "note":
        number = len(notes)
        notes.append("")  # its place, before what it holds
        inner = "".join(_odt(child, titles, notes) for child in element)
        notes[number] = f'<aside role="doc-footnote" id="note-{number}">{inner}</aside>'
        return f'<a role="doc-noteref" href="#note-{number}">{number + 1}</a>'
    inner = html.escape(element.text or "") + "".join(
        _odt(e, titles, notes) + html.escape(e.tail or "") for e in element
    )
    if name == "h" or (name == "p" and element.get(f"{_TEXT}style-name") in titles):
        level = element.get(f"{_TEXT}outline-level") or "1"
        level = level if level in "123456" else "6"
        return f"<h{level}>{inner}</h{level}>"
    tag = _ODT_TAGS.get(name)
    return f"<{tag}>{inner}</{tag}>" if tag else inner


def _name(element: etree._Element) -> str:
    return etree.QName(element).localname if isinstance(element.tag, str) else ""


def _id(element: etree._Element) -> str:
    return html.escape(element.get("id") or "")


def _words(element: etree._Element) -> str:
    return " ".join(" ".join(element.itertext()).split())


def _first(element: etree._Element, name: str) -> str:
    return next((clean(_words(found)) for found in descendants(element, name)), "")
