"""Recognise the format of a text by its content and its name's suffix; refuse what cannot be read, with a remedy for each."""

from __future__ import annotations

import json
import re
from typing import Literal, cast, get_args

from flowtts_core.errors import TextError
from flowtts_core.text.books.decode import decode_text
from flowtts_core.text.books.gutenberg import is_gutenberg

Book = Literal["epub", "gutenberg", "plain", "html", "markdown", "docx", "odt", "rtf", "fb2", "pdf", "kindle", "ssml"]
Table = Literal["jsonl", "csv", "tsv", "parquet", "srt", "vtt"]
Format = Book | Table
BOOKS: tuple[Book, ...] = get_args(Book)
TABLES: tuple[Table, ...] = get_args(Table)
HEAD = 65_536  # bytes that tell the format

_SUFFIXES: dict[str, Format] = {
    **{"epub": "epub", "kepub": "epub", "txt": "plain", "text": "plain", "asc": "plain"},
    **{"html": "html", "htm": "html", "xhtml": "html", "md": "markdown", "markdown": "markdown"},
    **{"docx": "docx", "odt": "odt", "rtf": "rtf", "fb2": "fb2", "fbz": "fb2", "pdf": "pdf"},
    **dict.fromkeys(("mobi", "azw", "azw3", "azw4", "prc", "kfx"), "kindle"),
    **{"parquet": "parquet", "pq": "parquet", "jsonl": "jsonl", "ndjson": "jsonl", "json": "jsonl"},
    **{"csv": "csv", "tsv": "tsv", "tab": "tsv", "srt": "srt", "vtt": "vtt", "ssml": "ssml"},
}
_EPUB_OR_TEXT = "save or convert it as EPUB or plain text first"
_PANDOC = "convert it first: pandoc FILE -o FILE.epub; or rename it to .txt if it is plain prose"
_AS_CSV = "save the sheet as CSV (UTF-8), with a column `text`"
_SOUND = "give the text that is to be spoken; `flowtts evaluate` and `flowtts prepare` take recordings"
_UNREAD = {  # suffix -> (what it is, remedy): taken from folders too, so that none is passed over in silence
    "doc": ("an old Word file", "save it as DOCX, EPUB or plain text"),
    "djvu": ("a DjVu file", "its pages are pictures: recognise the characters first, and save them as plain text"),
    **dict.fromkeys(("xls", "xlsx", "ods"), ("a spreadsheet", _AS_CSV)),
    **dict.fromkeys(("ppt", "pptx", "odp"), ("slides", _EPUB_OR_TEXT)),
    **dict.fromkeys(("lit", "pdb", "lrf", "chm", "snb"), ("an e-book of an old kind", "convert it: ebook-convert FILE x.epub")),
    **dict.fromkeys(("tex", "rst", "org", "adoc", "asciidoc", "textile", "typ"), ("a text with markup", _PANDOC)),
    "ass": ("subtitles in Substation form", "save them as SRT or VTT"),
}  # fmt: skip
SUFFIXES = tuple(f".{suffix}" for suffix in (*_SUFFIXES, *_UNREAD) if suffix != "json")  # what is taken from folders
_MAGIC = (  # bytes at the start of a file that has control characters -> what it is, remedy
    (b"\xd0\xcf\x11\xe0", "an old Word file", "save it as DOCX, EPUB or plain text"),
    (b"\x1f\x8b", "a gzip file", "unpack it: gunzip FILE"),
    *((magic, "an archive", "unpack it first") for magic in (b"7z\xbc\xaf\x27\x1c", b"Rar!", b"BZh", b"\xfd7zXZ")),
    *((magic, "a picture", "recognise its characters first") for magic in (b"\x89PNG", b"\xff\xd8\xff", b"GIF8")),
    *((magic, "a picture", "recognise its characters first") for magic in (b"II*\0", b"MM\0*")),
    *((magic, "a recording", _SOUND) for magic in (b"RIFF", b"fLaC", b"OggS", b"ID3", b"\xff\xfb", b"\x1aE\xdf\xa3")),
    (b"AT&TFORM", "a DjVu file", "recognise its characters first, and save them as plain text"),
    (b"ITOLITLS", "a Microsoft Reader book", "convert it: ebook-convert FILE x.epub"),
    (b"ITSF", "a compiled help file", "convert it: ebook-convert FILE x.epub"),
    (b"\x7fELF", "a program", "give a text"),
    (b"SQLite format 3", "a database", "write its texts as CSV or JSONL"),
)  # fmt: skip
_ZIPS = (  # a name in the head of a zip -> its format, or what it is and the remedy
    (b"word/", "docx"),
    (b"application/vnd.oasis.opendocument.text", "odt"),
    (b"application/vnd.oasis.opendocument.spreadsheet", ("a spreadsheet", _AS_CSV)),
    (b"xl/", ("a spreadsheet", _AS_CSV)),
    (b"ppt/", ("slides", _EPUB_OR_TEXT)),
    (b".fb2", "fb2"),
)
_HTML = re.compile(
    r"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body|div|p|h[1-6]|article|section|main|span|table)\b",
    re.IGNORECASE | re.DOTALL,
)
_PAGE = re.compile(r"\s*(?:<\?xml[^>]*>\s*)?<(?:!doctype\s+html|html)\b", re.IGNORECASE)
_HTML_TAG = re.compile(r"</(?:p|div|h[1-6]|li|td|span)>|<br ?/?>", re.IGNORECASE)
_XML = re.compile(
    r"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*|<!DOCTYPE[^>]*>\s*|<\?[^>]*>\s*)*<(?:\w+:)?(\w+)[\s>/]", re.DOTALL
)
_JSON_ARRAY = re.compile(r"\s*\[\s*\{\s*\"")
_SRT = re.compile(r"\s*(?:\d+\s*\n)?\s*\d+:\d\d:\d\d[,.]\d+\s*-->")


