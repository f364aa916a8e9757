"""Equalisers, which bring sound to the spectrum of white noise, so that a flow's paths are alike in all bands, and back.

Source: RFWave (arXiv 2403.05010, section 3.3). Waveforms are split by a pseudo-QMF bank (Nguyen 1994, doi 10.1109/78.258122),
whose prototype is a sinc under a Kaiser window (Lin and Vaidyanathan 1998, doi 10.1109/97.681427).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

SUBBANDS, TAPS, CUTOFF, BETA = 8, 124, 0.071, 9.0
_EPS = 1e-6


class BandEqualiser(nn.Module):
    """Scales the subbands of waveforms [B, S] by statistics that training gathers."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(SUBBANDS))
        self.register_buffer("variance", torch.ones(SUBBANDS))
        analysis, synthesis = filters()
        self.register_buffer("analysis", analysis, persistent=False)
        self.register_buffer("synthesis", synthesis, persistent=False)
        self.mean: Tensor
        self.variance: Tensor
        self.analysis: Tensor
        self.synthesis: Tensor

    def forward(self, waveform: Tensor) -> Tensor:
        """Return the waveform with subbands of mean 0 and variance 1."""
        return self._joined((self._split(waveform) - self.mean[:, None]) / (self.variance[:, None] + _EPS).sqrt())

    def undo(self, waveform: Tensor) -> Tensor:
        """Return the waveform that was equalised, but for what subbands of other levels leak into each other."""
        return self._joined(self._split(waveform) * (self.variance[:, None] + _EPS).sqrt() + self.mean[:, None])

    def _split(self, waveform: Tensor) -> Tensor:
        return nn.functional.conv1d(waveform[:, None], self.analysis, padding=TAPS // 2)  # [B, SUBBANDS, S]

    def _joined(self, subbands: Tensor) -> Tensor:
        return nn.functional.conv1d(subbands, self.synthesis, padding=TAPS // 2)[:, 0]


class BinEqualiser(nn.Module):
    """Scales the rows of real spectra [B, rows, T] by statistics that training gathers."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(rows))
        self.register_buffer("variance", torch.ones(rows))
        self.mean: Tensor
        self.variance: Tensor

    def forward(self, spectrum: Tensor) -> Tensor:
        """Return the spectrum with rows of mean 0 and variance 1."""
        return (spectrum - self.mean[:, None]) / (self.variance[:, None] + _EPS).sqrt()

    def undo(self, spectrum: Tensor) -> Tensor:
        """Return the spectrum that was equalised."""
        return spectrum * (self.variance[:, None] + _EPS).sqrt() + self.mean[:, None]


def filters() -> tuple[Tensor, Tensor]:
    """Return the filters of analysis [SUBBANDS, 1, TAPS + 1] and of synthesis [1, SUBBANDS, TAPS + 1]."""
    place = torch.arange(TAPS + 1, dtype=torch.float64) - TAPS / 2
    window = torch.kaiser_window(TAPS + 1, periodic=False, beta=BETA, dtype=torch.float64)
    prototype = CUTOFF * torch.sinc(CUTOFF * place) * window
    number = torch.arange(SUBBANDS, dtype=torch.float64)[:, None]
    angle, turn = (2 * number + 1) * (math.pi / (2 * SUBBANDS)) * place, (-1) ** number * math.pi / 4
    analysis, synthesis = (2 * prototype * torch.cos(angle + sign * turn) for sign in (1, -1))
    return analysis.float()[:, None], synthesis.float()[None]
