"""Cut the pages of an EPUB without a table of contents into chapters: at headings, and at lines that are set as headings."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from flowtts_core.text.books.chapters import Paragraph, headings_among
from flowtts_core.text.books.epub_contents import Mark, Segment
from flowtts_core.text.books.headings import Heading, is_chapter, joined_title, parse_heading
from flowtts_core.text.books.matter import kind_of_title, kind_of_types
from flowtts_core.text.books.page import Page, Passage

_LONGEST_HEADING = 80


def segments_by_headings(pages: dict[str, Page]) -> list[Segment]:
    """Cut at headings of the highest level that occurs twice; without headings, at numbers, bold lines and lines in capitals
    that stand as headings; else at each page."""
    read = [p for page in pages.values() for p in page.passages if not kind_of_types(p.types)]
    if not any(p.block.level for p in read):
        _mark_headings(pages)
    levels = [p.block.level for page in pages.values() for p in page.passages if p.block.level]
    top = next((level for level in range(1, 7) if levels.count(level) > 1), 0)
    titles = Counter(page.title for page in pages.values())
    segments: list[Segment] = []
    for number, page in enumerate(pages.values()):
        named = page.title if titles[page.title] == 1 else ""
        fresh = top == 0 or not segments
        for index, passage in enumerate(page.passages):
            title = joined_title(passage.block.text.split("\n")) if passage.block.level else ""
            heading = 0 < passage.block.level <= top
            follows = bool(segments) and bool(segments[-1].passages) and segments[-1].passages[-1].block.level
            begins = heading and not (follows and passage.block.level > follows)
            if fresh or begins or index in page.wordless:
                title = title or named or f"Part {number + 1}"
                segments.append(Segment(Mark(number, index, title, kind=kind_of_title(title), listed=False)))
                fresh = False
            elif title and all(p.block.level for p in segments[-1].passages):
                _add_title(segments[-1], title, heading)
            segments[-1].passages.append(passage)
    return segments


def name_by_headings(segments: list[Segment], book: str) -> None:
    """Name chapters that the contents only number ("1", "Chapter 1") by the titles at their head too: "1. The Boy"."""
    for segment in segments:
        known = parse_heading(segment.mark.title, bare=True)
        if segment.mark.kind or segment.mark.divider or known is None or not known.number or known.title:
            continue
        title = _title_at_head(segment.passages, known, book)
        if title:
            segment.mark = replace(segment.mark, title=joined_title([segment.mark.title, title]))


def _title_at_head(passages: list[Passage], known: Heading, book: str) -> str:
    """Return what stands below the number of a chapter at its head."""
    numbered = False
    for passage in passages[:4]:
        text = passage.block.text
        heads = passage.block.level or passage.strong or parse_heading(text, bare=True)
        if not heads or len(text) > _LONGEST_HEADING:
            return ""
        lines = text.split("\n")
        for number, line in enumerate(lines):
            heading = parse_heading(line, bare=True)
            if heading is not None and heading.rank == known.rank and heading.number:
                if heading.title or numbered:
                    return heading.title
                numbered = True
            elif numbered and heading is None and line.casefold() != book.casefold():
                return " ".join(" ".join(lines[number:]).split())
    return ""


def _add_title(segment: Segment, title: str, heading: bool) -> None:
    """Name a chapter by the second of its headings too: what follows its number, or the chapter below the book's title."""
    known = parse_heading(segment.mark.title, bare=True)
    if known is not None and known.number and not known.title and not is_chapter(title):
        segment.mark = replace(segment.mark, title=joined_title([segment.mark.title, title]))
    elif heading:
        segment.mark = replace(segment.mark, title=title)


def _mark_headings(pages: dict[str, Page]) -> None:
    """Make headings of the paragraphs that are set as such: those that plain texts are cut at, else bold lines and capitals."""
    places = [(page, index) for page in pages.values() for index in range(len(page.passages))]
    passages = [page.passages[index] for page, index in places]
    spans = headings_among([Paragraph(tuple(p.block.text.split("\n"))) for p in passages])
    found = {number for start, end, _ in spans for number in range(start, end)}
    found = found or {number for number, passage in enumerate(passages) if _looks_like_heading(passage)}
    for number in found:
        page, index = places[number]
        level = 3 if number - 1 in found and spans else 2  # a number, then its title
        page.passages[index] = replace(passages[number], block=replace(passages[number].block, level=level))


def _looks_like_heading(passage: Passage) -> bool:
    text = passage.block.text
    if len(text) > _LONGEST_HEADING or text.endswith((".", ",", ";", ":")) or text[:1] in "\"'“‘":
        return False
    return passage.strong or (text.isupper() and sum(c.isalpha() for c in text) > 2)
