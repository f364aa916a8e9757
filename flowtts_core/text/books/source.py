"""Open the source of a reader: a path, bytes with a name, or an open binary file; and find out its format."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from flowtts_core.errors import TextError
from flowtts_core.text.books.formats import HEAD, Format, detect_head

Source = str | Path | bytes | BinaryIO


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
        TextError: for formats that cannot be read, with a remedy for each.
    """
    with opened(source, name) as (file, found):
        place = file.tell()
        head = file.read(HEAD)
        file.seek(place)
    return detect_head(head, found)
