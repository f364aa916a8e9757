"""Open the source of a reader (a path, bytes with a name, or an open binary file), and detect its format."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, cast

from flowtts_core.errors import TextError
from flowtts_core.text.books.decode import decode_text
from flowtts_core.text.books.gutenberg import is_gutenberg

Source = str | Path | bytes | BinaryIO
Format = Literal["epub", "gutenberg", "plain", "jsonl", "csv", "tsv", "parquet"]
BOOKS: tuple[Format, ...] = ("epub", "gutenberg", "plain")
TABLES: tuple[Format, ...] = ("jsonl", "csv", "tsv", "parquet")

_EXTENSIONS: dict[str, Format] = {
    **{"epub": "epub", "parquet": "parquet", "pq": "parquet", "jsonl": "jsonl", "ndjson": "jsonl", "json": "jsonl"},
    **{"csv": "csv", "tsv": "tsv", "tab": "tsv"},
}
_OTHERS = {
    b"%PDF": "a PDF",
    b"\xd0\xcf\x11\xe0": "an old Word file",
    b"{\\rtf": "an RTF file",
    b"\x1f\x8b": "a gzip file",
}
_HEAD = 65_536


@contextmanager
def opened(source: Source, name: str = "") -> Iterator[tuple[BinaryIO, str]]:
    """Yield (binary file, name) of any source. A file that is opened here is closed again.

    Raises:
        TextError: when a path cannot be read.
    """
    if isinstance(source, bytes):
        yield io.BytesIO(source), name or "text"
    elif isinstance(source, str | Path):
        try:
            file = Path(source).open("rb")  # noqa: SIM115 - closed by the `with` below, outside of this `try`
        except OSError as error:
            raise TextError(
                f"{source}: cannot be read ({error.strerror})", "check the path and its permissions"
            ) from error
        with file:
            yield file, name or Path(source).name
    else:
        yield source, name or Path(str(getattr(source, "name", "text"))).name


def read_all(source: Source, name: str = "") -> tuple[bytes, str]:
    """Return (all bytes, name) of a source."""
    if isinstance(source, bytes):
        return source, name or "text"
    with opened(source, name) as (file, found):
        try:
            return file.read(), found
        except OSError as error:
            raise TextError(f"{found}: cannot be read ({error})", "check the file and try again") from error


def detect_format(source: Source, name: str = "") -> Format:
    """Return the format of a text, by its content or, where that does not tell, by its name's extension.

    Args:
        source: a path, or with a `name` bytes or an open seekable file, whose position is kept.

    Raises:
        TextError: for formats that cannot be read (PDF, Word, other zips), with a remedy for each.
    """
    with opened(source, name) as (file, found):
        place = file.tell()
        head = file.read(_HEAD)
        file.seek(place)
    return detect_head(head, found)


def detect_head(head: bytes, name: str) -> Format:
    """Return the format as `detect_format` does, from the first 64 KiB."""
    extension = name.rsplit(".", 1)[-1].lower() if "." in name else ""
    if head[:4] == b"PAR1":
        return "parquet"
    if head[:2] == b"PK":
        if extension == "epub" or b"application/epub+zip" in head[:200] or b"META-INF/container.xml" in head:
            return "epub"
        raise TextError(f"{name}: a zip file, but no EPUB", "unpack it, or save the document as EPUB or plain text")
    kind = next((kind for magic, kind in _OTHERS.items() if head.startswith(magic)), "")
    if kind:
        raise TextError(f"{name}: {kind}, which cannot be read", "save or convert it as EPUB or plain text first")
    if extension in ("epub", "parquet", "pq"):
        return _EXTENSIONS[extension]  # damaged: its reader gives the reason
    text, _ = decode_text(_whole_characters(head), name)
    if is_gutenberg(text):
        return "gutenberg"
    return _EXTENSIONS.get(extension) or ("plain" if extension in ("txt", "md", "text") else _by_lines(text))


def _whole_characters(head: bytes) -> bytes:
    """Drop a UTF-8 character that the end of the head cuts in two."""
    if len(head) < _HEAD:
        return head
    return head[: head.rfind(b"\n") + 1] or re.sub(rb"[\xc0-\xff][\x80-\xbf]{0,2}$", b"", head)


def _by_lines(text: str) -> Format:
    lines = [line for line in text.split("\n") if line.strip()][:5]
    if not lines:
        return "plain"
    try:
        if isinstance(json.loads(lines[0]), dict):
            return "jsonl"
    except ValueError:
        pass
    for format_, separator in (("tsv", "\t"), ("csv", ",")):
        if "text" in [cell.strip().lower() for cell in lines[0].split(separator)] and separator in lines[0]:
            return cast(Format, format_)
    if len(lines) > 1 and all(re.match(r"[\w.-]+\|\S", line) for line in lines):
        return "csv"
    return "plain"
