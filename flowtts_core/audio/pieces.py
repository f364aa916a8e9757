"""Audio files piece by piece, for sounds that are longer than memory: read as they are, written in any format."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile

from flowtts_core.audio.files import (
    FORMATS,
    OPUS_RATES,
    as_audio_errors,
    as_unwritable,
    by_libsndfile,
    frames_by_ffmpeg,
    name_of,
    openable,
    opus_rate,
    require_at_most,
    require_finite,
    require_known,
    samples_as,
)
from flowtts_core.errors import AudioError
from flowtts_core.files import whole_file

_MOST = 1 << 25  # samples of all channels in a piece: 128 MB


def audio_pieces(
    source: str | Path | bytes, seconds: float, *, longest_s: float | None = None
) -> Iterator[tuple[np.ndarray, int]]:
    """Yield a file (or its bytes) as pieces [S, C] float32 of so many seconds at most, each with its sample rate.

    Memory is that of a piece, however long the file is, and however many channels it has.

    Raises:
        AudioError: as `read_audio`; what is wrong in the middle of a file is raised when it is reached.
    """
    name, empty = name_of(source), True
    with as_audio_errors(name):
        sound = by_libsndfile(source)
        made = (
            _pieces_by_ffmpeg(openable(source), seconds, name, longest_s)
            if sound is None
            else _pieces_by_libsndfile(sound, seconds, name, longest_s)
        )
        for samples, rate in made:
            require_finite(samples, name)
            empty = False
            yield samples, rate
    if empty:
        raise AudioError(f"{name}: holds no samples", "leave it out")


@contextmanager
def audio_writer(path: str | Path, sample_rate: int, channels: int) -> Iterator[Callable[[np.ndarray], None]]:
    """Give what writes pieces [S, C] in [-1, 1] into one file, in the format of its suffix; memory is that of a piece.

    As `write_audio`, it leaves an existing file unchanged after an error.

    Raises:
        AudioError: for a suffix that is not known, and for channels or a sample rate that the format does not have.
    """
    path = Path(path)
    require_known(path.suffix)
    container, subtype = FORMATS[path.suffix.lower()]
    resampled = None
    if subtype == "OPUS" and sample_rate not in OPUS_RATES:
        import soxr

        resampled = soxr.ResampleStream(sample_rate, opus_rate(sample_rate), channels, dtype="float32")
        sample_rate = opus_rate(sample_rate)
    with (
        _whole_or_device(path) as place,
        open(place, "wb"),  # which says why a file cannot be made
        as_unwritable(path.suffix, sample_rate, channels),
        soundfile.SoundFile(place, "w", sample_rate, channels, subtype, format=container) as file,
    ):

        def write(samples: np.ndarray, last: bool = False) -> None:
            if resampled is not None:
                samples = resampled.resample_chunk(np.asarray(samples, np.float32), last=last)
            file.write(samples_as(samples, subtype))

        yield write
        if resampled is not None:
            write(np.zeros((0, channels), np.float32), last=True)


def _pieces_by_libsndfile(
    sound: soundfile.SoundFile, seconds: float, name: str, longest_s: float | None
) -> Iterator[tuple[np.ndarray, int]]:
    with sound:
        if longest_s is not None:
            require_at_most(sound.frames / sound.samplerate, name, longest_s)
        rate = int(sound.samplerate)
        most = max(1, min(round(seconds * rate), _MOST // sound.channels))
        for samples in sound.blocks(most, dtype="float32", always_2d=True):
            yield samples, rate


def _pieces_by_ffmpeg(
    file: io.BytesIO | str, seconds: float, name: str, longest_s: float | None
) -> Iterator[tuple[np.ndarray, int]]:
    held: list[np.ndarray] = []
    waiting = rate = 0
    for samples, rate in frames_by_ffmpeg(file, name, longest_s):
        held.append(samples)
        waiting += len(samples)
        if waiting >= min(seconds * rate, _MOST // samples.shape[1]):
            yield np.concatenate(held), rate
            held, waiting = [], 0
    if held:
        yield np.concatenate(held), rate


@contextmanager
def _whole_or_device(path: Path) -> Iterator[Path]:
    """Give a place whose file becomes that of `path` when it is whole; a device, which cannot be replaced, gets a copy."""
    if not path.exists() or path.is_file():
        with whole_file(path, durable=False) as temporary:
            yield temporary
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / f"sound{path.suffix}"
        with open(Path(folder) / f"sound{path.suffix}", "rb") as made, open(path, "wb") as device:
            shutil.copyfileobj(made, device)
