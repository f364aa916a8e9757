"""What the files of a book are to be: their formats, and what the user calls the book in place of what it says itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cluster.storage import Storage, read_input
from flowtts_core.audio.tagged import MOST_COVER, cover_kind
from flowtts_core.config import fingerprint
from flowtts_core.errors import ConfigError
from flowtts_core.text.document import Document
from jobs.synthesis.manifest import sha256

BOOK_FORMATS = ("m4b", "mp3", "opus")
CHAPTER_FORMATS = ("mp3", "m4a", "flac", "opus", "wav", "none")
KBPS = (16, 320)
GIVEN_COVER = "given.cover"  # in the plan's folder


@dataclass(frozen=True)
class BookForm:
    """What is made of a book's sound; none of it changes that sound.

    Attributes:
        book_format: of the one tagged file: m4b, mp3 or opus.
        chapter_format: of the file per chapter: mp3, m4a, flac, opus, wav, or none.
        read_along: make an EPUB 3 with text and sound too.
        bitrate: of the lossy formats, in kbit/s; None: 64, of Opus 32.
        title, author, cover: of the book, instead of its own; a cover is the bytes of a JPEG or PNG.
    """

    book_format: str = "m4b"
    chapter_format: str = "mp3"
    read_along: bool = False
    bitrate: int | None = None
    title: str = ""
    author: str = ""
    cover: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name, value, known in (
            ("format", self.book_format, BOOK_FORMATS),
            ("chapter format", self.chapter_format, CHAPTER_FORMATS),
        ):
            if value not in known:
                raise ConfigError(f"unknown {name} {value!r}", f"use one of {', '.join(known)}")
        if self.bitrate is not None and not KBPS[0] <= self.bitrate <= KBPS[1]:
            raise ConfigError(
                f"--bitrate {self.bitrate}: must be from {KBPS[0]} to {KBPS[1]} kbit/s", "speech needs 64"
            )

    @property
    def formats(self) -> list[str]:
        """What tells this form from another, as JSON; fields at their defaults are left out."""
        own = self.noted("")
        cover = {"cover": sha256(self.cover)} if self.cover else {}
        more = {**{name: value for name, value in own.items() if value}, **cover}
        return [self.book_format, self.chapter_format, *([fingerprint(more)] if more else [])]

    def of(self, document: Document) -> Document:
        """Return the document under the user's title, author and cover."""
        named = {name: value for name in ("title", "author", "cover") if (value := getattr(self, name))}
        return replace(document, **named)

    def require_fits(self, books: int) -> None:
        """Raise ConfigError where a job of so many books has no use for what the user gave."""
        given = [f"--{name}" for name in ("title", "author", "cover") if getattr(self, name)]
        if given and books != 1:
            raise ConfigError(
                f"{' and '.join(given)} {'name' if given[1:] else 'names'} one book, and this job has {books or 'none'}",
                "give each book a command of its own" if books else "leave it out: rows become no book",
            )
        if not books and (self.read_along or self.bitrate):
            option = "--read-along" if self.read_along else "--bitrate"
            raise ConfigError(f"{option} is of books, and this job has none", "leave it out, or give a book")

    def noted(self, cover: str) -> dict[str, Any]:
        """Return all but the formats as JSON values; `cover` is where that lies."""
        return {
            "read_along": self.read_along,
            "bitrate": self.bitrate,
            "title": self.title,
            "author": self.author,
            "cover": cover,
        }

    def kept(self, storage: Storage, folder: str) -> dict[str, Any]:
        """Store the cover in a plan's folder; return what `form_of` makes the form of again."""
        name = f"{folder}/{GIVEN_COVER}" if self.cover else ""
        if self.cover and not (storage.exists(name) and storage.read(name) == self.cover):
            storage.write(name, self.cover)
        return self.noted(name)


def form_of(storage: Storage, book_format: str, chapter_format: str, noted: Mapping[str, Any]) -> BookForm:
    """Return the form that a job was run with, from `BookForm.kept`; empty of a job that knew formats alone."""
    cover = storage.read(noted["cover"]) if noted.get("cover") else None
    return BookForm(book_format, chapter_format, **{**noted, "cover": cover})


def read_cover(path: str) -> bytes:
    """Return the picture in a file.

    Raises:
        ConfigError: where it cannot be read, or is no JPEG or PNG that a player shows.
    """
    try:
        data = read_input(path)
    except OSError as error:
        raise ConfigError(f"--cover {path}: {error.strerror or error}", "give a JPEG or PNG file") from error
    if problem := cover_problem(data):
        raise ConfigError(f"--cover {path}: {problem}", "give a JPEG or PNG file of at most 16 MB")
    return data


def cover_problem(cover: bytes) -> str:
    """Return why no player would show a cover; empty for a good one."""
    if not cover_kind(cover):
        return "the cover is neither JPEG nor PNG"
    return f"the cover has {len(cover) / 1e6:.0f} MB" if len(cover) > MOST_COVER else ""
