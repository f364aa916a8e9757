"""A vocoder in bands of their own cost: flows of many steps make the lowest ones, and a single pass the highest.

Voices have their pitch and their vowels below some 4 kHz, where errors of phase are heard best; hiss above 8 kHz needs few
evaluations. The flows are RFWave's on the complex spectrum (arXiv 2403.05010); the pass is Vocos's (arXiv 2306.00814), whose
sound discriminators judge on top of the recording's own lower bands.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from flowtts_core.audio.mel import VOCOS_24K, MelConfig
from flowtts_core.config import build
from flowtts_core.errors import ConfigError
from flowtts_core.flow import SOLVERS, TIME_GRIDS, LinearPath, balanced
from flowtts_core.nn.convnext import PAD
from flowtts_core.nn.graph import Graph
from flowtts_core.nn.istft import InverseSTFT
from flowtts_core.nn.share import Share, mean_of, rows_of
from flowtts_core.vocoder.band_velocity import BandVelocity
from flowtts_core.vocoder.base import Vocoder, drawn_frames, each_length, noise_of_frames
from flowtts_core.vocoder.equaliser import BinEqualiser
from flowtts_core.vocoder.vocos import MelPrior, VocosBackbone

_MAX_MAGNITUDE = 100.0  # of the pass, as Vocos's


@dataclass(frozen=True)
class BandSplitConfig:
    """Bands and sizes; by default bands end at 4 and 8 kHz, the lower made in 20 steps and the upper in 10.

    Attributes:
        mel: the mel it reads; its n_fft, hop_length, win_length and padding are also those of the spectrum.
        edges: in Hz, where the bands that flows make end; what is above the last is made in one pass.
        steps: of each flow.
        overlap: bins that a flow sees on either side of its band.
        dim, intermediate_dim, num_layers: of each flow's network.
        head_dim, head_intermediate_dim, head_layers: of the pass.
        grid: the flows' time grid.
        flow_weight: of the flows' losses beside those of the pass.
    """

    mel: MelConfig = VOCOS_24K
    edges: tuple[float, ...] = (4000.0, 8000.0)
    steps: tuple[int, ...] = (20, 10)
    overlap: int = 8
    dim: int = 128
    intermediate_dim: int = 384
    num_layers: int = 4
    head_dim: int = 192
    head_intermediate_dim: int = 576
    head_layers: int = 6
    grid: dict[str, Any] = field(default_factory=lambda: {"name": "uniform"})
    flow_weight: float = 1.0

    def __post_init__(self) -> None:
        sizes = (self.intermediate_dim, self.num_layers, self.head_dim, self.head_intermediate_dim, self.head_layers)
        if min(sizes) < 1 or self.dim < 4 or self.dim % 2 or self.overlap < 1:
            raise ConfigError(
                f"BandSplitConfig: dim {self.dim}, overlap {self.overlap}, or a size below 1",
                "use 1 or more of each, and an even dim of 4 or more",
            )
        if not self.steps or not all(1 <= steps <= 1000 for steps in self.steps):
            raise ConfigError(f"steps = {list(self.steps)}", "use 1 to 1000 for each band that a flow makes")
        if self.flow_weight <= 0:
            raise ConfigError(f"flow_weight = {self.flow_weight}", "use a weight above 0")
        build(TIME_GRIDS, self.grid)

    def bins(self) -> list[int]:
        """Return the bins at which bands begin and end: the first is 0, the last that of half the sample rate and one.

        Raises:
            ConfigError: where edges and steps do not go together, which they need not while `--set` changes one of them.
        """
        bins = [
            0,
            *(round(edge * self.mel.n_fft / self.mel.sample_rate) for edge in self.edges),
            self.mel.n_fft // 2 + 1,
        ]
        widths = [high - low for low, high in itertools.pairwise(bins)]
        if min(widths) < self.overlap or len(self.edges) != len(self.steps):
            raise ConfigError(
                f"edges {list(self.edges)} Hz with steps {list(self.steps)}: bands of {widths} bins",
                f"use as many rising edges as steps, below {self.mel.sample_rate / 2:g} Hz, and bands no narrower than the"
                f" overlap of {self.overlap}",
            )
        return bins


class BandSplit(Vocoder):
    """The vocoder; `forward` as `Vocoder` states it. A flow's spectra are real: [B, 2 bins, T], real parts first."""

    def __init__(self, config: BandSplitConfig) -> None:
        super().__init__()
        c, mel = config, config.mel
        bins, side = config.bins(), config.overlap
        self.config, self.features = config, mel
        self.first = bins[-2]  # bin of the pass
        self.spans = [(max(0, low - side), high + side) for low, high in itertools.pairwise(bins[:-1])]
        self.owns = list(itertools.pairwise(bins[:-1]))
        seen = self.first + side
        self.flows = nn.ModuleList(
            BandVelocity(
                mel.rows,
                2 * (high - low),
                1,
                c.dim,
                c.intermediate_dim,
                c.num_layers,
                embed_kernel=1,
                fourier=False,
                frame_norm=True,
                skip=True,
            )
            for low, high in self.spans
        )
        self.equaliser = BinEqualiser(2 * seen)
        self.head = _Pass(mel.rows, mel.n_fft // 2 + 1 - self.first, c.head_dim, c.head_intermediate_dim, c.head_layers)
        self.prior = MelPrior(mel)
        self.istft = InverseSTFT(mel.n_fft, mel.hop_length, mel.win_length, mel.padding)
        reach = c.num_layers * PAD * max(c.steps)
        self.context_frames = max(reach, (c.head_layers + 1) * PAD) + -(-mel.win_length // (2 * mel.hop_length))
        self.register_buffer("drawn", drawn_frames(2 * seen), persistent=False)
        self.drawn: Tensor

    def graphs(self) -> dict[str, Graph]:
        mel = torch.zeros(1, self.features.rows, 64)
        graphs = {"head": Graph(_HeadGraph(self.head), {"mel": mel}, ("spectrum",), {"mel": 2, "spectrum": 2})}
        growing = {"z": 2, "mel": 2, "velocity": 2}
        for band, (low, high) in enumerate(self.spans):
            example = {"z": torch.zeros(1, 2 * (high - low), 64), "t": torch.zeros(1), "mel": mel}
            graphs[f"velocity{band}"] = Graph(_FlowGraph(self.flows, band), example, ("velocity",), growing)
        return graphs

    def start_at(self, mel: Tensor, frame: int, earlier: Tensor | None = None) -> Tensor:
        """Return [0, frame]: the noise is that of the frame."""
        return torch.tensor([0.0, float(frame)], dtype=torch.float64)

    def forward(self, mel: Tensor, lengths: Tensor | None = None, start: Tensor | None = None) -> Tensor:
        return each_length(self.features, mel, lengths, start, self._whole)

    def _whole(self, mel: Tensor, start: Tensor | None) -> Tensor:
        """Return the waveforms of mels without padding."""
        noise = noise_of_frames(self.drawn, mel, start).transpose(1, 2)
        return self._sound(torch.complex(*self.below(self.sample(mel, noise)).chunk(2, 1)), mel)

    def sample(self, mel: Tensor, noise: Tensor) -> Tensor:
        """Return what the flows make of mels without padding and of noise [B, 2 (first + overlap), T], of that shape.

        Each band is followed by itself, with its own number of steps; above the last band there are zeros.
        """
        solver, grid = build(SOLVERS, {"name": "euler"}), build(TIME_GRIDS, self.config.grid)
        made = []
        for band, steps in enumerate(self.config.steps):

            def velocity(z: Tensor, t: Tensor, mel: Tensor, band: int = band) -> Tensor:
                return self._velocity(band, z, t, mel)

            z = solver.solve(velocity, _cut(noise, self.spans[band]), grid.times(steps), mel).x
            low, high = self.owns[band]
            made.append(_cut(z, (low - self.spans[band][0], high - self.spans[band][0])).chunk(2, 1))
        above = torch.zeros_like(noise[:, : self.config.overlap])
        return torch.cat([part for parts in zip(*made, strict=True) for part in (*parts, above)], 1)

    def _velocity(self, band: int, z: Tensor, t: Tensor, mel: Tensor) -> Tensor:
        name = f"velocity{band}"
        if name in self.runners:
            items = zip(z, t, mel, strict=True)
            return torch.cat([self.runners[name](*(value[None] for value in item))[0] for item in items])
        velocity: Tensor = self.flows[band](z, t, mel, torch.zeros(len(z), dtype=torch.int64, device=z.device))
        return velocity

    def below(self, made: Tensor) -> Tensor:
        """Return the bins [B, 2 first, T] of what `sample` made, real parts first, in the scale of the inverse STFT."""
        return _cut(self.equaliser.undo(made).float() * math.sqrt(self.features.n_fft), (0, self.first))

    def above(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Return magnitudes and phases [B, F - first, T] of the bins that the pass makes of a mel."""
        if "head" in self.runners:
            predicted = torch.cat([self.runners["head"](own[None])[0] for own in mel])
        else:
            predicted = self.head(mel)
        log_magnitude, phase = predicted.float().chunk(2, 1)
        log_magnitude = log_magnitude + self.prior(mel[:, : self.features.n_mels])[:, self.first :]
        return log_magnitude.exp().clamp(max=_MAX_MAGNITUDE), phase

    def _sound(self, low: Tensor, mel: Tensor) -> Tensor:
        """Return the waveform of complex bins [B, first, T] below what the pass makes of the mel."""
        waveform: Tensor = self.istft(torch.cat([low, torch.polar(*self.above(mel))], 1))
        return waveform

    def trained(
        self, mel: Tensor, waveform: Tensor, generator: torch.Generator | None = None, share: Share | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the recording with its highest band made by the pass, and the losses of the flows."""
        count, rows = rows_of(share, len(mel))
        t = torch.rand(count, generator=generator)[rows].to(mel.device)
        noise = torch.randn(count, self.drawn.shape[1], mel.shape[2], generator=generator)[rows].to(mel.device)
        with torch.autocast(waveform.device.type, enabled=False):
            spectrum = self.istft.stft(waveform.float())
            scaled = spectrum[:, : self.first + self.config.overlap] / math.sqrt(self.features.n_fft)
            real = torch.cat([scaled.real, scaled.imag], 1)
            if self.training:
                self.equaliser.gather(real, share)
            at = LinearPath().sample(noise, self.equaliser(real), t)
        flow, overlap = torch.zeros((), device=mel.device), torch.zeros((), device=mel.device)
        below: Tensor | None = None  # what the band below predicts of its own uppermost bins and of this band's lowest
        for band, (low, high) in enumerate(self.spans):
            predicted = self._velocity(band, _cut(at.x_t, (low, high)), t, mel).float()
            own, target = balanced(predicted, _cut(at.velocity, (low, high)), 1)
            flow = flow + (own - target).square().mean() / len(self.spans)
            both = 2 * self.config.overlap
            if below is not None:
                overlap = overlap + (_cut(predicted, (0, both)) - below).square().mean()
            below = _cut(predicted, (high - low - both, high - low))
        with torch.autocast(waveform.device.type, enabled=False):
            losses = {"flow": mean_of(share, flow), "overlap": 0.01 * mean_of(share, overlap)}
        sound = self._sound(spectrum[:, : self.first], mel)
        return sound, {name: self.config.flow_weight * loss for name, loss in losses.items()}


class _Pass(nn.Module):
    """Log magnitudes and phases [B, 2 bins, T] of mels [B, M, T]."""

    def __init__(self, rows: int, bins: int, dim: int, intermediate_dim: int, num_layers: int) -> None:
        super().__init__()
        self.backbone = VocosBackbone(rows, dim, intermediate_dim, num_layers)
        self.out = nn.Linear(dim, 2 * bins)

    def forward(self, mel: Tensor) -> Tensor:
        predicted: Tensor = self.out(self.backbone(mel)).transpose(1, 2)
        return predicted


class _HeadGraph(nn.Module):
    """The pass of one item, under the names of its modules."""

    def __init__(self, head: _Pass) -> None:
        super().__init__()
        self.head = head

    def forward(self, mel: Tensor) -> tuple[Tensor]:
        return (self.head(mel),)


class _FlowGraph(nn.Module):
    """A flow's network on its band of one item, under the names of its modules."""

    def __init__(self, flows: nn.ModuleList, band: int) -> None:
        super().__init__()
        self.flows, self.band = flows, band

    def forward(self, z: Tensor, t: Tensor, mel: Tensor) -> tuple[Tensor]:
        return (self.flows[self.band](z, t, mel, torch.zeros(1, dtype=torch.int64)),)


def _cut(spectrum: Tensor, span: tuple[int, int]) -> Tensor:
    """Return bins of a real spectrum: [B, 2 F, T] -> [B, 2 (high - low), T]."""
    real, imaginary = (part[:, span[0] : span[1]] for part in spectrum.chunk(2, 1))
    return torch.cat([real, imaginary], 1)
