"""Flow voices: settings of requests are kept apart, failures stay alone, prompts are heard. See also the engines' contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flowtts_core.acoustic import Condition, Generated
from flowtts_core.audio.files import encode
from flowtts_core.engines.base import Speech, SynthesisFailure
from flowtts_core.engines.flow import FlowSynthesizer
from flowtts_core.request import PromptClip, SynthesisRequest
from flowtts_core.sampling import Sampling
from flowtts_core.voice.parts import load_parts
from tests.speech_like import babble_clip
from tests.standins import make_character_voice
from tests.voices import make_voice

TEXTS = [
    "Yes.",
    "The quick brown fox jumps over the lazy dog.",
    "In 1984, Mr. Smith paid $3.50 for it; nobody knew why.",
    "A rather long sentence, which goes on for a while, turns back, hesitates, and then, at last, comes to its end.",
]


@pytest.fixture(scope="module")
def synthesizer(tmp_path_factory: pytest.TempPathFactory) -> FlowSynthesizer:
    return FlowSynthesizer.load(make_voice(tmp_path_factory.mktemp("voices") / "amy"))


def speech(result: Speech | SynthesisFailure) -> Speech:
    assert isinstance(result, Speech), result
    return result


def test_settings_of_requests_are_kept_apart(synthesizer: FlowSynthesizer) -> None:
    text = TEXTS[1]
    requests = [
        SynthesisRequest(text=text, seed=1),
        SynthesisRequest(text=text, seed=2),
        SynthesisRequest(text=text, seed=1, speed=1.5),
    ]
    one, other_seed, faster = (speech(r) for r in synthesizer.synthesize(requests))
    assert one.waveform.shape == other_seed.waveform.shape and np.abs(one.waveform - other_seed.waveform).max() > 1e-3
    assert faster.seconds < 0.8 * one.seconds
    prior = speech(synthesizer.synthesize([SynthesisRequest(text=text, seed=1, steps=0)])[0])
    assert prior.waveform.shape == one.waveform.shape and np.abs(prior.waveform - one.waveform).max() > 1e-3


@pytest.mark.parametrize(
    "bad",
    [
        SynthesisRequest(text=""),
        SynthesisRequest(text="日本語"),
        SynthesisRequest(text="\x00\ud800"),
        SynthesisRequest(text="Hello.", speed=float("nan")),
        SynthesisRequest(text="Hello.", speed=99.0),
        SynthesisRequest(text="Hello.", steps=-1),
        SynthesisRequest(text="Hello.", temperature=float("inf")),
        SynthesisRequest(text="Hello.", temperature="hot"),
        SynthesisRequest(text="Hello.", speaker="Nobody"),
        SynthesisRequest(text="Hello.", language="de"),
        SynthesisRequest(text="Hello.", grid="zigzag"),
        SynthesisRequest(text="Hello.", grid="straightness"),  # which a name alone does not tell
        SynthesisRequest(text="Hello.", guidance=1.0),
        SynthesisRequest(text="Hello.", seed=2**64),
        SynthesisRequest(text="Hello.", seed=0.5),
        SynthesisRequest(text="Hello.", steps=2.5),
        SynthesisRequest(text="Hello.", speed="2"),
        SynthesisRequest(text=None),
    ],
)
def test_a_bad_request_harms_no_other(synthesizer: FlowSynthesizer, bad: SynthesisRequest) -> None:
    good = SynthesisRequest(text="Good morning.")
    first, failed, last = synthesizer.synthesize([good, bad, good])
    assert isinstance(failed, SynthesisFailure) and failed.reason
    np.testing.assert_allclose(speech(first).waveform, speech(last).waveform, atol=1e-4)


def test_numbers_of_numpy_are_numbers(synthesizer: FlowSynthesizer) -> None:
    plain = SynthesisRequest(text=TEXTS[0], seed=3, speed=1.5, steps=2)
    numpy = SynthesisRequest(text=TEXTS[0], seed=np.int64(3), speed=np.float32(1.5), steps=np.int32(2))
    first, second = (speech(r) for r in synthesizer.synthesize([plain, numpy]))
    np.testing.assert_allclose(first.waveform, second.waveform, atol=1e-4)


def test_speed_is_checked_together_with_the_voices_own(synthesizer: FlowSynthesizer) -> None:
    voice = synthesizer.voice
    fast = FlowSynthesizer(replace(voice, card=replace(voice.card, sampling=Sampling(speed=4.0))))
    good, failed = fast.synthesize([SynthesisRequest(text="Hello."), SynthesisRequest(text="Hello.", speed=4.0)])
    assert isinstance(good, Speech) and isinstance(failed, SynthesisFailure)
    assert "4.0 times the voice's own 4.0" in failed.reason


def test_what_the_model_cannot_speak_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthesizer = FlowSynthesizer.load(make_voice(tmp_path / "amy"))
    acoustic = synthesizer.voice.acoustic
    requests = [SynthesisRequest(text=text, seed=i) for i, text in enumerate(["Hello.", "A zebra.", "Good morning."])]
    expected = synthesizer.synthesize(requests)
    zed = set(synthesizer.frontend.encode("Zoo.").tokens) - set(synthesizer.frontend.encode("Who.").tokens)
    with torch.no_grad():
        acoustic.runners = {}
        acoustic.encoder.emb.weight[list(zed)] = float("nan")  # so are the durations of a text with this sound
    for results in (synthesizer.synthesize(requests), synthesizer.synthesize(requests[1:2]) * 3):
        assert isinstance(results[1], SynthesisFailure) and "nan frames" in results[1].reason
    results = synthesizer.synthesize(requests)
    for i in (0, 2):
        np.testing.assert_allclose(speech(results[i]).waveform, speech(expected[i]).waveform, atol=1e-4)
    generate = acoustic.generate

    def unlucky(condition, seeds, settings):
        if 2 in seeds:
            raise ZeroDivisionError("seed 2")
        return generate(condition, seeds, settings)

    monkeypatch.setattr(acoustic, "generate", unlucky)
    first, _, last = synthesizer.synthesize(requests)
    assert isinstance(first, Speech) and last == SynthesisFailure("ZeroDivisionError: seed 2")


def test_runs_where_the_voice_is_and_without_tf32(tmp_path: Path) -> None:
    synthesizer = FlowSynthesizer(load_parts(make_voice(tmp_path / "amy"), "meta"))
    assert synthesizer.device.type == "meta"
    synthesizer.device = torch.device("cuda")
    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.enabled
    with synthesizer.exact_convolutions():
        assert not torch.backends.cudnn.allow_tf32 and torch.backends.cudnn.enabled == before[1]
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.enabled) == before


def test_a_text_without_a_stop_is_spoken_whole(synthesizer: FlowSynthesizer) -> None:
    text = "word after word without any stop " * 60
    result = speech(synthesizer.synthesize([SynthesisRequest(text=text)])[0])
    assert [w.word for w in result.words] == text.split()
    assert result.words[-1].end_s <= result.seconds + 1e-6


def test_speakers(tmp_path: Path) -> None:
    synthesizer = FlowSynthesizer.load(make_voice(tmp_path / "two", n_speakers=2))
    requests = [SynthesisRequest(text="Hello there.", speaker=f"speaker-{i}") for i in range(2)]
    first, second = (speech(r) for r in synthesizer.synthesize(requests))
    assert first.waveform.shape != second.waveform.shape or np.abs(first.waveform - second.waveform).max() > 1e-4


def test_running_out_of_memory_is_no_fault_of_a_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A batch that does not fit is spoken in pieces; where a single one does not, the caller is told."""
    synthesizer = FlowSynthesizer.load(make_voice(tmp_path / "amy"))
    requests = [SynthesisRequest(text="One."), SynthesisRequest(text="Two.")]
    generate, room = synthesizer.voice.acoustic.generate, 1

    def small(condition: Condition, seeds: Sequence[int], settings: Sampling) -> Generated:
        if len(seeds) > room:
            raise torch.OutOfMemoryError("no room")
        return generate(condition, seeds, settings)

    monkeypatch.setattr(synthesizer.voice.acoustic, "generate", small)
    assert all(isinstance(result, Speech) for result in synthesizer.synthesize(requests))
    room = 0
    with pytest.raises(torch.OutOfMemoryError):
        synthesizer.synthesize(requests)


