"""Texts as phonemes: normalise, phonemise, map to the symbol table."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from flowtts_core.errors import ConfigError
from flowtts_core.text.frontends.base import EncodedText, Frontend, Word, no_phonemes, nothing_to_say
from flowtts_core.text.frontends.espeak import JOINED, EspeakPhonemizer
from flowtts_core.text.frontends.gruut import gruut_phonemizer
from flowtts_core.text.frontends.misaki import MisakiPhonemizer, to_misaki
from flowtts_core.text.frontends.openjtalk import OpenJtalkPhonemizer
from flowtts_core.text.frontends.respelling import as_one_word, syllable_ipa
from flowtts_core.text.frontends.symbols import symbol_table
from flowtts_core.text.given_phonemes import plural_ending
from flowtts_core.text.latin import plain_letters
from flowtts_core.text.normalize import normalize
from flowtts_core.text.own_words import OwnWords
from flowtts_core.text.pieces import Piece

log = logging.getLogger(__name__)
_OTHER_LANGUAGE = (
    "use a voice of that language, or pip install 'flowtts[espeak]' and a front end with phonemizer 'espeak'"
)


@dataclass(frozen=True)
class PhonemeConfig:
    """Settings of the phoneme front end; stored in the voice's card.

    Attributes:
        phonemizer: "gruut" (default), "misaki" (English of Kokoro's voices), "openjtalk" (their Japanese) and "espeak", both
            optional extras, or "letters", which takes the letters themselves.
        language: as the phonemizer names it.
        symbols: name of the symbol table; "matcha" is the 178-symbol table of Matcha-TTS and VITS.
        add_blank: put the blank token 0 between and around tokens, as Matcha-TTS does.
        lexicon: the user's words, which go before all else; see `flowtts_core.text.own_words`.
        table: symbol -> token, of a voice that has a table of its own; `symbols` does not count then.
        alphabet: what the symbols are: "ipa", or "misaki" (Kokoro's).
        begin, end: symbols before and after each text.
    """

    phonemizer: str = "gruut"
    language: str = "en-us"
    symbols: str = "matcha"
    add_blank: bool = True
    lexicon: dict[str, str] | None = None
    table: dict[str, int] | None = None
    alphabet: str = "ipa"
    begin: str = ""
    end: str = ""

    def __post_init__(self) -> None:
        if self.alphabet not in ("ipa", "misaki"):
            raise ConfigError(f"PhonemeConfig.alphabet = {self.alphabet!r}", "use ipa or misaki")
        if self.table is not None and any(not 0 <= token < 10_000 for token in self.table.values()):
            raise ConfigError(
                "PhonemeConfig.table: a token is not from 0 to 9999", "take the table from the voice again"
            )


class Phonemizer(Protocol):
    """IPA of each piece, empty for those that are not words; sees the whole text, so that it may look at neighbours.

    One that cuts texts otherwise than our normaliser has `pieces(text, own) -> pieces`.
    """

    def transcribe(self, pieces: Sequence[Piece]) -> list[str]: ...


# What gruut, espeak or a user's lexicon may write and the table lacks, in its symbols.
_IPA_SPELLINGS = {
    "g": "ɡ",
    "ɫ": "l",
    "\u0361": "",
    "\u035c": "",
    "'": "ˈ",
    "ˑ": "ː",
    "ɚ": "ɚ",
    "ɝ": "ɝ",
    "-": "",
    "\u0303": "n",
}


class PhonemeFrontend(Frontend):
    """`encode(text) -> EncodedText`; cheap to make, and fast once its words are cached.

    Raises:
        ConfigError: for a phonemizer, language or symbol table that does not exist.
        DependencyError: when the phonemizer's package is missing.
    """

    def __init__(self, config: PhonemeConfig | None = None) -> None:
        self.config = config or PhonemeConfig()
        table = self.config.table
        self._ids = symbol_table(self.config.symbols).ids if table is None else table
        lost = sorted({symbol for symbol in self.config.begin + self.config.end if symbol not in self._ids})
        if lost:
            raise ConfigError(f"the symbol table lacks {' '.join(lost)}", "every text begins or ends with it")
        if self.config.phonemizer not in PHONEMIZERS:
            known = ", ".join(sorted(PHONEMIZERS))
            raise ConfigError(f"unknown phonemizer {self.config.phonemizer!r}", f"use one of: {known}")
        self._phonemizer: Phonemizer = PHONEMIZERS[self.config.phonemizer](self.config.language)
        self._is_word = getattr(self._phonemizer, "knows", None)
        self._pieces = getattr(self._phonemizer, "pieces", None)
        self._own = OwnWords(self.config.lexicon) if self.config.lexicon else None
        if self._own is not None and self._own.has_patterns and self.config.phonemizer == "openjtalk":
            raise ConfigError("Japanese texts take no patterns of a lexicon", "give words in place of /patterns/")

    @property
    def n_symbols(self) -> int:
        return max(self._ids.values()) + 1

    def encode(self, text: str) -> EncodedText:
        """Tokens of `text`, with the source characters of each.

        Raises:
            TextError: when nothing in the text can be spoken (for instance another script), naming the characters.
        """
        if self._pieces is None:
            pieces = normalize(text, self.config.language, self._is_word, self._own)
        else:
            pieces = self._pieces(text, self._own)
        spoken = self._transcribe(pieces)
        out = _Writer(self._ids, isinstance(self._phonemizer, LetterPhonemizer))
        for piece, ipa in zip(pieces, spoken, strict=True):
            out.add(piece, ipa)
        if not out.words:
            who = f"in language {self.config.language!r} with phonemizer {self.config.phonemizer!r}"
            raise nothing_to_say(text, who, _OTHER_LANGUAGE)
        if out.dropped:
            log.debug("not spoken: %s", " ".join(out.dropped))
        return out.encoded(text, self.config)

    def symbols_of(self, encoded: EncodedText) -> list[str]:
        """Return the symbol [L] of each token of an encoded text; empty for blanks."""
        symbols = {token: symbol for symbol, token in self._ids.items() if token}
        return [symbols.get(token, "") for token in encoded.tokens]

    def load(self) -> None:
        """Load at once what the first sentences would load bit by bit (seconds), for a process that is to answer fast."""
        load = getattr(self._phonemizer, "load", None)
        if load is not None:
            load()

    def _transcribe(self, pieces: list[Piece]) -> list[str]:
        spoken = self._phonemizer.transcribe(pieces)
        if self.config.alphabet != getattr(self._phonemizer, "alphabet", "ipa"):
            spoken = [self._in_alphabet(ipa) for ipa in spoken]
        for i, piece in enumerate(pieces):
            if piece.kind == "ipa" and isinstance(self._phonemizer, LetterPhonemizer):
                raise no_phonemes(piece.text, piece.text)
            if piece.kind == "ipa":
                spoken[i] = self._in_alphabet(piece.text)
            elif piece.kind == "syllables":
                spoken[i] = self._of_syllables(piece.text)
        return spoken

    def _of_syllables(self, written: str) -> str:
        """Return the phonemes of a word from those of its syllables, of which English has some that are plain respellings."""
        stem = written.removesuffix("'s")
        syllables = stem.split("-")
        if isinstance(self._phonemizer, LetterPhonemizer):
            return self._phonemizer.transcribe([Piece("".join(written.split("-")), 0, 0, "word")])[0]
        known = [syllable_ipa(s) if self.config.language.startswith("en") else "" for s in syllables]
        spoken = [
            self._in_alphabet(ipa) or self._phonemizer.transcribe([Piece(syllable.lower(), 0, 0, "word")])[0]
            for syllable, ipa in zip(syllables, known, strict=True)
        ]
        ending = plural_ending(spoken[-1]) if stem != written else ""
        return as_one_word(syllables, spoken) + ending

    def _in_alphabet(self, ipa: str) -> str:
        return to_misaki(ipa, self.config.language.lower()) if self.config.alphabet == "misaki" else ipa

    def __reduce__(self) -> tuple[type[PhonemeFrontend], tuple[PhonemeConfig]]:
        return type(self), (self.config,)  # the models behind it are loaded anew where it arrives


class _Writer:
    """Collects symbols, keeping spaces single and marks on the word before them.

    Args:
        letters: what is spoken are letters, of which one that the table lacks has a plain form (ß: ss).
    """

    def __init__(self, ids: Mapping[str, int], letters: bool = False) -> None:
        self._ids, self._letters = ids, letters
        self._symbols: list[str] = []
        self._spans: list[tuple[int, int]] = []
        self._gap: tuple[int, int] | None = None  # a space, written only when something follows
        self._glue = False  # no space before the next word, for it follows an opening quotation mark
        self._quoted = False
        self.words: list[tuple[int, int, int, int]] = []
        self.dropped: list[str] = []

    def add(self, piece: Piece, ipa: str) -> None:
        if piece.kind == "space":
            self._gap = self._gap or (piece.start, piece.end)
        elif piece.kind == "mark":
            self._mark(piece)
        elif piece.spoken:
            self._word(piece, ipa)
        else:
            self.dropped.append(piece.text)

    def _mark(self, piece: Piece) -> None:
        opens = piece.text == "“" or (
            piece.text == '"' and (self._gap is not None or not self._symbols or not self._quoted)
        )
        if piece.text == '"':
            self._quoted = opens
        if piece.text not in self._ids or (not self._symbols and not opens):
            return  # no mark can begin the text but a quotation mark
        previous = self._symbols[-1] if self._symbols else ""
        if piece.text == previous or (piece.text == "," and previous in (*",;:.!?",)):
            return  # a pause beside a pause
        if opens:
            self._space(piece.start)
        self._put(piece.text, (piece.start, piece.end))
        self._glue = opens

    def _word(self, piece: Piece, ipa: str) -> None:
        known = self._known(ipa)
        if not known:
            self.dropped.append(piece.text)
            return
        if ipa[0] == JOINED:
            self._gap = None
        else:
            self._space(piece.start, (piece.start, piece.end))
        first = len(self._symbols)
        for symbol in known:
            self._put(symbol, (piece.start, piece.end))
        if self.words and self.words[-1][:2] == (piece.start, piece.end):
            first = self.words.pop()[2]
        self.words.append((piece.start, piece.end, first, len(self._symbols)))

    def _space(self, position: int, word: tuple[int, int] | None = None) -> None:
        """A space before a word or an opening quotation mark, at the place in the source where it stands, if it does."""
        if self._symbols and not self._glue:
            within = word is not None and bool(self.words) and self.words[-1][:2] == word
            self._put(" ", word if within and word else self._gap or (position, position))
        self._gap = None
        self._glue = False

    def _put(self, symbol: str, span: tuple[int, int]) -> None:
        self._symbols.append(symbol)
        if self._spans:  # order holds even where a mark came out of the middle of a written word
            span = (max(span[0], self._spans[-1][0]), max(span[1], self._spans[-1][1]))
        self._spans.append(span)

    def _known(self, ipa: str) -> list[str]:
        ipa = ipa.removeprefix(JOINED)
        symbols: list[str] = []
        if not set(ipa) <= self._ids.keys():
            ipa = unicodedata.normalize("NFD", ipa)  # some tables have accents as symbols of their own
        for char in ipa:
            own = char in self._ids and char not in "g'"
            for plain in char if own else self._spelling(char):
                if plain in self._ids and plain != "_":
                    symbols.append(plain)
                elif plain not in self._ids:
                    self.dropped.append(plain)
        while symbols and symbols[-1] == " ":
            symbols.pop()
        return symbols

    def _spelling(self, char: str) -> str:
        """Another writing, in symbols that the table may have."""
        if char in _IPA_SPELLINGS:
            return _IPA_SPELLINGS[char]
        return plain_letters(char) or char if self._letters else char

    def encoded(self, text: str, config: PhonemeConfig) -> EncodedText:
        tokens = [self._ids[symbol] for symbol in self._symbols]
        spans = self._spans
        step, lead = (2, 1) if config.add_blank else (1, 0)
        if config.add_blank:
            blanked = [0] * (2 * len(tokens) + 1)
            blanked[1::2] = tokens
            tokens = blanked
            spans = [spans[min(i // 2, len(spans) - 1)] for i in range(len(tokens))]
        begin, end = ([self._ids[symbol] for symbol in around] for around in (config.begin, config.end))
        tokens = [*begin, *tokens, *end]
        spans = [*spans[:1] * len(begin), *spans, *spans[-1:] * len(end)]
        lead += len(begin)
        words = tuple(
            Word(text[start:end], start, end, first * step + lead, (last - 1) * step + lead + 1)
            for start, end, first, last in self.words
        )
        return EncodedText(tuple(tokens), tuple(spans), words, "".join(self._symbols), tuple(self.dropped))


class LetterPhonemizer:
    """Each word as its own letters, lower-case, accents apart: for voices trained on them."""

    def __init__(self, language: str) -> None:
        pass

    def transcribe(self, pieces: Sequence[Piece]) -> list[str]:
        return [unicodedata.normalize("NFD", p.text.lower()) if p.kind in ("word", "letter") else "" for p in pieces]


PHONEMIZERS: dict[str, Any] = {
    "gruut": gruut_phonemizer,
    "misaki": MisakiPhonemizer,
    "openjtalk": OpenJtalkPhonemizer,
    "espeak": EspeakPhonemizer,
    "letters": LetterPhonemizer,
}
