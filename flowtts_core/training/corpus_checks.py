"""What shows only beside the other clips of a corpus: a text too long or short for its clip, one recording under two texts."""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from flowtts_core.training.prepare import CleanClip, ClipLimits

_ENOUGH = 20  # clips of a language, to know its usual rate
_LEAST_FACTOR = 2.0  # a rate within this factor of the usual one is never odd, however even the corpus is
_LEAST_S = 1.5  # nor is a clip that has no more than this too much or too little: "Ah, indeed." may take its time
_NAMED = 5  # ids in a reason


@dataclass(frozen=True)
class ClipMeasures:
    """Cheap figures of a prepared clip, kept in its file's record.

    Attributes:
        words: a hash of its letters and digits, which texts share that differ in case and punctuation alone.
        letters: how many of them.
        seconds: of the audio as it is kept.
        sound, lufs, trimmed_s, offset: as `CleanClip` has them.
    """

    id: str
    language: str
    words: str
    letters: int
    seconds: float
    sound: str
    lufs: float
    trimmed_s: float
    offset: float

    @property
    def rate(self) -> float:
        """Return letters and digits by second."""
        return self.letters / self.seconds


def measures_of(id: str, text: str, language: str, clip: CleanClip, sample_rate: int) -> ClipMeasures:
    """Return the measures of a clip that is kept."""
    spoken = "".join(c for c in text.casefold() if unicodedata.category(c)[0] in "LMN")
    words = hashlib.blake2b(spoken.encode("utf-8", "replace"), digest_size=8).hexdigest()
    seconds = max(0.001, round(len(clip.waveform) / sample_rate, 3))
    return ClipMeasures(
        id, language, words, len(spoken), seconds, clip.sound, clip.lufs, clip.trimmed_s, clip.offset
    )  # fmt: skip


def unlike_the_rest(clips: Sequence[ClipMeasures], limits: ClipLimits) -> dict[str, str]:
    """Return, by id, why clips are set aside for what the whole corpus shows."""
    return {**_odd_rates(clips, limits), **_several_texts(clips)}


def _several_texts(clips: Iterable[ClipMeasures]) -> dict[str, str]:
    """Return a reason for every clip of a recording that has different texts: which of them is true cannot be told."""
    sounds: dict[str, list[ClipMeasures]] = defaultdict(list)
    for clip in clips:
        sounds[clip.sound].append(clip)
    reasons = {}
    for same in sounds.values():
        for clip in same if len({one.words for one in same}) > 1 else ():
            others = [one.id for one in same if one.words != clip.words]
            more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
            reasons[clip.id] = f"same audio under different texts: also {', '.join(others[:_NAMED])}{more}"
    return reasons


def _odd_rates(clips: Sequence[ClipMeasures], limits: ClipLimits) -> dict[str, str]:
    """Return a reason for each clip that is read far faster or slower than the limits or the clips of its language allow."""
    languages: dict[str, list[ClipMeasures]] = defaultdict(list)
    for clip in clips:
        languages[clip.language].append(clip)
    reasons = {}
    for alike in languages.values():
        median, factor = usual_rate(alike, limits)
        for clip in alike:
            odd = _odd(clip, limits.min_chars_per_s, limits.max_chars_per_s)
            if not odd and math.isfinite(factor) and abs(clip.seconds - clip.letters / median) > _LEAST_S:
                odd = _odd(clip, median / factor, median * factor)
            if odd:
                reasons[clip.id] = odd
    return reasons


def usual_rate(clips: Sequence[ClipMeasures], limits: ClipLimits) -> tuple[float, float]:
    """Return the median rate of clips, and the factor by which a rate may differ from it: inf where too few are known."""
    rates = np.array([clip.rate for clip in clips if clip.letters])
    if len(rates) < _ENOUGH or not limits.rate_spread:
        return float(np.median(rates)) if len(rates) else 0.0, math.inf
    median = float(np.median(rates))
    spread = 1.4826 * float(np.median(np.abs(np.log(rates / median))))  # a standard deviation, where rates are normal
    return median, max(_LEAST_FACTOR, math.exp(limits.rate_spread * spread))


def _odd(clip: ClipMeasures, least: float, most: float) -> str:
    if least <= clip.rate <= most:
        return ""
    word = "short" if clip.rate < least else "long"
    return f"text too {word} for its clip: {clip.rate:.1f} letters per second (accepted: {least:.1f} to {most:.1f})"


def kind_of(reason: str) -> str:
    """Return what reasons have in common that differ in figures and names: `too short`, for counting."""
    return re.sub(r"\d[\d.,]*", "N", reason.split(":")[0])
