"""Where the energy of a steady tone lies: the peak bin of a plain Fourier transform against every other bin."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SpectralPeak:
    """The largest bin of a spectrum.

    Attributes:
        frequency_hz: of the bin's centre; bins are `sample_rate / samples` Hz apart.
        margin_db: its magnitude over that of the largest other bin, direct current and both neighbours included.
        amplitude: of the sine that this bin alone stands for.
    """

    frequency_hz: float
    margin_db: float
    amplitude: float


def spectral_peak(waveform: np.ndarray, sample_rate: int) -> SpectralPeak:
    """Return the peak of `waveform` [S]: a Fourier transform of all S samples in float64, without window or padding.

    One second of a sine of whole hertz fills exactly one bin, so nothing but impurity stands in the others.
    """
    magnitude = np.abs(np.fft.rfft(waveform.astype(np.float64)))
    peak = int(magnitude.argmax())
    other = float(np.delete(magnitude, peak).max())
    margin = 20 * math.log10(max(float(magnitude[peak]), 1e-300) / max(other, 1e-300))
    return SpectralPeak(peak * sample_rate / len(waveform), margin, 2 * float(magnitude[peak]) / len(waveform))
