"""Mean opinion scores predicted by DNSMOS (Reddy et al., 2022), with the models of the speechmos wheel.

It notices noise and vocoder artefacts but hardly naturalness, so compare within one voice. Scale 1 to 5; higher is better.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from flowtts_core.metrics.optional import require, require_librosa
from flowtts_core.metrics.signal import RATE, to_16k


@dataclass(frozen=True)
class MosScores:
    """P.835's overall, signal and background scores and P.808's overall score, each about 1 to 5."""

    overall: float
    p808: float
    signal: float
    background: float


def dnsmos(waveform: np.ndarray, sample_rate: int) -> MosScores:
    """Return the scores of the waveform [S]. A clip under 9 s is repeated to that length, as in the published code.

    Raises:
        DependencyError: without speechmos, onnxruntime or librosa.
        AudioError: for an empty, many-channel or non-finite waveform.
    """
    heard = to_16k(waveform, sample_rate)
    heard = heard / max(1.0, float(np.abs(heard).max()))  # resampling can ring over 1, which speechmos refuses
    scores = _model()(heard, RATE, False)
    return MosScores(
        float(scores["ovrl_mos"]), float(scores["p808_mos"]), float(scores["sig_mos"]), float(scores["bak_mos"])
    )


@lru_cache(maxsize=1)
def _model() -> Any:
    """Return speechmos's DNSMOS on one thread. Its own constructor takes every core, which slows parallel workers."""
    ort = require("onnxruntime")
    require_librosa()
    published = require("speechmos.dnsmos")
    folder = Path(str(published.__file__)).parent / "dnsmos_models"
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    model = published.DNSMOS.__new__(published.DNSMOS)
    model.onnx_sess = ort.InferenceSession(str(folder / "sig_bak_ovr.onnx"), options)
    model.p808_onnx_sess = ort.InferenceSession(str(folder / "model_v8.onnx"), options)
    return model
