"""Other words in a recording: where they lie, that all else stays, and that the joints do not click."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flowtts_core.audio.files import read_audio
from flowtts_core.engines.base import Speech, Spoken, SynthesisFailure, UtteranceSynthesizer
from flowtts_core.engines.edit import JOINT_S, edit_recording, find_words, splice
from flowtts_core.engines.forced_alignment import open_aligner
from flowtts_core.errors import ConfigError, TextError
from flowtts_core.voice.cloning import PreparedReference
from tests.speech_like import babble, babble_clip

RATE = 16000


def test_words_are_found_whole_and_once() -> None:
    text = "We meet on Monday, not on a Mondayish day."
    found = find_words(text, "Monday=next Tuesday")
    assert (text[found.start : found.end], found.new) == ("Monday", "next Tuesday")
    assert find_words(text, "not on a=").new == ""
    for given, reason in (
        ("on=at", "2 times"),
        ("Sunday=x", "0 times"),
        ("Monday", "not as OLD=NEW"),
        ("=x", "not as"),
    ):
        with pytest.raises(ConfigError, match=reason):
            find_words(text, given)


@pytest.mark.parametrize("span", [(1.0, 1.4), (0.0, 0.5), (1.6, 2.0), (0.0, 2.0)])
@pytest.mark.parametrize("seconds", [0.0, 0.3, 1.0])
def test_a_splice_leaves_the_rest_as_it_was_and_does_not_click(span: tuple[float, float], seconds: float) -> None:
    time = np.arange(2 * RATE) / RATE
    old = (0.5 * np.sin(2 * np.pi * 100 * time)).astype(np.float32)
    piece = (0.5 * np.cos(2 * np.pi * 130 * time[: round((seconds + JOINT_S) * RATE)])).astype(np.float32)
    piece = piece if seconds else piece[:0]
    found = splice(old, piece, span, RATE)
    joint = round(JOINT_S * RATE)
    start, end = round(span[0] * RATE), round(span[1] * RATE)
    kept = max(0, start - joint)
    assert np.array_equal(found[:kept], old[:kept])
    tail = len(old) - end - joint
    assert tail <= 0 or np.array_equal(found[-tail:], old[-tail:])
    assert len(found) / RATE == pytest.approx(2.0 - (span[1] - span[0]) + seconds, abs=2 * JOINT_S)
    inner = found[joint:-joint]
    assert np.abs(np.diff(inner)).max(initial=0.0) < 0.5 * 2 * np.pi * 130 / RATE + 1.0 / joint + 0.01


class Reader(UtteranceSynthesizer):
    """Says any sentence as a given sound."""

    name, sample_rate, fingerprint = "reader", 22050, "reader"
    controls = frozenset({"seed", "prompt", "prompt_text"})

    def __init__(self, waveform: np.ndarray | None) -> None:
        self.waveform, self.said = waveform, list[str]()

    def speak(self, utterances: list[Spoken]) -> list[Speech | SynthesisFailure]:  # type: ignore[override]  # it is given lists alone
        self.said += [request.text for request, _ in utterances]
        if self.waveform is None:
            return [SynthesisFailure("no voice")] * len(utterances)
        return [Speech(self.waveform, self.sample_rate)] * len(utterances)


def test_a_word_of_a_reader_is_replaced_in_its_sentence(shared_data: Path) -> None:
    """Her own sentence, as if it were spoken anew: the word lies where the alignment says, and all else is hers."""
    waveform, rate = read_audio(next((shared_data / "ljspeech").rglob("LJ001-0002.wav")))
    text = "in being comparatively modern."
    voice = Reader(waveform / 4)
    prepared = PreparedReference(babble_clip(2.0), text, 2.0)
    change = find_words(text, "comparatively=comparatively")
    edited = edit_recording(waveform, rate, text, change, voice, prepared, open_aligner())
    assert voice.said == [text] and edited.text == text
    assert 0.1 < edited.start_s < edited.end_s < len(waveform) / rate and 0.4 < edited.removed_s < 1.2
    first = round((edited.start_s - JOINT_S) * rate)
    assert np.array_equal(edited.waveform[:first], waveform[:first])
    assert len(edited.waveform) == pytest.approx(len(waveform), abs=3 * JOINT_S * rate)
    inside = slice(round((edited.start_s + 0.05) * rate), round((edited.end_s - 0.05) * rate))
    assert np.abs(edited.waveform[inside] - waveform[inside]).mean() < 0.05, "at her own level, and in her own time"
    shorter = edit_recording(waveform, rate, text, find_words(text, "comparatively="), voice, prepared, open_aligner())
    assert shorter.text == "in being modern." and len(voice.said) == 1
    assert len(shorter.waveform) / rate == pytest.approx(len(waveform) / rate - shorter.removed_s, abs=2 * JOINT_S)
    with pytest.raises(TextError, match="no voice"):
        edit_recording(waveform, rate, text, change, Reader(None), prepared, open_aligner())


def test_only_the_sentence_of_the_words_is_spoken() -> None:
    text = "This is the first. We meet on Monday. This is the last."
    voice = Reader(babble(2.0, rate=22050))
    prepared = PreparedReference(babble_clip(2.0), text, 2.0)
    edited = edit_recording(
        babble(5.0), RATE, text, find_words(text, "Monday=Tuesday"), voice, prepared, open_aligner()
    )
    assert [said.strip() for said in voice.said] == ["We meet on Tuesday."]
    assert edited.text == "This is the first. We meet on Tuesday. This is the last."