def test_batches_hold_to_their_budget_and_change_nothing(synthesizer: FlowSynthesizer) -> None:
    requests = [SynthesisRequest(text=text, seed=i) for i, text in enumerate(TEXTS)]
    expected, (tokens, padded) = synthesizer.synthesize(requests), synthesizer.last_tokens
    assert tokens == padded, "a CPU pads nothing"
    apart = FlowSynthesizer(synthesizer.voice, tokens_per_batch=1)
    for one, other in zip(apart.synthesize(requests), expected, strict=True):
        np.testing.assert_allclose(speech(one).waveform, speech(other).waveform, atol=1e-4)
    assert apart.last_tokens == (tokens, tokens)


# --- guidance and prompts ---------------------------------------------------------------------------------------------


def a_clip(pitch: float, seconds: float = 1.1, rate: int = 16000) -> PromptClip:
    return babble_clip(seconds, pitch, rate)


@pytest.fixture(scope="module")
def prompted(tmp_path_factory: pytest.TempPathFactory) -> FlowSynthesizer:
    return FlowSynthesizer.load(make_character_voice(tmp_path_factory.mktemp("voices") / "cara"))


def differ(one: Speech, other: Speech) -> bool:
    return one.waveform.shape != other.waveform.shape or bool(np.abs(one.waveform - other.waveform).max() > 1e-4)


