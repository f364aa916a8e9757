"""Mono audio in files and bytes: WAV, FLAC, MP3, Ogg Vorbis and Opus by libsndfile, AAC by FFmpeg; resampling."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import soundfile

from flowtts_core.errors import AudioError
from flowtts_core.files import write_whole

FORMATS = {  # suffix -> libsndfile's container and encoding
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
}
_SYSTEM_ERROR = 2  # libsndfile's SF_ERR_SYSTEM
_UNKNOWN = (1 << 63) - 1  # frames by a header that does not tell, as of FLAC that was written to a pipe
_MOST_PER_S = 8 * 48_000  # samples of all channels, where the length of what is read is bounded
OPUS_RATES = (8000, 12000, 16000, 24000, 48000)

_UNREADABLE = "give a recording (WAV, FLAC, MP3, Ogg, Opus or M4A): one in another format, converted; or leave it out"


def read_audio(
    source: str | Path | bytes, sample_rate: int | None = None, *, longest_s: float | None = None
) -> tuple[np.ndarray, int]:
    """Read a file (or its bytes) as mono, mixing channels by their mean.

    Args:
        sample_rate: resample to it; None keeps the file's own.
        longest_s: refuse what lasts longer, in memory bounded by it; a few MB of FLAC can hold days of silence.

    Returns:
        The waveform [S] float32 in [-1, 1], and its sample rate.

    Raises:
        AudioError: when it cannot be read, holds no samples or lasts too long.
    """
    name = name_of(source)
    with as_audio_errors(name):
        waveform, rate = _decode(source, name, longest_s)
    if len(waveform) == 0:
        raise AudioError(f"{name}: holds no samples", "leave it out")
    require_finite(waveform, name)
    if sample_rate is not None and rate != sample_rate:
        return resample(waveform, rate, sample_rate), sample_rate
    return waveform, rate


def read_channels(
    source: str | Path | bytes, channels: int, sample_rate: int, *, longest_s: float | None = None
) -> np.ndarray:
    """Read a file (or its bytes) as [C, S] float32 at a sample rate; of another number of channels, each is their mean.

    Raises:
        AudioError: as `read_audio`, and for formats that libsndfile does not read, unless one channel is asked for.
    """
    if channels == 1:
        return read_audio(source, sample_rate, longest_s=longest_s)[0][None]
    name = name_of(source)
    if isinstance(source, bytes) or Path(source).is_file():
        require_bytes(source)
    try:
        with soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else name) as file:
            _require_short(file, name, longest_s)
            samples, rate = file.read(dtype="float32", always_2d=True).T, int(file.samplerate)
    except (soundfile.SoundFileError, OSError) as error:
        raise AudioError(f"{name}: not readable as audio ({_reason(error)})", _UNREADABLE) from error
    if not samples.size or not np.isfinite(samples).all():
        raise AudioError(f"{name}: holds no samples, or some that are not numbers", "write it again or leave it out")
    each = samples if len(samples) == channels else np.repeat(samples.mean(0)[None], channels, 0)
    return np.stack([resample(np.ascontiguousarray(channel), rate, sample_rate) for channel in each])


def write_audio(path: str | Path, waveform: np.ndarray, sample_rate: int) -> None:
    """Write [S] float in [-1, 1] in the format of the path's suffix (16 bit where the format has samples).

    Several channels are [S, C].

    The write is atomic: after an error an existing file is unchanged. A folder that is absent is made.

    Raises:
        AudioError: for a suffix that is not one of .wav .flac .mp3 .ogg .opus.
    """
    path = Path(path)
    data = encode(waveform, sample_rate, path.suffix)
    if path.exists() and not path.is_file():  # a device or pipe, as /dev/stdout, cannot be replaced
        path.write_bytes(data)
        return
    write_whole(path, data, durable=False)


def require_known(suffix: str) -> None:
    """Raise AudioError for a suffix that cannot be written."""
    if suffix.lower() not in FORMATS:
        raise AudioError(f"cannot write {suffix or 'a file without suffix'}", f"use one of {' '.join(FORMATS)}")


def encode(waveform: np.ndarray, sample_rate: int, suffix: str = ".flac") -> bytes:
    """Encode as a file with this suffix. The same waveform gives the same bytes for WAV, FLAC and MP3.

    Ogg streams have a random serial number, as their standard asks. For Opus the sound is resampled to a rate it supports.
    """
    require_known(suffix)
    container, subtype = FORMATS[suffix.lower()]
    if subtype == "OPUS" and sample_rate not in OPUS_RATES:
        rate = opus_rate(sample_rate)
        waveform, sample_rate = resample(waveform, sample_rate, rate), rate
    buffer = io.BytesIO()
    channels = 1 if waveform.ndim == 1 else waveform.shape[1]
    with as_unwritable(suffix, sample_rate, channels):
        soundfile.write(buffer, samples_as(waveform, subtype), sample_rate, format=container, subtype=subtype)
    return buffer.getvalue()


def samples_as(waveform: np.ndarray, subtype: str) -> np.ndarray:
    return to_int16(waveform) if subtype == "PCM_16" else np.clip(waveform, -1, 1).astype(np.float32)


@contextmanager
def as_unwritable(suffix: str, sample_rate: int, channels: int) -> Iterator[None]:
    """Say what a format does not take, where libsndfile says no more than that; what the disk does not is an OSError."""
    try:
        yield
    except soundfile.LibsndfileError as error:
        if error.code == _SYSTEM_ERROR:
            raise OSError(_reason(error)) from error
        raise AudioError(
            f"cannot write {suffix} of {channels} channel(s) at {sample_rate} Hz: {_reason(error)}",
            "write .wav or .flac, or convert the sound to one channel at 48 kHz or less",
        ) from error


def to_int16(waveform: np.ndarray) -> np.ndarray:
    """Round [-1, 1] to 16 bit, with clipping. It inverts reading to within half a step."""
    return np.clip(np.rint(waveform.astype(np.float64) * 32768), -32768, 32767).astype(np.int16)


def opus_rate(sample_rate: int) -> int:
    """Return the smallest rate of Opus that is at least this rate, or its largest."""
    return min((rate for rate in OPUS_RATES if rate >= sample_rate), default=OPUS_RATES[-1])


def resample(waveform: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Resample [S] by the SoX resampler (high quality); the length becomes about `S * to_rate / from_rate`."""
    if from_rate == to_rate:
        return waveform
    import soxr

    return np.asarray(soxr.resample(waveform.astype(np.float32), from_rate, to_rate), dtype=np.float32)


