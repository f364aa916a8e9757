"""Audio files: what is written is read back, the same twice, with tags; loudness agrees with pyloudnorm."""

from __future__ import annotations

import errno
import hashlib
import io
from pathlib import Path

import av
import numpy as np
import pyloudnorm
import pytest
import soundfile

from flowtts_core.audio.files import encode, read_audio, read_channels, resample, write_audio
from flowtts_core.audio.loudness import LoudnessMeter, amplify, gain_to
from flowtts_core.audio.tagged import ChapterMark, Tags, bit_rate_of, open_writer
from flowtts_core.errors import AudioError
from tests.audio_readers import integrated_loudness, read_tags

RATE = 22050


def tone(seconds: float, hertz: float = 440.0, level: float = 0.3, rate: int = RATE) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def picture(kind: str) -> bytes:
    image = pytest.importorskip("PIL.Image")
    buffer = io.BytesIO()
    image.new("RGB", (60, 90), (120, 30, 60)).save(buffer, kind)
    return buffer.getvalue()


def strongest_hertz(waveform: np.ndarray, rate: int) -> float:
    return float(np.abs(np.fft.rfft(waveform)).argmax() * rate / len(waveform))


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3", ".ogg", ".opus"])
def test_written_audio_reads_back(tmp_path: Path, suffix: str) -> None:
    write_audio(tmp_path / f"x{suffix}", tone(1.0), RATE)
    waveform, rate = read_audio(tmp_path / f"x{suffix}")
    assert abs(len(waveform) / rate - 1.0) < 0.001
    assert abs(strongest_hertz(waveform, rate) - 440) < 2
    if suffix in (".wav", ".flac"):
        assert np.abs(waveform - tone(1.0)).max() <= 0.5 / 32768 + 1e-7


def test_sixteen_bits_survive_a_round_trip_and_clip() -> None:
    first, _ = read_audio(encode(np.array([-2, -1, -0.5, 0, 0.5, 1, 2], np.float32), RATE))
    again, _ = read_audio(encode(first, RATE))
    np.testing.assert_array_equal(first, again)
    assert first[0] == -1
    assert abs(first[-1] - 1) < 1e-4


def test_unusable_audio_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"RIFF" + b"\0" * 40)
    (tmp_path / "cut.flac").write_bytes(encode(tone(1.0), RATE)[:50])
    (tmp_path / "empty.wav").write_bytes(encode(np.zeros(0, np.float32), RATE, ".wav"))
    for name in ("bad.wav", "cut.flac", "empty.wav", "absent.wav"):
        with pytest.raises(AudioError, match=name):
            read_audio(tmp_path / name)
    with pytest.raises(AudioError, match=".xyz"):
        write_audio(tmp_path / "a.xyz", tone(0.1), RATE)


def of_unknown_length(flac: bytes) -> bytes:
    """The file as an encoder leaves it that wrote to a pipe: STREAMINFO's 36 bits of total samples are zero."""
    return flac[:21] + bytes([flac[21] & 0xF0]) + bytes(4) + flac[26:]


def test_the_reason_is_the_same_in_each_run() -> None:
    for read in (read_audio, lambda data: read_channels(data, 2, RATE)):
        with pytest.raises(AudioError, match="not readable as audio") as raised:
            read(b"RIFF")
        assert " at 0x" not in raised.value.message, "where bytes lie in memory"


def test_what_lasts_too_long_is_not_read(tmp_path: Path) -> None:
    whole = tone(3.0)
    write_audio(tmp_path / "x.flac", whole, RATE)
    with open_writer(tmp_path / "x.m4b", "m4b", RATE, Tags()) as writer:
        writer.write(whole)
    (tmp_path / "piped.flac").write_bytes(of_unknown_length((tmp_path / "x.flac").read_bytes()))
    for name in ("x.flac", "x.m4b", "piped.flac"):
        with pytest.raises(AudioError, match=rf"{name}: lasts more than 0.04 minutes"):
            read_audio(tmp_path / name, longest_s=2.4)
        waveform, rate = read_audio(tmp_path / name, longest_s=4)
        assert abs(len(waveform) / rate - 3.0) < 0.1
    np.testing.assert_array_equal(read_audio(tmp_path / "piped.flac")[0], read_audio(tmp_path / "x.flac")[0])


def test_a_header_is_refused_before_anything_is_decoded(tmp_path: Path) -> None:
    flac = encode(tone(1.0), RATE)
    (tmp_path / "days.flac").write_bytes(flac[:21] + bytes([flac[21] | 0x0F]) + b"\xff" * 4 + flac[26:])  # 36 days
    with pytest.raises(AudioError, match="days.flac: lasts more than 60 minutes"):
        read_audio(tmp_path / "days.flac", longest_s=3600)
    soundfile.write(tmp_path / "wide.flac", np.zeros((30_000, 8), np.int16), 192_000)
    with pytest.raises(AudioError, match="8 channels at 192000 Hz are too many samples"):
        read_audio(tmp_path / "wide.flac", longest_s=0.2)


def test_resampling_keeps_pitch_and_length() -> None:
    out = resample(tone(1.0), RATE, 16000)
    assert len(out) == 16000
    assert strongest_hertz(out, 16000) == 440


