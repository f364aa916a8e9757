"""Griffin-Lim: the fallback vocoder, which needs no training and sounds metallic.

Source: Griffin and Lim 1984, with the momentum of Perraudin et al. 2013. The mel is inverted by non-negative least squares.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from flowtts_core.audio.mel import MelConfig, mel_filter_bank
from flowtts_core.nn.istft import centred_window, real_frames
from flowtts_core.vocoder.base import Vocoder


@dataclass(frozen=True)
class GriffinLimConfig:
    """`iterations` of phase estimation with `momentum`; the first phase is zero, so that the result is reproducible."""

    mel: MelConfig = field(default_factory=MelConfig)
    iterations: int = 32
    momentum: float = 0.99


class GriffinLim(Vocoder):
    """Mel to waveform by alternating projections; items of a batch are done one by one at their own length."""

    def __init__(self, config: GriffinLimConfig) -> None:
        super().__init__()
        self.config = config
        self.features = config.mel
        bank = mel_filter_bank(config.mel)  # [F, M]
        self.register_buffer("inverse", torch.linalg.pinv(bank.T), persistent=False)
        self.register_buffer("bank", bank.T.contiguous(), persistent=False)
        self.register_buffer("window", centred_window(config.mel.n_fft, config.mel.win_length), persistent=False)
        self.inverse: Tensor
        self.bank: Tensor
        self.window: Tensor

    @torch.inference_mode()
    def forward(self, mel: Tensor, lengths: Tensor | None = None, start: Tensor | None = None) -> Tensor:
        samples, mel = (
            self.features.samples_of(mel.shape[-1]),
            mel[:, : self.features.n_mels],
        )  # a row of pitch tells nothing
        waveform = mel.new_zeros(mel.shape[0], samples)
        for b in range(mel.shape[0]):
            frames = mel.shape[-1] if lengths is None else int(lengths[b])
            if frames:
                single = self._invert(mel[b : b + 1, :, :frames])
                waveform[b, : single.shape[-1]] = single[0]
        return waveform

    def _invert(self, mel: Tensor) -> Tensor:
        c = self.config.mel
        target = mel.exp().pow(1.0 / c.power)
        magnitude = (self.inverse @ target).clamp(min=1e-8)
        for _ in range(16):  # multiplicative updates keep it non-negative (Lee and Seung 2001)
            magnitude = magnitude * (self.bank.T @ target) / (self.bank.T @ (self.bank @ magnitude)).clamp(min=1e-10)
        # the frames of a "same" mel are centred hop/2 later than torch.istft's: pad by the difference and trim it again
        length, total = c.samples_of(mel.shape[-1]), (mel.shape[-1] - 1) * c.hop_length
        size = total + c.n_fft
        angles, previous = (
            torch.zeros_like(magnitude).to(torch.complex64) + 1,
            torch.zeros_like(magnitude).to(torch.complex64),
        )
        signal = mel.new_zeros(1, size)
        for _ in range(self.config.iterations):
            signal = self._synthesis(magnitude * angles, size)
            rebuilt = torch.stft(signal, c.n_fft, c.hop_length, window=self.window, center=False, return_complex=True)
            angles = rebuilt - (self.config.momentum / (1 + self.config.momentum)) * previous
            angles = angles / angles.abs().clamp(min=1e-12)
            previous = rebuilt
        signal = self._synthesis(magnitude * angles, size)
        trim = (c.n_fft - c.hop_length) // 2 if c.padding == "same" else c.n_fft // 2
        return signal[:, trim : trim + length]

    def _synthesis(self, spectrum: Tensor, size: int) -> Tensor:
        c = self.config.mel
        frames = real_frames(spectrum, c.n_fft) * self.window[None, :, None]
        square = self.window.square()[None, :, None].expand(1, -1, frames.shape[-1])
        added = [
            nn.functional.fold(part, (1, size), (1, c.n_fft), stride=(1, c.hop_length))[:, 0, 0]
            for part in (frames, square)
        ]
        return added[0] / added[1].clamp(min=1e-4)
