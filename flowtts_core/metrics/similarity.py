"""Speaker similarity by Resemblyzer's GE2E encoder (Wan et al., 2018; weights in its wheel).

It is the cosine of two utterances' embeddings: about 0.87 within a LibriSpeech speaker, 0.53 between two. Higher is more
similar.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from flowtts_core.errors import AudioError, ConfigError
from flowtts_core.metrics.optional import EVAL, require, require_librosa
from flowtts_core.metrics.signal import to_16k

REMEDY = f"{EVAL} && pip install --no-deps resemblyzer"


def embed(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return the speaker embedding [256] of the waveform [S], of length 1.

    Raises:
        DependencyError: without Resemblyzer.
        AudioError: when it contains no voice.
    """
    resemblyzer = require("resemblyzer", REMEDY)
    require_librosa()
    heard = to_16k(waveform, sample_rate)
    if not np.abs(heard).max() > 0:
        raise AudioError("no voice in the waveform: it is silent")
    voiced = resemblyzer.preprocess_wav(heard)  # normalises the level and cuts long pauses
    if voiced.size == 0:
        raise AudioError("no voice found in the waveform")
    return np.asarray(_encoder().embed_utterance(voiced), dtype=np.float32)


def parts_alike(waveform: np.ndarray, sample_rate: int) -> float | None:
    """Return the cosine between the two groups into which windows of the waveform [S] fall; low where two people speak.

    The groups are of the windows (1.6 s long, two a second) that are nearer to one or to the other of the two windows that are
    least alike. None for fewer than four windows.

    Raises:
        DependencyError: without Resemblyzer.
    """
    resemblyzer = require("resemblyzer", REMEDY)
    require_librosa()
    voiced = resemblyzer.preprocess_wav(to_16k(waveform, sample_rate))
    if voiced.size == 0:
        return None
    _, windows, _ = _encoder().embed_utterance(voiced, return_partials=True, rate=2.0)
    if len(windows) < 4:
        return None
    alike = windows @ windows.T
    first, second = np.unravel_index(int(alike.argmin()), alike.shape)
    nearer = alike[first] > alike[second]
    return cosine(windows[nearer].mean(0), windows[~nearer].mean(0))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Return the cosine of the angle between two vectors [D], in [-1, 1]."""
    return float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))


def equal_error_rate(
    same: Sequence[float] | np.ndarray, different: Sequence[float] | np.ndarray
) -> tuple[float, float]:
    """Return the equal error rate of speaker verification and its threshold.

    Pairs that score the threshold or more are accepted as one speaker. As the threshold rises, more of the `same` [N] pairs
    are rejected and fewer of the `different` [M] pairs are accepted. The rate is where both shares are equal. Between two
    neighbouring thresholds both shares are interpolated linearly (the ROC curve, not its convex hull).

    Returns:
        The rate (0 where the scores are separable, 0.5 where both sets are alike), and the threshold: the score at which
        the interpolation crosses, or, where the shares are equal between two scores, the mean of those.

    Raises:
        ConfigError: for an empty side, or scores that are not finite.
    """
    sides = [np.asarray(side, dtype=np.float64) for side in (same, different)]
    for name, side in zip(("same", "different"), sides, strict=True):
        if side.ndim != 1 or side.size == 0 or not np.isfinite(side).all():
            raise ConfigError(f"scores of {name} speakers: shape {side.shape}", "give one or more, all finite")
    scores = np.unique(np.concatenate(sides))
    # with the lowest k scores rejected, k = 0 ... K; in whole numbers, so that equality is exact
    missed, turned_away = (np.searchsorted(np.sort(side), np.append(scores, np.inf)) for side in sides)
    n, m = len(sides[0]), len(sides[1])
    gap = missed * m - (m - turned_away) * n  # n m (share rejected - share accepted): rises from -n m to n m
    k = int(np.argmax(gap >= 0))
    if gap[k] == 0:
        return float(missed[k] / n), float((scores[k - 1] + scores[k]) / 2)
    weight = -gap[k - 1] / (gap[k] - gap[k - 1])
    return float((missed[k - 1] + weight * (missed[k] - missed[k - 1])) / n), float(scores[k - 1])


@lru_cache(maxsize=1)
def _encoder() -> Any:
    return require("resemblyzer", REMEDY).VoiceEncoder(device="cpu", verbose=False)
