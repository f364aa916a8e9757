"""Speech to the bytes of a response, piece by piece: MP3, Ogg Opus, AAC (ADTS), FLAC, WAV and raw 16-bit samples.

Measured on one thread with 100 ms pieces at 22,050 Hz: what each format holds back after the first piece and its CPU time
stand in `docs/serving.md`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from types import TracebackType
from typing import Any

import numpy as np

from flowtts_core.audio.files import OPUS_RATES, to_int16
from flowtts_core.errors import AudioError

PCM_RATE = 24_000  # OpenAI's `pcm` is 16-bit signed little-endian at 24 kHz, whatever the voice's own rate
_MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_AAC_RATES = (*_MP3_RATES, 64000, 88200, 96000)
_UNKNOWN = 0xFFFFFFFF  # the size in a WAV header that is sent before the end is known


@dataclass(frozen=True)
class _Codec:
    """How FFmpeg makes a format: muxer ("" for bare packets), encoder, its samples, rates, bits per second, options."""

    muxer: str
    encoder: str
    sample_format: str
    rates: tuple[int, ...] | None  # None: every rate
    bit_rate: int
    encoder_options: dict[str, str]
    muxer_options: dict[str, str]


_CODECS = {
    # Without the bit reservoir a frame leaves as soon as it is full, and a cut stream decodes up to the cut.
    "mp3": _Codec(
        "mp3", "libmp3lame", "s16p", _MP3_RATES, 64_000, {"compression_level": "7", "reservoir": "0"},
        {"write_xing": "0", "id3v2_version": "0"},
    ),
    # Ogg's pages default to one second; one page per packet costs 11 kbit/s and holds nothing back.
    "opus": _Codec(
        "ogg", "libopus", "s16", OPUS_RATES, 32_000, {"compression_level": "5"}, {"page_duration": "20000"}
    ),
    "aac": _Codec("adts", "aac", "fltp", _AAC_RATES, 64_000, {"aac_coder": "fast"}, {}),
    # The encoder's own frames are 105 ms at 22,050 Hz; these are half as long. The muxer would add 8 KiB of padding.
    "flac": _Codec("", "flac", "s16", None, 0, {"compression_level": "5", "frame_size": "1152"}, {}),
}  # fmt: skip
MEDIA_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}


class Encoder:
    """Takes pieces of a waveform, gives bytes as soon as there are any; not for several threads at once.

    Attributes:
        media_type: the Content-Type of the bytes.
        sample_rate: what is in the bytes; the input's, or the next that the format knows.
    """

    def __init__(self, media_type: str, from_rate: int, sample_rate: int) -> None:
        self.media_type = media_type
        self.sample_rate = sample_rate
        self._resampler = _stream_resampler(from_rate, sample_rate)
        self._open = True

    def add(self, waveform: np.ndarray) -> bytes:
        """Encode [S] float in [-1, 1] at the input's rate; returns what is ready, at first with the header."""
        assert self._open and waveform.ndim == 1
        piece = np.asarray(waveform, dtype=np.float32)
        return self._encode(piece if self._resampler is None else self._resampler.resample_chunk(piece))

    def finish(self) -> bytes:
        """The last bytes. Nothing can be added after it."""
        assert self._open
        rest = np.zeros(0, np.float32)
        try:
            if self._resampler is not None:
                rest = self._resampler.resample_chunk(rest, last=True)
            return self._encode(rest) + self._flush()
        finally:
            self.close()

    def close(self) -> None:
        """Let go of everything, finished or not; may be called again."""
        self._open = False
        self._resampler = None

    def __enter__(self) -> Encoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _encode(self, piece: np.ndarray) -> bytes:
        raise NotImplementedError  # each format's class has its own

    def _flush(self) -> bytes:
        raise NotImplementedError  # each format's class has its own


def open_encoder(response_format: str, sample_rate: int, total_samples: int | None = None) -> Encoder:
    """An encoder of mono speech; the same samples give the same bytes however they are cut, but for Ogg's serial number.

    Args:
        response_format: one of `MEDIA_TYPES`. `pcm` is resampled to `PCM_RATE`, as OpenAI's clients expect.
        sample_rate: of the pieces that will be added.
        total_samples: how many samples will be added, where that is known: WAV and FLAC then say their length at the start.

    Raises:
        AudioError: for an unknown format.
    """
    rate = encoded_rate(response_format, sample_rate)
    if response_format == "pcm":
        return _SampleEncoder("pcm", sample_rate, rate, b"")
    if response_format == "wav":
        return _SampleEncoder("wav", sample_rate, rate, _wav_header(sample_rate, total_samples))
    codec = _CODECS[response_format]
    if codec.muxer:
        return _MuxedEncoder(MEDIA_TYPES[response_format], sample_rate, rate, codec)
    return _FlacEncoder(MEDIA_TYPES[response_format], sample_rate, rate, codec, total_samples)


def encoded_rate(response_format: str, sample_rate: int) -> int:
    """The rate that is in the bytes of a format, for speech of `sample_rate`; raises as `open_encoder`."""
    if response_format not in MEDIA_TYPES:
        raise AudioError(f"response_format: unknown format {response_format!r}", f"use one of {', '.join(MEDIA_TYPES)}")
    if response_format == "pcm":
        return PCM_RATE
    rates = None if response_format == "wav" else _CODECS[response_format].rates
    return sample_rate if rates is None else _rate_that_keeps(sample_rate, rates)


def with_length(response_format: str, content: bytes, total_samples: int) -> bytes:
    """Return a whole file that began before its length was known with the length in its header, as WAV and FLAC have it."""
    if response_format == "wav":
        header = _wav_header(int.from_bytes(content[24:28], "little"), total_samples)
        return header + content[len(header) :]
    if response_format == "flac":
        return _flac_header(content[8:42], total_samples) + content[42:]
    return content


