"""What is told of marks in a sound: whether there are any, where, and with which number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from flowtts_core.audio.pieces import audio_pieces
from flowtts_core.watermark.marker import Detection, Marker
from flowtts_core.watermark.message import decoded
from flowtts_core.watermark.pattern import hop_of

LEAST_SHARE = 0.05  # of a sound's windows; by chance, at most one in a thousand without a mark passes the threshold
PIECE_S = 300.0  # of a file that is looked at at once, so that memory does not grow with it
_SHORTEST_S = 0.3  # of a span that is told: shorter ones are chance


def told(marker: Marker, sound: np.ndarray, rate: int) -> dict[str, Any]:
    """Return what a detector finds in [S]: whether it is marked, its score, the share and spans that are, and the number."""
    return _row(marker.detected(sound, rate), rate)


def told_of(
    marker: Marker,
    source: str | Path | bytes,
    *,
    longest_s: float | None = None,
    report: Callable[[float], None] = lambda seconds: None,
) -> dict[str, Any]:
    """Return the same of a file (or its bytes), however long, and its `seconds`.

    Args:
        report: is told the seconds that were looked at.

    Raises:
        AudioError: where it cannot be read, holds no samples or lasts too long.
    """
    parts, samples = [], 0
    for piece, rate in audio_pieces(source, PIECE_S, longest_s=longest_s):
        parts.append(detected_in(marker, piece, rate))
        samples += len(piece)
        report(samples / rate)
    return {**_row(Detection.joined(parts), rate), "seconds": round(samples / rate, 3)}


def detected_in(marker: Marker, piece: np.ndarray, rate: int) -> Detection:
    """Return what is found in a piece [S, C] of a sound, by the mean of its channels; frames are those of its own samples."""
    found = marker.detected(piece[:, 0] if piece.shape[1] == 1 else piece.mean(axis=1), rate)
    return replace(found, marked=found.marked[: max(1, round(len(piece) / hop_of(rate)))])


def _row(found: Detection, rate: int) -> dict[str, Any]:
    marked = found.share >= LEAST_SHARE
    return {
        "marked": marked,
        "score": None if found.score == float("-inf") else round(found.score, 3),
        "share": round(float(found.marked.mean()), 3) if marked else 0.0,
        "spans_s": _spans(found.marked, hop_of(rate) / rate) if marked else [],
        "number": decoded(tuple(int(bit > 0) for bit in found.bits)).number if marked else None,
    }


def _spans(marked: np.ndarray, frame_s: float) -> list[tuple[float, float]]:
    """Return begin and end in seconds of runs of marked frames."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], marked, [False]]).astype(int)))
    pairs = edges.reshape(-1, 2) * frame_s
    return [(round(float(a), 2), round(float(b), 2)) for a, b in pairs if b - a >= _SHORTEST_S]
