"""Turn a written text into the words that are read, each with its characters in the source: English and German."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from flowtts_core.text.books.clean import clean
from flowtts_core.text.english import expand as english
from flowtts_core.text.german import expand as german
from flowtts_core.text.given_phonemes import given_phonemes, masked
from flowtts_core.text.pieces import Piece, Reading

Readings = Callable[[str, Callable[[str], bool] | None], Iterable[Reading]]
_READINGS: dict[str, Readings] = {"en": english.readings, "de": german.readings}

_TOKEN = re.compile(
    r"(?P<ipa>\[\[ˈ+\]\])"  # a block of phonemes, as `normalize` masks it
    r"|(?P<word>[^\W\d_]+(?:'[^\W\d_]+)*(?:-[^\W\d_]+(?:'[^\W\d_]+)*)*'?)"
    r"|(?P<number>\d+(?:[.,]\d+)*)"
    r"|(?P<dots>\.\s?\.(?:\s?\.)+|…+)"
    r"|(?P<dash>\s*(?:--+|[—–]|(?<=\s)-(?=\s))[-—–\s]*)"
    r"|(?P<space>\s+)"
    r"|(?P<mark>[;:,.!?¡¿\"]+)"
    r"|(?P<bracket>[()\[\]{}]+)"
    r"|(?P<other>[\s\S])"
)
_LATIN = re.compile(r"[A-Za-zªº\u00c0-\u024f\u1e00-\u1eff'-]+\Z")


def tokenize(text: str, latin_only: bool = True, start: int = 0, stop: int | None = None) -> list[Piece]:
    """Return words, marks and spaces of plain text, with offsets in `text`. `latin_only` skips words of other scripts.

    Marks are reduced to those that voices are trained on: a dash, a bracket or an ellipsis becomes a comma.
    """
    pieces: list[Piece] = []
    for match in _TOKEN.finditer(text, start, len(text) if stop is None else stop):
        kind = match.lastgroup
        start, end = match.span()
        if kind == "word":
            word = match.group()
            if word[-1] == "'":
                end, word = (
                    (end, word) if word[-2] in "sS" and _is_possessive(text, end, pieces) else (end - 1, word[:-1])
                )
            if latin_only and not _LATIN.match(word):
                pieces.append(Piece(word, start, end, "skip"))
                continue
            pieces.extend(Piece(part, start, end, "word") for part in word.split("-"))
        elif kind == "space":
            pieces.append(Piece(" ", start, end, "space"))
        elif kind == "mark":
            pieces.extend(Piece(text[i], i, i + 1, "mark") for i in range(start, end))
        elif kind in ("dots", "dash", "bracket"):
            pieces.append(Piece(".,"[text[end:].strip(" \"'") != ""] if kind == "dots" else ",", start, end, "mark"))
        elif kind == "number":
            pieces.append(Piece(match.group(), start, end, "word" if not latin_only else "skip"))
        elif kind == "ipa":
            pieces.append(Piece("", start, end, "ipa"))
        elif match.group().isalnum():
            pieces.append(Piece(match.group(), start, end, "skip"))
    return pieces


def _is_possessive(text: str, end: int, pieces: list[Piece]) -> bool:
    """Return whether an apostrophe after s belongs to the word: it does unless it closes a quotation."""
    return end < len(text) and text[end] == " " and not any("'" in text[max(0, p.start - 1) : p.start] for p in pieces)


def normalize(text: str, language: str = "en-us", is_word: Callable[[str], bool] | None = None) -> list[Piece]:
    """Return the pieces to read of any text, with their characters in it. It never raises.

    Args:
        language: what is written in figures and signs is read in English (`en...`) and German (`de...`); a text of another
            language is taken as it stands.
        is_word: whether the lexicon has a word, which may stand in capitals.
    """
    readings = _READINGS.get(language.lower().replace("_", "-").partition("-")[0])
    blocks = given_phonemes(text)
    plain, starts, ends = clean(masked(text, blocks, "ˈ", ("[[", "]]")), powers=readings is not None)
    pieces: list[Piece] = []
    done = 0
    for reading in readings(plain, is_word) if readings else ():
        pieces += tokenize(plain, True, done, reading.start)
        pieces += _read(reading)
        done = reading.end
    pieces += tokenize(plain, readings is not None, done)
    if starts is not None and ends is not None:
        pieces = _placed(pieces, starts, ends)
    given = {block.start: Piece(block.ipa, block.word_start, block.word_end, "ipa") for block in blocks}
    return [given.get(piece.start, piece) if piece.kind == "ipa" else piece for piece in pieces]


def _placed(pieces: list[Piece], starts: list[int], ends: list[int]) -> list[Piece]:
    """Return the pieces with offsets in the source, in order.

    Where a source character became two ("℃" is "°C"), its pieces share its place instead of overlapping.
    """
    out: list[Piece] = []
    first = last = 0
    for piece in pieces:
        start, end = starts[piece.start], ends[piece.end - 1]
        if start < last and end > last:
            start = last
        elif start < last:
            start, end = first, last
        out.append(piece._replace(start=start, end=end))
        first, last = start, end
    return out


def _read(reading: Reading) -> list[Piece]:
    pieces: list[Piece] = []
    for word in reading.words.split():
        if word == ",":
            pieces.append(Piece(",", reading.start, reading.end, "mark"))
        elif word[0] == "^":
            pieces.append(Piece(word[1:], reading.start, reading.end, "letter"))
        else:
            pieces.append(Piece(word, reading.start, reading.end, "word"))
    return pieces
