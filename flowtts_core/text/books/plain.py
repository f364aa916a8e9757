"""Read plain text into a `Document`: paragraphs between blank lines, chapters at headings if there are any."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from flowtts_core.errors import TextError
from flowtts_core.text.books.chapters import Paragraph, blocks_of, cut_chapters, paragraphs_of, parts_among
from flowtts_core.text.books.decode import decode_text
from flowtts_core.text.books.note_marks import without_typed_marks
from flowtts_core.text.document import Document, LeftOut
from flowtts_core.text.sentences import Draft, Pauses, finish_chapters

_HASHES = re.compile(r"(#{1,6})\s+(\S.*?)\s*#*\s*")
_ENTITY = re.compile(
    r"&(?:amp|lt|gt|quot|apos|nbsp|[mn]dash|hellip|[lr][sd]quo|[A-Za-z](?:acute|grave|circ|uml|tilde|cedil|ring)|(?:ae|oe|sz)lig"
    r"|copy|deg|pound|euro|frac(?:12|14|34)|times|middot|sect|shy|#\d{2,6}|#x[\da-fA-F]{2,5});",
    re.IGNORECASE,
)
_UNDERLINE = re.compile(r"(=|-)\1{2,}\s*")


def title_from_name(name: str) -> str:
    """Return a title from a file's name: "my first book" for my-first_book.txt."""
    stem = name.replace("\\", "/").rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return " ".join(re.sub(r"[_-]+", " ", stem).split()) or "Untitled"


def read_plain(data: bytes, name: str, include_matter: bool = True, pauses: Pauses | None = None) -> Document:
    """Read a plain text: headings by "#" or underlining, else lines such as "Chapter 3", else one chapter.

    Args:
        include_matter: keep what comes before the first chapter.

    Raises:
        TextError: when it is not text or is empty.
    """
    text, warnings = decode_text(data, name)
    title = title_from_name(name)
    text, entities = _ENTITY.subn(lambda match: html.unescape(match[0]), text)
    if entities:
        warnings = [*warnings, f"{entities} HTML entities (&amp; and the like) are read as what they stand for"]
    paragraphs = [part for paragraph in paragraphs_of(text) for part in _marked(paragraph)]
    left_out: list[LeftOut]
    counts = Counter(p.level for p in paragraphs if p.level)
    if counts:
        (drafts, title), left_out = _by_markup(paragraphs, counts, title), []
    else:
        drafts, left_out = cut_chapters(paragraphs, title, include_matter)
    left_out += _take_note_marks(drafts)
    chapters, empty = finish_chapters(drafts, pauses)
    if not chapters:
        raise TextError(f"{name}: no text to read in it", "give a file with words in it")
    return Document(title=title, chapters=chapters, warnings=(*warnings, *empty), left_out=tuple(left_out))


def _take_note_marks(drafts: list[Draft]) -> list[LeftOut]:
    """Take the marks of notes out of the drafts ("word[1]"), and return them."""
    taken: list[LeftOut] = []
    for draft in drafts:
        for number, block in enumerate(draft.blocks):
            text, marks = without_typed_marks(block.text)
            draft.blocks[number] = replace(block, text=text)
            taken += [LeftOut("note marks", draft.title, mark) for mark in marks]
    return taken


def _marked(paragraph: Paragraph) -> list[Paragraph]:
    """Split a paragraph at the heading lines in it ("# Title", or a line underlined with === or ---)."""
    out: list[Paragraph] = []
    rest: list[str] = []

    def close() -> None:
        if rest:
            out.append(Paragraph(tuple(rest)))
            rest.clear()

    for line in paragraph.lines:
        hashes = _HASHES.fullmatch(line)
        if hashes:
            close()
            out.append(Paragraph((hashes[2],), len(hashes[1])))
        elif _UNDERLINE.fullmatch(line) and len(rest) == 1:
            heading = rest.pop()
            out.append(Paragraph((heading,), 1 if line[0] == "=" else 2))
        else:
            rest.append(line)
    close()
    return out


def _by_markup(paragraphs: list[Paragraph], counts: Counter[int], title: str) -> tuple[list[Draft], str]:
    """Return (chapters, title). Chapters are at the highest level that occurs twice; one above is the title.

    Where the headings of that level are parts, the chapters are those below them.
    """
    levels = sorted(counts)
    top = _top(counts)
    if top != levels[0] and paragraphs[0].level == levels[0]:
        title = paragraphs[0].text
    drafts: list[Draft] = []
    current: list[Paragraph] = []
    name, parent = title, ""
    starts = chapter_starts(paragraphs)
    for index, paragraph in enumerate(paragraphs):
        if index in starts:
            if any(not p.level for p in current):
                drafts.append(Draft(name, blocks_of(current), parent))
                current = []
            # A heading straight after another (the book's title, a part) is read at the head of the same chapter.
            current = [*current, paragraph]
            name, parent = paragraph.text, starts[index]
        else:
            current.append(paragraph)
    drafts.append(Draft(name, blocks_of(current), parent))
    return drafts, title


def _top(counts: Counter[int]) -> int:
    """Return the highest level of headings that occurs twice, else the highest."""
    levels = sorted(counts)
    return next((level for level in levels if counts[level] > 1), levels[0])


def chapter_starts(paragraphs: Sequence[Paragraph]) -> dict[int, str]:
    """Return where each chapter or part begins by the levels of headings, and the title of its part ("" for none)."""
    counts = Counter(p.level for p in paragraphs if p.level)
    if not counts:
        return {}
    levels, top = sorted(counts), _top(counts)
    titles = Counter(p.text for p in paragraphs if p.level)
    starts = {index: "" for index, p in enumerate(paragraphs) if 0 < p.level <= top}
    for level, deeper in pairwise(n for n in levels if n >= top):
        below: dict[str, list[str]] = {}
        nested: dict[int, tuple[str, str]] = {}
        part = around = ""
        for index, paragraph in enumerate(paragraphs):
            if 0 < paragraph.level <= level:
                part = paragraph.text if paragraph.level == level and index in starts else ""
                around = starts.get(index, "")
                if part:
                    below.setdefault(part, [])
            elif paragraph.level == deeper and part:
                below[part].append(paragraph.text)
                nested[index] = part, around
        parts = parts_among(below)
        starts |= {
            index: f"{around}: {part}" if around and titles[part] > 1 else part
            for index, (part, around) in nested.items()
            if part in parts
        }
    return starts
