"""What speaks in a synthesis job: engines by the names of their voices, loaded in the workers, the least recently used let go."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from flowtts_core.errors import ConfigError, FlowTTSError
from jobs.synthesis.units import Unit

if TYPE_CHECKING:  # the driver imports this file too, and has no need of torch
    from flowtts_core.engines.base import Synthesizer
    from flowtts_core.request import SynthesisRequest
    from flowtts_core.text.cast import Cast
    from flowtts_core.text.plan import TextPlan

MakeSynthesizer = Callable[[], "Synthesizer"]
PlanText = Callable[["SynthesisRequest"], "TextPlan"]  # raises FlowTTSError for a text that cannot be spoken
MAX_LOADED = 4  # voices that a worker holds at once


@dataclass(frozen=True)
class Engine:
    """A voice of a job: its name, a fingerprint that changes with its sound, and a picklable maker for the workers.

    Attributes:
        steps: of its flow by default.
        frontend: spec of its front end, which cuts texts without the model; None where it has none.
        make_on_cpu: makes it in a process that has no GPU, where `make` needs one.
        sampling: what it samples by where nothing else is asked, as JSON values.
    """

    name: str
    fingerprint: str
    make: MakeSynthesizer
    steps: int = 1
    frontend: dict[str, Any] | None = None
    make_on_cpu: MakeSynthesizer | None = None
    licence: str = ""
    source: str = ""
    languages: tuple[str, ...] = ("en-us",)
    speakers: tuple[str, ...] = ()
    sampling: Mapping[str, Any] = field(default_factory=dict)

    def make_front(self) -> PlanText | None:
        """Make what cuts texts for it, where that needs no model."""
        from flowtts_core.text.frontends import build
        from flowtts_core.text.plan import plan_text

        return None if self.frontend is None else partial(plan_text, frontend=build(self.frontend))

    def language(self, speaker: str | None, language: str | None) -> str:
        """The language in which the voice reads a request for this speaker and language; None is the voice's own."""
        from flowtts_core.text.frontends import language_read

        asked = language or next(iter(self.languages), "en")
        return asked if self.frontend is None else language_read(self.frontend, speaker, language) or asked

    def facts(self) -> dict[str, Any]:
        """What a data set, and its provenance, say of its voice."""
        facts = {name: getattr(self, name) for name in ("fingerprint", "licence", "source")}
        sampling = {"sampling": dict(self.sampling)} if self.sampling else {}
        return {**facts, "language": ", ".join(self.languages), **sampling}


@dataclass
class Voices:
    """The voices of a job: its own, and those that rows ask for by name.

    Args:
        resolve: finds another voice by its name; raises FlowTTSError where there is none. None: the job has its own alone.
    """

    own: Engine
    resolve: Callable[[str], Engine] | None = None
    _found: dict[str, Engine | str] = field(default_factory=dict)

    def cast(self, unit: Unit) -> Unit:
        """The unit with its voice and its speaker apart, where it names both, or a speaker of the job's own voice."""
        from flowtts_core.voice.card import split_speaker

        if unit.voice is None:
            return unit
        name, speaker = split_speaker(unit.voice)
        if name in self.own.speakers and speaker is None:
            name, speaker = None, name
        if speaker is None or unit.error:
            return unit
        asked = unit.settings.get("speaker", speaker)
        error = "" if asked == speaker else f"voice {unit.voice!r} names another speaker than {asked!r}"
        return replace(unit, voice=name, error=error, settings={**unit.settings, "speaker": speaker})

    def find(self, name: str | None) -> Engine:
        """The engine of a voice that has no `problem`; None is the job's own."""
        if name is None or name == self.own.name:
            return self.own
        found = self._look(name)
        assert isinstance(found, Engine)
        return found

    def problem(self, name: str) -> str:
        """Why the job cannot speak with this voice; empty where it can."""
        if name == self.own.name:
            return ""
        found = self._look(name)
        return found if isinstance(found, str) else ""

    def require_cast(self, cast: Cast) -> None:
        """Refuse a cast in which somebody has a voice or a speaker that there is not, before anything is spoken.

        Raises:
            ConfigError: names who.
        """
        from flowtts_core.voice.card import split_speaker

        for name, manner in {**cast.roles, "narrator": cast.narrator, "dialogue": cast.dialogue}.items():
            if manner is None or manner.voice is None or (self.resolve is None and self.own.name != manner.voice):
                continue
            voice, speaker = split_speaker(manner.voice)
            if speaker is None and voice in self.own.speakers:
                voice, speaker = None, voice
            problem = self.problem(voice) if voice else ""
            if not problem and speaker is not None and speaker not in self.find(voice).speakers:
                there = ", ".join(self.find(voice).speakers) or "none"
                problem = f"asks for speaker {speaker}; voice {self.find(voice).name} has: {there}"
            if problem:
                raise ConfigError(f"the cast's {name} {problem}", "`flowtts voices --json` lists voices and speakers")

    def _look(self, name: str) -> Engine | str:
        if name not in self._found:
            if self.resolve is None:
                self._found[name] = f"asks for voice {name}, and this job speaks with {self.own.name}"
            else:
                try:
                    self._found[name] = self.resolve(name)
                except FlowTTSError as error:
                    self._found[name] = f"asks for voice {name}: {error.message}"
        return self._found[name]

    def __getstate__(self) -> dict[str, Any]:
        return {"own": self.own, "resolve": self.resolve, "_found": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


class LoadedVoices:
    """A worker's synthesizers, loaded as they are asked for."""

    def __init__(self, voices: Voices, on_cpu: bool = False) -> None:
        self._voices, self._on_cpu = voices, on_cpu
        self._loaded: OrderedDict[str, Synthesizer] = OrderedDict()

    def engine(self, name: str | None) -> Engine:
        return self._voices.find(name)

    def synthesizer(self, name: str | None) -> Synthesizer:
        """The voice's engine, loaded; raises FlowTTSError where it does not load."""
        engine = self._voices.find(name)
        if engine.name in self._loaded:
            self._loaded.move_to_end(engine.name)
            return self._loaded[engine.name]
        while len(self._loaded) >= MAX_LOADED:
            self._loaded.popitem(last=False)
        try:
            make = (self._on_cpu and engine.make_on_cpu) or engine.make
            self._loaded[engine.name] = make()
        except FlowTTSError:
            raise
        except Exception as error:
            raise FlowTTSError(f"the voice does not load: {type(error).__name__}: {error}"[:1000]) from error
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(1)
        return self._loaded[engine.name]
