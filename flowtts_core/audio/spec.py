"""How features lie on a waveform: sample rate and hop, and the only arithmetic between frames and samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from flowtts_core.config import fingerprint
from flowtts_core.errors import ConfigError


@dataclass(frozen=True)
class AudioSpec:
    """Features of one frame every `hop_length` samples.

    Attributes:
        padding: "same": S samples give `S // hop_length` frames; "center": one frame more, as `torch.stft(center=True)`.
    """

    sample_rate: int = 22050
    hop_length: int = 256
    padding: str = "same"

    def __post_init__(self) -> None:
        if self.padding not in ("same", "center"):
            raise ConfigError(f"{type(self).__name__}.padding = {self.padding!r}", "use 'same' or 'center'")

    @property
    def fingerprint(self) -> str:
        """Equal features have equal fingerprints."""
        return fingerprint(self)

    def frames_of(self, samples: int) -> int:
        """Return the number of frames of a waveform of `samples` samples."""
        return samples // self.hop_length + (1 if self.padding == "center" else 0)

    def samples_of(self, frames: int) -> int:
        """Return the number of samples that a vocoder makes of `frames` frames."""
        return max(0, frames - (1 if self.padding == "center" else 0)) * self.hop_length

    def seconds_of(self, frames: float) -> float:
        """Return the duration of `frames` frames (which may be a fraction)."""
        return frames * self.hop_length / self.sample_rate

    def require(self, other: Self, who: str) -> None:
        """Raise unless `other` is this very specification.

        Raises:
            ConfigError: naming the fields that differ.
        """
        mine, theirs = vars(self), vars(other)
        differing = [
            f"{name} {mine.get(name)!r} against {theirs.get(name)!r}"
            for name in sorted({*mine, *theirs})
            if mine.get(name) != theirs.get(name)
        ]
        if differing:
            raise ConfigError(
                f"{who}: the features differ ({'; '.join(differing)})", "use parts made for the same ones"
            )
