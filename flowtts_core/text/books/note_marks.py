"""Tell the marks of notes from other raised, linked and bracketed numbers: "so.¹" from "10²", "See 1" and "p.1"."""

from __future__ import annotations

import re

INVISIBLE = re.compile("[\u00ad\u200b\u2060\ufeff\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")  # soft hyphens, joiners, controls
_DIGITS = "0-9⁰¹²³⁴⁵⁶⁷⁸⁹"
_NUMBERS = rf"[{_DIGITS}]{{1,4}}(?:\s*[,–-]\s*[{_DIGITS}]{{1,4}})*"
_NOTE_MARK = re.compile(rf"[\[({{]?\s*(?:{_NUMBERS}|[*†‡§¶#]{{1,4}}|[a-z]|[ivx]{{1,5}})\s*[\])}}]?")
_BRACKETED = re.compile(r"\[.*\]|[*†‡§¶]+")
_PLAIN_MARK = re.compile(rf"\(?[{_DIGITS}]{{1,4}}\)?|[*†‡§¶]{{1,4}}")
# A mark follows a word, a stop or a quote directly. So do other numbers: "p.1", "3:2", page numbers after leaders in a contents.
_HANGING = re.compile(r"(?:[^\W\d_]|[.!?…)\]\"'’”»]|(?<!\d)[,:;])$")
_NUMBER_FOLLOWS = re.compile(
    r"\b(?:No|[Nn]os|(?i:pp?|figs?|vols?|ch|chaps?|secs?|arts?|vv?|vs|cf|eqs?|tabs?|pls?|ll?|fols?|pts?|bks?))\.$|(?:\. ?){5,}$"
)
_AFTER_STOP = re.compile(r"[.!?…,;:][\"'’”»)\]]*$")
_UNITS = frozenset("km cm mm dm nm hm µm μm ft yd mi kg sec hr".split())
_UNITS_OF_A_NUMBER = frozenset(
    "in min foot feet inch inches yard yards mile miles meter meters metre metres second seconds kilometer kilometers "
    "kilometre kilometres centimeter centimeters centimetre centimetres millimeter millimeters millimetre "
    "millimetres".split()
)
# "mc" and "ab" are products; these are words.
_SHORT_WORDS = frozenset("ah am an as at be by do go he if in is it me my no of oh on or so to up us we".split())
_TYPED = re.compile(
    r"(?<=[^\W\d_])(?P<sign>[*†‡§¶]{1,4})(?=[\s.,;:!?)\]”’\"']|$)"  # dog*†
    r"|(?<=[^\W_]{2})(?P<number>\[\d{1,3}(?:, ?\d{1,3})*\])(?!\w)"  # word[1], but not x[1]
    r"|(?<=[.!?,;:”’\"')])(?P<letter>\[(?:\d{1,3}(?:, ?\d{1,3})*|[a-z]|[ivx]{1,5})\])(?!\w)"  # word.[a], but not wa[s]
    # theory.1 Next, but not vol.1 or ver.1.2
    r"|(?<=[a-z]{4}[.!?])(?P<hanging>\d{1,3})(?=\s+[\"'“‘(]?[A-Z]|$)"
    r"|(?P<raised>[⁰¹²³⁴⁵⁶⁷⁸⁹]+)"
)


def is_label(label: str) -> bool:
    """Return whether a text may be a note's mark: a number or several, a sign, a small letter, also in brackets."""
    return bool(_NOTE_MARK.fullmatch(label))


def is_bracketed(label: str) -> bool:
    """Return whether a mark is in square brackets or a sign, which nothing else is raised as."""
    return bool(_BRACKETED.fullmatch(label))


def is_plain_label(label: str) -> bool:
    """Return whether a text may be the mark of a note where only its place or its style tells."""
    return bool(_PLAIN_MARK.fullmatch(label))


def hangs_as_note(before: str) -> bool:
    """Return whether a linked number right after `before` is a note's: "so.1" and "treaty1", but not "See 1" and "p.1"."""
    return bool(_HANGING.search(before)) and not _NUMBER_FOLLOWS.search(before)


def raised_as_note(label: str, before: str) -> bool:
    """Return whether something raised, without a link, is a note's mark after `before`.

    Numbers are, where they are no powers ("mc²", "(a+b)²"); letters only after a stop: not those of "Mᶜ Arthur" and "Nᵒ 5".
    """
    if not is_label(label):
        return False
    if is_bracketed(label):
        return True
    if label[0].isalpha():
        return bool(_AFTER_STOP.search(before))
    return _number_is_note(before)


def _number_is_note(before: str) -> bool:
    before = before.rstrip()
    if not before or before[-1] in ".,;:!?…\"'”’»—–":
        return True  # the note's own number begins a block
    if before[-1] in ")]":
        inner = re.search(r"[(\[]([^()\[\]]*).$", before)
        return inner is None or (bool(re.search(r"[^\W\d_]{3}", inner[1])) and not re.search(r"[+=×/^−]", inner[1]))
    word = re.search(r"(?:^|[\s(\[\"'“‘—–])([^\W\d_]+(?:[-'’][^\W\d_]+)*)$", before)
    if word is None or len(word[1]) == 1 or word[1] in _UNITS:
        return False
    if word[1] in _UNITS_OF_A_NUMBER and re.search(r"(?:\d|\b(?:per|square|cubic))[\s-]*$", before[: word.start(1)]):
        return False
    return len(word[1]) > 2 or word[1].lower() in _SHORT_WORDS


def _is_open(stars: str, before: str) -> bool:
    """Return whether stars begin an emphasis that has not ended."""
    begun = re.findall(rf"(?<![\w*]){re.escape(stars)}(?=[^\W_])", before)
    ended = re.findall(rf"(?<=[\w.,!?]){re.escape(stars)}(?![\w*])", before)
    return len(begun) > len(ended)


def without_typed_marks(text: str) -> tuple[str, list[str]]:
    """Return a text without the note marks that are typed into it ("word[1]", "dog*†", "theory.1 Next", "left.¹"), and these."""
    found: list[str] = []

    def mark(match: re.Match[str]) -> str:
        before = text[max(0, match.start() - 80) : match.start()]
        sign = match["sign"]
        if sign and sign[0] == "*" and _is_open(sign, text[: match.start()]):
            return match[0]  # the end of *what is emphasised*
        if match["raised"] and not (before.strip() and _number_is_note(before)):
            return match[0]
        if (match["number"] or match["hanging"]) and _NUMBER_FOLLOWS.search(before):
            return match[0]
        found.append(match[0])
        return ""

    return _TYPED.sub(mark, text), found