def require_seconds(source: IO[bytes], name: str, longest_s: float) -> None:
    """Raise AudioError when the header of a file says that it lasts longer; nothing is decoded.

    Formats that libsndfile does not read pass here.
    """
    try:
        with soundfile.SoundFile(source) as file:
            _require_short(file, name, longest_s)
    except soundfile.LibsndfileError:
        return


def _require_short(file: soundfile.SoundFile, name: str, longest_s: float | None) -> None:
    if longest_s is not None and file.frames < _UNKNOWN:
        require_at_most(file.frames / file.samplerate, name, longest_s)
        if file.frames * file.channels > longest_s * _MOST_PER_S:
            raise AudioError(
                f"{name}: {file.channels} channels at {file.samplerate} Hz are too many samples to read at once",
                "convert it to one channel at 48 kHz or less",
            )


def require_at_most(seconds: float, name: str, longest_s: float | None) -> None:
    if longest_s is not None and seconds > longest_s:
        raise AudioError(
            f"{name}: lasts more than {longest_s / 60:g} minutes, the longest that is read", "cut it into shorter clips"
        )


def _reason(error: Exception) -> str:
    """Return what is wrong; libsndfile's message names where bytes lie in memory, which differs from run to run."""
    return str(error.error_string if isinstance(error, soundfile.LibsndfileError) else error)


