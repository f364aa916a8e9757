"""Read the package document of an EPUB file: its metadata, spine, table of contents and cover."""

from __future__ import annotations

import base64
import binascii
import io
import re
import zipfile
from collections.abc import Iterator
from urllib.parse import unquote

from lxml import etree

from flowtts_core.errors import TextError
from flowtts_core.text.books.decode import mend
from flowtts_core.text.books.epub_zip import (
    DAMAGED_ZIP,
    Landmark,
    ManifestItem,
    Package,
    TocEntry,
    UnpackLimits,
    Unreadable,
    descendants,
    refuse_bomb,
    refuse_drm,
)
from flowtts_core.text.books.page import clean, types_of
from flowtts_core.text.books.xhtml import parse_xml

_DAMAGED_REMEDY = "download or copy the file again; `unzip -t FILE` says whether it is whole"
_RASTER = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}


def open_package(data: bytes, name: str, limits: UnpackLimits | None = None) -> Package:
    """Open a book held in memory; nothing is written to disk.

    Raises:
        TextError: for a damaged zip, a zip bomb, DRM, or a missing or broken package document.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except DAMAGED_ZIP as error:
        cause = "its end is missing" if data[:2] == b"PK" else "it is no zip file"
        raise TextError(f"{name}: damaged EPUB, {cause} ({error})", _DAMAGED_REMEDY) from error
    package = Package(name, archive, limits=limits or UnpackLimits())
    refuse_bomb(package)
    refuse_drm(package)
    package.opf_path = _opf_path(package)
    _read_opf(package)
    return package


def _opf_path(package: Package) -> str:
    names = [info.filename for info in package.archive.infolist()]
    try:
        root = parse_xml(package.read("META-INF/container.xml"))
        paths = [unquote(e.get("full-path") or "") for e in descendants(root, "rootfile")]
    except (Unreadable, etree.XMLSyntaxError, ValueError) as error:
        package.warnings.append(f"META-INF/container.xml cannot be read ({error})")
        paths = []
    for path in [*paths, *sorted((n for n in names if n.lower().endswith(".opf")), key=len)]:
        if path in names:
            return path
    raise TextError(
        f"{package.name}: no package document (.opf) in the zip; it is no EPUB or has lost a part", _DAMAGED_REMEDY
    )


def _read_opf(package: Package) -> None:
    try:
        data = package.read(package.opf_path)
    except Unreadable as error:
        raise TextError(f"{package.name}: {error}", _DAMAGED_REMEDY) from error
    try:
        root = parse_xml(data)
    except (etree.XMLSyntaxError, ValueError) as error:
        package.warnings.append(f"{package.opf_path} is not well-formed ({error}): read as far as it goes")
        try:
            root = parse_xml(data, recover=True)
        except (etree.XMLSyntaxError, ValueError) as again:
            raise TextError(f"{package.name}: {package.opf_path} cannot be read ({again})", _DAMAGED_REMEDY) from again
    for element in descendants(root, "title", "language", "identifier"):
        text = _label(element)
        if text:
            package.metadata.setdefault(etree.QName(element).localname, []).append(mend(text)[0])
    package.metadata["creator"] = _authors(root)
    package.cover_id = next((m.get("content") or "" for m in descendants(root, "meta") if m.get("name") == "cover"), "")
    _read_manifest(package, root)
    _read_toc(package, root)
    for reference in descendants(root, "reference"):
        path, fragment = package.locate(reference.get("href") or "", package.opf_path)
        kind = (reference.get("type") or "").lower()
        package.landmarks.append(Landmark(frozenset({_GUIDE.get(kind, kind)}), path, fragment))


def _authors(root: etree._Element) -> list[str]:
    """Return the creators that wrote the book, without its translators, illustrators and readers."""
    roles = {
        (meta.get("refines") or "").lstrip("#"): _label(meta)
        for meta in descendants(root, "meta")
        if meta.get("property") == "role"
    }
    named: list[tuple[str, str]] = []
    for element in descendants(root, "creator"):
        role = element.get(_ROLE) or element.get("role") or roles.get(element.get("id") or "", "")
        named.append((mend(_label(element))[0], role.lower()))
    authors = [name for name, role in named if name and role in ("", "aut")]
    return authors or [name for name, role in named if name and role not in _NO_AUTHORS]


_ROLE = "{http://www.idpf.org/2007/opf}role"
_NO_AUTHORS = frozenset(
    {"bkp", "cov", "ill", "nrt", "pbl", "trl"}
)  # MARC's codes: producer, cover, illustrator, narrator, ...
_GUIDE = {"title-page": "titlepage", "text": "bodymatter", "notes": "endnotes", "acknowledgements": "acknowledgments"}


def _read_manifest(package: Package, root: etree._Element) -> None:
    for element in descendants(root, "item"):
        path, _ = package.locate(element.get("href") or "", package.opf_path)
        media_type = (element.get("media-type") or "").lower()
        package.items[element.get("id") or ""] = ManifestItem(
            path, media_type, tuple((element.get("properties") or "").split())
        )
    for reference in descendants(root, "itemref"):
        identity = reference.get("idref") or ""
        item = package.items.get(identity)
        if item is None:
            package.warnings.append(f"spine item {identity!r} is not in the manifest: left out")
        elif reference.get("linear") != "no" and item.path:
            package.spine.append(item)


def _read_toc(package: Package, root: etree._Element) -> None:
    """Read the EPUB 3 navigation document or, where it is absent or empty, the EPUB 2 NCX."""
    nav = next((i for i in package.items.values() if "nav" in i.properties), None)
    spine_toc = next((s.get("toc") or "" for s in descendants(root, "spine")), "")
    ncx = package.items.get(spine_toc) or next(
        (i for i in package.items.values() if i.media_type == "application/x-dtbncx+xml"), None
    )
    for item, read in ((nav, _read_nav), (ncx, _read_ncx)):
        if item is None or package.toc:
            continue
        try:
            read(package, item.path, parse_xml(package.read(item.path), recover=True))
        except (Unreadable, etree.XMLSyntaxError, ValueError) as error:
            package.warnings.append(f"table of contents cannot be read ({error})")


def _label(element: etree._Element) -> str:
    return clean("".join(element.itertext())).replace("\n", " ")


def _children(element: etree._Element, *names: str) -> list[etree._Element]:
    return [e for e in element if isinstance(e.tag, str) and etree.QName(e).localname in names]


def _read_nav(package: Package, base: str, root: etree._Element) -> None:
    navs = descendants(root, "nav")
    toc = next((n for n in navs if "toc" in types_of(n)), navs[0] if navs else None)

    def walk(listing: etree._Element, parents: tuple[str, ...]) -> None:
        for line in _children(listing, "li"):
            head = next(iter(_children(line, "a", "span")), None)
            if head is None:
                head = next(iter(descendants(line, "a")), None)
            nested = _children(line, "ol", "ul")
            title = _label(head) if head is not None else ""
            href = head.get("href") if head is not None else None
            path, fragment = package.locate(href, base) if href else ("", "")
            if title:
                package.toc.append(TocEntry(title, path, fragment, parents, bool(nested)))
            for inner in nested:
                walk(inner, (*parents, title) if title else parents)

    for listing in _children(toc, "ol", "ul") if toc is not None else []:
        walk(listing, ())
    for nav in navs:
        if "landmarks" in types_of(nav):
            for link in descendants(nav, "a"):
                path, fragment = package.locate(link.get("href") or "", base)
                package.landmarks.append(Landmark(frozenset(types_of(link)), path, fragment))


def _read_ncx(package: Package, base: str, root: etree._Element) -> None:
    def walk(parent: etree._Element, parents: tuple[str, ...]) -> None:
        for point in _children(parent, "navPoint"):
            label = next((_label(e) for e in _children(point, "navLabel")), "")
            source = next((e.get("src") or "" for e in _children(point, "content")), "")
            path, fragment = package.locate(source, base) if source else ("", "")
            if label:
                package.toc.append(TocEntry(label, path, fragment, parents, bool(_children(point, "navPoint"))))
            walk(point, (*parents, label) if label else parents)

    for nav_map in descendants(root, "navMap"):
        walk(nav_map, ())


def find_cover(package: Package) -> tuple[bytes | None, str]:
    """Return (bytes, media type) of the JPEG or PNG cover, or of the picture inside an SVG cover; (None, "") without one."""
    causes = []
    for path in dict.fromkeys(_covers(package)):
        try:
            data = package.read(path)
        except Unreadable as error:
            causes.append(str(error))
            continue
        if path.lower().endswith(".svg") or data.lstrip()[:5] in (b"<?xml", b"<svg "):
            data = _picture_in(package, path, data)
        media_type = next((kind for magic, kind in _RASTER.items() if data.startswith(magic)), "")
        if media_type:
            return data, media_type
        causes.append(f"{path} holds no JPEG or PNG")
    if causes:
        package.warnings.append(f"no cover: {causes[0]}")
    return None, ""


def _covers(package: Package) -> Iterator[str]:
    """Yield the files that may be the cover, the surest first: by property, metadata, guide, id, name; then the first page."""
    images = {identity: i.path for identity, i in package.items.items() if i.media_type.startswith("image/")}
    yield from (item.path for item in package.items.values() if "cover-image" in item.properties)
    if package.cover_id in package.items:
        yield package.items[package.cover_id].path
    for landmark in package.landmarks:
        if "cover" in landmark.types and landmark.path:
            yield from [landmark.path] if landmark.path in images.values() else _pictures_of(package, landmark.path)
    yield from (path for identity, path in images.items() if "cover" in identity.lower() or "cover" in path.lower())
    if package.spine:
        first = package.spine[0].path
        yield from [first] if first in images.values() else _pictures_of(package, first, alone=True)


def _pictures_of(package: Package, page: str, alone: bool = False) -> list[str]:
    """Return the first picture of a page as a list, empty for none or, with `alone`, where the page has text too."""
    try:
        root = parse_xml(package.read(page), recover=True)
    except (Unreadable, etree.XMLSyntaxError, ValueError):
        return []
    bodies = descendants(root, "body")
    if alone and bodies and "".join(bodies[0].itertext()).strip():
        return []
    for image in descendants(root, "img", "image"):
        href = image.get("src") or image.get("{http://www.w3.org/1999/xlink}href") or image.get("href") or ""
        path, _ = package.locate(href, page)
        if path:
            return [path]
    return []


def _picture_in(package: Package, base: str, data: bytes) -> bytes:
    for match in re.finditer(rb"""href=["']([^"']{1,40000000})["']""", data):
        href = match[1].decode("utf-8", "replace")
        try:
            if href.startswith("data:image/") and ";base64," in href[:40]:
                return base64.b64decode(re.sub(r"\s+", "", href.split(",", 1)[1]), validate=True)
            path, _ = package.locate(href, base)
            if path.lower().endswith((".jpg", ".jpeg", ".png")):
                return package.read(path)
        except (binascii.Error, ValueError, Unreadable):
            continue
    return b""
