"""The server's interface without Ray: validation, keys, limits, cache, retries, against a replica that only pretends."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from deploy.api import create_app
from deploy.cache import Answer, AnswerCache
from deploy.environment import is_loopback
from deploy.errors import ApiError
from deploy.front import Front
from deploy.keys import Keyring, add_key, new_key, read_keys
from deploy.link import LinkClient, LinkServer
from deploy.pool import ReplicaPool
from deploy.scaling import TARGET_S, by_queued_audio
from deploy.serve import arguments
from deploy.settings import RequestLimits, ServedVoice, Settings
from deploy.speech import Refusal, ReplicaLost, SoundPiece, SpeechJob
from deploy.websocket import MAX_WAITING, ClauseBuffer, converse
from flowtts_core.audio.files import to_int16
from flowtts_core.engines.base import WordTime
from flowtts_core.errors import ConfigError
from flowtts_core.request import SynthesisRequest
from jobs.cli import build_parser, main

RATE = 22_050
VOICES = (
    ServedVoice("rms", "nowhere", "flow", RATE, "f1", ("en-us",)),
    ServedVoice("tiny", "nowhere", "tiny", 8000, "f2", phonemes=("a", "i")),
)
JSON = {"content-type": "application/json"}


@dataclass
class FakeReplicas:
    """A `ReplicaLink` whose answers are tones of 10 ms a character, in pieces; it does what its plan says first."""

    plan: list[Any] = field(default_factory=list)  # for each attempt: pieces to send before it is lost, or a Refusal
    jobs: list[SpeechJob] = field(default_factory=list)
    closed: int = 0
    pause_s: float = 0.0

    async def speak(self, job: SpeechJob) -> AsyncIterator[SoundPiece | Refusal]:
        self.jobs.append(job)
        step = self.plan.pop(0) if self.plan else None
        try:
            if isinstance(step, Refusal):
                yield step
                return
            for count, sound in enumerate(pieces(job)):
                if step is not None and count >= step:
                    raise ReplicaLost("killed")
                await asyncio.sleep(self.pause_s)
                yield sound
        finally:
            self.closed += 1

    async def ready(self) -> bool:
        return True


def ask(voice: str, text: str, **more: Any) -> SpeechJob:
    return SpeechJob(voice, SynthesisRequest(text=text), **more)


def tone(job: SpeechJob) -> np.ndarray:
    samples = np.arange(int(RATE * 0.01 * len(job.text) / job.request.speed))
    return (0.5 * np.sin(2 * np.pi * (300 + job.request.seed % 100) * samples / RATE)).astype(np.float32)


def pieces(job: SpeechJob) -> Iterator[SoundPiece]:
    pcm = to_int16(tone(job)).astype("<i2").tobytes()
    words = [
        WordTime(w, job.text.index(w), job.text.index(w) + len(w), 0.01 * i, 0.01 * i + 0.01)
        for i, w in enumerate(job.text.split())
    ]
    size = 2 * (len(pcm) // 8)
    for part in range(4):
        end = len(pcm) if part == 3 else (part + 1) * size
        own = words[part * len(words) // 4 : (part + 1) * len(words) // 4] if job.words else []
        yield SoundPiece(RATE, pcm[part * size : end], tuple(own))


class Meters:
    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def first_audio(self, *values: Any) -> None:
        self.seen.append(("first", *values))

    def spoken(self, *values: Any) -> None:
        self.seen.append(("spoken", *values))

    def retried(self) -> None:
        self.seen.append(("retried",))

    def cached(self, hit: bool) -> None:
        self.seen.append(("cached", hit))

    def answered(self, *values: Any) -> None:
        self.seen.append(("answered", *values))


class World:
    """A front, its fake replicas, and a client."""

    def __init__(self, replicas: FakeReplicas | None = None, **settings: Any) -> None:
        self.replicas = replicas or FakeReplicas()
        self.meters = Meters()
        self.front = Front(Settings(VOICES, **{"cache_bytes": 0, **settings}), self.replicas, self.meters)
        self.client = TestClient(create_app(self.front), base_url="http://127.0.0.1", raise_server_exceptions=False)

    def say(self, text: str = "Good evening.", **fields: Any) -> Any:
        body = {"model": "flowtts", "voice": "alloy", "input": text, "response_format": "wav", **fields}
        return self.client.post("/v1/audio/speech", json=body)


def heard(content: bytes) -> np.ndarray:
    samples, rate = soundfile.read(io.BytesIO(content), dtype="float32")
    assert rate == RATE
    return samples


def events(answer: Any) -> list[dict[str, Any]]:
    assert answer.headers["content-type"].startswith("text/event-stream")
    return [json.loads(line[6:]) for line in answer.text.splitlines() if line]


def error_of(answer: Any) -> dict[str, Any]:
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    return error


def test_the_answer_is_the_speakers_sound() -> None:
    world = World()
    answer = world.say("A sentence of some length.", speed=2.0)
    job = world.replicas.jobs[0]
    assert (answer.status_code, answer.headers["content-type"], job.voice, job.request.speed) == (
        200,
        "audio/wav",
        "rms",
        2.0,
    )
    np.testing.assert_allclose(heard(answer.content), tone(job), atol=1e-4)


def test_events_carry_the_same_sound_as_the_file() -> None:
    world = World()
    told = events(world.say(stream_format="sse"))
    assert [event["type"] for event in told[:-1]] == ["speech.audio.delta"] * (len(told) - 1)
    assert told[-1]["type"] == "speech.audio.done" and told[-1]["usage"]["input_tokens"] == len("Good evening.")
    assert b"".join(base64.b64decode(event["audio"]) for event in told[:-1]) == world.say().content


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, "input"), ({"input": "  \n"}, "input"), ({"input": 5}, "input"), ({"input": "x" * 8193}, "input"),
        ({"speed": 0.2}, "speed"), ({"speed": 4.1}, "speed"), ({"speed": "fast"}, "speed"), ({"input": None}, "input"),
        ({"response_format": "midi"}, "response_format"), ({"stream_format": "x"}, "stream_format"),
        ({"voice": "nobody"}, "voice"), ({"voice": "../../etc/passwd"}, "voice"), ({"voice": "/"}, "voice"),
        ({"voice": {"id": "rms/../rms"}}, "voice"), ({"voice": "rms\x00"}, "voice"), ({"model": "other"}, "model"),
        ({"voice": "@low"}, "voice"), ({"model": 5}, "model"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(fields: dict[str, Any], param: str) -> None:
    world = World()
    answer = world.say(**fields)
    error = error_of(answer)
    assert answer.status_code == 400 and error["param"].split(".")[0] == param and not world.replicas.jobs
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"input": NaN}',
        b"[" * 100_000,
        b'{"a":' * 20_000,
        b"\xff\xfe",
        b'{"input": "\\ud800"}',
    ],
)
@pytest.mark.parametrize("path", ["/v1/audio/speech", "/tts"])
def test_what_is_no_request_is_refused(path: str, body: bytes) -> None:
    assert error_of(World().client.post(path, content=body, headers=JSON))["code"] in (
        "invalid_value",
        "body_too_large",
    )


def test_sizes_and_kinds_of_bodies_are_limited() -> None:
    client = World().client
    big = json.dumps({"text": "x" * 10_000_000}).encode()
    assert client.post("/tts", content=big, headers=JSON).status_code == 413
    chunks = (big[i : i + 65536] for i in range(0, len(big), 65536))  # without a length
    assert client.post("/tts", content=chunks, headers=JSON).status_code == 413
    assert client.post("/tts", content=b'{"text": "a"}', headers={"content-type": "text/plain"}).status_code == 415
    assert client.get("/tts").status_code == 405 and client.get("/../etc/passwd").status_code == 404


def test_tts_speaks_phonemes_by_id() -> None:
    world = World()
    assert world.client.post("/tts", json={"voice": "tiny", "phoneme_id": 1}).status_code == 200
    assert world.replicas.jobs[0].text == "i" and world.replicas.jobs[0].stream is False
    for body in (
        {"voice": "tiny", "phoneme_id": 2}, {"phoneme_id": 0}, {"voice": "tiny", "phoneme_id": 0, "text": "a"}, {},
        {"text": "a", "unknown": 1}, {"text": "a", "steps": 0}, {"text": "a", "seed": 2**63}, {"text": "a", "seed": 1.5},
        {"text": "a", "stream": "yes"}, {"text": ["a"]}, {"text": "a", "phoneme_id": True},
    ):  # fmt: skip
        assert world.client.post("/tts", json=body).status_code == 400, body


def test_word_times_as_json_and_as_events() -> None:
    world = World()
    text = "one two three four five six"
    whole = world.client.post("/tts", json={"text": text, "timestamps": True}).json()
    told = events(world.client.post("/tts", json={"text": text, "timestamps": True, "stream": True}))
    words = [word for event in told for word in event.get("words", [])]
    assert [word["word"] for word in whole["words"]] == text.split() and words == whole["words"]
    assert len(heard(base64.b64decode(whole["audio"]))) == pytest.approx(whole["seconds"] * RATE, abs=2)


@pytest.mark.parametrize(
    "plan",
    [[0], [0, 0, 0], [2], [1, 3, 2], [2, 0, 0, 0, 1, 0, 0, 0, 2, 1, 2, 1, 2, 1], [1, *[0, 1] * 7, 2, *[0, 1] * 7]],
)
def test_a_lost_speaker_is_not_heard(plan: list[int]) -> None:
    """Before and after the first sound: another goes on where it stopped, as often as need be while they die at other places."""
    world = World(FakeReplicas(list(plan)))
    answer = world.client.post("/tts", json={"text": "one two three four five six", "timestamps": True, "stream": True})
    told = events(answer)
    clean = events(
        World().client.post("/tts", json={"text": "one two three four five six", "timestamps": True, "stream": True})
    )
    sound = [heard(b"".join(base64.b64decode(e["audio"]) for e in one if "audio" in e)) for one in (told, clean)]
    np.testing.assert_array_equal(*sound)
    assert [w for e in told for w in e.get("words", [])] == [w for e in clean for w in e.get("words", [])]
    assert world.meters.seen.count(("retried",)) == len(plan)


def test_speakers_that_keep_dying_end_in_503_or_an_error_event() -> None:
    before = World(FakeReplicas([0] * 9)).say()
    assert (
        before.status_code == 503
        and int(before.headers["retry-after"]) >= 1
        and error_of(before)["code"] == "unavailable"
    )
    for plan in ([2] * 9, [1, 0] * 9):  # at the same place, and here and there without a new sound
        during = events(World(FakeReplicas(plan)).say(stream_format="sse"))
        assert during[-1]["type"] == "error" and during[-1]["error"]["code"] == "unavailable"


def test_refusals_become_answers() -> None:
    busy = World(FakeReplicas([Refusal("overloaded", "", 7.2)])).say()
    assert (busy.status_code, busy.headers["retry-after"]) == (503, "8") and error_of(busy)["code"] == "overloaded"
    unspeakable = World(FakeReplicas([Refusal("unspeakable", "nothing to say")])).say("…")
    assert unspeakable.status_code == 400 and error_of(unspeakable)["code"] == "unspeakable"
    assert World(FakeReplicas([Refusal("draining")])).say().status_code == 200


def test_an_answer_that_is_too_long_ends() -> None:
    world = World(limits=RequestLimits(audio_s=0.1))
    assert events(world.say("x" * 100, stream_format="sse"))[-1]["error"]["code"] == "audio_too_long"
    assert world.client.post("/tts", json={"text": "x" * 100}).status_code == 400


def test_the_cache_gives_the_same_bytes_and_is_bounded() -> None:
    world = World(cache_bytes=1 << 20)
    first, second = world.say("again"), world.say("again")
    assert (first.headers["x-cache"], second.headers["x-cache"]) == ("miss", "hit")
    assert first.content[44:] == second.content[44:]  # before it is the header, which knows the length later
    assert world.say("mp3", response_format="mp3").content == world.say("mp3", response_format="mp3").content
    assert len(world.replicas.jobs) == 2
    assert world.say("again", speed=1.5).headers["x-cache"] == "miss"
    assert world.say("again", voice="rms").headers["x-cache"] == "hit"
    cut = World(FakeReplicas([2] * 9), cache_bytes=1 << 20)
    cut.say("again", stream_format="sse")
    assert len(cut.front.cache) == 0  # what was cut, or ended in an error, is not kept
    cache = AnswerCache(100)
    for i in range(50):
        cache.put(str(i), Answer(bytes(25), "x"))
        cache.get("0")
    assert cache.currsize <= 100 and cache.get("0") and not cache.get("1")
    cache.put("big", Answer(bytes(26), "x"))
    assert cache.get("big") is None


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, str]:
    secret, key = new_key("alice", requests_per_minute=3, concurrent=1)
    add_key(tmp_path / "keys.jsonl", key)
    return tmp_path / "keys.jsonl", secret


def test_only_known_keys_are_admitted(keys: tuple[Path, str]) -> None:
    path, secret = keys
    world = World(keys=str(path))
    assert secret not in path.read_text() and path.stat().st_mode & 0o077 == 0
    assert error_of(world.say())["code"] == "missing_api_key" and world.say().status_code == 401
    for wrong in ("Bearer x", f"Basic {secret}", "Bearer ", f"Bearer {secret}x", "Bearer \xff"):
        answer = world.client.get("/v1/voices", headers={"authorization": wrong.encode("latin-1")})
        assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
    world.client.headers["authorization"] = f"Bearer {secret}"
    assert [world.say().status_code for _ in range(4)] == [200, 200, 200, 429]
    assert int(world.say().headers["retry-after"]) <= 20
    assert world.client.get("/v1/voices").status_code == 200  # lists cost nothing
    for path_ in ("/openapi.json", "/v1/audio/voices", "/v1/models/tts-1", "/v1/audio/speech/x"):
        assert World(keys=str(path)).client.get(path_).status_code == 401
    for path_ in ("/", "/healthz", "/readyz"):
        assert World(keys=str(path)).client.get(path_).status_code == 200


def test_a_keys_limits_refill_and_its_places_come_back(keys: tuple[Path, str]) -> None:
    now = [0.0]
    ring = Keyring(keys[0], clock=lambda: now[0])
    key = ring.find(f"Bearer {keys[1]}")
    with ring.admitted(key), pytest.raises(ApiError, match="at once"), ring.admitted(key):
        pass
    for _ in range(2):
        with ring.admitted(key):
            pass
    with pytest.raises(ApiError, match="a minute") as error, ring.admitted(key):
        pass
    assert error.value.retry_after_s == pytest.approx(20)
    now[0] += 20.1
    with ring.admitted(key):
        pass


def test_a_key_that_is_removed_is_revoked(keys: tuple[Path, str]) -> None:
    path, secret = keys
    ring = Keyring(path)
    assert ring.find(f"Bearer {secret}")
    path.write_text(path.read_text().replace("alice", "bob") + "\n")
    other, key = new_key("carol")
    path.write_text("")
    add_key(path, key)
    ring._checked = float("-inf")  # a second later
    with pytest.raises(ApiError):
        ring.find(f"Bearer {secret}")
    assert ring.find(f"Bearer {other}")


@pytest.mark.parametrize("spoil", [
    lambda path: path.write_text(""), lambda path: path.unlink(), lambda path: path.write_text("rubbish"),
    lambda path: path.write_bytes(b"\xff"), lambda path: (path.unlink(), path.mkdir()),
    lambda path: path.write_text("[" * 100_000), lambda path: path.write_text(path.read_text()[:-9]),
])  # fmt: skip
def test_without_a_whole_keys_file_nobody_is_admitted(
    keys: tuple[Path, str], spoil: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says so once, health is as before, and the restored file works."""
    path, secret = keys
    world = World(keys=str(path))
    world.client.headers["authorization"] = f"Bearer {secret}"
    content = path.read_text()
    assert world.say().status_code == 200

    def asked() -> int:
        world.front.keyring._checked = float("-inf")  # a second later
        return int(world.say().status_code)

    with caplog.at_level("INFO", logger="deploy.keys"):
        spoil(path)
        assert [asked(), asked(), world.client.get("/healthz").status_code] == [401, 401, 200]
        assert len(caplog.records) == 1 and "no key is accepted" in caplog.text and secret not in caplog.text
        with pytest.raises(ApiError):  # a front that starts now
            World(keys=str(path)).front.keyring.find(f"Bearer {secret}")
        if path.is_dir():
            path.rmdir()
        path.write_text(content)
        assert asked() == 200


