"""Words to IPA by espeak-ng (an optional extra, GPL): other languages, and voices of the community trained with it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from flowtts_core.errors import ConfigError, DependencyError
from flowtts_core.text.pieces import Piece

JOINED = "\u2060"  # at the head of a word's IPA: spoken in one with the word before, without a space
_CACHE_LIMIT = 50_000


class EspeakPhonemizer:
    """`transcribe(pieces) -> IPA of each piece`, clause by clause, since espeak runs words together ("of the").

    Raises:
        DependencyError: when the extra is not installed.
        ConfigError: for a language that espeak does not have; the message names some.
    """

    def __init__(self, language: str = "en-us") -> None:
        try:
            import espeakng_loader
            from phonemizer.backend import EspeakBackend
            from phonemizer.backend.espeak.wrapper import EspeakWrapper
        except ImportError as error:
            raise DependencyError(f"phonemizer 'espeak' needs {error.name}", "pip install 'flowtts[espeak]'") from error
        # Both paths: with the library alone espeak-ng looks for its data where it was built, and ends the process.
        EspeakWrapper.set_library(espeakng_loader.get_library_path())
        EspeakWrapper.set_data_path(espeakng_loader.get_data_path())
        languages = EspeakBackend.supported_languages()
        if language not in languages:
            raise ConfigError(f"espeak has no language {language!r}", f"use one of: {', '.join(sorted(languages))}")
        quiet = logging.getLogger("flowtts.espeak")
        quiet.setLevel(logging.ERROR)
        self._backend: Any = EspeakBackend(language, with_stress=True, language_switch="remove-flags", logger=quiet)
        self._cache: dict[str, str] = {}
        self._shared: dict[str, list[str]] = {}

    def transcribe(self, pieces: Sequence[Piece]) -> list[str]:
        """IPA of each piece; where espeak joins words, the joint IPA is shared out over them."""
        clauses: list[list[int]] = [[]]
        for i, piece in enumerate(pieces):
            if piece.kind in ("mark", "ipa", "syllables"):
                clauses.append([])
            elif piece.kind in ("word", "letter"):
                clauses[-1].append(i)
        clauses = [clause for clause in clauses if clause]
        written = [" ".join(_written(pieces[i]) for i in clause) for clause in clauses]
        if len(self._cache) > _CACHE_LIMIT:
            self._cache.clear()
            self._shared.clear()
        self._fill(written)
        out = [""] * len(pieces)
        for clause, text in zip(clauses, written, strict=True):
            parts = self._shared.get(text)
            if parts is None:
                parts = self._shared[text] = self._parts(text, [_written(pieces[i]) for i in clause])
            for i, ipa in zip(clause, parts, strict=True):
                out[i] = ipa
        return out

    def _parts(self, text: str, words: list[str]) -> list[str]:
        whole = self._cache[text]
        parts = whole.split()
        if len(parts) == len(words):
            return parts
        self._fill(words)
        return _share(whole, [self._cache[word] for word in words])

    def _fill(self, texts: list[str]) -> None:
        missing = list(dict.fromkeys(text for text in texts if text not in self._cache))
        if not missing:
            return
        results = self._backend.phonemize(missing, strip=True)
        if len(results) != len(missing):  # espeak made two utterances of one: ask for each alone
            results = [" ".join(self._backend.phonemize([text], strip=True)) for text in missing]
        self._cache.update(zip(missing, results, strict=True))


def _written(piece: Piece) -> str:
    return piece.text.upper() if piece.kind == "letter" else piece.text


def _share(ipa: str, singles: list[str]) -> list[str]:
    """Cut `ipa` of a clause into one part a word, by likeness to the words' own IPA.

    Espeak reads some words as one and some (numbers) as several: the cheapest pairing of runs of words with runs of
    parts, one of the two of length 1. Within a joint part the later words begin with `JOINED`.
    """
    parts = ipa.split()
    if not parts:
        return [""] * len(singles)
    slack = abs(len(parts) - len(singles)) + 3
    best: dict[tuple[int, int], tuple[float, tuple[int, int]]] = {(0, 0): (0.0, (0, 0))}
    for i in range(len(singles) + 1):
        for j in range(max(0, i - slack), min(len(parts), i + slack) + 1):
            if (i, j) not in best:
                continue
            cost = best[i, j][0]
            steps = [(n, 1) for n in range(1, 5)] + [(1, n) for n in range(2, slack + 4)]
            for words, taken in steps:
                if i + words > len(singles) or j + taken > len(parts):
                    continue
                unlike = _unlike("".join(singles[i : i + words]), "".join(parts[j : j + taken]))
                key = (i + words, j + taken)
                if key not in best or cost + unlike < best[key][0]:
                    best[key] = (cost + unlike, (words, taken))
    place = (len(singles), len(parts))
    if place not in best:  # nothing fits: all of it to the first word
        return [ipa] + [""] * (len(singles) - 1)
    out: list[str] = []
    while place != (0, 0):
        words, taken = best[place][1]
        place = (place[0] - words, place[1] - taken)
        joint = " ".join(parts[place[1] : place[1] + taken])
        out = _cut(joint, singles[place[0] : place[0] + words]) + out
    return out


def _unlike(one: str, other: str) -> float:
    return len(set(one) ^ set(other)) + abs(len(one) - len(other))


def _cut(joint: str, singles: list[str]) -> list[str]:
    """One part of the clause over the words that it holds, in proportion to their length, each at least one symbol."""
    out, start, done, total = [], 0, 0, sum(max(len(s), 1) for s in singles)
    for i, single in enumerate(singles):
        done += max(len(single), 1)
        end = len(joint) if i == len(singles) - 1 else max(start + 1, round(len(joint) * done / total))
        out.append((JOINED if i else "") + joint[start:end])
        start = end
    return out
