"""Diffusion on the waveform, the baseline that flows are compared with: a net finds the noise, which many steps take away.

Source: Chen et al., "WaveGrad" (arXiv 2009.00713) and Kong et al., "DiffWave" (2009.09761) for what is predicted; the steps
are deterministic (DDIM, 2010.02502), on the cosine schedule (2102.09672); the net is WaveFM's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flowtts_core.errors import ConfigError
from flowtts_core.flow import CosinePath, ddim, masked_flow_loss
from flowtts_core.nn.graph import Graph
from flowtts_core.nn.share import Share, mean_of, rows_of
from flowtts_core.vocoder.base import FlowVocoder
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

_BEGIN = 0.01  # the first time: before it a point tells too little of the sound to divide by


@dataclass(frozen=True)
class DiffusionConfig(WaveUNetConfig):
    """Sizes of the net, and how many `steps` take the noise away."""

    steps: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.steps <= 1000:
            raise ConfigError(f"steps = {self.steps}", "use 1 to 1000")


class Diffusion(FlowVocoder):
    """The vocoder; `forward` as `Vocoder` states it. Each step sees further, and there are many: its windows are long."""

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.config, self.features = config, config.mel
        self.net = WaveUNet(config, bounded=False)
        self.context_frames = self.net.context() * config.steps
        self.noise = FrameNoise(config.mel.hop_length)

    def start_at(self, mel: Tensor, frame: int, earlier: Tensor | None = None) -> Tensor:
        """Return [0, frame]: the noise is that of the frame."""
        return torch.tensor([0.0, float(frame)], dtype=torch.float64)

    def graphs(self) -> dict[str, Graph]:
        return {"noise": net_graph(self.net, "noise")}

    def forward(self, mel: Tensor, lengths: Tensor | None = None, start: Tensor | None = None) -> Tensor:
        mask = mask_of(mel, lengths)
        mel = masked(mel, mask)
        over = None if mask is None else mask[:, 0].repeat_interleave(self.features.hop_length, 1)
        waveform = self.sample(mel, masked(self.noise(mel, start), over), mask)
        return self.ended(waveform[:, : self.features.samples_of(mel.shape[-1])], lengths)

    def sample(self, mel: Tensor, noise: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return [B, T * hop_length] from standard normal noise of that shape; `mask` [B, 1, T] is 1 on valid frames."""
        times = torch.linspace(_BEGIN, 1, self.config.steps + 1)
        return ddim(self._noise_in, noise, times, CosinePath(), (mel, mask), bound=1.0).x

    def _noise_in(self, x: Tensor, t: Tensor, condition: tuple[Tensor, Tensor | None]) -> Tensor:
        return evaluate(self.net, self.runners, "noise", x, t, *condition)

    def loss(
        self, mel: Tensor, waveform: Tensor, generator: torch.Generator | None = None, share: Share | None = None
    ) -> dict[str, Tensor]:
        """The mean squared error of the noise, "loss"."""
        mel, x_1 = crops_of(mel, waveform, self.features.hop_length)
        count, rows = rows_of(share, len(mel))
        t = torch.rand(count, generator=generator)[rows].to(mel.device)
        noise = torch.randn(count, x_1.shape[1], generator=generator)[rows].to(mel.device)
        point = CosinePath().sample(noise, x_1, t)
        return {"loss": mean_of(share, masked_flow_loss(self.net(point.x_t, t, mel), noise))}
