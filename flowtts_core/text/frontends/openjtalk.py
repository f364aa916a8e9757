"""Japanese to the phonemes of Kokoro (misaki's alphabet): readings by pyopenjtalk-plus, an optional extra."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from flowtts_core.errors import ConfigError, DependencyError
from flowtts_core.text.frontends.espeak import JOINED
from flowtts_core.text.frontends.kana import MARKS, PHONEMES, READ_AS, SILENT, SMALL
from flowtts_core.text.given_phonemes import given_phonemes
from flowtts_core.text.own_words import OwnWords
from flowtts_core.text.pieces import Piece

_REMEDY = "pip install 'flowtts[japanese]'"
_SIGN = re.compile(r"[^\W\d_]+|[\s\S]")
_HIRAGANA = {code: code + 0x60 for code in (*range(0x3041, 0x3097), 0x309D, 0x309E)}  # to katakana
_LONGEST_ENTRY = 8  # words that an entry of a lexicon may span
# Of verbs, which misaki writes in one with them, as its list of words has most such forms.
_ENDINGS = frozenset("タ ダ テ デ タラ ダラ バ ナイ マス".split())
_KINDS = {"動詞": "verb", "助動詞": "ending", "助詞": "ending"}
_NASALS = (("mpb", "m"), ("kɡ", "ŋ"), ("ɲʨʥ", "ɲ"), ("ntdɾz", "n"))  # what follows ン -> how it is spoken


class _Unit(NamedTuple):
    """What pyopenjtalk found: `text[start:end]`, its reading in katakana (empty for a mark), and its part of speech."""

    start: int
    end: int
    kana: str
    kind: str = ""  # "number", "verb", "ending", or another


class OpenJtalkPhonemizer:
    """`pieces(text) -> pieces`, whose text is the reading in katakana, and `transcribe(pieces) -> phonemes of each`.

    Pronunciation, not spelling: は as a particle is ワ, and 3本 is サンボン. Numbers are one word each.

    Raises:
        ConfigError: for another language.
        DependencyError: when the extra is not installed.
    """

    alphabet = "misaki"

    def __init__(self, language: str = "ja") -> None:
        if language != "ja":
            raise ConfigError(f"phonemizer 'openjtalk' has no language {language!r}", "its language is ja")
        try:
            import pyopenjtalk
        except ImportError as error:
            raise DependencyError(f"phonemizer 'openjtalk' needs {error.name}", _REMEDY) from error
        self._analyse: Any = pyopenjtalk.g2p_mapping

    def pieces(self, text: str, own: OwnWords | None = None) -> list[Piece]:
        """Return the words, marks and spaces of a text. Every character that should be heard is in one, or is a "skip".

        Args:
            own: the user's words; one of them may be several of pyopenjtalk's.
        """
        out: list[Piece] = []
        done = 0
        for block in given_phonemes(text):
            out += self._read(text, done, block.start, own)
            out.append(Piece(block.ipa, block.word_start, block.word_end, "ipa"))
            done = block.end
        return [*out, *self._read(text, done, len(text), own)]

    def transcribe(self, pieces: Sequence[Piece]) -> list[str]:
        """Return the phonemes of each piece; empty for pieces that are not words. A stop (っ) joins words into one."""
        out: list[str] = []
        before = ""
        for piece in pieces:
            phonemes = kana_to_phonemes(piece.text) if piece.kind == "word" else ""
            joined = before and phonemes and "ʔ" in (before[-1], phonemes[0])
            out.append(JOINED + phonemes if joined else phonemes)
            before = before if piece.kind == "space" else phonemes
        return out

    def _read(self, text: str, start: int, stop: int, own: OwnWords | None) -> Iterator[Piece]:
        units = self._units(text, start, stop)
        k = 0
        while k < len(units):
            unit = units[k]
            many = range(min(len(units), k + _LONGEST_ENTRY), k, -1) if own is not None else ()
            said = ((j, own.reading(text[unit.start : units[j - 1].end])) for j in many if own is not None)
            last, reading = next((pair for pair in said if pair[1] is not None), (k, None))
            if reading is not None:
                yield from self._said(*reading, unit.start, units[last - 1].end)
                k = last
                continue
            if unit.kana:
                yield Piece(unit.kana, unit.start, unit.end, "word")
                yield from _unread(text, unit.start, unit.end)
            else:
                yield from _signs(text, unit.start, unit.end)
            k += 1

    def _said(self, said: str, is_ipa: bool, start: int, end: int) -> Iterator[Piece]:
        if is_ipa:
            yield Piece(said, start, end, "ipa")
            return
        for piece in self.pieces(said):
            if piece.kind != "space":
                yield piece._replace(start=start, end=end)

    def _units(self, text: str, start: int, stop: int) -> list[_Unit]:
        """Return the words and marks of `text[start:stop]`, in order and without gaps. All words of a number have its span."""
        part = "".join(map(_plain, text[start:stop]))
        if not part.strip():
            return [_Unit(start, stop, "")] if part else []
        try:
            # Without Sudachi's readings, since they depend on whether its dictionary is installed.
            nodes = self._analyse(part, normalize_mode="NFKC", use_sudachi_kanji_yomi=False)
        except ModuleNotFoundError as error:  # asked for where a rare kanji has no reading
            raise DependencyError("the text has a rare kanji, which needs sudachidict_core", _REMEDY) from error
        units: list[_Unit] = []
        done = start
        for node in nodes:
            first, last = (start + place for place in node["char_span"])
            kana = _kana_of(node["pron"]) or _kana_of(unicodedata.normalize("NFKC", part[first - start : last - start]))
            if first == last:  # one character became several words (½): they share its place
                if not kana or not units:
                    continue
                first, last = units[-1][:2]
            elif first > done:
                units.append(_Unit(done, first, ""))
            is_number = kana and (node["pos_group1"] == "数" or node["surface"] == "．")
            kind = "number" if is_number else _KINDS.get(node["pos"], "") * (node["pos_group1"] != "接尾")
            units.append(_Unit(first, last, kana, kind))
            done = max(done, last)
        return _joined([*units, *([_Unit(done, stop, "")] if done < stop else [])])


def _joined(units: list[_Unit]) -> list[_Unit]:
    """Join verbs with their endings. Words of one number, or of one character, all get the span of the whole."""
    out: list[_Unit] = []
    for unit in units:
        before = out[-1] if out else _Unit(0, 0, "")
        spoken = before.kana + unit.kana
        if unit.kind == "ending" and (
            before.kind == "verb" and unit.kana in _ENDINGS or spoken in ("マシタ", "マセン")
        ):
            out[-1] = before._replace(end=unit.end, kana=spoken, kind="")
        else:
            out.append(unit)
    k = 0
    while k < len(out):
        end = k + 1
        while end < len(out) and (out[end].start < out[end - 1].end or out[k].kind == out[end].kind == "number"):
            end += 1
        out[k:end] = [part._replace(start=out[k].start, end=out[end - 1].end) for part in out[k:end]]
        k = end
    return out


def _plain(character: str) -> str:
    """Return one character that pyopenjtalk can read for one of the text, so that places stay."""
    if character in READ_AS:
        return READ_AS[character]
    if unicodedata.category(character) in ("Cc", "Cs"):  # it takes no null and no half of a pair
        return " "
    base = unicodedata.normalize("NFD", character)[0]
    return base if base.isascii() else character  # é is e


def _kana_of(pronounced: str) -> str:
    """Return the katakana of a pronunciation or written word; "" where it is none."""
    kana = pronounced.translate(_HIRAGANA).replace("’", "")  # the mark of a vowel that is not voiced
    return kana if kana.strip("ーッ") and all(c in PHONEMES or c in "ーンッ" for c in kana) else ""


def _signs(text: str, start: int, end: int) -> Iterator[Piece]:
    """Marks and spaces as they are spoken; what has no sound is a "skip", but for signs that nobody reads aloud."""
    for match in _SIGN.finditer(text, start, end):
        sign, span = match.group(), match.span()
        plain = unicodedata.normalize("NFKC", sign)
        mark = MARKS.get(sign) or MARKS.get(plain)
        if sign in "〜～" and text[span[1] : span[1] + 1].isdigit():
            yield Piece("カラ", *span, "word")  # from 3 to 5, as misaki reads it
        elif plain in "-−" and text[span[1] : span[1] + 1].isdigit() and not text[: span[0]][-1:].isalnum():
            yield Piece("マイナス", *span, "word")
        elif sign.isspace() or mark == " ":
            yield Piece(" ", *span, "space")
        elif mark:
            yield Piece(mark, *span, "mark")
        elif plain not in SILENT and unicodedata.category(sign[0]) not in ("Cc", "Cf", "Cs", "Mn"):
            yield Piece(sign, *span, "skip")


def _unread(text: str, start: int, end: int) -> Iterator[Piece]:
    """Letters of a spelled Latin word that pyopenjtalk passes over (ß)."""
    for place in range(start, end):
        read = unicodedata.normalize("NFKC", _plain(text[place])).isascii()
        if not read and unicodedata.name(text[place], "").startswith("LATIN"):
            yield Piece(text[place], place, place + 1, "skip")


def kana_to_phonemes(kana: str) -> str:
    """Return the phonemes of a word in katakana, in misaki's alphabet; ン is spoken as the sound after it asks."""
    moras: list[str] = []
    for character in kana:
        before = moras[-1] if moras else ""
        if len(before) == 1 and (before + character in PHONEMES or (character in SMALL and before in PHONEMES)):
            moras[-1:] = [before + character]
        else:
            moras.append(character)
    sounds = [_mora(mora) for mora in moras]
    for k, following in enumerate([*sounds[1:], " "]):
        if moras[k] == "ン":
            sounds[k] = next((nasal for first, nasal in _NASALS if following[0] in first), "ɴ")
    return "".join(sounds)


def _mora(mora: str) -> str:
    known = PHONEMES.get(mora) or {"ー": "ː", "ッ": "ʔ", "ン": "ɴ"}.get(mora)
    return known or PHONEMES[mora[0]][:-1] + PHONEMES[mora[1]]  # スィ is si
