"""The envelope of a spectrum that its mel shows, by which noise becomes a whisper of the sound, and sound as flat as noise.

Source: Koizumi et al., "SpecGrad" (arXiv 2203.16749), section 3; here envelopes are interpolated between the centres of bands.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flowtts_core.audio.mel import MelConfig
from flowtts_core.nn.istft import InverseSTFT
from flowtts_core.vocoder.vocos import MelPrior


class MelEnvelope(nn.Module):
    """Mels [B, M, T] to the magnitudes [B, F, T] of their STFT, at least those of the mel's floor."""

    def __init__(self, mel: MelConfig) -> None:
        super().__init__()
        self.n_mels, self.prior = mel.n_mels, MelPrior(mel)
        self.last = int(self.prior.weights.sum(1).nonzero().max())  # bin: above it the mel shows nothing

    def forward(self, mel: Tensor) -> Tensor:
        size: Tensor = self.prior(mel[:, : self.n_mels])
        above = size[:, self.last : self.last + 1].expand(-1, size.shape[1] - self.last - 1, -1)
        return torch.cat([size[:, : self.last + 1], above], 1).exp()


class MelNoise(nn.Module):
    """Filters standard normal noise [B, T * hop_length] by mels [B, M, T]; padding changes nothing."""

    def __init__(self, mel: MelConfig) -> None:
        super().__init__()
        self.hop_length, self.centred = mel.hop_length, mel.padding == "center"
        self.envelope = MelEnvelope(mel)
        # its frames lie half a hop behind those of centred mels, so that T of them are as long as the noise
        self.istft = InverseSTFT(mel.n_fft, mel.hop_length, mel.win_length, "same")
        self.context_frames = -(-mel.n_fft // mel.hop_length) + 1

    def forward(self, noise: Tensor, mel: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the filtered noise; `mask` [B, 1, T] is 1 on valid frames."""
        if mask is not None:
            noise = noise * mask[:, 0].repeat_interleave(self.hop_length, 1)
        filtered: Tensor = self.istft(self.istft.stft(noise.float()) * self.magnitudes(mel, mask), mask)
        return filtered

    def magnitudes(self, mel: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return by what the bins [B, F, T] of the noise are multiplied."""
        size: Tensor = self.envelope(mel) / self.istft.window.square().sum().sqrt()  # which the noise has
        if not self.centred:
            return size
        after = torch.cat([size[:, :, 1:], size[:, :, -1:]], 2)
        if mask is not None:
            after = torch.where(torch.cat([mask[:, :, 1:], mask[:, :, -1:]], 2) > 0, after, size)
        return (size * after).sqrt()
