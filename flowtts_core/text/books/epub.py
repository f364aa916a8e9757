"""Read EPUB 3 and 2 into a `Document`: the chapters of the table of contents in the order of the spine."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from flowtts_core.errors import TextError
from flowtts_core.text.books.chapters import parts_among
from flowtts_core.text.books.epub_package import find_cover, open_package
from flowtts_core.text.books.epub_zip import Package, TocEntry, UnpackLimits, Unreadable
from flowtts_core.text.books.headings import is_chapter, is_divider
from flowtts_core.text.books.matter import is_imprint, kind_below, kind_of_title, kind_of_types
from flowtts_core.text.books.xhtml import Page, Passage, parse_page
from flowtts_core.text.document import Document
from flowtts_core.text.sentences import Block, Draft, Pauses, collapse, finish_chapters


@dataclass(frozen=True)
class EpubOptions:
    """Whether front and back matter and notes are read too, each at its place in the book."""

    include_matter: bool = False
    include_notes: bool = False
    limits: UnpackLimits = field(default_factory=UnpackLimits)


@dataclass(frozen=True)
class _Mark:
    """The beginning of a chapter or of front or back matter: passage `index` of page `page`."""

    page: int
    index: int
    title: str
    parent: str = ""
    kind: str = ""  # "matter", "notes", or "" for what is read
    divider: bool = False
    listed: bool = True  # whether it is in the table of contents


@dataclass
class _Segment:
    """A mark and the passages from it to the next."""

    mark: _Mark
    passages: list[Passage] = field(default_factory=list)


def read_epub(data: bytes, name: str, options: EpubOptions | None = None, pauses: Pauses | None = None) -> Document:
    """Read a book held in memory.

    Args:
        data: the file's bytes.
        name: the file's name, for messages.

    Raises:
        TextError: for a damaged zip, a zip bomb, DRM, a missing package document, or a book without text. Parts that cannot
            be read are left out and named in `Document.warnings`.
    """
    options = options or EpubOptions()
    package = open_package(data, name, options.limits)
    pages = _pages(package)
    if not any(page.passages for page in pages.values()):
        raise TextError(
            f"{name}: no text in the book ({len(package.spine)} pages in its reading order)"
            + "".join(f"; {warning}" for warning in package.warnings[:3]),
            "a book of scanned pictures needs character recognition first; a damaged one needs a new copy",
        )
    _find_notes(package, pages)
    segments = _segments(package, pages)
    if not any(s.passages and not s.mark.kind and s.mark.listed for s in segments):
        segments = _segments_by_headings(pages)
    drafts, left_out = _drafts(segments, options)
    chapters, warnings = finish_chapters(drafts, pauses)
    if left_out:
        package.warnings.append(f"front and back matter left out: {', '.join(left_out)}")
    if not chapters:
        raise TextError(
            f"{name}: nothing is left to read without front and back matter ({', '.join(left_out) or 'no text'})",
            "read it with include_matter=True",
        )
    cover, media_type = find_cover(package)
    meta = package.metadata
    return Document(
        title=(meta.get("title") or [_stem(name)])[0],
        chapters=chapters,
        author=", ".join(dict.fromkeys(meta.get("creator", []))),
        language=(meta.get("language") or ["en"])[0],
        identifier=(meta.get("identifier") or [""])[0],
        cover=cover,
        cover_media_type=media_type,
        warnings=tuple(dict.fromkeys([*package.warnings, *warnings])),
    )


def _stem(name: str) -> str:
    return name.replace("\\", "/").rsplit("/", 1)[-1].rsplit(".", 1)[0]


def _pages(package: Package) -> dict[str, Page]:
    """Return path -> page in the order of the spine. Unreadable pages become warnings."""
    pages: dict[str, Page] = {}
    for item in package.spine:
        if item.path in pages:
            continue
        try:
            if item.media_type.startswith("image/"):
                continue
            page = parse_page(package.read(item.path))
        except (Unreadable, ValueError) as error:
            package.warnings.append(f"spine item left out: {item.path}: {str(error).removeprefix(item.path).strip()}")
            continue
        if page.warning:
            package.warnings.append(f"{item.path}: {page.warning}")
        pages[item.path] = page
    return pages


def _find_notes(package: Package, pages: dict[str, Page]) -> None:
    """Give the type "note" to every paragraph that a note mark in the text points to (EPUB 2 has no epub:type).

    A note comes after its mark: a link back from the note, or from an index, makes no note of a paragraph of the story.
    """
    order = {path: number for number, path in enumerate(pages)}
    listed = {(entry.path, entry.fragment) for entry in package.toc}
    marks: dict[tuple[str, str], tuple[int, int]] = {}
    for path, page in pages.items():
        for href, index in page.note_hrefs.items():
            marks.setdefault(package.locate(href, path), (order[path], index))

    def is_note(path: str, index: int, passage: Passage) -> bool:
        places = [(path, i) for i in passage.ids if (path, i) not in listed]
        return not passage.block.level and any(p in marks and marks[p] < (order[path], index) for p in places)

    for path, page in pages.items():
        page.passages = [
            replace(p, types=p.types | {"note"}) if is_note(path, index, p) else p
            for index, p in enumerate(page.passages)
        ]


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


def _marks(package: Package, pages: dict[str, Page]) -> list[_Mark]:
    order = {path: number for number, path in enumerate(pages)}
    found: dict[tuple[int, int], _Mark] = {}
    for entry, inherited in _entries(package.toc):
        parent = entry.parents[-1] if entry.parents else ""
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
        mark = _Mark(*place, entry.title, parent, kind, entry.has_children or is_divider(entry.title))
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
                found[place] = _Mark(*place, sorted(landmark.types)[0], kind=kind, listed=False)
            elif not is_chapter(known.title):
                found[place] = replace(known, kind=kind)
    return [found[place] for place in sorted(found)]


def _segments(package: Package, pages: dict[str, Page]) -> list[_Segment]:
    """Cut the book at its marks. A page without one continues the chapter before it."""
    marks = _marks(package, pages)
    segments: list[_Segment] = []
    started = False  # a chapter that is read has begun
    for number, page in enumerate(pages.values()):
        here = [mark for mark in marks if mark.page == number]
        if not here or here[0].index > 0:
            goes_on = bool(segments) and started and segments[-1].mark.listed
            if not goes_on and page.passages:
                lead = page.passages[: here[0].index] if here else page.passages
                segments.append(_unlisted(number, page, lead, started))
            elif goes_on:
                segments[-1].passages += page.passages[: here[0].index] if here else page.passages
        stops = [*(mark.index for mark in here[1:]), len(page.passages)] if here else []
        for mark, stop in zip(here, stops, strict=True):
            segments.append(_Segment(mark, page.passages[mark.index : stop]))
            started = started or (mark.listed and not mark.kind)
    return segments


def _unlisted(number: int, page: Page, passages: list[Passage], started: bool) -> _Segment:
    """Return the segment of a page that is not in the table of contents and continues no chapter."""
    heading = next((collapse(p.block.text) for p in passages[:3] if p.block.level), "")
    title = heading or page.title or f"Page {number + 1}"
    kind = kind_of_title(heading) or kind_of_title(page.title)
    if not kind and not started and is_imprint(heading, [collapse(p.block.text) for p in passages]):
        kind = "matter"
    return _Segment(_Mark(number, 0, title, kind=kind, listed=False), passages)


def _segments_by_headings(pages: dict[str, Page]) -> list[_Segment]:
    """Cut a book without a table of contents: at headings of the highest level that occurs twice, else at each page."""
    levels = [p.block.level for page in pages.values() for p in page.passages if p.block.level]
    top = next((level for level in range(1, 7) if levels.count(level) > 1), 0)
    segments: list[_Segment] = []
    for number, page in enumerate(pages.values()):
        fresh = top == 0 or not segments
        for index, passage in enumerate(page.passages):
            heading = 0 < passage.block.level <= top
            follows = bool(segments) and bool(segments[-1].passages) and segments[-1].passages[-1].block.level
            if fresh or (heading and not (follows and passage.block.level > follows)):
                title = collapse(passage.block.text) if passage.block.level else page.title or f"Part {number + 1}"
                segments.append(_Segment(_Mark(number, index, title, kind=kind_of_title(title), listed=False)))
                fresh = False
            elif heading and all(p.block.level for p in segments[-1].passages):
                segments[-1].mark = replace(
                    segments[-1].mark, title=collapse(passage.block.text)
                )  # below the book's title
            segments[-1].passages.append(passage)
    return segments


def _drafts(segments: list[_Segment], options: EpubOptions) -> tuple[list[Draft], list[str]]:
    """Return the draft chapters, and the titles of what is left out."""
    drafts: list[Draft] = []
    left_out: list[str] = []
    wanted = {"matter": options.include_matter, "notes": options.include_notes, "": True}
    for segment in segments:
        mark = segment.mark
        blocks = [p.block for p in segment.passages if wanted[mark.kind] and wanted[kind_of_types(p.types)]]
        if segment.passages and not blocks:
            left_out.append(mark.title)
        elif wanted[mark.kind]:
            drafts.append(Draft(mark.title, _headed(mark, blocks), mark.parent, mark.divider))
    return drafts, left_out


def _headed(mark: _Mark, blocks: list[Block]) -> list[Block]:
    """Return the blocks, with the chapter's title added where the page shows it as a picture or not at all."""
    if not blocks or not mark.listed or any(block.level for block in blocks[:3]):
        return blocks
    if collapse(blocks[0].text).casefold() == collapse(mark.title).casefold():
        return [replace(blocks[0], level=2), *blocks[1:]]
    return [Block(mark.title, level=2), *blocks]
