"""The denoiser of GAN vocoders: what they hum by themselves is measured once, and taken from the spectrum of all they make.

Source: WaveGlow's denoiser (Prenger et al. 2018, arXiv 1811.00002), as Matcha-TTS has it for HiFi-GAN. Here four hops make a
window, which is the published size at 256, so that windows of a stream have the same frames as the whole.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

HOPS = 4  # of a window; a sample depends on the samples of so many hops to either side


def hum_of(waveform: Tensor, hop_length: int) -> Tensor:
    """Return the magnitudes [F] with which a waveform [1, S] of a mel without speech begins."""
    magnitudes: Tensor = _spectrum(waveform, hop_length)[0, :, 0].abs()
    return magnitudes


def subtract_hum(waveform: Tensor, hum: Tensor, strength: float, hop_length: int) -> Tensor:
    """Take `strength` times the magnitudes `hum` [F] from waveforms [B, S]; phases stay."""
    samples = waveform.shape[1]
    if not samples:
        return waveform
    least = HOPS * hop_length // 2 + 1  # the reflection at the ends needs so many
    padded = nn.functional.pad(waveform, (0, max(0, least - samples)))
    spectrum = _spectrum(padded, hop_length)
    magnitude = spectrum.abs()
    kept = (magnitude - strength * hum[:, None]).clamp(min=0) / magnitude.clamp(min=1e-12)
    window = torch.hann_window(HOPS * hop_length, device=waveform.device)
    return torch.istft(spectrum * kept, HOPS * hop_length, hop_length, window=window, length=padded.shape[1])[
        :, :samples
    ]


def _spectrum(waveform: Tensor, hop_length: int) -> Tensor:
    window = torch.hann_window(HOPS * hop_length, device=waveform.device)
    return torch.stft(waveform, HOPS * hop_length, hop_length, window=window, return_complex=True)
