"""One connection of the Wyoming protocol: its events become requests to the server, and their sound events.

A `synthesize` becomes `POST /tts`; a text that comes in pieces goes through `/ws`. Each event is a line of JSON, `data_length`
bytes of more JSON and `payload_length` bytes of sound. The package `wyoming` writes them and knows their fields; they are read
here, because it would take events of any length.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from flowtts_core import __version__

if TYPE_CHECKING:
    from aiohttp import ClientSession, ClientWebSocketResponse
    from wyoming.event import Event

log = logging.getLogger("flowtts.wyoming")
MAX_EVENT = 128 << 10  # bytes of a line, of data or of a payload; the server bounds texts by itself
MAX_WAITING = 64  # events of a client; it is read no further
EVENT_S = 10.0  # for an event to arrive once it has begun
IDLE_S = 60.0  # of a client that says nothing and is told nothing
TAKE_S = 60.0  # for a client to take a piece of sound
PIECE = 8192  # bytes of sound in an event, 0.17 s at 24 kHz


class Refused(Exception):
    """What the client is told before its connection ends."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.message, self.code = message, code


class Conversation:
    """One connection. What the client says is read at once, so that its leaving is seen, and answered in turn."""

    def __init__(self, server: ClientSession, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server, self.reader, self.writer = server, reader, writer
        self.events: asyncio.Queue[Event] = asyncio.Queue(MAX_WAITING)
        self.sending = asyncio.Lock()
        self.talk: _Talk | None = None
        self.busy = self.last = False

    async def run(self) -> None:
        """Until the client goes or is refused."""
        answering = asyncio.create_task(self._answer())
        listening = asyncio.create_task(self._listen())
        try:
            done, _ = await asyncio.wait({answering, listening}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except Refused as refused:
            await self.refuse(refused)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):  # the client is gone, or takes nothing
            pass
        finally:
            answering.cancel()
            listening.cancel()
            await asyncio.gather(answering, listening, return_exceptions=True)
            self.writer.close()

    async def refuse(self, refused: Refused) -> None:
        """Clients wait for sound whatever error they are told, so the connection ends."""
        from wyoming.error import Error

        with suppress(OSError, TimeoutError):
            await self.send(Error(refused.message, refused.code).event())
        self.writer.close()

    async def send(self, event: Event) -> None:
        from wyoming.event import async_write_event

        async with self.sending, asyncio.timeout(TAKE_S):
            await async_write_event(event, self.writer)

    async def _listen(self) -> None:
        while (event := await self._next()) is not None:
            self.busy = True
            await self.events.put(event)

    async def _next(self) -> Event | None:
        while True:
            try:
                async with asyncio.timeout(IDLE_S):
                    first = await self.reader.read(1)
                break
            except TimeoutError:
                if not self.busy:
                    return None
        if not first:
            return None
        async with asyncio.timeout(EVENT_S):
            return await read_event(first, self.reader)

    async def _answer(self) -> None:
        from aiohttp import ClientError

        while not (self.last and self.events.empty()):
            self.busy = not self.events.empty()
            event = await self.events.get()
            self.busy = True
            try:
                await self._do(event)
            except ClientError as error:
                raise Refused(f"the server broke the answer off ({error})", "unavailable") from error

    async def _do(self, event: Event) -> None:
        from wyoming.info import Describe
        from wyoming.ping import Ping, Pong
        from wyoming.tts import Synthesize, SynthesizeChunk, SynthesizeStart, SynthesizeStop

        try:
            if Describe.is_type(event.type):
                await self.send(info(await self._voices()).event())
            elif Ping.is_type(event.type):
                await self.send(Pong(text=Ping.from_event(event).text).event())
            elif SynthesizeStart.is_type(event.type):
                await self._converse(event)
            elif Synthesize.is_type(event.type):
                await self._speak(event)
            elif SynthesizeChunk.is_type(event.type) or SynthesizeStop.is_type(event.type):
                raise Refused(f"{event.type} without synthesize-start", "invalid_value")
            else:
                log.info("left out a Wyoming event %.40s: this is text to speech alone", event.type)
        except (KeyError, TypeError, AttributeError) as error:
            raise Refused(f"{event.type}: a field is missing or of another type ({error})", "invalid_value") from error

    async def _voices(self) -> list[dict[str, Any]]:
        async with self.server.get("/v1/voices") as answer:
            if answer.status != 200:
                raise _told(await answer.read())
            return list((await answer.json())["data"])

    async def _asked(self, voice: Any) -> dict[str, Any]:
        """The fields of a request for a voice as an event names it: by its name, or by a language that it speaks."""
        if voice is None:
            return {}
        if voice.name is None:
            wanted = voice.language.replace("_", "-").casefold()
            voices = await self._voices()
            spoken = {v["id"]: [lang.casefold() for lang in v["languages"]] for v in voices}
            exact = [name for name, languages in spoken.items() if wanted in languages]
            near = [
                name for name, langs in spoken.items() if wanted.split("-")[0] in {lang.split("-")[0] for lang in langs}
            ]
            if not exact and not near:
                raise Refused(f"no voice speaks {voice.language}", "invalid_value")
            return {"voice": (exact or near)[0]}
        return {"voice": voice.name} | ({"speaker": voice.speaker} if voice.speaker is not None else {})

    async def _speak(self, event: Event) -> None:
        """A text that is there as a whole."""
        from wyoming.tts import Synthesize

        asked = Synthesize.from_event(event)
        body = {"text": asked.text, "response_format": "pcm", "stream": True, **await self._asked(asked.voice)}
        if asked.text_format is not None:
            body["input_type"] = asked.text_format
        async with self.server.post("/tts", json=body) as answer:
            if answer.status != 200:
                raise _told(await answer.read())
            sound = _Sound(self, int(answer.headers["X-Sample-Rate"]))
            async for piece in answer.content.iter_chunked(PIECE):
                await sound.add(piece)
            await sound.finish()

    async def _converse(self, event: Event) -> None:
        """A text that comes in pieces, from `synthesize-start` to `synthesize-stop`."""
        from wyoming.tts import Synthesize, SynthesizeChunk, SynthesizeStart, SynthesizeStop, SynthesizeStopped

        asked = SynthesizeStart.from_event(event)
        if asked.text_format not in (None, "text"):
            raise Refused("marks cannot be spoken piece by piece: send them as one synthesize", "invalid_value")
        async with self._talking(await self._asked(asked.voice)) as talk:
            while True:
                event = await talk.unless_ended(self.events.get())
                if SynthesizeChunk.is_type(event.type):
                    await talk.add(SynthesizeChunk.from_event(event).text)
                elif SynthesizeStop.is_type(event.type):
                    break
                elif not Synthesize.is_type(event.type):  # the whole text again, for servers that take no pieces
                    await self._do(event)
            await talk.finish()
        await self.send(SynthesizeStopped().event())

    @asynccontextmanager
    async def _talking(self, asked: dict[str, Any]) -> AsyncIterator[_Talk]:
        from aiohttp import WSServerHandshakeError

        try:
            socket = await self.server.ws_connect("/ws")
        except WSServerHandshakeError as error:
            raise Refused(f"the server refuses ({error.status})", "unavailable") from error
        async with socket:
            talk = _Talk(self, socket)
            await socket.send_json({"type": "start", "response_format": "pcm", **asked})
            try:
                yield talk
            finally:
                talk.relaying.cancel()
                await asyncio.gather(talk.relaying, return_exceptions=True)


class _Talk:
    """A WebSocket to the server: text goes there piece by piece, and its sound to the client as it comes."""

    def __init__(self, conversation: Conversation, socket: ClientWebSocketResponse) -> None:
        self.conversation, self.socket = conversation, socket
        self.relaying = asyncio.create_task(self._relay())

    async def add(self, text: str) -> None:
        await self.socket.send_json({"type": "text", "text": text})

    async def finish(self) -> None:
        """Returns when all was spoken and sent."""
        await self.socket.send_json({"type": "close"})
        await self.relaying

    async def unless_ended(self, waiting: Any) -> Any:
        """Wait for something, unless the sound ends before it; an error that ended the sound is raised here."""
        wanted = asyncio.ensure_future(waiting)
        try:
            await asyncio.wait({wanted, self.relaying}, return_when=asyncio.FIRST_COMPLETED)
            if not wanted.done():
                self.relaying.result()
                raise Refused("the server ended the conversation", "unavailable")
            return wanted.result()
        finally:
            wanted.cancel()

    async def _relay(self) -> None:
        from aiohttp import WSMsgType

        sound: _Sound | None = None
        rate, flushed = 0, False
        async for message in self.socket:
            if message.type == WSMsgType.BINARY:
                sound = sound or _Sound(self.conversation, rate)
                await sound.add(message.data)
                continue
            told = json.loads(message.data)
            if told["type"] == "ready":
                rate = told["sample_rate"]
            elif told["type"] == "error":
                raise Refused(told["error"]["message"], told["error"]["code"])
            flushed = told["type"] == "flushed"
        if not flushed:
            raise Refused(f"the server ended the conversation ({self.socket.close_code})", "unavailable")
        await (sound or _Sound(self.conversation, rate)).finish()


class _Sound:
    """Sends sound to the client: `audio-start`, whole 16-bit samples as `audio-chunk`, `audio-stop`."""

    def __init__(self, conversation: Conversation, rate: int) -> None:
        self.conversation, self.rate = conversation, rate
        self.started, self.rest = False, b""

    async def add(self, pcm: bytes) -> None:
        from wyoming.audio import AudioChunk

        await self._start()
        pcm = self.rest + pcm
        whole = len(pcm) // 2 * 2
        self.rest = pcm[whole:]
        for start in range(0, whole, PIECE):
            await self.conversation.send(AudioChunk(self.rate, 2, 1, pcm[start : min(start + PIECE, whole)]).event())

    async def finish(self) -> None:
        from wyoming.audio import AudioStop

        await self._start()
        await self.conversation.send(AudioStop().event())

    async def _start(self) -> None:
        from wyoming.audio import AudioStart

        if not self.started:
            self.started = True
            await self.conversation.send(AudioStart(self.rate, 2, 1).event())


async def read_event(first: bytes, reader: asyncio.StreamReader) -> Event:
    """Read the rest of an event whose first byte is known.

    Raises:
        Refused: for what is no event, or longer than `MAX_EVENT`.
        asyncio.IncompleteReadError: where the client goes within it.
    """
    from wyoming.event import Event

    try:
        head = json.loads(first + await reader.readline())
        lengths = [head.get(name) or 0 for name in ("data_length", "payload_length")]
        if any(type(length) is not int or not 0 <= length <= MAX_EVENT for length in lengths):
            raise Refused(f"data and payload of an event have at most {MAX_EVENT} bytes", "too_large")
        more, payload = [await reader.readexactly(length) for length in lengths]
        data = (head.get("data") or {}) | (json.loads(more) if more else {})
        if not isinstance(head["type"], str):
            raise TypeError("type is no text")
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise Refused(f"not an event of the Wyoming protocol ({error})", "invalid_value") from error
    return Event(head["type"], data, payload or None)


def info(voices: list[dict[str, Any]]) -> Any:
    """What `describe` is answered: the voices as `/v1/voices` lists them. Home Assistant shows their descriptions as names."""
    from wyoming.info import Attribution, Info, TtsProgram, TtsVoice, TtsVoiceSpeaker

    ours = Attribution(name="FlowTTS", url="")
    rows = [
        TtsVoice(
            name=voice["id"],
            description=voice["id"],
            attribution=Attribution(name=voice["licence"], url=""),
            installed=True,
            version=None,
            languages=[_tag(language) for language in voice["languages"]],
            speakers=[TtsVoiceSpeaker(name) for name in voice["speakers"]] or None,
        )
        for voice in voices
    ]
    program = TtsProgram(
        name="flowtts",
        description="FlowTTS",
        attribution=ours,
        installed=True,
        version=__version__,
        voices=rows,
        supports_synthesize_streaming=True,
    )
    return Info(tts=[program])


def _tag(language: str) -> str:
    """A language as BCP 47 writes it: en-us is en-US."""
    name, *more = language.replace("_", "-").split("-")
    return "-".join([name.lower(), *(part.upper() if len(part) == 2 else part for part in more)])


def _told(body: bytes) -> Refused:
    """The error of the server's answer."""
    try:
        error = json.loads(body)["error"]
        return Refused(error["message"], error["code"])
    except (ValueError, KeyError, TypeError):
        return Refused("the server refuses", "unavailable")
