"""Write one long audio file piece by piece, with title, author, cover and chapter marks."""

from __future__ import annotations

import base64
import io
import shutil
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import soundfile

from flowtts_core.audio.files import opus_rate, to_int16
from flowtts_core.errors import AudioError

FORMATS = ("m4b", "m4a", "mp3", "opus", "flac", "wav")


@dataclass(frozen=True)
class _Codec:
    """How FFmpeg writes a format: its muxer, encoder, bits per second of mono speech, samples, and options of both."""

    container: str
    encoder: str
    bit_rate: int
    samples: str
    encoding: Mapping[str, str]
    muxing: Mapping[str, str]


# Measured on 132 s of LJSpeech: AAC's and MP3's encoding options are two to three times as fast as the default and nearer to
# the original (AAC 30.1 dB against 25.2 dB signal to noise, MP3 23.9 against 22.5).
_AAC = _Codec("mp4", "aac", 64_000, "fltp", {"aac_coder": "fast"}, {})
_CODECS = {
    # The "ipod" muxer refuses a cover in PyAV's check, so the brand makes the MP4 an M4B. The index goes first: players
    # can then start before the whole file has arrived.
    "m4b": replace(_AAC, muxing={"brand": "M4B ", "movflags": "+faststart"}),
    "m4a": replace(_AAC, muxing={"brand": "M4A ", "movflags": "+faststart"}),
    "mp3": _Codec(
        "mp3", "libmp3lame", 64_000, "s16p", {"compression_level": "7"}, {"id3v2_version": "3", "write_xing": "1"}
    ),
    "opus": _Codec("ogg", "libopus", 32_000, "s16", {}, {}),
}
_MP3_KBPS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)  # MPEG-1, from 32 kHz
_MP3_LOW_KBPS = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)  # MPEG-2, up to 24 kHz
_OPUS_MOST = 256_000  # of a mono stream
MOST_COVER = (1 << 24) - 256  # bytes of a picture that FLAC's block holds
_ISO_639_2 = {  # ISO 639-1 -> the code of a track's language
    "de": "deu", "en": "eng", "es": "spa", "fr": "fra", "it": "ita", "nl": "nld", "pl": "pol", "pt": "por", "ru": "rus",
    "sv": "swe",
}  # fmt: skip
_PIECE = 1 << 14  # samples handed to the encoder at once


@dataclass(frozen=True)
class ChapterMark:
    """A chapter and where it starts and ends, in samples of the waveform that is written."""

    title: str
    start: int
    end: int


@dataclass(frozen=True)
class Tags:
    """What a player shows. `cover` holds the bytes of a JPEG or PNG."""

    title: str = ""
    author: str = ""
    album: str = ""
    track: str = ""
    language: str = ""
    cover: bytes | None = field(default=None, repr=False)
    chapters: tuple[ChapterMark, ...] = ()

    def texts(self) -> dict[str, str]:
        values = {
            "title": self.title,
            "artist": self.author,
            "album_artist": self.author,
            "album": self.album or self.title,
            "track": self.track,
            "genre": "Audiobook",
            "language": self.language,
        }
        return {key: value.replace("\0", "") for key, value in values.items() if value}


class AudioWriter(Protocol):
    """Writes pieces [S] of floats in [-1, 1]. The file is complete once it is closed."""

    def write(self, waveform: np.ndarray) -> None: ...
    def close(self) -> None: ...
    def __enter__(self) -> AudioWriter: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_writer(
    path: str | Path, format: str, sample_rate: int, tags: Tags, bit_rate: int | None = None
) -> AudioWriter:
    """Open a writer for one file. The same pieces and tags give the same bytes: no dates, no random serial, one thread.

    Args:
        bit_rate: bits per second of a lossy format, one that `bit_rate_of` gives; None: 64,000, of Opus 32,000.

    Raises:
        AudioError: for an unknown format.
    """
    if format in ("flac", "wav"):
        return _SndfileWriter(path, format, sample_rate, tags)
    if format in _CODECS:
        return _FfmpegWriter(path, format, sample_rate, tags, bit_rate or _CODECS[format].bit_rate)
    raise AudioError(f"unknown audio format {format!r}", f"use one of {', '.join(FORMATS)}")


