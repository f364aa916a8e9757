"""The card of a watermark's folder, which says what it is and checks its weights; read without torch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from flowtts_core.errors import VoiceError

CARD, WEIGHTS = "watermark.json", "watermark.safetensors"
BUNDLED = Path(__file__).parent / "bundled"
REMEDY = "train it again: flowtts train DATA --recipe watermark -o FOLDER"


def read_card(folder: Path) -> dict[str, Any]:
    """Read the card of a folder, whose weights it must name.

    Raises:
        VoiceError: when something is missing or damaged.
    """
    try:
        card: dict[str, Any] = json.loads((folder / CARD).read_text(encoding="utf-8"))
        sha256, found = card["sha256"], hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VoiceError(f"{folder}: not a watermark ({error})", REMEDY) from error
    if found != sha256:
        raise VoiceError(f"{folder / WEIGHTS}: is not the file that {CARD} names (its SHA-256 differs)", REMEDY)
    return card


def bundled_mark() -> Path:
    """Return the folder of the watermark that comes with the installation."""
    return BUNDLED
