"""Encoding for responses: every cut of a waveform gives the same bytes, at once, and every decoder gets the sound back."""

from __future__ import annotations

import gc
import io
import struct
import weakref

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.encoding import MEDIA_TYPES, PCM_RATE, Encoder, open_encoder
from flowtts_core.audio.files import resample
from flowtts_core.errors import AudioError

RATE = 22050
FORMATS = list(MEDIA_TYPES)
FIRST = RATE // 10  # 100 ms
# Named, since the format cannot be guessed from a first frame.
DEMUXERS = {"mp3": "mp3", "opus": "ogg", "aac": "aac", "flac": "flac", "wav": "wav"}


def speechlike(samples: int, rate: int = RATE) -> np.ndarray:
    """A gliding tone with an envelope, so that a shift or a gap shows."""
    time = np.arange(samples) / rate
    return (0.4 * np.sin(2 * np.pi * (200 * time + 150 * time**2)) * (0.6 + 0.4 * np.sin(9 * time))).astype(np.float32)


def encode(response_format: str, pieces: list[np.ndarray], rate: int = RATE, total: int | None = None) -> bytes:
    with open_encoder(response_format, rate, total) as encoder:
        return b"".join([*(encoder.add(piece) for piece in pieces), encoder.finish()])


def decode(response_format: str, data: bytes, rate: int = RATE) -> tuple[np.ndarray, int]:
    """What FFmpeg, an independent reader, hears."""
    if response_format == "pcm":
        return np.frombuffer(data, "<i2").astype(np.float32) / 32768, PCM_RATE
    with av.open(io.BytesIO(data), "r", format=DEMUXERS[response_format]) as container:
        stream = container.streams.audio[0]
        resampler = av.AudioResampler(format="flt", layout="mono", rate=stream.rate)
        frames = [out.to_ndarray()[0] for f in container.decode(stream) for out in resampler.resample(f)]
        return np.concatenate([np.zeros(0, np.float32), *frames]), stream.rate


def without_serial(data: bytes) -> bytes:
    """Ogg's pages without their random serial number and the checksum over it (RFC 3533, section 6)."""
    out, at = b"", 0
    while at < len(data):
        assert data[at : at + 4] == b"OggS"
        segments = data[at + 26]
        size = 27 + segments + sum(data[at + 27 : at + 27 + segments])
        out += data[at : at + 14] + data[at + 18 : at + 22] + data[at + 26 : at + size]
        at += size
    return out


def aligned(heard: np.ndarray, meant: np.ndarray, most: int) -> tuple[int, float]:
    """The delay in samples, up to `most`, at which the two agree best, and the signal to noise there in dB."""
    scores = []
    for delay in range(most + 1):
        part = heard[delay : delay + len(meant)]
        error = part - meant[: len(part)]
        scores.append(10 * np.log10(np.sum(meant[: len(part)] ** 2) / max(np.sum(error**2), 1e-12)))
    return int(np.argmax(scores)), float(max(scores))


@pytest.mark.parametrize("response_format", FORMATS)
@given(cuts=st.lists(st.integers(0, 12_000), max_size=8))
@settings(max_examples=12, deadline=None)
def test_every_cut_gives_the_same_bytes(response_format: str, cuts: list[int]) -> None:
    whole = speechlike(12_000)
    pieces = np.split(whole, sorted(cuts))
    one, cut = encode(response_format, [whole]), encode(response_format, list(pieces))
    if response_format == "opus":
        one, cut = without_serial(one), without_serial(cut)
    assert cut == one


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100])
@pytest.mark.parametrize("response_format", FORMATS)
def test_the_sound_comes_back(response_format: str, rate: int) -> None:
    """At the right pitch and length, whole, and late by no more than the codec's own delay."""
    whole = speechlike(2 * rate, rate)
    heard, heard_rate = decode(response_format, encode(response_format, np.array_split(whole, 20), rate))
    meant = resample(whole, rate, heard_rate)
    delay = 0 if response_format in ("wav", "flac", "pcm", "opus") else 2400  # MP3 and AAC have no place to say theirs
    assert len(meant) - 2 <= len(heard) <= len(meant) + delay + 1200 * (delay > 0)
    shift, quality = aligned(heard, meant, delay)
    assert quality > (60 if delay == 0 and response_format != "opus" else 15), shift


