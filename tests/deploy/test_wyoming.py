"""The Wyoming gateway before a server with keys, by the client of the protocol's own package."""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import deploy.wyoming as own
import deploy.wyoming_talk as talk
from deploy.keys import add_key, new_key
from deploy.serve import add_parser, serving
from deploy.wyoming import GatewaySettings, gateway, gateway_settings
from flowtts_core.errors import ConfigError
from flowtts_core.voice.card import FLOW_VOICE
from tests.deploy.test_serve import TEXT, speakers_are_idle

pytest.importorskip("wyoming")
pytestmark = pytest.mark.timeout(280)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A keys file, and the file of the gateway's key."""
    folder = tmp_path_factory.mktemp("keys")
    secret, key = new_key("wyoming", concurrent=2)
    add_key(folder / "keys.jsonl", key)
    (folder / "wyoming.key").write_text(secret + "\n")
    return folder / "keys.jsonl", folder / "wyoming.key"


@pytest.fixture(scope="module")
def url(keys: tuple[Path, Path]) -> Iterator[str]:
    options = {"keys": str(keys[0]), "cache_mb": 0, "min_replicas": 1, "max_replicas": 1, "voices": [FLOW_VOICE]}
    with serving(options, "127.0.0.1", 0) as url:
        yield url


@pytest.fixture(scope="module")
def address(url: str, keys: tuple[Path, Path]) -> Iterator[str]:
    with gateway(GatewaySettings("127.0.0.1", 0, key=keys[1].read_text().strip()), url) as address:
        assert address is not None
        yield address


def ask(address: str, *events: Any, until: str, timeout: float = 60) -> list[Any]:
    """The events that answer what is sent, up to one of a type, or to the end of the connection."""
    from wyoming.client import AsyncTcpClient

    async def conversation() -> list[Any]:
        host, port = address.rsplit(":", 1)
        got: list[Any] = []
        with suppress(ConnectionResetError):  # who is refused before it has spoken
            async with asyncio.timeout(timeout), AsyncTcpClient(host, int(port)) as client:
                for event in events:
                    await client.write_event(event.event())
                while not got or got[-1].type != until:
                    event = await client.read_event()
                    if event is None:
                        break
                    got.append(event)
        return got

    return asyncio.run(conversation())


def sound_of(events: list[Any]) -> bytes:
    return b"".join(event.payload for event in events if event.type == "audio-chunk")


def raw(address: str, content: bytes) -> bytes:
    """All that comes back for bytes that are no client's."""
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(content)
        got = b""
        while piece := connection.recv(4096):
            got += piece
        return got


def test_the_info_names_the_voices(address: str) -> None:
    from wyoming.info import Describe, Info

    [event] = ask(address, Describe(), until="info")
    [program] = Info.from_event(event).tts
    assert program.installed and program.supports_synthesize_streaming
    [voice] = program.voices
    assert (voice.name, voice.languages, voice.installed) == (FLOW_VOICE, ["en-US"], True)
    assert [speaker.name for speaker in voice.speakers] == ["heart", "michael"]


def test_a_text_sounds_as_it_does_over_http(url: str, address: str, keys: tuple[Path, Path]) -> None:
    from wyoming.tts import Synthesize, SynthesizeVoice

    events = ask(address, Synthesize(TEXT, SynthesizeVoice(FLOW_VOICE, speaker="michael")), until="audio-stop")
    kinds = [event.type for event in events]
    assert kinds[0] == "audio-start" and kinds[-1] == "audio-stop" and set(kinds[1:-1]) == {"audio-chunk"}
    assert len(kinds) > 10
    assert {k: events[0].data[k] for k in ("rate", "width", "channels")} == {"rate": 24_000, "width": 2, "channels": 1}
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    body = {"text": TEXT, "voice": f"{FLOW_VOICE}@michael", "response_format": "pcm", "stream": True}
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {keys[1].read_text().strip()}"}
    connection.request("POST", "/tts", json.dumps(body), headers)
    answer = connection.getresponse()
    assert answer.status == 200 and answer.read() == sound_of(events)
    by_language = ask(address, Synthesize("Yes.", SynthesizeVoice(language="en_GB")), until="audio-stop")
    assert by_language == ask(address, Synthesize("Yes."), until="audio-stop")
    assert 0.2 < len(sound_of(by_language)) / 48_000 < 3


