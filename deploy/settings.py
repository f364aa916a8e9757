"""What the server is told: the voices it serves, its limits, and who may ask."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from flowtts_core.errors import ConfigError, VoiceError
from flowtts_core.voice.card import find_voice, load_card

TINY_CARD = "tiny.json"


@dataclass(frozen=True)
class Limits:
    """What one request may ask for.

    Attributes:
        openai_chars, tts_chars: of a text.
        audio_s: of one answer; what is longer ends there.
        body_bytes: of a request.
        body_s: for a request's body to arrive.
        answer_s: for an answer to be made and sent, and for one WebSocket.
        idle_s: of a WebSocket on which nothing comes.
        start_s: that a request waits for the first speaker, as after a scale to zero.
    """

    openai_chars: int = 4096
    tts_chars: int = 8192
    audio_s: float = 900.0
    body_bytes: int = 128 << 10
    body_s: float = 10.0
    answer_s: float = 600.0
    idle_s: float = 60.0
    start_s: float = 90.0


@dataclass(frozen=True)
class ServedVoice:
    """A voice of the list that requests choose from, by name alone."""

    name: str
    folder: str
    kind: Literal["flow", "tiny"]
    sample_rate: int
    fingerprint: str
    language: str = ""
    description: str = ""
    licence: str = ""
    speakers: tuple[str, ...] = ()
    phonemes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settings:
    """How the front answers.

    Attributes:
        voices: the first one is the default.
        keys: a keys file; None asks for no key.
        local_only: answer only to requests for this machine by a name of its own: without keys, a web page that points a
            name of its own here (DNS rebinding) must not reach us.
        cache_bytes: 0 keeps no answers.
        origins: web pages that may use the server ("*" for all).
        log_texts: texts stand in the log.
    """

    voices: tuple[ServedVoice, ...]
    limits: Limits = field(default_factory=Limits)
    keys: str | None = None
    local_only: bool = False
    cache_bytes: int = 64 << 20
    origins: tuple[str, ...] = ()
    log_texts: bool = False


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


def _served(given: str) -> ServedVoice:
    name, equals, place = given.partition("=")
    place = place if equals else given
    if (Path(place) / TINY_CARD).is_file():
        return _tiny(Path(place), name if equals else Path(place).resolve().name)
    folder = find_voice(place or None)
    card = load_card(folder)
    return ServedVoice(
        name=name if equals else folder.resolve().name,
        folder=str(folder.resolve()),
        kind="flow",
        sample_rate=card.sample_rate,
        fingerprint=card.fingerprint,
        language=card.language,
        description=card.description,
        licence=card.licence,
        speakers=card.speakers,
    )


def _tiny(folder: Path, name: str) -> ServedVoice:
    """The card of a tiny voice, read without torch; the speaker that loads it checks it in full."""
    try:
        card: Any = json.loads((folder / TINY_CARD).read_text(encoding="utf-8"))
        model = card["model"]
        return ServedVoice(
            name=name,
            folder=str(folder.resolve()),
            kind="tiny",
            sample_rate=int(model["sample_rate"]),
            fingerprint=str(card["sha256"]),
            description="phonemes as pure tones, of the lecture's tiny task",
            licence=str(card.get("licence", "")),
            phonemes=tuple(str(phoneme) for phoneme in model["phonemes"]),
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        remedy = "train it again: flowtts train --recipe tiny -o FOLDER"
        raise VoiceError(f"{folder / TINY_CARD}: not the card of a tiny voice ({error!r})", remedy) from error
