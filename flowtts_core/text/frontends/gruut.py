"""English words to IPA from gruut's lexicon, its trained guesser for unknown words, and a cache over both."""

from __future__ import annotations

import base64
import importlib.util
import re
import sqlite3
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from flowtts_core.errors import ConfigError, DependencyError
from flowtts_core.text.english.homographs import choose
from flowtts_core.text.pieces import Piece

_SCANS_BEFORE_LOADING = 12  # one scan of the lexicon takes 7 ms, loading it all 0.4 s
_LONGEST_WORD = 60  # letters; the guesser's time grows faster than a word's length
_CACHE_LIMIT = 200_000
_VOICELESS = tuple("ptkfθ")
_SIBILANT = tuple("szʃʒ")
_FIRST_VOWEL = re.compile("(?=[aæɑɐɔəɚɛɝeiɪouʊʌ])")
_LETTER_A = "ˈeɪ"

Pronunciations = list[tuple[str, str]]  # (IPA, role), the usual one first


class GruutPhonemizer:
    """`transcribe(pieces) -> IPA of each piece` for US English; sees only words and their neighbours.

    The lexicon (CMU's, in gruut_lang_en) is read by whole-table scans for the first sentences, so that a single one
    starts fast, and then loaded. Words it lacks are taken apart (possessives, accents) and at last guessed.

    Raises:
        ConfigError: for a language other than English.
        DependencyError: when gruut's English data is not installed.
    """

    def __init__(self, language: str = "en-us") -> None:
        if language.lower().replace("_", "-") not in ("en", "en-us"):
            raise ConfigError(f"phonemizer 'gruut' has no language {language!r}", "use phonemizer 'espeak' for it")
        spec = importlib.util.find_spec("gruut_lang_en")
        if spec is None or spec.origin is None:
            raise DependencyError("the English lexicon is not installed", "pip install gruut_lang_en")
        self._folder = Path(spec.origin).parent
        self._lexicon: dict[str, Pronunciations] = {}
        self._absent: set[str] = set()
        self._loaded = False
        self._scans = 0
        self._guesser: _Guesser | None = None
        self._cache: dict[str, Pronunciations] = {}

    def transcribe(self, pieces: Sequence[Piece]) -> list[str]:
        """IPA of each piece; empty for pieces that are not words or letters."""
        if len(self._cache) > _CACHE_LIMIT:
            self._cache.clear()
        lowered = [p.text.lower() if p.kind in ("word", "letter") else "" for p in pieces]
        self._prepare({w for w in lowered if w and w not in self._cache})
        out = [""] * len(pieces)
        before = ""
        for i, word in enumerate(lowered):
            if not word:
                if pieces[i].kind == "mark":
                    before = ""
                continue
            found = self._cache.get(word) or self._pronounce(word)
            if pieces[i].kind == "letter" and word == "a":
                out[i] = _LETTER_A
            elif len(found) == 1:
                out[i] = found[0][0]
            else:
                after = next((w for w in lowered[i + 1 : i + 3] if w), "")
                out[i] = choose(word, found, before, after)
            before = word
        return out

    def knows(self, word: str) -> bool:
        """Whether the lexicon has the word."""
        self._prepare({word.lower()})
        return word.lower() in self._lexicon

    def load(self) -> None:
        """Read the whole lexicon and the guesser (half a second), rather than when a word needs them."""
        if not self._loaded:
            self._read("", ())
            self._loaded = True
        self._load_guesser()

    def _load_guesser(self) -> _Guesser:
        if self._guesser is None:
            self._guesser = _Guesser(self._folder / "g2p" / "model.crf")
        return self._guesser

    def _prepare(self, words: set[str]) -> None:
        """Read what the lexicon has of these words and of what they may be made of."""
        if self._loaded or not words:
            return
        wanted = {form for word in words for form in _forms(word)} - self._lexicon.keys() - self._absent
        if not wanted:
            return
        self._scans += 1
        if self._scans > _SCANS_BEFORE_LOADING or len(wanted) > 500:
            self._read("", ())
            self._loaded = True
            return
        self._read(f" WHERE word IN ({','.join('?' * len(wanted))})", tuple(wanted))
        self._absent |= wanted - self._lexicon.keys()

    def _read(self, where: str, values: tuple[str, ...]) -> None:
        uri = f"{(self._folder / 'lexicon.db').as_uri()}?mode=ro&immutable=1"
        connection = sqlite3.connect(uri, uri=True)
        try:
            lexicon: dict[str, Pronunciations] = {}
            query = f"SELECT word, phonemes, role FROM word_phonemes{where} ORDER BY id"
            for word, phonemes, role in connection.execute(query, values):
                lexicon.setdefault(word, []).append((_plain_ipa(phonemes), role.removeprefix("gruut:")))
            self._lexicon.update(lexicon)
        finally:
            connection.close()

    def _pronounce(self, word: str) -> Pronunciations:
        found = self._cache[word] = self._look_up(word)
        return found

    def _look_up(self, word: str) -> Pronunciations:
        for form in _spellings(word):
            if form in self._lexicon:
                found = self._lexicon[form]
                return found if len(found) > 1 and found[0][1] else found[:1]
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
        guesser = self._load_guesser()
        parts = [letters[i : i + _LONGEST_WORD] for i in range(0, len(letters), _LONGEST_WORD)]
        return "".join(map(guesser, parts)) or "".join(self._letter(c) for c in letters)

    def _letter(self, letter: str) -> str:
        if letter == "a":
            return _LETTER_A
        self._prepare({letter})
        found = self._lexicon.get(letter)
        return found[0][0] if found else ""


class _Guesser:
    """gruut's conditional random field from letters to phonemes; loaded when a word needs it."""

    def __init__(self, model: Path) -> None:
        import pycrfsuite  # only unknown words pay for it

        self._tagger = pycrfsuite.Tagger()
        self._tagger.open(str(model))

    def __call__(self, word: str) -> str:
        coded = [_coded(letter) for letter in word]
        labels = self._tagger.tag([_features(coded, i) for i in range(len(coded))])
        groups = (base64.b64decode(label).decode() for label in labels)
        ipa = _plain_ipa(" ".join(group.replace("|", " ") for group in groups if group != "_"))
        return ipa if "ˈ" in ipa else _FIRST_VOWEL.sub("ˈ", ipa, count=1)  # the guesser often leaves out the stress


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


def _spellings(word: str) -> tuple[str, ...]:
    """The word, and without its accents."""
    if word.isascii():
        return (word,)
    special = word.replace("ß", "ss").replace("æ", "ae").replace("œ", "oe").replace("ø", "o").replace("ł", "l")
    bare = "".join(c for c in unicodedata.normalize("NFD", special) if not unicodedata.combining(c))
    return (word, bare)


def _forms(word: str) -> Iterable[str]:
    for form in _spellings(word):
        yield form
        if "'" in form:
            yield form.removesuffix("'s").removesuffix("'")


def plural_ending(ipa: str) -> str:
    """How 's sounds after `ipa`."""
    if ipa.endswith(_SIBILANT):
        return "ɪz"
    return "s" if ipa.endswith(_VOICELESS) else "z"
