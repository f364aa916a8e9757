"""Marks and SSML: pauses to the sample, rates, speakers, what is said for what is written; all else is refused with its line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtts_core.engines.base import Speech, SynthesisFailure
from flowtts_core.engines.several import SeveralVoices
from flowtts_core.errors import TextError, VoiceError
from flowtts_core.request import SynthesisRequest
from flowtts_core.streaming.engine import StreamingEngine
from flowtts_core.text.frontends import Frontend, PhonemeFrontend, build
from flowtts_core.text.marks import PLAIN, Manner, bare, read_marks, shown_words, spoken_words
from flowtts_core.text.plan import TextPlan, Utterance, pack_plan, plan_text, unpack_plan
from flowtts_core.text.sentences import split_paragraph
from tests.flowtts_core.test_engine_base import RATE, Counting

CHARACTERS = build({"name": "characters"})


def planned(text: str, input_type: str = "text", frontend: Frontend = CHARACTERS) -> tuple[Utterance, ...]:
    return plan_text(SynthesisRequest(text=text, seed=4, input_type=input_type), frontend).utterances


def said(text: str, input_type: str = "text") -> list[str]:
    request = SynthesisRequest(text=text, input_type=input_type)
    return [u.text_of(request) for u in planned(text, input_type, None)]


def test_pauses_are_as_long_as_asked_for_in_place_of_the_texts_own() -> None:
    text = "[pause:1s]He left. [pause:2s] Then[pause:250ms] he [pause:0s] came.[pause:1.5s]"
    parts = planned(text)
    assert [text[u.start : u.end] for u in parts] == ["He left.", "Then", "he", "came."]
    assert [(u.before_s, u.pause_s, u.held) for u in parts] == [
        (1.0, 2.0, True), (0.0, 0.25, True), (0.0, 0.0, True), (0.0, 1.5, True)
    ]  # fmt: skip
    assert {u.seed for u in parts} == {4}


@pytest.mark.parametrize("mark", ["[pause: 2s]", "[PAUSE:2s]", "[Pause 2 s]", "[pause: 2000ms]", "[pause:2 s]"])
def test_a_pause_may_be_written_with_blanks_and_capitals(mark: str) -> None:
    assert planned(f"One. {mark} Two.")[0].pause_s == 2.0
    assert said(f"One. {mark} Two.") == ["One.", "Two."]
    assert planned("One. [pause:.5s] Two.")[0].pause_s == 0.5


def test_a_rate_and_a_speaker_hold_for_what_is_inside() -> None:
    text = "One [rate:0.5]two [rate:80%]three[/rate][/rate] four. [voice:anna]Five. Six![/voice] Seven."
    found = [(text[u.start : u.end], u.manner) for u in planned(text)]
    slow, slower, anna = Manner(0.5), Manner(0.4), Manner(1.0, "anna")
    assert found == [
        ("One", PLAIN), ("two", slow), ("three", slower), ("four.", PLAIN), ("Five.", anna), ("Six!", anna), ("Seven.", PLAIN)
    ]  # fmt: skip


def test_what_is_said_for_a_word_belongs_to_the_word() -> None:
    text = "The [sub:World Wide Web]W3[/sub] met."
    [utterance] = planned(text, frontend=PhonemeFrontend())
    assert utterance.text_of(SynthesisRequest(text=text)) == "The World Wide Web met."
    assert utterance.encoded is not None
    assert [(w.text, text[w.start : w.end]) for w in utterance.encoded.words] == [
        ("The", "The"),
        ("W3", "W3"),
        ("met", "met"),
    ]
    assert (shown_words(text), spoken_words(text)) == ("The W3 met.", "The World Wide Web met.")


@pytest.mark.parametrize(
    "text", ["[Pause: he sits.] [sic] [1] [pause] a", "[voice: low] [a](/b/) c", "[[sic]] [x:1]", "] [/p]"]
)
def test_other_brackets_are_read_as_they_stand(text: str) -> None:
    assert read_marks(text).text == bare(text) == text


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("One.\n[pause:2] Two.", "line 2: [pause:2]"),
        ("[pause:61s] One.", "60 s"),
        ("[pause:60s]" * 11 + "One.", "600 s"),
        ("One [rate:9]two[/rate]", "[rate:9]"),
        ("One [voice:anna]two.", "[voice:anna]: it is never closed"),
        ("One [voice:anna][rate:2]two[/voice][/rate]", "[/voice]"),
        ("One[/rate].", "[/rate]"),
        ("[sub: ]One[/sub]", "it says nothing"),
        ("[sub:One] two", "[sub:One]"),
    ],
)
def test_a_mark_that_cannot_be_followed_is_named(text: str, named: str) -> None:
    with pytest.raises(TextError) as error:
        planned(text)
    assert named in error.value.message and error.value.remedy


SSML = [
    ("<speak>Tom &amp; Ann.</speak>", ["Tom & Ann."]),
    ("<speak version='1.1'><p><s>No stop</s><s>Two.</s></p><p>Three.</p></speak>", ["No stop", "Two.", "Three."]),
    ("<speak>A <sub alias='doctor'>Dr</sub> came.</speak>", ["A doctor came."]),
    ("<speak>An <say-as interpret-as='characters'>a1B</say-as>.</speak>", ["An A. 1 B."]),
    ("<speak>Call <say-as interpret-as='telephone'>555-019</say-as> now.</speak>", ["Call 5 5 5, 0 1 9 now."]),
    ("<speak>The <say-as interpret-as='ordinal'>22</say-as> of it.</speak>", ["The 22nd of it."]),
    ("<speak>On <say-as interpret-as='date' format='dmy'>3/4/2024</say-as>.</speak>", ["On 3 April 2024."]),
    ("<speak>On <say-as interpret-as='date'>2024-04-03</say-as>.</speak>", ["On 3 April 2024."]),
    ("<speak>It is <say-as interpret-as='cardinal'>12</say-as>.</speak>", ["It is 12."]),
    ("<speak>A <phoneme alphabet='ipa' ph='təˈmɑːtəʊ'>tomato</phoneme>.</speak>", ["A [tomato](/təˈmɑːtəʊ/)."]),
    ("<speak>A <phoneme ph='bat'>bat</phoneme>.</speak>", ["A [bat](/ˈbat/)."]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), SSML)
def test_ssml_says(text: str, expected: list[str]) -> None:
    assert said(text, "ssml") == expected


def test_ssml_gives_the_same_parts_as_marks() -> None:
    ssml = (
        "<speak>Oh. <break time='2s'/><emphasis level='strong'>No!</emphasis> <prosody rate='-20%'>Slow.</prosody> "
        "<voice name='anna'>Me.</voice><break strength='none'/> End.</speak>"
    )
    marks = "Oh. [pause:2s][rate:0.8]No![/rate] [rate:80%]Slow.[/rate] [voice:anna]Me.[/voice][pause:0s] End."

    def parts(text: str, input_type: str) -> list[tuple[object, ...]]:
        return [(text[u.start : u.end], u.pause_s, u.manner) for u in planned(text, input_type)]

    assert parts(ssml, "ssml") == parts(marks, "text") and len(parts(marks, "text")) == 5


def test_words_of_ssml_lie_where_they_are_written() -> None:
    text = "<speak>Ça &lt; <!-- no -->va <say-as interpret-as='ordinal'>2</say-as> <emphasis>bien</emphasis>.</speak>"
    words = [(w.text, u.start + w.start) for u in planned(text, "ssml") for w in (u.encoded.words if u.encoded else ())]
    shown = {word: text.index(word) for word in ("Ça", "2", "bien")}
    assert shown.items() <= dict(words).items()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Hello.", "line 1: no XML"),
        ("<speak>\nTom & Ann</speak>", "line 2: no XML"),
        ("<p>One.</p>", "<p>"),
        ("<speak>One.\n<audio src='x'/></speak>", "line 2: <audio> is not followed"),
        ("<speak><prosody pitch='high'>One.</prosody></speak>", "<prosody pitch=...>"),
        ("<speak><prosody rate='11'>One.</prosody></speak>", "rate='11'"),
        ("<speak><break time='2h'/>One.</speak>", "time='2h'"),
        ("<speak><voice>One.</voice></speak>", "without name"),
        ("<speak><phoneme alphabet='x-sampa' ph='t'>One</phoneme></speak>", "x-sampa"),
        ("<speak><say-as interpret-as='expletive'>One</say-as></speak>", "expletive"),
        ("<speak><say-as interpret-as='date' format='mdy'>31/1/2024</say-as></speak>", "'31/1/2024'"),
        ("<!DOCTYPE speak [<!ENTITY a 'b'>]><speak>&a;</speak>", "entities"),
        ("<!DOCTYPE speak SYSTEM 'http://x/y.dtd'><speak>One.</speak>", "document type"),
        ("<?xml-stylesheet href='x'?><speak>One.</speak>", "xml-stylesheet"),
        ("<speak>" + "<emphasis>" * 40 + "One" + "</emphasis>" * 40 + "</speak>", "in one another"),
    ],
)  # fmt: skip
def test_ssml_that_cannot_be_followed_is_refused_with_its_line(text: str, named: str) -> None:
    with pytest.raises(TextError) as error:
        planned(text, "ssml")
    assert named in error.value.message and error.value.remedy


def spoken(engine: Counting, text: str, **fields: Any) -> Speech | SynthesisFailure:
    return engine.synthesize([SynthesisRequest(text=text, **fields)])[0]


def test_a_voice_keeps_the_pauses_to_the_sample_whole_and_streamed() -> None:
    text = "[pause:1s]Aa. [pause:2s] Bb.[pause:0.5s]"
    expected = [*[0.0] * RATE, *[1.0] * 30, *[0.0] * (2 * RATE), *[1.0] * 30, *[0.0] * (RATE // 2)]
    whole = spoken(Counting(), text)
    assert isinstance(whole, Speech) and whole.waveform.tolist() == expected
    assert [w.start_s for w in whole.words or ()] == [1.0, 3.03]
    engine = StreamingEngine(Counting())
    try:
        chunks = list(engine.submit(SynthesisRequest(text=text)).chunks())
    finally:
        engine.close()
    np.testing.assert_array_equal(np.concatenate([chunk.waveform for chunk in chunks]), expected)
    assert [w.start_s for chunk in chunks for w in chunk.words or ()] == [1.0, 3.03]


def test_a_voice_is_asked_for_speakers_and_speeds_and_refuses_those_that_it_lacks() -> None:
    engine = Counting()
    assert isinstance(spoken(engine, "One. [voice:anna]Two.[/voice] Three."), Speech)
    assert [request.speaker for request, _ in engine.asked] == [None, "anna", None]
    for text, named in [("[voice:eve]One.[/voice]", "'eve'"), ("[rate:2]One.[/rate]", "speed")]:
        failed = spoken(engine, text)
        assert isinstance(failed, SynthesisFailure) and named in failed.reason
    engine.controls = frozenset({"seed", "speed"})
    assert isinstance(spoken(engine, "[rate:2]Four.[/rate]", speed=1.5), Speech)
    assert engine.asked[-1][0].speed == 3.0
    failed = spoken(engine, "[rate:2]Four.[/rate]", speed=3.0)
    assert isinstance(failed, SynthesisFailure) and "speed = 6" in failed.reason


def test_other_voices_speak_their_parts_at_the_first_ones_rate() -> None:
    class Slow(Counting):
        name, sample_rate, speakers, controls = "slow", RATE // 2, ("low",), frozenset({"seed", "speed"})

        def _one(self, text: str) -> Speech | SynthesisFailure:
            return Speech(np.ones(5 * len(text), np.float32), RATE // 2, ())

    own, other, opened = Counting(), Slow(), list[str]()

    def open_other(name: str) -> Counting:
        opened.append(name)
        if name != "slow":
            raise VoiceError(f"no voice {name}")
        return other

    voices = SeveralVoices(own, open_other)
    text = "Aaa. [voice:slow@low][rate:2]Bbb.[/rate][/voice] [voice:anna]Ccc.[/voice] [voice:counting@bert]Ddd.[/voice]"
    [speech] = voices.synthesize([SynthesisRequest(text=text, steps=3, speaker="bert")])
    assert isinstance(speech, Speech) and speech.sample_rate == RATE
    pause = round(0.35 * RATE)
    assert len(speech.waveform) == 4 * 40 + 3 * pause
    assert np.abs(speech.waveform[45 + pause : 75 + pause] - 1).max() < 0.2 and opened == ["slow"]
    assert [request.speaker for request, _ in own.asked] == ["bert", "anna", "bert"]
    assert [(r.speaker, r.speed, r.steps) for r, _ in other.asked] == [("low", 2.0, None)]
    for lost, named in [("[voice:gone]One.[/voice]", "no voice gone"), ("[voice:slow@high]One.[/voice]", "'high'")]:
        [failed] = voices.synthesize([SynthesisRequest(text=lost)])
        assert isinstance(failed, SynthesisFailure) and named in failed.reason


PIECES = [
    "One.",
    "Two",
    ", ",
    " ",
    "\n\n",
    "[pause:1s]",
    "[rate:2]x[/rate]",
    "“No,” he said.",
    "[sub:a b]C[/sub]",
    "…",
    "Éé!",
]
MARKED = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)


@settings(max_examples=60, deadline=None)
@given(text=MARKED)
def test_no_word_is_lost_or_doubled_between_marks_and_plans_travel(text: str) -> None:
    try:
        plan = plan_text(SynthesisRequest(text=text), build({"name": "bytes"}))
    except TextError:
        plan = TextPlan(())
    request = SynthesisRequest(text=text)
    heard = "".join(u.text_of(request) for u in plan.utterances)
    letters = [c for c in read_marks(text).text if c.isalnum()]
    assert [c for c in heard if c.isalnum()] == letters
    assert all(one.end <= other.start for one, other in zip(plan.utterances, plan.utterances[1:], strict=False))
    arrived = unpack_plan(pack_plan(plan), text)
    assert [(u.before_s, u.pause_s, u.held, u.manner, u.said) for u in arrived.utterances] == [
        (u.before_s, u.pause_s, u.held, u.manner, u.said) for u in plan.utterances
    ]


def test_no_sentence_ends_within_a_mark() -> None:
    text = "He met [sub:Saint John. The Baptist]St. J.[/sub] there. [pause:1s] Then he left."
    assert [text[a:b] for a, b in split_paragraph(text)] == [
        "He met [sub:Saint John. The Baptist]St. J.[/sub] there.", "Then he left."
    ]  # fmt: skip