class _SampleEncoder(Encoder):
    """16-bit little-endian samples after an optional header."""

    def __init__(self, response_format: str, from_rate: int, sample_rate: int, header: bytes) -> None:
        super().__init__(MEDIA_TYPES[response_format], from_rate, sample_rate)
        self._header = header

    def _encode(self, piece: np.ndarray) -> bytes:
        header, self._header = self._header, b""
        return header + to_int16(piece).astype("<i2").tobytes()

    def _flush(self) -> bytes:
        return b""


class _FrameEncoder(Encoder):
    """What FFmpeg's encoders share: float pieces of any length to frames of the encoder's length and sample format."""

    def __init__(self, media_type: str, from_rate: int, sample_rate: int, codec: _Codec) -> None:
        import av

        super().__init__(media_type, from_rate, sample_rate)
        self._av = av
        self._clock = 0
        self._format = av.AudioResampler(format=codec.sample_format, layout="mono", rate=sample_rate)

    def _frames(self, piece: np.ndarray) -> list[Any]:
        if len(piece) == 0:
            return []
        frame = self._av.AudioFrame.from_ndarray(np.clip(piece, -1, 1)[None], format="flt", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = self.sample_rate, self._clock, Fraction(1, self.sample_rate)
        self._clock += len(piece)
        return list(self._format.resample(frame))


class _MuxedEncoder(_FrameEncoder):
    """A format whose packets FFmpeg wraps: pages of Ogg, headers of ADTS, frames of MP3."""

    def __init__(self, media_type: str, from_rate: int, sample_rate: int, codec: _Codec) -> None:
        super().__init__(media_type, from_rate, sample_rate, codec)
        self._sink = _Sink()
        # "bitexact" keeps FFmpeg's version and the date out of the bytes.
        options = {"fflags": "+bitexact", "flush_packets": "1", **codec.muxer_options}
        self._container: Any = self._av.open(self._sink, "w", format=codec.muxer, options=options)
        self._stream: Any = self._container.add_stream(codec.encoder, rate=sample_rate, layout="mono")
        _configure(self._stream.codec_context, codec)
        self._container.start_encoding()

    def _encode(self, piece: np.ndarray) -> bytes:
        for frame in self._frames(piece):
            self._container.mux(self._stream.encode(frame))
        return self._sink.take()

    def _flush(self) -> bytes:
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._sink.take()

    def close(self) -> None:
        super().close()
        if self._container is not None:
            self._container.close()
        self._container = self._stream = None


class _FlacEncoder(_FrameEncoder):
    """FLAC (RFC 9639): the signature, the STREAMINFO block that the encoder describes itself by, and its frames."""

    def __init__(
        self, media_type: str, from_rate: int, sample_rate: int, codec: _Codec, total_samples: int | None
    ) -> None:
        super().__init__(media_type, from_rate, sample_rate, codec)
        context: Any = self._av.CodecContext.create(codec.encoder, "w")
        context.sample_rate, context.layout = sample_rate, "mono"
        context.time_base = Fraction(1, sample_rate)
        _configure(context, codec)
        context.open()
        self._context = context
        self._header = _flac_header(bytes(context.extradata), total_samples or 0)

    def _encode(self, piece: np.ndarray) -> bytes:
        header, self._header = self._header, b""
        return header + b"".join(bytes(p) for frame in self._frames(piece) for p in self._context.encode(frame))

    def _flush(self) -> bytes:
        # The encoder ends with an empty packet that carries the final STREAMINFO, which a stream cannot go back for.
        return b"".join(bytes(packet) for packet in self._context.encode(None))

    def close(self) -> None:
        super().close()
        self._context = None


class _Sink:
    """The file that FFmpeg writes to; it cannot seek, so nothing that was written is changed later."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, piece: Any) -> int:
        self._pieces.append(bytes(piece))
        return len(piece)

    def take(self) -> bytes:
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data


def _configure(context: Any, codec: _Codec) -> None:
    context.format = codec.sample_format
    context.thread_count = 1
    context.options = {"flags": "+bitexact", **codec.encoder_options}
    if codec.bit_rate:
        context.bit_rate = codec.bit_rate


def _rate_that_keeps(sample_rate: int, rates: tuple[int, ...]) -> int:
    """The smallest rate that loses nothing, or the greatest there is."""
    return min((rate for rate in rates if rate >= sample_rate), default=rates[-1])


def _stream_resampler(from_rate: int, to_rate: int) -> Any:
    if from_rate == to_rate:
        return None
    import soxr

    return soxr.ResampleStream(from_rate, to_rate, 1, dtype="float32")


def _wav_header(sample_rate: int, total_samples: int | None) -> bytes:
    """The 44 bytes of a 16-bit mono WAV; with no length, or more than 4 GiB, the sizes are the greatest number."""
    size = _UNKNOWN if total_samples is None else min(2 * total_samples, _UNKNOWN)
    form = struct.pack("<IHHIIHH", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    return (
        struct.pack("<4sI4s4s", b"RIFF", min(size + 36, _UNKNOWN), b"WAVE", b"fmt ")
        + form
        + struct.pack("<4sI", b"data", size)
    )


def _flac_header(stream_info: bytes, total_samples: int) -> bytes:
    """Signature and STREAMINFO as the last metadata block; 36 bits from bit 108 hold the length, 0 where it is unknown."""
    assert len(stream_info) == 34
    word = int.from_bytes(stream_info[10:18], "big") >> 36 << 36 | min(total_samples, (1 << 36) - 1)
    block = stream_info[:10] + word.to_bytes(8, "big") + stream_info[18:]
    return b"fLaC" + bytes([0x80, 0, 0, 34]) + block
