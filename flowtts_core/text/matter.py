"""Front and back matter: which parts of a book are not read unless asked for, by type and by title."""

from __future__ import annotations

import re

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
        *("dedication", "acknowledgments", "credits", "contributors", "other-credits", "errata", "revision-history"),
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


def kind_of_types(types: frozenset[str]) -> str:
    """ "matter", "notes" or "" (read it) for the epub:type words of a passage or a landmark."""
    if types & NOTE_TYPES:
        return "notes"
    return "matter" if types & MATTER_TYPES else ""


def kind_of_title(title: str) -> str:
    """ "matter", "notes" or "" (read it) for a chapter's title."""
    plain = " ".join(title.casefold().split()).strip(" .:—-[]()")
    if _NOTE_TITLE.fullmatch(plain):
        return "notes"
    return "matter" if _MATTER_TITLE.fullmatch(plain) else ""


def is_imprint_text(text: str) -> bool:
    """Whether a short unnamed page before the first chapter is a title page or imprint and no part of the story."""
    return len(text) < 1000 or (len(text) < 6000 and bool(_COPYRIGHT_TEXT.search(text)))
