"""Texts as characters by a table of tokens that a published model brings."""

from __future__ import annotations

from dataclasses import dataclass

from flowtts_core.errors import ConfigError
from flowtts_core.text.frontends.base import EncodedText, Frontend, encode_pieces
from flowtts_core.text.latin import plain_letters
from flowtts_core.text.normalize import normalize
from flowtts_core.text.own_words import OwnWords


@dataclass(frozen=True)
class LetterConfig:
    """Settings of the front end.

    Attributes:
        table: character -> token.
        language: English ("en...") and German ("de...") are written out in words first; with "" texts are taken as they stand.
        lexicon: the user's words, as texts; see `flowtts_core.text.own_words`.
    """

    table: dict[str, int]
    language: str = "en-us"
    lexicon: dict[str, str] | None = None

    def __post_init__(self) -> None:
        if not self.table or any(not 0 <= token < 100_000 for token in self.table.values()):
            raise ConfigError(
                "LetterConfig.table: a token is not from 0 to 99999", "take the table from the voice again"
            )


class LetterFrontend(Frontend):
    """One token for each character: as it is written, else in the case that the table has, else in plain letters."""

    def __init__(self, config: LetterConfig) -> None:
        self.config = config
        self._own = OwnWords(config.lexicon) if config.lexicon else None

    @property
    def n_symbols(self) -> int:
        return max(self.config.table.values()) + 1

    def encode(self, text: str) -> EncodedText:
        pieces = normalize(text, self.config.language, own=self._own)
        return encode_pieces(text, pieces, self._symbols, "among the characters of its table")

    def load(self) -> None:
        """Nothing is loaded."""

    def _symbols(self, text: str) -> tuple[list[int], list[str]]:
        tokens: list[int] = []
        unknown: list[str] = []
        for character in text:
            plain = plain_letters(character)
            forms = (character, character.lower(), character.upper(), plain, plain.lower(), plain.upper())
            known = next((form for form in forms if form and self.config.table.keys() >= set(form)), None)
            if known is None:
                unknown.append(character)
            else:
                tokens += [self.config.table[one] for one in known]
        return tokens, unknown
