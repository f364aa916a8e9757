"""The recording of a voice that is imitated, cleaned: mono, mended, cut, at one level; what cannot serve is refused.

Whatever brings a clip, what is heard of it is `clean_reference` of its bytes. To clean what is clean changes no sample, so that
a saved clone, an uploaded clip and the file itself sound alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from scipy.interpolate import CubicHermiteSpline

from flowtts_core.audio.cleaning import sound_bounds
from flowtts_core.audio.files import encode, read_audio, resample, to_int16
from flowtts_core.errors import AudioError, TextError
from flowtts_core.request import PromptClip

VERSION = 1  # of the cleaning: what is kept of another is made anew
SHORTEST_S, ENOUGH_S, LONGEST_S, LONGEST_READ_S = 1.0, 3.0, 12.0, 300.0
LONGEST_ALIGNED_S = 60.0  # of a recording whose text is cut with it
LEVEL_RMS = 0.1  # the level at which F5-TTS and ZipVoice hear clips (`target_rms`)
_OVER_S = 0.5  # by so much a clip may be longer: better than a word less
_PEAK = 0.99
_EDGE_S = 0.1  # of silence that stays at either end
_HIGHEST_RATE, _DULL_RATE = 48_000, 16_000
_LEVEL_DB = 0.1  # a level that is so near is left alone
_SILENT = 10 ** (-60 / 20)  # of which nothing is heard
_OFFSET = 0.1  # of the loudness: a mean that is worth taking out
_PAUSE_S, _EARLIEST_S = 0.12, 4.0  # where a long clip may be cut
_REMEDY = "give 3 to 12 s of one person who speaks, recorded without music or noise"
_KEPT = 32  # clips that a process holds at once

# Clipping: runs of samples at the peak. Shares of all samples.
_FLAT_RUN, _FLAT_AT = 4, 0.995
_MENDED, _RUINED = 2e-5, 0.06
_SQUARE = (
    4.0  # peak by loudness: speech has 5 and more, but not where it was clipped before a lossy file hid the flat parts
)

# What 340 clips of read English and German have (LibriSpeech, LJSpeech and two studio voices), and what is no speech has not:
# their bands change by 5.4 to 12.9 dB, of hum, noise and drums by 0.2 to 2.1; their level changes by 1.5 to 10.1 dB, of a tone
# by 0.1; of the steps of pitch between their frames 6 to 36 % are smaller than 0.05 semitones, of melodies and chords 70 % and
# more; 33 to 91 % of their frames are voiced.
_LEAST_CHANGE_DB, _LEAST_SWELL_DB, _MOST_STEADY = 3.5, 1.0, 0.5
_ACTIVE_DB = 30.0  # below the loud parts: frames that count
_LEAST_VOICED = 0.15
_LEAST_SNR_DB = 15.0
_HEARD_AT = 16_000

# Bytes of letters that are said in a second; a digit counts as a word. Readers of English and German have 7 to 18.
_USUAL, _POSSIBLE, _DIGIT = (5.0, 24.0), (2.0, 40.0), 4


@dataclass(frozen=True)
class Reference:
    """A cleaned recording.

    Attributes:
        waveform: [S] float32, of 16-bit samples.
        notes: what was done to it and what is wrong with it, for people.
        cut: it is only the beginning of what was given, so that a text of the whole is not its text.
        given_s: seconds of what was given.
        before_cut: [S] of a cut one, as far as an alignment of its text needs it; else empty.
    """

    waveform: np.ndarray = field(repr=False)
    sample_rate: int
    notes: tuple[str, ...] = ()
    cut: bool = False
    given_s: float = 0.0
    before_cut: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32), repr=False)

    @property
    def seconds(self) -> float:
        return len(self.waveform) / self.sample_rate

    @cached_property
    def clip(self) -> PromptClip:
        """The same samples as a FLAC file."""
        return PromptClip(encode(self.waveform, self.sample_rate, ".flac"))


def clean_reference(clip: PromptClip) -> Reference:
    """Return what is heard of a clip; kept for the clips that were asked for last.

    It is mono, without silence at its ends, at most 12 s long (cut at a pause), without clipped peaks, at one level.

    Raises:
        AudioError: for what cannot serve: no audio, silence, under a second or over five minutes, clipped all over, no speech.
    """
    return _cleaned(clip)


@lru_cache(_KEPT)
def _cleaned(clip: PromptClip) -> Reference:
    try:
        waveform, rate = read_audio(clip.audio, longest_s=LONGEST_READ_S)
    except AudioError as error:
        raise AudioError(error.message.replace("these bytes", "the reference"), error.remedy) from error
    given_s = len(waveform) / rate
    if rate > _HIGHEST_RATE:
        waveform, rate = resample(waveform, rate, _HIGHEST_RATE), _HIGHEST_RATE
    notes: list[str] = []
    if np.ptp(waveform) < _SILENT:
        raise AudioError("the reference is silent", _REMEDY)
    waveform = _without_clipping(_trimmed(waveform, rate), notes)
    if len(waveform) < SHORTEST_S * rate:
        raise AudioError(
            f"the reference has {len(waveform) / rate:.1f} s of sound, and at least {SHORTEST_S:g} s are needed",
            _REMEDY,
        )
    whole = waveform[:0]
    if cut := len(waveform) > (LONGEST_S + _OVER_S) * rate:
        whole = waveform[: round(LONGEST_ALIGNED_S * rate)]
        waveform = _trimmed(waveform[: _pause(waveform, rate, notes)], rate)
    waveform = _centred(waveform, notes)
    _require_speech(waveform, rate, notes)
    waveform = _leveled(waveform)
    seconds = len(waveform) / rate
    if cut:
        notes.insert(0, f"the first {seconds:.1f} s of {given_s:.1f} s are used")
    elif given_s - seconds > 0.5:
        notes.insert(0, f"{given_s - seconds:.1f} s of silence at its ends left out")
    if seconds < ENOUGH_S:
        notes.append(f"it is short ({seconds:.1f} s): {ENOUGH_S:g} s or more give a truer voice")
    if rate < _DULL_RATE:
        notes.append(f"its sample rate is {rate} Hz: the voice will be as dull as it is")
    return Reference(waveform, rate, tuple(notes), cut, given_s, whole)


def _trimmed(waveform: np.ndarray, rate: int) -> np.ndarray:
    """Without silence at the ends; until nothing is left to do, since what is quiet depends on what there is."""
    while True:
        start, end = sound_bounds(waveform, rate, _EDGE_S)
        if end - start == len(waveform):
            return waveform
        waveform = waveform[start:end]


def _centred(waveform: np.ndarray, notes: list[str]) -> np.ndarray:
    offset = float(waveform.mean(dtype=np.float64))
    if abs(offset) <= _OFFSET * float(waveform.std(dtype=np.float64)):
        return waveform
    notes.append("freed of a constant offset")
    return waveform - np.float32(offset)


def _leveled(waveform: np.ndarray) -> np.ndarray:
    """At the level, or as near as its peaks allow, by one gain; in 16-bit samples, as files hold it."""
    gain = min(LEVEL_RMS / float(np.sqrt(np.square(waveform, dtype=np.float64).mean())), _PEAK / np.abs(waveform).max())
    if abs(20 * np.log10(gain)) < _LEVEL_DB:
        gain = 1.0
    return to_int16(waveform * gain).astype(np.float32) / 32768


def _without_clipping(waveform: np.ndarray, notes: list[str]) -> np.ndarray:
    """With flattened peaks rounded by a cubic through their edges; raises AudioError where too much is flat."""
    high = np.abs(waveform) >= _FLAT_AT * np.abs(waveform).max()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], high, [False]]).astype(np.int8)))
    runs = [(a, b) for a, b in edges.reshape(-1, 2) if b - a >= _FLAT_RUN]
    share = sum(b - a for a, b in runs) / len(waveform)
    if share > _RUINED:
        raise AudioError(
            f"the reference is clipped: {share:.0%} of it lies flat at full scale", "record it again, at a lower level"
        )
    if share < _MENDED:
        if np.abs(waveform - waveform.mean()).max() < _SQUARE * waveform.std(dtype=np.float64):
            notes.append("it sounds clipped, which cannot be mended in a lossy file: the voice will be as harsh")
        return waveform
    mended = waveform.copy()
    for a, b in runs:
        if a >= 2 and b <= len(waveform) - 2:
            slopes = waveform[a - 1] - waveform[a - 2], waveform[b + 1] - waveform[b]
            rounded = CubicHermiteSpline([a - 1, b], waveform[[a - 1, b]], slopes)(np.arange(a, b))
            outward = np.maximum(
                np.abs(rounded), np.abs(waveform[a:b])
            )  # a peak was at least as high as where it was cut
            mended[a:b] = np.sign(waveform[a:b]) * outward
    notes.append(f"{len(runs)} clipped peaks rounded")
    return mended


def _pause(waveform: np.ndarray, rate: int, notes: list[str]) -> int:
    """The sample at which a long clip is cut: in the middle of its last pause that leaves at most `LONGEST_S`."""
    frame = round(0.01 * rate)
    levels = _levels(waveform[: round(LONGEST_S * rate)], frame)
    quiet = levels < max(np.percentile(levels, 95) - _ACTIVE_DB, np.percentile(levels, 5) + 6)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], quiet, [False]]).astype(np.int8))).reshape(-1, 2)
    pauses = [(a, b) for a, b in edges if b - a >= _PAUSE_S * 100 and a >= _EARLIEST_S * 100]
    if pauses:
        return round(sum(pauses[-1]) / 2 * frame)
    notes.append("no pause was found to cut it at: its last word may be broken")
    late = int(LONGEST_S * 100 * 0.8)
    return int((late + np.argmin(np.convolve(levels[late:], np.ones(5), "same"))) * frame)


def _require_speech(waveform: np.ndarray, rate: int, notes: list[str]) -> None:
    """Raise AudioError for what does not change as speech does; note what may be wrong."""
    heard = resample(waveform, rate, _HEARD_AT)
    bands, levels = _bands(heard)
    active = levels > np.percentile(levels, 95) - _ACTIVE_DB
    shape = bands[active] - bands[active].mean(1, keepdims=True)
    if shape.std(0).mean() < _LEAST_CHANGE_DB or levels[active].std() < _LEAST_SWELL_DB:
        raise AudioError("the reference holds no speech, or noise hides it: its sound stays the same", _REMEDY)
    found = _pitch().detect(heard, _HEARD_AT, 50, 600)
    sounding = np.interp(found.timestamps, np.arange(len(levels)) * 0.01, active) >= 0.5
    steps = np.abs(np.diff(12 * np.log2(found.pitch_hz)))[sounding[1:]]
    if (steps < 0.05).mean() > _MOST_STEADY:
        raise AudioError("the reference holds no speech: its pitch stands still, as in music", _REMEDY)
    if (found.confidence >= 0.5)[sounding].mean() < _LEAST_VOICED:
        notes.append("hardly any pitch is heard: is it whispered, or noisy?")
    over_noise = float(np.percentile(levels, 90) - np.percentile(levels, 5))
    if over_noise < _LEAST_SNR_DB:
        notes.append(f"it is noisy (speech is {over_noise:.0f} dB above the rest): the voice will be, too")


def _bands(heard: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The level of 20 bands up to 6.2 kHz [T, 20], and of all [T], in dB, each 10 ms."""
    window, hop = 512, 160
    places = np.arange(window)[None] + hop * np.arange(1 + (len(heard) - window) // hop)[:, None]
    power = np.abs(np.fft.rfft(heard[places] * np.hanning(window).astype(np.float32), axis=1)) ** 2
    bands = np.stack([band.sum(1) for band in np.array_split(power[:, 2:200], 20, axis=1)], axis=1)
    return 10 * np.log10(bands + 1e-9), 10 * np.log10(power.sum(1) + 1e-9)


def _levels(waveform: np.ndarray, frame: int) -> np.ndarray:
    """The level of each frame in dB."""
    count = len(waveform) // frame
    return np.asarray(10 * np.log10(np.square(waveform[: count * frame].reshape(count, frame)).mean(1) + 1e-10))


def require_own_text(reference: Reference, text: str) -> None:
    """Raise TextError for a text that is not what is heard of a recording: of more than is used, or of another length."""
    if reference.cut:
        raise TextError(
            f"the reference lasts {reference.given_s:.1f} s, of which {reference.seconds:.1f} s are used, and its text is of all",
            f"cut it to {LONGEST_S:g} s and give the text of that, or leave the text out to have it transcribed",
        )
    text_note(text, reference.seconds)


def text_note(text: str, seconds: float) -> str:
    """Return what is odd about a text for a recording of so many seconds; empty where nothing is.

    Measured in bytes of letters a second, which languages share more than characters.

    Raises:
        TextError: for a text that nobody can have said in that time.
    """
    sounded = sum(_DIGIT if c.isdigit() else len(c.encode()) for c in text if c.isalnum())
    pace = sounded / seconds
    told = f"what is said in the reference ({len(text)} characters) does not fit its {seconds:.1f} s"
    if not _POSSIBLE[0] <= pace <= _POSSIBLE[1]:
        raise TextError(
            f"{told}: it is too {'long' if pace > _POSSIBLE[1] else 'short'}",
            "write down exactly what is heard in it, or leave the text out to have it transcribed",
        )
    return "" if _USUAL[0] <= pace <= _USUAL[1] else f"{told} well: is it exactly what is heard?"


@lru_cache(maxsize=1)
def _pitch() -> Any:
    from swift_f0 import SwiftF0

    return SwiftF0(threads=1)
