"""The errors that a client of the server can meet, in the shape of OpenAI's."""

from __future__ import annotations

import math
from typing import Any


class ApiError(Exception):
    """An answer other than the audio.

    Args:
        status: of HTTP.
        message: what is wrong, for people.
        code: what is wrong, for programs.
        param: the field of the request, where one is to blame.
        retry_after_s: when to try again, for 429 and 503.
        more_headers: of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        param: str | None = None,
        retry_after_s: float | None = None,
        *,
        more_headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code
        self.param, self.retry_after_s, self.more_headers = param, retry_after_s, more_headers or {}

    @property
    def headers(self) -> dict[str, str]:
        headers = dict(self.more_headers)
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after_s)))
        return {**headers, "WWW-Authenticate": "Bearer"} if self.status == 401 else headers

    @property
    def body(self) -> dict[str, Any]:
        """`{"error": {"message", "type", "param", "code"}}`."""
        return {"error": {"message": self.message, "type": _type(self.status), "param": self.param, "code": self.code}}


def _type(status: int) -> str:
    named = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    return named.get(status, "invalid_request_error" if status < 500 else "server_error")


def overloaded(retry_after_s: float) -> ApiError:
    """All replicas have more queued than they may."""
    return ApiError(503, "the server has more to say than it can: try again later", "overloaded", None, retry_after_s)


def internal_error() -> ApiError:
    """A fault of ours, of which the log says more."""
    return ApiError(500, "something unforeseen went wrong", "internal_error")


def ending() -> ApiError:
    """The server was told to stop, and makes only the answers that it has begun."""
    return ApiError(503, "the server is about to stop: try again later", "ending", None, 5)


def misdirected() -> ApiError:
    """The request did not come by this server's own proxy."""
    return ApiError(421, "this port is not for clients: ask the server by the address that it says", "misdirected")


def unavailable() -> ApiError:
    """Replicas died under the request more often than it is retried."""
    return ApiError(503, "no replica could finish the request: try again", "unavailable", None, 2)
