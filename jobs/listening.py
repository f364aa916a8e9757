"""The listening page of `flowtts voices --samples`: one text by every voice, with players and figures side by side."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowtts_core.engines.base import UtteranceSynthesizer

TEXT = "It was a bright morning in April. Would you like some tea, or shall we walk along the river first?"


@dataclass(frozen=True)
class Sample:
    """One voice's reading of the text. With an `error` there is no sound, and the figures are 0."""

    voice: str
    speaker: str
    languages: str
    licence: str
    description: str
    seconds: float = 0.0
    rtf: float = 0.0
    naturalness: float | None = None
    audio: str = ""  # a data URI
    error: str = ""


def make_samples(voices: Sequence[str], text: str, language: str | None, all_speakers: bool) -> Iterator[Sample]:
    """Speak the text with each voice on one thread, and judge it where the judge is installed; yield each when it is made.

    Args:
        all_speakers: each speaker of a voice with several, else its first.
    """
    for voice in voices:
        yield from _of_voice(voice, text, language, all_speakers)


def _of_voice(voice: str, text: str, language: str | None, all_speakers: bool) -> Iterator[Sample]:
    from flowtts_core.errors import FlowTTSError
    from flowtts_core.voice import load_card, open_voice

    try:
        card = load_card(voice)
        synthesizer = open_voice(voice, threads=1)
    except FlowTTSError as error:
        yield Sample(voice, "", "", "", "", error=error.message)
        return
    speakers: Sequence[str | None] = (card.speakers if all_speakers else card.speakers[:1]) or (None,)
    for speaker in speakers:
        facts = (voice, speaker or "", ", ".join(card.languages), card.licence, card.description)
        try:
            yield Sample(*facts, *_spoken(synthesizer, text, speaker, language))
        except FlowTTSError as error:
            yield Sample(*facts, error=error.message)


def _spoken(
    synthesizer: UtteranceSynthesizer, text: str, speaker: str | None, language: str | None
) -> tuple[float, float, float | None, str]:
    """Seconds, RTF, naturalness and the sound of the text; the first of two readings warms the voice up."""
    from flowtts_core.audio.files import encode
    from flowtts_core.engines.base import SynthesisFailure
    from flowtts_core.errors import DependencyError, FlowTTSError
    from flowtts_core.request import SynthesisRequest

    request = SynthesisRequest(text=text, speaker=speaker, language=language)
    synthesizer.synthesize([request])
    began = time.perf_counter()
    [speech] = synthesizer.synthesize([request])
    took = time.perf_counter() - began
    if isinstance(speech, SynthesisFailure):
        raise FlowTTSError(speech.reason)
    try:
        from flowtts_core.metrics.naturalness import naturalness

        rated = naturalness(speech.waveform, speech.sample_rate)
    except DependencyError:
        rated = None
    sound = base64.b64encode(encode(speech.waveform, speech.sample_rate, ".mp3")).decode()
    return speech.seconds, took / speech.seconds, rated, f"data:audio/mpeg;base64,{sound}"


def write_page(path: Path, samples: Sequence[Sample], text: str) -> None:
    """Write the page: one HTML file with its sounds inside."""
    from flowtts_core.files import write_whole
    from jobs.templates import fill

    ranked = sorted(samples, key=lambda sample: (bool(sample.error), -(sample.naturalness or 0.0)))
    write_whole(path, fill("voices.html.j2", samples=ranked, text=text).encode())
