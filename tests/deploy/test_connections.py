"""uvicorn with our protocol: slow headers, HTTP/1.0, and all else as uvicorn does it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from deploy import connections


async def say(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the request's body, in three pieces; a WebSocket is told something late."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        import asyncio

        await asyncio.sleep(3 * connections.HEADERS_S)
        await send({"type": "websocket.send", "text": "late"})
        await send({"type": "websocket.close"})
        return
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for piece in (b"<", body, b">"):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    from uvicorn.config import HTTP_PROTOCOLS

    patch = pytest.MonkeyPatch()
    patch.setitem(HTTP_PROTOCOLS, "auto", HTTP_PROTOCOLS["auto"])
    patch.setattr(connections, "HEADERS_S", 0.5)
    assert connections.install() == []
    server = uvicorn.Server(uvicorn.Config(say, port=0, lifespan="off", log_level="critical"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 10
    while not server.started and time.monotonic() < until:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(10)
    patch.undo()


def told(port: int, *parts: bytes, pause_s: float = 0.05) -> bytes:
    """All that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
        for part in parts:
            raw.sendall(part)
            time.sleep(pause_s)
        answer = b""
        while piece := raw.recv(65536):
            answer += piece
    return answer


CLOSING = b"POST /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"
OLD = b"POST /x HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello"


@pytest.mark.parametrize("cuts", [(), (3,), (15,), (20, 30), tuple(range(1, 40, 2))])
def test_http_1_0_gets_a_plain_body_however_its_request_comes(port: int, cuts: tuple[int, ...]) -> None:
    edges = (0, *cuts, None)
    parts = [OLD[a:b] for a, b in zip(edges, edges[1:], strict=False)]
    head, _, body = told(port, *parts, pause_s=0.001).partition(b"\r\n\r\n")
    assert b" 200 " in head and b"chunked" not in head.lower() and body == b"<hello>"


def test_an_old_request_on_a_used_connection(port: int) -> None:
    """As HAProxy sends them, which keeps connections for all its clients."""
    first = CLOSING.replace(b"Connection: close\r\n", b"")
    answer = told(port, first, OLD)
    assert answer.count(b" 200 ") == 2 and answer.endswith(b"\r\n\r\n<hello>") and answer.count(b"chunked") == 1


@pytest.mark.parametrize("cuts", [(), (3,), (20, 30), (len(CLOSING) - 2,)])
def test_http_1_1_is_as_before(port: int, cuts: tuple[int, ...]) -> None:
    edges = (0, *cuts, None)
    answer = told(port, *(CLOSING[a:b] for a, b in zip(edges, edges[1:], strict=False)))
    assert b" 200 " in answer and answer.endswith(b"1\r\n<\r\n5\r\nhello\r\n1\r\n>\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    "begun", [b"", b"PO", b"POST /x HTTP/1.1\r\nHost", b"POST /x HTTP/1.0\r\nHost: a\r\n", b"\r\n", b"x" * 70_000]
)
def test_headers_that_do_not_come_end_the_connection(port: int, begun: bytes) -> None:
    answer = told(port, begun)
    assert b" 408 " in answer.split(b"\r\n")[0] or (len(begun) > 65_536 and b" 400 " in answer)


def test_headers_that_come_a_byte_at_a_time_end_the_connection(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\n")
        ended = False
        for _ in range(200):
            try:
                raw.sendall(b"a")
            except (BrokenPipeError, ConnectionResetError):
                ended = True
                break
            time.sleep(0.02)
        assert ended


def test_slow_headers_after_an_answer_end_the_connection(port: int) -> None:
    first = CLOSING.replace(b"Connection: close\r\n", b"")
    answer = told(port, first, b"POST /x HTTP/1.1\r\nHo")
    assert b" 200 " in answer and b" 408 " in answer


def test_a_websocket_lasts_longer_than_headers_may(port: int) -> None:
    from websockets.sync.client import connect

    with connect(f"ws://127.0.0.1:{port}/") as ws:
        assert ws.recv(10) == "late"


def test_a_slow_body_is_the_applications_affair(port: int) -> None:
    head, body = CLOSING[:-5], CLOSING[-5:]
    assert b" 200 " in told(port, head, body, pause_s=1.2)
