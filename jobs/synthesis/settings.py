"""The settings of a synthesis job that change its sound: part of the job's identity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowtts_core.errors import ConfigError, FlowTTSError
from flowtts_core.metrics.requirements import Requirement, parse_requirement
from flowtts_core.request import REQUEST_FIELDS, PromptClip
from flowtts_core.watermark.marking import Marking
from jobs.synthesis.manifest import sha256

if TYPE_CHECKING:
    from flowtts_core.metrics.judges import PanelConfig


@dataclass(frozen=True)
class GateConfig:
    """What each utterance must keep.

    Attributes:
        require: as typed, for instance ("wer<0.3",); metrics that one clip has by itself.
        takes: how often an utterance is spoken at most.
        asr: what transcribes; see `flowtts_core.metrics.asr`.
        target: a file of the speaker who should be heard, for `secs`.
        target_digest: of what that file holds, found by itself: a job goes on only with the same speaker.
    """

    require: tuple[str, ...]
    takes: int = 3
    asr: str = "pocketsphinx"
    target: str | None = None
    target_digest: str = field(default="", init=False)

    def __post_init__(self) -> None:
        if self.takes < 1:
            raise ConfigError(f"{self.takes} takes are none", "give --takes 1 or more; 1 judges without speaking again")
        if any(r.metric == "secs" for r in self.requirements) and self.target is None:
            raise ConfigError("--verify of secs needs a voice to compare with", "give --verify-speaker FILE")
        if self.target is not None:
            try:
                object.__setattr__(self, "target_digest", sha256(Path(self.target).read_bytes()))
            except OSError as error:
                raise ConfigError(
                    f"--verify-speaker {self.target}: {error.strerror or error}", "give a file"
                ) from error

    @cached_property
    def requirements(self) -> tuple[Requirement, ...]:
        """`require`, parsed; raises ConfigError for an invalid requirement, or one that needs more than the clip and its text."""
        from flowtts_core.metrics.judges import JUDGES

        alone = [
            m.name for judge in ("words", "opinions", "naturalness", "speaker", "shape") for m in JUDGES[judge].metrics
        ]
        return tuple(parse_requirement(text, alone) for text in self.require)

    @property
    def panel(self) -> PanelConfig:
        from flowtts_core.metrics.judges import PanelConfig, judges_of

        judges = judges_of({requirement.metric for requirement in self.requirements})
        return PanelConfig(judges, asr=self.asr, target=self.target)


@dataclass(frozen=True)
class Speaking:
    """How a job speaks.

    Attributes:
        settings: fields of `SynthesisRequest` for all units that have none of their own; from the seed each unit's is drawn. A
            prompt is its clip's path.
        lexicon: fingerprint of the user's lexicon.
        gate: what each utterance must keep.
        whole: sets aside what cannot be spoken in full, as a corpus to train on needs it.
        asr: what transcribes the clips of rows that have no text; "" leaves them without. Not part of the job's identity: the
            texts are.
        consent: who agreed to be imitated, for the provenance alone.
        watermark: what is put into all that is spoken; None leaves it out.
        watermark_asked: somebody named it, so that a job that was begun without one does not go on without.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    lexicon: str = ""
    gate: GateConfig | None = None
    whole: bool = False
    asr: str = ""
    consent: str = ""
    watermark: Marking | None = field(default_factory=Marking)
    watermark_asked: bool = False

    def __post_init__(self) -> None:
        for name, value in self.settings.items():
            if REQUEST_FIELDS[name].kind is not PromptClip:
                try:
                    REQUEST_FIELDS[name].check(value)
                except FlowTTSError as error:
                    raise ConfigError(error.message) from error

    @property
    def seed(self) -> int:
        return int(self.settings.get("seed", 0))

    @property
    def defaults(self) -> dict[str, Any]:
        """The settings that a unit takes as they are; its seed is drawn, and a prompt is noted in each unit."""
        return {name: value for name, value in self.settings.items() if name not in ("seed", "prompt")}
