"""Marks sound and finds marks, without torch: marking is arithmetic, finding asks a net through ONNX Runtime."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from flowtts_core.watermark.card import read_card
from flowtts_core.watermark.depth import HELD, Depth, faded
from flowtts_core.watermark.pattern import BINS, PERIOD, SYNC, Pattern, bands, edges, hop_of

TINY, FLOOR = 1e-7, 1e-3
WINDOW, STEP = 300, 150  # frames that are looked at together, and from one window to the next
_CHANGE_COST = 10.0  # nats against each begin and end of a mark
_OUTSIDE = -1  # what stands for no phase
_BLOCK = 1000  # frames that are computed at once: ten seconds, however long the sound is
_CHANGE = 3.0
_QUIET = 0.002  # of the window's level: frames below hold nothing that a gain could change
# What time may have been multiplied by; and with it or without it pitch: tapes that run faster, tempo alone, pitch alone.
_TIMES = np.round(np.arange(0.9, 1.1001, 0.0025), 4)
_PLAIN = int(np.flatnonzero(_TIMES == 1)[0])
_HYPOTHESES = [
    *((at, 1.0) for at in range(len(_TIMES))),
    *((at, float(time)) for at, time in enumerate(_TIMES) if at != _PLAIN),
    *((_PLAIN, float(pitch)) for pitch in _TIMES[::4] if pitch != 1),
]


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


class MarkStream:
    """Marks one sound as it comes; what comes out is 10 ms behind, and equals what the whole would give.

    Args:
        gains: [PERIOD, bands] of 1 and -1.
    """

    def __init__(self, gains: np.ndarray, depth: Depth, sample_rate: int) -> None:
        self._hop, self._depth = hop_of(sample_rate), depth
        self._levels = np.zeros(HELD - 1, np.float32)  # of the last frames
        of, room = bands(), min(BINS, self._hop)
        self._gains = np.where(of >= 0, gains[:, of], 0)[:, :room]
        self._window = _sines(self._hop)
        self._waiting = np.zeros(self._hop, np.float32)  # what lies before the first sample
        self._half = np.zeros(self._hop, np.float32)  # of the last frame, to be completed by the next
        self._frame = self._given = self._taken = 0
        self._first = True  # the hop before the first sample is still to come

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
        return rest[: len(rest) - (self._given - taken)]

    def _counted(self, made: np.ndarray) -> np.ndarray:
        if self._first and len(made):
            made, self._first = made[self._hop :], False
        self._given += len(made)
        return made

    def _marked(self, frames: int) -> np.ndarray:
        hop = self._hop
        hops = self._waiting[: (frames + 1) * hop].reshape(-1, hop)
        self._waiting = self._waiting[frames * hop :]
        pieces = (
            np.concatenate([hops[:-1], hops[1:]], 1) * self._window
        )  # far cheaper for few frames than a sliding view
        spectra = np.fft.rfft(pieces, axis=1)
        marked = spectra[:, 1 : self._gains.shape[1] + 1]  # a view
        sizes = np.abs(marked) / hop
        own = (np.sqrt(np.square(sizes).sum(1) / BINS) + TINY).astype(np.float32)
        levels = np.concatenate([self._levels, own])
        self._levels = levels[-(HELD - 1) :]
        gains = self._gains[(self._frame + np.arange(frames)) % PERIOD]
        marked *= 10 ** (self._depth.of(sizes / faded(levels)[:, None]) / 20 * gains)
        back = (np.fft.irfft(spectra, 2 * hop, axis=1) * self._window).astype(np.float32)
        whole = back[:, :hop].copy()
        whole[0] += self._half
        whole[1:] += back[:-1, hop:]
        self._half = back[-1, hop:]
        self._frame += frames
        return whole.reshape(-1)


@dataclass(frozen=True)
class Detection:
    """What was found in a sound.

    Attributes:
        marked: [T] whether each frame of 10 ms is marked.
        bits: [bits] scores of the message's bits, summed over windows with a mark, or else of the likeliest; above 0 is a 1.
        score: of the likeliest window of three seconds; compare with `Marker.threshold`. Minus infinity in silence.
        heard, found: windows with sound, and those of them that have a mark.
    """

    marked: np.ndarray
    bits: np.ndarray
    score: float
    heard: int
    found: int

    @property
    def share(self) -> float:
        """Of the windows with sound, how many have a mark."""
        return self.found / self.heard if self.heard else 0.0

    @classmethod
    def joined(cls, parts: Sequence[Detection]) -> Detection:
        """Return what was found in a sound of what was found in its parts."""
        best = max(parts, key=lambda part: part.score)
        sure = [part for part in parts if part.found] or [best]
        return cls(
            np.concatenate([part.marked for part in parts]),
            np.sum([part.bits for part in sure], axis=0),
            best.score,
            sum(part.heard for part in parts),
            sum(part.found for part in parts),
        )


@dataclass(frozen=True)
class _Match:
    """How a window fits the pattern best."""

    score: float
    bits: np.ndarray  # [bits]
    phase: int  # cell of the pattern at the window's first frame
    time: float  # by which it runs faster
    pitch: float  # by which its frequencies are higher


class Marker:
    """The watermark of a folder.

    Attributes:
        bits: of a message.
        depth: of the gains.
        threshold: of the score of a window, above which it counts as marked.
    """

    def __init__(self, session: Any, card: dict[str, Any], key: bytes = b"") -> None:
        self._session = session
        mark = card["watermark"]
        self.bits, self.depth = int(mark["bits"]), Depth(float(mark["decibels"]), float(mark["quiet_decibels"]))
        self.threshold = float(card.get("threshold", 0.0))
        self.pattern = Pattern(key, self.bits)
        self._owners = _owners_at_each_phase(self.pattern)

    @classmethod
    def open(cls, folder: Path, key: bytes = b"") -> Marker:
        """Open the watermark of a folder; with a key, its pattern is known to those who have the key alone.

        Raises:
            VoiceError: when something is missing or damaged.
        """
        from flowtts_core.engines.onnx_voice import (
            open_session,  # marking needs no ONNX Runtime, which takes long to load
        )

        card = read_card(folder)
        return cls(open_session(str(folder / "estimator.onnx"), folder / "estimator.onnx", threads=1), card, key)

    def stream(self, sample_rate: int, message: np.ndarray) -> MarkStream:
        """Return what marks one sound with a message [bits] of 0 and 1 as it comes."""
        return MarkStream(self.pattern.gains(message), self.depth, sample_rate)

    def marked(self, waveform: np.ndarray, sample_rate: int, message: np.ndarray) -> np.ndarray:
        """Return [S] marked."""
        stream = self.stream(sample_rate, message)
        return np.concatenate([stream.feed(waveform), stream.finish()])

    def detected(self, waveform: np.ndarray, sample_rate: int) -> Detection:
        """Look for a mark in [S]; memory grows by 1.5 kB a frame of 10 ms (`finding.told_of` bounds it)."""
        estimates, loud = self.estimates(waveform, sample_rate)
        estimates = estimates * (loud > _QUIET * float(np.sqrt(np.square(loud).mean())))[:, None]
        found: list[tuple[int, _Match]] = []
        heard = 0
        for begin in _windows(len(estimates)):
            window = estimates[begin : begin + WINDOW]
            level = loud[begin : begin + WINDOW]
            within = level > max(1e-5, _QUIET * float(np.sqrt(np.square(level).mean())))
            if within.sum() < 2 * PERIOD:
                continue
            heard += 1
            found.append((begin, self._best(window * within[:, None])))
        if not found:
            return Detection(np.zeros(len(loud), bool), np.zeros(self.bits), -math.inf, 0, 0)
        sure = [(begin, match) for begin, match in found if match.score > self.threshold]
        best = max(found, key=lambda one: one[1].score)
        bits = np.sum([match.bits for _, match in sure or [best]], axis=0)
        marked = self._placed(estimates, sure, (bits > 0).astype(int))
        return Detection(marked, bits, best[1].score, heard, len(sure))

    def estimates(self, waveform: np.ndarray, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
        """Return how likely each bin was raised rather than lowered, as logarithms of odds [T, BINS], and levels [T]."""
        hop = hop_of(sample_rate)
        window, overlap = _sines(hop), 64  # frames on either side, beyond which the net sees nothing
        padded = np.pad(np.asarray(waveform, np.float32), (hop, 2 * hop - len(waveform) % hop))
        total = len(padded) // hop - 1
        made, levels = [], []
        for begin in range(0, total, _BLOCK):
            end = min(total, begin + _BLOCK)
            low, high = max(0, begin - overlap), min(total, end + overlap)
            pieces = _pieces(padded, low, high, hop) * window
            before = None if low == 0 else _level(padded, low - 1, hop, window)
            seen, _ = seen_of(np.abs(np.fft.rfft(pieces, axis=1)), hop, before)
            [odds] = self._session.run(None, {self._session.get_inputs()[0].name: seen[None]})
            made.append(odds[0, begin - low : end - low])
            levels.append(np.sqrt(np.square(pieces).mean(1))[begin - low : end - low])
        return np.concatenate(made), np.concatenate(levels)

    def _best(self, window: np.ndarray) -> _Match:
        """Return the phase, and the factors of time and pitch, at which a window [T, BINS] fits best."""
        folds = (_folding()[:, : len(window)] @ window).reshape(len(_TIMES), PERIOD, BINS)
        folded = np.stack([folds[at] @ _averaging(pitch) for at, pitch in _HYPOTHESES])  # [H, PERIOD, bands]
        sums = (self._owners @ folded.reshape(len(folded), -1).T).reshape(self.bits + 1, PERIOD, -1)
        # By the size of what was folded, so that what repeats as the pattern does, another key's mark or a rhythm, counts once.
        sums /= np.sqrt(np.square(folded).sum((1, 2))) + 1e-9
        totals = sums[-1] + np.abs(sums[:-1]).sum(0)  # [PERIOD, H]
        phase, best = np.unravel_index(int(totals.argmax()), totals.shape)
        at, pitch = _HYPOTHESES[best]
        score = float(totals[phase, best])
        return _Match(score, sums[:-1, phase, best], int(-phase) % PERIOD, float(_TIMES[at]), pitch)

    def _placed(self, estimates: np.ndarray, sure: list[tuple[int, _Match]], message: np.ndarray) -> np.ndarray:
        """Return which frames [T] are marked, within a window's length of windows with a mark.

        There the pattern may begin anew at any frame, as it does with each sentence that was marked by itself; a window has one
        phase that fits best, so that all are asked again here, where the message is known.
        """
        marked, gains = np.zeros(len(estimates), bool), _halfway(self.pattern.gains(message))
        raised, lowered = (gains > 0).T.astype(np.float32), (gains < 0).T.astype(np.float32)
        for time, pitch in sorted({(match.time, match.pitch) for _, match in sure}):
            begins = [begin for begin, match in sure if (match.time, match.pitch) == (time, pitch)]
            for low, high in _around(begins, len(estimates)):
                odds = estimates[low:high] @ _averaging(pitch)
                # log(2 / (1 + exp(-odds * gain))): both signs are as likely without a mark
                evidence = (math.log(2) - np.logaddexp(0, -odds)) @ raised + (
                    math.log(2) - np.logaddexp(0, odds)
                ) @ lowered
                begun = np.floor(np.arange(high - low) * 2 * time).astype(int)[:, None] + np.arange(2 * PERIOD)
                marked[low:high] |= _spans(np.take_along_axis(evidence, begun % (2 * PERIOD), 1))
        return marked


def _halfway(gains: np.ndarray) -> np.ndarray:
    """Return gains [2 PERIOD, bands] of cells and, between them, of frames that lie half in one and half in the next.

    What one raises and the other lowers is 0 there: it says nothing.
    """
    after = np.roll(gains, -1, 0)
    made: np.ndarray = np.stack([gains, (gains + after) / 2], 1).reshape(2 * PERIOD, -1)
    return made


def _around(begins: list[int], frames: int) -> list[tuple[int, int]]:
    """Return first frames and ends of the stretches within a window's length of windows."""
    found: list[tuple[int, int]] = []
    for begin in sorted(begins):
        low, high = max(0, begin - WINDOW), min(frames, begin + 2 * WINDOW)
        if found and low <= found[-1][1]:
            low = found.pop()[0]
        found.append((low, high))
    return found


