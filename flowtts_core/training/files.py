"""Places that training reads from and writes to: a local folder, or whatever else has the same few methods."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_not_exception_type, stop_after_attempt, wait_exponential

from flowtts_core.files import write_whole

Result = TypeVar("Result")

_TRIES, _FIRST_WAIT_S = 6, 0.5  # 16 s of waiting in all, beside what the client of a store waits by itself
_FINAL = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)


class Files(Protocol):
    """A folder of files by name; a file that was written is whole or absent.

    `cluster.storage.Storage` is one, for object stores.
    """

    def path(self, name: str = "") -> str:
        """Return what to call a file in messages."""
        ...

    def list(self, folder: str = "") -> dict[str, int]:
        """Return names and sizes of what lies directly in a folder; empty where it is absent."""
        ...

    def read(self, name: str) -> bytes: ...

    def read_range(self, name: str, start: int, size: int) -> bytes: ...

    def write(self, name: str, data: bytes) -> None: ...

    def delete(self, name: str) -> None: ...


class LocalFiles:
    """A local folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, name: str = "") -> str:
        return str(self.root / name)

    def list(self, folder: str = "") -> dict[str, int]:
        try:
            with os.scandir(self.root / folder) as entries:
                return dict(sorted((e.name, -1 if e.is_dir() else e.stat().st_size) for e in entries))
        except FileNotFoundError:
            return {}

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def read_range(self, name: str, start: int, size: int) -> bytes:
        with open(self.root / name, "rb") as file:
            return os.pread(file.fileno(), size, start)

    def write(self, name: str, data: bytes) -> None:
        write_whole(self.root / name, data)

    def delete(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)


def files_of(place: Path | Files) -> Files:
    """Return a folder as `Files`; other places as they are."""
    return LocalFiles(place) if isinstance(place, Path) else place


def warn(message: str) -> None:
    """Log a trouble; for callers that ask for no other way to be told."""
    logging.getLogger(__name__).warning(message)


def patiently(call: Callable[[], Result], what: str, tell: Callable[[str], None] = warn) -> Result:
    """Call a store, and again where it was busy or out of reach; return the result. Each failure is told.

    A file that is not there, or may not be touched, is raised at once.
    """

    def failed(state: RetryCallState) -> None:
        tell(f"{what}: try {state.attempt_number} of {_TRIES} failed: {state.outcome and state.outcome.exception()}")

    return Retrying(
        stop=stop_after_attempt(_TRIES),
        wait=wait_exponential(_FIRST_WAIT_S),
        retry=retry_if_not_exception_type(_FINAL),
        before_sleep=failed,
        reraise=True,
    )(call)


class RangeFile(io.RawIOBase):
    """A file for reading that fetches only the ranges that are asked for."""

    def __init__(self, files: Files, name: str, size: int) -> None:
        self._files, self._name, self._size, self._at = files, name, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._at)
        size, start = left if size < 0 else min(size, left), self._at
        if not size:
            return b""
        data = patiently(
            lambda: self._files.read_range(self._name, start, size), f"reading {self._files.path(self._name)}"
        )
        self._at += len(data)
        return data
