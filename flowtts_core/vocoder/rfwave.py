"""RFWave: rectified flow on the complex spectrum, in bands that one network makes all at once.

Source: Liu and Dai, "RFWave: Multi-band Rectified Flow for Audio Waveform Reconstruction" (arXiv 2403.05010), sections 3.1
to 3.4. Its normalisation sees all frames (GRN), so it does not stream; items of other lengths are made apart, so that
padding changes nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from flowtts_core.audio.mel import VOCOS_24K, MelConfig
from flowtts_core.config import build
from flowtts_core.errors import ConfigError
from flowtts_core.flow import SOLVERS, TIME_GRIDS, VelocityField, classifier_free
from flowtts_core.flow.guidance import ConstantGuidance
from flowtts_core.nn.convnext import KERNEL, PAD
from flowtts_core.nn.istft import InverseSTFT
from flowtts_core.nn.time_embedding import sinusoidal_embedding
from flowtts_core.vocoder.base import Vocoder
from flowtts_core.vocoder.equaliser import BandEqualiser, BinEqualiser

_FOURIER = (6, 7)  # powers of two of the frequencies at which noisy coefficients are shown to the network too


@dataclass(frozen=True)
class RFWaveConfig:
    """Sizes of an RFWave, and how it is sampled; the defaults are the published 24 kHz model's.

    Attributes:
        mel: the mel it reads; its n_fft, hop_length, win_length and padding are also those of the spectrum.
        bands: equal parts of the spectrum; a band's row of the embedding tells the network which it is.
        overlap: bins that a band sees on either side of its own; at the ends they wrap around.
        dim, intermediate_dim, num_layers: width, width inside a block, number of ConvNeXt V2 blocks.
        wave: noise and equaliser are of the waveform, and velocities are made those of waveforms; else of the spectrum.
        guidance: weight of the velocities with the mel against those with its mean over time; 1 is none.
        steps, solver, grid: of the flow.
    """

    mel: MelConfig = VOCOS_24K
    bands: int = 8
    overlap: int = 8
    dim: int = 512
    intermediate_dim: int = 1536
    num_layers: int = 8
    wave: bool = True
    guidance: float = 1.0
    steps: int = 10
    solver: str = "euler"
    grid: dict[str, Any] = field(default_factory=lambda: {"name": "uniform"})

    def __post_init__(self) -> None:
        if min(self.bands, self.overlap, self.intermediate_dim, self.num_layers) < 1 or self.dim < 4 or self.dim % 2:
            raise ConfigError(
                f"RFWaveConfig: bands {self.bands}, overlap {self.overlap}, dim {self.dim}, intermediate_dim"
                f" {self.intermediate_dim}, num_layers {self.num_layers}",
                "use 1 or more of each, and an even dim of 4 or more",
            )
        if self.mel.n_fft % (2 * self.bands) or self.overlap > self.mel.n_fft // 2 // self.bands:
            raise ConfigError(
                f"bands = {self.bands} with an overlap of {self.overlap}: n_fft is {self.mel.n_fft}",
                "use bands that divide half of n_fft, and an overlap that is not wider than a band",
            )
        if not 1 <= self.steps <= 1000 or not 1 <= self.guidance <= 20:
            raise ConfigError(
                f"RFWaveConfig: steps {self.steps}, guidance {self.guidance}",
                "use 1 to 1000 steps, a guidance of 1 to 20",
            )
        build(SOLVERS, {"name": self.solver})
        build(TIME_GRIDS, self.grid)


class BandNorm(nn.Module):
    """Layer norm of [B, T, D] with the scale and shift of each item's band."""

    def __init__(self, bands: int, dim: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Embedding(bands, dim), nn.Embedding(bands, dim)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, x: Tensor, band: Tensor) -> Tensor:
        normal = nn.functional.layer_norm(x, x.shape[-1:], eps=1e-6)
        return normal * self.scale(band)[:, None] + self.shift(band)[:, None]


