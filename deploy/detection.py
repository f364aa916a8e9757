"""Marks in recordings that clients send: `POST /v1/audio/detect`."""

from __future__ import annotations

import asyncio
import base64
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, Field

from deploy.errors import ApiError
from deploy.requests import Body
from flowtts_core.errors import AudioError

if TYPE_CHECKING:
    from flowtts_core.watermark.finding import Finder

LONGEST_S = 600.0
_AT_ONCE = 1  # recordings that a front looks at: others wait, and speech goes on


class DetectBody(Body):
    """The body of `POST /v1/audio/detect`."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"audio": "UklGR..."}})
    audio: str = Field(min_length=1, description="An audio file in base64, of ten minutes at most.")


class MarkFinder:
    """Looks for the watermark of a server, and where that has a key also for the one that all can look for.

    Args:
        key: the server's; empty for none.
        most_bytes: of a file.
    """

    def __init__(self, key: bytes, most_bytes: int) -> None:
        self._key, self._most_bytes = key, most_bytes
        self._looking = asyncio.Semaphore(_AT_ONCE)

    async def look(self, body: DetectBody) -> dict[str, Any]:
        """Return whether a recording is marked, since when and until when, with which number, and by whose key.

        Raises:
            ApiError: 400 for what is no sound or lasts too long, 413 for a file that is too long.
        """
        try:
            data = base64.b64decode(body.audio, validate=True)
        except ValueError as error:
            raise ApiError(400, f"audio: {error}", "invalid_value", "audio") from None
        if len(data) > self._most_bytes:
            raise ApiError(413, f"audio: at most {self._most_bytes} bytes are allowed", "body_too_large", "audio")
        async with self._looking:
            return await asyncio.to_thread(self._found, data)

    def _found(self, data: bytes) -> dict[str, Any]:
        try:
            return {"object": "audio.detection", **self._finder.told_of(data, longest_s=LONGEST_S)}
        except AudioError as error:
            raise ApiError(400, f"audio: {error.message}", "invalid_audio", "audio") from None

    @cached_property
    def _finder(self) -> Finder:
        """Kept: to open one takes as long as to look at four seconds of sound, for each key."""
        from flowtts_core.watermark.card import bundled_mark
        from flowtts_core.watermark.finding import Finder

        return Finder(bundled_mark(), self._key)
