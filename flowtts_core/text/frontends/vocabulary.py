"""Texts as symbols of a voice's own vocabulary: characters, and pinyin for Chinese, as F5-TTS reads them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flowtts_core.errors import ConfigError, DependencyError, VoiceError
from flowtts_core.request import SynthesisRequest
from flowtts_core.text.frontends.base import EncodedText, Frontend, Word, no_phonemes, nothing_to_say
from flowtts_core.text.latin import plain_letters
from flowtts_core.text.normalize import normalize
from flowtts_core.text.own_words import OwnWords
from flowtts_core.text.pieces import Piece

UNKNOWN = 1  # the token of the first symbol, a blank, stands for what the vocabulary lacks
_WRITTEN_OUT = ("en", "de")
_PINYIN = re.compile(r"[a-zü]+[1-5]?")
_CHINESE = re.compile("[\u3400-\u9fff]")
_HAN_STRETCH = re.compile("[\u2e80-\u9fff\uff00-\uff65]+")  # with its marks
# What segmentation for Chinese makes of other text: words with signs inside, signs in a row, anything else by itself.
_SEGMENT = re.compile(r"[A-Za-z0-9]+(?:[._\-][A-Za-z0-9]+)*%?|[+#&._%\-]+|[\s\S]")
_RAW = re.compile(r"(?P<word>[^\W_]+(?:['\u2019][^\W_]+)*)|(?P<space>\s+)|(?P<mark>[\s\S])")
_PLAIN = str.maketrans({";": ",", "“": '"', "”": '"', "‘": "'", "’": "'"})  # as published
_NO_BLANK_AFTER = " :'\""
_SURROGATE = re.compile("[\ud800-\udfff]")
INSTALL = "pip install 'flowtts[chinese]'"


@dataclass(frozen=True)
class VocabularyConfig:
    """Settings of the vocabulary front end.

    Attributes:
        symbols: in the order of the voice's vocab.txt; the first is token 1, and token 0 is padding. The first is the blank,
            which stands for unknown characters too. Where syllables of pinyin are among them, Chinese is read by them.
        language: English ("en...") and German ("de...") can be written out.
        write_out: figures and signs are written out in words first; without it texts are read as they stand, as published.
        lexicon: the user's words, as texts; see `flowtts_core.text.own_words`.
    """

    symbols: tuple[str, ...]
    language: str = "en-us"
    write_out: bool = True
    lexicon: dict[str, str] | None = None

    def __post_init__(self) -> None:
        if not self.symbols or len(set(self.symbols)) < len(self.symbols):
            twice = next((s for i, s in enumerate(self.symbols) if s in self.symbols[:i]), "")
            raise ConfigError(f"VocabularyConfig.symbols: {twice!r} stands there twice", "give each symbol once")
        if self.symbols[0] != " ":
            raise ConfigError(
                f"VocabularyConfig.symbols begin with {self.symbols[0]!r}, not the blank", "put ' ' first"
            )


def read_vocabulary(path: Path) -> tuple[str, ...]:
    """Read a vocab.txt: one symbol a line, the blank first.

    Raises:
        VoiceError: for a file that is none.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise VoiceError(f"{path}: cannot be read ({error})", "give the vocab.txt of the checkpoint") from error
    symbols = tuple(lines[:-1] if lines[-1] == "" else lines)
    try:
        VocabularyConfig(symbols)
    except ConfigError as error:
        raise VoiceError(f"{path}: {error.message}", "give the vocab.txt of the checkpoint") from error
    return symbols


def symbol_bytes(symbols: Iterable[str]) -> tuple[int, ...]:
    """Return the UTF-8 bytes of a text that each token stands for, the padding's first.

    A Chinese character has 3, and is written as a blank and a syllable: so the syllable has 2.
    """
    return (0, *(2 if _is_pinyin(symbol) else len(symbol.encode("utf-8", "replace")) for symbol in symbols))


def _is_pinyin(symbol: str) -> bool:
    return len(symbol) > 1 and _PINYIN.fullmatch(symbol) is not None


