"""Read PDF with text in it, by pypdf (an optional extra): lines become paragraphs, bookmarks or headings the chapters."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Any

from flowtts_core.errors import DependencyError, TextError
from flowtts_core.text.books.chapters import Paragraph, blocks_of, cut_chapters
from flowtts_core.text.books.headings import is_divider, parse_heading
from flowtts_core.text.books.matter import MATTER, kind_of_title
from flowtts_core.text.books.plain import title_from_name
from flowtts_core.text.document import Document, LeftOut
from flowtts_core.text.sentences import Draft, Pauses, finish_chapters

INSTALL = "pip install 'flowtts[pdf]'"
_EDGE = 2  # lines at the top and foot of a page that may be running heads
_STOP = re.compile(r"[.!?…:][\"'’”»)\]]*$")
_PAGE_NUMBER = re.compile(r"\W*(?:page )?\d{1,4}\W*", re.IGNORECASE)
_BULLET = re.compile(r"[•‣▪◦–*-] |\(?\d{1,3}[.)] ")


@dataclass(frozen=True)
class _Bookmark:
    """A chapter's beginning: page `page` (from 0), at the line that is its title where there is one."""

    title: str
    page: int
    parent: str = ""


@dataclass
class _Pages:
    """The lines of each page without its running heads, and what was left out."""

    lines: list[list[str]]
    left_out: list[LeftOut] = field(default_factory=list)


def read_pdf(data: bytes, name: str, include_matter: bool = False, pauses: Pauses | None = None) -> Document:
    """Read a PDF.

    Raises:
        TextError: when it is damaged, has a password, or holds pictures of pages instead of text.
        DependencyError: without pypdf.
    """
    reader = _opened(data, name)
    pages = _without_running_heads([_lines_of(page, name, number) for number, page in enumerate(reader.pages, 1)])
    empty = sum(not lines for lines in pages.lines)
    if empty == len(pages.lines):
        raise TextError(
            f"{name}: a PDF without text: its {empty} pages are pictures",
            "recognise the characters first, for instance: ocrmypdf FILE.pdf OUT.pdf",
        )
    blank = [f"{empty} of {len(pages.lines)} pages hold no text: pictures, or blank"] if empty else []
    said = reader.metadata or {}
    title = str(said.get("/Title") or "").strip() or title_from_name(name)
    bookmarks = _bookmarks(reader)
    if len(bookmarks) > 1:
        drafts, left_out = _by_bookmarks(pages.lines, bookmarks, include_matter)
    else:
        drafts, left_out = cut_chapters(_paragraphs(_joined(pages.lines)), title, include_matter)
    chapters, without_text = finish_chapters(drafts, pauses)
    if not chapters:
        raise TextError(f"{name}: nothing is left to read without front and back matter", "add --include-matter")
    return Document(
        title=title,
        chapters=chapters,
        author=str(said.get("/Author") or "").strip(),
        language=str(reader.trailer["/Root"].get("/Lang") or ""),
        warnings=(*blank, *without_text),
        left_out=(*pages.left_out, *left_out),
    )


def _opened(data: bytes, name: str) -> Any:
    try:
        from pypdf import PdfReader
    except ImportError as error:
        raise DependencyError(f"{name}: a PDF, and reading it needs pypdf", INSTALL) from error
    try:
        reader = PdfReader(io.BytesIO(data))
        locked = reader.is_encrypted and not reader.decrypt("")
        count = 0 if locked else len(reader.pages)
    except Exception as error:  # whatever a damaged file makes it raise
        raise TextError(
            f"{name}: damaged PDF ({type(error).__name__}: {error})", "copy or download it again"
        ) from error
    if locked:
        raise TextError(f"{name}: the PDF has a password", "save it without one, if you may: qpdf --decrypt FILE OUT")
    if not count:
        raise TextError(f"{name}: a PDF without pages", "copy or download it again")
    return reader


def _lines_of(page: Any, name: str, number: int) -> list[str]:
    try:
        text = page.extract_text()
    except Exception as error:  # whatever a damaged page makes it raise
        raise TextError(
            f"{name}: page {number} cannot be read ({type(error).__name__}: {error})", "save or print it as a new PDF"
        ) from error
    return [" ".join(line.split()) for line in text.split("\n") if any(c.isalnum() for c in line)]


def _without_running_heads(pages: list[list[str]]) -> _Pages:
    """Drop page numbers, and lines that stand at the top or foot of many pages with other numbers in them at most."""
    edges = [_edges(lines) for lines in pages]
    counts = Counter(kind for edge in edges for kind in {_kind(lines[i]) for lines, i in edge})
    often = {kind for kind, count in counts.items() if count >= max(3, 0.2 * len(pages))}
    found = _Pages([])
    for number, (lines, edge) in enumerate(zip(pages, edges, strict=True), 1):
        dropped = {i for _, i in edge if _kind(lines[i]) in often or _PAGE_NUMBER.fullmatch(lines[i])}
        found.left_out += [
            LeftOut("running heads and page numbers", f"page {number}", lines[i]) for i in sorted(dropped)
        ]
        found.lines.append([line for i, line in enumerate(lines) if i not in dropped])
    return found