@pytest.mark.parametrize("format", ["m4b", "m4a", "mp3", "opus", "flac", "wav"])
def test_tagged_file_round_trip(tmp_path: Path, format: str) -> None:
    cover = picture("JPEG" if format != "mp3" else "PNG")
    marks = (ChapterMark("I. Über & out", 0, RATE), ChapterMark("Epilogue", RATE, 3 * RATE))
    tags = Tags("A Book", "An Author", "A Book", cover=cover, chapters=marks)
    digests = set()
    for name in ("a", "b"):
        with open_writer(tmp_path / name, format, RATE, tags) as writer:
            for piece in (tone(1.0, 440), tone(2.0, 880)):
                writer.write(piece)
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1
    info = read_tags(tmp_path / "a")
    assert abs(info.seconds - 3.0) < 0.12  # encoders pad to whole frames
    if format == "wav":
        return
    assert (info.tags["title"], info.tags["artist"], info.tags["album"]) == ("A Book", "An Author", "A Book")
    assert info.cover == cover
    if format == "flac":  # which has no chapters
        assert len(read_audio(tmp_path / "a")[0]) == 3 * RATE
        return
    assert [mark[0] for mark in info.chapters] == ["I. Über & out", "Epilogue"]
    assert [round(mark[1], 2) for mark in info.chapters] == [0.0, 1.0]


def test_m4b_sounds_where_it_should(tmp_path: Path) -> None:
    path = tmp_path / "x.m4b"
    with open_writer(path, "m4b", RATE, Tags("t", language="en-GB", cover=b"not a picture")) as writer:
        writer.write(tone(1.0, 440))
        writer.write(tone(1.0, 880))
    assert path.read_bytes()[4:12] == b"ftypM4B "
    with av.open(str(path)) as container:
        assert container.streams.audio[0].language == "eng"
    waveform, rate = read_audio(path)
    assert abs(strongest_hertz(waveform[: rate * 9 // 10], rate) - 440) < 5
    assert abs(strongest_hertz(waveform[rate * 12 // 10 : rate * 19 // 10], rate) - 880) < 5
    assert read_tags(path).cover is None


@pytest.mark.parametrize(("format", "asked", "given"), [
    ("mp3", 100_000, 96_000), ("mp3", 320_000, 160_000), ("m4a", 96_000, 96_000), ("opus", 320_000, 256_000),
    ("flac", 96_000, None),
])  # fmt: skip
def test_the_bit_rate_is_what_the_format_can_have(tmp_path: Path, format: str, asked: int, given: int | None) -> None:
    """At 22,050 Hz MP3 is of MPEG-2, which ends at 160 kbit/s."""
    assert bit_rate_of(format, 22_050, asked) == given
    if given:
        with open_writer(tmp_path / "x", format, RATE, Tags(), given) as writer:
            writer.write(np.random.default_rng(1).normal(0, 0.3, 5 * RATE).astype(np.float32))
        rate = 8 * (tmp_path / "x").stat().st_size / 5
        assert rate == pytest.approx(given, rel=0.35 if format == "opus" else 0.1)


def test_an_mp3_names_its_language_by_three_letters(tmp_path: Path) -> None:
    path = tmp_path / "x.mp3"
    with open_writer(path, "mp3", RATE, Tags("t", language="en-GB")) as writer:
        writer.write(tone(0.5))
    assert read_tags(path).tags["language"] == "eng"


def test_a_cut_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.wav"
    write_audio(path, tone(0.1), RATE)
    before, real = path.read_bytes(), Path.write_bytes

    def fill(self: Path, data: bytes) -> None:
        real(self, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill)
    with pytest.raises(OSError, match="No space"):
        write_audio(path, tone(0.2), RATE)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["x.wav"]


def speech_like(seconds: float, rate: int) -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=round(seconds * rate)).astype(np.float32) * 0.1
    envelope = (np.sin(2 * np.pi * 0.3 * np.arange(len(noise)) / rate) > -0.3).astype(np.float32)
    return noise * envelope


@pytest.mark.parametrize("rate", [16000, 22050, 24000, 48000])
def test_loudness_in_pieces_agrees_with_pyloudnorm(rate: int) -> None:
    waveform = speech_like(12.0, rate)
    meter = LoudnessMeter(rate)
    for piece in np.array_split(waveform, 17):
        meter.update(piece)
    assert abs(meter.integrated() - pyloudnorm.Meter(rate).integrated_loudness(waveform)) < 0.1
    assert meter.integrated() == pytest.approx(integrated_loudness(waveform, rate), abs=1e-9)


def test_full_scale_sine_has_the_loudness_the_standard_states() -> None:
    assert integrated_loudness(tone(5.0, 997, 1.0, 48000), 48000) == pytest.approx(-3.01, abs=0.05)
    assert integrated_loudness(np.zeros(48000), 48000) == -np.inf
    assert gain_to(-19, -np.inf) == 1.0


def test_gain_reaches_the_target_and_the_ceiling_holds() -> None:
    waveform = speech_like(10.0, RATE)
    out = amplify(waveform, gain_to(-19, integrated_loudness(waveform, RATE)), RATE)
    assert integrated_loudness(out, RATE) == pytest.approx(-19, abs=0.3)
    loud = amplify(tone(1.0, 5000, 0.9), 3.0, RATE)
    fine = np.abs(resample(loud, RATE, 8 * RATE))[800:-800].max()
    assert 0.8 < fine <= 10 ** (-0.9 / 20)
    quiet = tone(1.0, 440, 0.1)
    np.testing.assert_array_equal(amplify(quiet, 2.0, RATE), quiet * 2)
