"""Voices of other kinds, served as ours are: an engine without models or word times, and one that imitates a clip."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from fastapi.testclient import TestClient

from deploy.api import create_app
from deploy.front import Front
from deploy.replica import HostedVoice
from deploy.settings import Settings, served_voices
from deploy.speech import Refusal, SoundPiece, SpeechJob
from deploy.websocket import Start
from flowtts_core.audio.files import encode, to_int16
from flowtts_core.engines.base import Speech
from flowtts_core.request import REQUEST_FIELDS, Clip, SynthesisRequest
from flowtts_core.voice import open_voice
from tests.standins import make_character_voice, make_fake_voice

TEXT = "One sentence is here. Another follows it, and then it ends."


class Hosted:
    """The way from a server's front to a voice in this process."""

    def __init__(self, folder: Path) -> None:
        self.voice = HostedVoice(str(folder), 8, 600.0, "cpu")

    def speak(self, job: SpeechJob) -> AsyncIterator[SoundPiece | Refusal]:
        return self.voice.sounds(SpeechJob.from_json(json.loads(json.dumps(job.to_json()))))

    async def ready(self) -> bool:
        return True


def client_of(folder: Path, **settings: Any) -> TestClient:
    front = Front(Settings(served_voices([str(folder)]), **settings), Hosted(folder), mock.Mock())
    return TestClient(create_app(front), base_url="http://127.0.0.1")


def library(folder: Path, **asked: Any) -> np.ndarray:
    [speech] = open_voice(folder).synthesize([SynthesisRequest(text=TEXT, **asked)])
    assert isinstance(speech, Speech)
    return to_int16(speech.waveform).astype(int)


def samples_of(wav: bytes) -> np.ndarray:
    """[S] of a WAV with the 44 bytes of header that the server writes."""
    assert wav[:4] == b"RIFF"
    return np.frombuffer(wav[44:], "<i2").astype(int)


def same(found: np.ndarray, wanted: np.ndarray) -> None:
    assert found.shape == wanted.shape and np.abs(found - wanted).max() <= 1 and np.abs(wanted).max() > 100


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_fake_voice(tmp_path_factory.mktemp("voices") / "fake")


@pytest.fixture(scope="module")
def characters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_character_voice(tmp_path_factory.mktemp("voices") / "characters")


def test_an_engine_of_another_kind_is_served(fake: Path) -> None:
    client = client_of(fake)
    asked = {"text": TEXT, "seed": 5, "speaker": "high"}
    wanted = library(fake, seed=5, speaker="high")
    same(samples_of(client.post("/tts", json=asked).content), wanted)
    with client.stream("POST", "/tts", json={**asked, "stream": True}) as answer:
        parts = [part for part in answer.iter_raw() if part]
    assert len(parts) >= 2  # sentence by sentence
    same(samples_of(b"".join(parts)), wanted)
    [row] = client.get("/v1/voices").json()["data"]
    assert (row["kind"], row["speakers"], row["languages"], row["prompt"]) == ("fake", ["low", "high"], [], "none")


def test_without_durations_there_are_no_word_times(fake: Path) -> None:
    client = client_of(fake)
    told = client.post("/tts", json={"text": TEXT, "timestamps": True}).json()
    assert told["words"] is None and len(samples_of(base64.b64decode(told["audio"]))) == len(library(fake))
    answer = client.post("/tts", json={"text": TEXT, "timestamps": True, "stream": True})
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line]
    assert events[-1]["type"] == "speech.audio.done" and not any("words" in event for event in events)
    with client.websocket_connect("/ws") as socket:
        socket.send_json({"type": "start", "timestamps": True})
        socket.send_json({"type": "text", "text": TEXT})
        socket.send_json({"type": "flush"})
        kinds = []
        while "flushed" not in kinds:
            message = socket.receive()
            kinds.append("sound" if message.get("bytes") else json.loads(message["text"])["type"])
    assert "sound" in kinds and "words" not in kinds and "error" not in kinds


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"steps": 4}, "no such setting"),
        ({"guidance": 1.0}, "no such setting"),
        ({"speaker": "nobody"}, "no speaker"),
        ({"language": "fr-fr"}, "no language"),
        ({"prompt": base64.b64encode(b"RIFF").decode()}, "no such setting"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_setting_that_the_voice_lacks_is_refused(fake: Path, asked: dict[str, Any], told: str, stream: bool) -> None:
    answer = client_of(fake).post("/tts", json={"text": TEXT, "stream": stream, **asked})
    assert answer.status_code == 400 and told in answer.json()["error"]["message"]


def test_a_clip_is_imitated(characters: Path) -> None:
    at = np.arange(22_050 * 3) / 22_050
    clip = encode((0.3 * np.sin(2 * np.pi * 220 * at)).astype(np.float32), 22_050, ".wav")
    assert len(clip) > 128 << 10  # longer than any request without one may be
    client = client_of(characters, cache_bytes=1 << 20)
    asked = {"text": TEXT, "seed": 3, "prompt_text": "a tone", "language": "en-gb"}
    prompted = {**asked, "prompt": base64.b64encode(clip).decode()}
    answer = client.post("/tts", json=prompted)
    assert answer.status_code == 200, answer.text
    wanted = library(characters, seed=3, prompt_text="a tone", language="en-gb", prompt=Clip(clip))
    same(samples_of(answer.content), wanted)
    assert client.post("/tts", json=prompted).headers["x-cache"] == "hit"
    other = client.post("/tts", json={"text": TEXT, "seed": 3})
    assert other.headers["x-cache"] == "miss" and other.content != answer.content
    for wrong in ("not base64!", "YQ"):
        answer = client.post("/tts", json={**asked, "prompt": wrong})
        assert answer.status_code == 400 and answer.json()["error"]["param"] == "prompt"
    with client.websocket_connect("/ws") as socket:
        socket.receive_json()
        socket.send_json({"type": "start", **{k: v for k, v in prompted.items() if k != "text"}})
        assert socket.receive_json()["type"] == "ready"


def test_bodies_are_longer_only_where_a_voice_takes_clips(fake: Path, characters: Path) -> None:
    long = {"text": TEXT, "prompt": base64.b64encode(bytes(200_000)).decode()}
    assert client_of(fake).post("/tts", json=long).status_code == 413
    assert client_of(characters).post("/tts", json=long).status_code == 400  # no audio
    huge = {"text": TEXT, "prompt": base64.b64encode(bytes(5 << 20)).decode()}
    assert client_of(characters).post("/tts", json=huge).status_code == 413


def test_bodies_have_all_fields_of_a_request(fake: Path) -> None:
    schema = client_of(fake).get("/openapi.json").json()
    body = schema["paths"]["/tts"]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]
    start = Start.model_json_schema()["properties"]
    assert set(REQUEST_FIELDS) <= set(body) and set(REQUEST_FIELDS) <= set(start)
    assert body["seed"]["minimum"] == REQUEST_FIELDS["seed"].low and body["speed"]["maximum"] == 4.0
    assert {"minimum": 1, "maximum": 64, "type": "integer"} in body["steps"]["anyOf"]  # narrower than the library's


def test_the_front_loads_no_torch() -> None:
    script = "import deploy.api, deploy.front, deploy.pool, deploy.settings as s, sys; s.served_voices([]);"
    script += "sys.exit(bool({'torch', 'flowtts_core.engines.flow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