def _edges(lines: list[str]) -> list[tuple[list[str], int]]:
    places = {*range(min(_EDGE, len(lines))), *range(max(0, len(lines) - _EDGE), len(lines))}
    return [(lines, i) for i in sorted(places)]


def _kind(line: str) -> str:
    return re.sub(r"\d+", "#", line)


def _joined(pages: Sequence[Sequence[str]]) -> list[str]:
    return [line for lines in pages for line in lines]


def _paragraphs(lines: Sequence[str]) -> list[Paragraph]:
    """Join lines to paragraphs. One ends at a short line with a stop, and around headings and items of lists.

    A word that was cut at the end of a line is joined again, with its hyphen where it has one elsewhere.
    """
    if not lines:
        return []
    full = quantiles(map(len, lines), n=4)[2] if len(lines) > 1 else len(lines[0])
    words = Counter(re.findall(r"\w+(?:-\w+)*", " ".join(lines).lower()))
    out: list[Paragraph] = []
    text = ""
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        text = _continued(text, line, words)
        short, begins = len(line) < 0.85 * full, following[:1].isupper() or not following[:1].isalpha()
        heading = parse_heading(line) is not None and begins
        titled = len(line) < 0.6 * full and begins and not re.search(r"[,;-]$", line)
        if (short and _STOP.search(line)) or heading or titled or _BULLET.match(following) or parse_heading(following):
            out.append(Paragraph((text,)))
            text = ""
    return [*out, Paragraph((text,))] if text else out


def _continued(text: str, line: str, words: Counter[str]) -> str:
    cut = re.search(r"(\w+)-$", text)
    if cut is None or not line[:1].islower():
        return f"{text} {line}" if text else line
    rest = re.match(r"\w+", line)
    whole = f"{cut[1]}-{rest[0] if rest else ''}".lower()
    return text + line if words[whole] > words[whole.replace("-", "")] else text[:-1] + line


def _bookmarks(reader: Any) -> list[_Bookmark]:
    """Return the chapters among the bookmarks: those at the top, or below parts and below an only one at the top."""
    try:
        tops = list(_walked(reader, reader.outline))
    except Exception:  # bookmarks that cannot be read are none
        return []
    if len(tops) == 1:
        tops = [(mark, []) for mark in tops[0][1]]
    found = []
    for mark, inner in tops:
        found += [_Bookmark(m.title, m.page, mark.title) for m in inner] if inner and is_divider(mark.title) else [mark]
    return found


def _walked(reader: Any, outline: Sequence[Any]) -> Iterator[tuple[_Bookmark, list[_Bookmark]]]:
    """Yield each bookmark of a level with those right below it."""
    for entry, following in zip(outline, [*outline[1:], None], strict=True):
        if not isinstance(entry, list):
            page = reader.get_destination_page_number(entry)
            inner = [mark for mark, _ in _walked(reader, following)] if isinstance(following, list) else []
            if page is not None and page >= 0:
                yield _Bookmark(" ".join(str(entry.title).split()), page), inner


def _by_bookmarks(
    pages: list[list[str]], bookmarks: list[_Bookmark], include_matter: bool
) -> tuple[list[Draft], list[LeftOut]]:
    places = sorted((_place(pages, mark), number) for number, mark in enumerate(bookmarks))
    ends = [place for place, _ in places[1:]] + [(len(pages), 0)]
    drafts: list[Draft] = []
    left_out: list[LeftOut] = []
    front = _between(pages, (0, 0), places[0][0])
    if front and include_matter:
        drafts.append(Draft("Front matter", blocks_of(_paragraphs(front))))
    elif front:
        left_out.append(LeftOut("text before the first chapter", "front", " ".join(front)))
    for (start, number), end in zip(places, ends, strict=True):
        mark, lines = bookmarks[number], _between(pages, start, end)
        if kind_of_title(mark.title) and not include_matter:
            left_out.append(LeftOut(MATTER, mark.title, " ".join(lines)))
            continue
        taken = _title_lines(lines, mark.title)
        heading = Paragraph((mark.title,), 2)
        drafts.append(Draft(mark.title, blocks_of([heading, *_paragraphs(lines[taken:])]), mark.parent))
    return drafts, left_out


def _place(pages: list[list[str]], mark: _Bookmark) -> tuple[int, int]:
    """Return (page, line) where a chapter begins: at the line with its title, else at the start of its page."""
    lines = pages[mark.page]
    return mark.page, next((i for i in range(len(lines)) if _title_lines(lines[i:], mark.title)), 0)


def _title_lines(lines: Sequence[str], title: str) -> int:
    """Return how many lines, from the first, together are the title; 0 where they are not."""
    wanted, text = _letters(title), ""
    for count, line in enumerate(lines[:4], 1):
        text += _letters(line)
        if wanted and (text == wanted or (text.endswith(wanted) and len(text) <= len(wanted) + 12)):
            return count
        if not (wanted.startswith(text) or len(text) <= 12):
            return 0
    return 0


def _letters(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())


def _between(pages: list[list[str]], start: tuple[int, int], end: tuple[int, int]) -> list[str]:
    first, last = start[0], min(end[0], len(pages) - 1)
    lines = []
    for number in range(first, last + 1):
        stop = end[1] if number == end[0] else len(pages[number])
        lines += pages[number][start[1] if number == first else 0 : stop]
    return lines
