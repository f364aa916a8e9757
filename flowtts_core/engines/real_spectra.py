"""STFT and its inverse by convolutions with sines, since ONNX has no complex numbers."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowtts_core.audio.mel import MelConfig
from flowtts_core.nn.istft import centred_window


class RealSpectra(nn.Module):
    """STFT and its inverse by convolutions with sines, since ONNX has no complex numbers."""

    def __init__(self, mel: MelConfig, trim: int) -> None:
        super().__init__()
        self.hop, self.n_fft, self.trim = mel.hop_length, mel.n_fft, trim
        window = centred_window(mel.n_fft, mel.win_length).double()
        bins = torch.arange(mel.n_fft // 2 + 1, dtype=torch.float64)
        angle = 2 * math.pi * bins[:, None] * torch.arange(mel.n_fft, dtype=torch.float64) / mel.n_fft
        weight = torch.full_like(bins, 2.0)
        weight[0] = weight[-1] = 1.0
        inverse = torch.cat([weight[:, None] * angle.cos(), -weight[:, None] * angle.sin()]) / mel.n_fft * window
        forward = torch.cat([angle.cos(), -angle.sin()]) * (window / (window.sum() / 2))
        self.register_buffer("inverse", inverse[:, None].float())  # [2 F, 1, N]
        self.register_buffer("ahead", forward[:, None].float())
        self.register_buffer("square", window.square()[None, None].float())
        self.inverse: Tensor
        self.ahead: Tensor
        self.square: Tensor

    def spectrum(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Return real and imaginary parts [B, F, T] of T * hop samples; a cosine of amplitude 1 has the magnitude 1."""
        padded = F.pad(waveform[:, None], (self.trim, self.n_fft - self.hop - self.trim))
        real, imaginary = F.conv1d(padded, self.ahead, stride=self.hop).chunk(2, 1)
        return real, imaginary

    def centred(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Return the same of frames around each hop, as `torch.stft(center=True)` has them."""
        padded = F.pad(waveform[:, None], (self.n_fft // 2, self.n_fft // 2), mode="reflect")
        real, imaginary = F.conv1d(padded, self.ahead, stride=self.hop).chunk(2, 1)
        return real, imaginary

    def waveform(self, real: Tensor, imaginary: Tensor) -> Tensor:
        sound = F.conv_transpose1d(torch.cat([real, imaginary], 1), self.inverse, stride=self.hop)
        weight = F.conv_transpose1d(torch.ones_like(real[:, :1]), self.square, stride=self.hop)
        whole = (sound / weight.clamp(min=1e-11))[:, 0]
        return whole[:, self.trim : whole.shape[1] - self.trim]
