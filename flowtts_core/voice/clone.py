"""A clone that was saved: a small folder with recordings of a person and their texts, and the name of the voice that imitates.

The folder holds no weights: the voice that imitates must be there, and the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowtts_core.audio.reference import clean_reference
from flowtts_core.errors import ConfigError, OutputError, VoiceError
from flowtts_core.files import write_whole
from flowtts_core.request import PromptClip
from flowtts_core.voice.card import (
    CARD,
    VoiceCard,
    bundled_voices,
    find_voice,
    found_anywhere,
    load_card,
    own_voices_folder,
    write_card,
)
from flowtts_core.voice.cloning import PreparedReference

KIND = "clone"
PROVENANCE = "provenance.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_REMEDY = "save the clone again: flowtts voices add NAME --clone FILE --voice VOICE"


@dataclass(frozen=True)
class Manner:
    """A recording of a clone, and what is said in it."""

    clip: PromptClip
    text: str


def save_clone(
    name: str,
    base: str | os.PathLike[str],
    references: Mapping[str, PreparedReference],
    provenance: Mapping[str, Mapping[str, Any]],
    folder: Path | None = None,
    *,
    overwrite: bool = False,
) -> tuple[Path, VoiceCard]:
    """Write a clone's folder, the card last; returns it and the card.

    Args:
        base: the voice that imitates.
        references: by style; "" is what is heard where a request names none.
        provenance: of each style, as `PreparedReference.provenance` tells it.
        folder: by default this user's own voices, where `open_voice(name)` finds it.

    Raises:
        ConfigError: for a name that cannot be one, or a voice that imitates nothing.
        OutputError: where the folder holds another voice, or cannot be written.
    """
    for wanted in (name, *filter(None, references)):
        if not _NAME.fullmatch(wanted) or wanted in bundled_voices():
            raise ConfigError(
                f"{wanted!r} cannot be a name here", "use letters, digits, '-', '_' and '.', and no bundled name"
            )
    card = load_card(base)
    if card.prompt == "none":
        raise ConfigError(
            f"voice {card.name} imitates nobody",
            "give a voice that does: --voice VOICE (`prompt` in flowtts voices --json)",
        )
    folder = folder or own_voices_folder() / name
    if (folder.exists() and any(folder.iterdir())) and not (overwrite and _is_clone(folder)):
        raise OutputError(f"{folder}: holds something already", "give --overwrite to replace a clone, or another name")
    files = {f"{style or 'reference'}.flac": clean_reference(r.clip).clip.audio for style, r in references.items()}
    styles = {style: {"file": f"{style or 'reference'}.flac", "text": r.text} for style, r in references.items()}
    frontend = {"frontend": card.parts["frontend"]} if "frontend" in card.parts else {}
    told = provenance.get("") or next(iter(provenance.values()))
    consent = f"; consent: {told['consent']}" if told["consent"] else ""
    made = VoiceCard(
        name=name,
        kind=KIND,
        parts={
            "base": {"name": card.name, "voice": _place(base), "fingerprint": card.fingerprint},
            "references": {"name": "recordings", "styles": styles},
            **frontend,
        },
        sampling=card.sampling,
        sample_rate=card.sample_rate,
        languages=card.languages,
        description=f"a clone by {card.name}",
        licence=card.licence,
        source=f"{told['source']} (SHA-256 {told['source_sha256']}){consent}",
        sha256={file: hashlib.sha256(data).hexdigest() for file, data in files.items()},
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, data in files.items():
            write_whole(folder / file, data)
        kept = {style or "reference": dict(values) for style, values in provenance.items()}
        write_whole(folder / PROVENANCE, (json.dumps(kept, indent=1, ensure_ascii=False) + "\n").encode())
        write_card(folder, made)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written ({error.strerror or error})", "give another place with -o"
        ) from error
    return folder, made


def base_of(card: VoiceCard, path: Path) -> tuple[Path, VoiceCard]:
    """Return the folder and the card of the voice that a clone is spoken by.

    Raises:
        VoiceError: where it is gone, or is another one than when the clone was saved.
    """
    told = card.parts.get("base", {})
    try:
        folder = find_voice(told["voice"])
        base = load_card(folder)
    except (KeyError, VoiceError) as error:
        raise VoiceError(f"{path}: its base voice {told.get('name')} is not there ({error})", _REMEDY) from error
    if base.fingerprint != told.get("fingerprint") or base.kind == KIND:
        raise VoiceError(f"{path}: its base voice {told['voice']} is not the one that it was saved with", _REMEDY)
    return folder, base


def manners_of(folder: Path, card: VoiceCard) -> dict[str, Manner]:
    """Return the recordings of a clone by their styles; raises VoiceError for one that is missing or altered."""
    found = {}
    try:
        for style, told in card.parts["references"]["styles"].items():
            data = (folder / Path(told["file"]).name).read_bytes()
            if hashlib.sha256(data).hexdigest() != card.sha256.get(told["file"]):
                raise VoiceError(f"{folder / told['file']}: is not the recording that the card names", _REMEDY)
            found[style] = Manner(PromptClip(data), told["text"])
    except (OSError, KeyError, TypeError, AttributeError) as error:
        raise VoiceError(f"{folder / CARD}: a recording is missing ({error})", _REMEDY) from error
    if not found:
        raise VoiceError(f"{folder / CARD}: names no recordings", _REMEDY)
    return found


def _place(base: str | os.PathLike[str]) -> str:
    """How the base is found again from anywhere: by its name where others find it too, else by its whole path."""
    name = os.fspath(base)
    return name if found_anywhere(name) or name in bundled_voices() else str(find_voice(base).resolve())


def _is_clone(folder: Path) -> bool:
    try:
        return load_card(folder).kind == KIND
    except VoiceError:
        return False
