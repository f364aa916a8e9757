"""A voice's card: what the voice is, where it lies, and its fingerprint; read without loading torch."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flowtts_core.config import fingerprint, from_dict, to_dict
from flowtts_core.errors import ConfigError, VoiceError
from flowtts_core.text.frontends import PhonemeConfig

CARD = "voice.json"
FORMAT = 1
BUNDLED = Path(__file__).parent / "bundled"
DEFAULT_VOICE = "rms"


@dataclass(frozen=True)
class VoiceCard:
    """What a voice is; `voice.json`.

    Attributes:
        acoustic, vocoder: specs, as `flowtts_core.config.build` takes them.
        mel_fingerprint: of the mel that both parts must share.
        speakers: names of the speakers of a model with several, in the order of its embedding.
        steps, temperature, speed: sampling defaults.
        licence, source: of the weights, and of the speech they were trained on.
        scores: what was measured of it (name -> number or text), with the command in `scores["command"]`.
        sha256: of each weight file.
    """

    name: str
    acoustic: dict[str, Any]
    vocoder: dict[str, Any]
    frontend: PhonemeConfig
    mel_fingerprint: str
    sample_rate: int
    language: str = "en-us"
    description: str = ""
    licence: str = ""
    source: str = ""
    speakers: tuple[str, ...] = ()
    steps: int = 4
    temperature: float = 0.667
    speed: float = 1.0
    scores: dict[str, Any] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def fingerprint(self) -> str:
        """Equal for voices that make the same sound: weights, specs, front end and sampling defaults, not names or scores."""
        return fingerprint(to_dict(replace(self, name="", description="", licence="", source="", scores={})), 16)


def bundled_voices() -> dict[str, Path]:
    """Voices that come with the package: name -> folder."""
    return {card.parent.name: card.parent for card in sorted(BUNDLED.glob(f"*/{CARD}"))}


def find_voice(voice: str | os.PathLike[str] | None = None) -> Path:
    """The folder of a bundled voice's name, or of a path; None is the default voice.

    Raises:
        VoiceError: where neither exists; lists the bundled names.
    """
    bundled = bundled_voices()
    name = DEFAULT_VOICE if voice is None else os.fspath(voice)
    if name in bundled:
        return bundled[name]
    if (Path(name) / CARD).is_file():
        return Path(name)
    what = f"{name}: no {CARD} in that folder" if Path(name).is_dir() else f"no voice {name!r}"
    raise VoiceError(what, f"give a voice's folder or one of the bundled voices: {', '.join(bundled) or '(none)'}")


def load_card(voice: str | os.PathLike[str] | None = None) -> VoiceCard:
    """The card alone, without weights.

    Raises:
        VoiceError: when it is damaged or of another format.
    """
    path = find_voice(voice) / CARD
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.get("format") != FORMAT:
            raise VoiceError(f"{path}: format {values.get('format')!r}, this version reads {FORMAT}", "update flowtts")
        card: VoiceCard = from_dict(VoiceCard, values)
    except (OSError, ValueError, AttributeError, ConfigError) as error:
        raise VoiceError(
            f"{path}: not a voice card ({error})", "write the voice again, or take it from a backup"
        ) from error
    return card


def write_card(folder: Path, card: VoiceCard) -> None:
    """Replace a folder's card atomically (also to add scores)."""
    part = folder / (CARD + ".part")
    part.write_text(json.dumps(to_dict(card), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(folder / CARD)