def test_lossless_formats_keep_every_sample() -> None:
    whole = speechlike(30_001)
    for response_format in ("wav", "flac"):
        heard, rate = decode(response_format, encode(response_format, np.array_split(whole, 7)))
        assert rate == RATE
        assert len(heard) == len(whole)
        assert np.abs(heard - whole).max() <= 0.5 / 32768 + 1e-7


@pytest.mark.parametrize("response_format", FORMATS)
def test_sound_leaves_with_the_first_tenth_of_a_second(response_format: str) -> None:
    """What came by then decodes to sound, and over a whole clip never more than 110 ms are held back."""
    whole = speechlike(2 * RATE)
    with open_encoder(response_format, RATE) as encoder:
        sent = b""
        for end in range(FIRST, len(whole) + 1, FIRST):
            sent += encoder.add(whole[end - FIRST : end])
            heard, rate = decode(response_format, sent)
            assert len(heard) > 0
            assert end / RATE - len(heard) / rate < 0.110


@pytest.mark.parametrize("response_format", FORMATS)
@pytest.mark.parametrize("samples", [0, 1])
def test_nothing_and_one_sample(response_format: str, samples: int) -> None:
    whole = speechlike(samples) + np.float32(0.25)
    data = encode(response_format, [whole])
    if response_format == "pcm":
        assert len(data) == 2 * round(samples * PCM_RATE / RATE)
    elif response_format in ("wav", "flac"):
        heard = decode(response_format, data)[0] if samples else np.zeros(0)
        assert len(heard) == samples
        assert data[:4] == (b"RIFF" if response_format == "wav" else b"fLaC")
    elif samples:
        assert len(decode(response_format, data)[0]) >= samples


def test_a_known_length_stands_in_the_header() -> None:
    whole = speechlike(5000)
    wav, flac = (encode(name, np.array_split(whole, 3), total=5000) for name in ("wav", "flac"))
    assert struct.unpack("<I", wav[40:44]) == (10_000,)
    assert struct.unpack("<I", wav[4:8]) == (len(wav) - 8,)
    for data in (wav, flac):
        assert soundfile.info(io.BytesIO(data)).frames == 5000
        heard, rate = soundfile.read(io.BytesIO(data), dtype="float32")
        assert rate == RATE
        assert np.abs(heard - whole).max() <= 0.5 / 32768 + 1e-7


def test_an_unknown_length_is_the_greatest_number() -> None:
    wav = encode("wav", [speechlike(5000)])
    assert wav[4:8] == wav[40:44] == b"\xff" * 4
    assert len(wav) == 44 + 10_000


def test_pcm_is_what_openai_says_it_is() -> None:
    """16-bit signed little-endian at 24 kHz, whatever the voice's rate."""
    for rate in (16_000, 22_050, 24_000):
        assert abs(len(encode("pcm", [np.zeros(rate, np.float32)], rate)) - 2 * 24_000) <= 2
    loud = np.frombuffer(encode("pcm", [np.array([0, 0.5, -0.5, 2, -2], np.float32)], 24_000), "<i2")
    assert loud.tolist() == [0, 16384, -16384, 32767, -32768]


def test_an_unknown_format_is_named() -> None:
    with pytest.raises(AudioError, match=r"response_format.*'m4b'"):
        open_encoder("m4b", RATE)


@pytest.mark.parametrize("response_format", FORMATS)
def test_an_abandoned_encoder_is_let_go(response_format: str) -> None:
    """Closed or forgotten before the end, with sound inside: nothing keeps it, and closing twice is no error."""
    closed, forgotten = open_encoder(response_format, RATE), open_encoder(response_format, RATE)
    for encoder in (closed, forgotten):
        encoder.add(speechlike(3000))
    closed.close()
    closed.close()
    dead: list[weakref.ref[Encoder]] = [weakref.ref(closed), weakref.ref(forgotten)]
    del closed, forgotten, encoder
    gc.collect()
    assert [reference() for reference in dead] == [None, None]


def test_abandoned_encoders_do_not_fill_the_memory() -> None:
    def resident() -> int:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * 4096

    def abandon(times: int) -> None:
        for _ in range(times):
            for response_format in FORMATS:
                with open_encoder(response_format, RATE) as encoder:
                    encoder.add(speechlike(3000))

    abandon(20)
    before = resident()
    abandon(60)
    assert resident() - before < 6 << 20
