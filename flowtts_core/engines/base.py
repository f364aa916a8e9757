"""What speaks: requests in, speech out. Every engine shares one cut of texts, one rule for seeds, one rule for pauses."""

from __future__ import annotations

import abc
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from flowtts_core.errors import FlowTTSError
from flowtts_core.request import REQUEST_FIELDS, SynthesisRequest, check_request, settings_of
from flowtts_core.text.frontends.base import EncodedText, Frontend
from flowtts_core.text.marks import read_marks
from flowtts_core.text.plan import TextPlan, Utterance, asked, plan_text

if TYPE_CHECKING:
    from flowtts_core.streaming.source import StreamSource

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WordTime:
    """A word of the request's text (`text[start:end]`) and when it is spoken, in seconds from the waveform's start."""

    word: str
    start: int
    end: int
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Speech:
    """A result.

    Attributes:
        waveform: [S] float32 in [-1, 1].
        words: their times; None where the engine does not know them.
        phonemes: what was spoken, for people.
        flac: the same sound encoded, from an engine that has it so already.
        dropped: what of the text could not be spoken.
        notes: what else the listener should know, as of the recording that was imitated.
    """

    waveform: np.ndarray
    sample_rate: int
    words: tuple[WordTime, ...] | None = None
    phonemes: str = ""
    flac: bytes = b""
    dropped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        return len(self.waveform) / self.sample_rate


@dataclass(frozen=True)
class SynthesisFailure:
    """A request that cannot be spoken, with the reason; the others of its batch are not harmed."""

    reason: str


class Synthesizer(Protocol):
    """`results[i]` belongs to `requests[i]` and depends on it alone: not on the batch, the worker or the machine's load.

    Attributes:
        languages: that it speaks, as `en-us`; empty where it takes any text.
        speakers: names to choose from; empty where there is one voice.
        fingerprint: changes with the sound.
    """

    sample_rate: int
    fingerprint: str
    languages: tuple[str, ...]
    speakers: tuple[str, ...]

    def synthesize(self, requests: Sequence[SynthesisRequest]) -> list[Speech | SynthesisFailure]: ...


@runtime_checkable
class Streamable(Protocol):
    """What an engine offers beside that if it can stream inside a sentence; others stream sentence by sentence."""

    def stream_source(self) -> StreamSource | None:
        """What makes the pieces; None where this voice cannot."""
        ...


Spoken = tuple[SynthesisRequest, Utterance]


