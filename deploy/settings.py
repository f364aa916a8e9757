"""What the server is told: the voices it serves, its limits, and who may ask."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from flowtts_core.errors import ConfigError
from flowtts_core.voice.card import find_voice, load_card, split_speaker

# Of a character that JSON writes as two escapes, and of what stands beside a text
JSON_CHAR_BYTES, OTHER_FIELDS_BYTES = 12, 16 << 10
DETECT_PATH = "/v1/audio/detect"
MAX_NAME = 64  # characters of an alias, as of a model in a request


@dataclass(frozen=True)
class RequestLimits:
    """What one request may ask for.

    Attributes:
        chars: of a text, whatever asks for it.
        audio_s: of one answer; what is longer ends there.
        body_bytes: of a request, a clip apart; more where a text of `chars` may need it.
        prompt_bytes: of a clip.
        body_s: for a request's body to arrive.
        answer_s: for an answer to be made and sent, and for one WebSocket.
        idle_s: of a WebSocket on which nothing comes.
        start_s: that a request waits for the first replica, as after a scale to zero.
        queue_s: that a request waits for a place where all replicas are full.
        references: recordings that each key may keep.
        detect_bytes: of a recording in which a mark is looked for.
    """

    chars: int = 8192
    audio_s: float = 900.0
    body_bytes: int = 128 << 10
    prompt_bytes: int = 4 << 20
    body_s: float = 10.0
    answer_s: float = 600.0
    idle_s: float = 60.0
    start_s: float = 90.0
    queue_s: float = 0.0
    references: int = 100
    detect_bytes: int = 32 << 20


@dataclass(frozen=True)
class ServedVoice:
    """A voice of the list that requests choose from, by name alone; the other fields are its card's."""

    name: str
    folder: str
    kind: str
    sample_rate: int
    fingerprint: str
    languages: tuple[str, ...] = ()
    description: str = ""
    licence: str = ""
    speakers: tuple[str, ...] = ()
    phonemes: tuple[str, ...] = ()
    prompt: str = "none"
    naturalness: float | None = None
    word_times: str = "none"


@dataclass(frozen=True)
class Alias:
    """Another name for a voice or a speaker of it. Asked for as a model, it is what OpenAI's names of voices mean."""

    name: str
    voice: str
    speaker: str | None = None


@dataclass(frozen=True)
class Settings:
    """How the front answers.

    Attributes:
        voices: the first one is the default.
        aliases: other names for voices (see `read_aliases`).
        keys: a keys file; None asks for no key.
        local_only: answer only to requests for this machine by a name of its own: without keys, a web page that points a
            name of its own here (DNS rebinding) must not reach us.
        allowed_hosts: other names, in lower case, that count as this machine's own.
        instance: what our own proxy says in `X-FlowTTS-Instance`; a request that says anything else was meant for another
            server on this machine, or went round the proxy. None asks for nothing.
        cache_bytes: 0 keeps no answers.
        origins: web pages that may use the server ("*" for all).
        log_texts: texts stand in the log.
        lexicon: fingerprint of the user's words: with others, kept answers count no more.
        cloning: all who may ask may have recordings imitated; else only keys that have the right.
        references: where uploaded recordings are kept, a folder or `s3://` place that all fronts share.
        watermark: what tells the mark of all answers from others; None: they have none.
        allow_unmarked: requests may ask for an answer without it.
    """

    voices: tuple[ServedVoice, ...]
    aliases: tuple[Alias, ...] = ()
    limits: RequestLimits = field(default_factory=RequestLimits)
    keys: str | None = None
    local_only: bool = False
    allowed_hosts: tuple[str, ...] = ()
    instance: str | None = None
    cache_bytes: int = 64 << 20
    origins: tuple[str, ...] = ()
    log_texts: bool = False
    lexicon: str = ""
    cloning: bool = False
    references: str | None = None
    watermark: dict[str, Any] | None = None
    allow_unmarked: bool = False

    def body_bytes_at(self, path: str) -> int:
        """How long a request for a path may be."""
        if path == DETECT_PATH:
            return self.limits.detect_bytes * 4 // 3 + OTHER_FIELDS_BYTES
        return self.body_bytes

    @property
    def body_bytes(self) -> int:
        """How long a request may be: longer where a voice takes clips, in base64."""
        prompted = any(voice.prompt != "none" for voice in self.voices)
        clip = self.limits.prompt_bytes * 4 // 3 + 4 if prompted else 0
        return max(self.limits.body_bytes, JSON_CHAR_BYTES * self.limits.chars + OTHER_FIELDS_BYTES) + clip


def served_voices(names: list[str]) -> tuple[ServedVoice, ...]:
    """The voices of `NAME`, `FOLDER` or `NAME=FOLDER`; the default voice where none is given.

    Raises:
        VoiceError: where one does not exist or its card is damaged.
        ConfigError: where two have the same name.
    """
    voices = tuple(_served(name) for name in names or [""])
    twice = {voice.name for voice in voices if sum(v.name == voice.name for v in voices) > 1}
    if twice:
        raise ConfigError(f"--voice: several are named {', '.join(sorted(twice))}", "name them: --voice NAME=FOLDER")
    return voices


def read_aliases(given: list[str], voices: tuple[ServedVoice, ...]) -> tuple[Alias, ...]:
    """Return the aliases of `NAME=VOICE` or `NAME=VOICE@SPEAKER`.

    Raises:
        ConfigError: for another form, a voice or speaker that is not served, a name that is taken or stands twice.
    """
    served = {voice.name: voice for voice in voices}
    aliases: dict[str, Alias] = {}
    for text in given:
        name, equals, target = text.partition("=")
        found, speaker = (target, None) if target in served else split_speaker(target)
        voice = found or ""
        if not (name and equals and len(name) <= MAX_NAME):
            raise ConfigError(f"--alias {text}: not an alias", "use --alias NAME=VOICE")
        if voice not in served:
            raise ConfigError(f"--alias {text}: no such voice is served", f"use one of {', '.join(served)}")
        if speaker is not None and speaker not in served[voice].speakers:
            known = ", ".join(served[voice].speakers[:20]) or "none to choose from"
            raise ConfigError(f"--alias {text}: {voice} has no such speaker", f"its speakers: {known}")
        if name in served or name in aliases:
            raise ConfigError(f"--alias {text}: {name} is a name already", "use another, or give it once")
        aliases[name] = Alias(name, voice, speaker)
    return tuple(aliases.values())


def _served(given: str) -> ServedVoice:
    name, equals, place = given.partition("=")
    folder = find_voice((place if equals else given) or None)
    card = load_card(folder)
    own: dict[str, Any] = {"name": name if equals else folder.resolve().name, "folder": str(folder.resolve())}
    shared = {f.name: getattr(card, f.name) for f in fields(ServedVoice) if f.name not in own}
    return ServedVoice(**own, **shared)
