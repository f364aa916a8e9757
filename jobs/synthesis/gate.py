"""The gate of a synthesis job: each utterance is judged, spoken again where it falls short, and its best take kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flowtts_core.audio.files import encode, read_audio
from flowtts_core.metrics.requirements import standing
from flowtts_core.seeds import hash_seed
from jobs.synthesis.settings import GateConfig
from jobs.synthesis.stored import fault
from jobs.synthesis.units import Unit

if TYPE_CHECKING:
    from flowtts_core.engines.base import Speech, SynthesisFailure

MOST_STEPS = 64  # of the flow: finer ones change nothing that a judge hears


@dataclass(frozen=True)
class Take:
    """One reading of a unit. `verified` is None where there is no gate; `reason` says what it fell short of."""

    result: Speech | SynthesisFailure | None
    seed: int
    steps: int | None
    number: int = 1
    verified: bool | None = None
    reason: str = ""
    scores: tuple[tuple[str, float], ...] = ()


Retake = tuple[Unit, dict[str, Any]]  # the unit, and what is asked otherwise: its seed, and the steps of its flow
Speak = Callable[[list[Retake]], "list[Speech | SynthesisFailure]"]
Another = Callable[
    [Unit, int, int], dict[str, Any]
]  # unit, seed, steps -> what its voice can do otherwise, if anything


class Gate:
    """Judges takes; one for each worker, since its judges are loaded once.

    Args:
        steps: of the flow in the first take.
        another: tells what another take of a unit asks for; empty where it would sound the same.
        language: tells in which language a unit is read, as Whisper names it.
        words: tells what should be heard of it.
    """

    def __init__(
        self,
        config: GateConfig,
        steps: int,
        another: Another,
        language: Callable[[Unit], str],
        words: Callable[[Unit], str],
    ) -> None:
        from flowtts_core.metrics.judges import Panel

        self._config, self._steps, self._panel = config, max(1, steps), Panel(config.panel)
        self._another, self._language, self._words = another, language, words

    def choose(self, units: Sequence[Unit], firsts: Sequence[Take], speak: Speak) -> list[Take]:
        """The best take of each unit: the first that keeps all bounds, else the one that comes nearest.

        Take k has a seed of its own, drawn from the unit's, and twice the steps of take k - 1: the same unit always ends in the
        same sound. A voice without noise and steps has one take.

        Args:
            firsts: the first take of each unit.
            speak: speaks units again, and fails none by raising.
        """
        tried = [1] * len(units)
        best = [self._judged(unit, take) for unit, take in zip(units, firsts, strict=True)]
        for number in range(2, self._config.takes + 1):
            short = [i for i, take in enumerate(best) if take.verified is False]
            if not short:
                break
            steps = max(self._steps, min(MOST_STEPS, self._steps * 2 ** (number - 1)))
            asked = {i: self._another(units[i], hash_seed(units[i].seed, number), steps) for i in short}
            again = [i for i, other in asked.items() if other]
            if not again:
                break
            for i, result in zip(again, speak([(units[i], asked[i]) for i in again]), strict=True):
                seed, steps_asked = asked[i].get("seed", best[i].seed), asked[i].get("steps", best[i].steps)
                take = self._judged(units[i], Take(result, seed, steps_asked, number))
                tried[i] = number
                if self._rank(take) > self._rank(best[i]):
                    best[i] = take
        return [self._told(take, takes) for take, takes in zip(best, tried, strict=True)]

    def _rank(self, take: Take) -> tuple[float, ...]:
        return standing(dict(take.scores), self._config.requirements)

    def _judged(self, unit: Unit, take: Take) -> Take:
        """The take with its scores; one that did not come to be, for its text or the machine, is not judged."""
        from flowtts_core.engines.base import Speech
        from flowtts_core.metrics.judges import Clip

        if not isinstance(take.result, Speech):
            return take
        if fault(take.result):
            return replace(take, verified=False)
        # what will be saved, at its 16 bits: a recogniser may hear another word in the samples before rounding
        waveform, rate = read_audio(take.result.flac or encode(take.result.waveform, take.result.sample_rate, ".flac"))
        verdict = self._panel.judge(Clip(waveform, rate, self._words(unit), language=self._language(unit)))
        values = {name: top / bottom for name, (top, bottom) in verdict.values.items() if bottom > 0}
        met = all(requirement.met(values.get(requirement.metric)) for requirement in self._config.requirements)
        return replace(take, verified=met, scores=tuple(values.items()))

    def _told(self, take: Take, takes: int) -> Take:
        """With the reason why it falls short."""
        if take.verified is not False:
            return take
        values = dict(take.scores)
        missed = [
            f"{r.metric} is {values[r.metric]:.3g}, must be {'<' if r.below else '>'} {r.bound:g}"
            if r.metric in values
            else f"{r.metric} could not be measured"
            for r in self._config.requirements
            if not r.met(values.get(r.metric))
        ]
        return replace(take, reason=f"not verified in {takes} take{'s' * (takes > 1)}: {'; '.join(missed)}")
