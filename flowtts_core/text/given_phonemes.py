"""Phonemes that a text brings itself: `[word](/IPA/)`, as misaki has it, and `[[IPA]]`, as Piper and espeak-ng have it.

Books have brackets too: `[[sic]]`, `[12]`, `[here](/about/)`. So a block counts only where its IPA has a sign that no
ordinary writing has, such as the stress mark ˈ. All else is read as it stands.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

# IPA letters and marks but those that are letters of languages as well (æ ç ð ø œ ŋ β θ χ and the like).
IPA_SIGNS = "ɐɑɒɓɔɕɖɗɘəɚɛɜɝɞɟɠɡɢɣɤɥɦɧɨɪɫɬɭɮɯɰɱɲɳɴɵɶɸɹɺɻɽɾʀʁʂʃʄʈʉʊʋʌʍʎʏʐʑʒʔʕʘʙʛʜʝʟʡʢʣʤʥʦʧʨᵻˈˌːˑ"
_BLOCK = re.compile(
    rf"\[\[(?P<alone>[^\[\]]*[{IPA_SIGNS}][^\[\]]*)\]\]"
    rf"|\[(?P<word>[^\[\]\n]+)\]\(/(?P<ipa>[^/()\[\]\n]*[{IPA_SIGNS}][^/()\[\]\n]*)/\)"
)
_NOTATION = str.maketrans("", "", ".‿͜͡")  # ends of syllables, links and ties, which are not spoken
_ONE_PHONE = re.compile(r"[ˈˌ]*(?:aɪ|aʊ|eɪ|oʊ|əʊ|ɔɪ|tʃ|dʒ|ts|dz|[^\sˈˌ])[ːˑʰʲʷˠˤ˞\u0300-\u036f]*")

_VOICELESS = tuple("ptkfθ")
_SIBILANT = tuple("szʃʒ")


class GivenPhonemes(NamedTuple):
    """A block `text[start:end]`; its written word is `text[word_start:word_end]`, all of the block where there is none."""

    start: int
    end: int
    word_start: int
    word_end: int
    ipa: str


def given_phonemes(text: str) -> list[GivenPhonemes]:
    """Return the blocks of a text in order."""
    if "[" not in text:
        return []
    found = []
    for match in _BLOCK.finditer(text):
        word = match.span("word") if match["word"] else match.span()
        found.append(GivenPhonemes(*match.span(), *word, _plain(match["alone"] or match["ipa"])))
    return found


def _plain(ipa: str) -> str:
    """IPA without notation; blanks between single phones (`h ə l ˈoʊ`) part no words, and go too."""
    ipa = ipa.translate(_NOTATION)
    parts = ipa.split()
    return ("" if all(map(_ONE_PHONE.fullmatch, parts)) else " ").join(parts)


def masked(text: str, blocks: Sequence[GivenPhonemes], fill: str, edges: tuple[str, str] = ("", "")) -> str:
    """Return the text with each block as `edges` around a run of `fill`, of the same length."""
    out, done = [], 0
    for block in blocks:
        length = block.end - block.start - len(edges[0]) - len(edges[1])
        out += [text[done : block.start], edges[0], fill * length, edges[1]]
        done = block.end
    return "".join([*out, text[done:]])


def as_words(text: str) -> str:
    """Return the text, of the same length, with a word in the place of each block, for what looks for ends of sentences."""
    blocks = given_phonemes(text)
    if not blocks:
        return text
    first = [text[block.word_start] if text[block.word_start].isalpha() else "X" for block in blocks]
    plain = masked(text, blocks, "x")
    for block, letter in zip(blocks, first, strict=True):
        plain = plain[: block.start] + letter + plain[block.start + 1 :]
    return plain


def written(text: str) -> str:
    """Return the text as it is shown: `[word](/IPA/)` is the word."""
    blocks = given_phonemes(text)
    for block in reversed(blocks):
        text = text[: block.start] + text[block.word_start : block.word_end] + text[block.end :]
    return text


def has_sign(ipa: str) -> bool:
    """Whether the IPA has a sign that no ordinary writing has, without which a block does not count."""
    return any(sign in IPA_SIGNS for sign in ipa)


def plural_ending(ipa: str) -> str:
    """How 's sounds after `ipa`."""
    if ipa.endswith(_SIBILANT):
        return "ɪz"
    return "s" if ipa.endswith(_VOICELESS) else "z"
