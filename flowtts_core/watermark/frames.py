"""Short spectra in which marks are made and found: 100 a second at any sample rate, bins 50 Hz apart.

Sine windows of two hops, over which analysis and synthesis are exact; a sample is final one hop (10 ms) after it was heard.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from flowtts_core.watermark.marker import FLOOR, TINY
from flowtts_core.watermark.pattern import BINS

FEATURES = BINS + 1


def _window(hop: int, like: Tensor) -> Tensor:
    place = torch.arange(2 * hop, device=like.device, dtype=like.dtype) + 0.5
    return (place * (math.pi / (2 * hop))).sin()


def spectra(waveform: Tensor, hop: int) -> Tensor:
    """Return the spectra [B, T, hop + 1], complex, of waveforms [B, T * hop + hop] that begin one hop before the first sample."""
    return torch.fft.rfft(waveform.unfold(1, 2 * hop, hop) * _window(hop, waveform))


def waveform_of(spectra: Tensor, hop: int) -> Tensor:
    """Return the waveforms [B, T * hop + hop] of spectra [B, T, hop + 1]; the first and the last hop are half done."""
    pieces = torch.fft.irfft(spectra, 2 * hop)
    pieces = pieces * _window(hop, pieces)
    first, second = pieces[..., :hop], pieces[..., hop:]
    return (F.pad(first, (0, 0, 0, 1)) + F.pad(second, (0, 0, 1, 0))).flatten(1)


def features(spectra: Tensor, before: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return what the nets see of spectra [B, T, hop + 1], and the level of the last frame [B, 1].

    Bins are logarithms relative to the frame's own level, and a last feature is how much that changed; the loudness of the
    whole changes none of them.

    Args:
        before: [B, 1] level of the frame before the first; None at the start.

    Returns:
        [B, T, FEATURES], and [B, 1].
    """
    sizes = spectra[..., 1 : BINS + 1].abs()
    sizes = F.pad(sizes, (0, BINS - sizes.shape[2])) / (spectra.shape[2] - 1)
    level = (sizes.square().mean(2) + TINY**2).sqrt()  # whose gradient is finite in silence
    relative = (sizes / level[..., None] + FLOOR).log()
    loud = level.log()
    earlier = torch.cat([loud[:, :1] if before is None else before, loud[:, :-1]], 1)
    change = (loud - earlier).clamp(-3, 3)
    return torch.cat([relative, change[..., None]], 2), loud[:, -1:]
