"""Marks sound and finds marks through ONNX Runtime, without torch; sound may come in pieces of any length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flowtts_core.engines.onnx_voice import open_session
from flowtts_core.watermark.card import read_card

BINS = 160  # from 50 Hz to 8 kHz; what lies above is neither changed nor looked at
TINY, FLOOR = 1e-7, 1e-3
_BLOCK = 1000  # frames that are computed at once: ten seconds, however long the sound is
_CHANGE = 3.0


def hop_of(sample_rate: int) -> int:
    """Return the samples between frames: 10 ms, rounded."""
    return max(1, round(sample_rate / 100))


def _sines(hop: int) -> np.ndarray:
    return np.sin((np.arange(2 * hop) + 0.5) * (math.pi / (2 * hop))).astype(np.float32)


def seen_of(sizes: np.ndarray, hop: int, before: float | None) -> tuple[np.ndarray, float]:
    """Return features [T, BINS + 1] of magnitudes [T, hop + 1], and the last frame's level: `frames.features` in numpy."""
    sizes = sizes[:, 1 : BINS + 1] / hop
    sizes = np.pad(sizes, ((0, 0), (0, BINS - sizes.shape[1])))
    level = np.sqrt(np.square(sizes).mean(1) + TINY**2)
    loud = np.log(level)
    change = np.diff(loud, prepend=loud[0] if before is None else before).clip(-_CHANGE, _CHANGE)
    relative = np.log(sizes / level[:, None] + FLOOR)
    return np.concatenate([relative, change[:, None]], 1).astype(np.float32), float(loud[-1])


class Marker:
    """The watermark of a folder; both its graphs run on one thread each.

    Attributes:
        bits: of a message.
        decibels: the largest gain of a bin.
        threshold: of the score of a sound, above which it counts as marked.
        surest_s: seconds of a span that is marked throughout, which counts whatever the rest is.
    """

    def __init__(self, sessions: dict[str, Any], card: dict[str, Any]) -> None:
        self._sessions = sessions
        self._states = [tuple(shape) for shape in card["states"]]
        self.bits, self.decibels = int(card["watermark"]["bits"]), float(card["watermark"]["decibels"])
        self.threshold = float(card.get("threshold", 0.0))
        self.surest_s = float(card.get("surest_s", 2.0))

    @classmethod
    def open(cls, folder: Path) -> Marker:
        """Open the watermark of a folder.

        Raises:
            VoiceError: when something is missing or damaged.
        """
        card = read_card(folder)
        sessions = {
            name: open_session(str(folder / f"{name}.onnx"), folder / f"{name}.onnx", threads=1)
            for name in ("generator", "detector")
        }
        return cls(sessions, card)

    def stream(self, sample_rate: int, message: np.ndarray) -> MarkStream:
        """Return what marks one sound with a message [bits] of 0 and 1 as it comes."""
        return MarkStream(self._sessions["generator"], self._states, message, self.decibels, sample_rate)

    def marked(self, waveform: np.ndarray, sample_rate: int, message: np.ndarray) -> np.ndarray:
        """Return [S] marked."""
        stream = self.stream(sample_rate, message)
        return np.concatenate([stream.feed(waveform), stream.finish()])

    def detected(self, waveform: np.ndarray, sample_rate: int) -> Detection:
        """Look for a mark in [S]."""
        return detected(self._sessions["detector"], waveform, sample_rate)