class ResponseNorm(nn.Module):
    """Global response normalisation of [B, T, D] (Woo et al. 2023, arXiv 2301.00808): a channel by its size over time."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, dim))
        self.beta = nn.Parameter(torch.zeros(1, 1, dim))

    def forward(self, x: Tensor) -> Tensor:
        size = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        return self.gamma * (x * (size / (size.mean(2, keepdim=True) + 1e-6))) + self.beta + x


class BandBlock(nn.Module):
    """A ConvNeXt V2 block of [B, D, T] whose norm knows the band."""

    def __init__(self, bands: int, dim: int, intermediate_dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(dim, dim, KERNEL, padding=PAD, groups=dim)
        self.norm = BandNorm(bands, dim)
        self.pwconv1 = nn.Linear(dim, intermediate_dim)
        self.grn = ResponseNorm(intermediate_dim)
        self.pwconv2 = nn.Linear(intermediate_dim, dim)

    def forward(self, x: Tensor, band: Tensor) -> Tensor:
        hidden = self.norm(self.dwconv(x).transpose(1, 2), band)
        hidden = self.pwconv2(self.grn(nn.functional.gelu(self.pwconv1(hidden))))
        return x + hidden.transpose(1, 2)


class BandVelocity(nn.Module):
    """Velocities of noisy bands [N, C, T] at times [N], with mels [N, M, T] and numbers of bands [N]."""

    def __init__(self, config: RFWaveConfig, channels: int) -> None:
        super().__init__()
        seen = config.mel.rows + channels * (1 + 2 * len(_FOURIER))
        self.embed = nn.Conv1d(seen, config.dim, KERNEL, padding=PAD)
        self.norm = BandNorm(config.bands, config.dim)
        self.convnext = nn.ModuleList(
            BandBlock(config.bands, config.dim, config.intermediate_dim) for _ in range(config.num_layers)
        )
        self.final_layer_norm = nn.LayerNorm(config.dim, eps=1e-6)
        self.time_mlp = nn.Sequential(
            nn.Linear(config.dim, 4 * config.dim), nn.GELU(), nn.Linear(4 * config.dim, config.dim)
        )
        self.out = nn.Linear(config.dim, channels)
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, z: Tensor, t: Tensor, mel: Tensor, band: Tensor) -> Tensor:
        frequency = 2 * math.pi * 2.0 ** torch.tensor(_FOURIER, dtype=z.dtype, device=z.device)
        angle = z[:, :, None] * frequency[:, None]  # [N, C, frequencies, T]
        waves = torch.stack([angle.sin(), angle.cos()], 3).flatten(1, 3)
        x = self.embed(torch.cat([z, mel, waves], 1))
        x = self.norm(x.transpose(1, 2), band).transpose(1, 2)
        time = self.time_mlp(sinusoidal_embedding(t, self.out.in_features))[:, :, None]
        for block in self.convnext:
            x = block(x + time, band)
        velocity: Tensor = self.out(self.final_layer_norm(x.transpose(1, 2))).transpose(1, 2)
        return velocity


class RFWave(Vocoder):
    """The vocoder; `forward` as `Vocoder` states it. Spectra here are real: [B, 2 F, T], real parts before imaginary ones."""

    def __init__(self, config: RFWaveConfig) -> None:
        super().__init__()
        mel = config.mel
        self.config, self.features = config, mel
        self.width = mel.n_fft // 2 // config.bands
        self.backbone = BandVelocity(config, 2 * (self.width + 2 * config.overlap))
        self.istft = InverseSTFT(mel.n_fft, mel.hop_length, mel.win_length, mel.padding)
        self.equaliser = BandEqualiser() if config.wave else BinEqualiser(mel.n_fft + 2)

    def forward(self, mel: Tensor, lengths: Tensor | None = None, start: Tensor | None = None) -> Tensor:
        frames = [mel.shape[-1]] * len(mel) if lengths is None else lengths.tolist()
        waveform = mel.new_zeros(len(mel), self.features.samples_of(mel.shape[-1]), dtype=torch.float32)
        for count in set(frames):
            rows = [row for row, own in enumerate(frames) if own == count]
            samples = self.features.samples_of(count)
            if samples:
                own = mel[rows, :, :count]
                # the reflection at the ends of the STFT needs more samples than it reflects
                short = max(0, self.features.n_fft // 2 // self.features.hop_length + 2 - count)
                own = torch.cat([own, own[:, :, -1:].expand(-1, -1, short)], 2)
                waveform[rows, :samples] = self.sample(own, self.noise(own))[:, :samples]
        return waveform

    def noise(self, mel: Tensor) -> Tensor:
        """Return the noise of mels: waveforms [B, S], or spectra [B, 2 F, T]; the same for mels of the same length."""
        frames = mel.shape[-1]
        shape = (self.features.samples_of(frames),) if self.config.wave else (self.features.n_fft + 2, frames)
        drawn = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        return drawn.to(mel).expand(len(mel), *shape)

    def sample(self, mel: Tensor, noise: Tensor) -> Tensor:
        """Return waveforms [B, S] of mels [B, M, T] without padding, from noise as `noise` makes it."""
        c, bands = self.config, self.config.bands
        z_0 = self.split(self.stft(noise) if c.wave else noise)
        number = torch.arange(bands, device=mel.device).repeat(len(mel))

        def velocity(z: Tensor, t: Tensor, mel: Tensor) -> Tensor:
            made: Tensor = self.backbone(z, t, mel, number)
            return self.split(self.stft(self.inverse(self.join(made)))) if c.wave else made

        condition, followed = mel.repeat_interleave(bands, 0), cast(VelocityField, velocity)
        if c.guidance > 1:  # from the mean's velocity towards the mel's, in the published order of operations
            followed = classifier_free(velocity, condition, ConstantGuidance(-c.guidance))
            condition = mel.mean(2, keepdim=True).expand_as(mel).repeat_interleave(bands, 0)
        times = build(TIME_GRIDS, c.grid).times(c.steps)
        solved = build(SOLVERS, {"name": c.solver}).solve(followed, z_0, times, condition)
        return self.sound(self.join(solved.x))

    def sound(self, spectrum: Tensor) -> Tensor:
        """Return the waveform [B, S] of an equalised spectrum."""
        if self.config.wave:
            return self.equaliser.undo(self.inverse(spectrum))
        return self.inverse(self.equaliser.undo(spectrum))

    def equalised(self, waveform: Tensor) -> Tensor:
        """Return the spectrum that stands for a waveform at time 1."""
        if self.config.wave:
            return self.stft(self.equaliser(waveform))
        return self.equaliser(self.stft(waveform))

    def stft(self, waveform: Tensor) -> Tensor:
        """Return the spectrum of a waveform [B, S], scaled so that noise of variance 1 stays so in the mean of bins."""
        m = self.features
        padded = nn.functional.pad(
            waveform[:, None], (self.istft.trim,) * 2, mode="reflect" if m.padding == "center" else "constant"
        )[:, 0]
        window = self.istft.window
        spectrum = torch.stft(
            padded.float(), m.n_fft, m.hop_length, m.n_fft, window, center=False, return_complex=True
        ) / math.sqrt(m.n_fft)
        return torch.cat([spectrum.real, spectrum.imag], 1)

    def inverse(self, spectrum: Tensor) -> Tensor:
        """Return the waveform [B, S] of a spectrum."""
        real, imaginary = (spectrum.float() * math.sqrt(self.features.n_fft)).chunk(2, 1)
        waveform: Tensor = self.istft(torch.complex(real, imaginary))
        return waveform

    def split(self, spectrum: Tensor) -> Tensor:
        """Return the bands [B * bands, 2 (width + 2 overlap), T], each with what lies beside it."""
        both, side = spectrum.unflatten(1, (2, -1)), self.config.overlap  # [B, 2, F, T]
        around = torch.cat([both[:, :, -side:], both, both[:, :, : side - 1]], 2)
        bands = around.unfold(2, self.width + 2 * side, self.width)  # [B, 2, bands, T, bins]
        return bands.permute(0, 2, 1, 4, 3).flatten(0, 1).flatten(1, 2)

    def join(self, bands: Tensor) -> Tensor:
        """Return the spectrum of bands, without what lies beside each; the last keeps the bin of the Nyquist frequency."""
        side, count = self.config.overlap, self.config.bands
        own = bands.unflatten(1, (2, -1))[:, :, side : side + self.width + 1].unflatten(0, (-1, count))
        inner, last = own[:, :, :, : self.width], own[:, -1, :, self.width :]  # [B, bands, 2, width, T], [B, 2, 1, T]
        return torch.cat([inner.transpose(1, 2).flatten(2, 3), last], 2).flatten(1, 2)
