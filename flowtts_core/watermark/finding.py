"""What is told of marks in a sound: whether there are any, where, and with which number."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from flowtts_core.audio.pieces import audio_pieces
from flowtts_core.errors import ConfigError
from flowtts_core.watermark.marker import Detection, Marker
from flowtts_core.watermark.message import decoded
from flowtts_core.watermark.pattern import hop_of

LEAST_SHARE = 0.05  # of a sound's windows; by chance, at most one in a thousand without a mark passes the threshold
PIECE_S = 300.0  # of a file that is looked at at once, so that memory does not grow with it
LEAST_EVERY_S = 1.0
_OF_A_PIECE = ("marked", "score", "share", "number")
_SHORTEST_S = 0.3  # of a span that is told: shorter ones are chance


class Finder:
    """Looks for the mark of a key first, where there is one, and then for the public one, which all can look for.

    Args:
        folder: of the watermark.
        key: empty for none.

    Raises:
        VoiceError: where the folder is no watermark.
    """

    def __init__(self, folder: Path, key: bytes = b"") -> None:
        self._markers = [(bool(key), Marker.open(folder, key))]
        if key:
            self._markers.append((False, Marker.open(folder, b"")))

    def told(self, sound: np.ndarray, rate: int) -> dict[str, Any]:
        """Return what `told` does, and whether the mark found is the key's (`own_key`)."""
        return self._asked(lambda marker: told(marker, sound, rate))

    def told_of(
        self,
        source: str | Path | bytes,
        *,
        longest_s: float | None = None,
        every_s: float | None = None,
        report: Callable[[float], None] = lambda seconds: None,
    ) -> dict[str, Any]:
        """Return what the function `told_of` does, and whether the mark found is the key's; of each piece too."""
        return self._asked(
            lambda marker: told_of(marker, source, longest_s=longest_s, every_s=every_s, report=report),
            all_of_them=every_s is not None,
        )

    def _asked(self, look: Callable[[Marker], dict[str, Any]], all_of_them: bool = False) -> dict[str, Any]:
        """Ask one marker after the other until one finds its mark, or all of them, since each may have pieces of its own."""
        rows: list[dict[str, Any]] = []
        for own, marker in self._markers:
            rows.append(_owned(look(marker), own))
            if rows[-1]["marked"] and not all_of_them:
                break
        row = _likeliest(rows)
        if all_of_them:
            row["pieces"] = [_likeliest(of_one) for of_one in zip(*(row["pieces"] for row in rows), strict=True)]
        return row


def _owned(row: dict[str, Any], own: bool) -> dict[str, Any]:
    pieces = {"pieces": [_owned(piece, own) for piece in row["pieces"]]} if "pieces" in row else {}
    return {**row, "own_key": own and row["marked"], **pieces}


def _likeliest(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the first that found a mark, or of those that found none the one with the highest score."""
    marked = next((row for row in rows if row["marked"]), None)
    return marked or max(rows, key=lambda row: -math.inf if row["score"] is None else row["score"])


def told(marker: Marker, sound: np.ndarray, rate: int) -> dict[str, Any]:
    """Return what a detector finds in [S]: whether it is marked, its score, the share and spans that are, and the number."""
    return _row(marker.detected(sound, rate), rate)


def told_of(
    marker: Marker,
    source: str | Path | bytes,
    *,
    longest_s: float | None = None,
    every_s: float | None = None,
    report: Callable[[float], None] = lambda seconds: None,
) -> dict[str, Any]:
    """Return the same of a file (or its bytes), however long, and its `seconds`.

    Args:
        every_s: looks at pieces of so many seconds, at most `PIECE_S`, and tells of each (`pieces`) as of the whole.
        report: is told the seconds that were looked at.

    Raises:
        AudioError: where it cannot be read, holds no samples or lasts too long.
        ConfigError: for pieces of a length that they cannot have.
    """
    if every_s is not None and not LEAST_EVERY_S <= every_s <= PIECE_S:
        raise ConfigError(f"pieces of {every_s:g} s", f"give {LEAST_EVERY_S:g} to {PIECE_S:g} seconds")
    pieces = audio_pieces(source, every_s or PIECE_S, longest_s=longest_s)
    parts, each, samples = [], [], 0
    for piece, rate in pieces if every_s is None else _exactly(pieces, every_s):
        parts.append(detected_in(marker, piece, rate))
        begin_s, samples = round(samples / rate, 3), samples + len(piece)
        row = _row(parts[-1], rate)
        each.append({"begin_s": begin_s, "end_s": round(samples / rate, 3)} | {name: row[name] for name in _OF_A_PIECE})
        report(samples / rate)
    whole = {**_row(Detection.joined(parts), rate), "seconds": round(samples / rate, 3)}
    return whole if every_s is None else {**whole, "pieces": each}


def _exactly(pieces: Iterable[tuple[np.ndarray, int]], seconds: float) -> Iterator[tuple[np.ndarray, int]]:
    """Cut pieces [S, C], which may be longer or shorter, anew: each has so many seconds, but for the last."""
    waiting: np.ndarray | None = None
    rate = 0
    for piece, rate in pieces:  # noqa: B007 - what is left over has the last rate
        waiting = piece if waiting is None else np.concatenate([waiting, piece])
        size = max(1, round(seconds * rate))
        while len(waiting) >= size:
            yield waiting[:size], rate
            waiting = waiting[size:]
    if waiting is not None and len(waiting):
        yield waiting, rate


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
