"""Turn a written text into the words that are read, each with its characters in the source: English and German."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

from flowtts_core.text.books.clean import clean
from flowtts_core.text.english import expand as english
from flowtts_core.text.german import expand as german
from flowtts_core.text.given_phonemes import given_phonemes, masked, plural_ending
from flowtts_core.text.latin import LATIN, in_latin, unread
from flowtts_core.text.own_words import OwnWord, OwnWords
from flowtts_core.text.pieces import Piece, Reading

Readings = Callable[[str, Callable[[str], bool] | None], Iterable[Reading]]
_READINGS: dict[str, Readings] = {"en": english.readings, "de": german.readings}

# A letter, and the vowel signs of Hebrew, Arabic, Indian and Thai words, which Python does not count among letters.
_VOWEL_SIGNS = (
    "\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed\u0900-\u0963\u0971-\u0dff\u0e31-\u0e4e\u0eb1-\u0ecd"
)
_LETTERS = rf"[^\W\d_]++(?:[{_VOWEL_SIGNS}][^\W\d_]*+)*+"
_TOKEN = re.compile(
    r"(?P<ipa>\[\[ˈ+\]\])"  # a block of phonemes, as `normalize` masks it
    rf"|(?P<word>{_LETTERS}(?:'{_LETTERS})*(?:-{_LETTERS}(?:'{_LETTERS})*)*'?)"
    r"|(?P<number>\d+(?:[.,]\d+)*)"
    r"|(?P<dots>\.\s?\.(?:\s?\.)+|…+)"
    r"|(?P<dash>\s*(?:--+|[—–]|(?<=\s)-(?=\s))[-—–\s]*)"
    r"|(?P<space>\s+)"
    r"|(?P<mark>[;:,.!?¡¿\"]+)"
    r"|(?P<bracket>[()\[\]{}]+)"
    r"|(?P<other>[\s\S])"
)
_ANY_LATIN = re.compile("[A-Za-z]")


def tokenize(text: str, latin_only: bool = True, start: int = 0, stop: int | None = None) -> list[Piece]:
    """Return words, marks and spaces of plain text, with offsets in `text`.

    With `latin_only` words of other scripts are written in Latin letters where the text has Latin words too. One that has
    none is in another language, and they are skipped.

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
            if latin_only and not LATIN.match(word):
                pieces += _foreign(word, start, end, text)
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
        elif match.group().isalnum():  # a figure of another script, a superscript: `_with_unread` tells of other signs
            pieces.append(Piece(match.group(), start, end, "skip"))
    return pieces


def _foreign(word: str, start: int, end: int, text: str) -> list[Piece]:
    words = in_latin(word) if _ANY_LATIN.search(text) else []
    return [Piece(latin, start, end, "word") for latin in words] or [Piece(word, start, end, "skip")]


def _is_possessive(text: str, end: int, pieces: list[Piece]) -> bool:
    """Return whether an apostrophe after s belongs to the word: it does unless it closes a quotation."""
    return end < len(text) and text[end] == " " and not any("'" in text[max(0, p.start - 1) : p.start] for p in pieces)


def normalize(
    text: str,
    language: str = "en-us",
    is_word: Callable[[str], bool] | None = None,
    own: OwnWords | None = None,
) -> list[Piece]:
    """Return the pieces to read of any text, with their characters in it. It never raises.

    Args:
        language: what is written in figures and signs is read in English (`en...`) and German (`de...`); a text of another
            language is taken as it stands.
        is_word: whether the lexicon has a word, which may stand in capitals.
        own: the user's words, which go before all else.
    """
    readings = _READINGS.get(language.lower().replace("_", "-").partition("-")[0])
    blocks = given_phonemes(text)
    plain, starts, ends = clean(masked(text, blocks, "ˈ", ("[[", "]]")), powers=readings is not None)
    found = own.find(plain) if own is not None else []
    plain = _hidden(plain, found)
    places: Iterable[tuple[int, int, list[Piece]]] = (
        (reading.start, reading.end, _read(reading)) for reading in (readings(plain, is_word) if readings else ())
    )
    if found:
        said = [(word.start, word.end, list(_said(word, language, is_word, own))) for word in found]
        places = sorted([*places, *said])
    pieces: list[Piece] = []
    done = 0
    for start, end, spoken in places:
        pieces += tokenize(plain, readings is not None, done, start)
        pieces += spoken
        done = end
    pieces += tokenize(plain, readings is not None, done)
    if starts is not None and ends is not None:
        pieces = _placed(pieces, starts, ends)
    pieces = _with_unread(pieces, text)
    given = {block.start: Piece(block.ipa, block.word_start, block.word_end, "ipa") for block in blocks}
    return [given.get(piece.start, piece) if piece.kind == "ipa" else piece for piece in pieces]


def _hidden(plain: str, found: list[OwnWord]) -> str:
    """Return the text with a word that no rule reads in the place of each of the user's, as long as it and as large."""
    for word in found:
        length, large = word.end - word.start, plain[word.start].isupper()
        stand_in = ("Q" if large else "q") + "q" * (length - 1) if length > 1 else "ñ"
        plain = plain[: word.start] + stand_in + plain[word.end :]
    return plain


def _said(word: OwnWord, language: str, is_word: Callable[[str], bool] | None, own: OwnWords | None) -> Iterator[Piece]:
    """Yield what is read in the place of one of the user's words."""
    if word.is_ipa:
        yield Piece(word.said + (plural_ending(word.said) if word.owner else ""), word.start, word.end, "ipa")
        return
    if not word.said.strip():
        yield Piece(" ", word.start, word.end, "space")  # to be passed over, which is no loss
        return
    text = word.said + ("'s" if word.owner else "")
    within = own.without_patterns() if own is not None and word.replaced else None
    for (start, end), group in groupby(normalize(text, language, is_word, within), lambda piece: piece[1:3]):
        parts = list(group)
        if len(parts) > 1 and "-".join(part.text for part in parts) == text[start:end]:
            yield Piece(text[start:end], word.start, word.end, "syllables")
            continue
        yield from (part._replace(start=word.start, end=word.end) for part in parts if part.kind != "space")


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


def _with_unread(pieces: list[Piece], text: str) -> list[Piece]:
    """Return the pieces, with one of kind "skip" for each place that is to be told as not spoken.

    Such places lie between pieces, and in a blank or a dash that `clean` joined over them.
    """
    out: list[Piece] = []
    done = 0
    for piece in pieces:
        out += _skipped(text, done, piece.start)
        out.append(piece)
        if piece.end - piece.start > 1 and not piece.spoken and piece.kind != "skip":
            out += _skipped(text, max(done, piece.start), piece.end)
        done = max(done, piece.end)
    return out + _skipped(text, done, len(text))


def _skipped(text: str, start: int, end: int) -> list[Piece]:
    """Return pieces of kind "skip" for what of `text[start:end]` is to be told as not spoken."""
    if end <= start:
        return []
    places = unread(text[start:end])
    return [Piece(text[start + first : start + last], start + first, start + last, "skip") for first, last in places]


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
