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
        odds = odds_of(self._net, textures_of(waveform, sample_rate))
        return Suspicion(float(self._whole.probability(odds.whole)), self._seconds.probability(odds.seconds))


@dataclass(frozen=True)
class Textures:
    """What a net is asked of a recording.

    Attributes:
        texture: [P, FEATURES] of the spans in which enough sounds.
        spans: [P, 2] first frame of each, and the first after it.
        sounding: [T] of all frames.
    """

    texture: np.ndarray
    spans: np.ndarray
    sounding: np.ndarray


def textures_of(waveform: np.ndarray, sample_rate: int) -> Textures:
    """Return what a net is asked of [S]. Raise as `FakeDetector.heard` does."""
    sound = to_16k(waveform, sample_rate)
    if len(sound) < SHORTEST_S * RATE:
        raise AudioError(f"{len(sound) / RATE:.2f} s are too short to be judged", f"give {SHORTEST_S} s or more")
    windows, begins = windows_of(sound)
    sounding = np.zeros(begins[-1] + WINDOW, bool)
    textures, spans = [], []
    for window, begin in zip(windows, begins, strict=True):
        seen, loud = seen_of(window)
        texture, frames = texture_of(seen, loud)
        sounding[begin : begin + WINDOW] |= loud
        textures.append(texture[frames >= LEAST])
        spans.append(begin + np.array(SPANS)[frames >= LEAST])
    whole = len(sounding) if len(sound) > SAMPLES else min(len(sounding), -(-len(sound) // HOP))
    if not any(map(len, textures)):
        raise AudioError("too little sounds", "give speech")
    return Textures(np.concatenate(textures), np.concatenate(spans), sounding[:whole])


def odds_of(net: Net, heard: Textures) -> Odds:
    """Ask a net. A frame's odds are the mean over the spans that it is in."""
    sums, counts = (np.zeros(max(len(heard.sounding), int(heard.spans.max()))) for _ in range(2))
    for (begin, end), odds in zip(heard.spans, net(heard.texture), strict=True):
        sums[begin:end] += odds
        counts[begin:end] += 1
    whole = len(heard.sounding)
    told = heard.sounding & (counts[:whole] > 0)
    odds = np.where(told, sums[:whole] / np.maximum(counts[:whole], 1), 0)
    place = (np.arange(whole) * HOP / RATE).astype(int)
    frames, total = np.bincount(place, told), np.bincount(place, odds)
    enough = frames >= _LEAST_SHARE * np.bincount(place)
    seconds = np.where(enough & (frames > 0), total / np.maximum(frames, 1), np.nan)
    return Odds(float(total.sum() / max(frames.sum(), 1)), seconds)


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
