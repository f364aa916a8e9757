"""The bodies of requests: their fields and ranges, and the jobs they become."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
)

from deploy.errors import ApiError
from deploy.settings import MAX_NAME, Alias, RequestLimits, ServedVoice
from deploy.speech import SpeechJob
from flowtts_core.request import REQUEST_FIELDS, PromptClip, SynthesisRequest, from_json
from flowtts_core.voice.card import split_speaker


def _small(value: Any) -> Any:
    """A name in small letters: clients write `MP3` too."""
    return value.lower() if isinstance(value, str) else value


def _format_name(value: Any) -> Any:
    return "opus" if _small(value) == "ogg" else _small(value)


Format = Annotated[Literal["mp3", "opus", "aac", "flac", "wav", "pcm"], BeforeValidator(_format_name)]
FORMATS = "In any case; `ogg` is `opus`."
OPENAI_VOICES = frozenset(
    "alloy ash ballad cedar coral echo fable marin nova onyx sage shimmer verse".split()
)  # they mean the default voice here
MODELS = ("flowtts", "gpt-4o-mini-tts", "tts-1", "tts-1-hd")  # the last three so that clients need no change
SERVED = {"steps": (1, 64)}  # ranges that are narrower on a server than in the library
REFERENCE_ID = re.compile("[0-9a-f]{64}")
REFERENCE = "The id of a recording that was uploaded to /v1/voices/references, whose voice is imitated."
WATERMARK = "Whether the sound is marked as synthetic; false where the server allows it alone."
MAX_CHARS = 1024  # of a setting that is text; a clip is bounded by the body's size

AnyBody = TypeVar("AnyBody", bound=BaseModel)


class Body(BaseModel):
    """Fields of a request; null in one that may be left out means its default, as clients send it for what is not chosen."""

    model_config = ConfigDict(strict=True)

    @field_validator("*", mode="before")
    @classmethod
    def default_for_null(cls, value: Any, info: ValidationInfo) -> Any:
        """Return the default of a field that may be left out in place of null."""
        field = cls.model_fields[info.field_name or ""]
        return field.default if value is None and not field.is_required() else value


class VoiceId(BaseModel):
    """OpenAI's object for a voice of one's own."""

    model_config = ConfigDict(strict=True)
    id: str = Field(min_length=1, max_length=200)


class SpeechBody(Body):
    """`POST /v1/audio/speech`, as OpenAI's; `model` and `voice` may be left out, `instructions` and unknown fields do nothing."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"model": "flowtts", "voice": "alloy", "input": "Good evening.", "response_format": "mp3"}
        },
    )
    input: str = Field(min_length=1, description="The text to speak.")
    model: str = Field(
        default=MODELS[0],
        min_length=1,
        max_length=MAX_NAME,
        description="All are the same here, but for aliases of voices.",
        json_schema_extra={"examples": list(MODELS)},
    )
    voice: str | VoiceId | None = Field(
        default=None,
        description="A name of /v1/voices, or NAME@SPEAKER; OpenAI's names, and none, mean the default voice.",
    )
    response_format: Format = Field(default="mp3", description=FORMATS)
    speed: float = Field(default=1.0, ge=0.25, le=4.0, allow_inf_nan=False)
    stream_format: Annotated[Literal["audio", "sse"], BeforeValidator(_small)] = "audio"
    input_type: Literal["text", "ssml"] = Field(default="text", description="What the input is; not in OpenAI's.")
    instructions: str | None = Field(default=None, max_length=4096)
    reference: str | None = Field(default=None, max_length=64, description=f"{REFERENCE} Not in OpenAI's.")

    watermark: bool = Field(default=True, description=f"{WATERMARK} Not in OpenAI's.")

    @property
    def imitated(self) -> str | None:
        """The id of the recording to imitate, which OpenAI's clients may give as the id of a voice."""
        own = self.voice.id if isinstance(self.voice, VoiceId) and REFERENCE_ID.fullmatch(self.voice.id) else None
        return self.reference or own


