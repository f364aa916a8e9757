"""The HTTP interface: OpenAI's speech endpoint, our own, lists, health, and the page."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, WebSocket
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from deploy.cache import Answer
from deploy.detection import DetectBody
from deploy.encoding import MEDIA_TYPES, encoded_rate, open_encoder, with_length
from deploy.errors import ApiError, internal_error
from deploy.front import AnswerCut, Answering, Front
from deploy.guard import Guard, too_large
from deploy.ranges import part_of
from deploy.references import ReferenceBody, not_allowed
from deploy.requests import SpeechBody, TtsBody, parse, request_key, speech_job, tts_job
from deploy.settings import DETECT_PATH, ServedVoice
from deploy.speech import SpeechJob
from deploy.websocket import converse
from flowtts_core import __version__
from flowtts_core.engines.base import WordTime

PAGE = Path(__file__).parent / "page" / "index.html"
CREATED = 1_767_225_600  # of the models' list, which OpenAI's clients want; the start of 2026
EVENTS = "text/event-stream"
EXPOSED = (
    "X-Request-ID", "X-Speech-Id", "X-Cache", "X-Sample-Rate", "X-Watermark", "Retry-After", "Accept-Ranges",
    "Content-Range", "ETag",
)  # fmt: skip
PAGE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "media-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def create_app(front: Front, *, tell_id: bool = True) -> Any:
    """The ASGI application; `tell_id` as `Guard` takes it."""
    app = FastAPI(
        title="FlowTTS",
        version=__version__,
        description="Text to speech. Keys go in `Authorization: Bearer KEY`; errors have OpenAI's shape. A field that may be "
        "left out may be null, too.",
        docs_url=None,  # they would load scripts from elsewhere
        redoc_url=None,
    )
    app.add_exception_handler(ApiError, _on_api_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_fault)
    _add_speech(app, front)
    _add_references(app, front)
    _add_detection(app, front)
    _add_lists(app, front)
    _add_health(app, front)
    guard = Guard(app, front, tell_id)
    if not front.settings.origins:
        return guard
    return CORSMiddleware(  # around the guard: a page must be able to read its refusals too
        guard,
        allow_origins=list(front.settings.origins),
        allow_methods=["GET", "HEAD", "POST", "DELETE"],
        allow_headers=["*"],  # each client sends its own, OpenAI's a dozen; none of them is trusted
        allow_private_network=True,  # a page of the internet that was let in may ask a server of this machine
        expose_headers=EXPOSED,
    )


async def _on_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    request.scope["state"]["call"].code = error.code
    return JSONResponse(error.body, error.status, error.headers)


async def _on_http_error(request: Request, error: Exception) -> Response:
    """What the framework refuses by itself: paths and methods that are not there."""
    assert isinstance(error, HTTPException)
    own = ApiError(error.status_code, str(error.detail), "not_found" if error.status_code == 404 else "refused")
    request.scope["state"]["call"].code = own.code
    return JSONResponse(own.body, own.status, error.headers)


async def _on_fault(request: Request, error: Exception) -> Response:
    """A fault of ours; the guard logs it."""
    return JSONResponse(internal_error().body, 500)


def _add_speech(app: FastAPI, front: Front) -> None:
    limits = front.settings.limits

    @app.post("/v1/audio/speech", openapi_extra=_described(SpeechBody, front), responses=_responses(), tags=["speech"])
    async def speech(request: Request) -> Response:
        """Speak a text, as OpenAI's endpoint of this name does; the sound comes as it is made.

        With `stream_format: sse` it comes as events `speech.audio.delta` (base64 in `audio`) and one `speech.audio.done`.
        """
        body = parse(SpeechBody, await read_body(request, front))
        job = await _imitating(front, request, speech_job(body, front.voices, limits), body.imitated)
        return await answer(front, request, job, body.response_format, body.stream_format)

    @app.post("/tts", openapi_extra=_described(TtsBody, front), responses=_responses(), tags=["speech"])
    async def tts(request: Request) -> Response:
        """Speak a text with all settings of a voice; whole, or with `stream` as it is made.

        With `timestamps` the answer is JSON (`audio` in base64, `sample_rate`, `seconds`, `words`), or with `stream` too, events:
        `speech.audio.delta` with `audio` and the `words` that begin in it, then `speech.audio.done`.
        """
        body = parse(TtsBody, await read_body(request, front))
        job = await _imitating(front, request, tts_job(body, front.voices, limits), body.reference)
        form = ("sse" if body.stream else "json") if body.timestamps else "audio"
        return await answer(front, request, job, body.response_format, form)

    @app.get("/v1/audio/speech/{speech_id}", responses=_kept_responses(), tags=["speech"])
    async def kept(speech_id: str, request: Request) -> Response:
        """An answer of the last ten minutes, whole or a `Range` of it, for players that need one; with the same key alone.

        `X-Speech-Id` of an answer is its id, once it has come in full.
        """
        call = request.scope["state"]["call"]
        found = await front.kept(speech_id, call.owner)
        if found is None:
            raise ApiError(
                404, "no such answer: unknown, not finished, older than ten minutes, or too long", "speech_not_found"
            )
        return part_of(found.body, found.media_type, speech_id, {} if call.head else call.headers)

    @app.websocket("/ws")
    async def websocket(socket: WebSocket) -> None:
        await converse(socket, front)


async def _imitating(front: Front, request: Request, job: SpeechJob, reference: str | None) -> SpeechJob:
    asked = await front.imitating(job.request, reference, request.scope["state"]["call"])
    return job if asked is job.request else replace(job, request=asked)


def _add_references(app: FastAPI, front: Front) -> None:
    listed = {**_responses("application/json"), 404: {"description": "There is none, or it is another key's."}}

    def owner(request: Request) -> str:
        call = request.scope["state"]["call"]
        if not call.may_clone:
            raise not_allowed()
        return str(call.owner)

    @app.post(
        "/v1/voices/references",
        openapi_extra=_body(ReferenceBody),
        responses={**listed, 409: {"description": "Too many are kept."}},
        tags=["references"],
    )
    async def add(request: Request) -> dict[str, Any]:
        """Keep a recording whose voice is to be imitated; `id` of the answer is its name in requests for speech.

        It is cleaned: `notes` tell what was done, and what may be wrong with it. The same recording has the same id.
        """
        own = owner(request)
        return await front.references.add(parse(ReferenceBody, await read_body(request, front)), own)

    @app.get("/v1/voices/references", responses=listed, tags=["references"])
    async def references(request: Request) -> dict[str, Any]:
        """The recordings that this key keeps."""
        return {"object": "list", "data": await front.references.kept(owner(request))}

    @app.delete("/v1/voices/references/{reference}", responses=listed, tags=["references"])
    async def delete(reference: str, request: Request) -> dict[str, Any]:
        """Forget a recording; what was spoken with it may be in the cache of answers for a while."""
        await front.references.delete(reference, owner(request))
        return {"id": reference, "object": "voice.reference", "deleted": True}


def _add_detection(app: FastAPI, front: Front) -> None:
    @app.post(
        DETECT_PATH, openapi_extra=_body(DetectBody), responses=_responses("application/json"), tags=["watermarks"]
    )
    async def detect(request: Request) -> dict[str, Any]:
        """Look for this server's watermark in a recording: whether and where it is marked, with which number.

        Where no mark is found, the sound may be synthetic all the same.
        """
        return await front.finder.look(parse(DetectBody, await read_body(request, front)))


def _add_lists(app: FastAPI, front: Front) -> None:
    listed = _responses("application/json")

    @app.get("/v1/audio/models", responses=listed, tags=["lists"])
    @app.get("/v1/models", responses=listed, tags=["lists"])
    async def models() -> dict[str, Any]:
        """The models that requests may name; all are the same, but for aliases of voices.

        The list stands under `models` too, where some clients look for it.
        """
        data = [_model(name) for name in front.voices.models]
        return {"object": "list", "data": data, "models": data}

    @app.get("/v1/models/{model}", responses={**listed, 404: {"description": "There is none."}}, tags=["lists"])
    async def model(model: str) -> dict[str, Any]:
        """A model that requests may name."""
        if not front.voices.has_model(model):
            names = ", ".join(front.voices.models)
            raise ApiError(404, f"no such model; there are: {names}", "model_not_found", "model")
        return _model(model)

    @app.get("/v1/audio/voices", responses=listed, tags=["lists"])
    @app.get("/v1/voices", responses=listed, tags=["lists"])
    async def voices() -> dict[str, Any]:
        """The voices that requests may name, and `limits`: `chars` of a text.

        OpenAI's names are among the `aliases`; they mean the default voice. All names stand under `voices`, where some clients
        look for them.
        """
        rows = [_voice(voice, voice is front.voices.default) for voice in front.voices.voices.values()]
        names = [*front.voices.voices, *front.voices.other_names]
        return {
            "object": "list",
            "data": rows,
            "aliases": front.voices.other_names,
            "voices": [{"id": name, "name": name} for name in names],
            "limits": {"chars": front.settings.limits.chars},
        }


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "flowtts"}


def _voice(voice: ServedVoice, default: bool) -> dict[str, Any]:
    return {
        "id": voice.name,
        "object": "voice",
        "default": default,
        "kind": voice.kind,
        "languages": list(voice.languages),
        "prompt": voice.prompt,
        "description": voice.description,
        "licence": voice.licence,
        "naturalness": voice.naturalness,
        "sample_rate": voice.sample_rate,
        "speakers": list(voice.speakers),
        "phonemes": list(voice.phonemes),
        "word_times": voice.word_times,
    }


def _add_health(app: FastAPI, front: Front) -> None:
    @app.get("/healthz", tags=["health"])
    async def healthz() -> dict[str, str]:
        """Whether this process answers."""
        return {"status": "ok"}

    @app.get("/readyz", responses={503: {"description": "No replica answers."}}, tags=["health"])
    async def readyz() -> Response:
        """Whether a replica answers, too; with none running, one is started, and this is 503 until it is there."""
        try:
            async with asyncio.timeout(2):
                ready = await front.replicas.ready()
        except TimeoutError:
            ready = False
        return JSONResponse({"status": "ready" if ready else "starting"}, 200 if ready else 503)

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        headers = {
            "Content-Security-Policy": PAGE_POLICY,
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-cache",
        }
        return FileResponse(PAGE, headers=headers, media_type="text/html")


async def read_body(request: Request, front: Front) -> bytes:
    """The JSON of a request.

    Raises:
        ApiError: 413 where it is too long, 415 where it is no JSON (a page of another origin can send anything else unasked),
            408 where it comes too slowly.
    """
    limits = front.settings.limits
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "send the body as `Content-Type: application/json`", "unsupported_media_type")
    length = request.headers.get("content-length", "")
    longest = front.settings.body_bytes_at(request.scope["path"])
    if length.isdecimal() and (len(length) > 12 or int(length) > longest):
        raise too_large(longest)
    try:
        async with asyncio.timeout(limits.body_s):
            return await request.body()
    except TimeoutError:
        raise ApiError(408, f"the body did not arrive within {limits.body_s:g} s", "body_too_slow") from None


async def answer(front: Front, request: Request, job: SpeechJob, response_format: str, form: str) -> Response:
    """The answer to a job: `form` is "audio", "sse" or "json"."""
    call = request.scope["state"]["call"]
    notes = call.notes
    notes |= {"voice": job.voice, "chars": len(job.text), "format": response_format}
    if front.settings.log_texts:
        notes["text"] = job.text
    voice = front.voices.find(job.voice)
    media_type = {"sse": EVENTS, "json": "application/json"}.get(form, MEDIA_TYPES[response_format])
    key = request_key(job, voice.fingerprint, f"{response_format} {form}")
    answer_id = secrets.token_urlsafe(16) if form == "audio" and front.settings.cache_bytes else ""
    keeping = Keeping(front, key, media_type, call.owner, answer_id)
    found = front.cache.get(keeping.key)
    front.meters.cached(found is not None)
    notes["cache"] = "miss" if found is None else "hit"
    headers = {"X-Cache": notes["cache"], "X-Sample-Rate": str(encoded_rate(response_format, voice.sample_rate))}
    mark = front.settings.watermark if job.mark else None
    headers["X-Watermark"] = "none" if mark is None else str(mark["number"])
    if answer_id:
        headers["X-Speech-Id"] = answer_id
    if found is not None:
        keeping.tell_id()
        return Response(found.body, media_type=found.media_type, headers=headers)
    began = time.perf_counter()
    answering = await front.begin(job)
    notes["first_s"] = round(time.perf_counter() - began, 4)
    headers |= {"Cache-Control": "no-store"}
    if not job.stream:
        content = await _whole(answering, response_format, form)
        keeping.keep(content)
        return Response(content, media_type=media_type, headers=headers)
    pieces = _events(answering, response_format) if form == "sse" else _audio(answering, response_format)
    sized = response_format if form == "audio" else ""
    return StreamingResponse(_kept(pieces, answering, keeping, sized), media_type=media_type, headers=headers)


@dataclass(frozen=True)
class Keeping:
    """Where an answer is kept: by its request's key for who asks the same, by its id ("" for none) for who asked."""

    front: Front
    key: str
    media_type: str
    owner: str
    answer_id: str

    def keep(self, content: bytes) -> None:
        self.front.cache.put(self.key, Answer(content, self.media_type))
        self.tell_id()

    def tell_id(self) -> None:
        """Let the id be asked for."""
        if self.answer_id:
            self.front.answer_ids.add(self.answer_id, self.key, self.owner)


