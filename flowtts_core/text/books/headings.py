"""Parse chapter headings of printed books: "CHAPTER IV. Pig and Pepper", "Part the First", "XII.", "EPILOGUE"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_RANKS = {
    **dict.fromkeys(("volume", "vol"), 0),
    "book": 1,
    **dict.fromkeys(("part", "act"), 2),
    **dict.fromkeys(("chapter", "chap", "letter", "stave", "canto", "adventure", "lecture", "tale", "episode"), 3),
    **dict.fromkeys(("section", "scene"), 4),
}
_CHAPTER_RANK = 3
_NAMED = (
    r"prologue|epilogue|preface|(?:author[’']s |editor[’']s )?(?:introduction|foreword|note)|afterword|conclusion|"
    r"appendix|postscript|interlude|introductory(?: note)?|preamble|finale"
)
_TENS = "twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
_ONES = "one|two|three|four|five|six|seven|eight|nine"
_ORDINALS = "first|second|third|fourth|fifth|sixth|seventh|eighth|ninth"
_WORDS = (
    rf"(?:{_TENS})(?:[ -](?:{_ONES}|{_ORDINALS}))?|{_ONES}|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|"
    rf"seventeen|eighteen|nineteen|(?:the )?(?:{_ORDINALS}|tenth|eleventh|twelfth|thirteenth|last)"
)
_ROMAN = r"(?=[ivxlcdm])m{0,3}(?:cm|cd|d?c{0,3})(?:xc|xl|l?x{0,3})(?:ix|iv|v?i{0,4})"
_NUMBER = rf"(?:{_ROMAN}|\d{{1,4}}|{_WORDS})"
_KINDED = re.compile(
    rf"(?P<kind>{'|'.join(_RANKS)})\.?\s+(?P<number>{_NUMBER})(?P<end>$|\s*[.:,;—–-]+\s*|\s+)(?P<title>.*)",
    re.IGNORECASE,
)
_ORDINAL_FIRST = re.compile(rf"(?:the )?(?P<number>{_ORDINALS}|tenth)\s+(?P<kind>{'|'.join(_RANKS)})\.?", re.IGNORECASE)
_NAMED_LINE = re.compile(rf"(?P<kind>{_NAMED})(?P<end>$|\.?$|\s*[.:—–-]+\s*)(?P<title>.*)", re.IGNORECASE)
_BARE = re.compile(
    rf"(?P<number>{_ROMAN.replace('ivxlcdm', 'ivxlc')}|\d{{1,3}})(?:\.?|(?:\.|:| [—–-])\s+(?P<title>\S.*))", re.I
)


@dataclass(frozen=True)
class Heading:
    """A heading line: `kind` ("chapter", "part", "epilogue", "" for a bare number), `number` as written, title, rank.

    Ranks from the top: volume 0, book 1, part 2, chapter 3, section 4.
    """

    kind: str
    number: str
    title: str
    rank: int

    @property
    def label(self) -> tuple[str, str]:
        return self.kind, self.number


def parse_heading(line: str, bare: bool = False) -> Heading | None:
    """Parse a heading line. Return None for prose ("Part of the crew", "Chapter two was dull.").

    Args:
        bare: accept a numeral alone too ("XII.", "7. The Dog"). The caller must check that such lines form a sequence.
    """
    line = " ".join(line.split())
    if len(line) > 120:
        return None
    match = _KINDED.fullmatch(line)
    if match and _is_title(match["title"], spaced=not match["end"].strip()):
        kind = match["kind"].lower()
        return Heading(
            {"chap": "chapter", "vol": "volume"}.get(kind, kind), _plain(match["number"]), match["title"], _RANKS[kind]
        )
    match = _ORDINAL_FIRST.fullmatch(line)
    if match and (match["kind"][0].isupper() or not line.endswith(".")):  # "The first part." is a sentence
        return Heading(match["kind"].lower(), _plain(match["number"]), "", _RANKS[match["kind"].lower()])
    match = _NAMED_LINE.fullmatch(line)
    if match and (match[1][0].isupper()) and _is_title(match["title"], spaced=False):
        return Heading(match["kind"].lower(), "", match["title"], _CHAPTER_RANK)
    match = _BARE.fullmatch(line) if bare else None
    if (
        match
        and (match["number"].isupper() or match["number"].isdigit())
        and _is_title(match["title"] or "", spaced=False)
    ):
        return Heading("", _plain(match["number"]), match["title"] or "", _CHAPTER_RANK)
    return None


def _plain(number: str) -> str:
    return number.lower().removeprefix("the ").replace("-", " ")


def _is_title(text: str, spaced: bool) -> bool:
    """Return whether the text after the number is a title. If `spaced` (only a space between) it must begin with a capital."""
    text = text.strip()
    if not text:
        return True
    first = next((c for c in text if c.isalnum()), "")
    if spaced and not first.isupper():
        return False
    prose = text.endswith((".", ",", ";")) and sum(w[:1].islower() for w in text.split()) > len(text.split()) / 2
    return len(text) <= 100 and not prose


_VALUES = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100, "d": 500, "m": 1000}


def value_of(number: str) -> int:
    """Return the value of a Roman or Arabic numeral; 0 for words."""
    if number.isdigit():
        return int(number)
    if not number or set(number) - set(_VALUES):
        return 0
    values = [_VALUES[c] for c in number]
    return sum(-a if a < b else a for a, b in zip(values, [*values[1:], 0], strict=True))


def is_divider(title: str) -> bool:
    """Return whether a title is that of a part, book or volume, which contains chapters."""
    heading = parse_heading(title)
    return heading is not None and heading.rank < _CHAPTER_RANK


def is_chapter(title: str) -> bool:
    """Return whether a title is that of a numbered chapter, so that entries below it are its sections."""
    heading = parse_heading(title, bare=True)
    return heading is not None and heading.rank == _CHAPTER_RANK and bool(heading.number)


def joined_title(lines: Sequence[str]) -> str:
    """Join the lines of a heading: "CHAPTER I. Down the Hole" of two lines, and of "Chapter" and "One" "Chapter One"."""
    out = ""
    for line in filter(None, (" ".join(line.split()) for line in lines)):
        goes_on = out.endswith((".", ":", "—", "-", ",", ";", "?", "!")) or out.lower().rstrip(".") in _RANKS
        out = f"{out}{' ' if goes_on else '. '}{line}" if out else line
    return out


def full_title(title: str, parent: str, occurs_again: bool) -> str:
    """Return a chapter's title with that of what contains it, where it says too little alone.

    Args:
        parent: the title of the part, story or book that contains it, "" for none.
        occurs_again: whether another chapter has the same title.
    """
    if not parent or parent == title:
        return title
    heading = parse_heading(title, bare=True)
    untitled = heading is not None and bool(heading.number) and not heading.title
    return f"{parent}: {title}" if untitled or occurs_again or not is_divider(parent) else title
