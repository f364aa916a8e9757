"""Files that are whole or absent."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a local file under a temporary name beside it, then rename it; nothing remains of a write that fails.

    Args:
        durable: wait until the disk has it, so that a power cut cannot leave the new name on an empty file.
    """
    part = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        with part.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