class UtteranceSynthesizer(abc.ABC):
    """A `Synthesizer` that speaks utterance by utterance; the base of our engines.

    Attributes:
        name: of the voice, for messages.
        controls: fields of `SynthesisRequest` that it follows, beside speaker and language; a request that sets another
            is refused.
        frontend: turns texts into tokens; None where the engine takes texts.
        seeded: whether another seed gives another sound.
        last_timings: seconds that the last call of `synthesize` spent by stage, from an engine that tells.
    """

    name: str
    sample_rate: int
    fingerprint: str
    languages: tuple[str, ...] = ()
    speakers: tuple[str, ...] = ()
    controls: frozenset[str] = frozenset({"seed"})
    frontend: Frontend | None = None
    seeded: bool = True
    last_timings: Mapping[str, float] = MappingProxyType({})

    @abc.abstractmethod
    def speak(self, utterances: Sequence[Spoken]) -> list[Speech | SynthesisFailure]:
        """Speak each utterance of its request, without pauses; word times count from the utterance's first sample."""

    def notes(self, request: SynthesisRequest) -> tuple[str, ...]:
        """Return what who asked should know of how a request is followed, as of its prompt; none where all is as asked."""
        return ()

    def check(self, request: SynthesisRequest) -> None:
        """Raise FlowTTSError for a request that this voice cannot follow, or a mark in its text."""
        check_request(request)
        self.check_settings(settings_of(request))
        for manner in read_marks(request.text, request.input_type).manners:
            self.check_settings(settings_of(asked(request, manner)))

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Raise FlowTTSError for settings (fields of `SynthesisRequest` that were set) of which this voice lacks one."""
        for name, value in settings.items():
            if name == "speaker":
                self._require_offered(name, value, self.offers_speaker(value))
            elif name == "language":
                self._require_offered(name, value, value.lower() in _languages(self.languages))
            elif name not in self.controls and name != "input_type":
                shown = "a clip" if name == "prompt" else repr(value)
                takes = ", ".join(n for n in REQUEST_FIELDS if n in self.controls)
                raise FlowTTSError(f"{name} = {shown}: voice {self.name} has no such setting (it has: {takes})")

    def offers_speaker(self, name: str) -> bool:
        """Whether the voice has a speaker of that name."""
        return name in self.speakers

    def _require_offered(self, what: str, asked: str, offers: bool) -> None:
        offered: tuple[str, ...] = getattr(self, f"{what}s")
        if not offers:
            choice = f"it has: {', '.join(offered)}" if offered else "there is no choice"
            raise FlowTTSError(f"voice {self.name} has no {what} {asked!r} ({choice})")

    def plan(self, request: SynthesisRequest) -> TextPlan:
        """Check a request and cut its text; raises FlowTTSError for one that cannot be spoken."""
        self.check(request)
        return plan_text(request, self.frontend)

    def synthesize(
        self, requests: Sequence[SynthesisRequest], plans: Sequence[TextPlan] | None = None
    ) -> list[Speech | SynthesisFailure]:
        """Speak each request; one that cannot be spoken gives a SynthesisFailure and harms no other.

        Args:
            plans: of the requests, where they were made elsewhere.
        """
        found: list[TextPlan | SynthesisFailure] = []
        for i, request in enumerate(requests):
            try:
                if plans is None:
                    found.append(self.plan(request))
                else:
                    self.check(request)
                    found.append(plans[i])
            except MemoryError:
                raise
            except Exception as error:
                found.append(failure(error))
        items = [
            (asked(r, u.manner), u)
            for r, p in zip(requests, found, strict=True)
            if isinstance(p, TextPlan)
            for u in p.utterances
        ]
        spoken = iter(self.speak(items))
        return [
            plan if isinstance(plan, SynthesisFailure) else self._joined(request, plan, spoken)
            for request, plan in zip(requests, found, strict=True)
        ]

    def _joined(
        self, request: SynthesisRequest, plan: TextPlan, spoken: Iterator[Speech | SynthesisFailure]
    ) -> Speech | SynthesisFailure:
        parts = [next(spoken) for _ in plan.utterances]
        failed = next((part for part in parts if isinstance(part, SynthesisFailure)), None)
        if failed is not None:
            return failed
        told = [part for part in parts if isinstance(part, Speech)]
        waveforms: list[np.ndarray] = []
        words: list[WordTime] = []
        samples = lead = lead_samples(plan.utterances[0], self.sample_rate)
        if lead:
            waveforms.append(np.zeros(lead, np.float32))
        for utterance, following, part in zip(plan.utterances, (*plan.utterances[1:], None), told, strict=True):
            words += placed(request, utterance, part.words or (), samples / self.sample_rate)
            waveforms.append(part.waveform)
            samples += len(part.waveform)
            if pause := pause_samples(utterance, following, self.sample_rate):
                waveforms.append(np.zeros(pause, np.float32))
                samples += pause
        return Speech(
            waveforms[0] if len(waveforms) == 1 else np.concatenate(waveforms),
            self.sample_rate,
            None if any(part.words is None for part in told) else tuple(words),
            " ".join(part.phonemes for part in told),
            dropped=plan.dropped,
            notes=tuple(dict.fromkeys((*self.notes(request), *(note for part in told for note in part.notes)))),
        )


def word_times(encoded: EncodedText, frames: Iterable[float], frame_s: float) -> tuple[WordTime, ...]:
    """Return when the words of an utterance are spoken.

    Args:
        frames: [L] of each token.
        frame_s: seconds of a frame.
    """
    ends = [0.0, *(end * frame_s for end in accumulate(frames))]
    return tuple(WordTime(w.text, w.start, w.end, ends[w.token_start], ends[w.token_end]) for w in encoded.words)


def pause_samples(utterance: Utterance, following: Utterance | None, sample_rate: int) -> int:
    """Return the samples of silence between an utterance and the one after it, or the end of the text."""
    if following is None:
        return round(utterance.pause_s * sample_rate) if utterance.held else 0
    return round((utterance.pause_s + following.before_s) * sample_rate)


def lead_samples(first: Utterance, sample_rate: int) -> int:
    """Return the samples of silence before the first utterance of a text."""
    return round(first.before_s * sample_rate)


def placed(
    request: SynthesisRequest, utterance: Utterance, words: Sequence[WordTime], seconds: float
) -> tuple[WordTime, ...]:
    """Return an utterance's words by the request's text, and by a clock that shows `seconds` where it begins."""
    moved = []
    for word in words:
        start, end = word.start + utterance.start, word.end + utterance.start
        times = (seconds + word.start_s, seconds + word.end_s)
        moved.append(
            replace(word, word=request.text[start:end], start=start, end=end, start_s=times[0], end_s=times[1])
        )
    return tuple(moved)


def failure(error: Exception) -> SynthesisFailure:
    """Return what became of a request whose synthesis raised."""
    if isinstance(error, FlowTTSError):
        return SynthesisFailure(error.reason)
    log.error(
        "a request could not be spoken", exc_info=error
    )  # not foreseen: the reason alone would not find the place
    return SynthesisFailure(f"{type(error).__name__}: {error}")


def _languages(offered: Sequence[str]) -> set[str]:
    """The languages offered, and each without its region."""
    return {form for language in offered for form in (language.lower(), language.lower().partition("-")[0])}
