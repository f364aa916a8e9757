"""Recognise front and back matter, which is read only on request, by type and by title."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from flowtts_core.text.books.headings import parse_heading
from flowtts_core.text.books.page import Passage
from flowtts_core.text.sentences import collapse

MATTER, NOTES = "front and back matter", "notes"  # why it is left out, for people
MATTER_TYPES = frozenset(
    {
        *(
            "cover",
            "frontispiece",
            "titlepage",
            "halftitlepage",
            "half-title-page",
            "imprint",
            "imprimatur",
            "colophon",
        ),
        *(
            "copyright-page",
            "toc",
            "toc-brief",
            "landmarks",
            "page-list",
            "loi",
            "lot",
            "loa",
            "lov",
            "index",
            "bibliography",
        ),
        *(
            "dedication",
            "acknowledgments",
            "credits",
            "contributors",
            "other-credits",
            "errata",
            "revision-history",
            "transcriber-note",
        ),
    }
)
NOTE_TYPES = frozenset({"footnote", "footnotes", "endnote", "endnotes", "rearnote", "rearnotes", "note"})

_MATTER_TITLE = re.compile(
    r"(?:front |back )?cover(?: page)?|(?:half[ -]?)?title[ -]?page|half[ -]?title|frontispiece|imprint|colophon|"
    r"(?:un)?copyright(?: page| notice| information)?|(?:table of )?contents|brief contents|toc|dedications?|"
    r"acknowledge?ments?|credits|about the (?:authors?|publisher|editor|translator)|"
    r"(?:also|books|other books|more) by .*|praise(?: for .*)?|"
    r"list of (?:illustrations|figures|tables|maps|plates)|illustrations|index|(?:selected )?bibliography|"
    r"newsletter.*|transcriber[’']?s[’']? notes?.*|errata|(?:the )?full project gutenberg[™ ]*(?:tm)? license|license|"
    r"advertisements?|landmarks|list of pages|permissions"
)
_NOTE_TITLE = re.compile(r"notes|(?:foot|end)notes?|foot-?notes?:?")
_COPYRIGHT_TEXT = re.compile(
    r"©|\bcopyright\b|\ball rights reserved\b|\bISBN\b|\blibrary of congress\b|\bproject gutenberg", re.IGNORECASE
)
# A short page with one of these is an imprint or a dedication, even if it has full stops.
_IMPRINT_WORDS = re.compile(
    r"\b(?:first published|published by|printed (?:in|by|and bound)|translated by|cover (?:art|design|illustration)|"
    r"a work of fiction|(?:ltd|inc)\.)|^(?:for|to|in (?:loving )?memory of)\b.{0,150}$",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?…][\"'”’»)\]]*$")
# Their children are sections of them. Contents, cover and title page are the root of the whole book in some.
_ROOT_TITLE = re.compile(
    r"(?:table of |brief )?contents|toc|(?:front )?cover(?: page)?|(?:half[ -]?)?title(?:[ -]?page)?"
)
_CREDIT = re.compile(
    r"(?:(?:written|translated|edited|illustrated|told) )?by\b|an? (?:novel|tale|story|romance)\b", re.IGNORECASE
)
_INLINE = re.compile(
    r"(?P<toc>(?:table of )?contents)|(?P<transcriber_note>transcriber[’']?s[’']? notes?)|(?P<footnotes>(?:foot|end)notes?)"
)
_LINKED = 0.8  # the share of links in the letters of a line of a table of contents
_LIST_TITLE = re.compile(r"index|(?:selected )?bibliography")


def kind_of_types(types: frozenset[str]) -> str:
    """Return "matter", "notes", or "" (to be read), for the epub:type words of a passage or a landmark."""
    if types & NOTE_TYPES:
        return "notes"
    return "matter" if types & MATTER_TYPES else ""


def kind_of_title(title: str) -> str:
    """Return "matter", "notes", or "" (to be read), for a chapter's title."""
    plain = _plain(title)
    if _NOTE_TITLE.fullmatch(plain):
        return "notes"
    return "matter" if _MATTER_TITLE.fullmatch(plain) else ""


def kind_below(parent: str, title: str, same_page: bool) -> str:
    """Return the kind that an entry of the table of contents inherits from the title of one above it; "" for none.

    Args:
        same_page: whether both are in one file, so that the entry is a section of its parent.
    """
    kind, plain = kind_of_title(parent), _plain(parent)
    if kind == "notes" or _LIST_TITLE.fullmatch(plain):
        return kind
    if not same_page or _ROOT_TITLE.fullmatch(plain) or parse_heading(title, bare=True) is not None:
        return ""
    return kind


def is_root_title(title: str) -> bool:
    """Return whether a title in a table of contents is that of the whole book's root, such as "Contents"."""
    return bool(_ROOT_TITLE.fullmatch(_plain(title)))


def is_title_page(title: str, paragraphs: Sequence[str], book: str) -> bool:
    """Return whether a short page of the contents holds no more than the book's title, its author and the like."""
    text = " ".join(paragraphs)
    names = {_plain(title), _plain(book)}
    others = [paragraph for paragraph in paragraphs if _plain(paragraph) not in names]
    told = any(_SENTENCE_END.search(paragraph) for paragraph in others)
    credited = any(_CREDIT.match(paragraph) for paragraph in others)
    return parse_heading(title) is None and len(text) < 300 and not told and credited


def with_inline_matter(passages: list[Passage]) -> list[Passage]:
    """Return the passages of a page; those of a table of contents, a transcriber's note or footnotes within it get types."""
    out = list(passages)
    inside, level = "", 0
    for index, passage in enumerate(passages):
        links = [p.linked > _LINKED for p in passages[index : index + 3]]
        if passage.block.level:
            if inside and passage.block.level > level:
                continue
            found = _INLINE.fullmatch(_plain(collapse(passage.block.text)))
            inside, level = (found.lastgroup or "" if found else ""), passage.block.level
            if inside == "toc" and not any(p.linked > _LINKED for p in passages[index + 1 : index + 3]):
                inside = ""
        elif inside == "toc" and passage.linked <= _LINKED:
            inside = ""
        elif not inside and len(links) == 3 and all(links):
            inside, level = "toc", 7
        if inside and not kind_of_types(passage.types):
            out[index] = replace(passage, types=passage.types | {inside.replace("_", "-")})
    return out


def _plain(title: str) -> str:
    return " ".join(title.casefold().split()).strip(" .:—-[]()")


def is_imprint(heading: str, paragraphs: Sequence[str]) -> bool:
    """Return whether a short page before the first chapter, not in the table of contents, is a title page or imprint.

    Args:
        heading: the page's heading, "" for none. "Prologue" and the like belong to the story.
        paragraphs: the texts of the page with its heading.
    """
    text = " ".join(paragraphs)
    if parse_heading(heading) is not None:
        return False
    if _COPYRIGHT_TEXT.search(text):
        return len(text) < 6000
    prose = any(_SENTENCE_END.search(paragraph) for paragraph in paragraphs if paragraph != heading)
    return len(text) < 1000 and not (prose and not _IMPRINT_WORDS.search(text))
