"""Text to tokens: normalise, phonemise, map to the symbol table, and remember which characters each token came from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FrontendConfig:
    """Settings of a front end; stored in the voice's card.

    Attributes:
        phonemizer: "gruut" (default) or "espeak" (optional extra).
        language: as the phonemizer names it.
        symbols: name of the symbol table; "matcha" is the 178-symbol table of Matcha-TTS and VITS.
        add_blank: put the blank token 0 between and around tokens, as Matcha-TTS does.
        lexicon: word -> IPA, which goes before the phonemizer.
    """

    phonemizer: str = "gruut"
    language: str = "en-us"
    symbols: str = "matcha"
    add_blank: bool = True
    lexicon: dict[str, str] | None = None


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
    tokens: tuple[int, ...]  # [L]
    spans: tuple[tuple[int, int], ...]  # [L] source characters (start, end) of each token
    words: tuple[Word, ...]
    phonemes: str  # IPA, for people


class TextFrontend:
    """`encode(text) -> EncodedText`.

    Raises:
        TextError: when nothing in the text can be spoken (for instance another script), naming the characters.
    """
