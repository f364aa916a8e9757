"""Distances between two judged sets: KAD and FAD of their embeddings, conditional on texts, and over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowtts_core.errors import ConfigError
from flowtts_core.metrics.fad import extrapolate, fad, fad_of_each
from flowtts_core.metrics.judges import SERIES_HZ
from flowtts_core.metrics.kad import Kernel, conditional_kad, kad, temporal_windows

FEWEST = 8  # clips on each side; a distance of fewer says nothing
WINDOW_S = 0.5  # seconds of a window of temporal KAD
MOST_WINDOWS = 5000  # the most windows on a side
KINDS = {
    "kad": "kernel audio distance",
    "fad": "Frechet audio distance",
    "ckad": "KAD of sound and text together",
    "tkad": f"KAD of windows of {WINDOW_S} s",
}
Row = dict[str, Any]


@dataclass(frozen=True)
class DistanceConfig:
    """How KAD is computed. `scale` is 1, or 100 as in many tables."""

    kernel: Kernel = field(default_factory=Kernel)
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.scale not in (1, 100):
            raise ConfigError(f"KAD is shown times {self.scale:g}", "use 1 or 100")

    @property
    def unit(self) -> str:
        kernel = f"{self.kernel.name} kernel"
        if self.kernel.name != "cubic":
            width = (
                "of the " + self.kernel.bandwidth_from
                if self.kernel.bandwidth is None
                else f"{self.kernel.bandwidth:g}"
            )
            kernel += f", bandwidth {width}"
        return f"x {self.scale:g}, {kernel}" if self.scale != 1 else kernel


def distances(ours: Sequence[Row], theirs: Sequence[Row], config: DistanceConfig) -> dict[str, dict[str, Any]]:
    """Return by name, as "kad.mel", each distance for which both sets have embeddings, or why it has no value."""
    ours, theirs = (sorted(rows, key=lambda row: str(row["id"])) for rows in (ours, theirs))
    found: dict[str, dict[str, Any]] = {}
    for kind in sorted({kind for row in ours for kind in row["embeddings"]}):
        sides = [_embeddings(rows, kind) for rows in (ours, theirs)]
        found[f"kad.{kind}"] = _distance(sides, lambda a, b: config.scale * kad(a, b, config.kernel), config.unit)
        found[f"fad.{kind}"] = _distance(sides, fad, "covariances of n - 1")
        pairs = [_conditioned(rows, kind) for rows in (ours, theirs)]
        if all(len(pair[0]) for pair in pairs):
            found[f"ckad.{kind}"] = _conditional(pairs, config)
    for kind in sorted({kind for row in ours for kind in row["series"]}):
        windows = [_windows(rows, kind) for rows in (ours, theirs)]
        found[f"tkad.{kind}"] = _distance(
            windows, lambda a, b: config.scale * kad(a, b, config.kernel), config.unit, line=False, of="windows"
        )
    return found


def add_fad_of_clips(ours: Sequence[Row], theirs: Sequence[Row]) -> None:
    """Add to each clip with frames over time the FAD of its frames to all frames of the reference, to find outliers.

    It uses the first trained embedder, or the log-mel without one.
    """
    kinds = {kind for row in theirs for kind in row["series"]}
    if not kinds:
        return
    kind = min(kinds, key=lambda kind: (kind == "mel", kind))
    reference = torch.from_numpy(np.concatenate([row["series"][kind] for row in theirs if kind in row["series"]]))
    if len(reference) < 2:  # one frame has no covariance
        return
    rows = [row for row in ours if kind in row["series"]]
    for row, value in zip(
        rows, fad_of_each([torch.from_numpy(row["series"][kind]) for row in rows], reference), strict=True
    ):
        if np.isfinite(value):
            row["values"]["fad_clip"] = (value, 1.0)


def _distance(
    sides: Sequence[Tensor],
    distance: Callable[[Tensor, Tensor], float],
    unit: str,
    line: bool = True,
    of: str = "clips",
) -> dict[str, Any]:
    """Return a distance, with `line` also extrapolated to infinitely many clips."""
    n, n_reference = (len(side) for side in sides)
    counts = {"n": n, "n_reference": n_reference, "unit": unit, "of": of}
    if min(n, n_reference) < FEWEST:
        few = f"{n} of the generated and {n_reference} of the reference have embeddings; each side needs {FEWEST}"
        return {"value": None, "at_infinity": None, "why": few, **counts}
    ours, theirs = (side.cuda() if torch.cuda.is_available() else side for side in sides)
    found: dict[str, Any] = {"value": distance(ours, theirs), "at_infinity": None, **counts}
    if line:
        fitted = extrapolate(distance, ours, theirs)
        found |= {"at_infinity": fitted.value, "r2": fitted.r2, "sizes": fitted.sizes, "measured": fitted.measured}
    return found


def _conditional(pairs: Sequence[tuple[Tensor, Tensor]], config: DistanceConfig) -> dict[str, Any]:
    numbers = [torch.arange(len(sounds))[:, None] for sounds, _ in pairs]  # so that subsets keep their pairs

    def distance(a: Tensor, b: Tensor) -> float:
        (ours, texts), (theirs, their_texts) = pairs
        rows, others = a[:, 0].cpu(), b[:, 0].cpu()
        here, there = (ours[rows], texts[rows]), (theirs[others], their_texts[others])
        return config.scale * conditional_kad(here, there, config.kernel)

    return _distance(numbers, distance, f"{config.unit}, times one of texts")


def _embeddings(rows: Sequence[Row], kind: str) -> Tensor:
    vectors = [row["embeddings"][kind] for row in rows if kind in row["embeddings"]]
    return torch.from_numpy(np.array(vectors, dtype=np.float64)) if vectors else torch.zeros(0, 1)


def _conditioned(rows: Sequence[Row], kind: str) -> tuple[Tensor, Tensor]:
    """Return the embeddings [N, D] and the text embeddings [N, C] of the clips that have both."""
    both = [row for row in rows if kind in row["embeddings"] and row["text_embedding"]]
    said = [row["text_embedding"] for row in both]
    return _embeddings(both, kind), torch.from_numpy(np.array(said, dtype=np.float64)) if said else torch.zeros(0, 1)


def _windows(rows: Sequence[Row], kind: str) -> Tensor:
    """Return windows [W, D] of all clips, or of a large corpus an evenly spaced choice that fits into memory."""
    window = round(WINDOW_S * SERIES_HZ)
    series = [torch.from_numpy(row["series"][kind]) for row in rows if kind in row["series"]]
    ends = np.cumsum([0, *(len(temporal_windows(frames, window)) for frames in series)])
    total = int(ends[-1])
    chosen = np.linspace(0, total - 1, min(total, MOST_WINDOWS)).astype(np.int64)
    parts = np.searchsorted(chosen, ends)  # clip i has windows parts[i] to parts[i + 1]
    cut = [
        temporal_windows(frames, window)[chosen[first:last] - end].double()
        for frames, end, first, last in zip(series, ends[:-1], parts[:-1], parts[1:], strict=True)
        if last > first
    ]
    return torch.cat(cut) if cut else torch.zeros(0, 1)
