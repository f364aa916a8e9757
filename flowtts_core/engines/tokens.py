"""Voices of speech tokens: a language model draws them, a flow and a vocoder make their sound."""

from __future__ import annotations

from pathlib import Path

import torch

from flowtts_core.acoustic.cosyvoice.model import CosyVoice
from flowtts_core.engines.flow import FlowSynthesizer
from flowtts_core.streaming.source import StreamSource
from flowtts_core.voice.card import VoiceCard
from flowtts_core.voice.parts import parts_of


class TokenSynthesizer(FlowSynthesizer):
    """Speaks with a voice of kind "tokens": its acoustic model draws tokens first, and knows no time of a symbol."""

    def stream_source(self) -> StreamSource | None:
        from flowtts_core.engines.token_stream import TokenSource

        streams = isinstance(self.voice.acoustic, CosyVoice) and self.voice.vocoder.context_frames is not None
        return TokenSource(self) if streams else None


def open_tokens(folder: Path, card: VoiceCard, device: str, threads: int | None = None) -> TokenSynthesizer:
    """Open the folder of a voice of tokens; `threads` limits torch's threads in this process."""
    if threads is not None:
        torch.set_num_threads(threads)
    return TokenSynthesizer(parts_of(folder, card, device), device=device)
