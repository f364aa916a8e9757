"""The synthesizer: an item does not depend on its batch, failures stay alone, word times lie in order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flowtts_core.synthesizer import Speech, SynthesisFailure, SynthesisRequest, VoiceSynthesizer
from tests.voices import make_voice

TEXTS = [
    "Yes.",
    "The quick brown fox jumps over the lazy dog.",
    "In 1984, Mr. Smith paid $3.50 for it; nobody knew why.",
    "A rather long sentence, which goes on for a while, turns back, hesitates, and then, at last, comes to its end.",
]


@pytest.fixture(scope="module")
def synthesizer(tmp_path_factory: pytest.TempPathFactory) -> VoiceSynthesizer:
    return VoiceSynthesizer.load(make_voice(tmp_path_factory.mktemp("voices") / "amy"))


def speech(result: Speech | SynthesisFailure) -> Speech:
    assert isinstance(result, Speech), result
    return result


def test_batch_equals_singles(synthesizer: VoiceSynthesizer) -> None:
    requests = [SynthesisRequest(text, seed=i) for i, text in enumerate(TEXTS)]
    batch = [speech(r) for r in synthesizer.synthesize(requests)]
    for request, together in zip(requests, batch, strict=True):
        alone = speech(synthesizer.synthesize([request])[0])
        assert alone.waveform.shape == together.waveform.shape
        np.testing.assert_allclose(together.waveform, alone.waveform, atol=1e-4)
        assert alone.words == together.words


def test_settings_of_requests_are_kept_apart(synthesizer: VoiceSynthesizer) -> None:
    text = TEXTS[1]
    requests = [
        SynthesisRequest(text, seed=1),
        SynthesisRequest(text, seed=2),
        SynthesisRequest(text, seed=1, speed=1.5),
    ]
    one, other_seed, faster = (speech(r) for r in synthesizer.synthesize(requests))
    assert one.waveform.shape == other_seed.waveform.shape and np.abs(one.waveform - other_seed.waveform).max() > 1e-3
    assert faster.seconds < 0.8 * one.seconds
    prior = speech(synthesizer.synthesize([SynthesisRequest(text, seed=1, steps=0)])[0])
    assert prior.waveform.shape == one.waveform.shape and np.abs(prior.waveform - one.waveform).max() > 1e-3


def test_words_are_timed_in_order(synthesizer: VoiceSynthesizer) -> None:
    for result, text in zip(synthesizer.synthesize([SynthesisRequest(t) for t in TEXTS]), TEXTS, strict=True):
        result = speech(result)
        assert result.words and all(text[w.start : w.end] == w.word for w in result.words)
        times = [t for w in result.words for t in (w.start_s, w.end_s)]
        assert times == sorted(times) and times[-1] <= result.seconds + 1e-6


@pytest.mark.parametrize(
    "bad",
    [
        SynthesisRequest(""),
        SynthesisRequest("日本語"),
        SynthesisRequest("\x00\ud800"),
        SynthesisRequest("Hello.", speed=float("nan")),
        SynthesisRequest("Hello.", speed=99.0),
        SynthesisRequest("Hello.", steps=-1),
        SynthesisRequest("Hello.", temperature=float("inf")),
        SynthesisRequest("Hello.", speaker="Nobody"),
    ],
)
def test_a_bad_request_harms_no_other(synthesizer: VoiceSynthesizer, bad: SynthesisRequest) -> None:
    good = SynthesisRequest("Good morning.")
    first, failed, last = synthesizer.synthesize([good, bad, good])
    assert isinstance(failed, SynthesisFailure) and failed.reason
    np.testing.assert_allclose(speech(first).waveform, speech(last).waveform, atol=1e-4)


def test_a_text_without_a_stop_is_spoken_whole(synthesizer: VoiceSynthesizer) -> None:
    text = "word after word without any stop " * 60
    result = speech(synthesizer.synthesize([SynthesisRequest(text)])[0])
    assert [w.word for w in result.words] == text.split()
    assert result.words[-1].end_s <= result.seconds + 1e-6


def test_speakers(tmp_path: Path) -> None:
    synthesizer = VoiceSynthesizer.load(make_voice(tmp_path / "two", n_speakers=2))
    requests = [SynthesisRequest("Hello there.", speaker=f"speaker-{i}") for i in range(2)]
    first, second = (speech(r) for r in synthesizer.synthesize(requests))
    assert first.waveform.shape != second.waveform.shape or np.abs(first.waveform - second.waveform).max() > 1e-4
