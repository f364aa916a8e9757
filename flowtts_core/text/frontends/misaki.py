"""Words to the phonemes of Kokoro and its relatives (misaki's alphabet): English by hibari-tts, and IPA converted to it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from flowtts_core.errors import ConfigError, DependencyError
from flowtts_core.text.english.homographs import SENSES, corrected_tag, sense_of
from flowtts_core.text.normalize import normalize
from flowtts_core.text.own_words import OwnWords
from flowtts_core.text.pieces import Piece

LANGUAGES = {"en-us": False, "en-gb": True}  # and whether it is British
_MARKS = str.maketrans("", "", ';:,.!?—…"“”()')
_LETTER_A = "ˈA"
_ORDINAL = re.compile(r"[a-z]+ty-(first|second|third|[a-z]+th)")
# misaki 0.9.4, espeak.py: one letter for what IPA writes with two.
_ANY = {"dz": "ʣ", "dʒ": "ʤ", "dʑ": "ʥ", "ts": "ʦ", "tʃ": "ʧ", "tɕ": "ʨ"}
_DIPHTHONGS = {"aɪ": "I", "aʊ": "W", "eɪ": "A", "oʊ": "O", "əʊ": "Q", "ɔɪ": "Y"}
_ENGLISH = {"dʒ": "ʤ", "tʃ": "ʧ", "ɚ": "əɹ", "ɝ": "ɜɹ", "r": "ɹ"}
_IPA = str.maketrans({**{letter: ipa for ipa, letter in {**_ANY, **_DIPHTHONGS}.items()}, "ᵊ": "ə", "ᵻ": "ɪ", "T": "ɾ"})
_AMERICAN = {"ɜːɹ": "ɜɹ", "ɜː": "ɜɹ", "ː": ""}


class MisakiPhonemizer:
    """`transcribe(pieces) -> phonemes of each piece`, in misaki's alphabet, for American and British English.

    The words come from hibari-tts, whose port of misaki needs neither spaCy nor espeak-ng.

    Raises:
        ConfigError: for a language other than English.
        DependencyError: when hibari-tts is not installed.
    """

    alphabet = "misaki"

    def __init__(self, language: str = "en-us") -> None:
        if language not in LANGUAGES:
            raise ConfigError(
                f"phonemizer 'misaki' has no language {language!r}", f"use one of: {', '.join(LANGUAGES)}"
            )
        try:
            from hibari.g2p import G2P
        except ImportError as error:
            raise DependencyError("phonemizer 'misaki' needs hibari-tts", "pip install hibari-tts") from error
        self._g2p: Any = G2P(british=LANGUAGES[language])

    def pieces(self, text: str, own: OwnWords | None = None) -> list[Piece]:
        """Return our normaliser's pieces, but each abbreviation ("FBI") and compound ("self-serving") whole, as misaki has it.

        Args:
            own: the user's words.
        """
        joined: list[Piece] = []
        pieces = normalize(text, is_word=self.knows, own=own)
        for (start, end, whole), group in groupby(pieces, lambda p: (p.start, p.end, p.kind in ("word", "letter"))):
            parts = list(group)
            written = _written([part.text for part in parts], [part.kind == "letter" for part in parts])
            if len(written) == 1 and written[0].isalpha() and end - start > len(written[0]):
                written = ["".join(f"{letter}." for letter in written[0])]  # as it stands: "A.S." is no "as"
            compound = "-".join(written)
            one = len(written) == 1 or len(compound) == end - start or _ORDINAL.fullmatch(compound)
            if whole and len(parts) > 1 and one:
                parts = [Piece(compound, start, end, "word")]
            joined += parts
        return joined

    def transcribe(self, pieces: Sequence[Piece]) -> list[str]:
        """Return the phonemes of each piece; empty for pieces that are not words or letters."""
        chunks: list[str] = []  # one for each spoken piece, with the marks after it, which tell where clauses end
        places: list[int] = []
        for place, piece in enumerate(pieces):
            if piece.kind in ("word", "letter"):
                chunks.append(piece.text.upper() if piece.kind == "letter" else piece.text)
                places.append(place)
            elif piece.kind == "mark" and chunks and piece.text in ",.!?;:":
                chunks[-1] += piece.text
        out = [""] * len(pieces)
        for place, phonemes in zip(places, self._of_chunks(chunks), strict=True):
            letter_a = pieces[place].kind == "letter" and pieces[place].text.lower() == "a"
            out[place] = _LETTER_A if letter_a else phonemes
        return out

    def _of_chunks(self, chunks: list[str]) -> list[str]:
        """The phonemes of each chunk of a text; the tokens of a chunk end with the one that has a blank after it."""
        found = [""] * len(chunks)
        k = 0
        for token in self._g2p.phonemize_tokens(self._tagged(" ".join(chunks))):
            found[k] += (token.phonemes or "").translate(_MARKS)
            k += bool(token.whitespace)
        return [phonemes.strip() for phonemes in found]

    def _tagged(self, text: str) -> list[Any]:
        """Return hibari's tokens, with the tags of homographs mended and the readings that no tag decides."""
        tokens: list[Any] = self._g2p.tokenize(text)
        words = [token.text for token in tokens]
        for place, token in enumerate(tokens):
            golds = self._g2p.lexicon.golds.get(token.text.lower())
            if isinstance(golds, dict) or token.text.lower() in SENSES:
                tag = corrected_tag(words, place, token.tag)
                token.tag = "VB" if tag == "VBP" else tag  # under VBP the lexicon has past tenses
                sense = "" if self._g2p.british else sense_of(words, place, tag)
                token.phonemes = to_misaki(sense, "en-us") or token.phonemes
        return tokens

    def knows(self, word: str) -> bool:
        """Whether the lexicon has the word."""
        return word in self._g2p.lexicon.golds or word in self._g2p.lexicon.silvers

    def load(self) -> None:
        """Read the net that guesses unknown words."""
        self._g2p("flowttsian")


def _written(texts: list[str], letters: list[bool]) -> list[str]:
    """Letters in a row as one abbreviation, with the plural or possessive of its last ("f", "b", "i's": "FBI's")."""
    found: list[str] = []
    for i, text in enumerate(texts):
        spelled = letters[i] or (len(text) == 3 and text.endswith("'s"))
        if spelled:
            text = text[0].upper() + text[1:]
        if spelled and i and letters[i - 1]:
            found[-1] += text
        else:
            found.append(text)
    return found


def to_misaki(ipa: str, language: str) -> str:
    """Return IPA in misaki's alphabet, as Kokoro's voices of that language were trained with it."""
    tables = [{**_ANY, **_DIPHTHONGS}]
    if language.startswith("en"):
        tables = [_AMERICAN if language != "en-gb" else {}, {**_DIPHTHONGS, **_ENGLISH}]
    for table in tables:
        for written, letter in table.items():
            ipa = ipa.replace(written, letter)
    return ipa


def to_ipa(phonemes: str) -> str:
    """Return phonemes of misaki's alphabet in IPA."""
    return phonemes.translate(_IPA)
