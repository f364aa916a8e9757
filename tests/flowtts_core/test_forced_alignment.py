"""Words found in sound: as the voice that spoke them tells, whatever the sample rate, the silences and the front end."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from flowtts_core.audio.files import resample
from flowtts_core.engines.base import Speech, WordTime
from flowtts_core.engines.forced_alignment import WordAligner, matched, open_aligner, silences
from flowtts_core.request import SynthesisRequest
from flowtts_core.streaming.engine import StreamingEngine
from flowtts_core.text.frontends.base import Word
from flowtts_core.voice import bundled_voices, load_card, open_voice
from flowtts_core.voice.card import FLOW_VOICE, write_card
from tests.onnx_graphs import make_kokoro_voice, make_piper_voice

TEXTS = [
    "The rain has stopped, and nobody was at home.",
    "In 1483 he began to print books of a rather different kind!",
    "Why should a door stand open all night long?",
    "A formal and thorough description of the work, as it was done, is given below.",
]


@pytest.fixture(scope="module")
def aligner() -> WordAligner:
    return open_aligner(threads=1)


@pytest.fixture(scope="module")
def spoken() -> list[Speech]:
    """The bundled flow voice's speech, whose own durations are the truth."""
    results = open_voice(FLOW_VOICE, threads=1).synthesize([SynthesisRequest(text=text) for text in TEXTS])
    return [speech for speech in results if isinstance(speech, Speech)]


def found(aligner: WordAligner, text: str, waveform: np.ndarray, sample_rate: int) -> tuple[WordTime, ...]:
    words = aligner.words(text, aligner.frontend.encode(text).words, waveform, sample_rate)
    assert words is not None
    return words


def errors_s(words: tuple[WordTime, ...], truth: tuple[WordTime, ...] | None) -> np.ndarray:
    assert truth is not None and [w.word for w in words] == [w.word for w in truth]
    return np.array([(w.start_s - t.start_s, w.end_s - t.end_s) for w, t in zip(words, truth, strict=True)])


@pytest.mark.parametrize("sample_rate", [22_050, 16_000, 48_000])
def test_its_own_voices_words_are_found(aligner: WordAligner, spoken: list[Speech], sample_rate: int) -> None:
    off = [
        errors_s(found(aligner, text, resample(s.waveform, s.sample_rate, sample_rate), sample_rate), s.words)
        for text, s in zip(TEXTS, spoken, strict=True)
    ]
    every = np.abs(np.concatenate(off))
    assert np.median(every) < 0.015 and np.percentile(every, 95) < 0.08 and every.max() < 0.25


def test_fast_speech_has_word_times_too(aligner: WordAligner) -> None:
    [speech] = open_voice(FLOW_VOICE, threads=1).synthesize([SynthesisRequest(text=TEXTS[3], speed=4.0)])
    assert isinstance(speech, Speech)
    off = errors_s(found(aligner, TEXTS[3], speech.waveform, speech.sample_rate), speech.words)
    assert np.median(np.abs(off)) < 0.02


@pytest.mark.parametrize("after", [2, 5, 7])
def test_a_silence_between_any_two_words_is_passed_over(aligner: WordAligner, spoken: list[Speech], after: int) -> None:
    speech, pause_s = spoken[2], 0.7
    assert speech.words is not None
    cut_s = (speech.words[after].end_s + speech.words[after + 1].start_s) / 2
    cut = round(cut_s * speech.sample_rate)
    pause = np.zeros(round(pause_s * speech.sample_rate), np.float32)
    paused = np.concatenate([pause, speech.waveform[:cut], pause, speech.waveform[cut:], pause])
    moved = tuple(
        replace(w, start_s=w.start_s + s, end_s=w.end_s + s)
        for i, w in enumerate(speech.words)
        for s in [pause_s * (1 + (i > after))]
    )
    off = errors_s(found(aligner, TEXTS[2], paused, speech.sample_rate), moved)
    assert np.median(np.abs(off)) < 0.03 and np.abs(off[[after, after + 1]]).max() < 0.15


def test_silences_are_long_and_deep() -> None:
    log_mel = np.zeros((60, 80), np.float32)
    log_mel[:10], log_mel[20:24], log_mel[40:52] = -9.0, -9.0, -9.0
    log_mel[30:40] = -1.0  # soft speech
    assert np.flatnonzero(silences(log_mel, 8)).tolist() == [*range(10), *range(40, 52)]