def test_a_text_in_pieces_is_spoken_as_it_comes(address: str) -> None:
    """As Home Assistant sends it: the pieces, and the whole once more for servers that take none."""
    from wyoming.ping import Ping
    from wyoming.tts import Synthesize, SynthesizeChunk, SynthesizeStart, SynthesizeStop, SynthesizeVoice

    pieces = [SynthesizeChunk(word + " ") for word in TEXT.split()]
    start = SynthesizeStart(SynthesizeVoice(FLOW_VOICE, speaker="heart"))
    events = ask(
        address, start, *pieces, Ping("still here"), Synthesize(TEXT), SynthesizeStop(), until="synthesize-stopped"
    )
    kinds = [event.type for event in events if event.type != "pong"]
    assert "pong" in {event.type for event in events}
    assert kinds[0] == "audio-start" and kinds[-2:] == ["audio-stop", "synthesize-stopped"]
    assert set(kinds[1:-2]) == {"audio-chunk"} and 3 < len(sound_of(events)) / 48_000 < 9
    events = ask(address, SynthesizeStart(), SynthesizeChunk("  "), SynthesizeStop(), until="synthesize-stopped")
    assert [event.type for event in events] == ["audio-start", "audio-stop", "synthesize-stopped"]


def test_what_the_server_refuses_is_told_and_ends_the_connection(address: str) -> None:
    from wyoming.tts import Synthesize, SynthesizeChunk, SynthesizeStart, SynthesizeStop, SynthesizeVoice

    def error(*events: Any) -> tuple[str, str]:
        *_, last = ask(address, *events, until="never")
        assert last.type == "error"
        return last.data["code"], last.data["text"]

    assert error(Synthesize("Hello.", SynthesizeVoice("nobody")))[0] == "voice_not_found"
    assert "sw" in error(Synthesize("Hello.", SynthesizeVoice(language="sw")))[1]
    assert error(Synthesize("word " * 2000))[0] == "text_too_long"
    assert error(SynthesizeStart(SynthesizeVoice("nobody")), SynthesizeChunk("Hello."), SynthesizeStop())[0]
    assert error(SynthesizeStop())[0] == "invalid_value"
    assert error(Synthesize(None))[0]  # type: ignore[arg-type]  # what a careless client sends


def test_marks_are_read_where_the_text_is_whole(address: str) -> None:
    from wyoming.tts import Synthesize, SynthesizeStart

    marked = Synthesize('<speak>Yes.<break time="2s"/></speak>', text_format="ssml")
    assert len(sound_of(ask(address, marked, until="audio-stop"))) / 48_000 > 2
    assert ask(address, SynthesizeStart(text_format="ssml"), until="never")[-1].type == "error"


def test_a_client_that_leaves_stops_the_work(address: str) -> None:
    from wyoming.tts import Synthesize, SynthesizeChunk, SynthesizeStart

    long = TEXT * 50  # a minute's work on one core, uncancelled
    assert ask(address, Synthesize(long), until="audio-start")
    assert speakers_are_idle(10)
    assert ask(address, SynthesizeStart(), SynthesizeChunk(long), until="audio-chunk")
    assert speakers_are_idle(10)


def test_the_key_and_its_limits_hold(url: str, address: str, keys: tuple[Path, Path]) -> None:
    from wyoming.client import AsyncTcpClient
    from wyoming.info import Describe
    from wyoming.tts import Synthesize

    with gateway(GatewaySettings("127.0.0.1", 0, key="ftts-revoked"), url) as unknown:
        assert unknown is not None
        for event in (Describe(), Synthesize("Hello.")):
            assert ask(unknown, event, until="never")[-1].data["code"] == "invalid_api_key"

    async def three() -> list[Any]:
        host, port = address.rsplit(":", 1)
        clients = [AsyncTcpClient(host, int(port)) for _ in range(3)]
        first = []
        for client in clients:
            await client.connect()
            await client.write_event(Synthesize(TEXT * 20).event())
            first.append(await client.read_event())
        for client in clients:
            await client.disconnect()
        return first

    *begun, third = asyncio.run(three())
    assert [event.type for event in begun] == ["audio-start"] * 2
    assert third.data["code"] == "concurrency_limit"
    assert speakers_are_idle(10)


def test_bytes_that_are_no_events_are_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for content in (
        b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b'{"type": "describe", "data_length": 1000000000}\n',
        b'{"type": "describe", "payload_length": -1}\n',
        b"[" * 100_000 + b"\n",
        b'{"type": "synthesize", "data": {"text": "' + b"a" * 300_000 + b'"}}\n',
        b'{"type": 3}\n',
    ):
        told = json.loads(raw(address, content).split(b"\n", 1)[0])
        assert told["type"] == "error", content[:60]
    monkeypatch.setattr(talk, "EVENT_S", 0.2)
    assert raw(address, b'{"type": "descr') == b""  # never finished
    monkeypatch.setattr(talk, "IDLE_S", 0.2)
    assert raw(address, b"") == b""  # never begun


