"""Parse the bytes of a page of a book, XHTML or HTML, safely and in its encoding, and read its text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from html.entities import html5

from lxml import etree
from lxml import html as lxml_html

from flowtts_core.text.books.decode import decode_markup, mend
from flowtts_core.text.books.hidden import Hidden
from flowtts_core.text.books.page import Page, Passage, clean, names, tag_of, types_of
from flowtts_core.text.books.page_reader import PageReader

__all__ = ["Page", "Passage", "clean", "parse_page", "parse_xml", "types_of"]

_PREDEFINED = names("amp lt gt quot apos")
_ENTITY = re.compile(r"&([A-Za-z][A-Za-z0-9]*);")


def parse_page(data: bytes, language: str = "", sheet: Callable[[str], str] = lambda href: "") -> Page:
    """Read a page. XHTML that is not well-formed is read as HTML; `warning` says so.

    Args:
        language: of the book, which tells how pages are encoded that do not say it.
        sheet: returns the text of a style sheet that the page links to, "" where it cannot be read.

    Raises:
        ValueError: when the bytes cannot be parsed as a page.
    """
    root, warning = _parse(data, language)
    mended = _mend(root)
    body = next((e for e in root.iter() if tag_of(e) == "body"), root)
    page = Page(warning="; ".join(filter(None, (warning, mended))))
    title = next((e for e in root.iter() if tag_of(e) == "title"), None)
    page.title = clean("".join(title.itertext())) if title is not None else ""
    PageReader(page, Hidden(_sheets(root, sheet))).read(body)
    return page


def parse_xml(data: bytes, recover: bool = False) -> etree._Element:
    """Parse XML with no entity, DTD or network access. HTML's named characters (&nbsp;) are known.

    Raises:
        lxml.etree.XMLSyntaxError: when it is not well-formed.
    """
    return _parse_xml(decode_markup(data).text, recover)


def _parse_xml(text: str, recover: bool = False) -> etree._Element:
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        recover=recover,
        remove_comments=True,
        encoding="utf-8",
    )
    root = etree.fromstring(_known_entities(text), parser)
    if root is None:  # lxml recovers an empty document to None
        raise etree.XMLSyntaxError("no element found", 0, 0, 0)
    return root


def _known_entities(text: str) -> bytes:
    def character(match: re.Match[str]) -> str:
        value = html5.get(match[1] + ";")
        if value is None or match[1] in _PREDEFINED:
            return match[0]
        return "".join(f"&#{ord(c)};" for c in value)

    return _ENTITY.sub(character, text.strip()).encode("utf-8", "replace")


def _parse(data: bytes, language: str) -> tuple[etree._Element, str]:
    decoded = decode_markup(data, language)
    try:
        return _parse_xml(decoded.text), decoded.warning
    except (etree.XMLSyntaxError, ValueError) as error:
        cause = str(error).split("\n")[0]
    try:
        parser = lxml_html.HTMLParser(encoding="utf-8", no_network=True, huge_tree=False, remove_comments=True)
        root = lxml_html.document_fromstring(_known_entities(decoded.text), parser=parser)
    except (etree.ParserError, etree.XMLSyntaxError, LookupError, ValueError) as error:
        raise ValueError(f"no page can be made of it ({error})") from error
    malformed = f"not well-formed XHTML ({cause}): read as HTML"
    return root, f"{decoded.warning}; {malformed}" if decoded.warning else malformed


def _mend(root: etree._Element) -> str:
    """Put right the letters of a page that were decoded wrongly before; return a warning of the first, or ""."""
    first = ""
    for element in root.iter():
        for name in ("text", "tail"):
            text = getattr(element, name)
            if text:
                mended, warning = mend(text)
                if warning:
                    setattr(element, name, mended)
                    first = first or warning
    return first


def _sheets(root: etree._Element, sheet: Callable[[str], str]) -> Iterator[str]:
    for element in root.iter():
        if tag_of(element) == "style":
            yield element.text or ""
        elif tag_of(element) == "link" and "stylesheet" in (element.get("rel") or "").lower():
            yield sheet(element.get("href") or "")
