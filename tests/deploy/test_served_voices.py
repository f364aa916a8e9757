"""What the server takes from the fields of a request and from a voice's card, whatever the voice's kind."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from deploy.replica import INLINE_CHARS, HostedVoice
from deploy.requests import request_key
from deploy.speech import SoundPiece, SpeechJob
from deploy.websocket import Start
from flowtts_core.engines.base import Speech, Spoken, SynthesisFailure
from flowtts_core.errors import TextError, VoiceError
from flowtts_core.request import REQUEST_FIELDS, PromptClip, SynthesisRequest
from flowtts_core.streaming.engine import StreamingEngine, Ticket
from tests.jobs.test_any_voice import TEXT, clip, samples_of, served
from tests.standins import FakeSynthesizer, make_character_voice, make_fake_voice


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_fake_voice(tmp_path_factory.mktemp("voices") / "fake")


@pytest.fixture(scope="module")
def characters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_character_voice(tmp_path_factory.mktemp("voices") / "characters")


def test_bodies_have_all_fields_of_a_request(fake: Path) -> None:
    schema = served(fake).get("/openapi.json").json()
    body = schema["paths"]["/tts"]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]
    start = Start.model_json_schema()["properties"]
    assert set(REQUEST_FIELDS) <= set(body)
    assert set(REQUEST_FIELDS) - {"input_type"} <= set(start)  # a socket's text comes in pieces, which would cut tags
    assert body["seed"]["minimum"] == REQUEST_FIELDS["seed"].low and body["speed"]["maximum"] == 4.0
    assert {"minimum": 1, "maximum": 64, "type": "integer"} in body["steps"]["anyOf"]  # narrower than the library's


def test_the_list_of_voices_tells_what_their_cards_do(fake: Path, characters: Path) -> None:
    [row] = served(fake).get("/v1/voices").json()["data"]
    assert (row["kind"], row["speakers"], row["languages"], row["prompt"]) == ("fake", ["low", "high"], [], "none")
    [row] = served(characters).get("/v1/voices").json()["data"]
    assert (row["languages"], row["prompt"]) == (["en-us", "en-gb"], "optional")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"guidance": 1.0}, "no such setting"),
        ({"speaker": "nobody"}, "no speaker"),
        ({"language": "fr-fr"}, "no language"),
        ({"prompt": base64.b64encode(b"RIFF").decode()}, "no such setting"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_setting_that_the_voice_lacks_is_refused(fake: Path, asked: dict[str, Any], told: str, stream: bool) -> None:
    answer = served(fake).post("/tts", json={"text": TEXT, "stream": stream, **asked})
    assert answer.status_code == 400 and told in answer.json()["error"]["message"]


def test_a_voices_speakers_differ(fake: Path) -> None:
    client = served(fake)
    low, high = (client.post("/tts", json={"text": TEXT, "speaker": name}).content for name in ("low", "high"))
    assert low[:4] == b"RIFF" and samples_of(low).tolist() != samples_of(high).tolist()


def test_the_name_of_a_voice_may_bring_a_speaker(fake: Path) -> None:
    client, name = served(fake), fake.name
    tts = {"text": TEXT, "response_format": "wav"}
    low, high = (samples_of(client.post("/tts", json={**tts, "speaker": who}).content) for who in ("low", "high"))
    for voice, expected in ((f"{name}@high", high), (f"{name}@low", low), ("alloy@high", high)):
        openai = {"model": "tts-1", "input": TEXT, "voice": voice, "response_format": "wav"}
        for path, body in (("/v1/audio/speech", openai), ("/tts", {**tts, "voice": voice})):
            assert samples_of(client.post(path, json=body).content).tolist() == expected.tolist(), (path, voice)
    refused = client.post("/v1/audio/speech", json={"model": "tts-1", "input": TEXT, "voice": f"{name}@nobody"})
    assert refused.status_code == 400 and "no speaker 'nobody'" in refused.json()["error"]["message"]
    two = client.post("/tts", json={"text": TEXT, "voice": f"{name}@high", "speaker": "low"})
    assert two.status_code == 400 and two.json()["error"]["param"] == "speaker"
    assert "error" not in spoken_by_websocket(client, {"voice": f"{name}@high"})
    assert "error" in spoken_by_websocket(client, {"voice": f"{name}@nobody"})


def test_events_of_a_voice_without_word_times_have_no_words(fake: Path) -> None:
    client = served(fake)
    answer = client.post("/tts", json={"text": TEXT, "timestamps": True, "stream": True})
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line]
    assert events[-1]["type"] == "speech.audio.done" and not any("words" in event for event in events)
    kinds = spoken_by_websocket(client, {"timestamps": True})
    assert "sound" in kinds and "words" not in kinds and "error" not in kinds


def spoken_by_websocket(client: Any, settings: dict[str, Any]) -> list[str]:
    """The kinds of the messages that answer a text."""
    with client.websocket_connect("/ws") as socket:
        for message in ({"type": "start", **settings}, {"type": "text", "text": TEXT}, {"type": "flush"}):
            socket.send_json(message)
        kinds: list[str] = []
        while not {"flushed", "error"} & set(kinds):
            message = socket.receive()
            kinds.append("sound" if message.get("bytes") else json.loads(message["text"])["type"])
    return kinds


def test_a_websockets_start_may_bring_a_clip(characters: Path) -> None:
    client, prompt = served(characters), base64.b64encode(clip(150.0)).decode()
    kinds = spoken_by_websocket(client, {"prompt": prompt, "prompt_text": "a clip", "language": "en-gb"})
    assert "sound" in kinds and "error" not in kinds
    with client.websocket_connect("/ws") as socket:
        socket.receive_json()
        socket.send_json({"type": "start", "prompt": "no base64!"})
        assert socket.receive_json()["error"]["param"] == "prompt"


def test_bodies_are_longer_only_where_a_voice_takes_clips(fake: Path, characters: Path) -> None:
    body = {"text": TEXT, "prompt": base64.b64encode(bytes(200_000)).decode(), "prompt_text": "a clip"}
    assert served(fake).post("/tts", json=body).status_code == 413
    assert served(characters).post("/tts", json=body).status_code == 400  # no audio
    body["prompt"] = base64.b64encode(bytes(5 << 20)).decode()
    assert served(characters).post("/tts", json=body).status_code == 413


def test_a_job_keeps_its_request_and_every_field_has_answers_of_its_own() -> None:
    given: dict[str, Any] = {"seed": 1, "speed": 2.0, "steps": 2, "temperature": 0.5, "guidance": 1.5, "grid": "sway"}
    given |= {"speaker": "low", "language": "en-gb", "prompt": PromptClip(b"RIFF"), "prompt_text": "a clip"}
    jobs = [SpeechJob("rms", SynthesisRequest(text=TEXT, **{k: v})) for k, v in given.items()]
    jobs += [SpeechJob("rms", SynthesisRequest(text=TEXT, **given), False, True, 7), SpeechJob("rms", jobs[0].request)]
    for job in jobs:
        assert SpeechJob.from_json(json.loads(json.dumps(job.to_json()))) == job
    keys = [request_key(job, "f", "wav") for job in jobs]
    assert len(set(keys)) == len(jobs) - 1 and keys[0] == keys[-1]


def test_a_listener_who_goes_while_a_long_text_is_read_stops_the_work(
    fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    voice = HostedVoice(str(fake), max_active=4, max_queued_s=1000.0, device="cpu")
    reads, goes_on, speaks = threading.Event(), threading.Event(), threading.Event()
    submit, speak, submitted = StreamingEngine.submit, FakeSynthesizer.speak, list[Ticket]()

    def reading(self: StreamingEngine, *args: Any, **options: Any) -> Ticket:
        reads.set()
        assert goes_on.wait(10)
        submitted.append(submit(self, *args, **options))
        return submitted[0]

    def speaking(self: FakeSynthesizer, utterances: Sequence[Spoken]) -> list[Speech | SynthesisFailure]:
        assert speaks.wait(10)  # so that only a listener who has gone ends the work
        return speak(self, utterances)

    monkeypatch.setattr(StreamingEngine, "submit", reading)
    monkeypatch.setattr(FakeSynthesizer, "speak", speaking)

    async def scene() -> None:
        text = "A sentence of some words. " * (1 + INLINE_CHARS // 20)
        listening = asyncio.create_task(anext(voice.sounds(SpeechJob("fake", SynthesisRequest(text=text)))))  # type: ignore[arg-type]  # an async generator
        await asyncio.to_thread(reads.wait)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        goes_on.set()
        async with asyncio.timeout(10):
            while not submitted or voice.active():
                await asyncio.sleep(0.01)

    asyncio.run(scene())
    speaks.set()
    voice.close()


def test_the_front_loads_no_torch() -> None:
    script = "import deploy.api, deploy.front, deploy.pool, deploy.settings as s, sys; s.served_voices([]);"
    script += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_the_users_words_are_checked_before_anything_starts(characters: Path, tmp_path: Path) -> None:
    from deploy.app import ServeArgs, build

    own = tmp_path / "own.tsv"
    options = {"voices": [str(characters)], "without_keys": True, "lexicon": str(own)}
    with pytest.raises(TextError, match="cannot read the lexicon"):
        build(ServeArgs(**options))
    own.write_text("Ives\tˈaɪvz\n", encoding="utf-8")
    with pytest.raises(VoiceError, match="'Ives' is given in IPA"):
        build(ServeArgs(**options))


def test_a_hosted_voice_speaks_the_users_words(characters: Path) -> None:
    async def sound(text: str, lexicon: dict[str, str]) -> bytes:
        voice = HostedVoice(str(characters), 8, 600.0, "cpu", lexicon=lexicon)
        job = SpeechJob("characters", SynthesisRequest(text=text), stream=False)
        heard = b"".join([piece.pcm async for piece in voice.sounds(job) if isinstance(piece, SoundPiece)])
        await asyncio.to_thread(voice.close)
        return heard

    replaced = asyncio.run(sound("The MS.", {"MS": '"manuscript"'}))
    assert replaced and replaced == asyncio.run(sound("The manuscript.", {}))
