"""The wire between front and replica: a socket for each answer under way, frames of JSON and samples.

Why not a Serve handle: on 2 busy cores a handle's streaming call took 9 ms to the first piece, Ray's own actor call 2 ms and a
socket 0.1 ms, of 8 ms that HTTP and Serve may add in all. Serve still starts, replaces, scales and health-checks the replicas;
their addresses come through a handle (`deploy.pool`). Closing the socket cancels the job; a dead replica is seen at once.

On connecting the front sends the replica's secret of `SECRET_BYTES`, which it learnt through the handle; then, for each
job in turn, a frame with the job, and it gets frames with sounds, the last of which is `END` or a refusal. A frame is its
kind (1 byte), the lengths of its JSON and of its samples (4 bytes each, big-endian), the JSON, the samples.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import secrets
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import asdict, dataclass
from typing import Any

from deploy.speech import Refusal, ReplicaLost, SoundPiece, SpeechJob
from flowtts_core.engines.base import WordTime

SECRET_BYTES = 32
MAX_FRAME_BYTES = 256 << 20
CONNECT_S = 2.0
log = logging.getLogger(__name__)
_HEAD = struct.Struct(">BII")
_JOB, _SOUND, _REFUSAL, _END = range(4)

Speak = Callable[[SpeechJob], AsyncIterator[SoundPiece | Refusal]]


@dataclass(frozen=True)
class Address:
    """Where a replica listens, and what it wants to hear first."""

    host: str
    port: int
    secret: bytes


class LinkServer:
    """Answers jobs that come by the wire.

    Args:
        speak: makes the sound of a job; closed early where the front goes away.
    """

    def __init__(self, speak: Speak) -> None:
        self._speak = speak
        self._secret = secrets.token_bytes(SECRET_BYTES)
        self._server: asyncio.Server | None = None
        self.running = 0

    async def start(self, host: str) -> Address:
        self._server = await asyncio.start_server(self._serve, host, 0)
        return Address(host, self._server.sockets[0].getsockname()[1], self._secret)

    async def close(self) -> None:
        """Take no more connections."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: jobs in turn, until the front closes it, which stops the job under way."""
        _no_delay(writer)
        answering: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(CONNECT_S):
                secret = await reader.readexactly(SECRET_BYTES)
            while hmac.compare_digest(secret, self._secret):
                _, values, _ = await _read(reader)  # the front sends a job when it has the end of the one before
                if answering is not None:
                    await answering
                answering = asyncio.ensure_future(self._answer(SpeechJob.from_json(values), writer))
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            pass
        finally:
            if answering is not None:
                answering.cancel()
                await asyncio.gather(answering, return_exceptions=True)
            writer.close()

    async def _answer(self, job: SpeechJob, writer: asyncio.StreamWriter) -> None:
        self.running += 1
        try:
            sounds: Any = self._speak(job)
            async with aclosing(sounds):
                async for item in sounds:
                    writer.write(_frame_of(item))
                    await writer.drain()
                    if isinstance(item, Refusal):
                        return
            writer.write(_frame(_END, {}))
        except ConnectionError:
            pass  # the reader sees it too
        except Exception as error:
            log.exception("a job failed")
            writer.write(_frame_of(Refusal("failed", type(error).__name__)))
        finally:
            self.running -= 1


class LinkClient:
    """Connections to one replica, kept for the next job."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.running = 0
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._closed = False

    async def speak(self, job: SpeechJob) -> AsyncIterator[SoundPiece | Refusal]:
        """See `ReplicaLink`."""
        self.running += 1
        kept = False
        writer = None
        try:
            reader, writer = self._idle.pop() if self._idle else await self._connect()
            writer.write(_frame(_JOB, job.to_json()))
            while True:
                kind, values, pcm = await _read(reader)
                if kind == _SOUND:
                    yield _sound(values, pcm)
                    continue
                kept = True
                if kind == _REFUSAL:
                    yield Refusal(**values)
                return
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            raise ReplicaLost(f"{self.address.host}:{self.address.port}: {type(error).__name__}: {error}") from error
        finally:
            self.running -= 1
            if writer is not None:
                if kept and not self._closed:
                    self._idle.append((reader, writer))
                else:
                    writer.close()

    def close(self) -> None:
        """Let go of what is idle; jobs under way end by themselves."""
        self._closed = True
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with asyncio.timeout(CONNECT_S):
            reader, writer = await asyncio.open_connection(self.address.host, self.address.port)
        _no_delay(writer)
        writer.write(self.address.secret)
        return reader, writer


def _no_delay(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _frame_of(item: SoundPiece | Refusal) -> bytes:
    if isinstance(item, Refusal):
        return _frame(_REFUSAL, asdict(item))
    words = None if item.words is None else [(w.word, w.start, w.end, w.start_s, w.end_s) for w in item.words]
    skipped = [item.skipped, item.skipped_words]
    return _frame(_SOUND, {"rate": item.sample_rate, "words": words, "skipped": skipped}, item.pcm)


def _sound(values: dict[str, Any], pcm: bytes) -> SoundPiece:
    words = None if values["words"] is None else tuple(WordTime(*word) for word in values["words"])
    return SoundPiece(values["rate"], pcm, words, *values["skipped"])


def _frame(kind: int, values: dict[str, Any], samples: bytes = b"") -> bytes:
    text = json.dumps(values).encode()
    return _HEAD.pack(kind, len(text), len(samples)) + text + samples


async def _read(reader: asyncio.StreamReader) -> tuple[int, dict[str, Any], bytes]:
    """A frame: kind, JSON, samples.

    Raises:
        ConnectionResetError: where it is longer than any of ours.
    """
    kind, text, samples = _HEAD.unpack(await reader.readexactly(_HEAD.size))
    if text + samples > MAX_FRAME_BYTES:
        raise ConnectionResetError("a frame too long to be one")
    body = await reader.readexactly(text + samples)
    return kind, json.loads(body[:text]), body[text:]
