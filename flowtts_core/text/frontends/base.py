"""What a front end is: text in, tokens out, and which characters of the text each word's tokens came from."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from flowtts_core.errors import TextError
from flowtts_core.request import SynthesisRequest
from flowtts_core.text.pieces import Piece


@dataclass(frozen=True)
class Word:
    """A source word `text[start:end]` and its tokens `[token_start, token_end)`."""

    text: str
    start: int
    end: int
    token_start: int
    token_end: int


@dataclass(frozen=True)
class EncodedText:
    """A text as tokens.

    Attributes:
        tokens: [L].
        spans: [L] source characters (start, end) of each token; empty where the text was encoded in another process.
        phonemes: what is spoken, for people: IPA, or the characters.
        dropped: written words that could not be read, and symbols that the table lacks.
    """

    tokens: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    words: tuple[Word, ...]
    phonemes: str
    dropped: tuple[str, ...] = ()


class Frontend(Protocol):
    """Text to tokens; cheap to make, and picklable.

    Attributes:
        n_symbols: size of the token table, padding (0) included.
    """

    @property
    def n_symbols(self) -> int: ...

    def encode(self, text: str) -> EncodedText:
        """Return the tokens of a text.

        Raises:
            TextError: when nothing in the text can be spoken.
        """
        ...

    def load(self) -> None:
        """Load at once what the first texts would load bit by bit, for a process that is to answer fast."""
        ...

    def of(self, request: SynthesisRequest) -> Frontend:
        """Return the front end for a request, where its speaker or its language asks for one of its own."""
        return self


def encode_pieces(
    text: str, pieces: Iterable[Piece], symbols_of: Callable[[str], tuple[list[int], list[str]]], who: str
) -> EncodedText:
    """Encode pieces of normalised text symbol by symbol.

    Args:
        symbols_of: a piece's text to its tokens, and the symbols of it that have none.
        who: names the front end in an error.
    """
    tokens: list[int] = []
    spans: list[tuple[int, int]] = []
    words: list[Word] = []
    spoken: list[str] = []
    dropped: list[str] = []
    for piece in pieces:
        if piece.kind == "ipa":
            raise no_phonemes(text[piece.start : piece.end], piece.text)
        if piece.kind == "syllables":
            piece = piece._replace(text=piece.text.replace("-", ""))
        found, unknown = ([], [piece.text]) if piece.kind == "skip" else symbols_of(piece.text)
        dropped += unknown
        if not found:
            continue
        first = len(tokens)
        goes_on = piece.spoken and bool(words) and (words[-1].start, words[-1].end) == (piece.start, piece.end)
        if goes_on:  # "$3" is read as two words, with a blank between them where the voice has one
            blank = symbols_of(" ")[0]
            tokens += blank
            spans += [(piece.start, piece.end)] * len(blank)
            spoken.append(" ")
        tokens += found
        spans += [(piece.start, piece.end)] * len(found)
        spoken.append(piece.text)
        if piece.spoken:
            if goes_on:
                first = words.pop().token_start
            words.append(Word(text[piece.start : piece.end], piece.start, piece.end, first, len(tokens)))
    if not words:
        raise nothing_to_say(text, who)
    return EncodedText(tuple(tokens), tuple(spans), tuple(words), "".join(spoken), tuple(dropped))


def no_phonemes(word: str, ipa: str) -> TextError:
    """Return the error for phonemes in a text that a voice of letters is to read."""
    return TextError(f"{word!r} is given as phonemes ({ipa}), and this voice reads letters", "write the word alone")


def nothing_to_say(text: str, who: str, remedy: str = "give it some words") -> TextError:
    """Return the error for a text of which nothing can be spoken; it names the first characters."""
    characters = "".join(dict.fromkeys(c for c in text if not c.isspace()))[:20]
    if not characters:
        return TextError("there is no text to speak")
    names = ", ".join(f"{c!r} ({unicodedata.name(c, 'unnamed')})" for c in characters[:3])
    shown = f"nothing in the text can be spoken: {names}"
    if any(c.isalpha() for c in text):
        return TextError(f"{shown} has no sound {who}", remedy)
    return TextError(shown, "give it some words")
