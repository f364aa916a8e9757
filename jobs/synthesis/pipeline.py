"""The stages of a synthesis job, one after the other: text front end, speaking, verifying, committing; and who runs them."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.pool import Patience, Stage, Task, run_stages
from cluster.resources import Resources
from cluster.session import default_workers
from cluster.storage import Storage
from cluster.watchdog import WorkLimits
from flowtts_core.errors import ConfigError
from jobs.synthesis.commit import MakeCommitter
from jobs.synthesis.engine import Voices
from jobs.synthesis.front import MakeFront
from jobs.synthesis.settings import Speaking
from jobs.synthesis.speak import MakeSpeaking
from jobs.synthesis.verify import MakeVerifier

ITEM_S = 600.0  # that one utterance may take before its worker counts as hanging
_NO_BOUND = 1_000_000  # of actors: as many as the cluster has cores
_FRONTS_PER_GPU, _VERIFIERS_PER_GPU = 12, 16  # CPU processes that keep one GPU at work


@dataclass(frozen=True)
class Running:
    """How many processes, where, and how long they may take; none of it changes the sound of an utterance.

    Attributes:
        least, most: actors that speak, one core each; None takes every core. Ray Data starts `least` and adds as work waits.
        address: of a Ray cluster; None starts a private one.
        gpus: of a GPU per actor, for instance 0.5: two share one.
        verifiers: processes that judge, where there is a gate; None: as many as keep up.
        item_s: seconds that one utterance may take; one that takes longer, twice, is set aside.
        memory_gib: that Ray keeps for a process that speaks, and any process may take; None: no bound of ours.
        stall_s: seconds without any shard finished after which the pools are made anew.
    """

    least: int | None = None
    most: int | None = None
    address: str | None = None
    gpus: float = 0.0
    verifiers: int | None = None
    item_s: float = ITEM_S
    memory_gib: float | None = None
    stall_s: float = 3600.0

    def __post_init__(self) -> None:
        for name, value in (("least", self.least), ("most", self.most), ("verifiers", self.verifiers)):
            if value is not None and value < 1:
                raise ConfigError(f"{value} workers cannot work ({name})", "give at least 1, or leave it out")
        if self.least is not None and self.most is not None and self.least > self.most:
            raise ConfigError(f"--min {self.least} is more than --max {self.most}", "swap them")
        if not 0 <= self.gpus <= 8:
            raise ConfigError(f"{self.gpus} GPUs per worker", "give a part of one, as 0.5, or 1")
        bounds = (("item-timeout", self.item_s), ("stall-after", self.stall_s), ("worker-memory", self.memory_gib))
        for name, number in bounds:
            if number is not None and not number > 0:
                raise ConfigError(f"--{name} {number:g}: it must be more than 0")

    @property
    def limits(self) -> WorkLimits:
        return WorkLimits(self.item_s, self.takes.memory or None)

    @property
    def bound(self) -> int:
        """How many actors may speak at once."""
        return self.most or max(self.least or 1, default_workers() if self.address is None else _NO_BOUND)

    @property
    def takes(self) -> Resources:
        """What each process that speaks takes in Ray's books."""
        return Resources(gpus=self.gpus, memory=int((self.memory_gib or 0.0) * 2**30))


def speak_shards(
    tasks: Sequence[Task],
    *,
    output: Storage,
    voices: Voices,
    speaking: Speaking,
    rows: str,
    job: str,
    running: Running,
    told: Callable[[str], None] = lambda what: None,
) -> Iterator[dict[str, Any]]:
    """Speak the shards and yield what became of each as it is committed, in no fixed order.

    Args:
        tasks: a dict for each shard: its number, where its rows lie in the plan, its digest.
        rows: where the audio of a corpus goes; see `MakeCommitter`.
        job: names the job in its rows.
        told: is told when something of the cluster failed and the job goes on.

    Raises:
        ConfigError: where the cluster has no GPU for a worker.
        FlowTTSError: what a worker raised (a voice that does not load, a full disk).
    """
    made = stages_of(output, voices, speaking, rows, job, running, running.bound)
    return run_stages(
        made, tasks, address=running.address, cpus=running.bound, patience=Patience(running.stall_s, told)
    )


def stages_of(
    output: Storage, voices: Voices, speaking: Speaking, rows: str, job: str, running: Running, most: int
) -> list[Stage]:
    """The stages; only the one that speaks takes cores in Ray's books (see `cluster.pool.Stage`)."""
    run, limits = uuid.uuid4().hex, running.limits
    # a front takes a tenth of an utterance's time on a CPU; two, so that one has work while Ray Data finds the other its next
    fronts = max(2, math.ceil(most * (running.gpus * _FRONTS_PER_GPU or 1 / 4)))
    if running.address is None:
        fronts = min(fronts, max(2, default_workers()))
    verifiers = running.verifiers or max(1, math.ceil(most * (running.gpus * _VERIFIERS_PER_GPU or 1)))
    speaker = MakeSpeaking(output, voices, speaking, run, limits, job, cuda=bool(running.gpus))
    stages = [
        Stage("front", MakeFront(output, voices, speaking.defaults, run, limits), (1, fronts)),
        Stage("speak", speaker, (running.least or min(most, default_workers()), most), takes=running.takes),
    ]
    if speaking.gate is not None:
        verifier = MakeVerifier(output, voices, speaking, run, limits)
        stages.append(Stage("verify", verifier, (min(2, verifiers), verifiers)))
    stages.append(Stage("commit", MakeCommitter(output, rows), (1, fronts)))
    return stages
