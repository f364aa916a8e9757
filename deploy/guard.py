"""What stands before every handler: request ids, keys, sizes and times, errors in one shape, and one log line a request."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

from deploy.errors import ApiError, ending, internal_error, misdirected
from deploy.front import AnswerCut, Front
from deploy.speech import ReplicaLost

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

log = logging.getLogger("flowtts.access")
OPEN_PATHS = frozenset(("/", "/healthz", "/readyz", "/favicon.ico"))  # without a key; all other paths need one
LOCAL_NAMES = frozenset(("localhost", "127.0.0.1", "::1"))
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
QUIET_S = 1.0  # after the last word of either side, a WebSocket may be left
CLOSE_POLICY, CLOSE_BUSY = 1008, 1013  # of WebSockets, RFC 6455


class Guard:
    """Wraps the application; a request that it refuses never reaches it. HEAD is answered as GET, without the body.

    Args:
        tell_id: add `X-Request-ID` to answers; behind Serve's proxy, which does, it would stand there twice.
    """

    def __init__(self, app: Any, front: Front, tell_id: bool = True) -> None:
        self.app, self.front, self.tell_id = app, front, tell_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        call = _Call(scope, send, self.tell_id)
        scope.setdefault("state", {})["call"] = call
        inner = {**scope, "method": "GET"} if call.head else scope
        self.front.calls.add(call)
        try:
            with ExitStack() as stack:
                self._admit(scope, call, stack)
                await self._run(inner, self._limited(scope, call.hearing(receive)), call)
        except ApiError as error:
            await call.refuse(error)
        except AnswerCut as cut:
            call.code = cut.error.code
            raise  # the connection breaks: a client must not take what it got for the whole
        except (TimeoutError, ReplicaLost) as error:
            await call.refuse(ApiError(503, "the answer took too long", "timeout", None, 2), error)
        except Exception as error:
            log.exception("a handler failed")
            await call.refuse(internal_error(), error)
        finally:
            self.front.calls.discard(call)
            self._tell(scope, call)

    async def _run(self, scope: Scope, receive: Receive, call: _Call) -> None:
        async with asyncio.timeout(self.front.settings.limits.answer_s):
            await self.app(scope, receive, call.send)

    def _admit(self, scope: Scope, call: _Call, stack: ExitStack) -> None:
        """Raises ApiError for requests that must not be answered."""
        headers = call.headers
        settings = self.front.settings
        if settings.instance and not _same(settings.instance, headers.get("x-flowtts-instance", "")):
            raise misdirected()
        if settings.local_only and _host_name(headers.get("host", "")) not in LOCAL_NAMES | {*settings.allowed_hosts}:
            raise ApiError(
                403, "this server answers to local names and those of --allowed-host: it has no keys", "wrong_host"
            )
        if self.front.ending and scope["path"] != "/healthz":
            raise ending()
        origin = headers.get("origin")
        if scope["type"] == "websocket" and origin and not self._welcome(origin, headers.get("host", "")):
            raise ApiError(403, "pages of this origin may not use the server", "wrong_origin")
        if scope["path"] in OPEN_PATHS or (scope["type"] == "http" and scope["method"] == "OPTIONS"):
            return
        key = self.front.keyring.find(headers.get("authorization") or _protocol_key(headers))
        if key is not None:
            call.key, call.owner, call.may_clone = key.name, key.sha256, key.cloning
        call.may_clone = call.may_clone or settings.cloning
        if scope["type"] == "websocket" or scope["method"] == "POST":
            stack.enter_context(self.front.keyring.admitted(key))

    def _welcome(self, origin: str, host: str) -> bool:
        origins = self.front.settings.origins
        return "*" in origins or origin in origins or origin.partition("://")[2] == host

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        """`receive` that raises ApiError 413 when the body grows too long."""
        if scope["type"] != "http":
            return receive
        limit = self.front.settings.body_bytes_at(scope["path"])
        got = 0

        async def limited() -> Message:
            nonlocal got
            message = await receive()
            got += len(message.get("body", b""))
            if got > limit:
                raise too_large(limit)
            return message

        return limited

    def _tell(self, scope: Scope, call: _Call) -> None:
        self.front.meters.answered(call.status, call.code)
        line = {
            "id": call.id,
            "method": scope.get("method", "WS"),
            "path": scope["path"][:100],
            "status": call.status,
            "code": call.code,
            "key": call.key,
            "seconds": round(time.perf_counter() - call.began, 4),
            "bytes": call.sent,
            **call.notes,
        }
        log.info(json.dumps(line, ensure_ascii=True))


class _Call:
    """One request: what is sent goes through here, with the request's id added, and without a body where HEAD asks for none.

    Attributes:
        key, owner: the name and the hash of the key that was shown; "" without one.
        may_clone: whether it may have recordings imitated.
    """

    def __init__(self, scope: Scope, send: Send, tell_id: bool) -> None:
        self.websocket = scope["type"] == "websocket"
        self.head = scope.get("method") == "HEAD"
        self.headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        given = self.headers.get("x-request-id", "")
        self.id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        self.began = time.perf_counter()
        self.key, self.owner, self.code, self.status, self.sent = "", "", "", 0, 0
        self.notes: dict[str, Any] = {}
        self.may_clone = False
        self._send, self._started, self._tell_id = send, False, tell_id
        self._last = self.began

    @property
    def quiet(self) -> bool:
        """Whether this is a WebSocket on which nothing is said."""
        return self.websocket and time.perf_counter() - self._last > QUIET_S

    def hearing(self, receive: Receive) -> Receive:
        """`receive`, which notes when something came."""

        async def received() -> Message:
            message = await receive()
            self._last = time.perf_counter()
            return message

        return received

    async def send(self, message: Message) -> None:
        self._last = time.perf_counter()
        kind = message["type"]
        if kind == "http.response.start":
            self.status, self._started = message["status"], True
            own = [(b"x-request-id", self.id.encode())] if self._tell_id else []
            message = {**message, "headers": [*message.get("headers", ()), *own]}
        elif kind == "websocket.accept":
            self.status, self._started = 101, True
        elif kind == "http.response.body":
            message = {**message, "body": b""} if self.head else message
            self.sent += len(message.get("body", b""))
        elif kind == "websocket.send":
            self.sent += len(message.get("bytes") or message.get("text") or b"")
        await self._send(message)

    async def refuse(self, error: ApiError, cause: Exception | None = None) -> None:
        """Answer with an error; where the answer has begun, break it off."""
        self.code = error.code
        if self.websocket:
            self.status = error.status
            code = CLOSE_BUSY if error.status in (429, 503) else CLOSE_POLICY
            await self._send({"type": "websocket.close", "code": code, "reason": error.code})
            return
        if self._started:
            raise AnswerCut(error) from cause
        body = json.dumps(error.body).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)), **error.headers}
        raw = [(key.lower().encode(), value.encode()) for key, value in headers.items()]
        await self.send({"type": "http.response.start", "status": error.status, "headers": raw})
        await self.send({"type": "http.response.body", "body": body})


def too_large(limit: int) -> ApiError:
    return ApiError(413, f"the request's body is longer than {limit} bytes", "body_too_large")


def _same(secret: str, given: str) -> bool:
    return hmac.compare_digest(secret.encode(), given.encode("latin-1"))


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # brackets around what is no address
        return ""


def _protocol_key(headers: dict[str, str]) -> str | None:
    """Browsers cannot set headers of a WebSocket: there the key may come as the subprotocol `flowtts-key.KEY`."""
    for protocol in headers.get("sec-websocket-protocol", "").split(","):
        if protocol.strip().startswith("flowtts-key."):
            return "Bearer " + protocol.strip().removeprefix("flowtts-key.")
    return None
