"""Log-mel spectrograms: their definition, and the layer that makes them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor, nn

from flowtts_core.audio.spec import AudioSpec
from flowtts_core.errors import ConfigError


@dataclass(frozen=True)
class MelConfig(AudioSpec):
    """The definition of a log-mel; the default is HiFi-GAN's and Matcha-TTS's (22.05 kHz, 80 Slaney bands to 8 kHz).

    Attributes:
        power: exponent of the magnitude (1 amplitude, 2 power).
        padding: "same" reflects `(n_fft - hop_length) / 2` samples at both ends: S samples give `S // hop_length` frames;
            "center" reflects `n_fft / 2` and gives one frame more, as `torch.stft(center=True)`.
        magnitude_eps: added to the power under the square root (HiFi-GAN: 1e-9).
        log_floor: mel values are clamped to it before the logarithm (HiFi-GAN and F5-TTS 1e-5, Vocos 1e-7).
        mel_scale, mel_norm: "slaney" or "htk"; "slaney" or None (area normalisation).
        pitch: a row of pitch follows the bands, for vocoders that build on it; see `audio/pitch.py`.
    """

    n_fft: int = 1024
    win_length: int = 1024
    n_mels: int = 80
    f_min: float = 0.0
    f_max: float | None = 8000.0
    power: float = 1.0
    magnitude_eps: float = 1e-9
    log_floor: float = 1e-5
    mel_scale: str = "slaney"
    mel_norm: str | None = "slaney"
    pitch: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_mels < 1 or self.sample_rate < 1:
            raise ConfigError(f"MelConfig: n_mels {self.n_mels}, sample_rate {self.sample_rate}", "use 1 or more")
        if not 0 <= self.f_min < (self.f_max or self.sample_rate / 2):
            raise ConfigError(
                f"MelConfig: f_min {self.f_min}, f_max {self.f_max}",
                "they must satisfy 0 <= f_min < f_max; without f_max it is half the sample rate",
            )
        if self.power <= 0 or self.magnitude_eps < 0 or self.log_floor <= 0:
            raise ConfigError(
                f"MelConfig: power {self.power}, magnitude_eps {self.magnitude_eps}, log_floor {self.log_floor}",
                "power and log_floor must be above 0, magnitude_eps 0 or more",
            )
        if self.mel_scale not in ("slaney", "htk") or self.mel_norm not in ("slaney", None):
            raise ConfigError(
                f"MelConfig: mel_scale {self.mel_scale!r}, mel_norm {self.mel_norm!r}",
                "use 'slaney' or 'htk'; 'slaney' or null",
            )
        if not 0 < self.hop_length <= self.win_length <= self.n_fft:
            raise ConfigError(
                f"MelConfig: hop_length {self.hop_length}, win_length {self.win_length}, n_fft {self.n_fft}",
                "they must satisfy 0 < hop_length <= win_length <= n_fft",
            )

    @property
    def rows(self) -> int:
        """Return the numbers that make a frame: the bands, and pitch where it is asked for."""
        return self.n_mels + self.pitch

    @property
    def said(self) -> str:
        """Return the definition in words."""
        top = self.sample_rate / 2 if self.f_max is None else self.f_max
        power = {1.0: "amplitudes", 2.0: "powers"}.get(self.power, f"magnitudes to the power of {self.power:g}")
        window = "" if self.win_length == self.n_fft else f" with a window of {self.win_length}"
        norm = "area-normalised" if self.mel_norm else "not normalised"
        return (
            f"{self.n_mels} bands ({self.mel_scale} scale, {norm}) from {self.f_min:g} to {top:g} Hz"
            f"{' and a row of pitch' if self.pitch else ''}, at {self.sample_rate} Hz, n_fft {self.n_fft}{window},"
            f" hop {self.hop_length}, {self.padding!r} padding; natural logarithm of {power}, at least {self.log_floor:g}"
        )

    def as_read_by(self, reader: MelConfig) -> MelConfig:
        """Return this mel with the floor of what reads it, where that is the lower one.

        A vocoder of mels that go down to 1e-7 reads those that end at 1e-5: they are mels of its kind without the quietest
        parts. F5-TTS's are read so.
        """
        return replace(self, log_floor=min(self.log_floor, reader.log_floor))


BIGVGAN_24K = MelConfig(24000, n_mels=100, f_max=None)
"""F5-TTS's mel for BigVGAN: HiFi-GAN's definition at 24 kHz with 100 bands."""
VOCOS_24K = replace(BIGVGAN_24K, padding="center", magnitude_eps=0.0, log_floor=1e-7, mel_scale="htk", mel_norm=None)
"""The mel of Vocos's and ZipVoice's published 24 kHz models."""
F5_24K = replace(VOCOS_24K, log_floor=1e-5)
"""F5-TTS's mel for Vocos: as Vocos's but for the floor."""
MELS = {"hifigan": MelConfig(), "vocos": VOCOS_24K, "f5": F5_24K, "bigvgan": BIGVGAN_24K}
"""By the names of what reads them."""
WAVEFM_24K = replace(F5_24K, power=2.0)
"""The mel of WaveFM's published models: F5-TTS's, of powers."""


@lru_cache(maxsize=16)
def mel_filter_bank(config: MelConfig) -> Tensor:
    """Triangular mel filters [n_fft // 2 + 1, n_mels] (torchaudio's, equal to librosa's for the Slaney scale)."""
    from flowtts_core.audio.torchaudio_import import torchaudio

    f_max = config.sample_rate / 2 if config.f_max is None else config.f_max
    bank: Tensor = torchaudio.functional.melscale_fbanks(
        config.n_fft // 2 + 1, config.f_min, f_max, config.n_mels, config.sample_rate, config.mel_norm, config.mel_scale
    )
    return bank


class LogMel(nn.Module):
    """Waveform [B, S] in [-1, 1] to log-mel [B, rows, T] (natural logarithm); T is `config.frames_of(S)`.

    Gradients flow through the bands, not through a row of pitch.
    """

    def __init__(self, config: MelConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("window", torch.hann_window(config.win_length), persistent=False)
        self.register_buffer("bank", mel_filter_bank(config), persistent=False)
        self.window: Tensor
        self.bank: Tensor

    def forward(self, waveform: Tensor) -> Tensor:
        c = self.config
        frames = c.frames_of(waveform.shape[-1])
        both = c.n_fft - (c.hop_length if c.padding == "same" else 0)
        left, right = both // 2, both - both // 2
        if waveform.shape[-1] <= right:  # reflection needs more samples than it reflects
            waveform = nn.functional.pad(waveform, (0, right + 1 - waveform.shape[-1]))
        padded = nn.functional.pad(waveform.unsqueeze(1), (left, right), mode="reflect").squeeze(1)
        spectrum = torch.stft(
            padded, c.n_fft, c.hop_length, c.win_length, self.window, center=False, return_complex=True
        )
        spectrum = spectrum[..., :frames]  # the silence that a short clip was filled up with has frames too
        magnitude = (spectrum.real.square() + spectrum.imag.square() + c.magnitude_eps).sqrt()  # [B, F, T]
        if c.power != 1.0:
            magnitude = magnitude.pow(c.power)
        mel = torch.matmul(self.bank.T, magnitude).clamp(min=c.log_floor).log()
        if not c.pitch:
            return mel
        from flowtts_core.audio.pitch import pitch_rows

        return torch.cat([mel, pitch_rows(waveform.detach(), c, frames)], 1)