def test_a_prompt_and_what_is_said_in_it_are_heard(prompted: FlowSynthesizer) -> None:
    """In one batch with requests that have none, each as if it were alone."""
    plain = SynthesisRequest(text="Hello there.")
    low = replace(plain, prompt=a_clip(120), prompt_text="A tone.")
    requests = [low, plain, replace(low, prompt=a_clip(220, 1.4)), replace(low, prompt_text="Another tone."), low]
    together = [speech(result) for result in prompted.synthesize(requests)]
    assert not differ(together[0], together[-1])
    assert all(differ(together[0], other) for other in together[1:-1])
    for request, one in zip(requests, together, strict=True):
        assert not differ(one, speech(prompted.synthesize([request])[0]))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"prompt": a_clip(120)}, "needs its prompt_text"),
        ({"prompt_text": "A tone."}, "needs its prompt_text"),
        ({"prompt": PromptClip(b"not audio"), "prompt_text": "A tone."}, "audio"),
        ({"prompt": a_clip(120), "prompt_text": "日本語"}, "can be spoken"),
        ({"prompt": PromptClip(encode(np.zeros(32000, np.float32), 16000)), "prompt_text": "A tone."}, "silent"),
        ({"prompt": a_clip(120), "prompt_text": "A tone. " * 10}, "too long"),
        ({"prompt": a_clip(120, 20), "prompt_text": "A tone. " * 40}, "its text is of all"),
        ({"prompt": "tone.wav", "prompt_text": "A tone."}, "use a clip"),
    ],
)
def test_a_prompt_that_cannot_be_used_fails_alone(
    prompted: FlowSynthesizer, given: dict[str, Any], reason: str
) -> None:
    good = SynthesisRequest(text="Hello there.", prompt=a_clip(120), prompt_text="A tone.")
    plain = SynthesisRequest(text="Hello there.")
    first, failed, last = prompted.synthesize([good, replace(plain, **given), good])
    assert isinstance(failed, SynthesisFailure) and reason in failed.reason
    assert not differ(speech(first), speech(last))


def test_a_voice_that_imitates_asks_for_a_clip(tmp_path: Path, synthesizer: FlowSynthesizer) -> None:
    imitating = FlowSynthesizer.load(make_character_voice(tmp_path / "echo", prompted="required"))
    assert imitating.voice.card.prompt == "required"
    [failed] = imitating.synthesize([SynthesisRequest(text="Hello.")])
    assert isinstance(failed, SynthesisFailure) and "give a prompt" in failed.reason
    [refused] = synthesizer.synthesize([SynthesisRequest(text="Hello.", prompt=a_clip(120), prompt_text="A tone.")])
    assert isinstance(refused, SynthesisFailure) and "prompt = a clip: voice amy has no such setting" in refused.reason


def test_guidance_of_request_and_card(prompted: FlowSynthesizer) -> None:
    request = SynthesisRequest(text="Hello there.")
    own, same, other = (
        speech(r)
        for r in prompted.synthesize([request, replace(request, guidance=1.0), replace(request, guidance=4.0)])
    )
    assert prompted.voice.card.sampling.guidance == 1.0
    assert not differ(own, same) and differ(own, other)
    grids = [speech(r) for r in prompted.synthesize([replace(request, grid=grid) for grid in ("uniform", "sway")])]
    assert not differ(own, grids[0]) and differ(own, grids[1])
