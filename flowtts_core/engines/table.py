"""Engines by the kind in a voice's card; to add one, write its file and a line here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flowtts_core.engines.base import UtteranceSynthesizer
from flowtts_core.engines.flow import open_flow
from flowtts_core.engines.tiny import open_tiny
from flowtts_core.voice.card import VoiceCard

ENGINES: dict[str, Callable[[Path, VoiceCard, str], UtteranceSynthesizer]] = {
    "flow": open_flow,
    "tiny": open_tiny,
}
