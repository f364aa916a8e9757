"""ZipVoice's texts of Chinese and English: initials and finals of pinyin, and IPA, with tones and tables of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flowtts_core.errors import ConfigError, DependencyError, TextError
from flowtts_core.text import chinese
from flowtts_core.text.frontends.base import EncodedText, Frontend, Word, nothing_to_say
from flowtts_core.text.frontends.phonemes import PhonemeConfig, PhonemeFrontend

INSTALL = "pip install 'flowtts[chinese]'"
_PART = re.compile(r"<[a-zA-Züv]+[1-5]>|\[[^\[\]\s]+\]|[\s\S]")  # pinyin as it is to be read, a tag, or a character
_PINYIN = re.compile(r"[a-zA-Züvêếềńňǹḿ]+[1-5]")
_MARKS = str.maketrans("，。！？；：、‘’“”⋯（）《》", ',.!?;:,\'\'""…,,""')


@dataclass(frozen=True)
class EmiliaConfig:
    """Settings of the front end.

    Attributes:
        table: symbol -> token: IPA, marks, initials as `zh0`, finals as `ang1`, and tags as `[S1]`.
        phonemizer, language, lexicon: of what is not Chinese; see `PhonemeConfig`.
    """

    table: dict[str, int]
    phonemizer: str = "gruut"
    language: str = "en-us"
    lexicon: dict[str, str] | None = None


@dataclass
class _Written:
    """What has been encoded so far."""

    tokens: list[int]
    spans: list[tuple[int, int]]
    words: list[Word]
    spoken: list[str]
    dropped: list[str]

    def put(self, symbols: list[str], span: tuple[int, int], table: dict[str, int]) -> int:
        """Write those of a place's symbols that the table has; the others are told. Returns how many it has."""
        known = [symbol for symbol in symbols if symbol in table]
        self.dropped += [symbol for symbol in symbols if symbol not in table]
        self.tokens += [table[symbol] for symbol in known]
        self.spans += [span] * len(known)
        self.spoken += known
        return len(known)


class EmiliaFrontend(Frontend):
    """Each run of Chinese characters is read by pypinyin, all else by a phonemizer; marks stay with what is before them.

    Raises:
        ConfigError: for a phonemizer or language that does not exist.
        DependencyError: when a package is missing: the phonemizer's at once, those of Chinese at the first Chinese text.
    """

    def __init__(self, config: EmiliaConfig) -> None:
        self.config = config
        if any(not 0 <= token < 100_000 for token in config.table.values()) or not config.table:
            raise ConfigError(
                "EmiliaConfig.table: a token is not from 0 to 99999", "take the table from the voice again"
            )
        letters = {symbol: token for symbol, token in config.table.items() if len(symbol) == 1}
        self._others = PhonemeFrontend(
            PhonemeConfig(config.phonemizer, config.language, add_blank=False, lexicon=config.lexicon, table=letters)
        )

    @property
    def n_symbols(self) -> int:
        return max(self.config.table.values()) + 1

    def encode(self, text: str) -> EncodedText:
        out = _Written([], [], [], [], [])
        for kind, start, end in _segments(text, self.config.table):
            if kind == "chinese":
                self._chinese(text, start, end, out)
            elif kind == "pinyin":
                self._word(text, start, end, [_parts_of(text[start + 1 : end - 1].lower())], out)
            elif kind == "tag":
                out.put([text[start:end]], (start, end), self.config.table)
            else:
                self._other(text, start, end, out)
        if not out.words:
            raise nothing_to_say(text, f"in Chinese or {self.config.language}")
        return EncodedText(
            tuple(out.tokens), tuple(out.spans), tuple(out.words), " ".join(out.spoken), tuple(out.dropped)
        )

    def load(self) -> None:
        self._others.load()

    def _other(self, text: str, start: int, end: int, out: _Written) -> None:
        try:
            encoded = self._others.encode(text[start:end])
        except TextError:  # marks alone, or another script
            for place in range(start, end):
                mark = text[place].translate(_MARKS)
                if mark in self.config.table or not mark.isspace():
                    out.put([mark], (place, place + 1), self.config.table)
            return
        before = len(out.tokens)
        out.tokens += encoded.tokens
        out.spans += [(start + a, start + b) for a, b in encoded.spans]
        out.spoken.append(encoded.phonemes)
        out.dropped += encoded.dropped
        out.words += [
            Word(w.text, start + w.start, start + w.end, before + w.token_start, before + w.token_end)
            for w in encoded.words
        ]

    def _chinese(self, text: str, start: int, end: int, out: _Written) -> None:
        said, places = _with_figures_read(text, start, end)
        place = 0
        for word, pinyin in _pinyin_of(said):
            spans = places[place : place + len(word)]
            place += len(word)
            if pinyin is None:  # marks and spaces, one by one
                for mark, span in zip(word, spans, strict=True):
                    out.put([mark], span, self.config.table)
            else:
                self._word(text, spans[0][0], spans[-1][1], [_parts_of(one) for one in pinyin], out)

    def _word(self, text: str, start: int, end: int, syllables: list[list[str]], out: _Written) -> None:
        first = len(out.tokens)
        if sum(out.put(parts, (start, end), self.config.table) for parts in syllables):
            if out.words and (out.words[-1].start, out.words[-1].end) == (start, end):  # of one written figure
                first = out.words.pop().token_start
            out.words.append(Word(text[start:end], start, end, first, len(out.tokens)))

    def __reduce__(self) -> tuple[type[EmiliaFrontend], tuple[EmiliaConfig]]:
        return type(self), (self.config,)