def _decode(source: str | Path | bytes, name: str, longest_s: float | None) -> tuple[np.ndarray, int]:
    """Decode by libsndfile; by FFmpeg what it does not support (M4A, M4B, AAC) or cannot tell the length of."""
    sound = by_libsndfile(source)
    if sound is None:
        return _decode_by_ffmpeg(openable(source), name, longest_s)
    with sound:
        _require_short(sound, name, longest_s)
        samples = sound.read(dtype="float32", always_2d=True)  # at once: MP3 in pieces has other samples
        return (samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)), int(sound.samplerate)


def by_libsndfile(source: str | Path | bytes) -> soundfile.SoundFile | None:
    """Open by libsndfile; None for what it does not support, or cannot tell the length of, and FFmpeg does."""
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise FileNotFoundError(source)
    require_bytes(source)
    try:
        sound = soundfile.SoundFile(openable(source))
    except soundfile.LibsndfileError:
        head = source[:12] if isinstance(source, bytes) else _head(source)
        if head[4:8] != b"ftyp" and head[:2] not in (b"\xff\xf1", b"\xff\xf9"):
            raise
        return None
    if sound.frames < _UNKNOWN:
        return sound
    sound.close()
    return None


@contextmanager
def as_audio_errors(name: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise AudioError(f"{name}: no such file", "check the path") from None
    except PermissionError:
        raise AudioError(f"{name}: may not be read", "ask for the right to read it, or leave it out") from None
    except (soundfile.SoundFileError, OSError, ValueError, IndexError) as error:
        raise AudioError(f"{name}: not readable as audio ({_reason(error)})", _UNREADABLE) from error


def require_finite(samples: np.ndarray, name: str) -> None:
    if not np.isfinite(samples).all():
        raise AudioError(f"{name}: holds samples that are not numbers", "write it again or leave it out")


def require_bytes(source: str | Path | bytes) -> None:
    """Raise AudioError for an empty file, of which libsndfile says that it is not there."""
    if (len(source) if isinstance(source, bytes) else Path(source).stat().st_size) == 0:
        raise AudioError(f"{name_of(source)}: holds no bytes", "give the recording itself, or leave it out")


def name_of(source: str | Path | bytes) -> str:
    return "these bytes" if isinstance(source, bytes) else str(source)


def openable(source: str | Path | bytes) -> io.BytesIO | str:
    return io.BytesIO(source) if isinstance(source, bytes) else str(source)


def _head(path: str | Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(12)


def _decode_by_ffmpeg(file: io.BytesIO | str, name: str, longest_s: float | None) -> tuple[np.ndarray, int]:
    pieces, rate = [np.zeros(0, np.float32)], 0
    for samples, rate in frames_by_ffmpeg(file, name, longest_s, layout="mono"):  # noqa: B007 - the last rate is returned
        pieces.append(samples[:, 0])
    return np.concatenate(pieces), rate


def frames_by_ffmpeg(
    file: io.BytesIO | str, name: str, longest_s: float | None, layout: str | None = None
) -> Iterator[tuple[np.ndarray, int]]:
    """Yield what FFmpeg decodes at once, [S, C], mixed to a layout, and the sample rate."""
    import av

    with av.open(file, "r") as container:
        stream = container.streams.audio[0]
        resampler: Any = av.AudioResampler(format="flt", layout=layout or stream.layout, rate=stream.rate)
        require_at_most((container.duration or 0) / av.time_base, name, longest_s)
        read = 0
        for frame in container.decode(stream):
            for out in resampler.resample(frame):
                yield out.to_ndarray()[0].reshape(out.samples, -1), int(stream.rate)
            read += frame.samples
            require_at_most(read / stream.rate, name, longest_s)
        for out in resampler.resample(None):
            yield out.to_ndarray()[0].reshape(out.samples, -1), int(stream.rate)
