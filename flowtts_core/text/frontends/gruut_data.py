"""The data of gruut's language packages: a lexicon of words and IPA, and the trained guesser for words it lacks."""

from __future__ import annotations

import base64
import importlib.util
import re
import sqlite3
from pathlib import Path
from typing import Any

from flowtts_core.errors import DependencyError

_SCANS_BEFORE_LOADING = 12  # one scan of the English lexicon takes 7 ms, loading it all 0.4 s
_MANY = 3000  # words; more are not asked for in one scan
_LONGEST_WORD = 60  # letters; the guesser's time grows faster than a word's length

Pronunciations = list[tuple[str, str]]  # (IPA, role), the usual one first


def data_folder(package: str, language: str, remedy: str) -> Path:
    """Return the folder of a language's package.

    Raises:
        DependencyError: when it is not installed; `remedy` says how to.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise DependencyError(f"the {language} lexicon is not installed", remedy)
    return Path(spec.origin).parent


class Lexicon:
    """Words, lower-case, and their pronunciations.

    It is read by whole-table scans for the first texts, so that a single one starts fast, and then loaded.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._words: dict[str, Pronunciations] = {}
        self._absent: set[str] = set()
        self._loaded = False
        self._scans = 0

    def __contains__(self, word: str) -> bool:
        """Whether the lexicon has a word that was prepared."""
        return word in self._words

    def __getitem__(self, word: str) -> Pronunciations:
        return self._words[word]

    def get(self, word: str) -> Pronunciations | None:
        """Return the pronunciations of a word that was prepared; None where there are none."""
        return self._words.get(word)

    def prepare(self, words: set[str]) -> None:
        """Read what the lexicon has of these words."""
        if self._loaded:
            return
        wanted = words - self._words.keys() - self._absent
        if not wanted:
            return
        self._scans += 1
        if self._scans > _SCANS_BEFORE_LOADING or len(wanted) > _MANY:
            self.load()
            return
        self._read(f" WHERE word IN ({','.join('?' * len(wanted))})", tuple(wanted))
        self._absent |= wanted - self._words.keys()

    def load(self) -> None:
        """Read it all."""
        if not self._loaded:
            self._read("", ())
            self._loaded = True

    def _read(self, where: str, values: tuple[str, ...]) -> None:
        uri = f"{self._file.as_uri()}?mode=ro&immutable=1"
        connection = sqlite3.connect(uri, uri=True)
        try:
            words: dict[str, Pronunciations] = {}
            query = f"SELECT word, phonemes, role FROM word_phonemes{where} ORDER BY id"
            for word, phonemes, role in connection.execute(query, values):
                words.setdefault(word, []).append((_plain_ipa(phonemes), role.removeprefix("gruut:")))
            self._words.update(words)
        finally:
            connection.close()


class Guesser:
    """gruut's conditional random field from letters to phonemes; loaded when a word needs it.

    Args:
        first_vowel: matches, without width, before each vowel; a guess without stress is stressed at the first.
    """

    def __init__(self, model: Path, first_vowel: re.Pattern[str]) -> None:
        self._model, self._first_vowel = model, first_vowel
        self._tagger: Any = None

    def load(self) -> None:
        if self._tagger is None:
            import pycrfsuite  # only unknown words pay for it

            self._tagger = pycrfsuite.Tagger()
            self._tagger.open(str(self._model))

    def __call__(self, letters: str) -> str:
        """Return the IPA of a word of letters alone; "" where the model says nothing."""
        self.load()
        return "".join(self._of(letters[i : i + _LONGEST_WORD]) for i in range(0, len(letters), _LONGEST_WORD))

    def _of(self, word: str) -> str:
        coded = [_coded(letter) for letter in word]
        labels = self._tagger.tag([_features(coded, i) for i in range(len(coded))])
        groups = (base64.b64decode(label).decode() for label in labels)
        ipa = _plain_ipa(" ".join(group.replace("|", " ") for group in groups if group != "_"))
        return ipa if "ˈ" in ipa else self._first_vowel.sub("ˈ", ipa, count=1)  # it often leaves out the stress


def _features(coded: list[str], i: int) -> dict[str, str | float | bool]:
    """What the model was trained to see of letter i: itself and three neighbours each side."""
    features: dict[str, str | float | bool] = {"bias": 1.0, "grapheme": coded[i]}
    if i == 0:
        features["begin"] = True
    if i == len(coded) - 1:
        features["end"] = True
    for distance in (1, 2, 3):
        if i >= distance:
            features[f"grapheme-{distance}"] = coded[i - distance]
        if i + distance < len(coded):
            features[f"grapheme+{distance}"] = coded[i + distance]
    return features


def _coded(letter: str) -> str:
    return base64.b64encode(letter.encode()).decode("ascii")


def _plain_ipa(phonemes: str) -> str:
    """Without the blanks between phonemes and the tie bars, which no symbol table has."""
    return phonemes.replace(" ", "").replace("\u0361", "").replace("_", "")