def test_a_keys_file_must_be_one(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    unlike = json.dumps({"name": "a", "sha256": "é" * 64})  # comparing it would fail
    for content in ("", "x", '{"name": "a"}', '{"name": "a", "sha256": "b"}', "[1]", unlike):
        path.write_text(content)
        with pytest.raises(ConfigError):
            read_keys(path)
    with pytest.raises(ConfigError):
        read_keys(tmp_path / "absent")
    added = tmp_path / "added"
    add_key(added, new_key("a")[1])
    added.write_text(added.read_text().rstrip("\n"))  # as some editors leave it
    add_key(added, new_key("b")[1])
    assert [key.name for key in read_keys(added)] == ["a", "b"]


def test_a_page_of_another_origin_gets_nothing() -> None:
    closed, opened = World(), World(origins=("https://good.example",), local_only=True)
    asked = {"origin": "https://good.example", "access-control-request-method": "POST"}
    assert "access-control-allow-origin" not in closed.client.options("/tts", headers=asked).headers
    assert opened.client.options("/tts", headers=asked).headers["access-control-allow-origin"] == "https://good.example"
    unread = opened.client.get("/v1/voices", headers={"host": "evil.example", "origin": "https://good.example"})
    assert unread.status_code == 403 and unread.headers["access-control-allow-origin"] == "https://good.example"
    asked["origin"] = "https://bad.example"
    assert "access-control-allow-origin" not in opened.client.options("/tts", headers=asked).headers
    with (
        pytest.raises(WebSocketDisconnect),
        closed.client.websocket_connect("/ws", headers={"origin": "https://bad.example"}),
    ):
        pass
    with (
        pytest.raises(WebSocketDisconnect) as refused,
        closed.client.websocket_connect("/ws", headers={"origin": "http://[a]"}),
    ):
        pass
    assert refused.value.reason == "wrong_origin"


def test_without_keys_only_local_names_are_answered() -> None:
    world = World(local_only=True)
    assert world.client.get("/healthz").status_code == 200
    for host in ("evil.example", "evil.example:8000", "", "[::1", "[foo]", "]a[", "127.0.0.1.evil.example"):
        assert world.client.get("/v1/voices", headers={"host": host}).status_code == 403, host
    for host in ("localhost:8000", "[::1]:8000"):
        assert world.client.get("/v1/voices", headers={"host": host}).status_code == 200, host


def test_other_names_of_this_machine_may_be_allowed() -> None:
    world = World(local_only=True, allowed_hosts=("tts.home", "10.0.0.5"))
    for host, status in [
        ("tts.home", 200), ("TTS.home:8000", 200), ("10.0.0.5:80", 200), ("localhost", 200), ("xtts.home", 403), ("home", 403),
    ]:  # fmt: skip
        assert world.client.get("/v1/voices", headers={"host": host}).status_code == status, host


def test_what_does_not_come_by_the_servers_own_proxy_is_refused() -> None:
    world = World(instance="secret")
    for path in ("/", "/healthz", "/v1/voices", "/nowhere"):
        for headers in ({}, {"x-flowtts-instance": "another"}, {"x-flowtts-instance": b"secr\xe9t"}):
            assert world.client.get(path, headers=headers).status_code == 421, path
    assert world.client.get("/v1/voices", headers={"x-flowtts-instance": "secret"}).status_code == 200
    with pytest.raises(WebSocketDisconnect), world.client.websocket_connect("/ws"):
        pass


def test_a_server_that_ends_takes_nothing_new() -> None:
    world = World()
    with world.client.websocket_connect("/ws") as talk:
        assert talk.receive_json()["type"] == "ready"
        assert world.front.drain() == (1, 0)
        answer = world.say()
        assert (answer.status_code, error_of(answer)["code"]) == (503, "ending") and answer.headers["retry-after"]
        assert world.client.get("/readyz").status_code == 503 and world.client.get("/healthz").status_code == 200
        talk.send_json({"type": "text", "text": "What was begun is spoken."})
        talk.send_json({"type": "flush"})
        heard = 0
        while (message := talk.receive()).get("text") is None or json.loads(message["text"])["type"] != "flushed":
            heard += len(message.get("bytes") or b"")
        assert heard
        [call] = world.front.calls
        call._last -= 10  # seconds of silence
        assert world.front.drain() == (0, 1)
    assert world.front.drain() == (0, 0)


def test_requests_wait_their_turn_for_a_place() -> None:
    """Where all is full, as long as they may; in the order in which they came."""
    full = Refusal("overloaded", "", 3.0)
    assert World(FakeReplicas([full] * 4)).say().status_code == 503
    world = World(FakeReplicas([full] * 4), limits=RequestLimits(queue_s=30))
    assert world.say().status_code == 200 and world.front.speaking == 0
    assert World(FakeReplicas([full] * 99), limits=RequestLimits(queue_s=0.2)).say().headers["retry-after"] == "3"

    async def three() -> list[str]:
        front = World(FakeReplicas([full] * 3), limits=RequestLimits(queue_s=30)).front
        order: list[str] = []

        async def one(text: str) -> None:
            answering = await front.begin(ask("rms", text))
            order.append(text)
            await answering.aclose()

        await asyncio.gather(*(one(text) for text in ("first", "second", "third")))
        assert front.speaking == 0
        return order

    assert asyncio.run(three()) == ["first", "second", "third"]


def test_logs_have_no_texts_unless_asked(caplog: pytest.LogCaptureFixture) -> None:
    for asked in (False, True):
        caplog.clear()
        with caplog.at_level("INFO", logger="flowtts.access"):
            answer = World(log_texts=asked).say("a secret thing")
        [line] = [json.loads(record.message) for record in caplog.records if record.name == "flowtts.access"]
        assert ("a secret thing" in json.dumps(line)) is asked
        assert line["id"] == answer.headers["x-request-id"] and line["chars"] == 14 and line["status"] == 200
    assert World().client.get("/healthz", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    assert World().client.get("/healthz", headers={"x-request-id": "a b\tc"}).headers["x-request-id"] != "a b\tc"


def test_a_fault_of_ours_is_500_in_the_same_shape() -> None:
    class Broken(FakeReplicas):
        def speak(self, job: SpeechJob) -> Any:
            raise ZeroDivisionError("ours")

    answer = World(Broken()).say()
    assert answer.status_code == 500 and error_of(answer)["code"] == "internal_error"


def test_the_interface_describes_itself() -> None:
    client = World().client
    schema = client.get("/openapi.json").json()
    body = schema["paths"]["/v1/audio/speech"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"]["response_format"]["enum"] == ["mp3", "opus", "aac", "flac", "wav", "pcm"]
    assert body["example"]["input"] and "$ref" not in json.dumps(body)
    answer = client.get("/v1/voices").json()
    assert [(row["id"], row["default"]) for row in answer["data"]] == [("rms", True), ("tiny", False)]
    assert client.get("/v1/models").json()["data"][0]["id"] == "flowtts"
    page = client.get("/")
    assert page.status_code == 200 and "default-src 'none'" in page.headers["content-security-policy"]


# --- the WebSocket ----------------------------------------------------------------------------------------------------


def until(socket: Any, kind: str) -> tuple[list[dict[str, Any]], bytes]:
    """The messages up to one of a kind, and the sound between."""
    told, sound = [], b""
    while True:
        message = socket.receive()
        if message.get("bytes") is not None:
            sound += message["bytes"]
            continue
        assert message["type"] == "websocket.send", message
        told.append(json.loads(message["text"]))
        if told[-1]["type"] == kind:
            return told, sound


def test_text_goes_in_by_tokens_and_comes_out_by_clauses() -> None:
    world = World()
    text = "It was late, and nobody had come. Still she waited. Then"
    with world.client.websocket_connect("/ws") as socket:
        assert socket.receive_json()["type"] == "ready"
        socket.send_json({"type": "start", "voice": "rms", "response_format": "wav", "timestamps": True})
        assert socket.receive_json()["sample_rate"] == RATE
        for token in text.split(" "):
            socket.send_json({"type": "text", "text": token + " "})
        until(socket, "clause")
        assert world.replicas.jobs  # before the flush
        socket.send_json({"type": "flush"})
        told, sound = until(socket, "flushed")
        socket.send_json({"type": "close"})
    assert "".join(job.text for job in world.replicas.jobs).strip() == text
    words = [word for message in told if message["type"] == "words" for word in message["words"]]
    assert all(text[word["start"] : word["end"]] == word["word"] for word in words) and words[-1]["word"] == "Then"
    assert len({job.request.seed for job in world.replicas.jobs}) == len(world.replicas.jobs)
    assert told[-1]["seconds"] == pytest.approx(len(heard(sound)) / RATE, abs=0.01)


def test_cancel_silences() -> None:
    world = World(FakeReplicas(pause_s=0.05))
    with world.client.websocket_connect("/ws") as socket:
        socket.send_json({"type": "text", "text": "A long sentence that goes on. Another one. And one more."})
        until(socket, "clause")
        socket.send_json({"type": "cancel"})
        until(socket, "cancelled")
        done = len(world.replicas.jobs)
        assert world.replicas.closed == done
        socket.send_json({"type": "text", "text": "New."})
        socket.send_json({"type": "flush"})
        told, sound = until(socket, "flushed")
        assert [m["text"] for m in told if m["type"] == "clause"] == ["New."] and sound


@pytest.mark.parametrize(
    "message",
    ["", "x", "[]", "{}", '{"type": 5}', '{"type": "dance"}', '{"type": "text"}', '{"type": "start", "voice": "../x"}',
     '{"type": "start", "speed": 9}', '{"type": "start", "seed": 9223372036854775808}', '{"type": "start", "foo": 1}',
     "[" * 50_000, r'{"type": "text", "text": "A lone \ud800. And"}'],
)  # fmt: skip
def test_a_wrong_message_is_answered_and_the_conversation_goes_on(message: str) -> None:
    with World().client.websocket_connect("/ws") as socket:
        socket.send_text(message)
        told, _ = until(socket, "error")
        assert told[-1]["error"]["type"] == "invalid_request_error"
        socket.send_json({"type": "text", "text": "Fine."})
        socket.send_json({"type": "flush"})
        assert until(socket, "flushed")[1]


def test_a_conversation_that_is_too_fast_or_silent_ends() -> None:
    world = World(FakeReplicas(pause_s=0.2))
    with world.client.websocket_connect("/ws") as socket:
        socket.send_json({"type": "text", "text": "Yes indeed. No way. " * 100})
        assert until(socket, "error")[0][-1]["error"]["code"] == "overloaded"
    with World(limits=RequestLimits(idle_s=0.05)).client.websocket_connect("/ws") as socket:
        socket.receive_json()
        assert socket.receive()["type"] == "websocket.close"


def test_keys_hold_for_sockets_too(keys: tuple[Path, str]) -> None:
    client = World(keys=str(keys[0])).client
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/ws") as socket:
        socket.receive_json()
    with client.websocket_connect("/ws", subprotocols=["flowtts", f"flowtts-key.{keys[1]}"]) as socket:
        assert socket.receive_json()["type"] == "ready" and socket.accepted_subprotocol == "flowtts"


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_clauses_are_whole_however_the_text_came(size: int) -> None:
    text = (
        "Mr. Smith paid $3.50, in 1999; nobody knew why. Was it late? " + "word " * 80 + "Yes, at 3.14 p.m. it ended."
    )
    buffer = ClauseBuffer()
    clauses = [clause for i in range(0, len(text), size) for clause in buffer.add(text[i : i + size])] + buffer.flush()
    assert "".join(clauses) == text
    assert not any(clause.strip() in ("Mr.", "Yes,", "at 3.") for clause in clauses) and max(map(len, clauses)) <= 250
    assert not any(clause.rstrip().endswith("$3.") for clause in clauses)


def test_a_long_text_in_one_message_does_not_hold_up_the_server() -> None:
    text = "Hello there my friend. " * 4000
    began = time.process_time()
    assert len(list(islice(ClauseBuffer().add(text), MAX_WAITING))) == MAX_WAITING  # more of it is refused
    assert time.process_time() - began < 2  # of minutes, where each clause were sought in all that is left


def test_a_client_who_closes_and_goes_gives_its_place_back() -> None:
    class Gone:
        """A socket whose client said these messages, then went: what is sent to it fails."""

        headers: dict[str, str] = {}
        said = [{"type": "text", "text": "One is here. Two are here. Three are"}, {"type": "close"}]
        told = 0

        async def accept(self, subprotocol: Any) -> None:
            pass

        async def receive(self) -> Any:
            return {"type": "websocket.receive", "text": json.dumps(self.said.pop(0))}

        async def send_text(self, text: str) -> None:
            self.told += 1
            if self.told > 2:
                raise WebSocketDisconnect(1006)

        async def send_bytes(self, data: bytes) -> None:
            raise WebSocketDisconnect(1006)

        async def close(self, code: int = 1000, reason: str = "") -> None:
            raise RuntimeError("closed")

    async def scene() -> None:
        async with asyncio.timeout(5):
            await converse(Gone(), World().front)  # type: ignore[arg-type]  # a socket

    asyncio.run(scene())


# --- the wire ---------------------------------------------------------------------------------------------------------


def test_the_wire_carries_sounds_refusals_and_cancellation() -> None:
    state = {"closed": 0}

    async def speak(job: SpeechJob) -> AsyncIterator[SoundPiece | Refusal]:
        try:
            if job.text == "no":
                yield Refusal("overloaded", "full", 3.5)
            elif job.text == "bad":
                raise ValueError("ours")
            else:
                for sound in pieces(job):
                    yield sound
                    await asyncio.sleep(5 if job.text == "slow" else 0)
        finally:
            state["closed"] += 1

    async def scene() -> None:
        server = LinkServer(speak)
        address = await server.start("127.0.0.1")
        client = LinkClient(address)
        job = ask("rms", "one two three four", words=True)
        for _ in range(3):  # one connection serves them all
            assert [item async for item in client.speak(job)] == list(pieces(job))
        assert [item async for item in client.speak(ask("rms", "no"))] == [Refusal("overloaded", "full", 3.5)]
        [refusal] = [item async for item in client.speak(ask("rms", "bad"))]
        assert isinstance(refusal, Refusal) and refusal.kind == "failed"
        assert [item async for item in client.speak(job)] == list(pieces(job))
        before = state["closed"]
        slow = client.speak(ask("rms", "slow"))
        await anext(slow)
        await slow.aclose()  # the listener went away
        for _ in range(100):
            await asyncio.sleep(0.01)
            if state["closed"] > before:
                break
        assert state["closed"] == before + 1 and server.running == 0
        stranger = LinkClient(type(address)(address.host, address.port, bytes(32)))
        with pytest.raises(ReplicaLost):
            [item async for item in stranger.speak(job)]
        client.close()
        await server.close()

    asyncio.run(scene())


def test_a_job_that_goes_on_elsewhere_says_what_is_there_already() -> None:
    """The next replica passes over what it can, and the answer has no seam."""

    class Skipping(FakeReplicas):
        async def speak(self, job: SpeechJob) -> AsyncIterator[SoundPiece | Refusal]:
            gone = 0
            async for sound in super().speak(job):
                size = len(sound.pcm) // 2
                if isinstance(sound, SoundPiece) and gone + size <= job.skip:
                    gone += size
                    continue
                yield replace(sound, skipped=gone) if gone else sound
                gone = 0

    async def scene() -> None:
        replicas = Skipping(plan=[2, 3, None])
        front = Front(Settings(VOICES, cache_bytes=0), replicas, Meters())
        job = ask("rms", "some words to be spoken at some length")
        answering = await front.begin(job)
        heard = b"".join([sound.pcm async for sound in answering])
        assert heard == b"".join(sound.pcm for sound in pieces(job))
        skips = [asked.skip for asked in replicas.jobs]
        assert skips[0] == 0 and 0 < skips[1] < skips[2]

    asyncio.run(scene())


def test_the_pool_shares_work_finds_speakers_and_drops_lost_ones() -> None:
    async def scene() -> None:
        said: list[list[str]] = [[], []]
        full: list[int] = []

        def speaking(index: int) -> Any:
            async def speak(job: SpeechJob) -> AsyncIterator[SoundPiece | Refusal]:
                said[index].append(job.voice)
                if index in full:
                    yield Refusal("overloaded")
                    return
                await asyncio.sleep(0.05)
                for sound in pieces(job):
                    yield sound

            return speak

        servers = [LinkServer(speaking(index)) for index in range(2)]
        addresses = [await server.start("127.0.0.1") for server in servers]
        asked = []

        async def locate() -> Any:
            asked.append(1)
            if len(asked) == 1:
                raise RuntimeError("died meanwhile")
            return addresses[len(asked) % 2]

        pool = ReplicaPool(locate, start_s=5, everywhere="rms")

        async def hear(voice: str) -> int:
            return len([sound async for sound in pool.speak(ask(voice, "some words"))])

        assert await hear("rms") == 4  # the first is found, though one call failed
        while pool.known < 2:
            await asyncio.sleep(0.05)
        said[0].clear(), said[1].clear()
        await asyncio.gather(*(hear("rms") for _ in range(8)))
        assert [len(voices) for voices in said] == [4, 4]
        full.append(0)  # which still looks like the least busy
        said[0].clear(), said[1].clear()
        assert [await hear("rms") for _ in range(3)] == [4, 4, 4]
        full.append(1)
        assert await hear("rms") == 1  # a refusal
        full.clear()
        said[0].clear(), said[1].clear()
        for _ in range(6):
            await hear("other")
        assert sorted(len(voices) for voices in said) == [0, 6]  # it keeps to its home
        home = 0 if said[0] else 1
        await servers[home].close()
        addresses[home] = addresses[1 - home]
        for link in list(pool._links.values()):
            link.close()  # connections that were open end too
        lost = 0
        for _ in range(3):
            try:
                await hear("other")
            except ReplicaLost:
                lost += 1
        assert lost <= 1 and len(said[1 - home]) >= 2
        await pool.close()
        await servers[1 - home].close()

        async def nobody() -> Any:
            await asyncio.sleep(9)

        with pytest.raises(ReplicaLost, match="no replica"):
            _ = [sound async for sound in ReplicaPool(nobody, start_s=0.05, everywhere="rms").speak(ask("rms", "a"))]

    asyncio.run(scene())


# --- the command ------------------------------------------------------------------------------------------------------


def test_beyond_loopback_keys_are_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--host", "0.0.0.0"]) == 2
    assert "--new-key" in capsys.readouterr().err
    assert main(["serve", "--keys", str(tmp_path / "k"), "--new-key", "alice"]) == 0
    secret = capsys.readouterr().out.strip()
    assert secret.startswith("ftts-") and read_keys(tmp_path / "k")[0].name == "alice"
    assert main(["serve", "--keys", str(tmp_path / "k"), "--new-key", "alice"]) == 2
    parser = build_parser("serve")
    options = arguments(
        parser.parse_args(["serve", "--host", "0.0.0.0", "--keys", str(tmp_path / "k"), "--replicas", "0-3"])
    )
    assert (options["without_keys"], options["min_replicas"], options["max_replicas"]) == (False, 0, 3)
    named = ["serve", "--keys", str(tmp_path / "k"), "--allowed-host", "tts.home"]
    assert main(named) == 2 and "any name" in capsys.readouterr().err
    more = ["--allowed-host", "tts.home", "--queue-s", "2.5", "--max-chars", "20000"]
    options = arguments(parser.parse_args(["serve", *more]))
    assert options["allowed_hosts"] == ["tts.home"] and options["limits"]["queue_s"] == 2.5
    assert options["limits"]["chars"] == 20_000 and options["limits"]["audio_s"] > RequestLimits().audio_s
    assert all(map(is_loopback, ("127.0.0.1", "::1", "localhost", "127.1.2.3")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "example.org", "10.0.0.1")))


@pytest.mark.parametrize(
    "wrong",
    [
        ["--replicas", "0"],
        ["--replicas", "3-2"],
        ["--replicas", "x"],
        ["--voice", "nobody"],
        ["--port", "99999"],
        ["--threads", "0"],
        ["--queue-s", "-1"],
        ["--queue-s", "nan"],
        ["--max-chars", "0"],
        ["--allowed-host", "https://tts.home"],
        ["--allowed-host", "*"],
    ],
)
def test_wrong_options_are_refused_before_anything_starts(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    assert (
        main(["serve", *wrong]) in (1, 2)
        and "remedy" in capsys.readouterr().err
        or wrong[0] in ("--port", "--threads", "--queue-s", "--max-chars")
    )
    assert time.monotonic() - began < 3


# --- scaling ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("queued", "active", "full", "low", "high", "wanted"),
    [
        ([0.0], [0], [0.0], 0, 4, 0), ([0.0], [1], [0.1], 0, 4, 1), ([TARGET_S * 2.5], [9], [0.2], 0, 4, 3),
        ([TARGET_S, TARGET_S * 9], [1, 1], [0.1, 0.1], 1, 4, 4), ([0.0], [0], [0.0], 2, 4, 2),
        ([1.0], [8], [1.0], 1, 4, 2), ([1.0, 1.0], [5, 5], [0.6, 0.6], 1, 4, 2), ([1.0, 1.0], [8, 8], [1.0, 1.0], 1, 4, 3),
    ],
)  # fmt: skip
def test_speakers_follow_the_audio_that_waits(
    queued: list[float], active: list[int], full: list[float], low: int, high: int, wanted: int
) -> None:
    given = {"queued_s": dict(enumerate(queued)), "active": dict(enumerate(active)), "full": dict(enumerate(full))}

    class Context:
        aggregated_metrics = given
        capacity_adjusted_min_replicas, capacity_adjusted_max_replicas = low, high

    assert by_queued_audio(Context())[0] == wanted


def test_ssml_is_asked_for_by_its_name_and_reaches_the_voice() -> None:
    world = World()
    ssml = "<speak>one <break time='1s'/> two</speak>"
    for path, body in [
        ("/v1/audio/speech", {"model": "flowtts", "voice": "alloy", "input": ssml}),
        ("/tts", {"text": ssml}),
    ]:
        assert world.client.post(path, json={**body, "input_type": "ssml"}).status_code == 200
        assert error_of(world.client.post(path, json={**body, "input_type": "html"}))["param"] == "input_type"
        assert world.client.post(path, json=body).status_code == 200
    found = [job.request.input_type for job in world.replicas.jobs]
    assert found == ["ssml", "text"] * 2


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--watermark-number", "5000"], "out of range"),
        (["--watermark-key", "empty"], "--watermark-key empty: is empty"),
        (["--no-watermark", "--watermark-number", "5"], "--no-watermark leaves out"),
    ],
)
def test_a_mark_that_cannot_be_is_refused_before_ray_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str], why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").touch()
    with pytest.raises(ConfigError, match=why):
        arguments(build_parser("serve").parse_args(["serve", *more]))


def test_sound_without_a_mark_may_be_asked_of_a_server_that_marks_nothing() -> None:
    assert World().say(watermark=False).headers["X-Watermark"] == "none"
    refused = World(watermark={"number": 4}).say(watermark=False)
    assert (refused.status_code, error_of(refused)["code"]) == (403, "watermark_required")
