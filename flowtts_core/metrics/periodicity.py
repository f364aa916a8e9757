"""How periodic a copy is beside its recording, and where one is voiced alone: what vocoders do to vowels and to breath.

Source: Morrison et al., "Chunked Autoregressive GAN for Conditional Waveform Synthesis" (arXiv 2110.10139), section 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from flowtts_core.errors import AudioError, ConfigError
from flowtts_core.metrics.optional import require
from flowtts_core.metrics.signal import RATE, to_16k

LOW_HZ, HIGH_HZ = 50.0, 550.0
CREPE = "pip install 'flowtts[crepe]'"
_CREPE_VOICED = 0.21  # the periodicity from which the paper takes a frame for voiced
_SHORTEST_S = 0.1


@dataclass(frozen=True)
class Pitch:
    """F0 [T] in Hz, how periodic each frame is [T] from 0 to 1, and whether it is voiced [T]."""

    hz: np.ndarray
    periodicity: np.ndarray
    voiced: np.ndarray


@dataclass(frozen=True)
class PeriodicityError:
    """Of a copy, frame by frame.

    Attributes:
        periodicity: root mean square difference, from 0 to 1.
        voicing: share of frames that are voiced in one of both alone.
        cents: root mean square difference of F0 where both are voiced; None where no frame is.
    """

    periodicity: float
    voicing: float
    cents: float | None


def periodicity_error(
    ours: np.ndarray, ours_rate: int, theirs: np.ndarray, theirs_rate: int, detector: str = "swift_f0"
) -> PeriodicityError:
    """Compare a copy [S] with its recording over the length of the shorter one.

    Args:
        detector: "swift_f0", whose confidence is taken for the periodicity, or "torchcrepe": its tiny model, since the full one
            takes minutes a clip on a CPU.

    Raises:
        AudioError: for a clip under a tenth of a second.
        ConfigError: for another detector.
        DependencyError: without torchcrepe where it is asked for.
    """
    if detector not in DETECTORS:
        raise ConfigError(f"no pitch detector {detector!r}", f"use one of {', '.join(DETECTORS)}")
    clips = [to_16k(ours, ours_rate), to_16k(theirs, theirs_rate)]
    length = min(map(len, clips))
    if length < _SHORTEST_S * RATE:
        raise AudioError(f"a clip of {1000 * length / RATE:.0f} ms is too short", f"give {_SHORTEST_S} s or more")
    own, wanted = (DETECTORS[detector](clip[:length]) for clip in clips)
    both = own.voiced & wanted.voiced
    cents = 1200 * np.log2(own.hz[both] / wanted.hz[both])
    return PeriodicityError(
        float(np.sqrt(np.square(own.periodicity - wanted.periodicity).mean())),
        float((own.voiced != wanted.voiced).mean()),
        float(np.sqrt(np.square(cents).mean())) if len(cents) else None,
    )


def _swift(clip: np.ndarray) -> Pitch:
    found = _swift_model().detect(clip, RATE, LOW_HZ, HIGH_HZ)
    periodicity = np.asarray(found.confidence, np.float64)
    return Pitch(np.asarray(found.pitch_hz, np.float64), periodicity, periodicity >= 0.5)


def _crepe(clip: np.ndarray) -> Pitch:
    import torch

    from flowtts_core.audio import torchaudio_import  # noqa: F401  # torchcrepe imports torchaudio, which may need it

    package = require("torchcrepe", CREPE)
    with torch.inference_mode():
        hz, periodicity = package.predict(
            torch.from_numpy(clip)[None],
            RATE,
            RATE // 100,
            LOW_HZ,
            HIGH_HZ,
            "tiny",
            decoder=package.decode.weighted_argmax,
            return_periodicity=True,
            batch_size=256,
        )
        # in silence it finds any pitch; both are smoothed as in the paper
        periodicity = package.threshold.Silence(-60.0)(periodicity, torch.from_numpy(clip)[None], RATE, RATE // 100)
        periodicity, hz = package.filter.median(periodicity, 3), package.filter.mean(hz, 3)
    found = periodicity[0].double().numpy()
    return Pitch(hz[0].double().numpy(), found, found >= _CREPE_VOICED)


@lru_cache(maxsize=1)
def _swift_model() -> Any:
    from swift_f0 import SwiftF0

    return SwiftF0(threads=1)


DETECTORS: dict[str, Callable[[np.ndarray], Pitch]] = {"swift_f0": _swift, "torchcrepe": _crepe}
