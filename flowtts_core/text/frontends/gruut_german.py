"""German words to IPA from gruut's German lexicon; compounds by their parts, and other unknown words by its guesser."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from flowtts_core.text.frontends.gruut_data import Guesser, Lexicon, data_folder
from flowtts_core.text.pieces import Piece

_CACHE_LIMIT = 200_000
_FIRST_VOWEL = re.compile("(?=[aɐɑeɛəiɪoɔøœuʊyʏ])")
_VOWELS = re.compile("[aeiouyäöü]")
_SHORTEST_PART = 3  # letters of a word in a compound
_SHORTEST_TAIL = 5  # letters of a known word that ends an unknown one
_PLACES = ("burg", "dorf", "berg", "stadt", "heim", "hof", "tal", "bach", "feld", "wald", "haus", "stein")
# The lexicon has two signs for one sound (the r of "drei" and of "Arbeit"), and some of other languages.
_SIGNS = (
    ("ɔø", "ɔʏ"), ("ɑ\u0303", "ɑŋ"), ("ɜː", "øː"), ("ɜ", "ɐ"), ("ɾ", "ʁ"), ("r", "ʁ"), ("ɹ", "ʁ"), ("ɑŋ", "aŋ"),
    ("ɑ", "a"), ("ɒ", "ɔ"), ("ʌ", "a"), ("ˌˈ", "ˈ"), ("ˈˌ", "ˈ"),
)  # fmt: skip
# What the lexicon has wrong or lacks, and any text may have.
_CORRECTED = {
    "der": "deːɐ", "er": "eːɐ", "wer": "veːɐ", "über": "ˈyːbɐ",
    "chance": "ʃˈaŋsə", "chancen": "ʃˈaŋsən", "computer": "kɔmpjˈuːtɐ", "engagement": "aŋɡaʒəmˈaŋ", "google": "ɡˈuːɡəl",
    "ingenieur": "ɪnʒenjˈøːɐ", "journal": "ʒʊʁnˈaːl", "journalist": "ʒʊʁnalˈɪst", "journalisten": "ʒʊʁnalˈɪstən",
    "karriere": "kaʁjˈeːʁə", "niveau": "nivˈoː", "plateau": "platˈoː", "regisseur": "ʁeʒɪsˈøːɐ",
    "renaissance": "ʁənɛsˈaŋs", "repertoire": "ʁepɛʁtoˈaːɐ", "restaurant": "ʁɛstoʁˈaŋ", "saison": "zɛzˈɔŋ",
    "team": "tˈiːm",
}  # fmt: skip
_LETTERS = {
    "a": "ˈaː", "b": "bˈeː", "c": "tsˈeː", "d": "dˈeː", "e": "ˈeː", "f": "ˈɛf", "g": "ɡˈeː", "h": "hˈaː", "i": "ˈiː",
    "j": "jˈɔt", "k": "kˈaː", "l": "ˈɛl", "m": "ˈɛm", "n": "ˈɛn", "o": "ˈoː", "p": "pˈeː", "q": "kˈuː", "r": "ˈɛʁ",
    "s": "ˈɛs", "t": "tˈeː", "u": "ˈuː", "v": "fˈaʊ", "w": "vˈeː", "x": "ˈɪks", "y": "ˈʏpsilɔn", "z": "tsˈɛt",
    "ä": "ˈɛː", "ö": "ˈøː", "ü": "ˈyː", "ß": "ɛstsˈɛt",
}  # fmt: skip
_DEVOICED = str.maketrans("bdɡzv", "ptksf")
_VOICED = re.compile("[bdɡ](?=[ptkfsʃçx]|$)")  # at the end and before a voiceless sound there is none
_CODA_R = re.compile("(?<=ː)ʁ(?=[^aeiouyɐəɛɪɔøœʊʏˈˌ]|$)")  # a vowel after a long one: Uhr, Pferd


class _Split(NamedTuple):
    """The cheapest way to split a word into known ones up to some letter; `parts` are their IPA."""

    cost: float
    parts: tuple[str, ...]


class GermanPhonemizer:
    """`transcribe(pieces) -> IPA of each piece` for German.

    Of the two lexicons of gruut_lang_de this is the one with stress (its folder `espeak`). Words that it lacks are looked
    for in another spelling, as a genitive, and as a compound of words that it has; the rest is guessed.

    Raises:
        DependencyError: when gruut's German data is not installed.
    """

    def __init__(self) -> None:
        folder = data_folder("gruut_lang_de", "German", "pip install 'flowtts[german]'") / "espeak"
        self._lexicon = Lexicon(folder / "lexicon.db")
        self._guesser = Guesser(folder / "g2p" / "model.crf", _FIRST_VOWEL)
        self._cache: dict[str, str] = {}

    def transcribe(self, pieces: Sequence[Piece]) -> list[str]:
        """IPA of each piece; empty for pieces that are not words or letters."""
        if len(self._cache) > _CACHE_LIMIT:
            self._cache.clear()
        self._prepare({p.text.lower() for p in pieces if p.kind == "word"} - self._cache.keys())
        out = [""] * len(pieces)
        for i, piece in enumerate(pieces):
            text = piece.text.lower()
            if piece.kind == "letter":
                out[i] = _spelled(text)
            elif piece.kind == "word":
                if text not in self._cache:
                    self._cache[text] = self._pronounce(text)
                out[i] = self._cache[text]
        return out

    def knows(self, word: str) -> bool:
        """Whether the lexicon has the word."""
        self._lexicon.prepare({word.lower()})
        return word.lower() in self._lexicon

    def load(self) -> None:
        """Read the whole lexicon and the guesser (a second or two), rather than when a word needs them."""
        self._lexicon.load()
        self._guesser.load()

    def _prepare(self, words: set[str]) -> None:
        """Read what the lexicon has of these words, and of the parts of those that it lacks."""
        forms = {word: [*_spellings(word), *_stems(word)] for word in words if len(word) > 1}
        self._lexicon.prepare({form for several in forms.values() for form in several})
        lacking = [several for several in forms.values() if not any(form in self._lexicon for form in several)]
        self._lexicon.prepare({part for several in lacking for form in several for part in _parts(form)})

    def _pronounce(self, word: str) -> str:
        if len(word) == 1:
            return _spelled(word)
        for form in _spellings(word):
            if form in _CORRECTED or form in self._lexicon:
                return self._ipa(form)
        for stem in _stems(word):
            for form in _spellings(stem):
                if form in self._lexicon:
                    return self._ipa(form) + ("" if stem[-1] in "sßxz" else "s")
        letters = "".join(c for c in _bare(word) if c.isalpha())
        if len(letters) <= 4 and not _VOWELS.search(letters):
            return "".join(map(_spelled, letters))
        return self._compound(letters) or self._guess(letters)

    def _ipa(self, word: str) -> str:
        return _CORRECTED.get(word) or _in_signs(self._lexicon[word][0][0])

    def _compound(self, word: str) -> str:
        """IPA of a word that is made of known ones, of as few as can be; "" where it is not.

        Between them an s may stand ("Verlags-druckerei"), and a head may have lost its e ("Erd-beben").
        """
        best: list[_Split | None] = [_Split(0.0, ()), *[None] * len(word)]
        for start in range(len(word) - _SHORTEST_PART + 1):
            before = best[start]
            if before is None:
                continue
            for end in range(start + _SHORTEST_PART, len(word) + 1):
                if not start and end == len(word):
                    continue
                for cost, ipa in self._part(word[start:end], last=end == len(word)):
                    found = _Split(before.cost + cost, (*before.parts, ipa))
                    held = best[end]
                    if held is None or found.cost < held.cost:
                        best[end] = found
        split = best[-1]
        return "" if split is None or split.cost >= len(word) / 2.5 else _joined(split.parts)

    def _part(self, part: str, last: bool) -> Iterator[tuple[float, str]]:
        """Yield how a part of a compound may be read, with a cost: few and long parts are likely."""
        cost = 1.0 + (len(part) == _SHORTEST_PART)
        if not _VOWELS.search(part):
            return
        if part in self._lexicon:
            yield cost, self._ipa(part)
        elif last:
            return
        elif part[-1] == "s" and len(part) > _SHORTEST_PART + 1 and part[:-1] in self._lexicon:
            yield cost + 0.3, self._ipa(part[:-1]) + "s"
        elif f"{part}e" in self._lexicon:
            ipa = self._ipa(f"{part}e").removesuffix("ə")
            yield cost + 0.3, ipa[:-1] + ipa[-1:].translate(_DEVOICED)

    def _guess(self, letters: str) -> str:
        """Guess a word, but for the known word at its end ("Purkers-dorf")."""
        for cut in range(_SHORTEST_PART, len(letters) - 2):
            tail = letters[cut:]
            if (len(tail) >= _SHORTEST_TAIL or tail in _PLACES) and tail in self._lexicon:
                return _joined((self._guessed(letters[:cut]), self._ipa(tail)))
        return self._guessed(letters) or "".join(map(_spelled, letters))

    def _guessed(self, letters: str) -> str:
        return _stressed_once(_in_signs(self._guesser(letters)))


def _spelled(letter: str) -> str:
    """The name of a letter, with the s of the plural where it has one (the ws of "Lkws")."""
    bare = unicodedata.normalize("NFD", letter)
    name = _LETTERS.get(letter[:1]) or _LETTERS.get(bare[:1], "")
    return name + "s" if letter[1:] == "s" else name


def _joined(parts: Sequence[str]) -> str:
    """The IPA of a compound: its first word bears the stress, the others a weaker one."""
    first, *others = parts
    return first + "".join(part.replace("ˌ", "").replace("ˈ", "ˌ") for part in others)


def _in_signs(ipa: str) -> str:
    ipa = ipa.replace("g", "ɡ")
    for sign, ours in _SIGNS:
        ipa = ipa.replace(sign, ours)
    return _CODA_R.sub("ɐ", _VOICED.sub(lambda sound: sound[0].translate(_DEVOICED), ipa))


def _stressed_once(ipa: str) -> str:
    """The IPA with one main stress, the first; the guesser may set several."""
    head, stress, rest = ipa.partition("ˈ")
    return head + stress + rest.replace("ˈ", "ˌ")


def _spellings(word: str) -> list[str]:
    """The word, with ss for ß and ß for ss, and without foreign accents."""
    return list(dict.fromkeys((word, word.replace("ß", "ss"), word.replace("ss", "ß"), _bare(word))))


def _bare(word: str) -> str:
    """The word in the letters of German."""
    word = word.replace("æ", "ä").replace("œ", "ö").replace("ø", "ö").replace("å", "o").replace("ł", "l")
    word = unicodedata.normalize("NFC", word.replace("'", ""))
    return "".join(c if c in "äöüß" else unicodedata.normalize("NFD", c)[0] for c in word)


def _stems(word: str) -> list[str]:
    """What a word with an s at its end may be made of: "geht's", "Bruckners", "Hans'"."""
    if "'" in word[-2:]:
        return [word[: word.rindex("'")]]
    return [word[:-1]] if word[-1] == "s" and len(word) > 4 else []


def _parts(word: str) -> Iterator[str]:
    """Every part of a word that a compound may be made of, with and without what may be added to it."""
    for start in range(len(word) - _SHORTEST_PART + 1):
        for end in range(start + _SHORTEST_PART, len(word) + 1):
            yield word[start:end]
            if start == 0 or end < len(word):
                yield f"{word[start:end]}e"
