"""The lines of tables and lists as they are decoded: a line that cannot be read costs no other."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from flowtts_core.errors import TextError

_MAX_LINE = 16 << 20  # bytes; a longer line is refused
_CHUNK = 1 << 20

Told = Callable[[str], None]


class BadRow(Exception):
    """A row cannot be used; the message says why. `row_id` is the row's id if it has one."""

    def __init__(self, reason: str, row_id: str = "") -> None:
        super().__init__(reason)
        self.row_id = row_id


Records = Iterator[tuple[int, "dict[str, Any] | BadRow"]]


def codec_of(file: BinaryIO, name: str, told: Told) -> str:
    """Return the codec of a file from here on: by its mark, as UTF-8, else the Windows code page, which `told` is told.

    Bytes that are not UTF-8 in a file that has more letters that are belong to damaged rows.

    Raises:
        TextError: for a file that is neither: most of its letters are of another script.
    """
    start = file.tell()
    if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        file.seek(start)
        return "utf-16"
    file.seek(start)
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    letters = high = bad = 0
    while chunk := file.read(_CHUNK):
        text = decoder.decode(chunk)
        if not text.isascii():
            bad += sum("\udc80" <= character <= "\udcff" for character in text)
            high += sum(character >= "\x80" for character in text)
            letters += sum(character.isalpha() for character in text)
    file.seek(start)
    if bad <= high - bad:
        return "utf-8-sig"
    if bad > 0.5 * (letters + bad):
        raise TextError(f"{name}: not UTF-8, and in no code page of Western Europe", "save or convert it as UTF-8")
    told(f"{name}: not UTF-8: read as Windows-1252; convert it if letters look wrong")
    return "cp1252"


def read_lines(file: BinaryIO, codec: str = "utf-8-sig") -> Iterator[tuple[int, str | BadRow]]:
    """Yield (line number, text) of lines that are not blank. Bytes that are no letters become lone surrogates."""
    start = file.tell()
    mark = file.read(2)
    file.seek(start)
    if mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        whole = file.read().decode("utf-16", "replace").split("\n")
        yield from ((n, line.rstrip("\r")) for n, line in enumerate(whole, 1) if line.strip())
        return
    codec = codec.removesuffix("-sig")
    number = 0
    while line := file.readline(_MAX_LINE):
        number += 1
        if len(line) == _MAX_LINE and not line.endswith(b"\n"):
            while (rest := file.readline(_MAX_LINE)) and not rest.endswith(b"\n"):
                pass
            yield number, BadRow(f"a line longer than {_MAX_LINE >> 20} MiB")
            continue
        text = line.decode(codec, "surrogateescape").removeprefix("\ufeff" if number == 1 else "")
        if text.strip():
            yield number, text.rstrip("\r\n")
