"""`GET /ws`: text in as it comes, a language model's tokens say, and sound out as soon as a clause is complete.

The client sends JSON texts:

    {"type": "start", "voice": ..., "response_format": ..., "timestamps": ..., and the settings of /tts: "speed", "seed", ...}
                                                  before the first text, or after a flush; all fields may be left out.
                                                  Between, it holds for what comes, and format and sample rate must stay
    {"type": "text", "text": "..."}               more text, a token or a page; it is spoken clause by clause
    {"type": "flush"}                             the text is complete for now: speak the rest too
    {"type": "cancel"}                            be silent: drop what was not sent, and the text
    {"type": "close"}                             flush, then end

The server sends sound as binary messages, and JSON texts:

    {"type": "ready", "sample_rate": ..., "response_format": ...}          after `start`, and before the first sound without it
    {"type": "clause", "text": ...}                                        the sound that follows says this
    {"type": "words", "words": [{"word", "start", "end", "start_s", "end_s"}]}   with `timestamps`, before their sound
    {"type": "flushed", "seconds": ...}                                    all up to a flush was sent
    {"type": "cancelled"}                                                  nothing of before the cancel follows
    {"type": "error", "error": {"message", "type", "param", "code"}}       of a message or a clause; the connection goes on

`response_format` is "pcm" by default: 16-bit samples of the "ready" rate. All that is spoken up to a flush is one file,
with one clock and one count of characters for the words. What a client may let wait is bounded; beyond it there is an
error of code "overloaded". Keys come in the `Authorization` header or, from a browser, as the subprotocol
`flowtts-key.KEY` beside `flowtts`.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from fastapi import WebSocket, WebSocketDisconnect
from pydantic import create_model

from deploy.encoding import Encoder, encoded_rate, open_encoder
from deploy.errors import ApiError, overloaded
from deploy.front import AnswerCut, Front
from deploy.requests import Format, RequestBody, body_fields, check_text, parse, request_of
from deploy.speech import SpeechJob
from flowtts_core.request import SEEDS
from flowtts_core.text.sentences import split_sentences

FIRST_CLAUSE, LATER_CLAUSE = 12, 40  # least characters of a clause that is no sentence: the first should be heard soon
LONGEST = 240  # characters without an end, before they are cut at a blank
LOOK = 2 * LONGEST  # characters that are looked at for an end: more would make a long text's time grow with its square
MAX_WAITING = 64  # clauses
PAUSE_S = 0.35  # after a sentence, as between sentences that come together
_CLAUSE = re.compile(r"[,;:—–…][\"'’”)\]]*\s+|\s--+\s+")
_ENDED = re.compile(r"[.!?…][\"'’”)\]]*\s*$")
_END = object()


class ClauseBuffer:
    """Text that comes in crumbs, and goes out as clauses and sentences that are complete."""

    def __init__(self) -> None:
        self._text = ""
        self._first = True

    def __len__(self) -> int:
        return len(self._text)

    def add(self, text: str) -> Iterator[str]:
        """What has become complete, found as it is asked for; joined, the clauses are the text."""
        self._text += text
        while (end := self._complete()) is not None:
            clause, self._text = self._text[:end], self._text[end:]
            self._first = False
            yield clause

    def flush(self) -> list[str]:
        """The rest."""
        rest, self._text, self._first = self._text, "", True
        return [rest] if rest.strip() else []

    def _complete(self) -> int | None:
        """Where the first clause ends: at a sentence with another after it, else at a mark, else where it is too long."""
        text = self._text[:LOOK]
        if re.search(r"[.!?…][\"'’”)\]]*\s+\S", text) or "\n" in text:
            sentences = split_sentences(text)
            if len(sentences) > 1 and sentences[1].start <= LONGEST:
                return sentences[1].start
        least = FIRST_CLAUSE if self._first else LATER_CLAUSE
        for match in _CLAUSE.finditer(text):
            if least <= match.end() < min(len(text), LONGEST):
                return match.end()
        if len(text) > LONGEST:
            return text.rfind(" ", 1, LONGEST) + 1 or LONGEST
        return None


class _Start(RequestBody):
    """Settings for the texts that follow this message."""

    type: str
    response_format: Format = "pcm"


_FIELDS = {name: field for name, field in body_fields().items() if name != "input_type"}  # tags would be cut by clauses
Start: Any = create_model("Start", __base__=_Start, **_FIELDS)


@dataclass(frozen=True)
class _Clause:
    job: SpeechJob
    response_format: str


class _Conversation:
    """One connection: the reader fills a queue of clauses, a second task speaks them."""

    def __init__(self, socket: WebSocket, front: Front) -> None:
        self.socket, self.front = socket, front
        self.limits = front.settings.limits
        self.start = Start(type="start")
        self.asked = request_of("", self.start)
        self.buffer = ClauseBuffer()
        self.waiting: asyncio.Queue[Any] = asyncio.Queue()
        self.speaking: asyncio.Task[None] | None = None
        self.sending = asyncio.Lock()
        self.encoder: Encoder | None = None
        self.unended = False  # whether text came since the last flush: what is said of it is one file
        self.characters = self.count = 0
        self.seconds = self.pause_s = 0.0

    # --- what the client says -----------------------------------------------------------------------------------------

    async def listen(self) -> None:
        """Until the client closes, goes, or is silent for too long."""
        while True:
            async with asyncio.timeout(self.limits.idle_s if self._silent() else None):
                message = await self.socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1005))
            try:
                if not await self._hear(message.get("text")):
                    return
            except ApiError as error:
                await self._tell({"type": "error", **error.body})

    async def _hear(self, text: str | None) -> bool:
        """One message; False for the last."""
        values = _message(text, self.front.settings.body_bytes)
        kind = values["type"]
        if kind == "start":
            start = parse(Start, json.dumps(values).encode())
            speaker = self.front.voices.asked(start.voice)[1]
            if self.unended:
                self._require_the_same_file(start)
            asked = request_of("", start, speaker)
            self.asked = await self.front.imitating(asked, start.reference, self.socket.scope["state"]["call"])
            self.start = start
            await self._ready()
        elif kind == "text":
            if not isinstance(values.get("text"), str):
                raise ApiError(400, "text: Input should be a valid string", "invalid_value", "text")
            self.unended = self.unended or bool(values["text"].strip())
            self._take(self.buffer.add(values["text"]))
        elif kind == "flush":
            self._flush()
        elif kind == "cancel":
            await self._cancel()
        elif kind == "close":
            self._flush()
            await self._spoken()
            return False
        else:
            raise ApiError(400, f"no such message: {str(kind)[:40]!r}", "invalid_value", "type")
        return True

    def _require_the_same_file(self, start: Any) -> None:
        """Raise ApiError where the text that is not flushed could not go on in its file."""
        found, asked = (self._form(message) for message in (self.start, start))
        for field, now, other in zip(("response_format", "voice"), found, asked, strict=True):
            if now != other:
                unit = " Hz" if field == "voice" else ""
                message = (
                    f"{field}: the text before goes on at {now}{unit}, and {other}{unit} is another file; flush first"
                )
                raise ApiError(400, message, "invalid_value", field)

    def _form(self, start: Any) -> tuple[str, int]:
        """Format and sample rate of what a start asks for."""
        return start.response_format, self.front.voices.find(start.voice).sample_rate

    def _take(self, clauses: Iterable[str]) -> None:
        for clause in clauses:
            if self.waiting.qsize() >= MAX_WAITING:
                self.buffer.flush()
                raise overloaded(1)
            if clause.strip():
                self.waiting.put_nowait(_Clause(self._job(clause), self.start.response_format))
            else:
                self.characters += len(clause)
        self._run()

    def _flush(self) -> None:
        self.unended = False
        try:
            self._take(self.buffer.flush())
        finally:
            self.waiting.put_nowait(_END)
            self._run()

    def _job(self, text: str) -> SpeechJob:
        check_text(text, self.limits.chars, "text")
        self.count += 1
        request = replace(self.asked, text=text, seed=(self.asked.seed + self.count) % SEEDS)
        name = self.front.voices.find(self.start.voice).name
        return SpeechJob(name, request, words=self.start.timestamps, mark=self.start.watermark)

    async def _cancel(self) -> None:
        self.buffer, self.unended = ClauseBuffer(), False
        if self.speaking is not None:
            self.speaking.cancel()
            await asyncio.gather(self.speaking, return_exceptions=True)
        self.waiting, self.speaking = asyncio.Queue(), None
        self._fresh()
        await self._tell({"type": "cancelled"})

    async def _spoken(self) -> None:
        """Wait until every clause is spoken, or the task that speaks has stopped, as it does where the client is gone."""
        assert self.speaking is not None
        joining = asyncio.ensure_future(self.waiting.join())
        try:
            await asyncio.wait({joining, self.speaking}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            joining.cancel()

    def _silent(self) -> bool:
        return self.waiting.empty()

    # --- what the server says -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        if self.speaking is None or self.speaking.done():
            self.speaking = asyncio.create_task(self._speak_on())

    async def _speak_on(self) -> None:
        while True:
            item = await self.waiting.get()
            try:
                if item is _END:
                    await self._finish()
                else:
                    await self._speak(item)
            except AnswerCut as cut:
                await self._tell({"type": "error", **cut.error.body})
            except ApiError as error:
                await self._tell({"type": "error", **error.body})
            finally:
                self.waiting.task_done()

    async def _speak(self, clause: _Clause) -> None:
        await self._tell({"type": "clause", "text": clause.job.text})
        begun, self.characters = self.characters, self.characters + len(clause.job.text)
        answering = await self.front.begin(clause.job)
        try:
            if self.encoder is None:
                self.encoder = open_encoder(clause.response_format, answering.sample_rate)
            elif self.pause_s:
                await self._send(self.encoder.add(np.zeros(round(self.pause_s * answering.sample_rate), np.float32)))
                self.seconds += self.pause_s
            self.pause_s = PAUSE_S if _ENDED.search(clause.job.text) else 0.0
            async for sound in answering:
                if sound.words:
                    words = [
                        {
                            **asdict(word),
                            "start": word.start + begun,
                            "end": word.end + begun,
                            "start_s": round(word.start_s + self.seconds, 4),
                            "end_s": round(word.end_s + self.seconds, 4),
                        }
                        for word in sound.words
                    ]
                    await self._tell({"type": "words", "words": words})
                await self._send(self.encoder.add(sound.waveform))
        finally:
            self.seconds += answering.seconds
            await answering.aclose()

    async def _finish(self) -> None:
        if self.encoder is not None:
            await self._send(self.encoder.finish())
        await self._tell({"type": "flushed", "seconds": round(self.seconds, 4)})
        self._fresh()

    def _fresh(self) -> None:
        if self.encoder is not None:
            self.encoder.close()
        self.encoder, self.seconds, self.characters, self.pause_s = None, 0.0, 0, 0.0

    async def _ready(self) -> None:
        voice = self.front.voices.find(self.start.voice)
        rate = encoded_rate(self.start.response_format, voice.sample_rate)
        await self._tell({"type": "ready", "sample_rate": rate, "response_format": self.start.response_format})

    async def _tell(self, values: dict[str, Any]) -> None:
        async with self.sending:
            await self.socket.send_text(json.dumps(values))

    async def _send(self, data: bytes) -> None:
        if data:
            async with self.sending:
                await self.socket.send_bytes(data)

    async def close(self) -> None:
        if self.speaking is not None:
            self.speaking.cancel()
            await asyncio.gather(self.speaking, return_exceptions=True)
        self._fresh()


async def converse(socket: WebSocket, front: Front) -> None:
    """Serve one connection to its end."""
    offered = socket.headers.get("sec-websocket-protocol", "")
    await socket.accept(subprotocol="flowtts" if "flowtts" in [p.strip() for p in offered.split(",")] else None)
    conversation = _Conversation(socket, front)
    try:
        await conversation._ready()
        await conversation.listen()
        await socket.close()
    except TimeoutError:
        with suppress(RuntimeError):
            await socket.close(1001, "idle")
    except (WebSocketDisconnect, RuntimeError):  # starlette's for sending to a client that is gone
        pass
    finally:
        await conversation.close()


def _message(text: str | None, limit: int) -> dict[str, Any]:
    """Raises ApiError for what is not a JSON object with a type."""
    if text is None or len(text) > limit:
        raise ApiError(400, f"send JSON texts of at most {limit} characters", "invalid_value")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        raise ApiError(400, "not JSON", "invalid_json") from None
    if not isinstance(values, dict) or not isinstance(values.get("type"), str):
        raise ApiError(400, 'send {"type": ...}', "invalid_value", "type")
    return values