async def _kept(
    pieces: AsyncIterator[bytes], answering: Answering, keeping: Keeping, sized: str
) -> AsyncIterator[bytes]:
    """The pieces, kept while they are few enough; `sized`: as a file of this format, whose length is known then."""
    kept: list[bytes] | None = []
    size = 0
    try:
        async for piece in pieces:
            size += len(piece)
            if kept is not None:
                kept.append(piece)
                if not keeping.front.cache.room_for(size):
                    kept = None
            yield piece
    finally:
        await pieces.aclose()  # type: ignore[attr-defined]  # an async generator
    if kept is not None and answering.complete:
        keeping.keep(with_length(sized, b"".join(kept), answering.samples))


async def _audio(answering: Answering, response_format: str) -> AsyncIterator[bytes]:
    """The file as it comes. Where the answer is cut, what was heard is a whole file before the connection breaks."""
    with open_encoder(response_format, answering.sample_rate) as encoder:
        try:
            async for sound in answering:
                if piece := encoder.add(sound.waveform):
                    yield piece
        except AnswerCut:
            yield encoder.finish()
            raise
        finally:
            await answering.aclose()
        if piece := encoder.finish():
            yield piece


async def _events(answering: Answering, response_format: str) -> AsyncIterator[bytes]:
    """Server-sent events as OpenAI's; the last one is `speech.audio.done` or `error`."""
    with open_encoder(response_format, answering.sample_rate) as encoder:
        try:
            async for sound in answering:
                yield _delta(encoder.add(sound.waveform), sound.words)
            if rest := encoder.finish():
                yield _delta(rest, ())
            yield _event(
                {"type": "speech.audio.done", "seconds": round(answering.seconds, 4), "usage": _usage(answering)}
            )
        except AnswerCut as cut:
            yield _event({"type": "error", **cut.error.body})
        finally:
            await answering.aclose()


