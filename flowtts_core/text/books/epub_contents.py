"""Cut the pages of an EPUB into chapters and matter at the places that its table of contents and its landmarks name."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from flowtts_core.text.books.chapters import parts_among
from flowtts_core.text.books.epub_zip import Package, TocEntry
from flowtts_core.text.books.headings import is_chapter, is_divider, joined_title, parse_heading
from flowtts_core.text.books.matter import (
    is_imprint,
    is_root_title,
    is_title_page,
    kind_below,
    kind_of_title,
    kind_of_types,
)
from flowtts_core.text.books.page import Page, Passage
from flowtts_core.text.sentences import collapse


@dataclass(frozen=True)
class Mark:
    """The beginning of a chapter or of front or back matter: passage `index` of page `page`."""

    page: int
    index: int
    title: str
    parent: str = ""
    kind: str = ""  # "matter", "notes", or "" for what is read
    divider: bool = False
    listed: bool = True  # whether it is in the table of contents


@dataclass
class Segment:
    """A mark and the passages from it to the next."""

    mark: Mark
    passages: list[Passage] = field(default_factory=list)


def _entries(toc: list[TocEntry]) -> list[tuple[TocEntry, str]]:
    """Return the entries without sections of chapters, each with the kind inherited from the entries above it."""
    below: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for entry in toc:
        below.setdefault(entry.parents, {}).setdefault(entry.title, [])
        if entry.parents:
            below.get(entry.parents[:-1], {}).get(entry.parents[-1], []).append(entry.title)
    parts = {(*above, title) for above, group in below.items() for title in parts_among(group)}
    places: dict[tuple[str, ...], str] = {}
    folded: set[tuple[str, ...]] = set()
    kept: list[tuple[TocEntry, str]] = []
    for entry in toc:
        here = (*entry.parents, entry.title)
        places[here] = entry.path
        if entry.parents in folded or (entry.parents and is_chapter(entry.parents[-1]) and entry.parents not in parts):
            folded.add(here)
            continue
        above = [entry.parents[: n + 1] for n in range(len(entry.parents))]
        kinds = [kind_below(key[-1], entry.title, entry.path == places.get(key)) for key in above]
        kept.append((entry, next((kind for kind in kinds if kind), "")))
    return kept


def _marks(package: Package, pages: dict[str, Page]) -> list[Mark]:
    order = {path: number for number, path in enumerate(pages)}
    found: dict[tuple[int, int], Mark] = {}
    twins = Counter((entry.parents[-1:], entry.title) for entry in package.toc)
    for entry, inherited in _entries(package.toc):
        parent = _parent(entry, package.toc, twins)
        if not entry.path:
            continue
        if entry.path not in order:
            if not any(entry.path in warning for warning in package.warnings):
                package.warnings.append(f"table of contents: {entry.title!r} points to {entry.path}, which is not read")
            continue
        page = pages[entry.path]
        if entry.fragment and entry.fragment not in page.anchors:
            package.warnings.append(
                f"table of contents: {entry.path} has no anchor {entry.fragment!r}: its start is taken"
            )
        place = order[entry.path], page.anchors.get(entry.fragment, 0)
        kind = kind_of_title(entry.title) or inherited
        mark = Mark(*place, entry.title, parent, kind, entry.has_children or is_divider(entry.title))
        before = found.get(place)
        # A part and its first chapter may begin at one place: the chapter's title stands.
        if before is None or before.divider or (before.kind and not kind):
            found[place] = mark
    for landmark in package.landmarks:
        kind = kind_of_types(landmark.types)
        if kind and landmark.path in order:
            place = order[landmark.path], pages[landmark.path].anchors.get(landmark.fragment, 0)
            known = found.get(place)
            if known is None:
                found[place] = Mark(*place, sorted(landmark.types)[0], kind=kind, listed=False)
            elif not is_chapter(known.title):
                found[place] = replace(known, kind=kind)
    return [found[place] for place in sorted(found)]


def _parent(entry: TocEntry, toc: list[TocEntry], twins: Counter[tuple[tuple[str, ...], str]]) -> str:
    """Return the title that names what contains an entry; "" where that is the whole book, or its matter."""
    above = list(entry.parents)
    if above and (
        is_root_title(above[0]) or all(other.parents[:1] == (above[0],) for other in toc if other.title != above[0])
    ):
        above.pop(0)  # the root of all entries
    if not above or kind_of_title(above[-1]) == "matter":
        return ""
    return ": ".join(above) if twins[entry.parents[-1:], entry.title] > 1 else above[-1]


def segments_by_contents(package: Package, pages: dict[str, Page]) -> list[Segment]:
    """Cut the book at its marks. A page without one continues the chapter before it, unless it begins as a chapter."""
    marks = _marks(package, pages)
    segments: list[Segment] = []
    started = False  # a chapter that is read has begun
    listed = {entry.path for entry in package.toc}  # sections of chapters too, which are no marks
    for number, (path, page) in enumerate(pages.items()):
        here = [mark for mark in marks if mark.page == number]
        if not here or here[0].index > 0:
            goes_on = bool(segments) and started and segments[-1].mark.listed
            if not goes_on and page.passages:
                lead = page.passages[: here[0].index] if here else page.passages
                segments.append(_unlisted(number, page, lead, started))
            elif goes_on:
                lead = page.passages[: here[0].index] if here else page.passages
                mark = None if path in listed else _unlisted_chapter(number, lead, segments[-1], marks)
                if mark is None:
                    segments[-1].passages += lead
                else:
                    segments.append(Segment(mark, lead))
        stops = [*(mark.index for mark in here[1:]), len(page.passages)] if here else []
        for mark, stop in zip(here, stops, strict=True):
            segments.append(Segment(mark, page.passages[mark.index : stop]))
            started = started or (mark.listed and not mark.kind)
    return _title_pages(segments, package.metadata.get("title", [""])[0])


def _unlisted_chapter(number: int, passages: list[Passage], before: Segment, marks: list[Mark]) -> Mark | None:
    """Return the mark of a page that begins with the heading of a chapter ("Chapter 2"), which the contents do not list.

    What they list in its place contains it: a story, or the part around the chapter before.
    """
    if before.mark.kind or not passages or not passages[0].block.level:
        return None
    title = joined_title(passages[0].block.text.split("\n"))
    if parse_heading(title) is None or not is_chapter(title):
        return None
    holds = len([mark for mark in marks if mark.listed and not mark.kind]) > 1 and before.mark in marks
    parent = before.mark.title if holds and not is_chapter(before.mark.title) else before.mark.parent
    if all(passage.block.level for passage in before.passages):
        before.mark = replace(before.mark, divider=True)
    return Mark(number, 0, title, parent)


def _title_pages(segments: list[Segment], book: str) -> list[Segment]:
    """Take listed pages before the first chapter as matter where they hold only the book's title and its author."""
    for number, segment in enumerate(segments[:-1]):
        texts = [collapse(p.block.text) for p in segment.passages if not kind_of_types(p.types)]
        if not segment.mark.kind and not segment.mark.divider and texts:
            if not is_title_page(segment.mark.title, texts, book):
                break
            segments[number] = Segment(replace(segment.mark, kind="matter"), segment.passages)
    return segments


def _unlisted(number: int, page: Page, passages: list[Passage], started: bool) -> Segment:
    """Return the segment of a page that is not in the table of contents and continues no chapter."""
    heading = next((joined_title(p.block.text.split("\n")) for p in passages[:3] if p.block.level), "")
    title = heading or page.title or f"Page {number + 1}"
    kind = kind_of_title(heading) or kind_of_title(page.title)
    if not kind and not started and is_imprint(heading, [collapse(p.block.text) for p in passages]):
        kind = "matter"
    return Segment(Mark(number, 0, title, kind=kind, listed=False), passages)
