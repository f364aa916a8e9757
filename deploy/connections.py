"""The HTTP protocol of every port that Serve opens: headers must come in time, and clients of HTTP/1.0 get no chunks.

Serve imports `install` where `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH` says so, in its proxy and in the fronts, before they
listen. uvicorn has a setting for neither: whoever sends a header a minute holds a connection for ever, and an answer of
unknown length comes in chunks, which HTTP/1.0 does not know. nginx speaks HTTP/1.0 to what stands behind it unless told.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.middleware import Middleware
from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADERS_S = 10.0  # as haproxy.sh gives HAProxy's clients
MAX_HELD = 64 << 10  # bytes of a request that is not yet told to be of HTTP/1.0 or later
TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


def install() -> list[Middleware]:
    """Let uvicorn's servers in this process speak `TimelyProtocol`. Serve wants middlewares; there are none."""
    HTTP_PROTOCOLS["auto"] = f"{__name__}:{TimelyProtocol.__name__}"
    return []


class TimelyProtocol(HttpToolsProtocol):
    """One connection; closed where a request's headers are not complete within `HEADERS_S`.

    uvicorn calls the `on_` methods as its parser finds the parts of a request. A request of HTTP/1.0 is handed to uvicorn's
    other protocol, which ends an answer of unknown length by closing.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._between_requests = True
        self._held = b""  # of a request, until its first line is complete, or if that says HTTP/1.0, its headers
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows asyncio's type too
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._between_requests:
            data, self._held = self._held + data, b""
            line, line_ends, _ = data.lstrip(b"\r\n").partition(b"\n")
            old = line.rstrip().endswith(b" HTTP/1.0")
            complete = line_ends and not (old and b"\r\n\r\n" not in data)
            if not complete and len(data) <= MAX_HELD:
                self._held = data
                self._start_timer()
                return
            if old:
                self._hand_over(data)
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        self._between_requests = False
        self._start_timer()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._stop_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._between_requests = True
        super().on_message_complete()

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEADERS_S, self._give_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self.cycle is not None and not self.cycle.response_complete:  # the answer to the request before goes first
            self._start_timer()
        elif not self.transport.is_closing():
            self.transport.write(TOO_SLOW)
            self.transport.close()

    def _hand_over(self, data: bytes) -> None:
        """As uvicorn hands over a WebSocket."""
        self._stop_timer()
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
        self.connections.discard(self)
        protocol = H11Protocol(self.config, self.server_state, self.app_state)
        protocol.connection_made(self.transport)
        self.transport.set_protocol(protocol)
        protocol.data_received(data)
