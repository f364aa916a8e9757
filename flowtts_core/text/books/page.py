"""What a page of a book is made of: its passages, its anchors, and what of it is not read."""

from __future__ import annotations

from dataclasses import dataclass, field

from lxml import etree

from flowtts_core.text.books.note_marks import INVISIBLE
from flowtts_core.text.sentences import Block


def names(text: str) -> frozenset[str]:
    """Return the names of tags or classes in a list that is written as one text."""
    return frozenset(text.split())


_NOTE_CLASSES = names(
    "footnote footnotes endnote endnotes rearnote rearnotes _idfootnote _idfootnotes _idendnote _idendnotes"
)
_TRANSCRIBER_CLASSES = names(
    "tnote tnotes transnote transnotes transcriber transcribernote transcribernotes transcribers-note"
)
_EPUB_TYPE = "{http://www.idpf.org/2007/ops}type"


@dataclass(frozen=True)
class Passage:
    """A block, with the types that decide whether it is read.

    Attributes:
        types: epub:type and role words of all its ancestors ("endnotes", "dedication", ...).
        ids: the anchors at its start.
        linked: the share of its letters that are links into the book, from 0 to 1.
        strong: all of it is bold or in a style named as a heading.
        left_out: (reason, text) of what was left out in it, or right before it.
    """

    block: Block
    types: frozenset[str] = frozenset()
    ids: tuple[str, ...] = ()
    linked: float = 0.0
    strong: bool = False
    left_out: tuple[tuple[str, str], ...] = ()


@dataclass
class Page:
    """A page's passages, the index of the passage at each anchor, and the place of the first note mark to each href.

    `wordless` has the indexes of passages before which a heading stands that is a picture without a description.
    `left_out` has (reason, text) of what is not read and stands in no passage, `warning` what was guessed or mended.
    """

    title: str = ""
    passages: list[Passage] = field(default_factory=list)
    anchors: dict[str, int] = field(default_factory=dict)
    note_hrefs: dict[str, int] = field(default_factory=dict)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    wordless: set[int] = field(default_factory=set)
    warning: str = ""


def clean(text: str) -> str:
    """Collapse spaces and drop soft hyphens and other invisible characters. Line feeds stay."""
    lines = (" ".join(line.split()) for line in INVISIBLE.sub("", text).split("\n"))
    return "\n".join(line for line in lines if line)


def tag_of(element: etree._Element) -> str:
    """Return the local name of an element in small letters, "" for a comment and the like."""
    return etree.QName(element).localname.lower() if isinstance(element.tag, str) else ""


def types_of(element: etree._Element) -> set[str]:
    """Return the words of epub:type and role (without "doc-"), and "footnote" for classes that mean it."""
    words = f"{element.get(_EPUB_TYPE) or element.get('epub:type') or ''} {element.get('role') or ''}".lower().split()
    types = {word.removeprefix("doc-") for word in words}
    classes = set((element.get("class") or "").lower().split())
    if classes & _NOTE_CLASSES:
        types.add("footnote")
    if classes & _TRANSCRIBER_CLASSES:
        types.add("transcriber-note")
    if "pg-boilerplate" in classes or element.get("id") in ("pg-header", "pg-footer"):
        types.add("copyright-page")
    return types


def text_of(element: etree._Element) -> str:
    """Return all the text in an element, on one line."""
    return " ".join(clean("".join(element.itertext())).split())
