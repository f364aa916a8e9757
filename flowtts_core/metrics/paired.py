"""Compare a clip with the recording that it should equal: spectra, cepstra, pitch, samples, and models of hearing.

Cepstra and pitch are compared along a dynamic time warp, so that the clip may have another pace. The other measures compare
frame by frame over the shorter of both, and mean something only where both run in step, as after a vocoder or a codec.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from flowtts_core.audio.mel import LogMel, MelConfig
from flowtts_core.errors import AudioError
from flowtts_core.metrics.optional import EVAL, require, require_librosa
from flowtts_core.metrics.signal import RATE, to_16k, to_rate
from flowtts_core.vocoder.losses import MultiSTFTLoss

_CEPSTRA = 13
_PITCH_RANGE = (60.0, 500.0)  # Hz
_SHORTEST_S = 0.1


@dataclass(frozen=True)
class Warped:
    """Along the warp: `mcd` in dB, `f0_rmse` in cents where both are voiced (else None), `voicing_error` as a share of frames."""

    mcd: float
    f0_rmse: float | None
    voicing_error: float


def warped(ours: np.ndarray, ours_rate: int, theirs: np.ndarray, theirs_rate: int) -> Warped:
    """Return mel-cepstral distortion (Kubichek 1993, coefficients 1 to 13, without energy) and pitch errors (pYIN).

    Raises:
        AudioError: for a clip under a tenth of a second.
        DependencyError: without librosa.
    """
    librosa = require_librosa()
    clips = [to_16k(ours, ours_rate), to_16k(theirs, theirs_rate)]
    _require_length(clips)
    cepstra = [_cepstra(clip) for clip in clips]  # [13, T]
    _, path = librosa.sequence.dtw(*cepstra)
    path = path[::-1]  # [P, 2], from the beginning
    distance = np.linalg.norm(cepstra[0][:, path[:, 0]] - cepstra[1][:, path[:, 1]], axis=0)
    mcd = 10 * math.sqrt(2) / math.log(10) * float(distance.mean())
    (f0, voiced), (f0_there, voiced_there) = (_pitch(clip, len(c[0])) for clip, c in zip(clips, cepstra, strict=True))
    here, there = voiced[path[:, 0]], voiced_there[path[:, 1]]
    both = here & there
    cents = 1200 * np.log2(f0[path[both, 0]] / f0_there[path[both, 1]]) if both.any() else np.zeros(0)
    rmse = float(np.sqrt(np.square(cents).mean())) if len(cents) else None
    return Warped(mcd, rmse, float((here != there).mean()))


@dataclass(frozen=True)
class TimeForTime:
    """`mel_l1` in nats per band, `stft` without unit, `si_sdr` in dB, `stoi` from 0 to 1 or None for too little sound.

    `si_sdr_rate` is the sample rate in Hz that SI-SDR was computed at; the others are computed at 16 kHz.
    """

    mel_l1: float
    stft: float
    si_sdr: float
    si_sdr_rate: int
    stoi: float | None


def time_for_time(
    ours: np.ndarray, ours_rate: int, theirs: np.ndarray, theirs_rate: int, *, si_sdr_rate: int | None = None
) -> TimeForTime:
    """Compare over the length of the shorter clip, at 16 kHz; SI-SDR at our clip's own rate, or at `si_sdr_rate`.

    Resampling takes distortion above the new band away, so SI-SDR depends on the rate (by 1 to 2 dB from 22 to 16 kHz).
    SI-SDR after Le Roux et al. (arXiv 1811.02508), STOI after Taal et al. (2011), by pystoi.

    Raises:
        AudioError: for a clip under a tenth of a second, or silence to compare with.
        DependencyError: without pystoi.
    """
    clips = [to_16k(ours, ours_rate), to_16k(theirs, theirs_rate)]
    _require_length(clips)
    length = min(len(clip) for clip in clips)
    a, b = (torch.from_numpy(clip[:length])[None] for clip in clips)
    with torch.inference_mode():
        mel_l1 = float((_log_mel()(a) - _log_mel()(b)).abs().mean())
        stft = float(_stft_loss()(a, b))
    rate = si_sdr_rate or ours_rate
    x, s = to_rate(ours, ours_rate, rate), to_rate(theirs, theirs_rate, rate)
    length = min(len(x), len(s))
    return TimeForTime(mel_l1, stft, si_sdr(x[:length], s[:length]), rate, _stoi(a[0].numpy(), b[0].numpy()))


def si_sdr(estimate: np.ndarray, target: np.ndarray) -> float:
    """Return the scale-invariant signal-to-distortion ratio of [S] against [S] in dB; higher is better.

    Raises:
        AudioError: for lengths that differ, or a clip that is silent.
    """
    if len(estimate) != len(target):
        raise AudioError(f"{len(estimate)} samples against {len(target)}", "cut both to one length")
    x, s = (side.astype(np.float64) - side.mean(dtype=np.float64) for side in (estimate, target))
    energy = float(s @ s)
    if energy == 0:
        raise AudioError("the clip to compare with is silent")
    if not x.any():  # silence would get 0 dB, more than many audible clips
        raise AudioError("the clip is silent")
    projected = (float(x @ s) / energy) * s
    rest = float(np.square(x - projected).sum())
    return 10 * math.log10(max(float(projected @ projected), 1e-20) / max(rest, 1e-20))


def pesq(estimate: np.ndarray, estimate_rate: int, target: np.ndarray, target_rate: int) -> float:
    """Return wide-band PESQ (ITU-T P.862.2) at 16 kHz over the length of the shorter clip, 1 to 4.6; higher is better.

    Raises:
        DependencyError: without the package pesq.
        AudioError: when it finds no speech.
    """
    package = require("pesq", "pip install pesq (it is compiled, and needs a C compiler)")
    x, s = to_16k(estimate, estimate_rate), to_16k(target, target_rate)
    length = min(len(x), len(s))
    try:
        return float(package.pesq(RATE, s[:length], x[:length], "wb"))
    except package.PesqError as error:
        raise AudioError(f"PESQ cannot judge it: {error}") from error


def _stoi(estimate: np.ndarray, target: np.ndarray) -> float | None:
    package = require("pystoi", EVAL)
    with warnings.catch_warnings():
        # below 30 frames of sound pystoi warns and returns 1e-5
        warnings.filterwarnings("error", "Not enough STFT frames", RuntimeWarning)
        try:
            return float(package.stoi(target, estimate, RATE, extended=False))
        except RuntimeWarning:
            return None


def _cepstra(clip: np.ndarray) -> np.ndarray:
    """Return cepstra [13, T] of the log-mel at 16 kHz, one frame each 10 ms, without the energy (coefficient 0).

    They are scaled so that `log |H| = c_0 + sum of c_m cos(m w)`. The distortion is then in decibels: the root mean square
    over the bands of the spectral difference that the 13 coefficients describe.
    """
    import scipy.fft

    mel = _log_mel()(torch.from_numpy(clip)[None])[0].numpy()
    return np.asarray(scipy.fft.dct(mel, axis=0)[1 : _CEPSTRA + 1] / len(mel))


def _pitch(clip: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Return F0 [T] in Hz and whether each frame is voiced [T], a frame each 10 ms."""
    low, high = _PITCH_RANGE
    f0, voiced, _ = require_librosa().pyin(clip, fmin=low, fmax=high, sr=RATE, frame_length=1024, hop_length=160)
    short = max(0, frames - len(f0))
    return np.pad(f0, (0, short), constant_values=np.nan)[:frames], np.pad(voiced, (0, short))[:frames]


def _require_length(clips: list[np.ndarray]) -> None:
    shortest = min(len(clip) for clip in clips) / RATE
    if shortest < _SHORTEST_S:
        raise AudioError(f"a clip of {1000 * shortest:.0f} ms is too short to compare", f"give {_SHORTEST_S} s or more")


@lru_cache(maxsize=1)
def _log_mel() -> LogMel:
    return LogMel(
        MelConfig(
            sample_rate=RATE, n_fft=512, win_length=400, hop_length=160, n_mels=80, f_max=RATE / 2, padding="center"
        )
    )


@lru_cache(maxsize=1)
def _stft_loss() -> MultiSTFTLoss:
    return MultiSTFTLoss()
