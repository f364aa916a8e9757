"""Texts as characters, or as bytes, for models that learn to pronounce by themselves."""

from __future__ import annotations

from dataclasses import dataclass

from flowtts_core.errors import ConfigError
from flowtts_core.text.frontends.base import EncodedText, Frontend, encode_pieces
from flowtts_core.text.latin import plain_letters
from flowtts_core.text.normalize import normalize
from flowtts_core.text.own_words import OwnWords

LATIN = " '-,.;:!?\"abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class CharacterConfig:
    """Settings of the character front end.

    Attributes:
        characters: those that have a token, in order; the first is token 1, and 0 is padding.
        language: English ("en...") and German ("de...") are written out in words first; other texts are taken as they stand.
        lower_case: letters are lower-cased first.
        lexicon: the user's words, as texts; see `flowtts_core.text.own_words`.
    """

    characters: str = LATIN
    language: str = "en-us"
    lower_case: bool = True
    lexicon: dict[str, str] | None = None

    def __post_init__(self) -> None:
        if not self.characters or len(set(self.characters)) < len(self.characters):
            raise ConfigError(f"CharacterConfig.characters = {self.characters!r}", "give each character once")


class CharacterFrontend(Frontend):
    """One token for each character; a letter that has none is taken without its accent, or in Latin letters."""

    def __init__(self, config: CharacterConfig) -> None:
        self.config = config
        self._own = OwnWords(config.lexicon) if config.lexicon else None
        self._ids = {character: i + 1 for i, character in enumerate(config.characters)}

    @property
    def n_symbols(self) -> int:
        return len(self._ids) + 1

    def encode(self, text: str) -> EncodedText:
        pieces = normalize(text, self.config.language, own=self._own)
        return encode_pieces(text, pieces, self._symbols, f"among the characters {self.config.characters[:40]!r}")

    def load(self) -> None:
        """Nothing is loaded."""

    def _symbols(self, text: str) -> tuple[list[int], list[str]]:
        text = text.lower() if self.config.lower_case else text
        tokens: list[int] = []
        unknown: list[str] = []
        for character in text:
            known = character if character in self._ids else plain_letters(character)
            if known and self._ids.keys() >= set(known):
                tokens += [self._ids[c] for c in known]
            else:
                unknown.append(character)
        return tokens, unknown


@dataclass(frozen=True)
class ByteConfig:
    """Settings of the byte front end; `language` and `lexicon` as `CharacterConfig` has them."""

    language: str = "en-us"
    lexicon: dict[str, str] | None = None


class ByteFrontend(Frontend):
    """One token for each byte of the text's UTF-8: byte b is token b + 1, and 0 is padding."""

    n_symbols = 257

    def __init__(self, config: ByteConfig) -> None:
        self.config = config
        self._own = OwnWords(config.lexicon) if config.lexicon else None

    def encode(self, text: str) -> EncodedText:
        pieces = normalize(text, self.config.language, own=self._own)
        return encode_pieces(
            text, pieces, lambda part: ([b + 1 for b in part.encode("utf-8", "replace")], []), "in bytes"
        )

    def load(self) -> None:
        """Nothing is loaded."""
