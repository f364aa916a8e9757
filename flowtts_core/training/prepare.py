"""One clip and its text to one training example, or the reason why it cannot be one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flowtts_core.audio.files import read_audio, resample
from flowtts_core.audio.mel import LogMel, MelConfig
from flowtts_core.errors import AudioError, ConfigError, TextError
from flowtts_core.text.frontends import PhonemeConfig, PhonemeFrontend
from flowtts_core.training.examples import example_row


@dataclass(frozen=True)
class Limits:
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
    """Everything that decides what becomes of a clip; `resample` brings other sample rates to the mel's."""

    mel: MelConfig = field(default_factory=MelConfig)
    frontend: PhonemeConfig = field(default_factory=PhonemeConfig)
    limits: Limits = field(default_factory=Limits)
    resample: bool = False


class ClipPreparer:
    """`prepare(...)` gives a row of `SCHEMA`, or a sentence that says why there is none.

    Raises:
        ConfigError, DependencyError: for a front end that cannot be built.
    """

    def __init__(self, config: PrepareConfig) -> None:
        self.config = config
        self._frontend = PhonemeFrontend(config.frontend)
        self._log_mel = LogMel(config.mel)

    def prepare(self, key: str, text: str, audio: bytes | str | Path, speaker: str = "") -> dict[str, Any] | str:
        """Decode, check, and turn into tokens, mel and audio; the audio is cut to whole frames.

        Args:
            key: the clip's id.
            audio: a path, or the bytes of an audio file.
        """
        mel_config, limits = self.config.mel, self.config.limits
        if not text.strip():
            return "empty text"
        try:
            waveform, rate = read_audio(audio)
        except AudioError as error:
            return f"unreadable audio: {error.message}"
        if rate != mel_config.sample_rate:
            if not self.config.resample:
                return f"sample rate {rate} Hz instead of {mel_config.sample_rate} Hz (--resample converts it)"
            clipped = clipping(waveform, limits)  # the filter would smear it until nothing reached full scale
            if clipped:
                return clipped
            waveform = resample(waveform, rate, mel_config.sample_rate)
        waveform = waveform[: len(waveform) // mel_config.hop_length * mel_config.hop_length]
        unfit = unfit_waveform(waveform, mel_config.sample_rate, limits)
        if unfit:
            return unfit
        try:
            tokens = self._frontend.encode(text).tokens
        except TextError as error:
            return error.message
        frames = mel_config.frames_of(len(waveform))
        if len(tokens) > frames:
            return f"{len(tokens)} tokens in {frames} frames: more sounds than the clip has room for"
        with torch.inference_mode():
            mel = self._log_mel(torch.from_numpy(np.ascontiguousarray(waveform))[None])[0].numpy()
        return example_row(key, text, tokens, mel, waveform, mel_config.sample_rate, speaker)


def unfit_waveform(waveform: np.ndarray, sample_rate: int, limits: Limits) -> str:
    """Why [S] cannot be trained on (length, silence, clipping); empty where it can."""
    seconds = len(waveform) / sample_rate
    if seconds < limits.min_seconds:
        return f"too short: {seconds:.2f} s (at least {limits.min_seconds:g} s)"
    if seconds > limits.max_seconds:
        return f"too long: {seconds:.2f} s (at most {limits.max_seconds:g} s)"
    peak, rms = float(np.abs(waveform).max()), float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))
    if peak < limits.min_peak or rms < limits.min_rms:
        return f"silent: peak {peak:.4f}, RMS {rms:.5f}"
    return clipping(waveform, limits)


def clipping(waveform: np.ndarray, limits: Limits) -> str:
    """Says so where more than `max_clipped_share` of [S] stands in runs at full scale; empty otherwise."""
    share = clipped_share(waveform, limits)
    return f"clipped: {share:.2%} of the samples stand at full scale" if share > limits.max_clipped_share else ""


def clipped_share(waveform: np.ndarray, limits: Limits) -> float:
    """Share of samples that belong to runs of at least `clipped_run` samples at full scale."""
    full = np.concatenate([[False], np.abs(waveform) >= limits.full_scale, [False]]).astype(np.int8)
    edges = np.flatnonzero(np.diff(full))
    runs = edges[1::2] - edges[::2]
    return float(runs[runs >= limits.clipped_run].sum()) / max(1, len(waveform))
