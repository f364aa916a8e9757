"""Decode bytes: by byte-order mark, as UTF-8, else by the Windows code page. Unreadable characters are dropped."""

from __future__ import annotations

import codecs
import re

from flowtts_core.errors import TextError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_UNREADABLE = re.compile("[\x00-\x08\x0e-\x1a\x7f\ufeff\ufffe\ud800-\udfff]")


def decode_text(data: bytes, name: str) -> tuple[str, list[str]]:
    """Return the text with "\\n" line ends and without control characters, and warnings on what was repaired.

    Raises:
        TextError: when the bytes are not text.
    """
    warnings: list[str] = []
    encoding = next((codec for mark, codec in _MARKS if data.startswith(mark)), "")
    if not encoding and data[:4000].count(0) > 0.1 * len(data[:4000]):
        raise TextError(f"{name}: no text (it is full of null bytes)", "give a text file in UTF-8")
    if encoding:
        text = data.decode(encoding, "replace")
        if "\ufffd" in text:
            warnings.append(f"damaged characters in {encoding} text were replaced")
    else:
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            text = data.decode("cp1252", "replace") if _is_windows(data) else data.decode("latin-1")
            warnings.append(f"not UTF-8 (byte {error.start}): read as Windows-1252; convert it if letters look wrong")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text, removed = _UNREADABLE.subn("", text)
    if removed > 0.05 * (len(text) + removed):
        raise TextError(f"{name}: no text ({removed} control characters)", "give a text file in UTF-8")
    if removed:
        warnings.append(f"{removed} control characters were removed")
    return text, warnings


def _is_windows(data: bytes) -> bool:
    """Return whether bytes 0x80-0x9f occur: quotes and dashes in the Windows code page, control characters in latin-1."""
    return any(0x80 <= byte <= 0x9F for byte in set(data))