def _spans(evidence: np.ndarray) -> np.ndarray:
    """Return which frames [T] the likeliest path has inside, of logarithms of likelihood ratios [T, phases] (Viterbi 1967).

    The path is outside or in one of the phases. The more there are of them, the more it costs to begin one.
    """
    frames, phases = evidence.shape
    begins, ends = _CHANGE_COST + math.log(phases), _CHANGE_COST
    outside, inside = 0.0, np.zeros(phases)
    begun, ended = np.zeros((frames, phases), bool), np.zeros(frames, bool)
    from_outside = np.zeros(frames, bool)  # rather than from another phase, where one begins
    likeliest = np.zeros(frames, int)  # phase of the frame before
    for frame in range(frames):
        likeliest[frame] = best = int(inside.argmax())
        most = float(inside[best])
        anew = max(outside, most) - begins
        ended[frame], begun[frame] = most - ends > outside, anew > inside
        from_outside[frame] = outside >= most
        outside = max(outside, most - ends)
        inside = np.maximum(inside, anew) + evidence[frame]
    within = np.zeros(frames, bool)
    phase = int(inside.argmax()) if inside.max() > outside else _OUTSIDE
    for frame in range(frames - 1, -1, -1):
        within[frame] = phase != _OUTSIDE
        if phase == _OUTSIDE:
            phase = int(likeliest[frame]) if ended[frame] else _OUTSIDE
        elif begun[frame, phase]:
            phase = _OUTSIDE if from_outside[frame] else int(likeliest[frame])
    return within


