"""Cut plain text into chapters: join hard-wrapped lines to paragraphs, find headings, skip the table of contents."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from flowtts_core.text.books.headings import (
    Heading,
    is_chapter,
    is_divider,
    joined_title,
    parse_heading,
    value_of,
)
from flowtts_core.text.books.matter import MATTER
from flowtts_core.text.document import LeftOut
from flowtts_core.text.sentences import Block, Draft, collapse

_SMALL_PROSE = 1000  # fewer characters of prose before the first chapter are left out
_CHAPTER_RANK = 3
_SECTION_LEVEL = 3  # level of the heading of a chapter's section
_CONTENTS = re.compile(r"(?:table of )?contents[.:]?", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?][\"'’”)\]_]*$")


@dataclass(frozen=True)
class Paragraph:
    """Lines between blank lines. `level` is that of a marked-up heading, else 0."""

    lines: tuple[str, ...]
    level: int = 0

    @property
    def text(self) -> str:
        """The lines joined to one; verse, where every line is indented, keeps its line feeds."""
        if len(self.lines) > 1 and all(line[:2].isspace() for line in self.lines):
            return "\n".join(" ".join(line.split()) for line in self.lines)
        parts: list[str] = []
        for line in self.lines:
            # "rabbit-/hole" and "I--/you" are cut at the dash and joined without a space.
            if parts and not re.search(r"\w-$|--$|—$", parts[-1][-2:]):
                parts.append(" ")
            parts.append(" ".join(line.split()))
        return "".join(parts)


def paragraphs_of(text: str) -> list[Paragraph]:
    """Return the paragraphs of a text. In a text without blank lines each line is one, unless the lines are wrapped."""
    lines = text.split("\n")
    filled = [line for line in lines if line.strip()]
    if len(filled) > 1 and len(filled) == len(text.strip().split("\n")) and _are_paragraphs(filled):
        return [Paragraph((line,)) for line in filled]
    out: list[Paragraph] = []
    current: list[str] = []
    for line in [*lines, ""]:
        if line.strip():
            current.append(line)
        elif current:
            out.append(Paragraph(tuple(current)))
            current = []
    return out


def _are_paragraphs(lines: Sequence[str]) -> bool:
    """Return whether lines are paragraphs: they are long, or nearly all that are no headings end as sentences do."""
    if sum(map(len, lines)) > 120 * len(lines):
        return True
    prose = [line for line in lines if parse_heading(line, bare=True) is None]
    return len(prose) > 2 and sum(bool(_SENTENCE_END.search(line.rstrip())) for line in prose) >= 0.9 * len(prose)


def blocks_of(paragraphs: list[Paragraph]) -> list[Block]:
    """Return paragraphs as blocks. One of only stars or rules becomes a break after the block before it."""
    blocks: list[Block] = []
    for paragraph in paragraphs:
        text = paragraph.text.replace("--", "—")
        if any(character.isalnum() for character in text):
            blocks.append(Block(text, paragraph.level))
        elif blocks:
            blocks[-1] = replace(blocks[-1], scene_break=True)
    return blocks


def parts_among(below: Mapping[str, Sequence[str]]) -> set[str]:
    """Return which headings of one level are parts, which hold chapters, rather than chapters with sections.

    Args:
        below: the headings, and the titles right below each.

    Returns:
        Those named as parts ("Part One"), those with a "Chapter 1" below them, and numbered ones with numbers below them
        ("I. The Window": 1, 2, 3). The last only if many of the level have such: one tale of twelve with I, II, III is no part.
    """
    numbered = {title for title in below if is_chapter(title) and not parse_heading(title)}
    holders = {title for title in numbered if any(is_chapter(each) for each in below[title])}
    if 2 * len(holders) < len(numbered):
        holders = set()
    for title, inner in below.items():
        named = any(is_chapter(each) and parse_heading(each) for each in inner)
        if (inner and is_divider(title)) or (named and (title in numbered or not is_chapter(title))):
            holders.add(title)
    return holders


@dataclass(frozen=True)
class _Found:
    """A heading in paragraphs [start, end)."""

    start: int
    end: int
    heading: Heading
    lines: tuple[str, ...]

    @property
    def titled(self) -> bool:
        """Whether the heading is more than a number."""
        return bool(self.heading.title) or len(self.lines) > 1


def cut_chapters(paragraphs: list[Paragraph], title: str, include_matter: bool) -> tuple[list[Draft], list[LeftOut]]:
    """Return (draft chapters, what is left out before them). Without headings the whole is one chapter named `title`."""
    headings, sections = _headings(paragraphs)
    paragraphs = [replace(p, level=_SECTION_LEVEL) if n in sections else p for n, p in enumerate(paragraphs)]
    found = _without_contents(headings, paragraphs)
    if not found:
        return [Draft(title, blocks_of(paragraphs))], []
    drafts: list[Draft] = []
    left_out: list[LeftOut] = []
    front, contents = _split_contents(paragraphs[: found[0].start])
    if front and (include_matter or _is_prose(front)):
        drafts.append(Draft(title, blocks_of(front)))
    elif front:
        left_out = [LeftOut(MATTER, "before the first chapter", collapse(" ".join(p.text for p in front)))]
    if contents:
        left_out.append(LeftOut(MATTER, "contents", collapse(" ".join(p.text for p in contents))))
    dividers = Counter(joined_title(f.lines) for f in found if f.heading.rank < _CHAPTER_RANK)
    above: dict[int, str] = {}  # the dividers that contain what comes, by rank
    for here, after in zip(found, [*found[1:], None], strict=True):
        name = joined_title(here.lines)
        divider = here.heading.rank < _CHAPTER_RANK
        heading = Block("\n".join(here.lines), level=1 if divider else 2)
        body = blocks_of(paragraphs[here.end : after.start if after else len(paragraphs)])
        drafts.append(Draft(name, [heading, *body], "" if divider else _parent(above, dividers), divider))
        if divider:
            above = {rank: title for rank, title in above.items() if rank < here.heading.rank} | {
                here.heading.rank: name
            }
    return drafts, left_out


def _split_contents(front: list[Paragraph]) -> tuple[list[Paragraph], list[Paragraph]]:
    """Return what stands before the first chapter without its table of contents, and this."""
    start = next((n for n, p in enumerate(front) if _CONTENTS.fullmatch(p.lines[0].strip())), len(front))
    end = start
    while end < len(front) and not any(_SENTENCE_END.search(line.rstrip()) for line in front[end].lines if end > start):
        end += 1
    return front[:start] + front[end:], front[start:end]


def _parent(above: Mapping[int, str], dividers: Counter[str]) -> str:
    """Return the title of the innermost divider, with those around it where it occurs more than once."""
    titles = [above[rank] for rank in sorted(above)]
    return ": ".join(titles) if titles and dividers[titles[-1]] > 1 else "".join(titles[-1:])


def headings_among(paragraphs: list[Paragraph]) -> list[tuple[int, int, str]]:
    """Return (first paragraph, paragraph after the last, title) of each heading of a chapter or a part, but for a contents."""
    found = _without_contents(_headings(paragraphs)[0], paragraphs)
    return [(each.start, each.end, joined_title(each.lines)) for each in found]


def _is_prose(paragraphs: list[Paragraph]) -> bool:
    prose = [p.text for p in paragraphs if len(p.text) >= 200 and _SENTENCE_END.search(p.text)]
    return sum(map(len, prose)) > _SMALL_PROSE


def _headings(paragraphs: list[Paragraph]) -> tuple[list[_Found], set[int]]:
    """Return (headings of chapters and parts, numbers of the paragraphs that head a chapter's sections)."""
    named, numbered = [], []
    for index, paragraph in enumerate(paragraphs):
        if len(paragraph.lines) > 3:
            continue
        found = _heading_at(paragraphs, index, bare=False)
        if found:
            named.append(found)
        elif len(paragraph.lines) == 1:
            found = _heading_at(paragraphs, index, bare=True)
            if found:
                numbered.append(found)
    # Numbers alone are chapters only where no line says "Chapter", and only as a sequence 1, 2, 3, ...
    if sum(f.heading.rank == _CHAPTER_RANK and bool(f.heading.number) for f in named) >= 2:
        return named, set()
    chapters, sections = _sequence(numbered), set[int]()
    titled = [found for found in numbered if found.titled]
    if len(titled) < len(numbered):
        within = _sections_within(titled, numbered, paragraphs)
        if within:
            chapters, sections = _sequence(titled), within
    return sorted(named + chapters, key=lambda f: f.start), sections


def _sequence(numbered: list[_Found]) -> list[_Found]:
    kept: list[_Found] = []
    last = 0
    for found in numbered:
        value = value_of(found.heading.number)
        if value == last + 1 or value == 1:
            kept.append(found)
            last = value
    return kept if sum(value_of(f.heading.number) > 1 for f in kept) >= 1 else []


def _sections_within(titled: list[_Found], numbered: list[_Found], paragraphs: list[Paragraph]) -> set[int]:
    """Return the bare numerals that count sections where titled numerals ("I. A SCANDAL IN BOHEMIA") are the chapters.

    It is empty where the bare ones are chapters: where they precede the first titled one or continue its numbers.
    """
    # A table of contents is a sequence of titled numerals too, and so are the items of a list.
    chapters = _sequence(_without_contents(_sequence(titled), paragraphs))
    if not chapters:
        return set()
    starts = {f.start for f in chapters}
    sections: set[int] = set()
    chapter = section = 0
    for found in numbered:
        value = value_of(found.heading.number)
        if found.start in starts:
            chapter, section = value, 0
        elif found.titled:
            continue
        elif chapter and value == section + 1:
            sections.add(found.start)
            section = value
        elif value == chapter + 1:  # before the first, or the next chapter, which has no title
            return set()
    return sections


def _heading_at(paragraphs: list[Paragraph], index: int, bare: bool) -> _Found | None:
    lines = tuple(" ".join(line.split()) for line in paragraphs[index].lines)
    heading = parse_heading(lines[0], bare)
    if heading is None or not all(_title_like(line) for line in lines[1:]):
        return None
    if len(lines) > 1 and parse_heading(lines[1], bare=True) is not None:
        return None  # lines of a table of contents
    follows = paragraphs[index + 1] if index + 1 < len(paragraphs) else None
    if heading.title or len(lines) > 1 or not heading.number or follows is None or index + 2 >= len(paragraphs):
        return _Found(index, index + 1, heading, lines)
    after = tuple(" ".join(line.split()) for line in follows.lines)
    titled = len(after) <= 2 and all(_title_like(line) for line in after) and parse_heading(after[0], bare=True) is None
    return _Found(index, index + 2, heading, lines + after) if titled else _Found(index, index + 1, heading, lines)


def _title_like(line: str) -> bool:
    """Return whether a short line is a title: most words capitalised, no full stop after small letters."""
    words = [word for word in re.findall(r"[^\W\d_][\w’'-]*", line) if len(word) > 3] or re.findall(r"\w+", line)
    if not words or len(line) > 70 or line.endswith((",", ";", ":")):
        return False
    capital = sum(word[0].isupper() for word in words)
    quoted = line[0] in "\"'‘“" and line[-1] in "\"'’”.!?"
    return (
        capital * 2 > len(words) and not quoted and not (line.endswith(".") and len(words) > 4 and not line.isupper())
    )


def _without_contents(found: list[_Found], paragraphs: list[Paragraph]) -> list[_Found]:
    """Return the headings without those of the table of contents, which come first with hardly any text between."""
    ends = [*(f.start for f in found[1:]), len(paragraphs)][: len(found)]
    for number, (here, end) in enumerate(zip(found, ends, strict=True)):
        size = sum(len(p.text) for p in paragraphs[here.end : end])
        later = found[number + 1 :]
        again = any(f.heading.label == here.heading.label for f in later) and size < _SMALL_PROSE
        told = any(_SENTENCE_END.search(p.text) for p in paragraphs[here.end : end])
        bare = size < 20 and not told and bool(later) and later[0].heading.rank <= here.heading.rank
        if not again and not bare:
            return found[number:]
    return []
