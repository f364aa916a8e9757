"""The stage that verifies: CPU actors judge a shard's utterances, speak again those that fall short, and keep the best take.

It has a voice of its own for those later takes, loaded with the first of them: few utterances need any, and the actors that speak
go on with the next shard meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa

from cluster.pool import StageWork, Task
from cluster.storage import Storage
from cluster.watchdog import WorkLimits
from flowtts_core.audio.files import read_audio
from flowtts_core.text.marks import spoken_words
from jobs.synthesis.careful import Careful
from jobs.synthesis.engine import Voices
from jobs.synthesis.gate import Gate, Retake, Take
from jobs.synthesis.prompts import Clips
from jobs.synthesis.settings import Speaking
from jobs.synthesis.speak import Asked, UnitSynthesizer
from jobs.synthesis.stored import stored
from jobs.synthesis.units import Unit, request_of, units_of

_SLICE = 32  # utterances whose waveforms are held at once
_JUDGES_S = 60.0  # that one utterance may take, beside the time that its job allows for speaking it


@dataclass(frozen=True)
class MakeVerifier:
    """Makes the stage in its actor."""

    output: Storage
    voices: Voices
    speaking: Speaking
    run: str
    limits: WorkLimits

    def __call__(self) -> StageWork:
        assert self.speaking.gate is not None
        synthesizer = UnitSynthesizer(self.voices, on_cpu=True, watermark=self.speaking.watermark)

        def another(unit: Unit, seed: int, steps: int) -> dict[str, Any]:
            """What another take asks for: another seed and other steps, where the unit's voice has them."""
            voice = synthesizer.voices.synthesizer(unit.voice)
            asked = {"seed": seed} if getattr(voice, "seeded", True) else {}
            return asked | ({"steps": steps} if "steps" in getattr(voice, "controls", {"steps"}) else {})

        def language(unit: Unit) -> str:
            asked = {**self.speaking.defaults, **unit.settings}
            return self.voices.find(unit.voice).language(asked.get("speaker"), asked.get("language")).partition("-")[0]

        def words(unit: Unit) -> str:
            asked = {**self.speaking.defaults, **unit.settings}
            return spoken_words(unit.text, asked.get("input_type"))

        steps = self.speaking.settings.get("steps") or self.voices.own.steps
        gate = Gate(self.speaking.gate, steps, another, language, words)
        limits = WorkLimits((self.limits.seconds or 600.0) + _JUDGES_S, self.limits.memory)
        careful = Careful(self.output, "verify", self.run, limits)

        def work(task: Task, table: pa.Table | None) -> tuple[Task, pa.Table]:
            assert table is not None
            synthesizer.reset()
            clips = Clips(self.output, task["plan"])

            def speak_again(retakes: list[Retake]) -> list[Any]:
                job = self.speaking.defaults
                return synthesizer.synthesize([Asked(u, request_of(u, job, clips, **other)) for u, other in retakes])

            began = time.perf_counter()
            places = [i for i, status in enumerate(table.column("status").to_pylist()) if status == "ok"]
            some = table.take(pa.array(places, pa.int64()))
            units, sounds = units_of(some), dict(zip(some.column("id").to_pylist(), some.column("flac"), strict=True))
            judge = partial(_judged, gate, sounds, speak_again)
            takes: list[Take] = []
            if units:
                bound = limits.seconds and limits.seconds * (1 + len(units) / 4)
                takes, _ = careful(task["shard"], units, judge, _dead, bound)
            stats = dict(task["stats"])
            stats["judging_s"] = time.perf_counter() - began - synthesizer.seconds
            stats["compute_s"] += synthesizer.seconds
            return {**task, "stats": stats}, _applied(table, dict(zip(places, takes, strict=True)))

        return work


def _judged(gate: Gate, sounds: dict[str, Any], speak: Any, units: Sequence[Unit]) -> list[Take]:
    from flowtts_core.engines.base import Speech

    takes: list[Take] = []
    for start in range(0, len(units), _SLICE):
        some = units[start : start + _SLICE]
        firsts = []
        for unit in some:
            flac = sounds[unit.id].as_py()
            waveform, rate = read_audio(flac)
            firsts.append(Take(Speech(waveform, rate, flac=flac), unit.seed, unit.settings.get("steps")))
        takes += [_light(take) for take in gate.choose(some, firsts, speak)]
    return takes


def _light(take: Take) -> Take:
    """A take as it will be stored: a later one encoded, the first left where it is, without their waveforms."""
    result: Any = stored(take.result) if take.number > 1 else None
    return replace(take, result=result)


def _dead(unit: Unit, why: str) -> Take:
    return Take(None, unit.seed, unit.settings.get("steps"), 1, False, f"not verified: {why}")


def _applied(table: pa.Table, takes: dict[int, Take]) -> pa.Table:
    """The rows with what was judged of them; a corpus sets aside what no take made good, a book must have no holes."""
    names = ("verified", "scores", "reason", "status", "seed", "steps", "takes")
    sound = ("flac", "sha256", "num_samples", "sample_rate", "duration", "words", "phonemes")
    later = any(take.number > 1 for take in takes.values())
    columns = {name: table.column(name).to_pylist() for name in (*names, *(sound if later else ()))}
    chapters = table.column("chapter").to_pylist()
    for i, take in takes.items():
        aside = take.verified is False and not chapters[i]
        new: dict[str, Any] = {
            "verified": take.verified,
            "scores": [{"name": name, "value": value} for name, value in take.scores],
            "reason": take.reason or None,
            "status": "failed" if aside else "ok",
        }
        if take.number > 1:
            spoken: Any = take.result
            new |= {
                "seed": take.seed,
                "steps": take.steps,
                "takes": take.number,
                "flac": spoken.flac,
                "sha256": spoken.digest,
            }
            new |= {"num_samples": spoken.num_samples, "sample_rate": spoken.sample_rate, "phonemes": spoken.phonemes}
            new |= {
                "duration": spoken.num_samples / spoken.sample_rate,
                "words": _listed(spoken.words),
            }
        for name, value in new.items():
            columns[name][i] = value
    for name, values in columns.items():
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))
    return table


def _listed(words: tuple[Any, ...] | None) -> list[Any] | None:
    return None if words is None else list(words)
