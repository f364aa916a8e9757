"""Describes the machine, the versions, and how busy others kept it while something was measured."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any

from cluster.session import default_workers
from flowtts_core.errors import ConfigError

PACKAGES = (
    "flowtts",
    "torch",
    "numpy",
    "ray",
    "gruut",
    "pocketsphinx",
    "jiwer",
    "speechmos",
    "onnxruntime",
    "Resemblyzer",
)
_TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def describe() -> dict[str, Any]:
    """Return the processor, cores that this process may use, memory, GPU, system and versions, as JSON values."""
    return {
        "processor": processor(),
        "cores": default_workers(),
        "memory_gib": memory_gib(),
        "gpu": gpu(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := installed(name))},
    }


def installed(package: str) -> str | None:
    """Return the version of a distribution, None where it is absent."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def gpu() -> str | None:
    """Return the name of the GPU that torch can use, if any."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return "Apple (MPS)" if torch.backends.mps.is_available() else None


def require_device(device: str) -> None:
    """Raise ConfigError where torch cannot use the device, before anything is measured on it."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: torch sees no GPU", "flowtts doctor says what this machine has")


@dataclass(frozen=True)
class Busy:
    """What went on meanwhile: `others_cores` is how many cores other processes kept busy (None: unknown)."""

    wall_s: float
    load_before: float
    load_after: float
    others_cores: float | None

    def to_json(self) -> dict[str, float | None]:
        return {key: None if value is None else round(value, 3) for key, value in asdict(self).items()}


class Watch:
    """`with Watch() as watch: ...` measures a block; read `watch.busy` after it."""

    busy: Busy

    def __enter__(self) -> Watch:
        self._start, self._load = time.perf_counter(), os.getloadavg()[0]
        self._own, self._all = _own_seconds(), _busy_seconds()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        wall, everyone = time.perf_counter() - self._start, _busy_seconds()
        others = None
        if everyone is not None and self._all is not None:
            others = max(0.0, (everyone - self._all) - (_own_seconds() - self._own)) / wall
        self.busy = Busy(wall, self._load, os.getloadavg()[0], others)


def _own_seconds() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _busy_seconds() -> float | None:
    """Return the CPU seconds of everything on the machine since it started, without idling and waiting (Linux)."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    user, nice, system, _idle, _wait, irq, softirq, steal, *_ = (
        int(n) for n in stat.read_text().split("\n")[0].split()[1:]
    )
    return (user + nice + system + irq + softirq + steal) / _TICK
