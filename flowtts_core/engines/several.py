"""Several voices as one: a request whose marks ask for other voices is spoken by each in turn, at the first one's sample rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

from flowtts_core.audio.files import resample
from flowtts_core.engines.base import Speech, Spoken, SynthesisFailure, UtteranceSynthesizer
from flowtts_core.request import REQUEST_FIELDS, SynthesisRequest, settings_of
from flowtts_core.text.frontends.base import Frontend
from flowtts_core.text.marks import Manner, read_marks
from flowtts_core.text.plan import TextPlan, asked, plan_text
from flowtts_core.voice.card import split_speaker


class SeveralVoices(UtteranceSynthesizer):
    """A voice, and those that marks name.

    Other voices take the seed and the speed of the request, and no other setting of it.

    Args:
        own: speaks all that no mark gives to another.
        open_other: opens a voice by its name; raises VoiceError where there is none.

    Attributes:
        used: the names of those that have spoken; None is the own.
    """

    def __init__(self, own: UtteranceSynthesizer, open_other: Callable[[str], UtteranceSynthesizer]) -> None:
        self.own, self._open_other = own, open_other
        self._others: dict[str, UtteranceSynthesizer] = {}
        self.used: set[str | None] = set()
        self.name, self.sample_rate, self.fingerprint = own.name, own.sample_rate, own.fingerprint
        self.languages, self.speakers = own.languages, own.speakers
        self.controls, self.seeded, self.frontend = own.controls, own.seeded, own.frontend

    def check(self, request: SynthesisRequest) -> None:
        """Raise FlowTTSError for a request, or a mark in its text, that a voice cannot follow, or a voice that is not there."""
        marked = read_marks(request.text, request.input_type)
        self.own.check(replace(request, text=marked.shown, input_type="text"))
        for manner in marked.manners:
            voice, own = self._voice(asked(request, manner), manner)
            voice.check_settings(settings_of(own))

    def notes(self, request: SynthesisRequest) -> tuple[str, ...]:
        """Return what the voice itself says of a request."""
        return self.own.notes(request)

    def plan(self, request: SynthesisRequest) -> TextPlan:
        """Check a request and cut its text, each part as its own voice reads it."""
        self.check(request)
        return plan_text(request, cast(Frontend, _Frontends(self)))

    def speak(self, utterances: Sequence[Spoken]) -> list[Speech | SynthesisFailure]:
        """Speak each utterance by the voice that its manner names."""
        places: dict[UtteranceSynthesizer, list[int]] = {}
        items: list[Spoken] = []
        for place, (request, utterance) in enumerate(utterances):
            voice, own = self._voice(request, utterance.manner)
            self.used.add(None if voice is self.own else split_speaker(utterance.manner.voice)[0])
            places.setdefault(voice, []).append(place)
            items.append((own, utterance))
        found: dict[int, Speech | SynthesisFailure] = {}
        for voice, own_places in places.items():
            found |= zip(own_places, voice.speak([items[place] for place in own_places]), strict=True)
        return [self._at_own_rate(found[place]) for place in range(len(items))]

    def _at_own_rate(self, result: Speech | SynthesisFailure) -> Speech | SynthesisFailure:
        if isinstance(result, SynthesisFailure) or result.sample_rate == self.sample_rate:
            return result
        waveform = resample(result.waveform, result.sample_rate, self.sample_rate)
        return replace(result, waveform=waveform, sample_rate=self.sample_rate)

    def voice_of(self, request: SynthesisRequest) -> tuple[UtteranceSynthesizer, SynthesisRequest]:
        """Return the voice for a request whose speaker a mark may have named, and what that voice is asked."""
        return self._voice(request, Manner(voice=request.speaker))

    def _voice(self, request: SynthesisRequest, manner: Manner) -> tuple[UtteranceSynthesizer, SynthesisRequest]:
        if manner.voice is None or self.own.offers_speaker(manner.voice):
            return self.own, request
        name, speaker = split_speaker(manner.voice)
        if name is None or name == self.own.name:
            return self.own, replace(request, speaker=speaker)
        if name not in self._others:
            self._others[name] = self._open_other(name)
        dropped = {f: known.default for f, known in REQUEST_FIELDS.items() if f not in ("seed", "speed", "input_type")}
        return self._others[name], replace(request, **{**dropped, "speaker": speaker})


class _Frontends:
    """The front end of whichever voice reads a request; all that a plan asks of it is `of`."""

    def __init__(self, voices: SeveralVoices) -> None:
        self._voices = voices

    def of(self, request: SynthesisRequest) -> Frontend | None:
        """Return the front end; None where that voice takes texts as they are."""
        voice, own = self._voices.voice_of(request)
        return voice.frontend and voice.frontend.of(own)
