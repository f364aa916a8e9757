"""What every engine must hold, whatever it is made of: its results depend on their requests alone, streamed or whole."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flowtts_core.engines.base import Speech, SynthesisFailure, UtteranceSynthesizer
from flowtts_core.engines.flite import flite_card
from flowtts_core.engines.hibari import import_hibari
from flowtts_core.engines.table import ENGINES
from flowtts_core.engines.tiny import save_tiny
from flowtts_core.errors import FlowTTSError
from flowtts_core.request import SynthesisRequest
from flowtts_core.streaming.engine import StreamingEngine, join
from flowtts_core.tiny.model import TinyConfig, TinyModel
from flowtts_core.voice import load_card, open_voice
from flowtts_core.voice.card import write_card
from flowtts_core.voice.clone import save_clone
from flowtts_core.voice.cloning import PreparedReference
from tests.onnx_graphs import make_kokoro_voice, make_piper_voice
from tests.speech_like import babble_clip
from tests.standins import OpenVoice, make_character_voice, make_fake_voice, make_flite_program
from tests.voices import make_f5_voice, make_token_voice, make_voice

WORDS = [
    "Yes.",
    "The rain has stopped. Nobody was at home, and the door stood open!\n\nWhat now?",
    "A rather long sentence, which goes on, and then comes to its end.",
    "Good morning.",
]


def make_tiny(folder: Path) -> Path:
    torch.manual_seed(0)
    save_tiny(folder, TinyModel(TinyConfig(("a", "i"), 2000, 500, 4, 8)))
    return folder


def make_hibari(folder: Path) -> Path:
    import_hibari(Path(str(files("hibari") / "assets" / "hibari.onnx")), folder)
    return folder


def make_flite(folder: Path) -> Path:
    folder.mkdir()
    write_card(folder, flite_card("flite:rms"))
    return folder


def make_clone(folder: Path) -> Path:
    base = make_character_voice(folder.parent / "imitating", prompted="required")
    prepared = PreparedReference(babble_clip(1.2), "A tone.", 1.2)
    told = prepared.provenance("tone.wav", "")
    return save_clone("tone", base, {"": prepared, "low": prepared}, {"": told, "low": told}, folder)[0]


@dataclass(frozen=True)
class Case:
    """A kind of voice: how one is made, what it can say, and a setting that it does not have."""

    make: Callable[[Path], Path]
    refused: dict[str, Any]
    texts: list[str] = field(default_factory=lambda: WORDS)
    timed: bool = False  # whether it knows when words are spoken
    seeded: bool = True  # whether another seed gives another sound
    settings: dict[str, Any] = field(default_factory=dict)  # of every request

    def requests(self) -> list[SynthesisRequest]:
        return [SynthesisRequest(text=text, seed=i, **self.settings) for i, text in enumerate(self.texts)]


PROMPT = {"prompt": babble_clip(1.2), "prompt_text": "A tone."}
SEVERAL = partial(make_voice, n_speakers=2)
CASES = {
    "flow": Case(make_voice, {"guidance": 1.0}, timed=True),
    "flow with speakers": Case(
        SEVERAL, {"speaker": "nobody"}, timed=True, settings={"speaker": "speaker-1", "steps": 2}
    ),
    "characters": Case(make_character_voice, {"speaker": "low"}),
    "characters with a prompt": Case(
        partial(make_character_voice, prompted="required"), {"prompt": None}, settings=PROMPT
    ),
    "f5": Case(make_f5_voice, {"prompt": None}, settings=PROMPT),
    "tokens": Case(make_token_voice, {"prompt": None}, settings=PROMPT),
    "tiny": Case(make_tiny, {"speed": 2.0}, ["a i", "i", "a a i", "i a"]),
    "piper": Case(make_piper_voice, {"steps": 3}, timed=True),
    "piper without durations": Case(partial(make_piper_voice, timed=False), {"steps": 3}, timed=True),
    "piper with speakers": Case(
        partial(make_piper_voice, speakers=3), {"language": "de"}, timed=True, settings={"speaker": "speaker-2"}
    ),
    "kokoro": Case(
        make_kokoro_voice,
        {"temperature": 1.0},
        timed=True,
        seeded=False,
        settings={"speaker": "af_heart*0.6+bm_george*0.4"},
    ),
    "hibari": Case(make_hibari, {"speaker": "heart"}, timed=True),
    "flite": Case(make_flite, {"temperature": 1.0}, timed=True, seeded=False, settings={"speed": 2.0}),
    "clone": Case(make_clone, {"prompt": babble_clip(1.2)}, settings={"style": "low"}),
    "fake": Case(make_fake_voice, {"steps": 3}, settings={"speaker": "high", "speed": 1.5}),
}


def test_every_kind_is_tried(cases: dict[str, Path]) -> None:
    assert {load_card(folder).kind for folder in cases.values()} == set(ENGINES)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    root = tmp_path_factory.mktemp("voices")
    with pytest.MonkeyPatch.context() as patch:
        if shutil.which("flite") is None:
            patch.setenv("PATH", f"{make_flite_program(root / 'bin')}{os.pathsep}{os.environ['PATH']}")
        yield {name: case.make(root / name.replace(" ", "-")) for name, case in CASES.items()}


@pytest.fixture(params=CASES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def case(name: str) -> Case:
    return CASES[name]


@pytest.fixture
def voice(cases: dict[str, Path], name: str) -> UtteranceSynthesizer:
    return open_voice(cases[name])


@pytest.fixture
def engine(voice: UtteranceSynthesizer) -> Iterator[StreamingEngine]:
    engine = StreamingEngine(voice, threads=1)
    yield engine
    engine.close()


def spoken(result: Speech | SynthesisFailure) -> Speech:
    assert isinstance(result, Speech), result
    return result


def same(one: Speech, other: Speech) -> None:
    assert one.waveform.shape == other.waveform.shape and one.sample_rate == other.sample_rate
    np.testing.assert_allclose(one.waveform, other.waveform, atol=1e-4)
    assert (one.words is None) == (other.words is None)
    for word, twin in zip(one.words or (), other.words or (), strict=True):
        assert (word.word, word.start, word.end) == (twin.word, twin.start, twin.end)
        assert (word.start_s, word.end_s) == pytest.approx((twin.start_s, twin.end_s), abs=1e-4)


def test_results_are_sound(voice: UtteranceSynthesizer, case: Case) -> None:
    for request, result in zip(case.requests(), voice.synthesize(case.requests()), strict=True):
        speech = spoken(result)
        assert speech.sample_rate == voice.sample_rate
        assert speech.waveform.dtype == np.float32 and speech.waveform.ndim == 1
        assert np.isfinite(speech.waveform).all() and 0 < np.abs(speech.waveform).max() <= 1
        if not case.timed:
            assert speech.words is None
            continue
        assert speech.words
        assert all(request.text[w.start : w.end] == w.word for w in speech.words)
        times = [t for word in speech.words for t in (word.start_s, word.end_s)]
        assert times == sorted(times) and times[-1] <= speech.seconds + 1e-6


def test_a_batch_in_any_order_equals_its_singles(voice: UtteranceSynthesizer, case: Case) -> None:
    requests = case.requests()
    singles = [spoken(voice.synthesize([request])[0]) for request in requests]
    for order in (range(len(requests)), [2, 0, 3, 1]):
        together = voice.synthesize([requests[i] for i in order])
        for i, result in zip(order, together, strict=True):
            same(spoken(result), singles[i])


def test_plans_made_elsewhere_give_the_same(voice: UtteranceSynthesizer, case: Case) -> None:
    requests = case.requests()
    plans = [voice.plan(request) for request in requests]
    for one, other in zip(voice.synthesize(requests, plans), voice.synthesize(requests), strict=True):
        same(spoken(one), spoken(other))


def test_another_seed_another_sound_and_the_same_the_same(voice: UtteranceSynthesizer, case: Case) -> None:
    request = case.requests()[0]
    first, again, other = (spoken(voice.synthesize([replace(request, seed=seed)])[0]).waveform for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert (first.shape != other.shape or np.abs(first - other).max() > 1e-4) == case.seeded


@pytest.mark.parametrize("stream", [True, False])
def test_streamed_equals_whole(engine: StreamingEngine, voice: UtteranceSynthesizer, case: Case, stream: bool) -> None:
    tickets = [engine.submit(request, stream=stream) for request in case.requests()]
    for ticket, result in zip(tickets, voice.synthesize(case.requests()), strict=True):
        chunks = list(ticket.chunks())
        assert [chunk.last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
        same(join(chunks), spoken(result))


def test_what_a_listener_has_is_not_made_again(engine: StreamingEngine, case: Case) -> None:
    request = replace(case.requests()[1], text="\n\n".join(case.texts))
    whole = list(engine.submit(request).chunks())
    samples = np.concatenate([chunk.waveform for chunk in whole])
    words = [word for chunk in whole for word in chunk.words or ()]
    for skip in range(0, len(samples) + 1, len(samples) // 6):
        rest = list(engine.submit(request, skip=skip).chunks())
        gone = sum(chunk.skipped for chunk in rest)
        assert gone <= skip
        np.testing.assert_allclose(np.concatenate([chunk.waveform for chunk in rest]), samples[gone:], atol=1e-4)
        left = [word for chunk in rest for word in chunk.words or ()]
        kept = words[sum(chunk.skipped_words for chunk in rest) :]
        assert [(w.word, w.start) for w in left] == [(w.word, w.start) for w in kept]


@pytest.mark.parametrize(
    "bad",
    [{"text": ""}, {"text": "\n \n"}, {"text": None}, {"seed": 2**64}, {"speed": float("nan")}, {"language": "xx"}],
)
def test_a_bad_request_harms_no_other(
    voice: UtteranceSynthesizer, engine: StreamingEngine, case: Case, bad: dict[str, Any]
) -> None:
    good = case.requests()[0]
    wrong = replace(good, **bad)
    first, failed, last = voice.synthesize([good, wrong, good])
    assert isinstance(failed, SynthesisFailure) and failed.reason
    same(spoken(first), spoken(last))
    with pytest.raises(FlowTTSError):
        engine.submit(wrong)
    same(engine.submit(good).speech(), spoken(first))


def test_a_setting_that_it_does_not_have_is_refused(voice: UtteranceSynthesizer, case: Case) -> None:
    [failed] = voice.synthesize([replace(case.requests()[0], **case.refused)])
    assert isinstance(failed, SynthesisFailure) and next(iter(case.refused)) in failed.reason


def test_an_engine_is_made_where_a_maker_arrives(
    cases: dict[str, Path], name: str, case: Case, voice: UtteranceSynthesizer
) -> None:
    arrived: UtteranceSynthesizer = pickle.loads(pickle.dumps(OpenVoice(str(cases[name]))))()
    assert arrived.fingerprint == voice.fingerprint == load_card(cases[name]).fingerprint
    same(*(spoken(v.synthesize(case.requests()[:1])[0]) for v in (arrived, voice)))
