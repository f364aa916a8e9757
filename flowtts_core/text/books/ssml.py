"""Read an SSML file into a `Document` of one chapter, whose text has marks."""

from __future__ import annotations

import re

from flowtts_core.errors import TextError
from flowtts_core.text.books.decode import decode_text
from flowtts_core.text.books.plain import title_from_name
from flowtts_core.text.document import Document
from flowtts_core.text.sentences import Block, Pauses, build_chapter, collapse
from flowtts_core.text.ssml import from_ssml


def read_ssml(data: bytes, name: str, pauses: Pauses | None = None) -> Document:
    """Read an SSML file.

    Raises:
        TextError: when it is no text, or asks for what is not followed; it names the file and the line.
    """
    text, warnings = decode_text(data, name)
    try:
        made = from_ssml(text)
    except TextError as error:
        raise TextError(f"{name}: {error.message}", error.remedy) from error
    title = title_from_name(name)
    blocks = [Block(collapse(part)) for part in re.split(r"\n[^\S\n]*\n", made.text)]
    chapter = build_chapter(title, blocks, pauses)
    if not chapter.sentences:
        raise TextError(f"{name}: no text to read in it", "give a file with words in it")
    return Document(title=title, chapters=(chapter,), warnings=tuple(warnings))
