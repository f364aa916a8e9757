"""Words and phones of a recording whose text is known, with their times, from the search of `forced_alignment`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import numpy as np
import torch

from flowtts_core.engines.forced_alignment import TokenFrames, WordAligner
from flowtts_core.errors import AudioError, ConfigError
from flowtts_core.text.frontends import PhonemeFrontend
from flowtts_core.text.frontends.base import EncodedText, Word
from flowtts_core.text.frontends.misaki import to_ipa
from flowtts_core.voice import with_lexicon
from flowtts_core.voice.card import FLOW_VOICE, VoiceCard, find_voice, require_flow
from flowtts_core.voice.parts import parts_of

_BEFORE, _AFTER = "ˈˌ ", "ːˑʰʱʲʷˠˤ˞ʼ\u0329\u0303"  # marks that belong to the symbol after them, or before
_PAIRS = frozenset("aɪ aʊ eɪ oʊ əʊ ɔɪ tʃ dʒ ts dz".split())  # two symbols, one phone
_LONGEST_MEND_S = 0.1  # of what is between words, at most so much goes to one: more may be a breath, or another voice


@dataclass(frozen=True)
class Phone:
    """A phone in IPA and when it is spoken, in seconds; `fit` as in `TokenFrames`."""

    phone: str
    start_s: float
    end_s: float
    fit: float


@dataclass(frozen=True)
class AlignedWord:
    """A written word, `text[start:end]`, of phones that follow each other without gaps; at least one."""

    word: str
    start: int
    end: int
    phones: tuple[Phone, ...]

    @property
    def start_s(self) -> float:
        return self.phones[0].start_s

    @property
    def end_s(self) -> float:
        return self.phones[-1].end_s

    @property
    def fit(self) -> float:
        """The mean of its phones' over time."""
        weights = [max(phone.end_s - phone.start_s, 1e-6) for phone in self.phones]
        return float(np.average([phone.fit for phone in self.phones], weights=weights))


@dataclass(frozen=True)
class Alignment:
    """The words of a recording in order, none before the end of the one before, none after `seconds`."""

    words: tuple[AlignedWord, ...]
    seconds: float
    dropped: tuple[str, ...] = ()

    @property
    def fit(self) -> float:
        """The mean of all words' fits: how well the text is that of the recording."""
        return float(np.mean([word.fit for word in self.words]))


def require_aligner(voice: str | None = None) -> VoiceCard:
    """Return the card of a voice that aligns; None is the bundled one, which reads English.

    Raises:
        ConfigError: unless it is a flow voice of a Matcha-TTS acoustic model on phonemes.
    """
    card = require_flow(voice or FLOW_VOICE, "used for alignment")
    if card.parts["acoustic"]["name"] != "matcha" or card.parts["frontend"]["name"] != "phonemes":
        raise ConfigError(
            f"voice {card.name} has no encoder of phonemes to align with",
            f"take a voice of a recipe on phonemes, or leave --voice out: {FLOW_VOICE} reads English",
        )
    return card


class PhoneAligner:
    """Finds words and phones with the text encoder of a flow voice; on one thread of torch.

    Args:
        voice: as `require_aligner` takes it.
        lexicon: the user's own pronunciations (word -> IPA), which go before the voice's.

    Raises:
        ConfigError: for another kind of voice.
    """

    def __init__(self, voice: str | None = None, lexicon: Mapping[str, str] | None = None) -> None:
        self.card = require_aligner(voice)
        torch.set_num_threads(1)
        folder = find_voice(voice or FLOW_VOICE)
        self._aligner = WordAligner(parts_of(folder, with_lexicon(self.card, lexicon)))

    def reads(self, language: str) -> bool:
        """Whether the voice reads a language, as `en`; any region of it will do."""
        own = {code.lower().partition("-")[0] for code in self.card.languages}
        return not language or language.lower().replace("_", "-").partition("-")[0] in own

    def align(self, text: str, waveform: np.ndarray, sample_rate: int) -> Alignment:
        """Find the words of a text in its recording [S].

        Raises:
            TextError: where nothing in the text can be read.
            AudioError: for a silent recording, or one that is too short for the text.
        """
        if not waveform.any():
            raise AudioError("silent")
        frontend = self._aligner.frontend
        assert isinstance(frontend, PhonemeFrontend)
        encoded = frontend.encode(text)
        found = self._aligner.align(encoded, waveform, sample_rate)
        seconds = len(waveform) / sample_rate
        if found is None:
            raise AudioError(f"{seconds:.2f} s are too short for {len(encoded.words)} words")
        symbols = frontend.symbols_of(encoded)
        own = frontend.config.alphabet
        words = [
            AlignedWord(word.text, word.start, word.end, _phones(word, symbols, encoded, found, own, seconds))
            for word in encoded.words
        ]
        return Alignment(tuple(_joined(words, _spans(found.silent, found.frame_s), seconds)), seconds, encoded.dropped)