class VocabularyFrontend(Frontend):
    """One token for each character of a text, or syllable of Chinese; what has none is told, and takes the blank's.

    Attributes:
        reads_chinese: whether syllables of pinyin are in the vocabulary.
    """

    def __init__(self, config: VocabularyConfig) -> None:
        self.config = config
        self._own = OwnWords(config.lexicon) if config.lexicon else None
        self._ids = {symbol: i + 1 for i, symbol in enumerate(config.symbols)}
        self.reads_chinese = any(_is_pinyin(symbol) for symbol in config.symbols)
        self._others: dict[str, VocabularyFrontend] = {}

    @property
    def n_symbols(self) -> int:
        return len(self._ids) + 1

    def load(self) -> None:
        """Nothing is loaded."""

    def of(self, request: SynthesisRequest) -> Frontend:
        language = request.language
        if language is None or language.lower() == self.config.language.lower():
            return self
        if language not in self._others:
            self._others[language] = VocabularyFrontend(replace(self.config, language=language))
        return self._others[language]

    def encode(self, text: str) -> EncodedText:
        """Return the tokens of a text.

        Raises:
            TextError: where nothing of it can be spoken.
            DependencyError: for Chinese, where what reads it is not installed.
        """
        return self._encoded(text, list(_apart(self._pieces(text))))

    # --- pieces -----------------------------------------------------------------------------------------------------

    def _pieces(self, text: str) -> Iterator[Piece]:
        """Yield what is read; stretches of Chinese are read as they stand."""
        if not self.config.write_out or self.config.language.lower().partition("-")[0] not in _WRITTEN_OUT:
            yield from self._as_written(text, 0, len(text))
            return
        done = 0
        stretches = [match.span() for match in _HAN_STRETCH.finditer(text)] if self.reads_chinese else []
        for start, end in [*stretches, (len(text), len(text))]:
            for piece in normalize(text[done:start], self.config.language, own=self._own) if done < start else ():
                yield piece._replace(start=piece.start + done, end=piece.end + done)
            yield from self._as_written(text, start, end)
            done = end

    def _as_written(self, text: str, start: int, stop: int) -> Iterator[Piece]:
        found = [] if self._own is None else self._own.find(text[start:stop])
        done = start
        for word in found:
            yield from _raw(text, done, start + word.start)
            yield Piece(word.said, start + word.start, start + word.end, "ipa" if word.is_ipa else "word")
            done = start + word.end
        yield from _raw(text, done, stop)

    # --- symbols ----------------------------------------------------------------------------------------------------

    def _symbols(self, text: str) -> Iterator[tuple[str, int]]:
        """Yield the symbols of a text, each with the place in it that it comes from; blanks are put in as published."""
        last = ""
        place = 0
        for segment in self._segments(text):
            plain = len(segment.encode("utf-8", "replace")) == len(segment)
            if plain and last and len(segment) > 1 and last not in _NO_BLANK_AFTER:
                yield " ", place
            syllables = self._syllables(segment)
            for i, symbol in enumerate(syllables):
                if self.reads_chinese and "\u3100" <= segment[i] <= "\u9fff":
                    yield " ", place + i
                yield symbol, place + i
                last = symbol
            place += len(segment)

    def _segments(self, text: str) -> list[str]:
        if not self.reads_chinese or not _CHINESE.search(text):
            return _SEGMENT.findall(text)
        return [str(segment) for segment in _chinese()[0].cut(text)]

    def _syllables(self, segment: str) -> list[str]:
        """Return a symbol for each character of a segment."""
        if not self.reads_chinese or not _CHINESE.search(segment):
            return list(segment)
        pypinyin = _chinese()[1]

        def read(characters: str) -> list[str]:
            return list(pypinyin.lazy_pinyin(characters, style=pypinyin.Style.TONE3, tone_sandhi=True))

        syllables = read(segment)
        return syllables if len(syllables) == len(segment) else ["".join(read(character)) for character in segment]

    def _tokens(self, symbol: str) -> list[int]:
        """Return a symbol's tokens, or those of its letters without marks; none where it has none."""
        spellings = (symbol, symbol.lower(), plain_letters(symbol) if len(symbol) == 1 else "")
        for known in spellings[:2]:
            if known in self._ids:
                return [self._ids[known]]
        letters = spellings[2]
        return [self._ids[c] for c in letters] if letters and self._ids.keys() >= set(letters) else []

    def _encoded(self, text: str, pieces: list[Piece]) -> EncodedText:
        dropped = [piece.text for piece in pieces if piece.kind == "skip"]
        pieces = [piece for piece in pieces if piece.kind != "skip"]
        spoken = "".join(piece.text for piece in pieces).translate(_PLAIN)
        owner = [i for i, piece in enumerate(pieces) for _ in piece.text]
        tokens: list[int] = []
        spans: list[tuple[int, int]] = []
        words: list[Word] = []
        known_at: set[int] = set()  # pieces of which something can be read
        first: dict[int, int] = {}  # piece -> its first token, blanks before it apart
        for symbol, place in self._symbols(spoken):
            piece = pieces[owner[place]]
            found = self._tokens(symbol)
            if not found:
                dropped.append(symbol)
            elif piece.spoken and symbol != " ":
                known_at.add(owner[place])
            if symbol != " ":
                first.setdefault(owner[place], len(tokens))
            tokens += found or [UNKNOWN]
            spans += [(piece.start, piece.end)] * len(found or [UNKNOWN])
            if owner[place] in known_at:
                _write_word(words, text, piece, first[owner[place]], len(tokens))
        if not words:
            raise nothing_to_say(text, "among the symbols of this voice")
        return EncodedText(tuple(tokens), tuple(spans), tuple(words), spoken, tuple(dropped))

    def __reduce__(self) -> tuple[type[VocabularyFrontend], tuple[VocabularyConfig]]:
        return type(self), (self.config,)


