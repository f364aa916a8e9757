"""Other words in a recording, in its own voice: the sentence is spoken anew, and the new words take the place of the old.

Words are found by alignment, of English, in the recording and in the new sentence. All that lies outside the old words stays
as it was, sample by sample, but for the joints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flowtts_core.audio.files import resample
from flowtts_core.engines.base import Speech, SynthesisFailure, UtteranceSynthesizer, WordTime
from flowtts_core.engines.forced_alignment import WordAligner
from flowtts_core.errors import AudioError, ConfigError, TextError
from flowtts_core.request import SynthesisRequest
from flowtts_core.text.sentences import split_sentences
from flowtts_core.voice.cloning import PreparedReference

JOINT_S = 0.02  # over which old and new sound fade into each other
_LONGEST_S = 60.0  # of a recording: alignment and memory grow with it


@dataclass(frozen=True)
class Replacement:
    """Words of a text, by their characters `[start, end)`, and what is to be said for them; "" for nothing."""

    start: int
    end: int
    new: str


@dataclass(frozen=True)
class Edited:
    """The recording with other words.

    Attributes:
        waveform: [S] float32, at the recording's rate.
        start_s, end_s: where the new words lie in it.
        removed_s: seconds of the old words.
    """

    waveform: np.ndarray
    text: str
    start_s: float
    end_s: float
    removed_s: float


def find_words(text: str, given: str) -> Replacement:
    """Read `old=new`; raises ConfigError for another form, or words that are not once in the text."""
    old, equals, new = (" ".join(part.split()) for part in given.partition("="))
    if not old or not equals:
        raise ConfigError(f"--replace {given!r}: not as OLD=NEW", 'for example --replace "Monday=Tuesday"')
    places = [i for i in range(len(text)) if text.startswith(old, i) and _whole(text, i, i + len(old))]
    if len(places) != 1:
        raise ConfigError(
            f"{old!r} is {len(places)} times in {text!r}", "give words as they are in the text, and enough of them"
        )
    return Replacement(places[0], places[0] + len(old), new)


def edit_recording(
    waveform: np.ndarray,
    sample_rate: int,
    text: str,
    change: Replacement,
    voice: UtteranceSynthesizer,
    reference: PreparedReference,
    aligner: WordAligner,
    *,
    seed: int = 0,
) -> Edited:
    """Say words of a recording anew.

    Args:
        waveform: [S], in which `text` is said.
        voice: imitates `reference`, which is of the same person.

    Raises:
        AudioError: for a recording in which the words cannot be found, or that is too long.
        TextError: where the new sentence cannot be spoken.
    """
    if len(waveform) > _LONGEST_S * sample_rate:
        raise AudioError(f"the recording is longer than {_LONGEST_S:g} s", "cut it into parts and edit the one")
    old = _span(_words(aligner, text, waveform, sample_rate), change.start, change.end)
    new_text = " ".join(f"{text[: change.start]}{change.new}{text[change.end :]}".split())
    if not new_text:
        raise ConfigError("nothing would be left of the recording", "leave some words")
    if not change.new:
        joined = splice(waveform, np.zeros(0, np.float32), old, sample_rate)
        return Edited(joined, new_text, old[0], old[0], old[1] - old[0])
    first, last = _sentence(text, change)
    said = f"{text[first : change.start]}{change.new}{text[change.end : last]}"
    request = SynthesisRequest(text=said, seed=seed, prompt=reference.clip, prompt_text=reference.text)
    [speech] = voice.synthesize([request])
    if isinstance(speech, SynthesisFailure):
        raise TextError(f"the new words cannot be spoken: {speech.reason}")
    place = change.start - first
    around = _span(_words(aligner, said, speech.waveform, speech.sample_rate), place, place + len(change.new))
    piece = resample(_cut(speech, around), speech.sample_rate, sample_rate)
    piece = piece * _level(waveform, sample_rate) / max(_level(speech.waveform, speech.sample_rate), 1e-6)
    joined = splice(waveform, piece, old, sample_rate)
    return Edited(joined, new_text, old[0], old[0] + len(piece) / sample_rate - JOINT_S, old[1] - old[0])


def splice(waveform: np.ndarray, piece: np.ndarray, span: tuple[float, float], sample_rate: int) -> np.ndarray:
    """Return a waveform [S] in which a piece takes the place of the seconds `span`; it fades in and out at the joints.

    The piece is longer by a joint than its words: by half of one at either end.
    """
    joint = round(JOINT_S * sample_rate)
    start = max(0, round(span[0] * sample_rate) - joint // 2)
    end = min(len(waveform), max(round(span[1] * sample_rate) + (joint - joint // 2), start))
    if not len(piece):
        return _joined(waveform[: min(start + joint, len(waveform))], waveform[max(0, end - joint) :], joint)
    before = _joined(waveform[: start + joint], piece, joint)
    return _joined(before, waveform[max(0, end - joint) :], joint)


def _joined(before: np.ndarray, after: np.ndarray, joint: int) -> np.ndarray:
    """Both, of which the last and the first `joint` samples fade into each other; less where one is shorter."""
    length = min(joint, len(before), len(after))
    if not length:
        return np.concatenate([before, after]).astype(np.float32)
    rise = (np.arange(length) + 0.5) / length
    mixed = before[len(before) - length :] * (1 - rise) + after[:length] * rise
    return np.concatenate([before[: len(before) - length], mixed, after[length:]]).astype(np.float32)


def _cut(speech: Speech, span: tuple[float, float]) -> np.ndarray:
    """The words of a sound with half a joint beside them."""
    half = JOINT_S / 2
    first, last = (round(second * speech.sample_rate) for second in (max(0.0, span[0] - half), span[1] + half))
    return speech.waveform[first:last]


def _words(aligner: WordAligner, text: str, waveform: np.ndarray, sample_rate: int) -> Sequence[WordTime]:
    found = aligner.words(text, aligner.frontend.encode(text).words, waveform, sample_rate)
    if not found:
        raise AudioError("the words of the text are not found in the sound", "give the text of what is said: --text")
    return found


def _span(words: Sequence[WordTime], start: int, end: int) -> tuple[float, float]:
    """The seconds of the words that have characters in `[start, end)`."""
    inside = [word for word in words if word.start < end and start < word.end]
    if not inside:
        raise AudioError("the words to be replaced are not found in the sound", "replace a whole word")
    return inside[0].start_s, inside[-1].end_s


def _sentence(text: str, change: Replacement) -> tuple[int, int]:
    """The characters of the sentences that have the old words."""
    inside = [s for s in split_sentences(text) if s.start < change.end and change.start < s.end]
    return (inside[0].start, inside[-1].end) if inside else (0, len(text))


def _level(waveform: np.ndarray, sample_rate: int) -> float:
    """The loudness of what sounds: the root mean square of the frames within 30 dB of the loudest."""
    frame = max(1, round(0.02 * sample_rate))
    count = len(waveform) // frame
    power = np.square(waveform[: count * frame].reshape(count, frame), dtype=np.float64).mean(1)
    return math.sqrt(float(power[power >= power.max(initial=0.0) / 1000].mean())) if count else 0.0


def _whole(text: str, start: int, end: int) -> bool:
    return not (text[start - 1 : start].isalnum() and start > 0) and not text[end : end + 1].isalnum()
