"""One sound's codes in an `.npz` file: numbers that numpy reads, and a note of what made them."""

from __future__ import annotations

import io
import json
import math
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowtts_core.audio.loudness import LoudnessMeter, amplify, gain_to, loudness_of
from flowtts_core.codec.base import Codec, Encoded
from flowtts_core.codec.files import LoadedCodec
from flowtts_core.codec.long import decode_long, encode_long
from flowtts_core.errors import AudioError, ConfigError
from flowtts_core.files import write_whole

LONGEST_S = 3600.0  # of one sound: it lies in memory whole
_SIDE = "side."
_FURTHEST_DB = 12.0  # that loudness is moved on decoding: what codes lost is not made of noise
_MOST = 1 << 30  # numbers that a file may hold


@dataclass(frozen=True)
class TokenNote:
    """What is kept beside codes.

    Attributes:
        codec: its fingerprint.
        samples: of the sound that was coded, at `sample_rate`.
        loudness_lufs: of that sound; None for silence.
    """

    codec: str
    sample_rate: int
    frame_rate: float
    bits_per_second: float
    samples: int
    loudness_lufs: float | None
    format: int = 1


@dataclass(frozen=True)
class Tokens:
    """The codes [1, Q, T] of one sound, and what is kept beside them."""

    encoded: Encoded
    note: TokenNote


def tokens_of(loaded: LoadedCodec, sound: np.ndarray, books: int | None = None) -> Tokens:
    """Return the codes of one sound [C, S], at the codec's rate.

    Raises:
        AudioError, ConfigError: as `Codec.encode`.
    """
    codec = loaded.codec
    encoded = encode_long(codec, torch.from_numpy(np.ascontiguousarray(sound, dtype=np.float32)), books)
    loudness = _loudness(sound, codec.sample_rate)
    note = TokenNote(
        loaded.fingerprint,
        codec.sample_rate,
        codec.frame_rate,
        codec.bits_per_second(encoded.codes.shape[1]),
        sound.shape[-1],
        loudness if math.isfinite(loudness) else None,
    )
    return Tokens(encoded, note)


def sound_of(loaded: LoadedCodec, tokens: Tokens) -> np.ndarray:
    """Return the sound [C, S] of codes, of the length and the loudness that the coded one had.

    Raises:
        AudioError: for codes of another codec, or out of its range.
    """
    require_codec(loaded, tokens)
    made = decode_long(loaded.codec, tokens.encoded).numpy()[:, : tokens.note.samples]
    if tokens.note.loudness_lufs is None:
        return made
    rate = loaded.codec.sample_rate
    gain = gain_to(tokens.note.loudness_lufs, _loudness(made, rate), _FURTHEST_DB)
    return np.stack([amplify(channel, gain, rate, ceiling_dbfs=0.0) for channel in made])


def _loudness(sound: np.ndarray, sample_rate: int) -> float:
    """Return the loudness of [C, S] in LUFS; of a long one piece by piece, since its filters compute in float64."""
    if sound.shape[-1] <= 60 * sample_rate:
        return loudness_of(sound.mean(0), sample_rate)
    meter = LoudnessMeter(sample_rate)
    for start in range(0, sound.shape[-1], 60 * sample_rate):
        meter.update(sound[:, start : start + 60 * sample_rate].mean(0))
    return meter.integrated()


def require_codec(loaded: LoadedCodec, tokens: Tokens) -> None:
    """Raise AudioError unless this codec made these tokens."""
    codec, note = loaded.codec, tokens.note
    if note.codec != loaded.fingerprint:
        raise AudioError(
            f"these are codes of the codec {note.codec}, not of {loaded.fingerprint}", "give the codec that made them"
        )
    if not 0 < note.samples <= codec.samples_of(tokens.encoded.codes.shape[-1]):
        raise AudioError(
            f"{note.samples} samples of {tokens.encoded.codes.shape[-1]} frames", "take the file again from its source"
        )


def write_tokens(path: Path, tokens: Tokens) -> None:
    """Write an `.npz` file: `codes` [Q, T] in as few bytes as they need, `note` (JSON), and arrays named `side.*`.

    Codes of frames that are lost are -1.
    """
    codes = tokens.encoded.codes[0].numpy()
    small: type[np.integer[Any]] = np.uint16 if codes.max(initial=0) < 1 << 16 else np.uint32
    small = np.int32 if codes.min(initial=0) < 0 else small
    arrays: dict[str, Any] = {f"{_SIDE}{name}": values[0].numpy() for name, values in tokens.encoded.side.items()}
    buffer = io.BytesIO()
    note = np.frombuffer(json.dumps(asdict(tokens.note)).encode(), np.uint8)
    np.savez_compressed(buffer, codes=codes.astype(small), note=note, **arrays)
    write_whole(path, buffer.getvalue())


def read_tokens(path: Path) -> Tokens:
    """Read what `write_tokens` wrote; nothing in the file is executed.

    Raises:
        AudioError: for a file that is missing, damaged, too large or holds something else.
    """
    remedy = "give a file that flowtts codec encode wrote"
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(info.file_size for info in archive.infolist()) > 4 * _MOST:
                raise AudioError(f"{path}: its arrays are too large to be codes", remedy)
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        note = TokenNote(**json.loads(arrays.pop("note").tobytes()))
        codes = arrays.pop("codes")
        if codes.ndim != 2 or codes.dtype.kind not in "ui" or not codes.size:
            raise AudioError(f"{path}: codes of shape {codes.shape}, {codes.dtype}", remedy)
        side: dict[str, Tensor] = {
            name.removeprefix(_SIDE): torch.from_numpy(values)[None]
            for name, values in arrays.items()
            if name.startswith(_SIDE)
        }
    except FileNotFoundError:
        raise AudioError(f"{path}: no such file", "check the path") from None
    except AudioError:
        raise
    except Exception as error:  # a damaged archive can make numpy raise anything
        raise AudioError(f"{path}: no codes ({error})", remedy) from error
    return Tokens(Encoded(torch.from_numpy(codes.astype(np.int64))[None], None, side), note)


def books_of(codec: Codec, books: int | None, kbps: float | None) -> int | None:
    """Return the number of codebooks of a choice: that number, or as many as a rate allows; None: all.

    Raises:
        ConfigError: for a rate that is too low for one codebook.
    """
    if kbps is None:
        return books
    counts = range(codec.least_books, codec.books + 1)
    within = [count for count in counts if codec.bits_per_second(count) <= 1000 * kbps + 1e-6]
    if not within:
        least = codec.bits_per_second(counts[0]) / 1000
        raise ConfigError(f"{kbps:g} kbit/s: this codec needs {least:g}", "ask for more, or take another codec")
    return within[-1]
