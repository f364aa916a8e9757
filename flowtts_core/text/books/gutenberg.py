"""Read Project Gutenberg's plain text into a `Document`: cut the licence off, join lines, find chapters."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from flowtts_core.errors import TextError
from flowtts_core.text.books.chapters import Paragraph, cut_chapters, paragraphs_of
from flowtts_core.text.books.decode import decode_text
from flowtts_core.text.books.matter import MATTER, NOTES
from flowtts_core.text.document import Document, LeftOut
from flowtts_core.text.sentences import Pauses, collapse, finish_chapters

_START = re.compile(
    r"^[^\S\n]*\*{3}\s*START\s+OF\s+(?:THE|THIS)\s+PROJECT\s+GUTENBERG\s+E-?(?:BOOK|TEXT)[^*]{0,400}\*{3}[^\n]*\n",
    re.IGNORECASE | re.MULTILINE,
)
_OLD_START = re.compile(r"^\*END\*?\s*THE SMALL PRINT[^\n]*\n", re.IGNORECASE | re.MULTILINE)
_END = re.compile(
    r"^[^\S\n]*(?:\*{3}\s*END\s+OF\s+(?:THE|THIS)\s+PROJECT\s+GUTENBERG|"
    r"End\s+of\s+(?:the\s+|this\s+)?Project\s+Gutenberg)",
    re.IGNORECASE | re.MULTILINE,
)
_FIELD = r"^{}:[^\S\n]*(\S[^\n]*(?:\n[^\S\n]+\S[^\n]*)*)"
_CREDITS = re.compile(
    r"(?:this )?(?:e-?(?:book|text) (?:was )?)?(?:produced|prepared|transcribed|scanned) (?:by|from)\b", re.I
)
_BRACKETED = re.compile(
    r"\[(?:Illustration|Sidenote|Footnote)\b[^\[\]]{0,9999}(?:\[[^\[\]]{0,99}\][^\[\]]{0,9999}){0,99}\]", re.IGNORECASE
)
_FOOTNOTE = re.compile(r"\[Footnote", re.IGNORECASE)
_NUMBERED = re.compile(r"\[(?:\d{1,3}|[A-Z*])\]\s")
_NOTE = re.compile(rf"{_FOOTNOTE.pattern}|(?-i:{_NUMBERED.pattern})", re.IGNORECASE)
_PAGE_MARK = re.compile(r"\{\d{1,4}\}|\[(?:pg|p|page)\.? ?\d{1,4}\]", re.IGNORECASE)
_LICENCE = "header and licence of Project Gutenberg"
_NOTE_MARK = re.compile(r"[^\S\n]?\[(?:\d{1,3}|[A-Z*†])\]")
_LANGUAGES = {
    **{"english": "en", "german": "de", "french": "fr", "spanish": "es", "italian": "it", "dutch": "nl"},
    **{"portuguese": "pt", "finnish": "fi", "swedish": "sv", "danish": "da", "polish": "pl", "latin": "la"},
    **{"japanese": "ja", "chinese": "zh", "korean": "ko", "russian": "ru", "greek": "el", "hungarian": "hu"},
    **{"norwegian": "no", "czech": "cs", "catalan": "ca", "welsh": "cy", "esperanto": "eo", "tagalog": "tl"},
}


def is_gutenberg(text: str) -> bool:
    """Return whether a text, or its beginning, has Project Gutenberg's header."""
    head = text[:40_000]
    return bool(_START.search(head) or (_OLD_START.search(head) and "gutenberg" in head.lower()))


def story_between(texts: Sequence[str]) -> slice:
    """Return which passages of a page lie between Project Gutenberg's header and its licence; all where it has neither."""
    start = next((n + 1 for n, text in enumerate(texts) if _START.search(f"{text}\n")), 0)
    end = next((n for n, text in enumerate(texts) if n >= start and _END.search(text)), len(texts))
    return slice(start, end)


