"""Saved clones: each request is given to the voice that imitates, with the recording of the style that it names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from flowtts_core.engines.base import Speech, Spoken, SynthesisFailure, UtteranceSynthesizer
from flowtts_core.errors import FlowTTSError
from flowtts_core.request import SynthesisRequest
from flowtts_core.voice.card import CARD, VoiceCard
from flowtts_core.voice.clone import Manner, base_of, manners_of


class ClonedVoice(UtteranceSynthesizer):
    """A voice that imitates, with recordings of its own.

    Args:
        base: speaks.
        manners: recordings by style; "", or else the first, is what is heard where a request names none.
    """

    def __init__(self, card: VoiceCard, base: UtteranceSynthesizer, manners: Mapping[str, Manner]) -> None:
        self.base, self._manners = base, manners
        self._usual = "" if "" in manners else next(iter(manners))
        self.styles = tuple(style for style in manners if style)
        self.name, self.fingerprint, self.sample_rate = card.name, card.fingerprint, base.sample_rate
        self.languages, self.frontend, self.seeded = base.languages, base.frontend, base.seeded
        self.controls = base.controls - {"prompt", "prompt_text"} | ({"style"} if self.styles else set())

    def check(self, request: SynthesisRequest) -> None:
        """Raise FlowTTSError for a request that the voice cannot follow, or a style that the clone has not."""
        super().check(request)
        if request.style is not None and request.style not in self.styles:
            raise FlowTTSError(f"voice {self.name} has no style {request.style!r} (it has: {', '.join(self.styles)})")
        self.base.check(self._given(request))

    def speak(self, utterances: Sequence[Spoken]) -> list[Speech | SynthesisFailure]:
        """Speak each utterance as its recording does."""
        found = self.base.speak([(self._given(request), utterance) for request, utterance in utterances])
        self.last_timings = self.base.last_timings
        self.last_tokens = getattr(self.base, "last_tokens", (0, 0))
        self.last_prompts = getattr(self.base, "last_prompts", (0, 0))
        return found

    def _given(self, request: SynthesisRequest) -> SynthesisRequest:
        manner = self._manners[self._usual if request.style is None else request.style]
        return replace(request, prompt=manner.clip, prompt_text=manner.text, style=None)


def open_clone(folder: Path, card: VoiceCard, device: str, threads: int | None = None) -> ClonedVoice:
    """Open a saved clone, and the voice that it is spoken by."""
    from flowtts_core.engines.table import ENGINES

    place, base = base_of(card, folder / CARD)
    own = {"frontend": card.parts["frontend"]} if "frontend" in card.parts else {}  # perhaps with the user's own words
    base = replace(base, parts={**base.parts, **own}, sampling=card.sampling)
    return ClonedVoice(card, ENGINES[base.kind](place, base, device, threads), manners_of(folder, card))