def bit_rate_of(format: str, sample_rate: int, asked: int) -> int | None:
    """Return the bits per second nearest to those asked that mono sound can have in a format; None where it has no choice."""
    if format not in _CODECS:
        return None
    if format == "mp3":
        rates = _MP3_LOW_KBPS if sample_rate < 32_000 else _MP3_KBPS
        return 1000 * min(rates, key=lambda kbps: abs(1000 * kbps - asked))
    most = _OPUS_MOST if format == "opus" else 6 * sample_rate  # AAC: 6,144 bits a frame of 1,024 samples
    return min(asked, most)


class _Closing:
    def close(self) -> None:
        raise NotImplementedError  # each format's class has its own

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _SndfileWriter(_Closing):
    def __init__(self, path: str | Path, format: str, sample_rate: int, tags: Tags) -> None:
        self._path, self._cover = Path(path), tags.cover if format == "flac" else None
        self._file = soundfile.SoundFile(str(path), "w", sample_rate, 1, "PCM_16", format=format.upper())
        if format == "flac":  # WAV stays bare: libsndfile would add its own version to a comment
            texts = tags.texts()
            for name, key in (("title", "title"), ("artist", "artist"), ("album", "album"), ("tracknumber", "track")):
                if key in texts:
                    setattr(self._file, name, texts[key])

    def write(self, waveform: np.ndarray) -> None:
        self._file.write(to_int16(waveform))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:  # what was begun is no FLAC that a picture could go into
            self._cover = None
        self.close()

    def close(self) -> None:
        self._file.close()
        if self._cover and cover_kind(self._cover) and len(self._cover) <= MOST_COVER:
            _add_picture(self._path, _picture(self._cover))


def _add_picture(path: Path, picture: bytes) -> None:
    """Put a picture into a FLAC file, behind the stream's description (RFC 9639, section 8): libsndfile writes none."""
    whole = path.with_name(f"{path.name}.whole")
    with open(path, "rb") as source, open(whole, "wb") as target:
        start = source.read(42)  # the mark, and STREAMINFO with its head
        last = start[4] & 0x80
        target.write(start[:4] + bytes([start[4] & 0x7F]) + start[5:])
        target.write(bytes([last | 6]) + len(picture).to_bytes(3, "big") + picture)
        shutil.copyfileobj(source, target, 1 << 20)
    whole.replace(path)


