"""Equalisers, which bring sound to the spectrum of white noise, so that a flow's paths are alike in all bands, and back.

Source: RFWave (arXiv 2403.05010, section 3.3). Waveforms are split by a pseudo-QMF bank (Nguyen 1994, doi 10.1109/78.258122),
whose prototype is a sinc under a Kaiser window (Lin and Vaidyanathan 1998, doi 10.1109/97.681427).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from flowtts_core.nn.share import Share

SUBBANDS, TAPS, CUTOFF, BETA = 8, 124, 0.071, 9.0
_EPS = 1e-6
_MOMENTUM = 0.01  # of a batch in the statistics, as published


class _Equaliser(nn.Module):
    """Running mean and variance of rows."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(rows))
        self.register_buffer("variance", torch.ones(rows))
        self.mean: Tensor
        self.variance: Tensor

    def _flat(self, rows: Tensor) -> Tensor:
        """Return [B, rows, T] with mean 0 and variance 1."""
        return (rows - self.mean[:, None]) / (self.variance[:, None] + _EPS).sqrt()

    def _shaped(self, rows: Tensor) -> Tensor:
        return rows * (self.variance[:, None] + _EPS).sqrt() + self.mean[:, None]

    @torch.no_grad()
    def _gather(self, rows: Tensor, share: Share | None) -> None:
        """Move the statistics towards those of a batch [B, rows, T], whose items may be elsewhere too.

        The first batch gives them alone. As published they would begin at those of noise, and take a thousand batches to
        come to those of speech, while the flow's targets grow.
        """
        fresh = not bool(self.mean.any()) and bool((self.variance == 1).all())
        weight = 1.0 if fresh else _MOMENTUM
        count = (len(rows) if share is None else share.size) * rows.shape[2]
        total = (lambda values: values) if share is None else share.sum
        mean = total(rows.sum((0, 2))) / count
        variance = total((rows - mean[:, None]).square().sum((0, 2))) / max(1, count - 1)
        self.mean.lerp_(mean, weight)
        self.variance.lerp_(variance, weight)


class BandEqualiser(_Equaliser):
    """Scales the subbands of waveforms [B, S] by statistics that training gathers."""

    def __init__(self) -> None:
        super().__init__(SUBBANDS)
        analysis, synthesis = filters()
        self.register_buffer("analysis", analysis, persistent=False)
        self.register_buffer("synthesis", synthesis, persistent=False)
        self.analysis: Tensor
        self.synthesis: Tensor

    def forward(self, waveform: Tensor) -> Tensor:
        """Return the waveform with subbands of mean 0 and variance 1."""
        return self._joined(self._flat(self._split(waveform)))

    def undo(self, waveform: Tensor) -> Tensor:
        """Return the waveform that was equalised, but for what subbands of other levels leak into each other."""
        return self._joined(self._shaped(self._split(waveform)))

    def gather(self, waveform: Tensor, share: Share | None = None) -> None:
        """Add a batch [B, S] to the running statistics; of its share, every process gets those of the whole."""
        self._gather(self._split(waveform), share)

    def _split(self, waveform: Tensor) -> Tensor:
        return nn.functional.conv1d(waveform[:, None], self.analysis, padding=TAPS // 2)  # [B, SUBBANDS, S]

    def _joined(self, subbands: Tensor) -> Tensor:
        return nn.functional.conv1d(subbands, self.synthesis, padding=TAPS // 2)[:, 0]


class BinEqualiser(_Equaliser):
    """Scales the rows of real spectra [B, rows, T] by statistics that training gathers."""

    def forward(self, spectrum: Tensor) -> Tensor:
        """Return the spectrum with rows of mean 0 and variance 1."""
        return self._flat(spectrum)

    def undo(self, spectrum: Tensor) -> Tensor:
        """Return the spectrum that was equalised."""
        return self._shaped(spectrum)

    def gather(self, spectrum: Tensor, share: Share | None = None) -> None:
        """Add a batch to the running statistics; of its share, every process gets those of the whole."""
        self._gather(spectrum, share)


def filters() -> tuple[Tensor, Tensor]:
    """Return the filters of analysis [SUBBANDS, 1, TAPS + 1] and of synthesis [1, SUBBANDS, TAPS + 1]."""
    place = torch.arange(TAPS + 1, dtype=torch.float64) - TAPS / 2
    window = torch.kaiser_window(TAPS + 1, periodic=False, beta=BETA, dtype=torch.float64)
    prototype = CUTOFF * torch.sinc(CUTOFF * place) * window
    number = torch.arange(SUBBANDS, dtype=torch.float64)[:, None]
    angle, turn = (2 * number + 1) * (math.pi / (2 * SUBBANDS)) * place, (-1) ** number * math.pi / 4
    analysis, synthesis = (2 * prototype * torch.cos(angle + sign * turn) for sign in (1, -1))
    return analysis.float()[:, None], synthesis.float()[None]