def _owners_at_each_phase(pattern: Pattern) -> np.ndarray:
    """Return the signs of each owner's cells, where the pattern begins at each phase: [(bits + 1) PERIOD, PERIOD bands].

    The last owner is SYNC.
    """
    rows = np.where(pattern.owner == SYNC, pattern.bits, pattern.owner)
    hot = (rows == np.arange(pattern.bits + 1)[:, None, None]) * pattern.sign  # [bits + 1, PERIOD, bands]
    turned = np.stack([np.roll(hot, phase, 1) for phase in range(PERIOD)], 1)
    return turned.reshape((pattern.bits + 1) * PERIOD, -1).astype(np.float32)


@lru_cache(maxsize=1)
def _folding() -> np.ndarray:
    """Return the matrix [times PERIOD, WINDOW] that sums frames which show the same cells, for each factor of time."""
    cells = np.floor(np.arange(WINDOW) * _TIMES[:, None]).astype(int) % PERIOD
    made: np.ndarray = (cells[:, None] == np.arange(PERIOD)[:, None]).astype(np.float32).reshape(-1, WINDOW)
    return made


@lru_cache(maxsize=256)
def _averaging(pitch: float) -> np.ndarray:
    """Return the matrix [BINS, bands] of means over each band's bins, where all frequencies are this much higher."""
    was = np.round(np.arange(1, BINS + 1) / pitch).astype(int) - 1
    of = np.where((was >= 0) & (was < BINS), bands()[was.clip(0, BINS - 1)], -1)
    matrix = (of[:, None] == np.arange(len(edges()) - 1)).astype(np.float32)
    made: np.ndarray = matrix / np.maximum(1, matrix.sum(0))
    return made


def _windows(frames: int) -> Iterator[int]:
    """Yield the first frames of windows that cover so many frames."""
    yield from range(0, max(1, frames - WINDOW + STEP), STEP)


def _pieces(padded: np.ndarray, low: int, high: int, hop: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(padded[low * hop : (high + 1) * hop], 2 * hop)[::hop]


def _level(padded: np.ndarray, frame: int, hop: int, window: np.ndarray) -> float:
    piece = padded[frame * hop : (frame + 2) * hop] * window
    return seen_of(np.abs(np.fft.rfft(piece))[None], hop, None)[1]
