"""Engines by the kind in a voice's card; to add one, write its file, and a function and a line here.

An engine is imported when a voice of its kind is opened: a graph for ONNX Runtime does not wait for torch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from flowtts_core.voice.card import VoiceCard

if TYPE_CHECKING:
    from flowtts_core.engines.base import UtteranceSynthesizer

Open = Callable[[Path, VoiceCard, str, int | None], "UtteranceSynthesizer"]  # folder, card, device, threads


def _flow(folder: Path, card: VoiceCard, device: str, threads: int | None) -> UtteranceSynthesizer:
    from flowtts_core.engines.flow import open_flow

    return open_flow(folder, card, device, threads)


def _tiny(folder: Path, card: VoiceCard, device: str, threads: int | None) -> UtteranceSynthesizer:
    from flowtts_core.engines.tiny import open_tiny

    return open_tiny(folder, card, device, threads)


def _piper(folder: Path, card: VoiceCard, device: str, threads: int | None) -> UtteranceSynthesizer:
    from flowtts_core.engines.piper import open_piper

    return open_piper(folder, card, device, threads)


def _kokoro(folder: Path, card: VoiceCard, device: str, threads: int | None) -> UtteranceSynthesizer:
    from flowtts_core.engines.kokoro import open_kokoro

    return open_kokoro(folder, card, device, threads)


def _hibari(folder: Path, card: VoiceCard, device: str, threads: int | None) -> UtteranceSynthesizer:
    from flowtts_core.engines.hibari import open_hibari

    return open_hibari(folder, card, device, threads)


def _flite(folder: Path, card: VoiceCard, device: str, threads: int | None) -> UtteranceSynthesizer:
    from flowtts_core.engines.flite import open_flite

    return open_flite(folder, card, device, threads)


def _tokens(folder: Path, card: VoiceCard, device: str, threads: int | None) -> UtteranceSynthesizer:
    from flowtts_core.engines.tokens import open_tokens

    return open_tokens(folder, card, device, threads)


def _clone(folder: Path, card: VoiceCard, device: str, threads: int | None) -> UtteranceSynthesizer:
    from flowtts_core.engines.clone import open_clone

    return open_clone(folder, card, device, threads)


ENGINES: dict[str, Open] = {
    "flow": _flow,
    "tiny": _tiny,
    "piper": _piper,
    "kokoro": _kokoro,
    "hibari": _hibari,
    "flite": _flite,
    "tokens": _tokens,
    "clone": _clone,
}
