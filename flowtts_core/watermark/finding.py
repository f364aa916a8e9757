"""What is told of marks in a sound: whether there are any, where, and with which number."""

from __future__ import annotations

from typing import Any

import numpy as np

from flowtts_core.watermark.marker import Marker
from flowtts_core.watermark.message import decoded

LEAST_SHARE = 0.05  # of a sound's windows; by chance, at most one in a thousand without a mark passes the threshold
_SHORTEST_S = 0.3  # of a span that is told: shorter ones are chance


def told(marker: Marker, sound: np.ndarray, rate: int) -> dict[str, Any]:
    """Return what a detector finds in [S]: whether it is marked, its score, the share and spans that are, and the number."""
    found = marker.detected(sound, rate)
    marked = found.share >= LEAST_SHARE
    return {
        "marked": marked,
        "score": None if found.score == float("-inf") else round(found.score, 3),
        "share": round(float(found.marked.mean()), 3) if marked else 0.0,
        "spans_s": _spans(found.marked) if marked else [],
        "number": decoded(tuple(int(bit > 0) for bit in found.bits)).number if marked else None,
    }


def _spans(marked: np.ndarray) -> list[tuple[float, float]]:
    """Return begin and end in seconds of runs of marked frames."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], marked, [False]]).astype(int)))
    pairs = edges.reshape(-1, 2) / 100
    return [(round(float(a), 2), round(float(b), 2)) for a, b in pairs if b - a >= _SHORTEST_S]