class RequestBody(Body):
    """What asks for a voice and a form of answer."""

    model_config = ConfigDict(extra="forbid")
    voice: str | None = Field(
        default=None, min_length=1, max_length=200, description="NAME or NAME@SPEAKER; by default the first voice."
    )
    response_format: Format = Field(default="wav", description=FORMATS)
    timestamps: bool = Field(default=False, description="Answer with JSON (or events) that has word times too.")
    reference: str | None = Field(default=None, max_length=64, description=REFERENCE)
    watermark: bool = Field(default=True, description=WATERMARK)


def body_fields() -> dict[str, Any]:
    """Return the fields of a request other than its text as pydantic's `create_model` takes them."""
    made = {}
    for name, known in REQUEST_FIELDS.items():
        low, high = SERVED.get(name, (known.low, known.high))
        kind: Any = str if known.kind is PromptClip else known.kind
        if known.choices:
            made[name] = (Literal[known.choices], Field(known.default, description=_sentence(known.meaning)))
            continue
        bounds: dict[str, Any] = {"max_length": MAX_CHARS} if known.kind is str else {"ge": low, "le": high}
        if known.kind is float:
            bounds["allow_inf_nan"] = False
        meaning = _sentence(known.meaning)
        if known.kind is PromptClip:
            bounds, meaning = {}, f"{meaning} An audio file in base64."
        made[name] = (
            kind | None if known.default is None else kind,
            Field(known.default, description=meaning, **bounds),
        )
    return made


def _sentence(meaning: str) -> str:
    return f"{meaning[:1].upper()}{meaning[1:]}."


class _Tts(RequestBody):
    """`POST /tts`: all that a voice can do."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"text": "Good evening.", "seed": 1, "speed": 1.1, "timestamps": True}},
    )
    text: str | None = Field(default=None, min_length=1, description="The text to speak.")
    phoneme_id: int | None = Field(default=None, ge=0, le=999, description="Instead of a text, for a tiny voice.")
    stream: bool = Field(default=False, description="Send sound as soon as there is any.")


TtsBody: Any = create_model("TtsBody", __base__=_Tts, __doc__=_Tts.__doc__, **body_fields())


_OF_THE_SERVER = ("watermark_number", "watermark_key")  # what a client could think that it may choose


def parse(body: type[AnyBody], content: bytes) -> AnyBody:
    """The body of a request.

    Raises:
        ApiError: 400 that names the first field that is wrong.
    """
    try:
        return body.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        param = ".".join(str(part) for part in first["loc"]) or None
        why = first["msg"]
        if first["type"] == "extra_forbidden" and param in _OF_THE_SERVER:
            why += f" (it is the server's, which was started with --{param.replace('_', '-')} or without)"
        raise ApiError(400, f"{param or 'body'}: {why}", "invalid_value", param) from None


class VoiceList:
    """The voices and models that requests may name. A name is looked up here and nowhere else."""

    def __init__(self, voices: tuple[ServedVoice, ...], aliases: tuple[Alias, ...] = ()) -> None:
        self.default = voices[0]
        self.voices = {voice.name: voice for voice in voices}
        self.aliases = {alias.name: alias for alias in aliases}

    @property
    def models(self) -> list[str]:
        return list(dict.fromkeys((*MODELS, *self.aliases)))

    @property
    def other_names(self) -> list[str]:
        """Aliases, and OpenAI's names, which mean the default voice."""
        return sorted((OPENAI_VOICES | self.aliases.keys()) - self.voices.keys())

    def has_model(self, name: str) -> bool:
        return name in MODELS or name in self.aliases or name.startswith("gpt-4o-mini-tts")

    def find(self, name: str | None) -> ServedVoice:
        """Return the voice of `NAME` or `NAME@SPEAKER`; raises ApiError 400 for a name that is not served."""
        return self.asked(name)[0]

    def imitating(self) -> ServedVoice:
        """Return the first voice that imitates recordings; raises ApiError 400 where none does."""
        found = next((voice for voice in self.voices.values() if voice.prompt != "none"), None)
        if found is None:
            raise ApiError(400, "no voice here imitates recordings", "voice_not_found", "voice")
        return found

    def asked(self, name: str | None, model: str = "") -> tuple[ServedVoice, str | None]:
        """Return the voice and the speaker of `NAME[@SPEAKER]`; raises as `find`.

        Args:
            model: where it is an alias, its voice stands in for the default one.
        """
        if name in self.aliases:
            return self._target(self.aliases[name])
        voice, speaker = (name, None) if name in self.voices else split_speaker(name)
        if voice in self.voices:
            return self.voices[voice], speaker
        if voice in self.aliases:  # with a speaker of the request's own
            return self._target(self.aliases[voice])[0], speaker
        if name is not None and voice not in OPENAI_VOICES:
            raise ApiError(400, f"no such voice; there are: {', '.join(self.voices)}", "voice_not_found", "voice")
        if model in self.aliases:
            found, own = self._target(self.aliases[model])
            return found, speaker or own
        return self.default, speaker

    def _target(self, alias: Alias) -> tuple[ServedVoice, str | None]:
        return self.voices[alias.voice], alias.speaker


