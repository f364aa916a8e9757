"""What clients of many kinds send, and what they get: other names, nulls, HEAD, ranges, texts without words."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from deploy.app import ServeArgs, build
from deploy.cache import KEEP_S, Answer, AnswerCache, AnswerIds
from deploy.keys import add_key, new_key
from deploy.requests import OPENAI_VOICES
from deploy.settings import RequestLimits, ServedVoice, Settings, read_aliases
from flowtts_core.audio.files import read_audio
from flowtts_core.errors import ConfigError
from jobs.cli import main
from tests.deploy.test_serve_api import RATE, VOICES, FakeReplicas, World, error_of, events, tone, until
from tests.jobs.test_any_voice import served
from tests.standins import make_character_voice

FORMATS = ("mp3", "opus", "aac", "flac", "wav", "pcm")
SEVERAL = ServedVoice("many", "nowhere", "flow", RATE, "f3", speakers=("ann", "bob"))
# What OpenAI's client for JavaScript asks a browser to let it send.
STAINLESS = (
    "authorization,content-type,x-stainless-arch,x-stainless-lang,x-stainless-os,x-stainless-package-version,"
    "x-stainless-retry-count,x-stainless-runtime,x-stainless-runtime-version,x-stainless-timeout"
)


# --- names and nulls --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", ["https://page.example", "*"])
def test_a_welcome_page_may_send_whatever_headers_its_client_has(origin: str) -> None:
    client = World(origins=(origin,)).client
    asked = {
        "origin": "https://page.example",
        "access-control-request-method": "POST",
        "access-control-request-private-network": "true",
    }
    for headers in (STAINLESS, "authorization,content-type,user-agent,http-referer,x-title,openai-organization,range"):
        told = client.options("/v1/audio/speech", headers={**asked, "access-control-request-headers": headers})
        assert told.status_code == 200 and told.headers["access-control-allow-headers"] == headers
        assert told.headers["access-control-allow-origin"] in ("*", "https://page.example")
        assert told.headers["access-control-allow-private-network"] == "true"
        assert "access-control-allow-credentials" not in told.headers
    exposed = client.get("/v1/models", headers={"origin": "https://page.example"}).headers
    assert {"X-Request-ID", "X-Speech-Id", "Content-Range"} <= set(exposed["access-control-expose-headers"].split(", "))


def test_null_in_a_field_that_may_be_left_out_is_its_default() -> None:
    world = World()
    openai = dict.fromkeys(
        ("model", "voice", "response_format", "speed", "stream_format", "input_type", "instructions", "unknown")
    )
    answer = world.say(**openai)
    assert answer.status_code == 200 and answer.headers["content-type"] == "audio/mpeg"
    properties = world.client.get("/openapi.json").json()["paths"]["/tts"]["post"]["requestBody"]
    names = properties["content"]["application/json"]["schema"]["properties"].keys() - {"text"}
    assert len(names) > 12
    answer = world.client.post("/tts", json={"text": "Good evening.", **dict.fromkeys(names)})
    assert answer.status_code == 200 and answer.headers["content-type"] == "audio/wav"
    assert world.replicas.jobs[0].request == world.replicas.jobs[1].request
    with world.client.websocket_connect("/ws") as socket:
        socket.receive_json()
        socket.send_json({"type": "start", "voice": None, "response_format": None, "speed": None, "seed": None})
        assert socket.receive_json()["response_format"] == "pcm"


@pytest.mark.parametrize(
    ("asked", "media_type"),
    [("MP3", "audio/mpeg"), ("ogg", "audio/ogg"), ("OGG", "audio/ogg"), ("Wav", "audio/wav")],
)
def test_names_of_formats_may_be_written_otherwise(asked: str, media_type: str) -> None:
    client = World().client
    for path, text in (("/v1/audio/speech", "input"), ("/tts", "text")):
        body = {text: "Good evening.", "response_format": asked}
        body |= {"model": "tts-1", "voice": "alloy", "stream_format": "Audio"} if text == "input" else {}
        answer = client.post(path, json=body)
        assert (answer.status_code, answer.headers["content-type"]) == (200, media_type)
    assert World().say(response_format=" mp3").status_code == 400


def test_aliases_are_voices_and_models() -> None:
    voices = (*VOICES, SEVERAL)
    aliases = read_aliases(["tts-1=tiny", "nova=many", "Heart=many@bob"], voices)

    def spoken(**asked: Any) -> tuple[str, str | None]:
        world = World(aliases=aliases)
        world.front.voices.voices["many"] = SEVERAL
        answer = world.say(**asked)
        assert answer.status_code == 200, answer.text
        return world.replicas.jobs[0].voice, world.replicas.jobs[0].request.speaker

    assert spoken(model="tts-1") == ("tiny", None)  # where OpenAI's name of a voice says nothing else
    assert spoken(model="tts-1-hd") == ("rms", None)
    assert spoken(model="tts-1", voice="rms") == ("rms", None)
    assert spoken(model="tts-1", voice="nova") == ("many", None)
    assert spoken(voice="nova@ann") == ("many", "ann")
    assert (
        spoken(voice="Heart") == spoken(model="Heart") == spoken(model="Heart", voice={"id": "echo"}) == ("many", "bob")
    )
    assert spoken(model="Heart", voice="alloy@ann") == ("many", "ann")
    client = World(aliases=read_aliases(["tts-1=tiny", "nova=tiny"], VOICES)).client
    assert client.post("/tts", json={"voice": "nova", "phoneme_id": 1}).status_code == 200
    listed = client.get("/v1/audio/voices").json()
    assert {"tts-1", "nova", "alloy"} <= set(listed["aliases"]) and len(listed["aliases"]) == len(OPENAI_VOICES) + 1
    assert [row["id"] for row in client.get("/v1/models").json()["data"]].count("tts-1") == 1


@pytest.mark.parametrize(
    "wrong",
    ["tts-1", "=rms", "tts-1=", "tts-1=nobody", "tts-1=many@carl", "tts-1=rms@ann", "rms=tiny", "x" * 65 + "=rms"],
)
def test_an_alias_of_nothing_is_refused_at_the_start(wrong: str) -> None:
    with pytest.raises(ConfigError, match="--alias"):
        read_aliases([wrong], (*VOICES, SEVERAL))


def test_the_command_and_the_application_take_aliases(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--voice", "heart", "--alias", "tts-1=nobody"]) == 2
    said = capsys.readouterr().err
    assert "no such voice is served" in said and "remedy: use one of heart" in said
    assert main(["serve", "--voice", "heart", "--alias", "tts-1=heart", "--alias", "tts-1=heart"]) == 2
    with pytest.raises(ConfigError, match="no such voice is served"):
        build(ServeArgs(aliases=["tts-1=nobody"], without_keys=True))


# --- one limit --------------------------------------------------------------------------------------------------------


def test_a_text_has_one_limit_whatever_asks_for_it() -> None:
    text = "\N{GRINNING FACE}" * 5000
    for limits in (RequestLimits(), RequestLimits(chars=5000), RequestLimits(chars=100_000)):
        world = World(limits=limits)
        assert world.client.get("/v1/voices").json()["limits"] == {"chars": limits.chars}
        assert world.say(text, response_format="pcm").status_code == 200
        assert world.client.post("/tts", json={"text": text, "response_format": "pcm"}).status_code == 200
    world = World(limits=RequestLimits(chars=4999))
    for answer in (world.say(text), world.client.post("/tts", json={"text": text})):
        assert answer.status_code == 400 and error_of(answer)["code"] == "text_too_long"


def test_a_body_has_room_for_the_longest_text_as_json_may_write_it() -> None:
    for chars in (10, 8192, 50_000):
        body = json.dumps({"text": "\N{GRINNING FACE}" * chars, "speed": 1.0}, ensure_ascii=True)
        assert len(body) <= Settings(VOICES, limits=RequestLimits(chars=chars)).body_bytes


# --- lists and HEAD ---------------------------------------------------------------------------------------------------


def test_lists_stand_where_clients_look_for_them() -> None:
    client = World().client
    voices, models = client.get("/v1/audio/voices").json(), client.get("/v1/audio/models").json()
    assert voices == client.get("/v1/voices").json() and models == client.get("/v1/models").json()
    assert {"id": "rms", "name": "rms"} in voices["voices"] and {"id": "alloy", "name": "alloy"} in voices["voices"]
    assert [row["id"] for row in models["models"]] == [row["id"] for row in models["data"]]
    for row in models["data"]:
        assert client.get(f"/v1/models/{row['id']}").json() == row
    assert client.get("/v1/models/gpt-4o-mini-tts-2025-12-15").json()["object"] == "model"  # it may be asked for, too
    missing = client.get("/v1/models/whisper-1")
    assert missing.status_code == 404 and error_of(missing)["code"] == "model_not_found"


def test_head_is_get_without_the_body(tmp_path: Path) -> None:
    world = World(cache_bytes=1 << 20)
    own = f"/v1/audio/speech/{world.say().headers['x-speech-id']}"
    schema = world.client.get("/openapi.json").json()
    paths = [path for path, kinds in schema["paths"].items() if "get" in kinds and "{" not in path]
    assert len(paths) > 5
    for path in (*paths, own, "/", "/openapi.json", "/v1/models/tts-1", "/v1/models/none", "/v1/audio/speech/none"):
        got, head = world.client.get(path), world.client.head(path)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        assert head.headers["content-type"] == got.headers["content-type"]
        assert head.headers["content-length"] == str(len(got.content)), path
    assert world.client.head("/tts").status_code == 405
    add_key(tmp_path / "keys", new_key("alice")[1])
    refused = World(keys=str(tmp_path / "keys")).client.head("/v1/voices")
    assert (refused.status_code, refused.content) == (401, b"") and int(refused.headers["content-length"]) > 50


# --- an answer again, and parts of it ---------------------------------------------------------------------------------


def test_a_kept_answer_has_its_length_in_its_header() -> None:
    world = World(cache_bytes=1 << 20)
    for response_format in ("wav", "flac"):
        first, second = (world.say(response_format=response_format) for _ in range(2))
        assert second.headers["x-cache"] == "hit" and len(first.content) == len(second.content)
        assert soundfile.info(io.BytesIO(second.content)).frames == len(tone(world.replicas.jobs[0]))
        samples, _ = soundfile.read(io.BytesIO(second.content), dtype="float32")
        np.testing.assert_allclose(samples, tone(world.replicas.jobs[0]), atol=1e-4)
        again = world.client.get(f"/v1/audio/speech/{first.headers['x-speech-id']}")
        assert again.content == second.content
    content = second.content if response_format == "wav" else world.say().content
    assert int.from_bytes(content[4:8], "little") == len(content) - 8
    assert int.from_bytes(content[40:44], "little") == len(content) - 44


def test_players_get_the_parts_that_they_ask_for() -> None:
    world = World(cache_bytes=1 << 20)
    said = world.say("A sentence of some length.", response_format="mp3")
    path = f"/v1/audio/speech/{said.headers['x-speech-id']}"
    whole = world.client.get(path)
    size = len(said.content)
    assert (whole.status_code, whole.content) == (200, said.content)
    assert (whole.headers["accept-ranges"], whole.headers["content-type"]) == ("bytes", "audio/mpeg")
    parts = {
        "bytes=0-": (0, size), "bytes=0-0": (0, 1), "bytes=10-19": (10, 20), "bytes=10-999999": (10, size),
        "bytes=-5": (size - 5, size), "bytes=-999999": (0, size), f"bytes={size - 1}-": (size - 1, size), "Bytes= 3-4": (3, 5),
    }  # fmt: skip
    for asked, (start, end) in parts.items():
        part = world.client.get(path, headers={"range": asked})
        assert (part.status_code, part.content) == (206, said.content[start:end]), asked
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
        assert part.headers["content-length"] == str(end - start)
    for beyond in (f"bytes={size}-", f"bytes={size}-{size + 5}", "bytes=-0"):
        refused = world.client.get(path, headers={"range": beyond})
        assert refused.status_code == 416 and refused.headers["content-range"] == f"bytes */{size}"
        assert error_of(refused)["code"] == "range_not_satisfiable"
    for ignored in ("bytes=0-1,5-6", "bytes=5-3", "bytes=x-", "seconds=0-1", "bytes=-", "bytes=" + "9" * 40 + "-"):
        assert world.client.get(path, headers={"range": ignored}).content == said.content, ignored
    tag = whole.headers["etag"]
    assert world.client.get(path, headers={"range": "bytes=0-0", "if-range": tag}).status_code == 206
    assert world.client.get(path, headers={"range": "bytes=0-0", "if-range": '"other"'}).status_code == 200
    head = world.client.head(path, headers={"range": "bytes=0-0"})  # ranges are of GET alone
    assert (head.status_code, head.headers["content-length"]) == (200, str(size))


def test_an_answer_is_told_to_its_own_key_alone(tmp_path: Path) -> None:
    secrets = []
    for name in ("alice", "bob"):
        secret, key = new_key(name)
        add_key(tmp_path / "keys", key)
        secrets.append({"authorization": f"Bearer {secret}"})
    world = World(keys=str(tmp_path / "keys"), cache_bytes=1 << 20)
    world.client.headers |= secrets[0]
    hers = f"/v1/audio/speech/{world.say().headers['x-speech-id']}"
    assert world.client.get(hers).status_code == 200
    for other in (secrets[1], {"authorization": ""}):
        refused = world.client.get(hers, headers=other)
        assert refused.status_code == (404 if other["authorization"] else 401)
    world.client.headers |= secrets[1]
    hit = world.say()  # the same answer, under an id of his own
    assert hit.headers["x-cache"] == "hit"
    assert world.client.get(f"/v1/audio/speech/{hit.headers['x-speech-id']}").content == hit.content


def test_what_is_not_there_any_more_or_yet_is_404() -> None:
    now = [0.0]
    cache = AnswerCache(100)
    ids = AnswerIds(cache, lambda: now[0])
    cache.put("key", Answer(b"sound", "audio/mpeg"))
    ids.add("one", "key", "alice")
    assert ids.find("one", "alice") and ids.find("one", "bob") is ids.find("two", "alice") is ids.find("", "") is None
    now[0] = KEEP_S - 1
    assert ids.find("one", "alice")
    now[0] = KEEP_S + 1
    assert ids.find("one", "alice") is None
    ids.add("one", "key", "alice")
    cache.clear()  # as the bytes of others push it out
    assert ids.find("one", "alice") is None
    cut = World(FakeReplicas([2] * 9), cache_bytes=1 << 20)
    begun = cut.say()
    assert begun.status_code == 200 and len(cut.front.cache) == 0
    assert error_of(cut.client.get(f"/v1/audio/speech/{begun.headers['x-speech-id']}"))["code"] == "speech_not_found"
    for path in ("none", "../speech", "%2e%2e", "x" * 5000):
        assert World().client.get(f"/v1/audio/speech/{path}").status_code in (404, 405)


def test_another_front_may_have_it() -> None:
    asked = []

    async def elsewhere(answer_id: str, owner: str) -> Answer | None:
        asked.append((answer_id, owner))
        return Answer(b"sound", "audio/mpeg") if answer_id == "theirs" else None

    world = World(cache_bytes=1 << 20)
    world.front.elsewhere = elsewhere
    own = world.say().headers["x-speech-id"]
    assert [world.client.get(f"/v1/audio/speech/{name}").status_code for name in (own, "theirs", "no")] == [
        200,
        200,
        404,
    ]
    assert asked == [("theirs", ""), ("no", "")]


def test_answers_that_are_not_kept_have_no_id() -> None:
    assert "x-speech-id" not in World(cache_bytes=0).say().headers
    assert "x-speech-id" not in World(cache_bytes=1 << 20).say(stream_format="sse").headers
    whole = World(cache_bytes=1 << 20)
    answer = whole.client.post("/tts", json={"text": "Good evening."})
    assert whole.client.get(f"/v1/audio/speech/{answer.headers['x-speech-id']}").content == answer.content


# --- texts without words ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return served(make_character_voice(tmp_path_factory.mktemp("voices") / "characters"))


@pytest.mark.parametrize(
    "text", ["\N{SLIGHTLY SMILING FACE}", "...", "***", "…", "\N{REGIONAL INDICATOR SYMBOL LETTER F}"]
)
@pytest.mark.parametrize("response_format", FORMATS)
def test_a_text_without_words_is_a_short_silence(client: Any, text: str, response_format: str) -> None:
    asked = {"model": "tts-1", "voice": "alloy", "input": text, "response_format": response_format}
    answer = client.post("/v1/audio/speech", json=asked)
    assert answer.status_code == 200
    if response_format == "pcm":
        samples, rate = np.frombuffer(answer.content, "<i2") / 32768, 24_000
    else:
        samples, rate = read_audio(answer.content)
    assert 0.1 < len(samples) / rate < 0.5 and np.abs(samples).max() < 1e-3


def test_silence_has_every_form_that_sound_has(client: Any) -> None:
    text = "\N{SLIGHTLY SMILING FACE}"
    asked = {"model": "tts-1", "voice": "alloy", "input": text, "stream_format": "sse"}
    told = events(client.post("/v1/audio/speech", json=asked))
    assert told[-1]["type"] == "speech.audio.done" and any(event.get("audio") for event in told)
    told = events(client.post("/tts", json={"text": text, "timestamps": True, "stream": True}))
    assert told[-1]["seconds"] == pytest.approx(0.2) and not any(event.get("words") for event in told)
    whole = client.post("/tts", json={"text": text, "timestamps": True}).json()
    assert (whole["words"], whole["seconds"]) == ([], pytest.approx(0.2))
    assert len(read_audio(base64.b64decode(whole["audio"]))[0]) == pytest.approx(0.2 * whole["sample_rate"], abs=1)
    with client.websocket_connect("/ws") as socket:
        socket.send_json({"type": "text", "text": "..."})
        socket.send_json({"type": "flush"})
        messages, sound = until(socket, "flushed")
        assert not any(message["type"] == "error" for message in messages)
        assert len(sound) == pytest.approx(2 * 0.2 * 24_000, abs=4) and not any(sound)


def test_pauses_alone_are_as_long_as_they_say(client: Any) -> None:
    for body in ({"text": "... [pause:1s]"}, {"text": "<speak>…<break time='1s'/></speak>", "input_type": "ssml"}):
        answer = client.post("/tts", json=body)
        samples, rate = read_audio(answer.content)
        assert len(samples) / rate == pytest.approx(1.0) and not samples.any()


def test_words_that_cannot_be_spoken_are_refused_as_before(client: Any) -> None:
    hebrew = "\N{HEBREW LETTER SHIN}\N{HEBREW LETTER LAMED}"
    for text in (hebrew, f"{hebrew}. \N{SLIGHTLY SMILING FACE}", f"... {hebrew}"):
        answer = client.post("/tts", json={"text": text})
        assert answer.status_code == 400 and error_of(answer)["code"] == "unspeakable", text
    answer = client.post("/tts", json={"text": "<speak>...", "input_type": "ssml"})
    assert answer.status_code == 400 and "SSML" in error_of(answer)["message"]
    assert client.post("/tts", json={"text": "...", "speaker": "nobody"}).status_code == 400


# --- WebSocket --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "param"), [({"response_format": "mp3"}, "response_format"), ({"voice": "tiny"}, "voice")]
)
def test_another_file_in_mid_text_is_refused_and_the_text_goes_on(change: dict[str, Any], param: str) -> None:
    world = World()
    start = {"type": "start", "response_format": "wav"}
    with world.client.websocket_connect("/ws") as socket:
        socket.receive_json()
        socket.send_json(start)
        assert socket.receive_json()["type"] == "ready"
        socket.send_json({"type": "text", "text": "One is here, and two. Three"})
        socket.send_json({**start, **change})
        told, sound = until(socket, "error")
        assert told[-1]["error"]["param"] == param and "flush first" in told[-1]["error"]["message"]
        socket.send_json({**start, "speed": 2.0})  # what the file does not depend on may change
        told, more = until(socket, "ready")
        sound += more
        socket.send_json({"type": "text", "text": " and four."})
        socket.send_json({"type": "flush"})
        told, more = until(socket, "flushed")
        samples, rate = soundfile.read(io.BytesIO(sound + more), dtype="float32")
        assert rate == RATE and len(samples) / RATE == pytest.approx(told[-1]["seconds"], abs=0.01)
        assert {job.voice for job in world.replicas.jobs} == {"rms"}
        socket.send_json({**start, **change})  # after the flush it may
        assert until(socket, "ready")[0][-1]["response_format"] == change.get("response_format", "wav")
        socket.send_json({"type": "text", "text": "Five"})
        socket.send_json({"type": "cancel"})
        until(socket, "cancelled")
        socket.send_json(start)  # after a cancel, too
        assert until(socket, "ready")[0][-1]["sample_rate"] == RATE
