"""Tell which elements of a page its style sheets or its attributes hide from readers: display:none, aria-hidden and the like."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from lxml import etree

_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")
_HIDES = re.compile(r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*hidden)\b", re.IGNORECASE)
_SHOWS = re.compile(r"(?:^|;)\s*display\s*:\s*(?!none)\w", re.IGNORECASE)
_SCREEN = re.compile(r"@media\s+(?:only\s+)?(?:all|screen)\b[^{]*", re.IGNORECASE)
_COMPOUND = re.compile(r"([\w-]+|\*)?((?:[.#][\w-]+)*)")
_CLASS = re.compile(r"\.([\w-]+)")
_NAMES = frozenset({"hide", "hidden", "d-none"})  # what these classes mean where no style sheet of the book says it


@dataclass(frozen=True)
class _Compound:
    """One part of a selector: `p.note#n1` has a tag, classes and ids."""

    tag: str
    classes: frozenset[str]
    ids: frozenset[str]

    def matches(self, element: etree._Element) -> bool:
        tag = etree.QName(element).localname.lower() if isinstance(element.tag, str) else ""
        classes = set((element.get("class") or "").split())
        return (
            self.tag in ("", "*", tag) and self.classes <= classes and (not self.ids or self.ids == {element.get("id")})
        )


class Hidden:
    """Says of an element whether it is hidden.

    Args:
        sheets: the texts of the page's style sheets, in order. Simple selectors are understood, alone and within others
            ("div.a .b"); what stands in an `@media` block counts only if that is of screens.
    """

    def __init__(self, sheets: Iterable[str] = ()) -> None:
        self._rules: dict[tuple[_Compound, ...], bool] = {}
        self._styled: set[str] = set()
        for sheet in sheets:
            for selectors, declarations in _RULE.findall(_flat(_COMMENT.sub("", sheet))):
                self._styled |= set(_CLASS.findall(selectors))
                hides = bool(_HIDES.search(declarations))
                if hides or _SHOWS.search(declarations):
                    self._rules |= {found: hides for each in selectors.split(",") if (found := _selector(each))}

    def __call__(self, element: etree._Element) -> bool:
        if element.get("hidden") is not None or element.get("aria-hidden") == "true":
            return True
        style = element.get("style") or ""
        if style and (_HIDES.search(style) or _SHOWS.search(style)):
            return bool(_HIDES.search(style))
        classes = set((element.get("class") or "").lower().split())
        if classes & _NAMES and not classes & _NAMES & self._styled:
            return True
        hidden = False
        for selector, hides in self._rules.items():  # a later rule overrides an earlier one
            if hides != hidden and _selects(selector, element):
                hidden = hides
        return hidden


def _flat(css: str) -> str:
    """Return a style sheet with the rules of `@media` blocks of screens in their place, and without other such blocks."""
    out: list[str] = []
    place = 0
    for match in re.finditer(r"@(?:media|supports|keyframes)\b[^{};]*\{", css, re.IGNORECASE):
        if match.start() < place:
            continue
        depth, end = 1, match.end()
        while end < len(css) and depth:
            depth += {"{": 1, "}": -1}.get(css[end], 0)
            end += 1
        out.append(css[place : match.start()])
        if _SCREEN.match(match[0]):
            out.append(css[match.end() : end - 1])
        place = end
    return "".join([*out, css[place:]])


def _selector(text: str) -> tuple[_Compound, ...]:
    """Return the compounds of a selector from the outermost, () for one that is not understood (":hover", "a > b")."""
    parts: list[_Compound] = []
    for word in text.split():
        match = _COMPOUND.fullmatch(word)
        if match is None:
            return ()
        names = re.findall(r"([.#])([\w-]+)", match[2])
        parts.append(
            _Compound(
                (match[1] or "").lower(),
                frozenset(name for sign, name in names if sign == "."),
                frozenset(name for sign, name in names if sign == "#"),
            )
        )
    return tuple(parts)


def _selects(selector: tuple[_Compound, ...], element: etree._Element) -> bool:
    if not selector[-1].matches(element):
        return False
    above = list(element.iterancestors())
    for compound in reversed(selector[:-1]):
        while above and not compound.matches(above[0]):
            above.pop(0)
        if not above:
            return False
        above.pop(0)
    return True
