"""Trains the net that tells synthetic from human speech, on windows of both that went through the same random changes.

It is light, since it is trained many times, each time without some engines: windows are changed once and kept as spectra.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from flowtts_core.errors import ConfigError
from flowtts_core.fakes.channels import changed
from flowtts_core.fakes.net import STRIDE, FakeNet, FakeNetConfig
from flowtts_core.fakes.spectra import BINS, SAMPLES, WINDOW, seen_of

_AT_ONCE = 32  # windows that are changed at once, of all sources in turns: they share files of codecs


@dataclass(frozen=True)
class Source:
    """Clips of one origin.

    Attributes:
        synthetic: whether a machine made them.
        clips: waveforms [S] at 16 kHz.
        windows: how many are drawn from them.
    """

    name: str
    synthetic: bool
    clips: Sequence[np.ndarray]
    windows: int


@dataclass(frozen=True)
class Windows:
    """Windows as the net sees them.

    Attributes:
        seen: [N, WINDOW, BINS] float16.
        sounding: [N, WINDOW] bool.
        source: [N] numbers in `names`.
        synthetic: [sources] bool.
    """

    names: tuple[str, ...]
    synthetic: np.ndarray
    seen: np.ndarray
    sounding: np.ndarray
    source: np.ndarray


def draw_windows(sources: Sequence[Source], seed: int, tell: Callable[[int, int], None] | None = None) -> Windows:
    """Draw windows from random places of the clips in turn, and change them at random.

    Raises:
        ConfigError: for a source without clips.
    """
    for source in sources:
        if not len(source.clips):
            raise ConfigError(f"{source.name}: no clips", "give recordings of half a second or more")
    rng = np.random.default_rng(seed)
    drawn = [(number, clip) for number, source in enumerate(sources) for clip in range(source.windows)]
    rng.shuffle(drawn)
    seen = np.empty((len(drawn), WINDOW, BINS), np.float16)
    sounding = np.empty((len(drawn), WINDOW), bool)
    for begin in range(0, len(drawn), _AT_ONCE):
        part = drawn[begin : begin + _AT_ONCE]
        cut = [_window(sources[number].clips[clip % len(sources[number].clips)], rng) for number, clip in part]
        for row, sound in enumerate(changed(cut, rng)):
            seen[begin + row], sounding[begin + row] = seen_of(sound)
        if tell is not None:
            tell(begin + len(part), len(drawn))
    synthetic = np.array([source.synthetic for source in sources])
    numbers = np.array([number for number, _ in drawn])
    return Windows(tuple(source.name for source in sources), synthetic, seen, sounding, numbers)


def _window(clip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return [SAMPLES] from a random place of a clip; a shorter one is repeated."""
    begin = int(rng.integers(0, max(1, len(clip) - SAMPLES + 1)))
    return np.resize(clip[begin : begin + SAMPLES], SAMPLES).astype(np.float32)


@dataclass(frozen=True)
class FakeTraining:
    """How the net is trained.

    Attributes:
        spliced: share of the windows whose second part is of another one, of the other kind as a rule.
        masked: share of the windows of which some bands are left out.
        smoothing: how far the wanted probabilities are from 0 and 1.
    """

    steps: int = 600
    batch_size: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    spliced: float = 0.25
    masked: float = 0.5
    smoothing: float = 0.03
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 2 or self.batch_size % 2:
            raise ConfigError(
                f"FakeTraining: steps {self.steps}, batch_size {self.batch_size}",
                "give a step or more, and an even batch",
            )


def train_fakes(
    windows: Windows,
    training: FakeTraining,
    model: FakeNetConfig,
    without: Sequence[str] = (),
    tell: Callable[[int, float], None] | None = None,
) -> FakeNet:
    """Return a net trained on all sources but those left out; half of each batch is synthetic, each source an equal part.

    Args:
        without: names of sources that it must not hear.
        tell: called with each step and its loss.

    Raises:
        ConfigError: for an unknown name, or where no source of one kind is left.
    """
    if unknown := sorted(set(without) - set(windows.names)):
        raise ConfigError(f"no source {unknown[0]!r} to leave out", f"there are: {', '.join(windows.names)}")
    torch.manual_seed(training.seed)
    net = FakeNet(model).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(
        net.parameters(), training.learning_rate, (0.9, 0.99), weight_decay=training.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, training.learning_rate, total_steps=training.steps + 1, pct_start=0.1
    )
    for step, (seen, wanted, weight) in enumerate(_batches(windows, training, without)):
        odds = net(seen)
        soft = wanted * (1 - 2 * training.smoothing) + training.smoothing
        each = F.binary_cross_entropy_with_logits(odds, soft, reduction="none") * weight
        loss = each.sum() / weight.sum().clamp(min=1)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if tell is not None:
            tell(step + 1, float(loss.detach()))
    return net.eval()


def _batches(
    windows: Windows, training: FakeTraining, without: Sequence[str]
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield spectra [B, WINDOW, BINS], and what is wanted and its weight [B, WINDOW / STRIDE], for each step."""
    kept = [number for number, name in enumerate(windows.names) if name not in without]
    groups: dict[bool, list[np.ndarray]] = {True: [], False: []}
    for number in kept:
        groups[bool(windows.synthetic[number])].append(np.flatnonzero(windows.source == number))
    if not all(groups.values()):
        raise ConfigError("of human and synthetic speech one kind is missing", "give sources of both")
    rng = np.random.default_rng(training.seed)
    half = training.batch_size // 2
    for _ in range(training.steps):
        rows = [_drawn(groups[kind], rng) for kind in (False, True) for _ in range(half)]
        seen = windows.seen[rows].astype(np.float32)
        sounding = windows.sounding[rows].copy()
        wanted = np.repeat(windows.synthetic[windows.source[rows]][:, None], WINDOW, 1).astype(np.float32)
        whole = seen.copy(), sounding.copy(), wanted.copy()
        for row in np.flatnonzero(rng.random(len(rows)) < training.spliced):
            other, cut = (row + half) % len(rows), int(rng.integers(WINDOW // 5, 4 * WINDOW // 5))
            for mixed, source in zip((seen, sounding, wanted), whole, strict=True):
                mixed[row, cut:] = source[other, cut:]
        for row in np.flatnonzero(rng.random(len(rows)) < training.masked):
            for _ in range(2):
                first = int(rng.integers(BINS))
                seen[row, :, first : first + int(rng.integers(4, 40))] = 0
        weight = sounding.reshape(len(rows), -1, STRIDE).mean(2)
        yield (
            torch.from_numpy(seen),
            torch.from_numpy(wanted.reshape(len(rows), -1, STRIDE).mean(2)),
            torch.from_numpy(weight.astype(np.float32)),
        )


def _drawn(groups: list[np.ndarray], rng: np.random.Generator) -> int:
    """Return a row of a source, each of which has an equal part."""
    return int(rng.choice(groups[int(rng.integers(len(groups)))]))