def detect_head(head: bytes, name: str) -> Format:
    """Return the format of a text, by its first 64 KiB or, where they do not tell, by its name's suffix.

    Raises:
        TextError: for what cannot be read, with a remedy for each kind.
    """
    suffix = suffix_of(name)
    if head[:4] == b"PAR1":
        return "parquet"
    if head[:2] == b"PK":
        return _of_zip(head, name, suffix)
    if head[:4] == b"%PDF":
        return "pdf"
    if head[60:68] in (b"BOOKMOBI", b"TEXtREAd") or head[:4] == b"TPZ0" or head[:8] == b"\xeaDRMION\xee":
        return "kindle"
    if head[:5] == b"{\\rtf":
        return "rtf"
    if head[4:8] == b"ftyp":
        raise TextError(f"{name}: a recording, which cannot be read", _SOUND)
    binary = any(byte < 9 for byte in head[:512])
    for magic, what, remedy in _MAGIC if binary else ():
        if head.startswith(magic):
            raise TextError(f"{name}: {what}, which cannot be read", remedy)
    if suffix in _UNREAD:
        what, remedy = _UNREAD[suffix]
        raise TextError(f"{name}: {what}, which cannot be read", remedy)
    given = _SUFFIXES.get(suffix)
    if given in ("epub", "parquet", "pdf", "docx", "odt", "kindle"):
        return cast(Format, given)  # damaged: its reader gives the reason
    text, _ = decode_text(_whole_characters(head), name)
    return _of_text(text, name, given)


def _of_text(text: str, name: str, given: Format | None) -> Format:
    if given in ("jsonl", "csv", "tsv"):
        return given
    if given == "ssml":
        return given  # whose reader names what is wrong with it
    if given == "markdown" and not _PAGE.match(text):
        return given  # it may have tags in it
    marked = _of_markup(text, name)
    if marked:
        return marked
    if given in ("html", "fb2", "rtf"):
        if given == "html":
            return given  # a page without tags is one paragraph
        raise TextError(f"{name}: no {given.upper()} file", "rename it to what it is, as .txt, or get it again")
    if text.startswith("WEBVTT"):
        return "vtt"
    if _SRT.match(text):
        return "srt"
    if given in ("srt", "vtt"):
        return given
    if is_gutenberg(text):
        return "gutenberg"
    if given == "plain" and _by_lines(text) != "jsonl":
        return "plain"
    suffix = suffix_of(name)
    found = _by_lines(text)
    if found == "plain" and suffix and not given:
        known = ", ".join(f".{each}" for each in _SUFFIXES)
        raise TextError(
            f"{name}: a text of an unknown kind (.{suffix})",
            f"rename it to .txt if it is plain prose; known are {known}",
        )
    return found