def speech_job(body: SpeechBody, voices: VoiceList, limits: RequestLimits) -> SpeechJob:
    """Raises ApiError 400 for a voice or model that is not served, and for a text that is too long."""
    if not voices.has_model(body.model):
        raise ApiError(400, f"no such model; there are: {', '.join(voices.models)}", "model_not_found", "model")
    if isinstance(body.voice, VoiceId) and body.imitated == body.voice.id:
        voice, speaker = voices.imitating(), None
    else:
        voice, speaker = voices.asked(body.voice.id if isinstance(body.voice, VoiceId) else body.voice, body.model)
    check_text(body.input, limits.chars, "input")
    request = SynthesisRequest(text=body.input, speed=body.speed, speaker=speaker, input_type=body.input_type)
    return SpeechJob(voice.name, request, mark=body.watermark)


def tts_job(body: Any, voices: VoiceList, limits: RequestLimits) -> SpeechJob:
    """Raises ApiError 400 where the fields do not fit together or the voice."""
    voice, speaker = voices.asked(body.voice)
    if (body.text is None) == (body.phoneme_id is None):
        raise ApiError(400, "give either `text` or `phoneme_id`", "invalid_value", "text")
    if body.phoneme_id is not None:
        text = _phoneme(body.phoneme_id, voice)
    else:
        text = body.text or ""
        check_text(text, limits.chars, "text")
    return SpeechJob(voice.name, request_of(text, body, speaker), body.stream, body.timestamps, mark=body.watermark)


def request_of(text: str, body: Any, speaker: str | None = None) -> SynthesisRequest:
    """Return the library's request for the fields of a body (see `body_fields`).

    Args:
        speaker: that the name of its voice brought.

    Raises:
        ApiError: 400 for a clip that is no base64, or two speakers.
    """
    settings = {name: getattr(body, name, known.default) for name, known in REQUEST_FIELDS.items()}
    if speaker is not None:
        if settings["speaker"] not in (None, speaker):
            raise ApiError(400, f"speaker: the voice names another one, {speaker}", "invalid_value", "speaker")
        settings["speaker"] = speaker
    try:
        return from_json({"text": text, **settings})
    except ValueError as error:  # base64 that is none
        raise ApiError(400, f"prompt: {error}", "invalid_value", "prompt") from None


def check_text(text: str, limit: int, param: str) -> None:
    """Raise ApiError 400 for a text that is too long, has nothing in it, or is no Unicode."""
    if len(text) > limit:
        raise ApiError(400, f"{param}: {len(text)} characters, at most {limit} are allowed", "text_too_long", param)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ApiError(400, f"{param}: half of a surrogate pair is no character", "invalid_value", param) from None
    if not text.strip():
        raise ApiError(400, f"{param}: there is nothing to say", "invalid_value", param)


def request_key(job: SpeechJob, fingerprint: str, form: str) -> str:
    """What an answer is cached by: all that its bytes depend on."""
    values = {**job.to_json(), "voice": fingerprint, "form": form}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _phoneme(index: int, voice: ServedVoice) -> str:
    if not voice.phonemes:
        raise ApiError(
            400, f"voice {voice.name} takes a text: phoneme_id is for a tiny voice", "invalid_value", "phoneme_id"
        )
    if index >= len(voice.phonemes):
        raise ApiError(400, f"phoneme_id: use 0 to {len(voice.phonemes) - 1}", "invalid_value", "phoneme_id")
    return voice.phonemes[index]
