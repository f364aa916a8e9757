"""Speaker similarity by Resemblyzer's GE2E encoder (Wan et al., 2018; weights in its wheel).

The cosine of two utterances' embeddings; about 0.87 within one LibriSpeech speaker and 0.53 between two. Higher is
better.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from flowtts_core.errors import AudioError
from flowtts_core.metrics.optional import EVAL, require
from flowtts_core.metrics.signal import to_16k

REMEDY = f"{EVAL} && pip install --no-deps resemblyzer"


def embed(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """The voice of the waveform [S] as a vector [256] of length 1.

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
    """The cosine of the angle between two vectors [D], in [-1, 1]."""
    return float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))


@lru_cache(maxsize=1)
def _encoder() -> Any:
    return require("resemblyzer", REMEDY).VoiceEncoder(device="cpu", verbose=False)