def _phones(
    word: Word, symbols: list[str], encoded: EncodedText, found: TokenFrames, alphabet: str, seconds: float
) -> tuple[Phone, ...]:
    """The phones of a word; blanks between them are shared out, half to each."""
    frames = found.frames.tolist()
    ends = [0.0, *accumulate(frames)]
    groups = _groups([i for i in range(word.token_start, word.token_end) if symbols[i]], symbols)
    edges = [ends[word.token_start]]
    edges += [(ends[before[-1] + 1] + ends[after[0]]) / 2 for before, after in pairwise(groups)]
    edges.append(ends[word.token_end])
    times = [min(edge * found.frame_s, seconds) for edge in edges]
    phones = []
    for group, (start_s, end_s) in zip(groups, pairwise(times), strict=True):
        written = _written(group, symbols)
        weights = [frames[i] for i in group]
        fit = float(np.average([float(found.fit[i]) for i in group], weights=weights if sum(weights) else None))
        phones.append(Phone(to_ipa(written) if alphabet == "misaki" else written, start_s, end_s, fit))
    return tuple(phones)


def _groups(places: list[int], symbols: list[str]) -> list[list[int]]:
    """Group the tokens of a word by the phone they belong to: marks with their symbol, affricates and diphthongs whole."""
    groups: list[list[int]] = []
    waiting: list[int] = []  # marks and blanks before the next symbol
    for place in places:
        symbol = symbols[place]
        if symbol in _BEFORE:
            waiting.append(place)
        elif groups and not waiting and (symbol in _AFTER or _written(groups[-1], symbols) + symbol in _PAIRS):
            groups[-1].append(place)
        else:
            groups.append([*waiting, place])
            waiting = []
    if waiting:
        groups[-1:] = [[*groups[-1], *waiting]] if groups else [waiting]
    return groups


def _written(group: list[int], symbols: list[str]) -> str:
    return "".join(symbols[i] for i in group if symbols[i] not in _BEFORE)


def _joined(words: list[AlignedWord], silences: list[tuple[float, float]], seconds: float) -> list[AlignedWord]:
    """Give what lies between two words to them, but for the silence there; without one they meet in the middle.

    The encoder expects a short pause at each blank, and soft beginnings are like it.
    """
    times = [[word.start_s, word.end_s] for word in words]
    ends = [0.0, *(end for _, end in times)]
    starts = [*(start for start, _ in times), seconds]
    for i, (before, after) in enumerate(zip(ends, starts, strict=True)):
        inside = [silence for silence in silences if before <= sum(silence) / 2 <= after]
        outer = not inside and i in (0, len(times))
        end, start = (inside[0][0], inside[-1][1]) if inside else ((before + after) / 2,) * 2
        if i and not outer:
            times[i - 1][1] = min(max(end, before), before + _LONGEST_MEND_S)
        if i < len(times) and not outer:
            times[i][0] = max(min(start, after), after - _LONGEST_MEND_S)
    return [_stretched(word, start, end) for word, (start, end) in zip(words, times, strict=True)]


def _spans(silent: np.ndarray, frame_s: float) -> list[tuple[float, float]]:
    """The silences as (start, end) in seconds."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], silent, [False]]).astype(np.int8))) * frame_s
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _stretched(word: AlignedWord, start_s: float, end_s: float) -> AlignedWord:
    """The word with another start of its first phone and end of its last."""
    phones = [replace(word.phones[0], start_s=start_s), *word.phones[1:]]
    phones[-1] = replace(phones[-1], end_s=end_s)
    return replace(word, phones=tuple(phones))
