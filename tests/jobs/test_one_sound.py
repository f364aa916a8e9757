"""One text, voice and seed have one sound: in the library, by `say`, as a row, in a book, served whole and streamed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from fastapi.testclient import TestClient

from cluster.storage import Storage
from deploy.api import create_app
from deploy.front import Front
from deploy.replica import HostedVoice
from deploy.settings import Settings, served_voices
from deploy.speech import Refusal, SoundPiece, SpeechJob
from flowtts_core.audio.files import read_audio, to_int16
from flowtts_core.engines.base import Speech, Streamable, UtteranceSynthesizer
from flowtts_core.request import SynthesisRequest
from flowtts_core.streaming.engine import StreamingEngine
from flowtts_core.voice import bundled_voices, open_voice
from flowtts_core.watermark.marking import Marking
from jobs import cli
from jobs.synthesis import job as synthesis_job
from jobs.synthesis.manifest import read_manifest, read_shard
from jobs.synthesize import synthesize
from tests.fake_engine import speak_inline

TEXT = "The rain has stopped. Nobody was at home, and the door stood open, so we went in and waited. What a strange old clock!"
SEED = 7


@pytest.fixture(scope="module", params=bundled_voices())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def voice(name: str) -> UtteranceSynthesizer:
    return open_voice(name, threads=1)


@pytest.fixture(scope="module")
def library(voice: UtteranceSynthesizer) -> Speech:
    return whole(voice, TEXT, SEED)


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthesis_job, "speak_shards", speak_inline)


def marked(speech: Speech) -> Speech:
    """What commands, jobs and the server make of the library's sound."""
    return Marking().speech(speech)


def whole(voice: UtteranceSynthesizer, text: str, seed: int) -> Speech:
    [speech] = voice.synthesize([SynthesisRequest(text=text, seed=seed)])
    assert isinstance(speech, Speech) and np.abs(speech.waveform).max() > 0.05
    return speech


def in_steps(data: bytes | Path) -> np.ndarray:
    """An encoded sound as steps of 16 bits."""
    return to_int16(read_audio(data)[0]).astype(int)


def same_file(data: bytes | Path, expected: Speech) -> None:
    found, wanted = in_steps(data), to_int16(expected.waveform).astype(int)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= 1


def test_say_gives_the_librarys_sound(tmp_path: Path, name: str, library: Speech) -> None:
    assert cli.main(["say", TEXT, "--voice", name, "--seed", str(SEED), "-o", str(tmp_path / "x.flac")]) == 0
    same_file(tmp_path / "x.flac", marked(library))


@pytest.mark.usefixtures("inline")
def test_a_row_gives_the_librarys_sound(tmp_path: Path, name: str, library: Speech) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        json.dumps({"id": "a", "text": TEXT, "seed": SEED}) + "\n" + json.dumps({"id": "b", "text": "Other."})
    )
    synthesize([str(rows)], str(tmp_path / "out"), name)
    same_file(tmp_path / "out" / "audio" / "a.flac", marked(library))
    row = read_manifest(Storage(str(tmp_path / "out"))).to_pylist()[0]
    assert row["num_samples"] == len(library.waveform)
    assert [w["word"] for w in row["words"]] == [w.word for w in library.words or ()]


@pytest.mark.usefixtures("inline")
def test_a_books_sentences_give_the_librarys_sound(tmp_path: Path, name: str, voice: UtteranceSynthesizer) -> None:
    (tmp_path / "book.txt").write_text(TEXT)
    synthesize([str(tmp_path / "book.txt")], str(tmp_path / "out"), name)
    shard = read_shard(Storage(str(tmp_path / "out")), 0).to_pylist()
    assert sorted(row["index"] for row in shard) == [0, 1, 2]
    for row in shard:
        same_file(row["flac"], marked(whole(voice, row["text"], row["seed"])))


@pytest.mark.parametrize("stream", [True, False])
def test_the_streaming_engine_gives_the_librarys_sound(
    voice: UtteranceSynthesizer, library: Speech, stream: bool
) -> None:
    engine = StreamingEngine(voice)
    try:
        beside = [engine.submit(SynthesisRequest(text=f"{n} other listeners.", seed=n)) for n in range(3)]
        ticket = engine.submit(SynthesisRequest(text=TEXT, seed=SEED), stream=stream)
        chunks = list(ticket.chunks())
        assert len(chunks) > 3 if isinstance(voice, Streamable) else len(chunks) == 3  # windows, or sentences
        found = np.concatenate([chunk.waveform for chunk in chunks])
        assert found.shape == library.waveform.shape
        np.testing.assert_allclose(found, library.waveform, atol=1e-4, rtol=0)
        words = [w for chunk in chunks for w in chunk.words or ()]
        assert [(w.word, w.start, w.end) for w in words] == [(w.word, w.start, w.end) for w in library.words or ()]
        assert [w.start_s for w in words] == pytest.approx([w.start_s for w in library.words or ()])
        for other in beside:
            other.speech()
    finally:
        engine.close()


class Hosted:
    """The way from the server's front to a voice in this process."""

    def __init__(self, name: str) -> None:
        self._voice = HostedVoice(name, 8, 600.0, "cpu", watermark=Marking())

    def speak(self, job: SpeechJob) -> AsyncIterator[SoundPiece | Refusal]:
        return self._voice.sounds(job)

    async def ready(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [True, False])
def test_the_server_gives_the_librarys_sound(name: str, library: Speech, stream: bool) -> None:
    front = Front(Settings(served_voices([name]), cache_bytes=0), Hosted(name), mock.Mock())
    client = TestClient(create_app(front), base_url="http://127.0.0.1")
    body = {"text": TEXT, "seed": SEED, "stream": stream, "response_format": "wav"}
    with client.stream("POST", "/tts", json=body) as answer:
        parts = [part for part in answer.iter_raw() if part]
    assert answer.status_code == 200 and (len(parts) > 2) == stream
    header, rest = 44, b"".join(parts)
    samples = np.frombuffer(rest[header:], "<i2").astype(int)
    expected = to_int16(marked(library).waveform).astype(int)
    assert samples.shape == expected.shape and np.abs(samples - expected).max() <= 1 + round(1e-4 * 2**15)
