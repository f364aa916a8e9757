"""Cloning by clients of the server: off by default, a key's right, recordings kept by content for their owner alone."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from fastapi.testclient import TestClient

from deploy.api import create_app
from deploy.app import ServeArgs, build
from deploy.front import Front
from deploy.keys import add_key, new_key, read_keys
from deploy.replica import HostedVoice
from deploy.settings import RequestLimits, Settings, served_voices
from deploy.speech import SoundPiece, SpeechJob
from flowtts_core.audio.files import encode, to_int16
from flowtts_core.audio.reference import clean_reference
from flowtts_core.engines.base import Speech
from flowtts_core.errors import ConfigError
from flowtts_core.request import PromptClip, SynthesisRequest
from flowtts_core.streaming.engine import StreamingEngine, Ticket
from flowtts_core.voice import open_voice
from jobs import cli
from tests.jobs.test_any_voice import TEXT, Hosted, samples_of
from tests.speech_like import babble, babble_clip
from tests.standins import make_character_voice, make_fake_voice

SAID = "what is said in this clip"
CLIP = encode(np.concatenate([np.zeros(16000), babble(3.5)]), 16000, ".wav")
UPLOAD = {"audio": base64.b64encode(CLIP).decode(), "text": SAID, "name": "Ann", "consent": "Ann, 2026-05-01"}
PLACE = "/v1/voices/references"


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_character_voice(tmp_path_factory.mktemp("voices") / "characters", prompted="required")


def client_of(voice: Path, place: Path, **settings: Any) -> TestClient:
    """A front of its own, with a replica of its own."""
    given = {"cache_bytes": 0, "cloning": True, "references": str(place), **settings}
    front = Front(Settings(served_voices([str(voice)]), **given), Hosted(voice), mock.Mock())
    return TestClient(create_app(front), base_url="http://127.0.0.1")


def spoken(voice: Path) -> np.ndarray:
    request = SynthesisRequest(text=TEXT, seed=3, prompt=PromptClip(CLIP), prompt_text=SAID)
    [speech] = open_voice(voice).synthesize([request])
    assert isinstance(speech, Speech)
    return to_int16(speech.waveform).astype(int)


def test_an_uploaded_recording_is_spoken_by_its_id_on_every_front(tmp_path: Path, voice: Path) -> None:
    first, second = (client_of(voice, tmp_path / "kept") for _ in range(2))
    told = first.post(PLACE, json=UPLOAD).json()
    assert told["id"] == clean_reference(PromptClip(CLIP)).clip.digest
    assert told["source_sha256"] == PromptClip(CLIP).digest and told["consent"] == "Ann, 2026-05-01"
    assert "silence at its ends left out" in told["notes"][0]
    assert first.post(PLACE, json=UPLOAD).json()["id"] == told["id"], "the same recording has the same id"
    assert [row["id"] for row in second.get(PLACE).json()["data"]] == [told["id"]]
    own = spoken(voice)
    body = {"text": TEXT, "seed": 3, "response_format": "wav"}
    for client in (first, second):
        for asked in ({"reference": told["id"]}, {"prompt": UPLOAD["audio"], "prompt_text": SAID}):
            answer = client.post("/tts", json={**body, **asked})
            assert answer.status_code == 200, answer.text
            heard = samples_of(answer.content)
            assert heard.shape == own.shape and np.abs(heard - own).max() <= 1
    openai = {"input": TEXT, "response_format": "wav"}
    by_field = second.post("/v1/audio/speech", json={**openai, "reference": told["id"]})
    by_voice = second.post("/v1/audio/speech", json={**openai, "voice": {"id": told["id"]}})
    assert by_field.status_code == by_voice.status_code == 200 and by_field.content == by_voice.content
    with second.websocket_connect("/ws") as socket:
        socket.receive_json()
        for message in ({"type": "start", "reference": told["id"]}, {"type": "text", "text": TEXT}, {"type": "flush"}):
            socket.send_json(message)
        kinds: list[str] = []
        while not {"flushed", "error"} & set(kinds):
            message = socket.receive()
            kinds.append("sound" if message.get("bytes") else json.loads(message["text"])["type"])
        assert "sound" in kinds and "error" not in kinds
    assert first.delete(f"{PLACE}/{told['id']}").json() == {
        "id": told["id"],
        "object": "voice.reference",
        "deleted": True,
    }
    assert second.get(PLACE).json()["data"] == []
    gone = second.post("/tts", json={**body, "reference": told["id"]})
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "reference_not_found")
    assert second.delete(f"{PLACE}/{told['id']}").status_code == 404


def test_it_is_off_by_default(tmp_path: Path, voice: Path) -> None:
    client = client_of(voice, tmp_path / "kept", cloning=False)
    asked: list[Any] = [client.post(PLACE, json=UPLOAD), client.get(PLACE), client.delete(f"{PLACE}/{'0' * 64}")]
    asked.append(client.post("/tts", json={"text": TEXT, "prompt": UPLOAD["audio"], "prompt_text": SAID}))
    asked.append(client.post("/tts", json={"text": TEXT, "reference": "0" * 64}))
    asked.append(client.post("/v1/audio/speech", json={"input": TEXT, "voice": {"id": "0" * 64}}))
    for answer in asked:
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "cloning_not_allowed")
    with client.websocket_connect("/ws") as socket:
        socket.receive_json()
        socket.send_json({"type": "start", "reference": "0" * 64})
        assert socket.receive_json()["error"]["code"] == "cloning_not_allowed"
    assert not (tmp_path / "kept").exists()


def test_a_key_may_have_the_right_and_sees_its_own_alone(tmp_path: Path, voice: Path) -> None:
    secrets = {}
    for name, may in (("ann", True), ("bob", True), ("eve", False)):
        secrets[name], key = new_key(name, cloning=may)
        add_key(tmp_path / "keys.jsonl", key)
    client = client_of(voice, tmp_path / "kept", cloning=False, keys=str(tmp_path / "keys.jsonl"))
    headers = {name: {"Authorization": f"Bearer {secret}"} for name, secret in secrets.items()}
    assert client.post(PLACE, json=UPLOAD).status_code == 401
    assert client.post(PLACE, json=UPLOAD, headers=headers["eve"]).status_code == 403
    told = client.post(PLACE, json=UPLOAD, headers=headers["ann"]).json()
    body = {"text": TEXT, "reference": told["id"]}
    assert client.post("/tts", json=body, headers=headers["ann"]).status_code == 200
    for name, status in (("bob", 404), ("eve", 403)):
        assert client.post("/tts", json=body, headers=headers[name]).status_code == status
        assert client.delete(f"{PLACE}/{told['id']}", headers=headers[name]).status_code == status
    assert client.get(PLACE, headers=headers["bob"]).json()["data"] == []
    assert len(client.get(PLACE, headers=headers["ann"]).json()["data"]) == 1
    assert client.delete(f"{PLACE}/{told['id']}", headers=headers["ann"]).status_code == 200


@pytest.mark.parametrize(
    ("changed", "status", "code", "param"),
    [
        ({"audio": "no base64!"}, 400, "invalid_value", "audio"),
        ({"audio": base64.b64encode(b"no sound").decode()}, 400, "invalid_reference", "audio"),
        ({"audio": base64.b64encode(babble_clip(0.3).audio).decode()}, 400, "invalid_reference", "audio"),
        (
            {"audio": base64.b64encode(encode(np.zeros(48000, np.float32), 16000)).decode()},
            400,
            "invalid_reference",
            "audio",
        ),
        ({"text": SAID * 20}, 400, "invalid_reference", "text"),
        ({"text": None}, 400, "invalid_value", "text"),
        ({"more": 1}, 400, "invalid_value", "more"),
        ({"audio": base64.b64encode(bytes(70_000)).decode()}, 413, "body_too_large", "audio"),
    ],
)
def test_what_cannot_be_kept_is_refused(
    tmp_path: Path, voice: Path, changed: dict[str, Any], status: int, code: str, param: str
) -> None:
    limits = RequestLimits(prompt_bytes=60_000 if status == 413 else 4 << 20)
    answer = client_of(voice, tmp_path / "kept", limits=limits).post(PLACE, json={**UPLOAD, **changed})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param), error


def test_a_key_keeps_so_many_and_a_request_imitates_one(tmp_path: Path, voice: Path) -> None:
    client = client_of(voice, tmp_path / "kept", limits=RequestLimits(references=1))
    told = client.post(PLACE, json=UPLOAD).json()
    other = {**UPLOAD, "audio": base64.b64encode(babble_clip(3.0, 200.0).audio).decode()}
    full = client.post(PLACE, json=other)
    assert (full.status_code, full.json()["error"]["code"]) == (409, "too_many_references")
    assert client.post(PLACE, json=UPLOAD).status_code == 200, "one that is there may come again"
    two = client.post("/tts", json={"text": TEXT, "reference": told["id"], "prompt": UPLOAD["audio"]})
    assert (two.status_code, two.json()["error"]["param"]) == (400, "reference")
    for odd in ("../secret", "short"):
        assert client.post("/tts", json={"text": TEXT, "reference": odd}).status_code == 404


def test_a_server_that_imitates_nobody_says_so_at_its_start(tmp_path: Path, voice: Path) -> None:
    fake = make_fake_voice(tmp_path / "fake")
    with pytest.raises(ConfigError, match="imitates"):
        build(ServeArgs(voices=[str(fake)], without_keys=True, allow_cloning=True))
    with pytest.raises(ConfigError, match="one place"):
        build(ServeArgs(voices=[str(voice)], without_keys=True, allow_cloning=True, fronts=2))
    client = client_of(fake, tmp_path / "kept")
    assert client.post("/v1/audio/speech", json={"input": TEXT, "voice": {"id": "0" * 64}}).status_code == 400


def test_a_key_is_made_with_the_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = tmp_path / "keys.jsonl"
    for name, more in (("ann", ["--may-clone"]), ("bob", [])):
        assert cli.main(["serve", "--keys", str(keys), "--new-key", name, *more]) == 0
    assert {key.name: key.cloning for key in read_keys(keys)} == {"ann": True, "bob": False}


def test_a_recording_is_read_beside_the_loop_of_a_replica(voice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []
    submit = StreamingEngine.submit

    def noting(self: StreamingEngine, *args: Any, **options: Any) -> Ticket:
        threads.append(threading.current_thread())
        return submit(self, *args, **options)

    hosted = HostedVoice(str(voice), 8, 600.0, "cpu")
    monkeypatch.setattr(StreamingEngine, "submit", noting)

    async def scene() -> threading.Thread:
        request = SynthesisRequest(text=TEXT, prompt=PromptClip(CLIP), prompt_text=SAID)
        assert isinstance(await anext(hosted.sounds(SpeechJob("any", request))), SoundPiece)  # type: ignore[arg-type]  # an async generator
        return threading.current_thread()

    loop = asyncio.run(scene())
    hosted.close()
    assert len(threads) == 1 and threads[0] is not loop


def test_a_front_cleans_recordings_without_torch() -> None:
    script = "import base64, sys; from deploy.references import _cleaned; from flowtts_core.request import PromptClip;"
    script += f"_cleaned(PromptClip(base64.b64decode('{UPLOAD['audio']}')), '{SAID}'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-"], input=script, text=True).returncode == 0
