"""From a recording to what requests bring to imitate it: the clip, what is said in it, and what is noted of both.

What a text is missing for is transcribed; a text that goes on after the clip was cut is cut with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from flowtts_core.audio.reference import LONGEST_S, Reference, clean_reference, require_own_text, text_note
from flowtts_core.errors import DependencyError, FlowTTSError, TextError
from flowtts_core.request import PromptClip

if TYPE_CHECKING:
    from flowtts_core.metrics.asr import Recogniser

ASR = "pocketsphinx"  # transcribes where no other recogniser is named
WRITE_IT = 'write it down: --ref-text "..."'
_TWO_SPEAKERS = (
    0.78  # halves of one speaker are at least 0.85 alike by Resemblyzer, of two at most 0.72 (28 LibriSpeech clips)
)
_DOUBTED, _REFUSED = 0.5, 0.9  # word error rates between a text and what a recogniser hears

Transcribe = Callable[[Reference], str]


@dataclass(frozen=True)
class PreparedReference:
    """What a request brings as `prompt` and `prompt_text`.

    Attributes:
        notes: what was done, and what may be wrong.
        transcribed: by which recogniser the text was heard; "" where it was given.
        source_sha256: of the file as it was given.
    """

    clip: PromptClip
    text: str
    seconds: float
    notes: tuple[str, ...] = ()
    transcribed: str = ""
    source_sha256: str = ""

    def provenance(self, source: str, consent: str) -> dict[str, Any]:
        """Return what a later reader should know of where the voice comes from, as JSON values.

        Args:
            source: the file, as it was named.
            consent: who agreed, and when; "" where nobody said.
        """
        told = asdict(self)
        kept = {name: told[name] for name in ("source_sha256", "text", "seconds", "notes", "transcribed")}
        return {"source": source, "consent": consent or None, **kept, "notes": list(self.notes)}


def prepare_reference(
    clip: PromptClip, text: str | None = None, *, asr: str | None = None, language: str = "en"
) -> PreparedReference:
    """Clean a recording and make sure that its text is what is said in it.

    Args:
        text: what is said in it; None or blank has it transcribed.
        asr: what transcribes (see `flowtts_core.metrics.asr`); named together with a text, it also checks the text.
        language: of the recording, as `en` or `en-us`.

    Raises:
        AudioError: for a recording that cannot serve.
        TextError: where nothing is heard, or the text is another.
        DependencyError: where nothing is installed that transcribes.
    """
    reference, spoken = clean_reference(clip), language.lower().partition("-")[0]
    notes = list(reference.notes)
    if two := speakers_note(reference):
        notes.append(two)
    given = " ".join((text or "").split())
    transcribed = "" if given else asr or ASR
    if not given:
        said = _heard(reference, transcribed, spoken)
    else:
        said = _beginning(reference, given, spoken) if reference.cut else given
        require_own_text(_uncut(reference), said)
        if asr and (odd := _compared(reference, said, asr, spoken)):
            notes.append(odd)
    if odd := text_note(said, reference.seconds):
        notes.append(odd)
    if said != given and given:
        notes.append(f"its text is cut with it, after {said[-40:]!r}")
    own = reference.clip if reference.cut else clip
    return PreparedReference(own, said, round(reference.seconds, 3), tuple(notes), transcribed, clip.digest)


def _uncut(reference: Reference) -> Reference:
    return Reference(reference.waveform, reference.sample_rate, reference.notes, False, reference.seconds)


def _heard(reference: Reference, asr: str, language: str) -> str:
    try:
        text = recogniser(asr).transcribe(reference.waveform, reference.sample_rate, language).strip()
    except DependencyError as error:
        raise DependencyError(
            "nothing is installed that could transcribe the reference", f"{WRITE_IT}, or {error.remedy}"
        ) from error
    except FlowTTSError as error:
        raise TextError(f"the reference cannot be transcribed: {error.message}", WRITE_IT) from error
    if not any(character.isalnum() for character in text):
        raise TextError(f"{asr} hears no words in the reference", WRITE_IT)
    return text


def _compared(reference: Reference, said: str, asr: str, language: str) -> str:
    from flowtts_core.metrics.wer import errors_of

    heard = recogniser(asr).transcribe(reference.waveform, reference.sample_rate, language)
    errors, words = errors_of(said, heard)
    rate = errors / max(words, 1)
    told = f"its text is {said[:80]!r}, and {asr} hears {heard[:80]!r}"
    if rate > _REFUSED:
        raise TextError(f"the reference and its text do not match: {told}", "write down exactly what is heard in it")
    return told if rate > _DOUBTED else ""


def _beginning(reference: Reference, text: str, language: str) -> str:
    """The words of a text that are said in the part of its recording that is used, by an alignment of English."""
    from flowtts_core.engines.forced_alignment import open_aligner

    remedy = (
        f"cut the recording to {LONGEST_S:g} s and give the text of that, or leave the text out to have it transcribed"
    )
    told = f"the reference lasts {reference.given_s:.1f} s, of which {reference.seconds:.1f} s are used, and its text is of all"
    if language != "en":
        raise TextError(told, remedy)
    aligner = open_aligner()
    encoded = aligner.frontend.encode(text)
    found = aligner.align(encoded, reference.before_cut, reference.sample_rate)
    ends = np.zeros(0) if found is None else np.cumsum(found.frames.numpy()) * found.frame_s
    inside = [w for w in encoded.words if len(ends) and ends[max(w.token_end - 1, 0)] <= reference.seconds + 0.1]
    if not inside:
        raise TextError(f"{told}; where to cut the text was not found", remedy)
    return text[: inside[-1].end].strip()


def speakers_note(reference: Reference) -> str:
    """What to say of a recording in which two people seem to speak; empty without Resemblyzer, which is no part of the voice."""
    from flowtts_core.metrics import similarity

    try:
        alike = similarity.parts_alike(reference.waveform, reference.sample_rate)
    except FlowTTSError:
        return ""
    if alike is None or alike >= _TWO_SPEAKERS:
        return ""
    return f"two people seem to speak in it (its parts are {alike:.2f} alike): the voice will be neither of them"


@lru_cache(maxsize=1)
def recogniser(spec: str) -> Recogniser:
    """Return the recogniser of a spec, loaded once."""
    from flowtts_core.metrics.asr import load_recogniser

    return load_recogniser(spec)
