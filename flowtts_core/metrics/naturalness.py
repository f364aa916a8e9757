"""How natural speech sounds, from 1 to 5, by DistillMOS (Stahl and Gamper 2025, arXiv:2502.05356; MIT, weights in its wheel).

It tells synthetic voices apart as listeners do, where DNSMOS hears noise alone. Human recordings of LJSpeech get 4.4.
"""

from __future__ import annotations

import contextlib
import io
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from flowtts_core.errors import AudioError
from flowtts_core.metrics.optional import require
from flowtts_core.metrics.pretrained import WINDOW_S, even_parts
from flowtts_core.metrics.signal import RATE, to_16k

SHORTEST_S = 0.1  # a score of less than a syllable says nothing


def naturalness(waveform: np.ndarray, sample_rate: int) -> float:
    """Return the predicted mean opinion score of the waveform [S]; of a long one, the mean over its parts.

    Raises:
        DependencyError: without distillmos.
        AudioError: for an invalid or too short waveform.
    """
    heard = to_16k(waveform, sample_rate)
    if len(heard) < SHORTEST_S * RATE:
        raise AudioError(f"{len(heard) / RATE:.2f} s are too short to be rated", f"give {SHORTEST_S} s or more")
    parts = even_parts(heard, round(WINDOW_S * RATE))
    with torch.inference_mode():
        scores = [float(_model()(torch.from_numpy(np.ascontiguousarray(part))[None])) for part in parts]
    return float(np.average(scores, weights=[len(part) for part in parts]))


def load() -> None:
    """Load the model before it is needed; raises DependencyError without distillmos."""
    _model()


@lru_cache(maxsize=1)
def _model() -> Any:
    from flowtts_core.audio import torchaudio_import  # noqa: F401  # distillmos imports torchaudio, which may need it

    published = require("distillmos")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints where its weights are
        return published.ConvTransformerSQAModel().eval()