def _segments(text: str, table: dict[str, int]) -> Iterator[tuple[str, int, int]]:
    """Cut a text into ("chinese", "other", "pinyin" or "tag", start, end); what is neither goes with what is before it."""
    kind, begin, neutral = "", 0, True  # nothing but marks so far
    for match in _PART.finditer(text):
        part = match.group()
        own = _kind(part, table)
        if own in ("pinyin", "tag"):
            if match.start() > begin:
                yield kind or "other", begin, match.start()
            yield own, match.start(), match.end()
            kind, begin, neutral = kind, match.end(), True
        elif own and own != kind and not neutral:
            yield kind, begin, match.start()
            kind, begin = own, match.start()
        elif own:
            kind, neutral = own, False
    if len(text) > begin:
        yield kind or "other", begin, len(text)


def _kind(part: str, table: dict[str, int]) -> str:
    if len(part) > 1:
        return "pinyin" if part[0] == "<" else ("tag" if part in table else "other")
    if "\u4e00" <= part <= "\u9fff":
        return "chinese"
    return "other" if part.isalpha() else ""


def _with_figures_read(text: str, start: int, end: int) -> tuple[str, list[tuple[int, int]]]:
    """Return a run of Chinese with its figures written out and plain marks, and the source characters of each character."""
    said, places, place = "", list[tuple[int, int]](), start
    for reading in [*chinese.readings(text[start:end]), None]:
        until = end if reading is None else start + reading.start
        said += text[place:until].translate(_MARKS)
        places += [(i, i + 1) for i in range(place, until)]
        if reading is not None:
            place = start + reading.end
            said += reading.words
            places += [(until, place)] * len(reading.words)
    return said, places


def _pinyin_of(said: str) -> Iterator[tuple[str, list[str] | None]]:
    """Yield words with the pinyin of each character, by tone figures, and runs of other characters with None."""
    jieba, pypinyin = _packages()
    words = list(jieba.cut(said))
    read = pypinyin.lazy_pinyin(
        words,
        style=pypinyin.Style.TONE3,
        tone_sandhi=True,
        neutral_tone_with_five=True,
        errors=lambda run: [None] * len(run),
    )
    place = 0
    for word in words:
        own = read[place : place + len(word)]
        place += len(word)
        if all(one is not None and _PINYIN.fullmatch(one) for one in own):
            yield word, own
            continue
        for character, one in zip(word, own, strict=True):
            yield character, [one] if one is not None and _PINYIN.fullmatch(one) else None


def _parts_of(pinyin: str) -> list[str]:
    """Return initial and final of a syllable, as `zh0` and `ang1`; none of them is IPA too."""
    _, pypinyin = _packages()
    convert = pypinyin.contrib.tone_convert
    initial = convert.to_initials(pinyin, strict=False)
    final = convert.to_finals_tone3(pinyin, strict=False, neutral_tone_with_five=True)
    return [*([initial + "0"] if initial else []), *([final] if final else [])]


def _packages() -> tuple[Any, Any]:
    try:
        import jieba
        import pypinyin
        import pypinyin.contrib.tone_convert
    except ImportError as error:
        raise DependencyError(f"Chinese texts need {error.name}", INSTALL) from error
    jieba.setLogLevel("ERROR")  # it tells of its dictionary on the terminal
    return jieba, pypinyin