def _of_markup(text: str, name: str) -> Format | None:
    """Return the format of a text that is markup, whatever its name says; None for prose.

    Raises:
        TextError: for markup that cannot be read.
    """
    root = _XML.match(text)
    if root and root[1] == "FictionBook":
        return "fb2"
    if _HTML.match(text) or len(_HTML_TAG.findall(text[:HEAD])) >= 10:
        return "html"
    if root and root[1] == "speak":
        return "ssml"
    if text.lstrip()[:5] == "<?xml" or (root and f"</{root[1]}>" in text):
        raise TextError(f"{name}: XML of an unknown kind (<{root[1] if root else '?'}>)", _PANDOC)
    if re.match(r"\s*(?:%[^\n]*\n\s*)*\\(?:documentclass|input|begin)\b", text):
        raise TextError(f"{name}: a LaTeX source, which cannot be read", _PANDOC)
    return None


def _of_zip(head: bytes, name: str, suffix: str) -> Format:
    if suffix in ("epub", "kepub") or b"application/epub+zip" in head[:200] or b"META-INF/container.xml" in head:
        return "epub"
    for mark, found in _ZIPS:
        if mark in head:
            if isinstance(found, str):
                return cast(Format, found)
            raise TextError(f"{name}: {found[0]}, which cannot be read", found[1])
    if suffix in ("docx", "odt", "fb2", "fbz"):
        return _SUFFIXES[suffix]
    raise TextError(f"{name}: a zip file, but no EPUB", "unpack it, or save the document as EPUB or plain text")


def suffix_of(name: str) -> str:
    """Return the suffix of a file's name in lower case, without its dot; "" for none or for a number ("Part.2")."""
    base = name.replace("\\", "/").rsplit("/", 1)[-1]
    suffix = base.rsplit(".", 1)[-1].lower() if "." in base.lstrip(".") else ""
    return suffix if re.fullmatch(r"(?=.*[a-z])[a-z0-9]{1,10}", suffix) else ""


def misnamed(kind: Format, name: str) -> str:
    """Return a warning where a file is read as what its name does not say; "" where they agree."""
    suffix = suffix_of(name)
    told = _SUFFIXES.get(suffix)
    if told is None or told == kind or kind == "gutenberg":
        return ""
    return f"{name}: {_SHOWN.get(kind, kind.upper())} in spite of its suffix .{suffix}, and read as such"


_SHOWN: dict[Format, str] = {
    "plain": "plain text",
    "markdown": "Markdown",
    "kindle": "a Kindle book",
    "parquet": "Parquet",
}


def _whole_characters(head: bytes) -> bytes:
    """Drop a UTF-8 character that the end of the head cuts in two."""
    if len(head) < HEAD:
        return head
    return head[: head.rfind(b"\n") + 1] or re.sub(rb"[\xc0-\xff][\x80-\xbf]{0,2}$", b"", head)


def _by_lines(text: str) -> Format:
    lines = [line for line in text.split("\n") if line.strip()][:5]
    if not lines:
        return "plain"
    if is_json_array(text):
        return "jsonl"
    try:
        if isinstance(json.loads(lines[0]), dict):
            return "jsonl"
    except ValueError:
        pass
    for format_, separator in (("tsv", "\t"), ("csv", ","), ("csv", ";")):
        if "text" in [cell.strip().lower() for cell in lines[0].split(separator)] and separator in lines[0]:
            return cast(Format, format_)
    if len(lines) > 1 and all(re.match(r"[\w.-]+\|\S", line) for line in lines):
        return "csv"
    return "plain"


def is_json_array(text: str) -> bool:
    """Return whether a text begins as an array of JSON objects does."""
    return bool(_JSON_ARRAY.match(text))
