"""The errors a user can meet: each names what failed, why, and what to do about it."""

from __future__ import annotations


class FlowTTSError(Exception):
    """A failure caused by input, files or settings; the command line prints it without a traceback.

    Args:
        message: what failed (file, row or field first) and why.
        remedy: what the user can do about it; printed on a line of its own.
    """

    exit_code = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message if not remedy else f"{message}\n  remedy: {remedy}")
        self.message = message
        self.remedy = remedy

    @property
    def reason(self) -> str:
        """What a row or a result notes of this failure, in one line."""
        return self.message

    def __reduce__(self) -> tuple[type[FlowTTSError], tuple[str, str]]:
        return type(self), (self.message, self.remedy)  # Ray carries errors between processes by pickle


class ConfigError(FlowTTSError):
    """A setting is unknown, missing or out of range."""

    exit_code = 2


class DivergedError(FlowTTSError):
    """A training's numbers are no longer finite; to start it again from the same checkpoint would end alike."""


class AudioError(FlowTTSError):
    """An audio file or waveform cannot be used."""


class TextError(FlowTTSError):
    """A text, book or table cannot be read or spoken."""


class VoiceError(FlowTTSError):
    """A voice folder is missing a part, is damaged, or its parts do not fit together."""


class OutputError(FlowTTSError):
    """The output place cannot be written or holds something else."""


class DependencyError(FlowTTSError):
    """An optional package or program is missing; the remedy is the line that installs it."""

    @property
    def reason(self) -> str:
        return f"{self.message}: {self.remedy}" if self.remedy else self.message
