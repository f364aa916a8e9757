"""Speaker similarity by Resemblyzer's GE2E encoder (Wan et al., 2018; weights in its wheel).

The cosine of two utterances' embeddings; about 0.87 within one LibriSpeech speaker and 0.53 between two. Higher is
better.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from flowtts_core.errors import AudioError, ConfigError
from flowtts_core.metrics.optional import EVAL, require
from flowtts_core.metrics.signal import to_16k

REMEDY = f"{EVAL} && pip install --no-deps resemblyzer"


def embed(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return the voice of the waveform [S] as a vector [256] of length 1.

    Raises:
        DependencyError: without Resemblyzer.
        AudioError: when no voice is found in it.
    """
    resemblyzer = require("resemblyzer", REMEDY)
    heard = to_16k(waveform, sample_rate)
    if not np.abs(heard).max() > 0:
        raise AudioError("no voice in the waveform: it is silent")
    voiced = resemblyzer.preprocess_wav(heard)  # levels it and cuts long rests
    if voiced.size == 0:
        raise AudioError("no voice found in the waveform")
    return np.asarray(_encoder().embed_utterance(voiced), dtype=np.float32)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Return the cosine of the angle between two vectors [D], in [-1, 1]."""
    return float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))


def equal_error_rate(
    same: Sequence[float] | np.ndarray, different: Sequence[float] | np.ndarray
) -> tuple[float, float]:
    """Return where accepting two utterances as one speaker's goes wrong as often either way, and from which score on.

    Pairs that score the threshold or more are accepted. As the threshold rises, the share of `same` [N] that is rejected
    rises and that of `different` [M] that is accepted falls, in steps; between two steps, which every score that both hold
    makes at once, the shares run along a straight line, as they do for decisions drawn between both thresholds (ROC without
    its convex hull). The rate is where both shares are one.

    Returns:
        The rate, 0 where the scores part and 0.5 where they are alike, and the threshold: the score at which the line is
        cut, or, where the shares meet between two scores, their mean.

    Raises:
        ConfigError: for an empty side, or scores that are not finite.
    """
    sides = [np.asarray(side, dtype=np.float64) for side in (same, different)]
    for name, side in zip(("same", "different"), sides, strict=True):
        if side.ndim != 1 or side.size == 0 or not np.isfinite(side).all():
            raise ConfigError(f"scores of {name} speakers: shape {side.shape}", "give one or more, all finite")
    scores = np.unique(np.concatenate(sides))
    # with the first k scores rejected, k = 0 ... K; whole numbers, so that "equal" is exact
    missed, turned_away = (np.searchsorted(np.sort(side), np.append(scores, np.inf)) for side in sides)
    n, m = len(sides[0]), len(sides[1])
    gap = missed * m - (m - turned_away) * n  # n m times (share missed - share accepted): rises from -n m to n m
    k = int(np.argmax(gap >= 0))
    if gap[k] == 0:
        return float(missed[k] / n), float((scores[k - 1] + scores[k]) / 2)
    weight = -gap[k - 1] / (gap[k] - gap[k - 1])
    return float((missed[k - 1] + weight * (missed[k] - missed[k - 1])) / n), float(scores[k - 1])


@lru_cache(maxsize=1)
def _encoder() -> Any:
    return require("resemblyzer", REMEDY).VoiceEncoder(device="cpu", verbose=False)
