"""Measure loudness by ITU-R BS.1770 piece by piece, and reach a target by a gain with a peak limiter."""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import minimum_filter1d, uniform_filter1d
from scipy.signal import lfilter, resample_poly

BLOCK_S = 0.4  # gating blocks of 400 ms overlap by 75 %: four steps of 100 ms each
ABSOLUTE_GATE_LUFS = -70.0
RELATIVE_GATE_LU = -10.0
OFFSET_LUFS = -0.691  # BS.1770-4, equation 2: makes 0 dBFS of a 997 Hz sine -3.01 LUFS
CEILING_DBFS = -1.0
LIMITER_S = 0.005  # the gain changes over 5 ms before and after a peak: slow enough to be inaudible
_BLOCK, _MARGIN = 2048, 32  # samples; the margin covers the oversampling filter, so that blocks join without a seam
OVERSAMPLING = 4  # BS.1770 annex 2 estimates peaks between samples by four-fold oversampling


class LoudnessMeter:
    """Integrated loudness of mono audio that arrives in pieces. It stores one number per 100 ms.

    The K-weighting filters are pyloudnorm's; the gating follows BS.1770-4. It agrees with `pyloudnorm.Meter` on the whole
    signal to within 0.1 LU (pyloudnorm rounds block edges differently at odd sample rates).
    """

    def __init__(self, sample_rate: int) -> None:
        from pyloudnorm.iirfilter import IIRfilter

        # gain in dB, quality, frequency in Hz of BS.1770's two stages, as `pyloudnorm.Meter` has them
        stages = [
            IIRfilter(4.0, 1 / math.sqrt(2), 1500.0, sample_rate, "high_shelf"),
            IIRfilter(0.0, 0.5, 38.0, sample_rate, "high_pass"),
        ]
        self._filters = [(stage.passband_gain * stage.b, stage.a) for stage in stages]
        self._states = [np.zeros(max(len(a), len(b)) - 1) for b, a in self._filters]
        self._step = round(sample_rate * BLOCK_S / 4)
        self._energy: list[np.ndarray] = []
        self._rest = np.zeros(0)

    def update(self, waveform: np.ndarray) -> None:
        """Add the next piece, [S] in [-1, 1]."""
        x = waveform.astype(np.float64)
        for index, (b, a) in enumerate(self._filters):
            x, self._states[index] = lfilter(b, a, x, zi=self._states[index])
        x = np.concatenate([self._rest, np.square(x)])
        whole = len(x) // self._step * self._step
        self._energy.append(x[:whole].reshape(-1, self._step).mean(axis=1))
        self._rest = x[whole:]

    def extend(self, other: LoudnessMeter) -> None:
        """Add what another meter measured, as of a later chapter. Blocks do not span the joint."""
        self._energy += other._energy

    def integrated(self) -> float:
        """Return LUFS of all that was added; -inf for silence or less than 400 ms."""
        steps = np.concatenate([np.zeros(0), *self._energy])
        if len(steps) < 4:
            return -math.inf
        blocks = np.convolve(steps, np.ones(4) / 4, mode="valid")  # mean square of each 400 ms block
        gated = blocks[_lufs(blocks) >= ABSOLUTE_GATE_LUFS]
        if len(gated) == 0:
            return -math.inf
        gated = gated[_lufs(gated) >= _lufs(gated.mean()) + RELATIVE_GATE_LU]
        return float(_lufs(gated.mean()))


def loudness_of(waveform: np.ndarray, sample_rate: int) -> float:
    """Return the integrated loudness of a clip [S] in LUFS; -inf for silence. A clip under 400 ms is measured repeated."""
    meter = LoudnessMeter(sample_rate)
    meter.update(np.resize(waveform, max(len(waveform), math.ceil(2 * BLOCK_S * sample_rate))))
    return meter.integrated()


def gain_to(target_lufs: float, measured_lufs: float, limit_db: float = 40.0) -> float:
    """Return the linear gain from a measured loudness to a target, 1.0 for silence, at most `limit_db` either way."""
    if not math.isfinite(measured_lufs):
        return 1.0
    return float(10 ** (np.clip(target_lufs - measured_lufs, -limit_db, limit_db) / 20))


def amplify(waveform: np.ndarray, gain: float, sample_rate: int, ceiling_dbfs: float = CEILING_DBFS) -> np.ndarray:
    """Multiply by `gain` and hold the (four-fold oversampled) peaks under a ceiling.

    Where a peak would pass the ceiling the gain bends down smoothly around it: the smallest gain needed within 5 ms
    either side, averaged over the same window. An average of minima that all cover the peak is never above what the
    peak needs, so no sample passes the ceiling.

    Args:
        waveform: [S] float32.
    """
    out = waveform.astype(np.float32) * np.float32(gain)
    ceiling = 10 ** (ceiling_dbfs / 20)
    need = np.minimum(1.0, ceiling / np.maximum(_peaks(out, ceiling / 2), 1e-9))
    if len(out) == 0 or need.min() >= 1.0:
        return out
    window = 2 * round(LIMITER_S * sample_rate) + 1
    curve = uniform_filter1d(minimum_filter1d(need, window, mode="nearest"), window, mode="nearest")
    return (out * np.minimum(curve, need)).astype(np.float32)


def _peaks(waveform: np.ndarray, above: float) -> np.ndarray:
    """Return the peak magnitude at and beside each sample, [S]. Blocks under `above` are not oversampled."""
    peaks = np.abs(waveform)
    for start in range(0, len(waveform), _BLOCK):
        if peaks[start : start + _BLOCK].max() < above:  # between samples of speech a peak is less than twice as high
            continue
        left, right = max(0, start - _MARGIN), min(len(waveform), start + _BLOCK + _MARGIN)
        fine = np.abs(resample_poly(waveform[left:right], OVERSAMPLING, 1)).reshape(-1, OVERSAMPLING).max(axis=1)
        end = min(start + _BLOCK, len(waveform))
        here = fine[start - left : end - left]
        peaks[start:end] = np.maximum(peaks[start:end], here)
        # a peak between two samples counts for the second one too
        peaks[start + 1 : end] = np.maximum(peaks[start + 1 : end], here[:-1])
        if end < len(waveform):
            peaks[end] = max(peaks[end], here[-1])
    return peaks


def _lufs(mean_square: np.ndarray | float) -> np.ndarray:
    return OFFSET_LUFS + 10 * np.log10(np.maximum(mean_square, 1e-20))
