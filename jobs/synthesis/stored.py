"""A unit's sound as it is stored: encoded, with its digest, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from flowtts_core.audio.files import encode
from jobs.synthesis.manifest import sha256

if TYPE_CHECKING:
    from flowtts_core.engines.base import Speech, SynthesisFailure


@dataclass(slots=True)  # not frozen, as `Unit` is not
class StoredSound:
    """A unit's sound as it is stored, or the `reason` why it has none. Never changed in place."""

    flac: bytes = b""
    sample_rate: int = 0
    num_samples: int = 0
    words: tuple[dict[str, Any], ...] | None = None
    phonemes: str = ""
    reason: str = ""
    digest: str = ""
    dropped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def stored(result: Speech | SynthesisFailure | None) -> StoredSound:
    """A result as it is stored."""
    if result is None:
        return StoredSound(reason="the voice gave no result")
    if (failed := getattr(result, "reason", None)) is not None:
        return StoredSound(reason=failed or "the voice could not speak it")
    speech = cast("Speech", result)  # to look for its class would be an import for each utterance
    # samples that an engine has encoded are numbers
    if reason := fault(speech) if not speech.flac or not len(speech.waveform) else "":
        return StoredSound(reason=reason)
    flac = speech.flac or encode(speech.waveform, speech.sample_rate, ".flac")
    words = (
        None if speech.words is None else tuple(dict(vars(w)) for w in speech.words)
    )  # `asdict` copies them deeply, 0.13 ms a text
    length, digest = len(speech.waveform), sha256(flac)
    return StoredSound(
        flac, speech.sample_rate, length, words, speech.phonemes, "", digest, speech.dropped, speech.notes
    )


def fault(speech: Speech | None) -> str:
    """Why a waveform cannot stand as a result; empty for a good one."""
    if speech is None:
        return "the voice gave no result"
    if speech.waveform.ndim != 1 or len(speech.waveform) == 0:
        return "the voice gave no sound"
    if not np.isfinite(speech.waveform).all():
        return "the voice gave samples that are not numbers"
    return "" if np.abs(speech.waveform).max() > 1e-4 else "the voice gave silence"