class MarkStream:
    """Marks one sound as it comes; what comes out is 10 ms behind, and equals what the whole would give.

    Args:
        session: of the generator's graph.
        states: shapes of what it must see again.
    """

    def __init__(
        self, session: Any, states: Sequence[tuple[int, ...]], message: np.ndarray, decibels: float, sample_rate: int
    ) -> None:
        self._session, self._message, self._decibels = session, message.astype(np.float32)[None], decibels
        self._states = [np.zeros(shape, np.float32) for shape in states]
        self._hop = hop_of(sample_rate)
        self._window = _sines(self._hop)
        self._waiting = np.zeros(self._hop, np.float32)  # what lies before the first sample
        self._half = np.zeros(self._hop, np.float32)  # of the last frame, to be completed by the next
        self._level: float | None = None
        self._given = self._taken = 0  # samples
        self._first = True

    def feed(self, waveform: np.ndarray) -> np.ndarray:
        """Return the marked samples [S'] that are final after these [S]."""
        self._taken += len(waveform)
        self._waiting = np.concatenate([self._waiting, np.asarray(waveform, np.float32)])
        made = []
        while (frames := min(_BLOCK, len(self._waiting) // self._hop - 1)) > 0:
            made.append(self._marked(frames))
        return self._counted(np.concatenate(made) if made else np.zeros(0, np.float32))

    def finish(self) -> np.ndarray:
        """Return the rest, after which as much came out as went in."""
        taken = self._taken
        rest = self.feed(np.zeros(2 * self._hop - taken % self._hop, np.float32))
        self._taken = taken
        return rest[: len(rest) - (self._given - taken)]

    def _counted(self, made: np.ndarray) -> np.ndarray:
        if self._first and len(made):  # the hop before the first sample
            made, self._first = made[self._hop :], False
        self._given += len(made)
        return made

    def _marked(self, frames: int) -> np.ndarray:
        hop = self._hop
        heard = self._waiting[: (frames + 1) * hop]
        self._waiting = self._waiting[frames * hop :]
        pieces = np.lib.stride_tricks.sliding_window_view(heard, 2 * hop)[::hop] * self._window
        spectra = np.fft.rfft(pieces, axis=1)
        seen, self._level = seen_of(np.abs(spectra), hop, self._level)
        names = [one.name for one in self._session.get_inputs()]
        feeds = dict(zip(names, [seen[None], self._message, *self._states], strict=True))
        gains, *self._states = self._session.run(None, feeds)
        room = min(BINS, hop)
        spectra[:, 1 : room + 1] *= np.exp(gains[0, :, :room] * (self._decibels * math.log(10) / 20))
        back = (np.fft.irfft(spectra, 2 * hop, axis=1) * self._window).astype(np.float32)
        whole = back[:, :hop]
        whole[0] += self._half
        whole[1:] += back[:-1, hop:]
        self._half = back[-1, hop:]
        return whole.reshape(-1)


@dataclass(frozen=True)
class Detection:
    """What was found in a sound.

    Attributes:
        marked: [T] probability that each frame of 10 ms is marked; silence tells nothing, and has that of what is around.
        bits: [bits] scores of the message's bits, summed over marked frames; above 0 is a 1.
        score: mean score of the frames that are not silent; compare with a threshold.
    """

    marked: np.ndarray
    bits: np.ndarray
    score: float


def detected(session: Any, waveform: np.ndarray, sample_rate: int) -> Detection:
    """Look for a mark in [S]; memory does not grow with the length but by some bytes a frame."""
    hop = hop_of(sample_rate)
    window, overlap = _sines(hop), 64  # frames on either side, beyond which the detector sees nothing
    padded = np.pad(np.asarray(waveform, np.float32), (hop, 2 * hop - len(waveform) % hop))
    total = len(padded) // hop - 1
    scores, loud = [], []
    for begin in range(0, total, _BLOCK):
        end = min(total, begin + _BLOCK)
        low, high = max(0, begin - overlap), min(total, end + overlap)
        heard = padded[low * hop : (high + 1) * hop]
        pieces = np.lib.stride_tricks.sliding_window_view(heard, 2 * hop)[::hop] * window
        sizes = np.abs(np.fft.rfft(pieces, axis=1))
        before = None if low == 0 else _level(padded, low - 1, hop, window)
        seen, _ = seen_of(sizes, hop, before)
        [made] = session.run(None, {session.get_inputs()[0].name: seen[None]})
        scores.append(made[0, begin - low : end - low])
        loud.append(np.sqrt(np.square(pieces).mean(1))[begin - low : end - low])
    return _summed(np.concatenate(scores), np.concatenate(loud))


def _level(padded: np.ndarray, frame: int, hop: int, window: np.ndarray) -> float:
    piece = padded[frame * hop : (frame + 2) * hop] * window
    return seen_of(np.abs(np.fft.rfft(piece))[None], hop, None)[1]


def _summed(scores: np.ndarray, loud: np.ndarray) -> Detection:
    heard = loud > max(1e-5, 0.02 * float(np.sqrt(np.square(loud).mean())))
    if not heard.any():
        return Detection(np.zeros(len(loud), np.float32), np.zeros(scores.shape[1] - 1, np.float32), -math.inf)
    places = np.flatnonzero(heard)
    known = np.interp(np.arange(len(loud)), places, scores[places, 0])
    marked = 1 / (1 + np.exp(-known.clip(-50, 50)))
    weight = (heard * marked)[:, None]
    return Detection(marked.astype(np.float32), (scores[:, 1:] * weight).sum(0), float(scores[places, 0].mean()))
