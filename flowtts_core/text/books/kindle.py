"""Turn Kindle books (MOBI, AZW3, KFX) into EPUB by Calibre's `ebook-convert`, where it is installed."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from flowtts_core.errors import DependencyError, TextError
from flowtts_core.text.books.formats import suffix_of

CONVERTER = "ebook-convert"
_SECONDS = 900.0  # of one book


def kindle_as_epub(data: bytes, name: str) -> bytes:
    """Return the book as EPUB.

    Raises:
        DependencyError: where there is no `ebook-convert`.
        TextError: when it cannot convert the book, for its DRM above all.
    """
    program = shutil.which(CONVERTER)
    if program is None:
        raise DependencyError(
            f"{name}: a Kindle book, which is read by way of Calibre's {CONVERTER}, and that is not installed",
            "install Calibre (apt-get install calibre, or calibre-ebook.com), or convert the book to EPUB elsewhere",
        )
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder, f"book.{suffix_of(name) or 'mobi'}"), Path(folder, "made.epub")
        source.write_bytes(data)
        try:
            done = subprocess.run(
                [program, str(source), str(made)], capture_output=True, text=True, errors="replace", timeout=_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise TextError(
                f"{name}: {CONVERTER} did not end within {_SECONDS:.0f} s", "convert the book to EPUB by hand"
            ) from error
        said = f"{done.stdout}\n{done.stderr}".strip()
        if "DRM" in said and done.returncode:
            raise TextError(
                f"{name}: the book has DRM", "a protected book cannot be read; buy or borrow it without DRM"
            )
        if done.returncode or not made.exists():
            last = said.splitlines()[-1][:300] if said else f"exit code {done.returncode}"
            raise TextError(
                f"{name}: {CONVERTER} cannot convert it ({last})", "open it in Calibre, and save it as EPUB"
            )
        return made.read_bytes()
