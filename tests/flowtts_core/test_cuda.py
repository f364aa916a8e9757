"""The bundled voice on a GPU: what holds on a CPU holds there too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from flowtts_core.engines.base import Speech
from flowtts_core.engines.flow import FlowSynthesizer
from flowtts_core.request import SynthesisRequest
from flowtts_core.streaming.engine import StreamingEngine
from flowtts_core.voice import open_voice
from tests.speech_like import babble_clip
from tests.standins import make_character_voice

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use")
TEXTS = (
    "The rain has stopped.",
    "Nobody was at home, and the door stood open; so we went in and waited until the evening.",
    "What a strange old clock!",
    "It is a quarter past nine. The train was late again, she said, and put the kettle on without another word.",
)


@pytest.fixture(scope="module")
def voice() -> FlowSynthesizer:
    return FlowSynthesizer.load(device="cuda")


@pytest.fixture(scope="module")
def singles(voice: FlowSynthesizer) -> list[Speech]:
    return [spoken for i, text in enumerate(TEXTS) for spoken in speak(voice, [SynthesisRequest(text=text, seed=i)])]


def speak(voice: FlowSynthesizer, requests: list[SynthesisRequest]) -> list[Speech]:
    spoken = [result for result in voice.synthesize(requests) if isinstance(result, Speech)]
    assert len(spoken) == len(requests)
    return spoken


def close(found: np.ndarray, expected: np.ndarray, most: float = 2e-4) -> None:
    assert found.shape == expected.shape
    assert np.abs(expected).max() > 0.05
    assert np.abs(found - expected).max() < most


@pytest.mark.parametrize("tokens", [None, 100])
def test_a_batch_is_its_singles(voice: FlowSynthesizer, singles: list[Speech], tokens: int | None) -> None:
    batched = FlowSynthesizer(voice.voice, tokens_per_batch=tokens)
    assert batched.device.type == "cuda"
    for found, expected in zip(
        speak(batched, [SynthesisRequest(text=t, seed=i) for i, t in enumerate(TEXTS)]), singles, strict=True
    ):
        close(found.waveform, expected.waveform)
        assert found.words == expected.words


def test_it_says_what_a_cpu_says(singles: list[Speech]) -> None:
    cpu = FlowSynthesizer.load(device="cpu")
    for found, expected in zip(
        singles, speak(cpu, [SynthesisRequest(text=t, seed=i) for i, t in enumerate(TEXTS)]), strict=True
    ):
        close(found.waveform, expected.waveform)


@pytest.mark.parametrize("stream", [True, False])
def test_the_streaming_engine_says_the_same_whoever_listens_beside(
    voice: FlowSynthesizer, singles: list[Speech], stream: bool
) -> None:
    engine = StreamingEngine(voice)
    tickets = [engine.submit(SynthesisRequest(text=text, seed=i), stream=stream) for i, text in enumerate(TEXTS)]
    for ticket, expected in zip(tickets, singles, strict=True):
        found = ticket.speech()
        close(found.waveform, expected.waveform)
        assert [(w.word, w.start) for w in found.words or ()] == [(w.word, w.start) for w in expected.words or ()]
    engine.close()


def test_voices_of_other_kinds_speak_there(tmp_path: Path) -> None:
    """The front end, the prompt's clip and the noise are made on the CPU, whatever the device."""
    clip = babble_clip(1.2)
    requests = [SynthesisRequest(text=text, prompt=clip, prompt_text="A tone.") for text in TEXTS]
    folder = make_character_voice(tmp_path / "cara", prompted="required")
    found, expected = (open_voice(folder, device=device).synthesize(requests) for device in ("cuda", "cpu"))
    for one, other in zip(found, expected, strict=True):
        assert isinstance(one, Speech) and isinstance(other, Speech)
        np.testing.assert_allclose(one.waveform, other.waveform, atol=2e-4)


def test_new_weights_are_taken_note_of(voice: FlowSynthesizer, singles: list[Speech]) -> None:
    """What convolutions keep of their weights follows them."""
    bias = voice.voice.acoustic.get_parameter("encoder.proj_w.proj.bias")
    with torch.no_grad():
        bias.add_(0.7)
        slower = speak(voice, [SynthesisRequest(text=TEXTS[0], seed=0)])[0]
        bias.sub_(0.7)
    assert slower.seconds > 1.5 * singles[0].seconds
    close(speak(voice, [SynthesisRequest(text=TEXTS[0], seed=0)])[0].waveform, singles[0].waveform)
