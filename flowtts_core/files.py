"""Write local files so that each is whole or absent, whatever ends the process meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial-"  # temporary names start with it, so that a later run knows what a killed one left behind


@contextmanager
def whole_file(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Give a temporary path in the folder of `path`, which is made where absent; what is written there becomes `path` at the end.

    After an error nothing of it remains, and a file that was at `path` before stays as it was. The suffix is that of `path`.

    Args:
        durable: Survive a power cut too; a note that only this run reads need not.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")
    try:
        yield temporary
        if durable:
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())  # else a power cut may leave the new name on an empty file
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_whole(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file whole; see `whole_file`."""
    with whole_file(path, durable=durable) as temporary:
        temporary.write_bytes(data)


def drop_partial(folder: Path) -> None:
    """Remove what killed writes left of the files of a folder."""
    for left in folder.glob(f"{PARTIAL}*"):
        left.unlink(missing_ok=True)
