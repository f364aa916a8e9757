"""Join a drop cap to the word that it begins, where styles, blanks or pictures part the two."""

from __future__ import annotations

import re
from collections.abc import Set

from lxml import etree

_INITIAL = re.compile(r"[\"'“‘«(]?[^\W\d_]")
_CLASS = re.compile(r"drop|initial|first-?letter|lettrine|\bcap\b|\bletra\b", re.IGNORECASE)
_WORDS = frozenset("AIO")  # letters that are words: a blank after them may be meant


def begins_with_initial(text: str, marked: bool) -> bool:
    """Return whether a block is a single capital, whose word may go on in the next block.

    Args:
        marked: whether it is a drop cap by its class, or a picture. Without that "A", "I" and "O" are words.
    """
    return bool(_INITIAL.fullmatch(text)) and text[-1].isupper() and (marked or text[-1] not in _WORDS)


def begins_word(initial: str, text: str, words: Set[str]) -> bool:
    """Return whether the drop cap of the block before is the first letter of a block's first word.

    Args:
        words: of the page, in small letters. They tell "A| lice" from "A| man".
    """
    rest = re.match(r"[^\W\d_]+", text)
    if rest is None or not text[0].islower():
        return False
    return initial[-1] not in _WORDS or f"{initial[-1]}{rest[0]}".casefold() in words or len(rest[0]) < 3


def closes_initial(element: etree._Element, text: str) -> bool:
    """Return whether an element that ends here is a drop cap by its class or its block's, and `text`, its block's, no more."""
    if not _INITIAL.fullmatch(text.strip()):
        return False
    parent = element.getparent()
    classes = f"{element.get('class') or ''} {parent.get('class') or '' if parent is not None else ''}"
    return bool(_CLASS.search(classes))


def joins_initial(before: str, after: str) -> bool:
    """Return whether the text after a drop cap is the rest of its word: "T| HE STORM", "H| e slept", but not "I| came"."""
    rest = after.lstrip()
    if not rest[:1].isalpha():
        return False
    return not (before[-1:].isspace() or after[:1].isspace()) or before.strip()[-1:] not in _WORDS
