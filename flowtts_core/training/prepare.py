"""One clip of a corpus to the audio that is kept of it, or the reason why it cannot be trained on."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flowtts_core.audio.files import read_audio, resample
from flowtts_core.audio.mel import MelConfig
from flowtts_core.errors import AudioError, ConfigError


@dataclass(frozen=True)
class ClipLimits:
    """What a clip must keep to be trained on.

    Attributes:
        min_seconds, max_seconds: duration; a long clip costs memory quadratically in attention.
        min_peak, min_rms: a clip below either is taken for silence (0.01 is -40 dBFS, 0.001 is -60 dBFS).
        full_scale: absolute sample value from which a sample may be a clipped one.
        clipped_run: so many samples in a row at full scale are clipping; fewer are peaks that just fit.
        max_clipped_share: share of clipped samples that is still accepted.
    """

    min_seconds: float = 0.3
    max_seconds: float = 20.0
    min_peak: float = 0.01
    min_rms: float = 0.001
    full_scale: float = 0.999
    clipped_run: int = 3
    max_clipped_share: float = 0.0005

    def __post_init__(self) -> None:
        if not 0 <= self.min_seconds < self.max_seconds:
            raise ConfigError(
                f"min_seconds {self.min_seconds}, max_seconds {self.max_seconds}", "they must satisfy 0 <= min < max"
            )
        if self.clipped_run < 1:
            raise ConfigError(f"clipped_run = {self.clipped_run}", "use 1 or more")


@dataclass(frozen=True)
class PrepareConfig:
    """Everything that decides what becomes of a clip.

    Attributes:
        mel: of the features; its sample rate is also that of the audio.
        frontend: spec of the front end that makes the tokens.
        resample: bring other sample rates to the mel's, instead of setting the clip aside.
    """

    mel: MelConfig = field(default_factory=MelConfig)
    frontend: dict[str, Any] = field(default_factory=lambda: {"name": "phonemes"})
    limits: ClipLimits = field(default_factory=ClipLimits)
    resample: bool = False

    @property
    def of_audio(self) -> list[Any]:
        """Return the settings that decide about the audio that is kept; the rest decides about features alone."""
        return [self.mel.sample_rate, self.limits, self.resample]


def prepare_audio(audio: bytes | str | Path, config: PrepareConfig) -> np.ndarray | str:
    """Decode a clip, from a path or an audio file's bytes, and check it.

    Returns:
        [S] float32 at the mel's sample rate, or a sentence that says why the clip cannot be trained on.
    """
    wanted, limits = config.mel.sample_rate, config.limits
    try:
        waveform, rate = read_audio(audio)
    except AudioError as error:
        return f"unreadable audio: {error.message}"
    if rate != wanted:
        if not config.resample:
            return f"sample rate {rate} Hz instead of {wanted} Hz (--resample converts it)"
        clipped = clipping(waveform, limits)  # the filter would smear it until nothing reached full scale
        if clipped:
            return clipped
        waveform = resample(waveform, rate, wanted)
    return unfit_waveform(waveform, wanted, limits) or waveform


def flac_of(waveform: np.ndarray, sample_rate: int) -> bytes:
    """Return a waveform [S] as FLAC of 16 bits."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, waveform, sample_rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def unfit_waveform(waveform: np.ndarray, sample_rate: int, limits: ClipLimits) -> str:
    """Return why [S] cannot be trained on (length, silence, clipping); empty where it can."""
    seconds = len(waveform) / sample_rate
    if seconds < limits.min_seconds:
        return f"too short: {seconds:.2f} s (at least {limits.min_seconds:g} s)"
    if seconds > limits.max_seconds:
        return f"too long: {seconds:.2f} s (at most {limits.max_seconds:g} s)"
    peak, rms = float(np.abs(waveform).max()), float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))
    if peak < limits.min_peak or rms < limits.min_rms:
        return f"silent: peak {peak:.4f}, RMS {rms:.5f}"
    return clipping(waveform, limits)


def clipping(waveform: np.ndarray, limits: ClipLimits) -> str:
    """Return a reason where more than `max_clipped_share` of [S] stands in runs at full scale, else an empty text."""
    share = clipped_share(waveform, limits)
    return f"clipped: {share:.2%} of the samples stand at full scale" if share > limits.max_clipped_share else ""


def clipped_share(waveform: np.ndarray, limits: ClipLimits) -> float:
    """Return the share of samples that belong to runs of at least `clipped_run` samples at full scale."""
    full = np.concatenate([[False], np.abs(waveform) >= limits.full_scale, [False]]).astype(np.int8)
    edges = np.flatnonzero(np.diff(full))
    runs = edges[1::2] - edges[::2]
    return float(runs[runs >= limits.clipped_run].sum()) / max(1, len(waveform))
