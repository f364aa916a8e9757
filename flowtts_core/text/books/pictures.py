"""Say in words what stands in a text as a formula or a picture: MathML, and the descriptions of images."""

from __future__ import annotations

import re

from lxml import etree

_NO_DESCRIPTION = re.compile(
    r"(?:\[?(?:an? )?(?:image|img|illustration|illus|picture|pic|photo|figure|fig|graphic|logo|icon|ornament|decoration|divider|"
    r"separator|drop ?cap|initial|inline)\]?)?[\s._-]*\d*[\s._-]*|.*\.(?:png|jpe?g|gif|svg|webp)|\w*\d{3,}\w*",
    re.IGNORECASE,
)
_OF_MATH = re.compile("math|equation|formula|tex|inline|glyph", re.IGNORECASE)
_ENDED = re.compile(r"[.!?…:;][\"'’”»)\]]*\s*$")
_SIGNS = {
    "−": "-",
    "\u2061": "",
    "\u2062": " ",
    "\u2063": " ",
    "\u2064": " ",
}  # applied, times, comma, plus: not to be seen
_DIGITS = set("0123456789+-n")
_RAISED = str.maketrans("0123456789+-n", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ")


def description(image: etree._Element) -> str:
    """Return what the author says that an image shows; "" for none, and for the names of files and of kinds of pictures."""
    for name in ("alt", "aria-label", "title"):
        text = " ".join((image.get(name) or "").split())
        if text and not _NO_DESCRIPTION.fullmatch(text):
            return text
    return ""


def stands_for_words(image: etree._Element, before: str, after: str) -> bool:
    """Return whether an image is part of its sentence, rather than an illustration beside the text.

    Args:
        before, after: the text of its block on both sides.
    """
    if _OF_MATH.search(image.get("class") or "") or "math" in (image.get("role") or ""):
        return True
    open_before = bool(before.strip()) and not _ENDED.search(before)
    return open_before or after.lstrip()[:1].islower()


def formula(math: etree._Element) -> str:
    """Return the words of a MathML element: the author's, unless they are TeX, else its signs in a row."""
    words = " ".join((math.get("alttext") or "").split())
    if words and not re.search(r"[\\{}]", words):
        return words
    return " ".join(_row(math).split())


def _row(element: etree._Element) -> str:
    return " ".join(part for child in element if (part := _sign(child)))


def _sign(element: etree._Element) -> str:
    if not isinstance(element.tag, str):
        return ""
    tag = etree.QName(element).localname
    if tag in ("mi", "mn", "mo", "mtext", "ms"):
        text = "".join(element.itertext()).strip()
        return "".join(_SIGNS.get(c, c) for c in text)
    if tag in ("annotation", "annotation-xml"):
        return ""
    parts = [_sign(child) for child in element if isinstance(child.tag, str)]
    if tag == "mfrac" and len(parts) == 2:
        return f"{parts[0]} over {parts[1]}"
    if tag in ("msqrt", "mroot"):
        return f"the square root of {' '.join(parts[:1] if tag == 'mroot' else parts)}"
    if tag == "msup" and len(parts) == 2:
        base, power = parts
        return base + power.translate(_RAISED) if set(power) <= _DIGITS else f"{base} to the {power}"
    if tag in ("msub", "msubsup") and len(parts) >= 2:
        return " sub ".join(parts[:2]) + (f" to the {parts[2]}" if len(parts) == 3 else "")
    return " ".join(filter(None, parts))
