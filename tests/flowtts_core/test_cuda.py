"""The bundled voice on a GPU: what holds on a CPU holds there too."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flowtts_core.engines.base import Speech
from flowtts_core.engines.flow import FlowSynthesizer
from flowtts_core.request import SynthesisRequest
from flowtts_core.streaming.engine import StreamingEngine

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


def test_the_streaming_engine_says_the_same_whoever_listens_beside(voice: FlowSynthesizer) -> None:
    engine = StreamingEngine(voice)
    alone = [engine.submit(SynthesisRequest(text=text, seed=i)).speech() for i, text in enumerate(TEXTS)]
    tickets = [engine.submit(SynthesisRequest(text=text, seed=i)) for i, text in enumerate(TEXTS)]
    for ticket, expected in zip(tickets, alone, strict=True):
        close(ticket.speech().waveform, expected.waveform)
    engine.close()


def test_new_weights_are_taken_note_of(voice: FlowSynthesizer, singles: list[Speech]) -> None:
    """The encoder's copy in float64 and convolutions' taps follow the weights they were made from."""
    bias = voice.voice.acoustic.encoder.proj_w.proj.bias
    with torch.no_grad():
        bias.add_(0.7)
        slower = speak(voice, [SynthesisRequest(text=TEXTS[0], seed=0)])[0]
        bias.sub_(0.7)
    assert slower.seconds > 1.5 * singles[0].seconds
    close(speak(voice, [SynthesisRequest(text=TEXTS[0], seed=0)])[0].waveform, singles[0].waveform)