def _write_word(words: list[Word], text: str, piece: Piece, token: int, end: int) -> None:
    """Add a word, or lengthen the last one where it is of the same written word."""
    if words and (words[-1].start, words[-1].end) == (piece.start, piece.end):
        token = words.pop().token_start
    words.append(Word(text[piece.start : piece.end], piece.start, piece.end, token, end))


def _raw(text: str, start: int, stop: int) -> Iterator[Piece]:
    """Yield a text as it stands; each Chinese character is a word."""
    for match in _RAW.finditer(text, start, stop):
        kind, (begin, end) = match.lastgroup, match.span()
        if kind == "word" and not _CHINESE.search(match.group()):
            yield Piece(match.group(), begin, end, "word")
        elif kind == "word":
            yield from (Piece(text[i], i, i + 1, "word") for i in range(begin, end))
        elif kind == "space":
            yield Piece(" ", begin, end, "space")
        else:
            yield Piece(match.group(), begin, end, "skip" if _SURROGATE.match(match.group()) else "mark")


def _apart(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Yield pieces with blanks between the words that one written word is read as; phonemes are refused.

    Raises:
        TextError: for phonemes.
    """
    last: Piece | None = None
    for piece in pieces:
        if piece.kind == "ipa":
            raise no_phonemes(piece.text, piece.text)
        if piece.kind == "syllables":
            piece = piece._replace(text=piece.text.replace("-", ""))
        if piece.kind == "letter":
            piece = piece._replace(text=piece.text.upper())
        if last is not None and last.spoken and piece.spoken and last[1:3] == piece[1:3]:
            yield Piece(" ", piece.start, piece.end, "space")
        yield piece
        if piece.kind != "skip":
            last = piece


def _chinese() -> tuple[Any, Any]:
    """Return what cuts Chinese into words, and what reads them."""
    try:
        import pypinyin
        import rjieba
    except ImportError as error:
        raise DependencyError(
            f"Chinese is read by rjieba and pypinyin, and {error.name} is not installed", INSTALL
        ) from error
    return rjieba, pypinyin
