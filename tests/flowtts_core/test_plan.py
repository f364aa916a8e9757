"""The cut of a request's text: in order, whole, with one rule for seeds and one for pauses."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtts_core.errors import TextError
from flowtts_core.request import SynthesisRequest
from flowtts_core.seeds import hash_seed
from flowtts_core.text.frontends import EncodedText, Frontend, PhonemeFrontend, build
from flowtts_core.text.plan import MAX_TOKENS, TextPlan, Utterances, pack_plan, plan_text, unpack_plan
from flowtts_core.text.sentences import split_sentences

FRONTENDS = {
    "phonemes": PhonemeFrontend(),
    "characters": build({"name": "characters"}),
    "bytes": build({"name": "bytes"}),
}
LONG = "and then the boat went on, down the river, " * 12
TEXTS = st.lists(
    st.sampled_from(
        [
            "It rained.",
            "Come in!",
            "* * *",
            "\n\n",
            "日本語。",
            "Why?",
            '"No," he said.',
            " ",
            "…",
            "東 gate.",
            LONG,
            "\ud800",
        ]
    ),
    max_size=8,
).map(" ".join)


def plan_of(text: str, frontend: Frontend | None, seed: int = 0) -> TextPlan:
    try:
        return plan_text(SynthesisRequest(text=text, seed=seed), frontend)
    except TextError:
        return TextPlan(())


@settings(max_examples=40, deadline=None)
@given(text=TEXTS, name=st.sampled_from([*FRONTENDS, None]), seed=st.integers(-(2**63), 2**63 - 1))
def test_utterances_lie_in_order_and_cover_all_that_can_be_spoken(text: str, name: str | None, seed: int) -> None:
    frontend = None if name is None else FRONTENDS[name]
    plan = plan_of(text, frontend, seed)
    places = [(u.start, u.end) for u in plan.utterances]
    assert places == sorted(places) and all(0 <= start < end <= len(text) for start, end in places)
    assert all(one[1] <= other[0] for one, other in zip(places, places[1:], strict=False))
    left = list(plan.utterances)
    for sentence in split_sentences(text):
        own = [u for u in left if sentence.start <= u.start and u.end <= sentence.end]
        left = left[len(own) :]
        spoken, whole = "".join(text[u.start : u.end] for u in own), text[sentence.start : sentence.end]
        if frontend is None:
            assert spoken == whole
        elif not own:
            assert sentence.text in plan.dropped or not plan.utterances
            with pytest.raises(TextError):
                frontend.encode(whole)
        elif len(own) == 1:
            assert spoken == whole or len(frontend.encode(whole).tokens) > MAX_TOKENS
        assert [u.seed for u in own] == [seed if k == 0 else hash_seed(seed, k) for k in range(len(own))]
        assert all(u.pause_s == 0 for u in own[:-1]) and (not own or own[-1].pause_s == sentence.pause_s)
        for u in own:
            assert (u.encoded is None) == (frontend is None)
            if frontend is not None and u.encoded is not None:
                assert u.encoded == frontend.encode(text[u.start : u.end])
                assert len(u.encoded.tokens) <= MAX_TOKENS
    assert left == []


@settings(max_examples=40, deadline=None)
@given(text=TEXTS, name=st.sampled_from(sorted(FRONTENDS)))
def test_a_plan_travels(text: str, name: str) -> None:
    text = text.replace("\ud800", "")  # no process can be told of half a character
    plan = plan_of(text, FRONTENDS[name], 5)

    def bare(encoded: EncodedText | None) -> EncodedText:
        assert encoded is not None
        return replace(encoded, spans=(), dropped=())

    arrived = unpack_plan(pack_plan(plan), text)
    assert arrived == replace(plan, utterances=tuple(replace(u, encoded=bare(u.encoded)) for u in plan.utterances))


def test_a_long_sentence_is_parted_at_clauses_and_loses_no_word() -> None:
    frontend = FRONTENDS["phonemes"]
    plan = plan_of(LONG + "home.", frontend, 7)
    assert len(plan.utterances) > 2
    parts = [(LONG + "home.")[u.start : u.end] for u in plan.utterances]
    assert "".join(parts) == LONG + "home." and all(part.rstrip().endswith((",", ".")) for part in parts)
    assert len({u.seed for u in plan.utterances}) == len(parts) and plan.utterances[0].seed == 7


def test_sentences_share_the_requests_seed_and_pauses_are_those_of_the_text() -> None:
    plan = plan_of("One. Two!\n\nThree.", FRONTENDS["characters"], 3)
    assert [u.seed for u in plan.utterances] == [3, 3, 3]
    sentence, paragraph, _ = (u.pause_s for u in plan.utterances)
    assert 0 < sentence < paragraph


def test_pauses_do_not_depend_on_the_speed() -> None:
    slow, fast = (
        plan_text(SynthesisRequest(text="One. Two.", speed=speed), FRONTENDS["characters"]) for speed in (0.5, 2.0)
    )
    assert slow == fast


@pytest.mark.parametrize("text", ["", " \n", "日本語。", "日本語。\n\n* * *"])
def test_a_text_of_which_nothing_can_be_spoken_is_refused(text: str) -> None:
    with pytest.raises(TextError):
        plan_text(SynthesisRequest(text=text), FRONTENDS["phonemes"])


def test_what_cannot_be_spoken_is_listed() -> None:
    plan = plan_of("Tokyo ∮ is large. 日本語。 😀 And so on.", FRONTENDS["phonemes"])
    assert len(plan.utterances) == 2
    assert {"∮", "日本語。", "😀"} <= set(plan.dropped)


def test_utterances_are_read_as_they_are_asked_for() -> None:
    class Counting(Frontend):
        n_symbols = 257
        texts: list[str] = []

        def encode(self, text: str) -> EncodedText:
            self.texts.append(text)
            return FRONTENDS["bytes"].encode(text)

        def load(self) -> None: ...

    reading = iter(Utterances(SynthesisRequest(text="One. Two. Three."), Counting()))
    assert Counting.texts == []
    assert next(reading).end == 4 and Counting.texts == ["One."]
    assert [u.start for u in reading] == [5, 10]
