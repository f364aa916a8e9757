"""Vocoders of several steps as modules of operations that ONNX has; a graph holds every step, and the weights once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.onnx.operators import shape_as_tensor

from flowtts_core.engines.real_spectra import RealSpectra
from flowtts_core.vocoder import BandSplit, Diffusion, RFWave, Vocoder, WaveFM
from flowtts_core.vocoder.base import noise_of_frames


class _WaveFMSound(nn.Module):
    def __init__(self, vocoder: WaveFM) -> None:
        super().__init__()
        mel = vocoder.features
        self.vocoder, self.behind = vocoder, mel.hop_length if mel.padding == "center" else 0
        if vocoder.shape is not None:
            self.spectra = RealSpectra(mel, vocoder.shape.istft.trim)
            self.scale = float(vocoder.shape.istft.window.sum()) / 2  # a cosine of amplitude 1 has the magnitude 1 here

    def forward(self, mel: Tensor) -> Tensor:
        noise = self.vocoder.noise(mel)
        if self.vocoder.shape is None:
            waveform = self.vocoder.sample(mel, noise)
        else:
            real, imaginary = self.spectra.spectrum(noise)
            size = self.scale * self.vocoder.shape.magnitudes(mel)
            waveform = self.vocoder.follow(mel, self.spectra.waveform(real * size, imaginary * size))
        return waveform[:, : waveform.shape[1] - self.behind]


class _DiffusionSound(nn.Module):
    def __init__(self, vocoder: Diffusion) -> None:
        super().__init__()
        self.vocoder = vocoder
        self.behind = vocoder.features.hop_length if vocoder.features.padding == "center" else 0

    def forward(self, mel: Tensor) -> Tensor:
        waveform = self.vocoder.sample(mel, self.vocoder.noise(mel))
        return waveform[:, : waveform.shape[1] - self.behind]


class _RFWaveSound(RFWave):
    """An RFWave whose spectra are found by convolutions."""

    def __init__(self, vocoder: RFWave) -> None:
        super().__init__(vocoder.config)
        self.load_state_dict(vocoder.state_dict())
        self.spectra = RealSpectra(vocoder.features, vocoder.istft.trim)
        self.scale = vocoder.istft.window.sum().item() / 2 / math.sqrt(vocoder.features.n_fft)

    def forward(self, mel: Tensor, lengths: Tensor | None = None, start: Tensor | None = None) -> Tensor:
        frames = shape_as_tensor(mel)[2]  # a tensor, which is traced; what Python compares is that of the example
        count = frames.clamp(min=self.least_frames)
        place = torch.arange(count).clamp(max=frames - 1)  # type: ignore[call-overload]  # it takes tensors too
        mel = mel[:, :, place]
        behind = 1 if self.features.padding == "center" else 0
        return self.sample(mel, self.noise(mel))[:, : (frames - behind) * self.features.hop_length]

    def stft(self, waveform: Tensor) -> Tensor:
        own = self.spectra.centred if self.features.padding == "center" else self.spectra.spectrum
        return torch.cat(own(waveform), 1) * self.scale

    def inverse(self, spectrum: Tensor) -> Tensor:
        real, imaginary = (spectrum * math.sqrt(self.features.n_fft)).chunk(2, 1)
        return self.spectra.waveform(real, imaginary)


class _BandSplitSound(nn.Module):
    def __init__(self, vocoder: BandSplit) -> None:
        super().__init__()
        self.vocoder, self.spectra = vocoder, RealSpectra(vocoder.features, vocoder.istft.trim)

    def forward(self, mel: Tensor) -> Tensor:
        noise = noise_of_frames(self.vocoder.drawn, mel, None).transpose(1, 2)
        low = self.vocoder.below(self.vocoder.sample(mel, noise)).chunk(2, 1)
        magnitude, phase = self.vocoder.above(mel)
        high = magnitude * phase.cos(), magnitude * phase.sin()
        real, imaginary = (torch.cat(parts, 1) for parts in zip(low, high, strict=True))
        return self.spectra.waveform(real, imaginary)


FLOWS: dict[type[Vocoder], Callable[[Any], nn.Module]] = {
    BandSplit: _BandSplitSound,
    Diffusion: _DiffusionSound,
    RFWave: _RFWaveSound,
    WaveFM: _WaveFMSound,
}
