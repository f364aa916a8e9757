"""Trains the net that tells synthetic from human speech, on windows of both that went through the same random changes.

It is light, since it is trained many times, each time without some engines: windows are changed once and kept as textures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from flowtts_core.errors import ConfigError
from flowtts_core.fakes.channels import changed
from flowtts_core.fakes.net import FakeNet, FakeNetConfig
from flowtts_core.fakes.spectra import SAMPLES, seen_of
from flowtts_core.fakes.texture import FEATURES, LEAST, SPANS, texture_of

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
class Textures:
    """Seconds of speech as the net sees them.

    Attributes:
        texture: [N, FEATURES] float32.
        source: [N] numbers in `names`.
        synthetic: [sources] bool.
    """

    names: tuple[str, ...]
    synthetic: np.ndarray
    texture: np.ndarray
    source: np.ndarray


def draw_textures(sources: Sequence[Source], seed: int, tell: Callable[[int, int], None] | None = None) -> Textures:
    """Draw windows from random places of the clips in turn, change them at random, and return those seconds that sound.

    Args:
        tell: called with the number of windows done and in all.

    Raises:
        ConfigError: for a source without clips.
    """
    for source in sources:
        if not len(source.clips):
            raise ConfigError(f"{source.name}: no clips", "give recordings of half a second or more")
    rng = np.random.default_rng(seed)
    drawn = [(number, clip) for number, source in enumerate(sources) for clip in range(source.windows)]
    rng.shuffle(drawn)
    texture = np.empty((len(drawn), len(SPANS), FEATURES), np.float32)
    frames = np.empty((len(drawn), len(SPANS)), int)
    for begin in range(0, len(drawn), _AT_ONCE):
        part = drawn[begin : begin + _AT_ONCE]
        cut = [_window(sources[number].clips[clip % len(sources[number].clips)], rng) for number, clip in part]
        for row, sound in enumerate(changed(cut, rng)):
            texture[begin + row], frames[begin + row] = texture_of(*seen_of(sound))
        if tell is not None:
            tell(begin + len(part), len(drawn))
    told = frames >= LEAST
    numbers = np.repeat([number for number, _ in drawn], told.sum(1))
    synthetic = np.array([source.synthetic for source in sources])
    return Textures(tuple(source.name for source in sources), synthetic, texture[told], numbers)


def _window(clip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return [SAMPLES] from a random place of a clip; a shorter one is repeated."""
    begin = int(rng.integers(0, max(1, len(clip) - SAMPLES + 1)))
    return np.resize(clip[begin : begin + SAMPLES], SAMPLES).astype(np.float32)


@dataclass(frozen=True)
class FakeTraining:
    """How the net is trained.

    Attributes:
        batch_size: seconds of a batch, half of which are synthetic.
        smoothing: how far the wanted probabilities are from 0 and 1.
    """

    steps: int = 400
    batch_size: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    smoothing: float = 0.03
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 2 or self.batch_size % 2:
            raise ConfigError(
                f"FakeTraining: steps {self.steps}, batch_size {self.batch_size}",
                "give a step or more, and an even batch",
            )


def train_fakes(
    textures: Textures, training: FakeTraining, model: FakeNetConfig, without: Sequence[str] = ()
) -> FakeNet:
    """Return a net trained on all sources but those left out; each has an equal part of its kind.

    Args:
        without: names of sources that it must not hear.

    Raises:
        ConfigError: for an unknown name, or where no source of one kind is left.
    """
    if unknown := sorted(set(without) - set(textures.names)):
        raise ConfigError(f"no source {unknown[0]!r} to leave out", f"there are: {', '.join(textures.names)}")
    groups = _groups(textures, without)
    torch.manual_seed(training.seed)
    net = FakeNet(model).train()
    known = torch.from_numpy(textures.texture[np.concatenate([rows for kind in groups for rows in kind])])
    net.mean.copy_(known.mean(0))
    net.deviation.copy_(known.std(0) + 1e-3)
    rate = training.learning_rate
    optimizer = torch.optim.AdamW(net.parameters(), rate, weight_decay=training.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=training.steps + 1)
    half = training.batch_size // 2
    wanted = torch.tensor([training.smoothing] * half + [1 - training.smoothing] * half)
    for rows in _batches(groups, training):
        loss = F.binary_cross_entropy_with_logits(net(torch.from_numpy(textures.texture[rows])), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def _groups(textures: Textures, without: Sequence[str]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the rows of each human source, and of each synthetic one."""
    groups: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for number, name in enumerate(textures.names):
        rows = np.flatnonzero(textures.source == number)
        if name not in without and len(rows):
            groups[int(textures.synthetic[number])].append(rows)
    if not all(groups):
        raise ConfigError("of human and synthetic speech one kind is missing", "give sources of both")
    return groups


def _batches(groups: tuple[list[np.ndarray], list[np.ndarray]], training: FakeTraining) -> Iterator[np.ndarray]:
    """Yield row numbers for each step: the first half human, the second synthetic."""
    rng = np.random.default_rng(training.seed)
    for _ in range(training.steps):
        rows = []
        for kind in groups:
            sources = rng.integers(0, len(kind), training.batch_size // 2)
            rows += [int(kind[source][rng.integers(len(kind[source]))]) for source in sources]
        yield np.array(rows)
