"""Decode texts and pages: by mark, as UTF-8, as declared, else as their letters tell; mend what was decoded wrongly."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

from flowtts_core.errors import TextError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_UNREADABLE = re.compile("[\x00-\x08\x0e-\x1a\x7f\ufeff\ufffe\ud800-\udfff]")
_DECLARED = re.compile(rb"""(?:encoding|charset)\s*=\s*["']?\s*([A-Za-z0-9._:-]+)""")
_XML_DECLARATION = re.compile(r"\A\s*<\?xml[^>]*\?>")
_LATIN_1 = {
    "iso8859-1",
    "ascii",
}  # browsers read both as the Windows code page, which has quotes where they have nothing
_OF_LANGUAGE = {
    **dict.fromkeys(("cs", "hr", "hu", "pl", "ro", "sk", "sl"), "cp1250"),
    **dict.fromkeys(("be", "bg", "mk", "ru", "sr", "uk"), "cp1251"),
    **{"el": "cp1253", "tr": "cp1254", "he": "cp1255", "ar": "cp1256", "fa": "cp1256", "vi": "cp1258"},
    **dict.fromkeys(("et", "lt", "lv"), "cp1257"),
    **{"ja": "cp932", "ko": "cp949", "zh": "gb18030"},
}
# Where most letters are not ASCII the script is not Latin, and its code pages can be told apart by their letters. Those
# of Latin script cannot: libraries take short French for Czech.
_OTHER_SCRIPTS = [
    *("cp1251", "koi8_r", "cp866", "iso8859_5", "cp1253", "cp1255", "cp1256"),
    *("cp932", "euc_jp", "gb18030", "big5", "cp949"),
]
# What UTF-8 looks like that was read as the Windows code page or latin-1: "Ã©", "â€™".
_GARBLED = re.compile("[\u00c2-\u00f4][\u0080-\u00bf\u0152-\u017e\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122\ufffd]")


@dataclass(frozen=True)
class Decoded:
    """A decoded text. `warning` says what was guessed or lost; "" for nothing."""

    text: str
    warning: str = ""


def decode_text(data: bytes, name: str) -> tuple[str, list[str]]:
    """Return the text with "\\n" line ends and without control characters, and warnings on what was repaired.

    Raises:
        TextError: when the bytes are not text.
    """
    if not _marked(data) and data[:4000].count(0) > 0.1 * len(data[:4000]):
        raise TextError(f"{name}: no text (it is full of null bytes)", "give a text file in UTF-8")
    decoded = _decode(data)
    text, warnings = decoded.text, [decoded.warning] if decoded.warning else []
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text, removed = _UNREADABLE.subn("", text)
    if removed > 0.05 * (len(text) + removed):
        raise TextError(f"{name}: no text ({removed} control characters)", "give a text file in UTF-8")
    if removed:
        warnings.append(f"{removed} control characters were removed")
    text, mended = mend(text)
    return text, [*warnings, *([mended] if mended else [])]


def decode_markup(data: bytes, language: str = "") -> Decoded:
    """Return the text of an XML or HTML file, without its XML declaration, whose encoding is true no longer.

    Args:
        language: of the book, which tells the code page where the file declares none and is not UTF-8.
    """
    declared = _DECLARED.search(data[:2000])
    decoded = _decode(data, declared[1].decode("ascii") if declared else "", language)
    return Decoded(_XML_DECLARATION.sub("", decoded.text, count=1), decoded.warning)


def mend(text: str) -> tuple[str, str]:
    """Return the text with letters put right that were decoded wrongly before ("cafÃ©" is "café"), and a warning or ""."""
    if not _GARBLED.search(text):
        return text, ""
    from ftfy import fix_encoding  # takes a second to load, and few books need it

    first, lines = "", text.split("\n")
    for index, line in enumerate(lines):
        if not _GARBLED.search(line):
            continue
        # The last byte of a closing quote has no letter in the Windows code page: programs put U+FFFD for it.
        mended = fix_encoding(line.replace("â€\ufffd", "â€\x9d"))
        if mended != line:
            at = next(i for i, (a, b) in enumerate(zip(line, mended, strict=False)) if a != b)
            first = (
                first
                or f"letters that were decoded wrongly are mended ({line[at : at + 12]!r} is {mended[at : at + 8]!r})"
            )
            lines[index] = mended
    return "\n".join(lines), first


def _marked(data: bytes) -> str:
    return next((codec for mark, codec in _MARKS if data.startswith(mark)), "")


def _decode(data: bytes, declared: str = "", language: str = "") -> Decoded:
    marked = _marked(data)
    if marked:
        text = data.decode(marked, "replace")
        lost = f"damaged characters in {marked} text were replaced" if "\ufffd" in text else ""
        return Decoded(text, lost)
    try:
        return Decoded(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        place = error.start
    encoding = _known(declared)
    if encoding in ("utf-8", *_LATIN_1):
        encoding = "cp1252" if encoding in _LATIN_1 else ""
    if encoding:
        try:
            return Decoded(data.decode(encoding))
        except UnicodeDecodeError:
            pass
    encoding = _OF_LANGUAGE.get(language.lower().replace("_", "-").partition("-")[0]) or _of_script(data) or "cp1252"
    text = data.decode(encoding, "replace")
    if "\ufffd" in text and encoding == "cp1252":
        text = data.decode("latin-1")  # five bytes have no letter in the Windows code page
    shown = "Windows-1252" if encoding == "cp1252" else encoding
    return Decoded(text, f"not UTF-8 (byte {place}): read as {shown}; convert it if letters look wrong")


def _known(encoding: str) -> str:
    """Return Python's name of a declared encoding, "" for one that it does not know or that is of no text."""
    try:
        found = codecs.lookup(encoding).name if encoding else ""
        return found if not found or isinstance(b"".decode(found), str) else ""
    except (LookupError, TypeError, ValueError):
        return ""


def _of_script(data: bytes) -> str:
    """Return the code page of a text whose script is not Latin, by its letters; "" for one of Latin script."""
    high = sum(byte >= 0x80 for byte in data)
    letters = sum(chr(byte).isalpha() for byte in data if byte < 0x80)
    if high < letters:
        return ""
    from charset_normalizer import from_bytes

    best = from_bytes(data[:1_000_000], cp_isolation=_OTHER_SCRIPTS).best()
    return best.encoding if best is not None else ""
