"""WaveFM: flow matching on the waveform itself, from noise as loud as the mel says.

Source: Luo et al., "WaveFM: A High-Fidelity and Efficient Vocoder Based on Flow Matching" (arXiv 2503.16689), sections 3.1 to
3.4. A net predicts the clean waveform, of which the velocity is (x_1 - x) / (1 - t); a distilled one takes a single step.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from flowtts_core.audio.mel import LogMel, MelConfig, mel_filter_bank
from flowtts_core.config import build
from flowtts_core.errors import ConfigError
from flowtts_core.flow import (
    SOLVERS,
    TIME_GRIDS,
    Consistency,
    LinearPath,
    PathSample,
    StraightnessGrid,
    consistent_end,
    end_weight,
    straightness_grid,
    velocity_to,
)
from flowtts_core.nn.graph import Graph
from flowtts_core.nn.share import Share, mean_of, rows_of
from flowtts_core.vocoder.base import FlowVocoder
from flowtts_core.vocoder.losses import LEAST_POWER, PhaseSTFTLoss
from flowtts_core.vocoder.mel_envelope import MelNoise
from flowtts_core.vocoder.wave_unet import (
    FrameNoise,
    WaveUNet,
    WaveUNetConfig,
    crops_of,
    evaluate,
    mask_of,
    masked,
    net_graph,
)

_FAINTEST = 0.001  # standard deviation of the noise where a mel is silent
_LEAST_LEVEL = 1e-5  # standard deviation that a waveform is taken to have at the least
_LOUDEST = 32768.0  # energy of a band that has noise of standard deviation 1
_SPECTRAL = 0.02  # weight of the distances of mels and of STFTs in the loss


@dataclass(frozen=True)
class WaveFMConfig(WaveUNetConfig):
    """Sizes of a WaveFM, and how it is sampled; the defaults are the published 24 kHz model's.

    Attributes:
        steps: of the solver; 1 for a distilled model.
        solver, grid: "euler" or "midpoint", and a time grid's spec. Heun's method would ask for the velocity at time 1.
        shaped: the noise has the mel's spectrum, not its loudness alone, and the net is shown waveforms as loud everywhere, to
            which it adds: not as published, but a net that knows nothing whispers.
    """

    steps: int = 6
    solver: str = "euler"
    grid: dict[str, Any] = field(default_factory=lambda: {"name": "uniform"})
    shaped: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.steps <= 1000:
            raise ConfigError(f"steps = {self.steps}", "use 1 to 1000")
        if self.solver not in ("euler", "midpoint"):
            raise ConfigError(f"solver = {self.solver!r}", "use 'euler' or 'midpoint'")
        build(TIME_GRIDS, self.grid)


class WaveFM(FlowVocoder):
    """The vocoder; `forward` as `Vocoder` states it."""

    energies: Tensor

    def __init__(self, config: WaveFMConfig) -> None:
        super().__init__()
        self.config, self.features = config, config.mel
        self.net = WaveUNet(config, bounded=not config.shaped)
        self.shape = MelNoise(config.mel) if config.shaped else None
        if config.shaped:  # training begins at the noise itself
            nn.init.zeros_(self.net.out.weight)
            nn.init.zeros_(self.net.out.bias)  # type: ignore[arg-type]  # it has one
        evaluations = config.steps * (2 if config.solver == "midpoint" else 1)
        # each evaluation depends on what the one before made beside it
        self.context_frames = self.net.context() * evaluations + (self.shape.context_frames if self.shape else 0)
        self.noise = FrameNoise(config.mel.hop_length)
        with torch.device("cpu"):  # also where a model is built on "meta", only to count its parameters
            self.register_buffer("energies", _energies(config.mel), persistent=False)
            # of the loss; the root of a power of exactly 0 would have an infinite gradient
            least = max(config.mel.magnitude_eps, LEAST_POWER)
            self.mel_of = LogMel(replace(config.mel, pitch=False, padding="center", magnitude_eps=least))
            self.stft_loss = PhaseSTFTLoss()

    def graphs(self) -> dict[str, Graph]:
        return {"clean": net_graph(self.net, "clean")}

    def start_at(self, mel: Tensor, frame: int, earlier: Tensor | None = None) -> Tensor:
        """Return [0, frame]: the noise is that of the frame."""
        return torch.tensor([0.0, float(frame)], dtype=torch.float64)

    def forward(self, mel: Tensor, lengths: Tensor | None = None, start: Tensor | None = None) -> Tensor:
        waveform = self.sample(mel, self.noise(mel, start), lengths)
        # as published, a frame begins where its samples do
        return self.ended(waveform[:, : self.features.samples_of(mel.shape[-1])], lengths)

    def sample(self, mel: Tensor, noise: Tensor, lengths: Tensor | None = None, times: Tensor | None = None) -> Tensor:
        """Return [B, T * hop_length] from standard normal noise of that shape.

        Args:
            times: [steps + 1] from 0 to 1 at which the solver stops; by default those of the config's grid.
        """
        mask = mask_of(mel, lengths)
        mel = masked(mel, mask)
        return self.follow(mel, self._prior(mel, noise, mask), mask, times)

    def follow(self, mel: Tensor, x_0: Tensor, mask: Tensor | None = None, times: Tensor | None = None) -> Tensor:
        """Return the waveforms at which the flow ends, begun at x_0: noise that is as loud as the mels say."""
        if times is None:
            times = build(TIME_GRIDS, self.config.grid).times(self.config.steps)
        solver = build(SOLVERS, {"name": self.config.solver})
        waveform: Tensor = solver.solve(velocity_to(self._clean), x_0, times, (mel, mask)).x
        return waveform

    def straightness(self, mel: Tensor, parts: int = 50) -> StraightnessGrid:
        """Return the grid between whose times the paths to the sound of mels [B, M, T] are equally far from straight."""
        return straightness_grid(velocity_to(self._clean), self._prior(mel, self.noise(mel)), (mel, None), parts)

    def _clean(self, x: Tensor, t: Tensor, condition: tuple[Tensor, Tensor | None]) -> Tensor:
        if self.shape is None:
            return evaluate(self.net, self.runners, "clean", x, t, *condition)
        mel, mask = condition
        level = self.shape.magnitudes(mel, mask).square().mean(1).sqrt().clamp(min=_LEAST_LEVEL)
        level = level.repeat_interleave(self.features.hop_length, 1)
        return x + level * evaluate(self.net, self.runners, "clean", x / level, t, *condition)

    def _prior(self, mel: Tensor, noise: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the noise [B, S] as loud as the mel says."""
        if self.shape is not None:
            filtered: Tensor = self.shape(noise, mel, mask)
            return filtered
        loudness = masked(self.loudness(mel), mask)[:, 0]
        return loudness.repeat_interleave(self.features.hop_length, 1) * noise

    def loudness(self, mel: Tensor) -> Tensor:
        """Return the standard deviation [B, 1, T] of the noise, from the energy of the mel's bands."""
        bands = (mel[:, : self.features.n_mels] * (2 / self.features.power)).exp()
        energy = (bands * self.energies).sum(1, keepdim=True)
        return (energy / (self.features.n_mels * _LOUDEST)).sqrt().clamp(min=_FAINTEST)

    def loss(
        self, mel: Tensor, waveform: Tensor, generator: torch.Generator | None = None, share: Share | None = None
    ) -> dict[str, Tensor]:
        """Losses "wave" (the clean waveform's, heavier towards the end of time), "mel", "stft" and their weighted sum."""
        count, rows = rows_of(share, len(mel))
        t = torch.rand(count, generator=generator)[rows].to(mel.device)
        mel, point = self._point(mel, waveform, t, generator, share)
        return self._losses(self._clean(point.x_t, t, (mel, None)), point.x_1, t, share)

    def consistency_loss(
        self,
        mel: Tensor,
        waveform: Tensor,
        teacher: FlowVocoder,
        target: FlowVocoder,
        how: Consistency,
        generator: torch.Generator | None = None,
        share: Share | None = None,
    ) -> dict[str, Tensor]:
        assert isinstance(teacher, WaveFM) and isinstance(target, WaveFM)
        count, rows = rows_of(share, len(mel))
        t = how.times(count, generator)[rows].to(mel.device)
        mel, point = self._point(mel, waveform, t, generator, share)
        end = consistent_end(velocity_to(teacher._clean), target._clean, point, how, (mel, None))
        return self._losses(self._clean(point.x_t, t, (mel, None)), end, t, share)

    def _point(
        self, mel: Tensor, waveform: Tensor, t: Tensor, generator: torch.Generator | None, share: Share | None
    ) -> tuple[Tensor, PathSample]:
        """Return the mels, and points between noise and the waveforms at times t [B]."""
        mel, x_1 = crops_of(mel, waveform, self.features.hop_length)
        count, rows = rows_of(share, len(mel))
        noise = torch.randn(count, x_1.shape[1], generator=generator)[rows].to(x_1.device)
        return mel, LinearPath().sample(self._prior(mel, noise), x_1, t)

    def _losses(self, clean: Tensor, end: Tensor, t: Tensor, share: Share | None) -> dict[str, Tensor]:
        """Compare waveforms [B, S] that are said to be clean at times t [B] with what they should be."""
        with torch.autocast(clean.device.type, enabled=False):
            clean, end = clean.float(), end.float()
            error = (clean - end).square().mean(1) * end_weight(t)
            wave = mean_of(share, error.mean())
            mel = mean_of(share, (self.mel_of(clean) - self.mel_of(end)).abs().mean())
            stft = self.stft_loss(clean, end, share)
        return {"wave": wave, "mel": mel, "stft": stft, "loss": wave + _SPECTRAL * (mel + stft)}


def _energies(mel: MelConfig) -> Tensor:
    """Return what turns the energies of a mel's bands into those of WaveFM's [n_mels, 1], which sums powers of equal weight.

    A flat spectrum gives a band its area, to the power of 2 for a mel of amplitudes.
    """
    area = mel_filter_bank(mel).sum(0).clamp(min=1e-9)
    wanted = mel_filter_bank(replace(mel, mel_norm=None)).sum(0)
    return (wanted / area.pow(2 / mel.power))[:, None]
