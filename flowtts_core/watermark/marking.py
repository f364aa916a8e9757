"""The mark that speech gets as it is made: which number, by whose key; whole, or chunk by chunk as it is streamed."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flowtts_core.errors import ConfigError
from flowtts_core.watermark.card import bundled_mark, read_card
from flowtts_core.watermark.depth import HELD
from flowtts_core.watermark.marker import Marker, MarkStream
from flowtts_core.watermark.message import encoded

if TYPE_CHECKING:
    from flowtts_core.engines.base import Speech
    from flowtts_core.streaming.ticket import Chunk

KEY_VARIABLE = "FLOWTTS_WATERMARK_KEY"
LEAST_KEY = 16  # bytes
_MAKE_KEY = f"give {LEAST_KEY} or more: head -c 32 /dev/urandom > key"
REACH_S = (
    HELD / 100 + 0.1
)  # a marked sample depends on nothing further away; a stream that begins in the middle begins earlier
_PASSED_OVER = 1 << 18  # samples of silence that are fed at once in place of samples that are not made


@dataclass(frozen=True)
class Marking:
    """What is put into all that a command, a job or a server speaks.

    Marking is arithmetic on the sound alone: the same speech gets the same mark, whenever and wherever it is made.

    Attributes:
        number: the message, from 0 to 2047.
        key: secret bytes, without which the mark can be neither found nor made; empty for the mark that all can look for.
            It is in no text of this object.
    """

    number: int = 0
    key: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        encoded(self.number)
        _require_long(self.key, "the key of the watermark")

    @property
    def identity(self) -> dict[str, Any]:
        """What tells this mark from others, as JSON values: which mark, the number, and of the key a fingerprint."""
        spec = read_card(bundled_mark())["watermark"]
        known = {
            "mark": f"{spec['name']}, {spec['decibels']:g} to {spec['quiet_decibels']:g} dB",
            "number": self.number,
        }
        return {**known, "key": key_fingerprint(self.key)} if self.key else known

    def stream(self, sample_rate: int) -> MarkStream:
        """Return what marks one sound as it comes."""
        return _marker(self.key).stream(sample_rate, np.array(encoded(self.number)))

    def marked(self, waveform: np.ndarray, sample_rate: int) -> np.ndarray:
        """Return a waveform [S] marked, [S] float32."""
        stream = self.stream(sample_rate)
        return np.concatenate([stream.feed(waveform), stream.finish()])

    def speech(self, speech: Speech) -> Speech:
        """Return speech marked. One without sound stays as it is: whoever stores it says what is wrong with it."""
        if speech.waveform.ndim != 1 or not len(speech.waveform):
            return speech
        return replace(speech, waveform=self.marked(speech.waveform, speech.sample_rate), flac=b"")


class MarkedChunks:
    """Marks the chunks of one answer as they come; joined, they equal what the whole would give.

    Args:
        skip: samples that the listener has already, from a stream that broke off.

    Attributes:
        skip: of these, how many the stream need not make: the first samples after them depend on those before.
    """

    def __init__(self, marking: Marking, sample_rate: int, skip: int = 0) -> None:
        self._stream = marking.stream(sample_rate)
        self.skip = max(0, skip - round(REACH_S * sample_rate))
        self._waiting: Chunk | None = None  # told, but too short for any sound to be final

    def add(self, chunk: Chunk) -> Chunk | None:
        """Return the chunk with the samples that are final now, some 10 ms behind; None where there are none yet.

        Its `skipped` samples are passed over as silence, so that the pattern of what follows is the same.
        """
        skipped = self._pass_over(chunk.skipped)
        made = [self._stream.feed(chunk.waveform), *([self._stream.finish()] if chunk.last else [])]
        chunk = replace(chunk, waveform=np.concatenate(made), skipped=skipped)
        if self._waiting is not None:
            chunk = _after(self._waiting, chunk)
        self._waiting = None if len(chunk.waveform) or chunk.last else chunk
        return None if self._waiting is not None else chunk

    def _pass_over(self, samples: int) -> int:
        passed = 0
        for begin in range(0, samples, _PASSED_OVER):
            silence = np.zeros(min(_PASSED_OVER, samples - begin), np.float32)
            passed += len(self._stream.feed(silence))
        return passed


def _after(waiting: Chunk, chunk: Chunk) -> Chunk:
    """Return a chunk with the words, and what was skipped, of one before it that had no samples."""
    untimed = waiting.words is None or chunk.words is None
    return replace(
        chunk,
        words=None if untimed else (*(waiting.words or ()), *(chunk.words or ())),
        skipped=waiting.skipped + chunk.skipped,
        skipped_words=waiting.skipped_words + chunk.skipped_words,
    )


def read_key(path: str | os.PathLike[str] | None, option: str = "--key") -> bytes:
    """Return the key in a file; without one that of the environment, and without that none.

    Args:
        option: that named the file, for messages.

    Raises:
        ConfigError: for a file that cannot be read, and a key that is too short.
    """
    if path is None:
        key = os.environ.get(KEY_VARIABLE, "").encode("utf-8", "surrogateescape").strip()
        _require_long(key, KEY_VARIABLE)
        return key
    try:
        key = Path(path).read_bytes().strip()
    except OSError as error:
        raise ConfigError(f"{option} {path}: {error.strerror or error}", "give a file of secret bytes") from error
    if not key:
        raise ConfigError(f"{option} {path}: is empty", _MAKE_KEY)
    _require_long(key, f"{option} {path}")
    return key


def key_fingerprint(key: bytes) -> str:
    """Return a name of a key, which tells it from others and gives nothing of it away."""
    return hashlib.sha256(b"flowtts watermark key\0" + key).hexdigest()[:16]


def _require_long(key: bytes, what: str) -> None:
    if 0 < len(key) < LEAST_KEY:
        raise ConfigError(
            f"{what}: {len(key)} bytes are too few to be secret",
            _MAKE_KEY,
        )


@lru_cache(maxsize=4)
def _marker(key: bytes) -> Marker:
    """The mark of the installation, by a key; without the net, which finds marks and is not needed to make them."""
    return Marker(None, read_card(bundled_mark()), key)
