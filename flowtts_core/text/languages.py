"""Whether a text is in the language that a front end reads: by the mark of its row, and by py3langid (an optional extra)."""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from flowtts_core.errors import DependencyError

INSTALL = "pip install 'flowtts[languages]'"
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
