"""One clip of a corpus to the audio that is kept of it, or the reason why it cannot be trained on."""

from __future__ import annotations

import hashlib
import io
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flowtts_core.audio.cleaning import sound_bounds, without_offset
from flowtts_core.audio.files import read_audio, resample
from flowtts_core.audio.loudness import amplify, gain_to, loudness_of
from flowtts_core.audio.mel import MelConfig
from flowtts_core.config import to_dict
from flowtts_core.errors import AudioError, ConfigError

LANGUAGE_CHECKS = ("detect", "marked", "any")
_UNHEARD_LUFS = -99.0  # stands for the -inf of silence, which JSON lacks


@dataclass(frozen=True)
class ClipLimits:
    """What a clip must keep to be trained on.

    Attributes:
        min_seconds, max_seconds: duration; a long clip costs memory quadratically in attention.
        min_peak, min_rms: a clip below either is taken for silence (0.01 is -40 dBFS, 0.001 is -60 dBFS).
        full_scale: absolute sample value from which a sample may be a clipped one.
        clipped_run: so many samples in a row at full scale are clipping; fewer are peaks that just fit.
        max_clipped_share: share of clipped samples that is still accepted.
        min_chars_per_s, max_chars_per_s: letters and digits of the text by second of the cleaned clip, whatever the language:
            Chinese is read with 3 to 6, English with 10 to 20.
        rate_spread: a clip's rate may differ from the corpus's median by so many times the usual spread of rates, and always by
            a factor of two; 0 accepts all that `min_chars_per_s` and `max_chars_per_s` accept.
        language: "detect" sets aside texts that are clearly in another language than the front end's, "marked" only rows whose
            own `language` is another, "any" none.
    """

    min_seconds: float = 0.3
    max_seconds: float = 20.0
    min_peak: float = 0.01
    min_rms: float = 0.001
    full_scale: float = 0.999
    clipped_run: int = 3
    max_clipped_share: float = 0.0005
    min_chars_per_s: float = 1.0
    max_chars_per_s: float = 40.0
    rate_spread: float = 6.0
    language: str = "detect"

    def __post_init__(self) -> None:
        if not 0 <= self.min_seconds < self.max_seconds:
            raise ConfigError(
                f"min_seconds {self.min_seconds}, max_seconds {self.max_seconds}", "they must satisfy 0 <= min < max"
            )
        if self.clipped_run < 1:
            raise ConfigError(f"clipped_run = {self.clipped_run}", "use 1 or more")
        if not 0 <= self.min_chars_per_s < self.max_chars_per_s:
            raise ConfigError(
                f"min_chars_per_s {self.min_chars_per_s}, max_chars_per_s {self.max_chars_per_s}",
                "they must satisfy 0 <= min < max",
            )
        if self.rate_spread < 0:
            raise ConfigError(f"rate_spread = {self.rate_spread}", "use 0 or more")
        if self.language not in LANGUAGE_CHECKS:
            raise ConfigError(f"limits.language = {self.language!r}", f"use one of: {', '.join(LANGUAGE_CHECKS)}")


@dataclass(frozen=True)
class Cleaning:
    """What is changed in a clip that is kept.

    Attributes:
        offset: remove a constant offset (DC).
        trim: cut silence off both ends, but for `keep_s` seconds.
        loudness: bring the clip to `lufs` by one gain; peaks are held under -1 dBFS.
    """

    offset: bool = True
    trim: bool = True
    keep_s: float = 0.15
    loudness: bool = True
    lufs: float = -23.0

    def __post_init__(self) -> None:
        if self.keep_s < 0:
            raise ConfigError(f"cleaning.keep_s = {self.keep_s}", "use 0 or more seconds")
        if not -50 <= self.lufs <= -10:
            raise ConfigError(f"cleaning.lufs = {self.lufs}", "use -50 to -10; speech is often at -23")


AS_RECORDED = Cleaning(offset=False, trim=False, loudness=False)


