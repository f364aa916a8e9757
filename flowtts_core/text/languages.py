"""Whether a text is in the language that a front end reads: by the mark of its row, and by py3langid."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from flowtts_core.errors import DependencyError
from flowtts_core.text.given_phonemes import given_phonemes, masked

INSTALL = "pip install py3langid"
_CLEARLY = 20.0  # times as probable: true of none of 9,000 English sentences, of 98 % of 420 German ones
_NO_LANGUAGE = "zxx"
_KIN = {  # language -> labels that the detector may give to its texts
    "en": ("pcm",),
    "no": ("nn", "da"),
    "nb": ("no", "nn", "da"),
    "nn": ("no", "da"),
    "da": ("no",),
    "hr": ("bs", "sr"),
    "bs": ("hr", "sr"),
    "sr": ("hr", "bs"),
    "id": ("ms",),
    "ms": ("id",),
    "ja": ("zh", "yue", "wuu"),  # a text of nothing but kanji
    "zh": ("yue", "wuu"),
    "cmn": ("zh", "yue", "wuu"),
    "yue": ("zh", "wuu"),
}


_THREE = {  # ISO 639-2, and English names that books give
    **{
        "eng": "en",
        "fre": "fr",
        "fra": "fr",
        "ger": "de",
        "deu": "de",
        "spa": "es",
        "ita": "it",
        "por": "pt",
        "dut": "nl",
    },
    **{
        "nld": "nl",
        "jpn": "ja",
        "chi": "zh",
        "zho": "zh",
        "kor": "ko",
        "rus": "ru",
        "ukr": "uk",
        "pol": "pl",
        "swe": "sv",
    },
    **{
        "dan": "da",
        "nor": "no",
        "nob": "nb",
        "nno": "nn",
        "fin": "fi",
        "gre": "el",
        "ell": "el",
        "lat": "la",
        "tur": "tr",
    },
    **{
        "cze": "cs",
        "ces": "cs",
        "hun": "hu",
        "ara": "ar",
        "heb": "he",
        "hin": "hi",
        "cat": "ca",
        "rum": "ro",
        "ron": "ro",
    },
    **{
        "english": "en",
        "french": "fr",
        "german": "de",
        "spanish": "es",
        "italian": "it",
        "japanese": "ja",
        "russian": "ru",
    },
}
_UNKNOWN = ("und", "mul", "zxx", "mis", "")
_LATIN_SCRIPT = frozenset(
    "en de fr es it pt nl sv da no nb nn fi pl cs sk hu ro tr ca la cy ga hr sl et lv lt id ms vi sw".split()
)
_SCRIPTS = {  # language -> how the names of its letters begin
    **{"ja": ("HIRAGANA", "KATAKANA", "CJK"), "ko": ("HANGUL", "CJK"), "el": ("GREEK",), "he": ("HEBREW",)},
    **dict.fromkeys(("zh", "cmn", "yue"), ("CJK",)),
    **dict.fromkeys(("ru", "uk", "be", "bg", "mk"), ("CYRILLIC",)),
    **dict.fromkeys(("ar", "fa", "ur"), ("ARABIC",)),
    **dict.fromkeys(("hi", "mr", "ne"), ("DEVANAGARI",)),
    **dict.fromkeys(_LATIN_SCRIPT, ("LATIN", "MODIFIER")),
}
_ENOUGH = 25  # letters of a text that is judged
_SURE = 400  # letters of a text that is believed rather than its file


def detector_is_there() -> bool:
    """Return whether texts can be detected on this machine."""
    return find_spec("py3langid") is not None


def primary(language: str) -> str:
    """Return the language itself of a code as `en-us` or `en_GB`."""
    return re.split(r"[-_]", language.strip().lower())[0]


def other_language(text: str, marked: str, read: str, detect: bool) -> str:
    """Return why a text is not in the language `read`; empty where it may be, or `read` is empty.

    Args:
        marked: the language that its row names; empty where it names none.
        detect: judge the text itself as well. A language that the detector does not know is not judged.

    Raises:
        DependencyError: when it is to be detected without py3langid.
    """
    if not read:
        return ""
    if marked and primary(marked) != primary(read):
        return f"another language: its row says {marked!r}, the front end reads {read!r}"
    found = _detected(text, primary(read)) if detect else ""
    if not found:
        return ""
    return f"another language: {found!r}, and the front end reads {read!r} (--language {found})"


def another_language(text: str, read: str, declared: str = "") -> str:
    """Return what tells that a text is in another language than `read`; empty where it may be in it.

    The letters tell where they are of another script, the detector where it is there, else `declared`: what a file says of its
    language is often wrong.
    """
    own = primary(read)
    text = masked(text, given_phonemes(text), " ")
    letters = [character for character in text if character.isalpha()]
    if len(letters) >= _ENOUGH:
        script = _other_script(letters, own)
        found = _detected(text, own) if detector_is_there() else ""
        if found or script:
            return f"its text is in {found!r}" if found else f"its letters are {script}"
    said = primary(declared)
    said = _THREE.get(said, said)
    believed = detector_is_there() and len(letters) >= _SURE and own in _labels()
    if said in (*_UNKNOWN, own, *_KIN.get(own, ())) or believed or not re.fullmatch("[a-z]{2,3}", said):
        return ""
    return f"its metadata says {declared!r}"


def _other_script(letters: Sequence[str], own: str) -> str:
    """Return the script of most letters, where the language has another; empty where it is not known."""
    known = _SCRIPTS.get(own)
    if known is None:
        return ""
    scripts = Counter(unicodedata.name(letter, "").split(" ")[0].split("-")[0] for letter in letters)
    others = {name: count for name, count in scripts.items() if name and name not in known}
    if 2 * sum(others.values()) <= len(letters):
        return ""
    return max(others, key=lambda name: others[name]).capitalize()


def _labels() -> frozenset[str]:
    return frozenset(label for label, _ in _detector().rank(""))


def _detected(text: str, own: str) -> str:
    """Return the language in which a text clearly is, where that is not `own`, else an empty string."""
    probabilities = dict(_detector().rank(text))
    kin = {own, *_KIN.get(own, ())} & probabilities.keys()
    if not kin:
        return ""
    best = max(probabilities.keys() - kin - {_NO_LANGUAGE}, key=lambda label: (probabilities[label], label))
    return best if probabilities[best] > _CLEARLY * sum(probabilities[label] for label in kin) else ""


@lru_cache(maxsize=1)
def _detector() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise DependencyError("telling languages apart needs py3langid", INSTALL) from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
