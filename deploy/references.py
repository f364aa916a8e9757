"""Recordings that clients uploaded to be imitated: kept by content hash in the server's storage, each key's own apart.

All fronts read the same storage; replicas are given the recording with the job, and need none of it.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from typing import Any

from pydantic import ConfigDict, Field

from cluster.storage import Storage
from deploy.errors import ApiError
from deploy.requests import MAX_CHARS, REFERENCE_ID, Body
from flowtts_core.audio.reference import Reference, clean_reference, require_own_text, text_note
from flowtts_core.errors import FlowTTSError
from flowtts_core.request import PromptClip

_CLEANING_AT_ONCE = 2  # recordings that a front cleans at the same time: others wait


class ReferenceBody(Body):
    """`POST /v1/voices/references`."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {"audio": "UklGR...", "text": "What is said in it.", "consent": "Ann, 2026-05-01"}
        },
    )
    audio: str = Field(min_length=1, description="3 to 12 s of one person: an audio file in base64.")
    text: str = Field(min_length=1, max_length=MAX_CHARS, description="What is said in it, word for word.")
    name: str | None = Field(default=None, min_length=1, max_length=64, description="For people.")
    consent: str | None = Field(default=None, min_length=1, max_length=MAX_CHARS, description="Who agreed, and when.")


class ReferenceStore:
    """Keeps references, by owner and content.

    Args:
        place: a folder or `s3://` place that all fronts share.
        most: that each owner may keep.
        most_bytes: of an uploaded file.
    """

    def __init__(self, place: str, most: int, most_bytes: int) -> None:
        self._storage, self._most, self._most_bytes = Storage(place), most, most_bytes
        self._cleaning = asyncio.Semaphore(_CLEANING_AT_ONCE)

    async def add(self, body: ReferenceBody, owner: str) -> dict[str, Any]:
        """Clean and keep a recording; returns what clients are told of it, with its id.

        Raises:
            ApiError: 400 for what cannot be imitated, 413 for a file that is too long, 409 where too many are kept.
        """
        try:
            clip = PromptClip(base64.b64decode(body.audio, validate=True))
        except ValueError as error:
            raise ApiError(400, f"audio: {error}", "invalid_value", "audio") from None
        if len(clip.audio) > self._most_bytes:
            raise ApiError(413, f"audio: at most {self._most_bytes} bytes are allowed", "body_too_large", "audio")
        async with self._cleaning:
            reference = await asyncio.to_thread(_cleaned, clip, body.text)
        odd = text_note(body.text, reference.seconds)
        told = {
            "id": reference.clip.digest,
            "object": "voice.reference",
            "name": body.name,
            "text": body.text,
            "consent": body.consent,
            "seconds": round(reference.seconds, 3),
            "sample_rate": reference.sample_rate,
            "notes": [*reference.notes, *([odd] if odd else [])],
            "source_sha256": clip.digest,
            "created": int(time.time()),
        }
        await asyncio.to_thread(self._write, told, reference.clip.audio, owner)
        return told

    async def find(self, reference: str, owner: str) -> tuple[PromptClip, str]:
        """Return an owner's recording and its text; raises ApiError 404 where there is none."""
        told, audio = await asyncio.to_thread(self._read, _checked(reference), owner)
        return PromptClip(audio), str(told["text"])

    async def kept(self, owner: str) -> list[dict[str, Any]]:
        """Return what is known of an owner's recordings, the oldest first."""
        return await asyncio.to_thread(self._listed, owner)

    async def delete(self, reference: str, owner: str) -> None:
        """Remove an owner's recording; raises ApiError 404 where there is none."""
        await asyncio.to_thread(self._delete, _checked(reference), owner)

    def _write(self, told: dict[str, Any], audio: bytes, owner: str) -> None:
        folder = _folder(owner)
        names = [name for name in self._storage.list(folder) if name.endswith(".json")]
        if len(names) >= self._most and f"{told['id']}.json" not in names:
            raise ApiError(409, f"at most {self._most} references are kept: delete one", "too_many_references")
        self._storage.write(f"{folder}/{told['id']}.flac", audio)
        self._storage.write(f"{folder}/{told['id']}.json", json.dumps(told).encode())  # last: without it there is none

    def _read(self, reference: str, owner: str) -> tuple[dict[str, Any], bytes]:
        try:
            told = json.loads(self._storage.read(f"{_folder(owner)}/{reference}.json"))
            return told, self._storage.read(f"{_folder(owner)}/{reference}.flac")
        except FileNotFoundError:
            raise not_found() from None

    def _listed(self, owner: str) -> list[dict[str, Any]]:
        folder = _folder(owner)
        names = [name for name in self._storage.list(folder) if name.endswith(".json")]
        rows: list[dict[str, Any]] = []
        for name in names:
            try:
                rows.append(json.loads(self._storage.read(f"{folder}/{name}")))
            except FileNotFoundError:  # deleted meanwhile
                continue
        return sorted(rows, key=lambda row: (row["created"], row["id"]))

    def _delete(self, reference: str, owner: str) -> None:
        name = f"{_folder(owner)}/{reference}"
        if not self._storage.exists(f"{name}.json"):
            raise not_found()
        self._storage.delete(f"{name}.json")  # first: nobody finds it from now on
        self._storage.delete(f"{name}.flac")


def not_found() -> ApiError:
    """There is no such reference, or it is another key's."""
    return ApiError(404, "no such reference: unknown, deleted, or another key's", "reference_not_found", "reference")


def not_allowed() -> ApiError:
    """The client is not allowed to clone voices."""
    return ApiError(403, "this server, or this key, imitates no recordings of clients", "cloning_not_allowed", "prompt")


def _checked(reference: str) -> str:
    if not REFERENCE_ID.fullmatch(reference):
        raise not_found()
    return reference


def _folder(owner: str) -> str:
    """Of a key by its hash; of all who need no key, one."""
    return hashlib.sha256(owner.encode()).hexdigest()[:32] if owner else "anybody"


def _cleaned(clip: PromptClip, text: str) -> Reference:
    try:
        reference = clean_reference(clip)
    except FlowTTSError as error:
        raise ApiError(400, _sentence(error), "invalid_reference", "audio") from None
    try:
        require_own_text(reference, text)
    except FlowTTSError as error:
        raise ApiError(400, _sentence(error), "invalid_reference", "text") from None
    return reference


def _sentence(error: FlowTTSError) -> str:
    return f"{error.message}: {error.remedy}" if error.remedy else error.message