def test_where_nothing_can_be_found_there_are_no_times(aligner: WordAligner, spoken: list[Speech]) -> None:
    words, rate = aligner.frontend.encode(TEXTS[0]).words, spoken[0].sample_rate
    assert aligner.words(TEXTS[0], words, np.zeros(rate, np.float32), rate) is None
    assert aligner.words(TEXTS[0], words, spoken[0].waveform[: rate // 8], rate) is None
    assert aligner.words(TEXTS[0], words, spoken[0].waveform[:0], rate) is None
    assert aligner.words("Добрый вечер", (Word("Добрый", 0, 6, 0, 1),), spoken[0].waveform, rate) is None


def cut(text: str, *spans: tuple[int, int]) -> tuple[Word, ...]:
    return tuple(Word(text[a:b], a, b, 0, 0) for a, b in spans)


@pytest.mark.parametrize(
    ("words", "heard", "times"),
    [
        ([(0, 2), (3, 5)], [(0, 2, 0.1, 0.3), (3, 5, 0.4, 0.6)], [(0.1, 0.3), (0.4, 0.6)]),
        ([(0, 5)], [(0, 2, 0.1, 0.3), (3, 5, 0.4, 0.6)], [(0.1, 0.6)]),  # one word where two were heard
        ([(0, 2), (2, 4)], [(0, 4, 0.2, 0.6)], [(0.2, 0.4), (0.4, 0.6)]),  # two where one was
        ([(0, 2), (3, 5), (6, 8)], [(0, 2, 0.1, 0.3), (6, 8, 0.7, 0.9)], [(0.1, 0.3), (0.3, 0.7), (0.7, 0.9)]),
        ([(0, 2), (3, 5)], [(3, 5, 0.4, 0.6)], [(0.0, 0.4), (0.4, 0.6)]),  # nothing heard of the first
        ([(0, 2), (3, 5)], [(0, 2, 0.4, 0.6)], [(0.4, 0.6), (0.6, 1.0)]),
        ([(0, 2)], [], [(0.0, 1.0)]),
        ([(3, 5), (0, 2)], [(3, 5, 0.1, 0.3), (0, 2, 0.4, 0.6)], [(0.1, 0.3), (0.4, 0.6)]),  # spoken in another order
    ],
)
def test_words_that_were_cut_otherwise_keep_their_place(
    words: list[tuple[int, int]],
    heard: list[tuple[int, int, float, float]],
    times: list[tuple[float, float]],
) -> None:
    text = "ab cd ef"
    told = matched(cut(text, *words), [WordTime(text[a:b], a, b, s, e) for a, b, s, e in heard], 1.0)
    assert [(w.start, w.end) for w in told] == words
    assert [t for w in told for t in (w.start_s, w.end_s)] == pytest.approx([t for pair in times for t in pair])


# --- ONNX voices whose graph does not tell ------------------------------------------------------------------------------


def test_a_graph_without_durations_is_aligned_whole_and_streamed(tmp_path: Path) -> None:
    folder = make_piper_voice(tmp_path / "untimed", timed=False)
    assert load_card(folder).word_times == "aligned"
    request = SynthesisRequest(text="Hello there, old world. It goes on.\n\nAnd ends, it's said.", seed=1)
    voice = open_voice(folder, threads=1)
    [speech] = voice.synthesize([request])
    assert isinstance(speech, Speech) and speech.words is not None
    assert [w.word for w in speech.words] == "Hello there old world It goes on And ends it's said".split()
    assert all(request.text[w.start : w.end] == w.word for w in speech.words)
    assert all(0 <= w.start_s <= w.end_s <= speech.seconds for w in speech.words)
    assert all(a.end_s <= b.start_s for a, b in pairwise(speech.words))
    engine = StreamingEngine(voice, threads=1)
    try:
        streamed = [word for chunk in engine.submit(request).chunks() for word in chunk.words or ()]
    finally:
        engine.close()
    assert streamed == list(speech.words)


def test_other_languages_have_no_word_times(tmp_path: Path) -> None:
    german = make_piper_voice(tmp_path / "untimed", timed=False, language={"code": "de_DE"}, espeak={"voice": "de"})
    assert load_card(german).word_times == "none"
    [speech] = open_voice(german, threads=1).synthesize([SynthesisRequest(text="Guten Abend.")])
    assert isinstance(speech, Speech) and speech.words is None


def test_a_voice_of_several_languages_has_those_of_english(tmp_path: Path) -> None:
    folder = make_kokoro_voice(tmp_path / "kokoro", speakers=("bm_george", "jf_alpha"))
    card = load_card(folder)
    write_card(folder, replace(card, parts={**card.parts, "graph": {**card.parts["graph"], "durations": ""}}))
    voice = open_voice(folder, threads=1)
    british = SynthesisRequest(text="Old.", speaker="bm_george", speed=0.25)
    [speech] = voice.synthesize([british])
    assert isinstance(speech, Speech) and speech.words is not None and speech.words[0].word == "Old"
    japanese = SynthesisRequest(text="古い。", language="ja")
    pytest.importorskip("pyopenjtalk", reason="needs pip install 'flowtts[japanese]'")
    [speech] = voice.synthesize([japanese])
    assert isinstance(speech, Speech) and speech.words is None


def test_cards_tell_where_word_times_come_from(tmp_path: Path) -> None:
    told = {name: load_card(name) for name in bundled_voices()}
    assert {name: card.word_times for name, card in told.items()} == {"heart": "model", FLOW_VOICE: "model"}
    assert told["heart"].fingerprint == "04683a6aac396973" and told[FLOW_VOICE].fingerprint == "a5414fabd78d4874"
    assert load_card(make_piper_voice(tmp_path / "joe")).word_times == "model"