def read_gutenberg(
    data: bytes,
    name: str,
    include_matter: bool = False,
    include_notes: bool = False,
    pauses: Pauses | None = None,
    notes_last: bool = False,
) -> Document:
    """Read a Project Gutenberg text.

    Args:
        include_matter: keep what comes before the first chapter (title page, contents, dedication).
        include_notes: keep footnotes at their places, or with `notes_last` at the end of their chapter.

    Raises:
        TextError: when it is not text, or nothing is left between header and footer.
    """
    text, warnings = decode_text(data, name)
    start = _START.search(text) or _OLD_START.search(text)
    header, body = (text[: start.end()], text[start.end() :]) if start else ("", text)
    end = _END.search(body)
    licence = body[end.start() :] if end else ""
    if end:
        body = body[: end.start()]
    elif start:
        warnings.append("no end mark of Project Gutenberg: the file may be cut off, or its licence is read too")
    title = _field(header, "Title") or name.replace("\\", "/").rsplit("/", 1)[-1].rsplit(".", 1)[0]
    paragraphs, dropped = _cleaned(body, include_notes)
    drafts, front = cut_chapters(paragraphs, title, include_matter)
    around = [LeftOut(_LICENCE, place, collapse(text)) for place, text in (("before", header), ("after", licence))]
    left_out = [around[0], *front, *dropped, around[1]]
    for draft in drafts if notes_last else ():
        draft.blocks = [replace(b, note=not b.level and bool(_NOTE.match(b.text))) for b in draft.blocks]
    chapters, empty = finish_chapters(drafts, pauses, notes_last=notes_last)
    if not chapters:
        raise TextError(
            f"{name}: no text between Project Gutenberg's header and footer", "download the book again as plain text"
        )
    number = re.search(r"e-?(?:book|text) #(\d+)\]", header, re.IGNORECASE)
    return Document(
        title=title,
        chapters=chapters,
        author=_field(header, "Author"),
        language=_LANGUAGES.get(_field(header, "Language").lower(), ""),
        identifier=f"https://www.gutenberg.org/ebooks/{number[1]}" if number else "",
        warnings=(*warnings, *empty),
        left_out=tuple(each for each in left_out if any(map(str.isalnum, each.text))),
    )


def _field(header: str, field: str) -> str:
    match = re.search(_FIELD.format(field), header, re.MULTILINE)
    return " ".join(match[1].split()) if match else ""


def _cleaned(body: str, include_notes: bool) -> tuple[list[Paragraph], list[LeftOut]]:
    """Return (paragraphs without pictures, page numbers, credits and italics marks, what was left out)."""
    dropped: list[LeftOut] = []

    def leave_out(reason: str, text: str) -> str:
        dropped.append(LeftOut(reason, "in the text", collapse(text)))
        return ""

    def bracketed(match: re.Match[str]) -> str:
        if not _FOOTNOTE.match(match[0]):
            return leave_out("pictures", match[0])
        return match[0] if include_notes else leave_out(NOTES, match[0])

    body = _BRACKETED.sub(bracketed, body)
    body = _PAGE_MARK.sub(lambda match: leave_out("page numbers", match[0]), body)
    paragraphs = []
    for number, paragraph in enumerate(paragraphs_of(body)):
        first, lines = paragraph.lines[0].strip(), "\n".join(paragraph.lines)
        if number < 8 and _CREDITS.match(first):
            leave_out(MATTER, lines)
            continue
        note = _NUMBERED.match(first) or re.fullmatch(r"footnotes?:?", first, re.IGNORECASE)
        if note and not include_notes:
            leave_out(NOTES, lines)
            continue
        lines = _NOTE_MARK.sub(lambda match: leave_out("note marks", match[0]), lines)
        lines = re.sub(r"(?<![^\W_])_([^_]+)_(?![^\W_])", r"\1", lines)
        lines = re.sub(r"(?<!\w)=([^=\n]+)=(?!\w)", r"\1", lines)
        if lines.strip():
            paragraphs.append(Paragraph(tuple(lines.split("\n"))))
    return paragraphs, dropped
