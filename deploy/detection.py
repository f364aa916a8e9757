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
    from flowtts_core.watermark.marker import Marker

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
        self._keys, self._most_bytes = (key, b"") if key else (b"",), most_bytes
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
        from flowtts_core.watermark.finding import told_of

        try:
            for key, marker in zip(self._keys, self._markers, strict=True):
                found = told_of(marker, data, longest_s=LONGEST_S)
                found["own_key"] = bool(key) and found["marked"]
                if found["marked"]:
                    break
        except AudioError as error:
            raise ApiError(400, f"audio: {error.message}", "invalid_audio", "audio") from None
        return {"object": "audio.detection", **found}

    @cached_property
    def _markers(self) -> list[Marker]:
        """One for each key, kept: to open one takes as long as to look at four seconds of sound."""
        from flowtts_core.watermark.card import bundled_mark
        from flowtts_core.watermark.marker import Marker

        return [Marker.open(bundled_mark(), key) for key in self._keys]
