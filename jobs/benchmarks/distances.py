"""Measure KAD and FAD against the sample size: bias, spread and time on distributions that are not normal."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowtts_core.metrics.fad import fad
from flowtts_core.metrics.kad import Kernel, kad, median_distance

SIZES = (25, 50, 100, 250, 500, 1000, 2500, 5000)
DIMENSION = 64
REFERENCE = 5000
_CENTRES = 6
_SHIFT = 0.25  # in every dimension, in standard deviations of a part of the mixture


@dataclass(frozen=True)
class Point:
    """A distance at one sample size: mean and standard deviation over draws, and the seconds of one draw."""

    metric: str
    sets: str  # "equal" or "shifted"
    n: int
    mean: float
    spread: float
    seconds: float


def mixture(n: int, seed: int, shift: float = 0.0) -> Tensor:
    """Return samples [n, 64] of a mixture of six normal distributions of unequal weight and width."""
    world = torch.Generator().manual_seed(7)
    centres = 2 * torch.randn(_CENTRES, DIMENSION, generator=world)
    widths = torch.rand(_CENTRES, 1, generator=world) + 0.5
    weights = torch.rand(_CENTRES, generator=world) + 0.1
    draw = torch.Generator().manual_seed(seed)
    part = torch.multinomial(weights, n, replacement=True, generator=draw)
    return centres[part] + widths[part] * (torch.randn(n, DIMENSION, generator=draw) + shift)


def study(draws: int, progress: Callable[[str], None]) -> list[Point]:
    """Return both distances of samples of each size to a reference of 5,000, equally distributed and shifted."""
    reference = mixture(REFERENCE, seed=1)
    kernel = Kernel(bandwidth=median_distance(reference))  # from the reference alone, so it is found once
    metrics: dict[str, Callable[[Tensor], float]] = {
        "KAD x 100": lambda x: 100 * kad(x, reference, kernel),
        "FAD": lambda x: fad(x, reference),
    }
    points = []
    for n in SIZES:
        progress(f"{n} samples")
        for sets, shift in (("equal", 0.0), ("shifted", _SHIFT)):
            samples = [mixture(n, seed=1000 + draw, shift=shift) for draw in range(draws)]
            for name, metric in metrics.items():
                began = time.perf_counter()
                values = torch.tensor([metric(sample) for sample in samples], dtype=torch.float64)
                seconds = (time.perf_counter() - began) / draws
                points.append(Point(name, sets, n, float(values.mean()), float(values.std()), seconds))
    return points


def cost(n: int = 5000, dimension: int = 512, rounds: int = 3) -> dict[str, float]:
    """Return the seconds of KAD with a given bandwidth, of the bandwidth, and of KAD's bare arithmetic; best of `rounds`.

    KAD has three sums. The two within a set take half a product of [n, D] by [D, n] each, by symmetry. The one between the
    sets takes a whole product. Together: two products and 2 n^2 exponentials.
    """
    x, y = (torch.randn(n, dimension, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    kernel = Kernel(bandwidth=30.0)
    found = {"kad": 1e9, "bandwidth": 1e9, "product": 1e9, "exponentials": 1e9}
    square = torch.empty(n, n)
    for _ in range(rounds):
        for name, work in (
            ("product", lambda: torch.mm(x, y.T, out=square)),
            ("exponentials", lambda: square.mul_(-1e-3).exp_()),
            ("kad", lambda: kad(x, y, kernel)),
            ("bandwidth", lambda: median_distance(x)),
        ):
            began = time.perf_counter()
            work()
            found[name] = min(found[name], time.perf_counter() - began)
    found["least"] = 2 * (found["product"] + found["exponentials"])
    found["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found


def write(folder: Path, points: list[Point], cost_s: dict[str, float], machine: dict[str, Any], draws: int) -> None:
    """Write the figure (SVG) and the page with its table."""
    folder.mkdir(parents=True, exist_ok=True)
    _figure(folder / "distances.svg", points)
    (folder / "distances.md").write_text(_page(points, cost_s, machine, draws), encoding="utf-8")


def _figure(path: Path, points: list[Point]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "flowtts"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    for axis, name in zip(axes, ("KAD x 100", "FAD"), strict=False):
        for sets, colour in (("equal", "tab:blue"), ("shifted", "tab:orange")):
            own = [p for p in points if p.metric == name and p.sets == sets]
            sizes, means = [p.n for p in own], [p.mean for p in own]
            axis.plot(sizes, means, "o-", color=colour, label=sets)
            low, high = [p.mean - p.spread for p in own], [p.mean + p.spread for p in own]
            axis.fill_between(sizes, low, high, color=colour, alpha=0.2)
        axis.set(xscale="log", xlabel="samples", title=name)
        axis.axhline(0, color="grey", linewidth=0.8)
        axis.legend()
    for name, colour in (("KAD x 100", "tab:green"), ("FAD", "tab:red")):
        own = [p for p in points if p.metric == name and p.sets == "equal"]
        axes[2].plot([p.n for p in own], [p.seconds for p in own], "o-", color=colour, label=name)
    axes[2].set(xscale="log", yscale="log", xlabel="samples", title="seconds")
    axes[2].legend()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _page(points: list[Point], cost_s: dict[str, float], machine: dict[str, Any], draws: int) -> str:
    by = {(p.metric, p.sets, p.n): p for p in points}
    lines = [
        f"| {n} | "
        + " | ".join(
            f"{by[name, sets, n].mean:.3f} ± {by[name, sets, n].spread:.3f}"
            for name in ("KAD x 100", "FAD")
            for sets in ("equal", "shifted")
        )
        + f" | {by['KAD x 100', 'equal', n].seconds * 1e3:.0f} | {by['FAD', 'equal', n].seconds * 1e3:.0f} |"
        for n in SIZES
    ]
    versions = machine.get("versions", {})
    seconds = {name: f"{value:.2f}" for name, value in cost_s.items()}
    return f"""# KAD and FAD by sample size