@dataclass(frozen=True)
class PrepareConfig:
    """Everything that decides what becomes of a clip.

    Attributes:
        mel: of the features; its sample rate is also that of the audio.
        frontend: spec of the front end that makes the tokens.
        resample: bring other sample rates to the mel's, instead of setting the clip aside.
        cleaning: what is changed in the audio.
        whisper, tokeniser: folders of a Whisper whose features are made too, and of a tokeniser that makes speech tokens of
            them instead; "" for neither.
    """

    mel: MelConfig = field(default_factory=MelConfig)
    frontend: dict[str, Any] = field(default_factory=lambda: {"name": "phonemes"})
    limits: ClipLimits = field(default_factory=ClipLimits)
    resample: bool = False
    cleaning: Cleaning = field(default_factory=Cleaning)
    whisper: str = ""
    tokeniser: str = ""

    @property
    def of_audio(self) -> dict[str, Any]:
        """Return the settings, as JSON, that decide about the audio that is kept; the rest decides about features alone."""
        return {
            "sample_rate": self.mel.sample_rate,
            "limits": to_dict(self.limits),
            "resample": self.resample,
            "cleaning": to_dict(self.cleaning),
        }


@dataclass(frozen=True)
class CleanClip:
    """A clip as it is kept, and what it was like before.

    Attributes:
        waveform: [S] float32 at the mel's sample rate.
        sound: a hash of the samples as they were read; the same recording has the same.
        lufs: loudness before it was changed.
        trimmed_s: seconds of silence that were cut off.
        offset: the mean of the samples before it was removed.
    """

    waveform: np.ndarray
    sound: str
    lufs: float
    trimmed_s: float
    offset: float


def prepare_audio(audio: bytes | str | Path, config: PrepareConfig) -> CleanClip | str:
    """Decode a clip, from a path or an audio file's bytes, check it and clean it.

    Returns:
        The clip, or a sentence that says why it cannot be trained on.
    """
    wanted, limits = config.mel.sample_rate, config.limits
    try:
        waveform, rate = read_audio(audio)
    except AudioError as error:
        return f"unreadable audio: {error.message}"
    sound = hashlib.blake2b(waveform.tobytes(), digest_size=8).hexdigest()
    if rate != wanted:
        if not config.resample:
            return f"sample rate {rate} Hz instead of {wanted} Hz (--resample converts it)"
        clipped = clipping(waveform, limits)  # the filter would smear it until nothing reached full scale
        if clipped:
            return clipped
        waveform = resample(waveform, rate, wanted)
    return clipping(waveform, limits) or _cleaned(waveform, sound, config)


def _cleaned(waveform: np.ndarray, sound: str, config: PrepareConfig) -> CleanClip | str:
    rate, how = config.mel.sample_rate, config.cleaning
    whole = len(waveform)
    if how.trim:
        start, end = sound_bounds(waveform, rate, how.keep_s)
        waveform = waveform[start:end]
    offset = float(waveform.mean(dtype=np.float64))
    if how.offset:
        waveform = without_offset(waveform)
    problem = unfit_waveform(waveform, rate, config.limits)  # before the gain, which would hide that it is silent
    if problem:
        return problem
    lufs = loudness_of(waveform, rate)
    if how.loudness:
        waveform = amplify(waveform, gain_to(how.lufs, lufs), rate)
    heard = round(lufs, 2) if math.isfinite(lufs) else _UNHEARD_LUFS
    return CleanClip(waveform, sound, heard, round((whole - len(waveform)) / rate, 3), round(offset, 5))


def flac_of(waveform: np.ndarray, sample_rate: int) -> bytes:
    """Return a waveform [S] as FLAC of 16 bits."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, waveform, sample_rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def unfit_waveform(waveform: np.ndarray, sample_rate: int, limits: ClipLimits) -> str:
    """Return why [S] cannot be trained on (length, silence); empty where it can."""
    seconds = len(waveform) / sample_rate
    if seconds < limits.min_seconds:
        return f"too short: {seconds:.2f} s (at least {limits.min_seconds:g} s)"
    if seconds > limits.max_seconds:
        return f"too long: {seconds:.2f} s (at most {limits.max_seconds:g} s)"
    peak, rms = float(np.abs(waveform).max()), float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))
    if peak < limits.min_peak or rms < limits.min_rms:
        return f"silent: peak {peak:.4f}, RMS {rms:.5f}"
    return ""


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