def test_clients_are_bounded(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from wyoming.info import Describe

    monkeypatch.setattr(own, "MAX_CLIENTS", 1)
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port))):
        time.sleep(0.2)
        assert ask(address, Describe(), until="never")[-1].data["code"] == "overloaded"


def test_only_named_networks_are_let_in(url: str, keys: tuple[Path, Path]) -> None:
    from ipaddress import ip_address, ip_network

    from wyoming.info import Describe

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("203.0.113.1", 9))  # sends nothing: it asks which address we would have
        here = probe.getsockname()[0]
    if ip_address(here).is_loopback:
        pytest.skip("needs a network interface")
    key = keys[1].read_text().strip()
    for allowed, answered in ((f"{here}/32", True), ("198.51.100.0/24", False)):
        settings = GatewaySettings("0.0.0.0", 0, (ip_network(allowed),), key)
        with gateway(settings, url) as address:
            assert address is not None
            port = address.rsplit(":", 1)[1]
            told = [event.type for event in ask(f"{here}:{port}", Describe(), until="info")]
            assert told == (["info"] if answered else [])
            assert ask(f"127.0.0.1:{port}", Describe(), until="info")  # this machine always


def test_answers_under_way_are_finished_at_the_end(url: str, keys: tuple[Path, Path]) -> None:
    from wyoming.client import AsyncTcpClient
    from wyoming.tts import Synthesize

    async def speak_while_it_ends() -> list[str]:
        ending = gateway(GatewaySettings("127.0.0.1", 0, key=keys[1].read_text().strip()), url)
        address = ending.__enter__()
        assert address is not None
        host, port = address.rsplit(":", 1)
        async with AsyncTcpClient(host, int(port)) as client:
            await client.write_event(Synthesize(TEXT).event())
            kinds = [(await client.read_event()).type]  # type: ignore[union-attr]  # None, a closed connection, fails the test
            closed = asyncio.create_task(asyncio.to_thread(ending.__exit__, None, None, None))
            while (event := await client.read_event()) is not None:
                kinds.append(event.type)
            await closed
        return kinds

    kinds = asyncio.run(speak_while_it_ends())
    assert kinds[0] == "audio-start" and kinds[-1] == "audio-stop"


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    return parser.parse_args(["serve", *words])


def test_options_that_would_let_everybody_in_are_refused(keys: tuple[Path, Path], tmp_path: Path) -> None:
    keyed = ["--keys", str(keys[0])]
    assert gateway_settings(parsed()) is None
    assert gateway_settings(parsed("--wyoming", "10200")) == GatewaySettings("127.0.0.1", 10200)
    told = gateway_settings(parsed("--wyoming", "0.0.0.0:1", "--wyoming-allow", "192.168.1.7"))
    assert told is not None and [str(network) for network in told.networks] == ["192.168.1.7/32"]
    told = gateway_settings(parsed("--wyoming", "[::1]:1", *keyed, "--wyoming-key", str(keys[1])))
    assert told is not None and told.key == keys[1].read_text().strip() and told.host == "::1"
    (tmp_path / "other.key").write_text("ftts-other")
    for words, reason in (
        (["--wyoming", "0.0.0.0:10200"], "--wyoming-allow"),
        (["--wyoming", "0.0.0.0:10200", *keyed, "--wyoming-key", str(keys[1])], "--wyoming-allow"),
        (["--wyoming", "10200", *keyed], "--wyoming-key"),
        (["--wyoming", "10200", *keyed, "--wyoming-key", str(tmp_path / "other.key")], "not known"),
        (["--wyoming", "10200", *keyed, "--wyoming-key", str(tmp_path / "none.key")], "cannot be read"),
        (["--wyoming", "10200", "--wyoming-key", str(keys[1])], "--keys"),
        (["--wyoming", "0.0.0.0:1", "--wyoming-allow", "0.0.0.0/0"], "everybody"),
        (["--wyoming", "0.0.0.0:1", "--wyoming-allow", "192.168.1.1/24"], "host bits"),
        (["--wyoming", "example.com:1"], "address"),
        (["--wyoming", "99999"], "PORT"),
        (["--wyoming-allow", "10.0.0.0/8"], "--wyoming"),
    ):
        with pytest.raises(ConfigError) as refused:
            gateway_settings(parsed(*words))
        assert reason in str(refused.value), words


def test_a_port_that_is_taken_is_named(url: str) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(ConfigError, match="cannot listen"),
        gateway(GatewaySettings("127.0.0.1", taken.getsockname()[1]), url),
    ):
        pass
