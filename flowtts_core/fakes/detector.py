"""How probable it is that speech is synthetic, over time: asks the net of a folder through ONNX Runtime, without torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flowtts_core.errors import AudioError, VoiceError
from flowtts_core.fakes.spectra import HOP, RATE, SAMPLES, WINDOW, seen_of, windows_of
from flowtts_core.fakes.texture import LEAST, SPANS, texture_of
from flowtts_core.metrics.signal import to_16k

CARD, WEIGHTS, GRAPH = "fakes.json", "fakes.safetensors", "net.onnx"
BUNDLED = Path(__file__).parent / "bundled"
REMEDY = "train it again: flowtts benchmark fakes PLAN.toml -o FOLDER"
SHORTEST_S = 0.5
_LEAST_SHARE = 0.2  # of a second, that must sound for it to be told

Net = Callable[[np.ndarray], np.ndarray]
"""Textures [N, FEATURES] -> logarithms of odds [N], before calibration."""


@dataclass(frozen=True)
class Line:
    """A calibration: the logarithm of the odds is `slope * score + offset` (Platt 1999).

    It holds where half of the recordings are synthetic; of fewer the odds are lower by as much as theirs.
    """

    slope: float = 1.0
    offset: float = 0.0

    def probability(self, score: np.ndarray | float) -> np.ndarray:
        return np.asarray(1 / (1 + np.exp(-(self.slope * np.asarray(score) + self.offset))))


@dataclass(frozen=True)
class Odds:
    """What a net says of a recording, before calibration.

    Attributes:
        whole: mean over the frames that sound.
        seconds: [N] means over each second; NaN where little sounds.
    """

    whole: float
    seconds: np.ndarray


@dataclass(frozen=True)
class Suspicion:
    """How probable it is that a recording is synthetic.

    Attributes:
        whole: of the whole recording.
        seconds: [N] of each second by itself, which is less sure; NaN where little sounds.
    """

    whole: float
    seconds: np.ndarray


class FakeDetector:
    """The net of a folder.

    Attributes:
        card: which says by what it was trained, and on what it was measured.
    """

    def __init__(self, net: Net, card: dict[str, Any]) -> None:
        self._net, self.card = net, card
        self._whole, self._seconds = (Line(*card["calibration"][name]) for name in ("whole", "seconds"))

    @classmethod
    def open(cls, folder: Path = BUNDLED) -> FakeDetector:
        """Open a folder that `flowtts benchmark fakes -o` wrote.

        Raises:
            VoiceError: when something is missing or damaged.
        """
        from flowtts_core.engines.onnx_voice import open_session

        card = read_card(folder)
        session = open_session(str(folder / GRAPH), folder / GRAPH, threads=1)

        def net(texture: np.ndarray) -> np.ndarray:
            [odds] = session.run(None, {"texture": texture})
            return np.asarray(odds)

        return cls(net, card)

    def heard(self, waveform: np.ndarray, sample_rate: int) -> Suspicion:
        """Return how probable it is that speech [S] is synthetic.

        Raises:
            AudioError: for an invalid, too short or silent waveform.
        """
        odds = odds_of(self._net, waveform, sample_rate)
        return Suspicion(float(self._whole.probability(odds.whole)), self._seconds.probability(odds.seconds))


def odds_of(net: Net, waveform: np.ndarray, sample_rate: int) -> Odds:
    """Ask a net about a recording [S]. Raise as `FakeDetector.heard` does."""
    sound = to_16k(waveform, sample_rate)
    if len(sound) < SHORTEST_S * RATE:
        raise AudioError(f"{len(sound) / RATE:.2f} s are too short to be judged", f"give {SHORTEST_S} s or more")
    odds, told = _frames(net, sound)
    if not told.any():
        raise AudioError("too little sounds", "give speech")
    place = (np.arange(len(odds)) * HOP / RATE).astype(int)
    counts, sums = np.bincount(place, told), np.bincount(place, odds * told)
    told = counts >= _LEAST_SHARE * np.bincount(place)
    seconds = np.where(told, sums / np.maximum(counts, 1), np.nan)
    return Odds(float(sums.sum() / counts.sum()), seconds)


def _frames(net: Net, sound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the net's answers for all frames [T], as means over the spans they are in, and which it tells anything of [T]."""
    windows, begins = windows_of(sound)
    frames = begins[-1] + WINDOW
    sums, counts, sounding = np.zeros(frames), np.zeros(frames), np.zeros(frames, bool)
    for window, begin in zip(windows, begins, strict=True):
        seen, loud = seen_of(window)
        texture, enough = texture_of(seen, loud)
        sounding[begin : begin + WINDOW] |= loud
        for (first, last), odds, heard in zip(SPANS, net(texture), enough, strict=True):
            if heard >= LEAST:
                sums[begin + first : begin + last] += odds
                counts[begin + first : begin + last] += 1
    whole = frames if len(sound) > SAMPLES else max(1, min(frames, -(-len(sound) // HOP)))
    return (sums / np.maximum(counts, 1))[:whole], (sounding & (counts > 0))[:whole]


def read_card(folder: Path) -> dict[str, Any]:
    """Read the card of a folder, whose weights it must name.

    Raises:
        VoiceError: when something is missing or damaged.
    """
    try:
        card: dict[str, Any] = json.loads((folder / CARD).read_text(encoding="utf-8"))
        sha256, found = card["sha256"], hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
        for name in ("whole", "seconds"):
            Line(*map(float, card["calibration"][name]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VoiceError(f"{folder}: no detector of synthetic speech ({error})", REMEDY) from error
    if found != sha256:
        raise VoiceError(f"{folder / WEIGHTS}: is not the file that {CARD} names (its SHA-256 differs)", REMEDY)
    return card
