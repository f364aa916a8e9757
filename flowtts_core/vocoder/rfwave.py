"""RFWave: rectified flow on the complex spectrum, in bands that one network makes all at once.

Source: Liu and Dai, "RFWave: Multi-band Rectified Flow for Audio Waveform Reconstruction" (arXiv 2403.05010), sections 3.1
to 3.4. The published normalisation sees all frames (GRN), so it does not stream; with `frame_norm` it does. Items of other
lengths are made apart, so that padding changes nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from flowtts_core.audio.mel import VOCOS_24K, MelConfig
from flowtts_core.config import build
from flowtts_core.errors import ConfigError
from flowtts_core.flow import (
    SOLVERS,
    TIME_GRIDS,
    LinearPath,
    StraightnessGrid,
    VelocityField,
    balanced,
    classifier_free,
    straightness_grid,
)
from flowtts_core.flow.guidance import ConstantGuidance
from flowtts_core.nn.convnext import KERNEL
from flowtts_core.nn.graph import Graph
from flowtts_core.nn.istft import InverseSTFT
from flowtts_core.nn.share import Share, mean_of, rows_of
from flowtts_core.vocoder.band_velocity import BandVelocity
from flowtts_core.vocoder.base import FlowVocoder, drawn_frames, each_length, noise_of_frames
from flowtts_core.vocoder.equaliser import TAPS, BandEqualiser, BinEqualiser
from flowtts_core.vocoder.losses import spectrum_loss
from flowtts_core.vocoder.mel_envelope import MelEnvelope

_EVALUATIONS = {"euler": 1, "midpoint": 2, "heun": 2}  # of the network in a step


@dataclass(frozen=True)
class RFWaveConfig:
    """Sizes of an RFWave, how it is sampled and trained; the defaults are the published 24 kHz model's.

    Attributes:
        mel: the mel it reads; its n_fft, hop_length, win_length and padding are also those of the spectrum.
        bands: equal parts of the spectrum; a band's row of the embedding tells the network which it is.
        overlap: bins that a band sees on either side of its own; at the ends they wrap around.
        dim, intermediate_dim, num_layers: width, width inside a block, number of ConvNeXt V2 blocks.
        embed_kernel: frames that the first layer sees, odd.
        fourier: the network is shown sines and cosines of the noisy coefficients too.
        frame_norm: blocks normalise each frame by itself, and not over all of time: for models that stream.
        skip: the network adds to the velocity that noise and sound have on average: for widths below that of a band.
        wave: noise and equaliser are of the waveform, and velocities are made those of waveforms; else of the spectrum.
        flat: the equaliser is the envelope that the mel shows, so that every bin of every frame has the size of noise, and a net
            that knows nothing whispers; not as published, and for noise of spectra alone.
        guidance: weight of the velocities with the mel against those with its mean over time; 1 is none.
        steps, solver, grid: of the flow.
        unconditional: share of the crops in training whose mel is its mean over time; where guidance is above 1.
        overlap_weight, stft_weight: of the losses beside that of the flow; 0 is none.
    """

    mel: MelConfig = VOCOS_24K
    bands: int = 8
    overlap: int = 8
    dim: int = 512
    intermediate_dim: int = 1536
    num_layers: int = 8
    embed_kernel: int = KERNEL
    fourier: bool = True
    frame_norm: bool = False
    skip: bool = False
    wave: bool = True
    flat: bool = False
    guidance: float = 1.0
    steps: int = 10
    solver: str = "euler"
    grid: dict[str, Any] = field(default_factory=lambda: {"name": "uniform"})
    unconditional: float = 0.1
    overlap_weight: float = 0.01
    stft_weight: float = 0.01

    def __post_init__(self) -> None:
        if min(self.bands, self.overlap, self.intermediate_dim, self.num_layers) < 1 or self.dim < 4 or self.dim % 2:
            raise ConfigError(
                f"RFWaveConfig: bands {self.bands}, overlap {self.overlap}, dim {self.dim}, intermediate_dim"
                f" {self.intermediate_dim}, num_layers {self.num_layers}",
                "use 1 or more of each, and an even dim of 4 or more",
            )
        if self.embed_kernel < 1 or self.embed_kernel % 2 == 0:
            raise ConfigError(f"embed_kernel = {self.embed_kernel}", "use an odd number of frames")
        if not 0 <= self.unconditional < 1 or min(self.overlap_weight, self.stft_weight) < 0:
            raise ConfigError(
                f"RFWaveConfig: unconditional {self.unconditional}, overlap_weight {self.overlap_weight}, stft_weight"
                f" {self.stft_weight}",
                "use 0 up to less than 1, and weights of 0 or more",
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

    def check(self) -> None:
        """Raise ConfigError unless the fields go together, which they need not while `--set` changes one after the other."""
        if self.flat and self.wave:
            raise ConfigError("flat goes with noise of spectra", "set wave to false too, or leave flat out")


class RFWave(FlowVocoder):
    """The vocoder; `forward` as `Vocoder` states it. Spectra here are real: [B, 2 F, T], real parts before imaginary ones."""

    def __init__(self, config: RFWaveConfig) -> None:
        super().__init__()
        config.check()
        c, mel = config, config.mel
        self.config, self.features = config, mel
        self.width = mel.n_fft // 2 // c.bands
        channels = 2 * (self.width + 2 * c.overlap)
        sizes = (c.bands, c.dim, c.intermediate_dim, c.num_layers, c.embed_kernel, c.fourier, c.frame_norm, c.skip)
        self.backbone = BandVelocity(mel.rows, channels, *sizes)
        self.istft = InverseSTFT(mel.n_fft, mel.hop_length, mel.win_length, mel.padding)
        self.equaliser = BandEqualiser() if c.wave else BinEqualiser(mel.n_fft + 2)
        self.envelope = MelEnvelope(mel) if c.flat else None
        self.context_frames = self._context()
        self.least_frames = mel.n_fft // 2 // mel.hop_length + 2
        self.register_buffer("drawn", drawn_frames(mel.hop_length if c.wave else mel.n_fft + 2), persistent=False)
        self.drawn: Tensor

    def _context(self) -> int | None:
        """Return the frames to either side that a frame's samples depend on."""
        c, mel = self.config, self.features
        if self.backbone.reach is None or c.guidance > 1:  # which sees the mean of the mel over all of time
            return None
        half = -(-mel.win_length // (2 * mel.hop_length))  # of an STFT, or of its inverse
        evaluations = c.steps * _EVALUATIONS[c.solver]
        if not c.wave:
            return evaluations * self.backbone.reach + half
        # the noise is made a spectrum; each velocity a waveform, and a spectrum again; two filters equalise at the end
        around = -(-mel.win_length // mel.hop_length)
        return half + evaluations * (self.backbone.reach + around) + half + -(-TAPS // mel.hop_length)

    def graphs(self) -> dict[str, Graph]:
        channels, rows = self.config.bands * self.backbone.out.out_features, self.features.rows
        example = {"z": torch.zeros(1, channels, 64), "t": torch.zeros(1), "mel": torch.zeros(1, rows, 64)}
        growing = {"z": 2, "mel": 2, "velocity": 2}
        return {"velocity": Graph(_VelocityGraph(self.backbone, self.config.bands), example, ("velocity",), growing)}

    def start_at(self, mel: Tensor, frame: int, earlier: Tensor | None = None) -> Tensor:
        """Return [0, frame]: the noise is that of the frame."""
        return torch.tensor([0.0, float(frame)], dtype=torch.float64)

    def forward(self, mel: Tensor, lengths: Tensor | None = None, start: Tensor | None = None) -> Tensor:
        return each_length(self.features, mel, lengths, start, self._whole)

    def _whole(self, mel: Tensor, start: Tensor | None) -> Tensor:
        """Return the waveforms of mels without padding."""
        samples = self.features.samples_of(mel.shape[-1])
        mel = self._lengthened(mel)
        return self.sample(mel, self.noise(mel, start))[:, :samples]

    def _lengthened(self, mel: Tensor) -> Tensor:
        """Repeat the last frame of a mel that is too short: the reflection at the ends needs more samples than it reflects."""
        short = max(0, self.least_frames - mel.shape[-1])
        return torch.cat([mel, mel[:, :, -1:].expand(-1, -1, short)], 2)

    def noise(self, mel: Tensor, start: Tensor | None = None) -> Tensor:
        """Return the noise of mels, which each frame has its own of: waveforms [B, S], or spectra [B, 2 F, T]."""
        noise = noise_of_frames(self.drawn, mel, start)
        if self.config.wave:
            return noise.flatten(1)[:, : self.features.samples_of(mel.shape[-1])]
        return noise.transpose(1, 2)

    def sample(self, mel: Tensor, noise: Tensor, times: Tensor | None = None) -> Tensor:
        """Return waveforms [B, S] of mels [B, M, T] without padding, from noise as `noise` makes it.

        Args:
            times: [steps + 1] from 0 to 1 at which the solver stops; by default those of the config's grid.
        """
        c = self.config
        if times is None:
            times = build(TIME_GRIDS, c.grid).times(c.steps)
        followed, condition = self.field(mel)
        solved = build(SOLVERS, {"name": c.solver}).solve(followed, self.begin(noise), times, condition)
        return self.sound(self.join(solved.x), mel)

    def straightness(self, mel: Tensor, parts: int = 50) -> StraightnessGrid:
        """Return the grid between whose times the paths to the sound of mels [B, M, T] are equally far from straight."""
        mel = self._lengthened(mel)
        followed, condition = self.field(mel)
        return straightness_grid(followed, self.begin(self.noise(mel)), condition, parts)

    def begin(self, noise: Tensor) -> Tensor:
        """Return the bands of noise, where paths begin."""
        return self.split(self.stft(noise) if self.config.wave else noise)

    def field(self, mel: Tensor) -> tuple[VelocityField, Tensor]:
        """Return the velocities of bands that are followed to the sound of mels without padding, and their condition."""

        def velocity(z: Tensor, t: Tensor, mel: Tensor) -> Tensor:
            made = self._velocity(z, t, mel)
            return self.split(self.stft(self.inverse(self.join(made)))) if self.config.wave else made

        if self.config.guidance == 1:
            return velocity, mel
        # from the mean's velocity towards the mel's, in the published order of operations
        return classifier_free(velocity, mel, ConstantGuidance(-self.config.guidance)), _mean_over_time(mel)

    def _velocity(self, z: Tensor, t: Tensor, mel: Tensor) -> Tensor:
        """Return the network's velocities of bands [B * bands, C, T] at times [B * bands]."""
        if "velocity" not in self.runners:
            return self._torch_velocity(z, t, mel)
        runner, bands = self.runners["velocity"], self.config.bands
        items = zip(z.unflatten(0, (-1, bands)).flatten(1, 2), t[::bands], mel, strict=True)
        made = torch.cat([runner(own_z[None], own_t[None], own_mel[None])[0] for own_z, own_t, own_mel in items])
        return made.unflatten(1, (bands, -1)).flatten(0, 1)

    def _torch_velocity(self, z: Tensor, t: Tensor, mel: Tensor) -> Tensor:
        bands = self.config.bands
        number = torch.arange(bands, device=mel.device).repeat(len(mel))
        velocity: Tensor = self.backbone(z, t, mel.repeat_interleave(bands, 0), number)
        return velocity

    def loss(
        self, mel: Tensor, waveform: Tensor, generator: torch.Generator | None = None, share: Share | None = None
    ) -> dict[str, Tensor]:
        c = self.config
        count, rows = rows_of(share, len(mel))
        t = torch.rand(count, generator=generator)[rows].to(mel.device)
        shape = waveform.shape[1:] if c.wave else (self.features.n_fft + 2, mel.shape[2])
        noise = torch.randn(count, *shape, generator=generator)[rows].to(mel.device)
        if c.guidance > 1:
            dropped = torch.rand(count, generator=generator)[rows].to(mel.device) < c.unconditional
            mel = torch.where(dropped[:, None, None], _mean_over_time(mel), mel)
        return self.losses_at(mel, waveform, t, noise, share)

    def losses_at(
        self, mel: Tensor, waveform: Tensor, t: Tensor, noise: Tensor, share: Share | None = None
    ) -> dict[str, Tensor]:
        """Return the losses at times [B], from noise as `noise` makes it; in training mode the equaliser learns too."""
        c, kind = self.config, waveform.device.type
        with torch.autocast(kind, enabled=False):
            waveform = waveform.float()
            if self.training and self.envelope is None:
                self.equaliser.gather(waveform if c.wave else self.stft(waveform), share)
            each = t.repeat_interleave(c.bands)  # all bands of an item are at the same time, as published
            at = LinearPath().sample(self.begin(noise), self.split(self.equalised(waveform, mel)), each)
        predicted = self._torch_velocity(at.x_t, each, mel)
        with torch.autocast(kind, enabled=False):
            predicted = predicted.float()
            flow = mean_of(share, self._flow_loss(predicted, at.velocity))
            overlap = mean_of(share, self._overlap_loss(predicted))
            stft = spectrum_loss(self.join(at.x_0 + predicted), self.join(at.x_1), share)
            loss = flow + c.overlap_weight * overlap + c.stft_weight * stft
        return {"flow": flow, "overlap": overlap, "stft": stft, "loss": loss}

    def _flow_loss(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Return the mean squared error of velocities, each frame of a band over its size; as waveforms where noise is one."""
        predicted, target = balanced(predicted, target, 1)
        difference = predicted - target
        if self.config.wave:
            difference = self.inverse(self.join(difference))
        return difference.square().mean()

    def _overlap_loss(self, predicted: Tensor) -> Tensor:
        """Return how far bands are from their neighbours where they overlap: squares, summed over sides and parts of a bin."""
        bands, side, own = self.config.bands, self.config.overlap, self.width
        if bands == 1:
            return predicted.new_zeros(())
        bins = predicted.unflatten(0, (-1, bands)).unflatten(2, (2, -1))  # [B, bands, 2, width + 2 overlap, T]
        lower, upper = bins[:, :-1], bins[:, 1:]
        left = nn.functional.mse_loss(upper[:, :, :, :side], lower[:, :, :, own : own + side])
        right = nn.functional.mse_loss(lower[:, :, :, own + side :], upper[:, :, :, side : 2 * side])
        return (left + right) * (2 * (bands - 1) / bands)

    def sound(self, spectrum: Tensor, mel: Tensor) -> Tensor:
        """Return the waveform [B, S] of an equalised spectrum of mels [B, M, T]."""
        if self.envelope is not None:
            return self.inverse(spectrum * self._size(mel))
        if self.config.wave:
            return self.equaliser.undo(self.inverse(spectrum))
        return self.inverse(self.equaliser.undo(spectrum))

    def _size(self, mel: Tensor) -> Tensor:
        """Return the standard deviations [B, 2 F, T] that the parts of `stft` have where the mel shows this envelope."""
        assert self.envelope is not None
        size = self.envelope(mel) / math.sqrt(2 * self.features.n_fft)
        return torch.cat([size, size], 1)

    def equalised(self, waveform: Tensor, mel: Tensor) -> Tensor:
        """Return the spectrum that stands for a waveform with its mel at time 1."""
        if self.envelope is not None:
            return self.stft(waveform) / self._size(mel)
        if self.config.wave:
            return self.stft(self.equaliser(waveform))
        return self.equaliser(self.stft(waveform))

    def stft(self, waveform: Tensor) -> Tensor:
        """Return the spectrum of a waveform [B, S], scaled so that noise of variance 1 stays so in the mean of bins."""
        spectrum = self.istft.stft(waveform.float()) / math.sqrt(self.features.n_fft)
        return torch.cat([spectrum.real, spectrum.imag], 1)

    def inverse(self, spectrum: Tensor) -> Tensor:
        """Return the waveform [B, S] of a spectrum."""
        real, imaginary = (spectrum.float() * math.sqrt(self.features.n_fft)).chunk(2, 1)
        waveform: Tensor = self.istft(torch.complex(real, imaginary))
        return waveform

    def split(self, spectrum: Tensor) -> Tensor:
        """Return the bands [B * bands, 2 (width + 2 overlap), T], each with what lies beside it.

        Here and in `join`, `reshape` and not `unflatten`, which ONNX files get for the example's length alone.
        """
        both = spectrum.reshape(len(spectrum), 2, -1, spectrum.shape[2])  # [B, 2, F, T]
        side = self.config.overlap
        around = torch.cat([both[:, :, -side:], both, both[:, :, : side - 1]], 2)
        starts = range(0, self.config.bands * self.width, self.width)
        bands = torch.stack([around[:, :, low : low + self.width + 2 * side] for low in starts], 1)
        return bands.flatten(0, 1).flatten(1, 2)

    def join(self, bands: Tensor) -> Tensor:
        """Return the spectrum of bands, without what lies beside each; the last keeps the bin of the Nyquist frequency."""
        side, count = self.config.overlap, self.config.bands
        each = bands.reshape(-1, count, 2, self.width + 2 * side, bands.shape[2])
        own = each[:, :, :, side : side + self.width + 1]
        inner, last = own[:, :, :, : self.width], own[:, -1, :, self.width :]  # [B, bands, 2, width, T], [B, 2, 1, T]
        return torch.cat([inner.transpose(1, 2).flatten(2, 3), last], 2).flatten(1, 2)


class _VelocityGraph(nn.Module):
    """The network on all bands of one item: z [1, bands * C, T], t [1], mel [1, M, T], under the names of its modules."""

    def __init__(self, backbone: BandVelocity, bands: int) -> None:
        super().__init__()
        self.backbone, self.bands = backbone, bands

    def forward(self, z: Tensor, t: Tensor, mel: Tensor) -> tuple[Tensor]:
        bands = self.bands
        made = self.backbone(
            z.unflatten(1, (bands, -1))[0], t.expand(bands), mel.expand(bands, -1, -1), torch.arange(bands)
        )
        return (made.flatten(0, 1)[None],)


def _mean_over_time(mel: Tensor) -> Tensor:
    return mel.mean(2, keepdim=True).expand_as(mel)