The table shows both distances between n samples and a reference of {REFERENCE} samples (mean ± standard deviation of
{draws} draws). The samples have {DIMENSION} dimensions and come from a mixture of six normal distributions of unequal weight and
width. "Equal" samples come from the mixture of the reference. "Shifted" samples come from one that is moved by {_SHIFT} standard
deviations in every dimension.

![KAD and FAD by sample size](distances.svg)

| n | KAD x 100, equal | KAD x 100, shifted | FAD, equal | FAD, shifted | KAD, ms | FAD, ms |
|---|---|---|---|---|---|---|
{chr(10).join(lines)}

KAD of equal sets is about 0 at every size, because KAD is unbiased. FAD of equal sets falls with n and is far from 0 for few
samples. So compare two FADs only at the same n, or extrapolate them (`flowtts evaluate` shows both).

KAD of 5,000 against 5,000 samples of 512 dimensions takes {seconds["kad"]} s with the bandwidth given. To find the
bandwidth takes {seconds["bandwidth"]} s. A product of [5000, 512] by [512, 5000] takes {seconds["product"]} s, its
exponentials {seconds["exponentials"]} s. The estimate needs two of each, that is {seconds["least"]} s. The process used at
most {cost_s["peak_mib"]:.0f} MiB of memory, with the matrices of this comparison.

Measured by `flowtts benchmark distances` on {machine.get("cores")} cores of {machine.get("processor")},
GPU: {machine.get("gpu") or "none"}, torch {versions.get("torch")}.
"""


def run(draws: int, folder: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """Measure, write the page, and return every figure."""
    from cluster.machine import describe

    machine = describe()
    cost_s = cost()
    points = study(draws, progress)
    write(folder, points, cost_s, machine, draws)
    return {"benchmark": "distances", "machine": machine, "points": [asdict(p) for p in points], "cost": cost_s}
