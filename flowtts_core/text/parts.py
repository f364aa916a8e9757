"""A text as the parts that a model speaks one by one, encoded; and their plain form, which travels between processes.

The front end (words, IPA, tokens) needs no model, so a job may run it on other machines than those that hold the model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from flowtts_core.errors import TextError
from flowtts_core.text.chunking import speakable_chunks
from flowtts_core.text.frontends import EncodedText, PhonemeFrontend, Word

MAX_TOKENS = 400  # of one pass through the model (about 17 s of speech); longer texts are split at clauses


@dataclass(frozen=True)
class TextPart:
    """`encoded` begins at character `offset` of the whole text."""

    offset: int
    encoded: EncodedText


def encode_parts(text: str, frontend: PhonemeFrontend, max_tokens: int = MAX_TOKENS) -> tuple[TextPart, ...]:
    """The text's tokens, in parts where it is too long for one pass.

    Raises:
        TextError: when nothing in the text can be spoken.
    """
    if len(text) <= 2 * max_tokens:  # English has about 2 tokens a character, blanks included: longer ones never fit
        encoded = frontend.encode(text)
        if len(encoded.tokens) <= max_tokens:
            return (TextPart(0, encoded),)
    parts: list[TextPart] = []
    chunks = speakable_chunks(text, frontend, max_tokens)
    for chunk in chunks:
        try:
            parts.append(TextPart(chunk.start, frontend.encode(chunk.text)))
        except TextError:
            if not parts and chunk is chunks[-1]:
                raise
    return tuple(parts)


def pack_parts(parts: tuple[TextPart, ...]) -> str:
    """As JSON, without what only a person reads."""
    return json.dumps(
        [
            [
                part.offset,
                part.encoded.tokens,
                [[word.start, word.end, word.token_start, word.token_end] for word in part.encoded.words],
                part.encoded.phonemes,
            ]
            for part in parts
        ],
        ensure_ascii=False,
    )


def unpack_parts(packed: str, text: str) -> tuple[TextPart, ...]:
    """From `pack_parts`; `text` is the whole text. The characters of single tokens (`EncodedText.spans`) are gone."""
    found = []
    for offset, tokens, words, phonemes in json.loads(packed):
        told = tuple(Word(text[offset + a : offset + b], a, b, first, last) for a, b, first, last in words)
        found.append(TextPart(offset, EncodedText(tuple(tokens), (), told, phonemes)))
    return tuple(found)