async def _whole(answering: Answering, response_format: str, form: str) -> bytes:
    try:
        sounds = [sound async for sound in answering]
    except AnswerCut as cut:
        raise cut.error from None
    finally:
        await answering.aclose()
    total = sum(len(sound.pcm) // 2 for sound in sounds)
    with open_encoder(response_format, answering.sample_rate, total) as encoder:
        audio = b"".join([*(encoder.add(sound.waveform) for sound in sounds), encoder.finish()])
        rate = encoder.sample_rate
    if form != "json":
        return audio
    timed = all(sound.words is not None for sound in sounds)
    words = [_word(word) for sound in sounds for word in sound.words or ()] if timed else None
    values = {
        "audio": base64.b64encode(audio).decode(),
        "format": response_format,
        "sample_rate": rate,
        "seconds": round(answering.seconds, 4),
        "words": words,
    }
    return json.dumps(values).encode()


def _delta(audio: bytes, words: tuple[WordTime, ...] | None) -> bytes:
    event: dict[str, Any] = {"type": "speech.audio.delta", "audio": base64.b64encode(audio).decode()}
    return _event({**event, "words": [_word(word) for word in words]} if words else event)


def _event(values: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(values).encode() + b"\n\n"


def _word(word: WordTime) -> dict[str, Any]:
    times = {"start_s": round(word.start_s, 4), "end_s": round(word.end_s, 4)}
    return {"word": word.word, "start": word.start, "end": word.end, **times}


def _usage(answering: Answering) -> dict[str, int]:
    """OpenAI counts tokens; here an input token is a character, and an output token 50 ms of sound."""
    given, made = answering.chars, math.ceil(answering.seconds * 20)
    return {"input_tokens": given, "output_tokens": made, "total_tokens": given + made}


def _body(body: type[BaseModel]) -> dict[str, Any]:
    """A request body for OpenAPI, as its handler parses it."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": body.model_json_schema()}}}}


def _described(body: type[BaseModel], front: Front) -> dict[str, Any]:
    """The request body for OpenAPI, with the names that are served; the handlers parse it themselves, within limits."""
    schema = body.model_json_schema(ref_template="#/components/schemas/{model}")
    schema["properties"]["voice"] |= {"examples": list(front.voices.voices)}
    if "model" in schema["properties"]:
        schema["properties"]["model"] |= {"examples": front.voices.models}
    for name in ("input", "text"):
        if name in schema["properties"]:
            limit = front.settings.limits.chars
            schema["properties"][name] |= {"description": f"The text to speak, at most {limit} characters."}
    definitions = schema.pop("$defs", {})
    for name, definition in definitions.items():
        schema = _inlined(schema, f"#/components/schemas/{name}", definition)
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _inlined(value: Any, reference: str, definition: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        if value.get("$ref") == reference:
            return definition
        return {key: _inlined(item, reference, definition) for key, item in value.items()}
    return [_inlined(item, reference, definition) for item in value] if isinstance(value, list) else value


ERRORS = {
    400: "A field is wrong, or the text cannot be spoken.",
    401: "No key, or an unknown one.",
    403: "Not from there.",
    408: "The body came too slowly.",
    413: "The body is too long.",
    415: "The body is not JSON.",
    429: "Too much for this key; see Retry-After.",
    503: "Too much is waiting, or no replica could answer; see Retry-After.",
}


def _responses(media_type: str | None = None) -> dict[int | str, dict[str, Any]]:
    kinds = [media_type] if media_type else sorted({*MEDIA_TYPES.values(), EVENTS, "application/json"})
    error = {"error": {"message": "why", "type": "invalid_request_error", "param": "input", "code": "invalid_value"}}
    errors: dict[int | str, dict[str, Any]] = {
        status: {"description": text, "content": {"application/json": {"example": error}}}
        for status, text in ERRORS.items()
    }
    done = {"description": "The answer.", "content": {kind: {} for kind in kinds}}
    return {200: done, **errors}


def _kept_responses() -> dict[int | str, dict[str, Any]]:
    own = {206: "A part.", 404: "There is none, or it is somebody else's.", 416: "No byte is in the range."}
    return {**_responses(), **{status: {"description": text} for status, text in own.items()}}
