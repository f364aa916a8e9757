"""What one worker takes of a cluster in Ray's books, and the profiles that name the usual choices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flowtts_core.errors import ConfigError


@dataclass(frozen=True)
class Resources:
    """What one worker takes of its node.

    Attributes:
        cpus, gpus: in Ray's books; part of a GPU lets several workers share it.
        memory: in bytes, which Ray keeps free for it; 0 for none. Ray only counts it: `cluster.watchdog` holds a worker to it.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    memory: int = 0

    def options(self) -> dict[str, Any]:
        """Return Ray's options for an actor or task."""
        scarce = {"num_gpus": self.gpus, "memory": self.memory}
        return {"num_cpus": self.cpus} | {name: amount for name, amount in scarce.items() if amount}

    def room(self, nodes: Iterable[Mapping[str, float]]) -> int:
        """Return how many such workers fit on nodes, given what each has ("CPU", "GPU", "memory" in bytes); none spans two."""
        wanted = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory}
        wanted = {name: amount for name, amount in wanted.items() if amount}
        return sum(
            min((int(node.get(name, 0) / amount + 1e-6) for name, amount in wanted.items()), default=1)
            for node in nodes
        )


@dataclass(frozen=True)
class Profile:
    """A kind of machine: where models run there, and what a worker takes; one core each."""

    device: str
    gpus: float
    memory_gib: float | None
    note: str


PROFILES = {
    "laptop": Profile("cpu", 0.0, None, "a core for each worker"),
    "cpu": Profile("cpu", 0.0, 2.0, "a core and 2 GiB for each, so that nodes with little memory are not filled"),
    "gpu": Profile("cuda", 1.0, 6.0, "a GPU and 6 GiB for each"),
    "gpu-shared": Profile(
        "cuda", 0.25, 4.0, "a quarter of a GPU and 4 GiB for each: one voice alone seldom fills a GPU"
    ),
}


def profile_named(name: str) -> Profile:
    """Return a profile by its name.

    Raises:
        ConfigError: There is no such profile.
    """
    if name not in PROFILES:
        raise ConfigError(f"--profile {name}: there is no such profile", f"one of {', '.join(PROFILES)}")
    return PROFILES[name]
