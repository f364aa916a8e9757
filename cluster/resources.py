"""Resource profiles: what an actor takes of a node, and that nothing beside the actors takes a CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flowtts_core.errors import ConfigError


@dataclass(frozen=True)
class Resources:
    """What one actor of a pool takes of its node.

    The tasks beside the pool, and any second pool, take no CPU and are bounded by their number instead. Otherwise a job can stop
    for ever when a node dies: idle actors hold every CPU that is left, the tasks that would feed them wait for one, and neither
    Ray nor Ray Data takes a CPU back. docs/cluster.md has the experiment.

    Args:
        cpus, gpus: of the actor; part of a GPU lets several actors share it.
        memory: bytes that Ray sets aside for the actor, 0 for none; it only counts them.
    """

    cpus: float = 1
    gpus: float = 0
    memory: int = 0

    def actor_options(self) -> dict[str, Any]:
        """Ray's options of an actor."""
        return {"num_cpus": self.cpus} | self._scarce()

    def second_pool_options(self) -> dict[str, Any]:
        """Ray's options of an actor of a second pool in the same pipeline: no CPU, for the reason above."""
        return {"num_cpus": 0} | self._scarce()

    @staticmethod
    def task_options() -> dict[str, Any]:
        """Ray's options of a task beside the actors."""
        return {"num_cpus": 0}

    def most_actors(self, cpus: float, gpus: float) -> int:
        """How many actors fit into so many CPUs and GPUs; more would wait for ever.

        Raises:
            ConfigError: where not even one fits.
        """
        bounds = [int(have / take + 1e-9) for have, take in ((cpus, self.cpus), (gpus, self.gpus)) if take]
        most = min(bounds, default=1)
        if most < 1:
            raise ConfigError(
                f"an actor takes {self.cpus:g} CPUs and {self.gpus:g} GPUs; Ray has {cpus:g} and {gpus:g}",
                "another --profile, or a cluster with larger nodes",
            )
        return most

    def _scarce(self) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if self.gpus:
            options["num_gpus"] = self.gpus
        if self.memory:
            options["memory"] = self.memory
        return options


PROFILES = {
    "laptop": Resources(cpus=1),
    "cpu": Resources(cpus=1, memory=2 << 30),  # Ray counts it, so that a small node is not filled
    "gpu": Resources(cpus=1, gpus=1, memory=4 << 30),
    "gpu-shared": Resources(cpus=1, gpus=0.25, memory=4 << 30),  # four actors to a GPU
}


def profile(name: str) -> Resources:
    """A profile by its name.

    Raises:
        ConfigError: for a name that is none.
    """
    if name not in PROFILES:
        raise ConfigError(f"no profile {name!r}", f"one of {', '.join(PROFILES)}")
    return PROFILES[name]
