"""A small watermark in the domain of short spectra: a causal net makes gains of bins, another finds them and their message.

Of AudioSeal (San Roman et al. 2024, arXiv 2401.17264) it has the two nets, the message of 16 bits, the training on what was
marked in part and attacked, and a detector that answers for each moment. What differs: the mark is a bounded gain of each
bin, so it is as quiet as the sound itself, streams exactly, and costs a hundredth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowtts_core.errors import ConfigError
from flowtts_core.nn.graph import Graph
from flowtts_core.watermark.frames import FEATURES, features, spectra, waveform_of
from flowtts_core.watermark.marker import BINS, hop_of


@dataclass(frozen=True)
class SpectralMarkConfig:
    """Sizes of the two nets.

    Attributes:
        bits: of the message.
        width, layers: of the generator; kernels of 7 frames, dilated by 1, 2, 4, ...
        detector_width, detector_layers: of the detector, which sees both ways.
        decibels: the largest gain of a bin, up or down.
    """

    bits: int = 16
    width: int = 96
    layers: int = 3
    detector_width: int = 160
    detector_layers: int = 5
    decibels: float = 1.0

    def __post_init__(self) -> None:
        sizes = (self.bits, self.width, self.layers, self.detector_width, self.detector_layers)
        if min(sizes) < 1 or not 0 < self.decibels <= 12:
            raise ConfigError(
                f"SpectralMarkConfig: sizes {list(sizes)}, decibels {self.decibels}",
                "use sizes of 1 or more, and a gain above 0, up to 12",
            )


_KERNEL = 7


class _Block(nn.Module):
    """A convolution of each channel over time, then a net of each frame; both with a sum around."""

    def __init__(self, width: int, inner: int, dilation: int, causal: bool) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width, width, _KERNEL, dilation=dilation, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        self.reach = (_KERNEL - 1) * dilation
        self.causal = causal

    def forward(self, x: Tensor, given: Tensor | None = None, before: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return [B, T, C], and the frames [B, reach, C] that a causal block must see again.

        Args:
            given: [B, 1, C] to be added before the net.
            before: what it returned for the frames before; None at the start.
        """
        if self.causal:
            seen = torch.cat([x.new_zeros(len(x), self.reach, x.shape[2]) if before is None else before, x], 1)
        else:
            seen = F.pad(x, (0, 0, self.reach // 2, self.reach // 2))
        kept = seen[:, seen.shape[1] - self.reach :]
        hidden = self.norm(self.conv(seen.transpose(1, 2)).transpose(1, 2))
        if given is not None:
            hidden = hidden + given
        return x + self.down(F.gelu(self.up(hidden))), kept


class MarkGenerator(nn.Module):
    """Features [B, T, FEATURES] and messages [B, bits] of 0 and 1 to gains [B, T, BINS] between -1 and 1."""

    def __init__(self, config: SpectralMarkConfig) -> None:
        super().__init__()
        width = config.width
        self.enter = nn.Linear(FEATURES, width)
        self.message = nn.Linear(config.bits, width * config.layers)
        self.blocks = nn.ModuleList(_Block(width, 2 * width, 2**layer, True) for layer in range(config.layers))
        self.mix, self.gate = nn.Linear(width, 2 * width), nn.Linear(config.bits, 2 * width)
        self.leave = nn.Linear(2 * width, BINS)

    def forward(
        self, seen: Tensor, message: Tensor, states: tuple[Tensor, ...] | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the gains, and the states with which the next frames go on."""
        signs = (2 * message.to(seen.dtype) - 1)[:, None]
        given = self.message(signs).chunk(len(self.blocks), 2)
        x, kept = self.enter(seen), []
        for number, block in enumerate(self.blocks):
            x, state = block(x, given[number], None if states is None else states[number])
            kept.append(state)
        # a product: each bit turns what it carries around, which a detector can begin to learn from
        return self.leave(F.gelu(self.mix(x)) * (1 + self.gate(signs))).tanh(), tuple(kept)


class MarkDetector(nn.Module):
    """Features [B, T, FEATURES] to scores [B, T, 1 + bits]: whether the frame is marked, and each bit of the message."""

    def __init__(self, config: SpectralMarkConfig) -> None:
        super().__init__()
        width = config.detector_width
        self.enter = nn.Linear(FEATURES, width)
        self.blocks = nn.ModuleList(
            _Block(width, 3 * width, 2 ** (layer % 4), False) for layer in range(config.detector_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, 1 + config.bits)

    def forward(self, seen: Tensor) -> Tensor:
        x = self.enter(seen)
        for block in self.blocks:
            x, _ = block(x)
        return self.leave(self.norm(x))


class SpectralMark(nn.Module):
    """Generator and detector; see `SpectralMarkConfig`."""

    def __init__(self, config: SpectralMarkConfig) -> None:
        super().__init__()
        self.config = config
        self.generator, self.detector = MarkGenerator(config), MarkDetector(config)

    def graphs(self) -> dict[str, Graph]:
        """Return both nets for ONNX Runtime: the generator with the states of its blocks, the detector of a whole sound."""
        seen = torch.randn(1, 40, FEATURES)
        states = {f"state_{number}": torch.zeros(shape) for number, shape in enumerate(self.state_shapes())}
        return {
            "generator": Graph(
                _Streamed(self.generator),
                {"seen": seen, "message": torch.ones(1, self.config.bits), **states},
                ("gains", *(f"next_{name}" for name in states)),
                {"seen": 1, "gains": 1},
            ),
            "detector": Graph(_Tupled(self.detector), {"seen": seen}, ("scores",), {"seen": 1, "scores": 1}),
        }

    def state_shapes(self) -> list[tuple[int, ...]]:
        """Return the shapes of what the generator's blocks must see again."""
        return [(1, block.reach, self.config.width) for block in self.generator.blocks]  # type: ignore[misc]  # each is a _Block

    def marked(self, waveform: Tensor, sample_rate: int, message: Tensor, decibels: float | None = None) -> Tensor:
        """Return marked waveforms [B, S].

        Args:
            waveform: [B, S].
            message: [B, bits] of 0 and 1.
            decibels: the largest gain, instead of the configuration's.
        """
        hop, samples = hop_of(sample_rate), waveform.shape[1]
        whole = spectra(F.pad(waveform, (hop, 2 * hop - samples % hop)), hop)
        gains, _ = self.generator(features(whole)[0], message)
        changed = scaled(whole, gains, self.config.decibels if decibels is None else decibels)
        return waveform_of(changed, hop)[:, hop : hop + samples]

    def scores(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Return scores [B, T, 1 + bits] of the frames of waveforms [B, S]; frame t is around sample t * hop."""
        hop = hop_of(sample_rate)
        whole = spectra(F.pad(waveform, (hop, 2 * hop - waveform.shape[1] % hop)), hop)
        return self.detector(features(whole)[0])


class _Streamed(nn.Module):
    """The generator with states as plain inputs and outputs."""

    def __init__(self, generator: MarkGenerator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, seen: Tensor, message: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        gains, kept = self.generator(seen, message, states)
        return (gains, *kept)


class _Tupled(nn.Module):
    def __init__(self, detector: MarkDetector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, seen: Tensor) -> tuple[Tensor]:
        return (self.detector(seen),)


def scaled(spectra: Tensor, gains: Tensor, decibels: float) -> Tensor:
    """Return spectra [B, T, hop + 1] whose bins 1 to BINS have gains [B, T, BINS] of so many decibels at 1."""
    room = min(BINS, spectra.shape[2] - 1)
    factor = (gains[..., :room] * (decibels * math.log(10) / 20)).exp()
    return spectra * F.pad(factor, (1, spectra.shape[2] - 1 - room), value=1.0)
