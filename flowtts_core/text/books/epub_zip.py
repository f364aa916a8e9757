"""The zip of an EPUB file: its limits, its DRM, and the files and links inside it."""

from __future__ import annotations

import posixpath
import re
import zipfile
import zlib
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from lxml import etree

from flowtts_core.errors import TextError
from flowtts_core.text.books.xhtml import parse_xml

# What zipfile raises for a file that is damaged, cut short or no zip, or that is packed by a method which it lacks.
DAMAGED_ZIP = (zipfile.BadZipFile, ValueError, EOFError, OSError, NotImplementedError)
_FONT_OBFUSCATION = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
_DRM_REMEDY = (
    "a protected book cannot be read; buy or borrow it without DRM, or take another edition "
    "(public-domain books: Project Gutenberg, Standard Ebooks)"
)


@dataclass(frozen=True)
class UnpackLimits:
    """Limits of unpacking: bytes in all and per file, number of files, and the compression ratio of files over 1 MiB."""

    total_bytes: int = 2 << 30
    file_bytes: int = 64 << 20
    files: int = 20_000
    ratio: float = 200.0


@dataclass(frozen=True)
class ManifestItem:
    path: str  # path in the zip
    media_type: str
    properties: tuple[str, ...]


@dataclass(frozen=True)
class TocEntry:
    """A line of the table of contents. `path` is "" without a link; `parents` are the titles above it."""

    title: str
    path: str
    fragment: str
    parents: tuple[str, ...] = ()
    has_children: bool = False


@dataclass(frozen=True)
class Landmark:
    """A place that the guide or the landmarks name: "cover", "copyright-page", "bodymatter", ..."""

    types: frozenset[str]
    path: str
    fragment: str


class Unreadable(Exception):
    """A file inside the book cannot be read; the message says why."""


@dataclass
class Package:
    """An opened book."""

    name: str
    archive: zipfile.ZipFile
    opf_path: str = ""
    limits: UnpackLimits = field(default_factory=UnpackLimits)
    items: dict[str, ManifestItem] = field(default_factory=dict)
    spine: list[ManifestItem] = field(default_factory=list)
    toc: list[TocEntry] = field(default_factory=list)
    landmarks: list[Landmark] = field(default_factory=list)
    metadata: dict[str, list[str]] = field(default_factory=dict)
    cover_id: str = ""
    warnings: list[str] = field(default_factory=list)

    def read(self, path: str) -> bytes:
        """Return the bytes of one file of the book.

        Raises:
            Unreadable: when it is missing, damaged, encrypted or too large.
        """
        try:
            info = self.archive.getinfo(path)
        except KeyError:
            raise Unreadable(f"{path} is not in the file") from None
        if info.file_size > self.limits.file_bytes:
            raise Unreadable(f"{path} is larger than {self.limits.file_bytes >> 20} MiB")
        try:
            return self.archive.read(info)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            raise Unreadable(f"{path} is damaged ({error})") from error
        except (RuntimeError, NotImplementedError) as error:  # a zip password, or unknown compression
            raise Unreadable(f"{path} cannot be unpacked ({error})") from error

    def locate(self, href: str, base: str) -> tuple[str, str]:
        """Return (path in the zip, fragment) of a link in the file `base`; path "" for a link out of the book."""
        try:
            parts = urlsplit(href.strip())
        except ValueError:
            return "", ""
        if parts.scheme or parts.netloc:
            return "", ""
        fragment = unquote(parts.fragment)
        if not parts.path:
            return base, fragment
        path = posixpath.normpath(posixpath.join(posixpath.dirname(base), unquote(parts.path)))
        if path.startswith(("..", "/")):
            self.warnings.append(f"{base}: link {href!r} leads out of the book: ignored")
            return "", ""
        return path, fragment


def refuse_bomb(package: Package) -> None:
    """Raise TextError where the zip exceeds the limits."""
    limits, infos = package.limits, package.archive.infolist()
    total = sum(info.file_size for info in infos)
    dense = [i for i in infos if i.file_size > 1 << 20 and i.file_size > limits.ratio * max(i.compress_size, 1)]
    if len(infos) > limits.files or total > limits.total_bytes or dense:
        what = f"{dense[0].filename} unpacks to {dense[0].file_size} bytes" if dense else f"it unpacks to {total} bytes"
        raise TextError(
            f"{package.name}: refused as a zip bomb ({what}, {len(infos)} files)",
            "a real book is far smaller; get it from another source",
        )


def refuse_drm(package: Package) -> None:
    """Raise TextError for encrypted documents or licence files of known DRM. Obfuscated fonts are no DRM."""
    names = {info.filename for info in package.archive.infolist()}
    for path, kind in (("META-INF/sinf.xml", "Apple FairPlay"), ("META-INF/license.lcpl", "Readium LCP")):
        if path in names:
            raise TextError(f"{package.name}: the book has DRM ({kind}: {path})", _DRM_REMEDY)
    encrypted = _encrypted(package) if "META-INF/encryption.xml" in names else []
    if encrypted:
        raise TextError(
            f"{package.name}: the book has DRM ({len(encrypted)} encrypted files, first {encrypted[0]})", _DRM_REMEDY
        )
    if "META-INF/rights.xml" in names:
        try:
            rights = package.read("META-INF/rights.xml")
        except Unreadable:
            rights = b"encryptedKey"
        if re.search(rb"ns\.adobe\.com/adept|encryptedKey|licenseToken", rights):
            raise TextError(f"{package.name}: the book has DRM (Adobe ADEPT: META-INF/rights.xml)", _DRM_REMEDY)


def _encrypted(package: Package) -> list[str]:
    try:
        root = parse_xml(package.read("META-INF/encryption.xml"))
    except (Unreadable, etree.XMLSyntaxError, ValueError) as error:
        package.warnings.append(f"META-INF/encryption.xml cannot be read ({error}): taken as not encrypted")
        return []
    found = []
    for entry in descendants(root, "EncryptedData"):
        method = next((m.get("Algorithm") or "" for m in descendants(entry, "EncryptionMethod")), "")
        if method not in _FONT_OBFUSCATION:
            found += [unquote(reference.get("URI") or "?") for reference in descendants(entry, "CipherReference")] or [
                "?"
            ]
    return found


def descendants(element: etree._Element, *names: str) -> list[etree._Element]:
    """Return descendants by local name in any namespace, since books get namespaces wrong."""
    return [e for e in element.iter() if isinstance(e.tag, str) and etree.QName(e).localname in names]