class _FfmpegWriter(_Closing):
    def __init__(self, path: str | Path, format: str, sample_rate: int, tags: Tags, bit_rate: int) -> None:
        import av

        codec = _CODECS[format]
        self._rate = opus_rate(sample_rate) if format == "opus" else sample_rate
        self._resampler = _stream_resampler(sample_rate, self._rate)
        self._clock = 0
        self._av = av
        self._container = av.open(
            str(path), "w", format=codec.container, options={"fflags": "+bitexact", **codec.muxing}
        )
        stream: Any = self._container.add_stream(codec.encoder, rate=self._rate, layout="mono")
        self._stream = stream
        self._stream.bit_rate = bit_rate
        language = _ISO_639_2.get(tags.language[:2].lower())
        if language:
            self._stream.metadata["language"] = language
        self._stream.codec_context.thread_count = 1
        self._stream.codec_context.options = {"flags": "+bitexact", **codec.encoding}
        self._stream.codec_context.format = codec.samples
        self._format = av.AudioResampler(format=self._stream.codec_context.format, layout="mono", rate=self._rate)
        texts = tags.texts()
        if format == "mp3" and language:  # ID3's TLAN takes the three letters of ISO 639-2
            texts["language"] = language
        self._container.metadata.update(texts)
        self._container.set_chapters([_chapter(i, mark, sample_rate) for i, mark in enumerate(tags.chapters)])
        cover = _cover_stream(self._container, tags.cover) if format != "opus" else None
        if format == "opus" and tags.cover:
            self._container.metadata["METADATA_BLOCK_PICTURE"] = _picture_block(tags.cover)
        self._container.start_encoding()
        if cover is not None:
            self._container.mux(cover)

    def write(self, waveform: np.ndarray) -> None:
        for start in range(0, len(waveform), _PIECE):
            piece = waveform[start : start + _PIECE].astype(np.float32)
            self._encode(piece if self._resampler is None else self._resampler.resample_chunk(piece))

    def _encode(self, piece: np.ndarray) -> None:
        if len(piece) == 0:
            return
        frame = self._av.AudioFrame.from_ndarray(np.clip(piece, -1, 1)[None], format="flt", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = self._rate, self._clock, Fraction(1, self._rate)
        self._clock += len(piece)
        for ready in self._format.resample(frame):
            self._container.mux(self._stream.encode(ready))

    def close(self) -> None:
        try:
            if self._resampler is not None:
                self._encode(self._resampler.resample_chunk(np.zeros(0, np.float32), last=True))
            self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()


def _stream_resampler(from_rate: int, to_rate: int) -> Any:
    if from_rate == to_rate:
        return None
    import soxr

    return soxr.ResampleStream(from_rate, to_rate, 1, dtype="float32")


def _chapter(index: int, mark: ChapterMark, sample_rate: int) -> Any:
    milliseconds = Fraction(1000, sample_rate)
    return {
        "id": index,
        "start": round(mark.start * milliseconds),
        "end": round(mark.end * milliseconds),
        "time_base": Fraction(1, 1000),
        "metadata": {"title": mark.title.replace("\0", "")},
    }


def cover_kind(cover: bytes) -> tuple[str, int, int] | None:
    """Return ("mjpeg" or "png", width, height) of a picture; None for another format or one that does not decode."""
    import av

    try:
        with av.open(io.BytesIO(cover), "r") as picture:
            stream = picture.streams.video[0]
            name = stream.codec_context.name
            next(picture.decode(stream))
            return (name, stream.width, stream.height) if name in ("mjpeg", "png") else None
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def _cover_stream(container: Any, cover: bytes | None) -> Any:
    """Add the stream of the attached picture. Return the packet to write once encoding has started."""
    kind = cover_kind(cover) if cover else None
    if cover is None or kind is None:
        return None
    import av

    stream = container.add_stream(kind[0])
    stream.width, stream.height = kind[1], kind[2]
    stream.pix_fmt = "yuvj420p" if kind[0] == "mjpeg" else "rgb24"
    stream.disposition = av.stream.Disposition.attached_pic
    packet = av.Packet(cover)
    packet.stream, packet.pts, packet.dts, packet.time_base, packet.is_keyframe = stream, 0, 0, Fraction(1, 90000), True
    return packet


def _picture_block(cover: bytes) -> str:
    """Return a front cover in base64, for a Vorbis comment."""
    return base64.b64encode(_picture(cover)).decode()


def _picture(cover: bytes) -> bytes:
    """Return a front cover as FLAC's METADATA_BLOCK_PICTURE (RFC 9639, section 8.8)."""
    kind = cover_kind(cover)
    name, width, height = kind or ("", 0, 0)
    mime = b"image/png" if name == "png" else b"image/jpeg"
    head = struct.pack(">II", 3, len(mime)) + mime + struct.pack(">I", 0) + struct.pack(">IIII", width, height, 24, 0)
    return head + struct.pack(">I", len(cover)) + cover


def seconds_held(path: str | Path) -> float:
    """Return the seconds of audio whose packets are in the file. After a full disk the header may promise more."""
    import av

    with av.open(str(path), "r") as container:
        stream = container.streams.audio[0]
        ticks = sum(packet.duration or 0 for packet in container.demux(stream) if packet.size)
        return float(ticks * (stream.time_base or Fraction(1, stream.rate)))
