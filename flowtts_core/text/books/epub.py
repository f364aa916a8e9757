"""Read EPUB 3 and 2 into a `Document`: the chapters of the table of contents in the order of the spine."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from flowtts_core.errors import TextError
from flowtts_core.text.books.epub_contents import Mark, Segment, segments_by_contents
from flowtts_core.text.books.epub_headings import name_by_headings, segments_by_headings
from flowtts_core.text.books.epub_package import find_cover, open_package
from flowtts_core.text.books.epub_zip import Package, UnpackLimits, Unreadable
from flowtts_core.text.books.headings import joined_title
from flowtts_core.text.books.matter import MATTER, NOTES, kind_of_types, with_inline_matter
from flowtts_core.text.books.page import Page, Passage
from flowtts_core.text.books.xhtml import parse_page
from flowtts_core.text.document import Document, LeftOut
from flowtts_core.text.sentences import Block, Draft, Pauses, collapse, finish_chapters


@dataclass(frozen=True)
class EpubOptions:
    """Whether front and back matter and notes are read too, each at its place in the book."""

    include_matter: bool = False
    include_notes: bool = False
    notes_last: bool = False  # at the end of their chapter instead
    limits: UnpackLimits = field(default_factory=UnpackLimits)


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
    return document_of(package, _pages(package), options, pauses)


def document_of(
    package: Package, pages: dict[str, Page], options: EpubOptions, pauses: Pauses | None = None
) -> Document:
    """Return the document of a book's pages, by their paths in reading order.

    Raises:
        TextError: when there is no text in them, or none is left without front and back matter.
    """
    name = package.name
    if not any(page.passages for page in pages.values()):
        raise TextError(
            f"{name}: no text in the book ({len(package.spine)} pages in its reading order)"
            + "".join(f"; {warning}" for warning in package.warnings[:3]),
            "a book of scanned pictures needs character recognition first; a damaged one needs a new copy",
        )
    _find_notes(package, pages)
    for page in pages.values():
        page.passages = with_inline_matter(page.passages)
    segments = segments_by_contents(package, pages)
    if not any(s.passages and not s.mark.kind and s.mark.listed for s in segments):
        segments = segments_by_headings(pages)
    name_by_headings(segments, (package.metadata.get("title") or [""])[0])
    drafts, left_out = _drafts(segments, options)
    left_out += [LeftOut(reason, path, text) for path, page in pages.items() for reason, text in page.left_out]
    chapters, warnings = finish_chapters(drafts, pauses, notes_last=options.notes_last)
    if not chapters:
        places = ", ".join(dict.fromkeys(each.place for each in left_out))
        raise TextError(
            f"{name}: nothing is left to read without front and back matter ({places or 'no text'})",
            "read it with include_matter=True",
        )
    cover, media_type = find_cover(package)
    meta = package.metadata
    return Document(
        title=(meta.get("title") or [_stem(name)])[0],
        chapters=chapters,
        author=", ".join(dict.fromkeys(meta.get("creator", []))),
        language=(meta.get("language") or [""])[0],
        identifier=(meta.get("identifier") or [""])[0],
        cover=cover,
        cover_media_type=media_type,
        warnings=tuple(dict.fromkeys([*package.warnings, *warnings])),
        left_out=(*left_out, *_outside(package, pages)),
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
            page = _page(package, item.path)
        except (Unreadable, ValueError) as error:
            package.warnings.append(f"spine item left out: {item.path}: {str(error).removeprefix(item.path).strip()}")
            continue
        if page.warning:
            package.warnings.append(f"{item.path}: {page.warning}")
        pages[item.path] = page
    return pages


def _page(package: Package, path: str) -> Page:
    language = (package.metadata.get("language") or [""])[0]

    def sheet(href: str) -> str:
        try:
            return package.read(package.locate(href, path)[0]).decode("utf-8", "replace")
        except Unreadable:  # nothing that is read depends on it
            return ""

    return parse_page(package.read(path), language, sheet)


def _outside(package: Package, pages: dict[str, Page]) -> list[LeftOut]:
    """Return the texts of pages that the reading order does not hold, or only aside of it."""
    found: list[LeftOut] = []
    for item in package.items.values():
        if item.path in pages or item.media_type != "application/xhtml+xml" or "nav" in item.properties:
            continue
        try:
            page = _page(package, item.path)
        except (Unreadable, ValueError):  # said of pages in the reading order; others may as well be absent
            continue
        text = collapse(" ".join(passage.block.text for passage in page.passages))
        pieces = [text, *(text for p in page.passages for _, text in p.left_out), *(text for _, text in page.left_out)]
        if any(pieces):
            found.append(LeftOut("pages outside the reading order", item.path, collapse(" ".join(pieces))))
    return found


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


def _drafts(segments: list[Segment], options: EpubOptions) -> tuple[list[Draft], list[LeftOut]]:
    """Return the draft chapters, and what is left out of them and between them."""
    drafts: list[Draft] = []
    left_out: list[LeftOut] = []
    wanted = {"matter": options.include_matter, "notes": options.include_notes, "": True}
    reasons = {"matter": MATTER, "notes": NOTES}
    for segment in segments:
        mark, blocks = segment.mark, []
        for passage in segment.passages:
            kind = next((k for k in (mark.kind, kind_of_types(passage.types)) if not wanted[k]), "")
            left_out += [LeftOut(reason, mark.title, text) for reason, text in passage.left_out]
            if not kind:
                note = "notes" in (mark.kind, kind_of_types(passage.types))
                blocks.append(replace(passage.block, note=note))
            elif left_out and (left_out[-1].reason, left_out[-1].place) == (reasons[kind], mark.title):
                left_out[-1] = replace(left_out[-1], text=f"{left_out[-1].text} {collapse(passage.block.text)}")
            else:
                left_out.append(LeftOut(reasons[kind], mark.title, collapse(passage.block.text)))
        if wanted[mark.kind] and (blocks or not segment.passages):
            drafts.append(Draft(mark.title, _headed(mark, blocks), mark.parent, mark.divider))
    return drafts, left_out


def _headed(mark: Mark, blocks: list[Block]) -> list[Block]:
    """Return the blocks, with the chapter's title added where the page shows it as a picture or not at all."""
    if not blocks or not mark.listed or any(block.level for block in blocks[:3]):
        return blocks
    if collapse(blocks[0].text).casefold() == collapse(mark.title).casefold():
        return [replace(blocks[0], level=2), *blocks[1:]]
    if joined_title([block.text for block in blocks[:2]]).casefold() == mark.title.casefold():
        return [replace(blocks[0], level=2), replace(blocks[1], level=3), *blocks[2:]]
    return [Block(mark.title, level=2), *blocks]
