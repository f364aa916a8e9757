"""English words to IPA from gruut's lexicon, its trained guesser for unknown words, and a cache over both."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from flowtts_core.errors import ConfigError
from flowtts_core.text.english.homographs import FIXED, choose
from flowtts_core.text.frontends.gruut_data import Guesser, Lexicon, Pronunciations, data_folder
from flowtts_core.text.frontends.gruut_german import GermanPhonemizer
from flowtts_core.text.frontends.respelling import syllable_ipa
from flowtts_core.text.frontends.tagger import parts, shared_tagger
from flowtts_core.text.given_phonemes import plural_ending
from flowtts_core.text.pieces import Piece

_CACHE_LIMIT = 200_000
_FIRST_VOWEL = re.compile("(?=[aæɑɐɔəɚɛɝeiɪouʊʌ])")
_LETTER_A = "ˈeɪ"
_OKINA = re.compile("(?<=[aeiou])'(?=[aiou])")


def gruut_phonemizer(language: str) -> GruutPhonemizer | GermanPhonemizer:
    """Return the phonemizer of a language that gruut's data is used for here: English or German.

    Raises:
        ConfigError: for another language.
        DependencyError: when the data of the language is not installed.
    """
    named = language.lower().replace("_", "-")
    if named in ("en", "en-us"):
        return GruutPhonemizer()
    if named in ("de", "de-de"):
        return GermanPhonemizer()
    raise ConfigError(
        f"phonemizer 'gruut' has no language {language!r}", "use en-us or de; for another, phonemizer 'espeak'"
    )


class GruutPhonemizer:
    """`transcribe(pieces) -> IPA of each piece` for US English; sees only words and their neighbours.

    The lexicon (CMU's, in gruut_lang_en) is read by whole-table scans for the first sentences, so that a single one
    starts fast, and then loaded. Words it lacks are taken apart (possessives, accents) and at last guessed.

    Raises:
        DependencyError: when gruut's English data is not installed.
    """

    def __init__(self) -> None:
        folder = data_folder("gruut_lang_en", "English", "pip install gruut_lang_en")
        self._lexicon = Lexicon(folder / "lexicon.db")
        self._guesser = Guesser(folder / "g2p" / "model.crf", _FIRST_VOWEL)
        self._cache: dict[str, Pronunciations] = {}

    def transcribe(self, pieces: Sequence[Piece]) -> list[str]:
        """IPA of each piece; empty for pieces that are not words or letters."""
        if len(self._cache) > _CACHE_LIMIT:
            self._cache.clear()
        lowered = [p.text.lower() if p.kind in ("word", "letter") else "" for p in pieces]
        self._prepare({w for w in lowered if w and w not in self._cache})
        out = [""] * len(pieces)
        sentence: _Sentence | None = None
        for i, word in enumerate(lowered):
            if not word:
                continue
            found = self._cache.get(word) or self._pronounce(word)
            if pieces[i].kind == "letter" and word == "a":
                out[i] = _LETTER_A
            elif len(found) == 1:
                out[i] = found[0][0]
            else:
                sentence = sentence or _Sentence(pieces)
                out[i] = sentence.reading(i, found)
        return out

    def knows(self, word: str) -> bool:
        """Whether the lexicon has the word."""
        self._prepare({word.lower()})
        return word.lower() in self._lexicon

    def load(self) -> None:
        """Read the whole lexicon, the guesser and the tagger (under a second), rather than when a word needs them."""
        self._lexicon.load()
        self._guesser.load()
        shared_tagger()

    def _prepare(self, words: set[str]) -> None:
        """Read what the lexicon has of these words and of what they may be made of."""
        self._lexicon.prepare({form for word in words for form in _forms(word)})

    def _pronounce(self, word: str) -> Pronunciations:
        found = self._cache[word] = self._look_up(word)
        return found

    def _look_up(self, word: str) -> Pronunciations:
        for form in _spellings(word):
            if form in self._lexicon:
                found = self._lexicon[form]
                return found if len(found) > 1 and found[0][1] and form not in FIXED else found[:1]
        bare = _spellings(word)[-1]
        for ending in ("'s", "s'", "'"):
            if bare.endswith(ending) and len(bare) > len(ending):
                stem = bare.removesuffix(ending) + ("s" if ending == "s'" else "")
                ipa = self._look_up(stem)[0][0]
                return [(ipa + (plural_ending(ipa) if ending == "'s" else ""), "")]
        return [(self._guess(bare), "")]

    def _guess(self, word: str) -> str:
        letters = "".join(c for c in word if c.isalpha())
        if not letters:
            return ""
        if len(letters) == 1 or (len(letters) <= 4 and not re.search("[aeiouy]", letters)):
            return "".join(self._letter(c) for c in letters)
        return syllable_ipa(letters) or self._guesser(letters) or "".join(self._letter(c) for c in letters)

    def _letter(self, letter: str) -> str:
        if letter == "a":
            return _LETTER_A
        self._prepare({letter})
        found = self._lexicon.get(letter)
        return found[0][0] if found else ""


class _Sentence:
    """The words of a text as the tagger takes them, and the place of each piece among them."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._words: list[str] = []
        self._places: list[int] = []
        for piece in pieces:
            self._places.append(len(self._words))
            if piece.kind == "letter":
                self._words.append(piece.text.upper())
            elif piece.kind == "word":
                shouted = len(piece.text) > 1 and piece.text.isupper()
                self._words += parts(piece.text.lower() if shouted else piece.text)
            elif piece.kind != "space" and piece.text:
                self._words.append(piece.text)

    def reading(self, i: int, found: Pronunciations) -> str:
        """Return the IPA of piece i, which has more than one."""
        place = self._places[i]
        return choose(self._words, place, shared_tagger().tag(self._words, place), found)


def _spellings(word: str) -> tuple[str, ...]:
    """The word, and without its accents, and without the ʻokina, which is often written as an apostrophe (Hawai'i)."""
    if word.isascii():
        return (word, _OKINA.sub("", word)) if "'" in word and _OKINA.search(word) else (word,)
    special = word.replace("ß", "ss").replace("æ", "ae").replace("œ", "oe").replace("ø", "o").replace("ł", "l")
    bare = "".join(c for c in unicodedata.normalize("NFD", special) if not unicodedata.combining(c))
    return (word, bare)


def _forms(word: str) -> Iterable[str]:
    for form in _spellings(word):
        yield form
        if "'" in form:
            yield form.removesuffix("'s").removesuffix("'")
