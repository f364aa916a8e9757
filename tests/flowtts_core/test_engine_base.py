"""What every engine inherits: pauses between utterances, words by the whole text, refusals, and failures that stay alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from flowtts_core.engines.base import Speech, Spoken, SynthesisFailure, UtteranceSynthesizer, WordTime
from flowtts_core.errors import FlowTTSError
from flowtts_core.request import PromptClip, SynthesisRequest
from flowtts_core.text.frontends import Frontend, build
from flowtts_core.text.plan import plan_text
from flowtts_core.text.sentences import split_sentences

RATE = 1000


class Counting(UtteranceSynthesizer):
    """Each character lasts 10 ms of ones, each word as long as its letters; keeps what it was asked."""

    name, sample_rate, fingerprint = "counting", RATE, "counting-1"
    languages, speakers, controls = ("en-us", "de"), ("anna", "bert"), frozenset({"seed", "steps"})
    frontend = build({"name": "characters"})

    def __init__(self, timed: bool = True) -> None:
        self.timed = timed
        self.asked: list[Spoken] = []

    def speak(self, utterances: Sequence[Spoken]) -> list[Speech | SynthesisFailure]:
        self.asked += utterances
        return [self._one(request.text[u.start : u.end]) for request, u in utterances]

    def _one(self, text: str) -> Speech | SynthesisFailure:
        if "bad" in text:
            return SynthesisFailure("a bad word")
        words, place = [], 0
        for word in text.split():
            place = text.index(word, place)
            words.append(WordTime(word, place, place + len(word), place / 100, (place + len(word)) / 100))
            place += len(word)
        timed = tuple(words) if self.timed else None
        return Speech(np.ones(10 * len(text), np.float32), RATE, timed, text.lower())


def one(engine: Counting, text: str, **settings: object) -> Speech | SynthesisFailure:
    return engine.synthesize([SynthesisRequest(text=text, **settings)])[0]  # type: ignore[arg-type]


TEXT = "One two. Three!\n\nAnd the end..."


def test_utterances_are_parted_by_their_pauses_and_nothing_follows_the_last() -> None:
    sentences = list(split_sentences(TEXT))
    assert len(sentences) == 3 and len({s.pause_s for s in sentences[:-1]}) == 2
    speech = one(Counting(), TEXT)
    assert isinstance(speech, Speech)
    expected: list[np.ndarray] = []
    for i, sentence in enumerate(sentences):
        expected.append(np.ones(10 * (sentence.end - sentence.start), np.float32))
        if i < 2:
            expected.append(np.zeros(round(sentence.pause_s * RATE), np.float32))
    assert np.array_equal(speech.waveform, np.concatenate(expected))
    assert speech.phonemes == "one two. three! and the end..."


def test_words_are_placed_in_the_whole_text_and_after_the_pauses() -> None:
    speech = one(Counting(), TEXT)
    assert isinstance(speech, Speech) and speech.words is not None
    assert [w.word for w in speech.words] == TEXT.split()
    assert all(TEXT[w.start : w.end] == w.word for w in speech.words)
    for word in speech.words:
        sound = speech.waveform[round(word.start_s * RATE) : round(word.end_s * RATE)]
        assert len(sound) == 10 * len(word.word) and sound.all(), "no pause lies inside a word"
    assert speech.words[-1].end_s == pytest.approx(speech.seconds)


def test_without_durations_there_are_no_words() -> None:
    speech = one(Counting(timed=False), TEXT)
    assert isinstance(speech, Speech) and speech.words is None


def test_what_is_dropped_is_told_and_only_the_rest_is_spoken() -> None:
    engine = Counting()
    speech = one(engine, "One. 日本語。 Two ∮.")
    assert isinstance(speech, Speech) and speech.words is not None
    assert speech.dropped == ("日本語。", "∮")
    assert [w.word for w in speech.words] == ["One.", "Two", "∮."]
    assert [request.text[u.start : u.end] for request, u in engine.asked] == ["One.", "Two ∮."]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"text": ""}, "no text to speak"),
        ({"text": "日本語"}, "can be spoken"),
        ({"text": "Good. A bad one. Good."}, "a bad word"),
        ({"speed": 2.0}, "speed = 2.0: voice counting has no such setting (it has: seed, steps)"),
        ({"prompt": PromptClip(b"x")}, "prompt = a clip: voice counting has no such setting"),
        ({"speaker": "carl"}, "has no speaker 'carl' (it has: anna, bert)"),
        ({"language": "fr"}, "has no language 'fr' (it has: en-us, de)"),
        ({"language": "de-at"}, "has no language 'de-at'"),
        ({"steps": 2.5}, "steps = 2.5: use a whole number from 0 to 1000"),
    ],
)
def test_what_fails_fails_alone_and_says_why(settings: dict[str, object], reason: str) -> None:
    good = SynthesisRequest(text="Good morning.")
    bad = SynthesisRequest(**{"text": "Hello.", **settings})  # type: ignore[arg-type]
    first, failed, last = Counting().synthesize([good, bad, good])
    assert isinstance(failed, SynthesisFailure) and reason in failed.reason
    assert isinstance(first, Speech) and isinstance(last, Speech)
    assert np.array_equal(first.waveform, last.waveform) and first.words == last.words


@pytest.mark.parametrize(
    "settings",
    [{"speaker": "bert"}, {"language": "en-us"}, {"language": "EN"}, {"language": "de"}, {"steps": 3}, {"speed": 1.0}],
)
def test_what_the_voice_offers_is_taken(settings: dict[str, object]) -> None:
    assert isinstance(one(Counting(), "Hello.", **settings), Speech)


def test_plans_made_elsewhere_are_spoken_as_they_are_and_requests_are_checked_all_the_same() -> None:
    engine = Counting()
    request = SynthesisRequest(text=TEXT)
    plan = plan_text(SynthesisRequest(text=TEXT, seed=9), engine.frontend)
    bad = SynthesisRequest(text=TEXT, speed=2.0)
    speech, failed = engine.synthesize([request, bad], [plan, plan])
    assert isinstance(speech, Speech) and isinstance(failed, SynthesisFailure)
    assert [u.seed for _, u in engine.asked] == [9, 9, 9]
    with pytest.raises(FlowTTSError, match="no such setting"):
        engine.plan(bad)


def test_a_fault_of_the_front_end_is_told_and_a_lack_of_memory_is_no_fault_of_a_request() -> None:
    class Tripping(Frontend):
        n_symbols = 1
        error: Exception = ZeroDivisionError("tripped")

        def encode(self, text: str) -> None:
            raise self.error

        def load(self) -> None: ...

    engine = Counting()
    engine.frontend = Tripping()  # type: ignore[assignment]
    assert one(engine, "Hello.") == SynthesisFailure("ZeroDivisionError: tripped")
    Tripping.error = MemoryError()
    with pytest.raises(MemoryError):
        one(engine, "Hello.")
