"""English syllables that are written as they sound (vawn, zhah, wuh) to IPA."""

from __future__ import annotations

import re

_VOWELS = {
    "eye": "aɪ", "igh": "aɪ", "ah": "ɑ", "aw": "ɔ", "ay": "eɪ", "ee": "i", "eh": "ɛ", "ih": "ɪ", "oh": "oʊ", "oo": "u",
    "ow": "aʊ", "oy": "ɔɪ", "uh": "ʌ", "y": "aɪ",
}  # fmt: skip
_CONSONANTS = {
    "ch": "tʃ", "ck": "k", "dh": "ð", "dj": "dʒ", "kh": "k", "ng": "ŋ", "ph": "f", "qu": "kw", "sh": "ʃ", "th": "θ",
    "tz": "ts", "wh": "w", "zh": "ʒ", "c": "k", "g": "ɡ", "j": "dʒ", "q": "k", "r": "ɹ", "x": "ks", "y": "j",
    **{letter: letter for letter in "bdfhklmnpstvwz"},
}  # fmt: skip
_CONSONANT = "|".join(_CONSONANTS)
_VOWEL = "|".join(_VOWELS) + r"(?=\Z)"  # y, the last, is a vowel at the end alone: WY
_SYLLABLE = re.compile(rf"((?:{_CONSONANT})*?)({_VOWEL})((?:{_CONSONANT})*)", re.IGNORECASE)


def syllable_ipa(syllable: str) -> str:
    """Return the IPA of one syllable, stressed; "" where its vowel is not written in a way that has one sound alone."""
    match = _SYLLABLE.fullmatch(syllable)
    if match is None:
        return ""
    onset, vowel, coda = (part.lower() for part in match.groups())
    return _consonants(onset) + "ˈ" + _VOWELS[vowel] + _consonants(coda)


def _consonants(letters: str) -> str:
    return "".join(_CONSONANTS[part] for part in re.findall(_CONSONANT, letters))


def as_one_word(syllables: list[str], spoken: list[str]) -> str:
    """Return the IPA of a word from that of its syllables; those in capitals are stressed, else the first is.

    Args:
        syllables: as they are written.
        spoken: IPA of each, which may have stress marks anywhere.
    """
    stressed = [syllable.isupper() and len(syllable) > 1 for syllable in syllables]
    if not any(stressed):
        stressed = [k == 0 for k in range(len(syllables))]
    return "".join(
        ipa
        if strong
        else ipa.replace("ˈ", "").replace("ˌ", "").replace("ʌ", "ə" if written.lower().endswith("uh") else "ʌ")
        for written, ipa, strong in zip(syllables, spoken, stressed, strict=True)
    )
