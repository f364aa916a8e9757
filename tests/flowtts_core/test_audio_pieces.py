"""Audio files piece by piece: the same samples as at once, the same files, and what a format does not take is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flowtts_core.audio.files import read_audio, write_audio
from flowtts_core.audio.pieces import audio_pieces, audio_writer
from flowtts_core.audio.tagged import Tags, open_writer
from flowtts_core.errors import AudioError

RATE = 8000
SOUND = np.random.default_rng(0).uniform(-0.5, 0.5, (RATE + 123, 2)).astype(np.float32)


def write_in_pieces(path: Path, sound: np.ndarray, rate: int = RATE) -> None:
    with audio_writer(path, rate, sound.shape[1]) as write:
        for begin in range(0, len(sound), 1000):
            write(sound[begin : begin + 1000])


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_pieces_are_the_whole(tmp_path: Path, suffix: str) -> None:
    place, whole = tmp_path / f"pieces{suffix}", tmp_path / f"whole{suffix}"
    write_in_pieces(place, SOUND)
    write_audio(whole, SOUND, RATE)
    assert place.read_bytes() == whole.read_bytes()
    for source in (place, place.read_bytes()):
        read = [piece for piece, rate in audio_pieces(source, 0.3) if rate == RATE]
        assert [len(piece) for piece in read] == [2400, 2400, 2400, 923]
        np.testing.assert_allclose(np.concatenate(read).mean(1), read_audio(place)[0], atol=1e-6)


def test_opus_gets_a_rate_that_it_knows_and_the_same_length(tmp_path: Path) -> None:
    write_in_pieces(tmp_path / "a.opus", SOUND, 22_050)
    [(made, rate)] = audio_pieces(tmp_path / "a.opus", 60.0)
    assert (rate, made.shape[1]) == (24_000, 2)
    assert abs(len(made) / rate - len(SOUND) / 22_050) < 0.001


def test_what_ffmpeg_alone_reads_comes_in_pieces_too(tmp_path: Path) -> None:
    with open_writer(tmp_path / "a.m4b", "m4b", RATE, Tags()) as book:
        book.write(SOUND[:, 0])
    read = list(audio_pieces(tmp_path / "a.m4b", 0.3))
    assert len(read) > 2
    whole = read_audio(tmp_path / "a.m4b")[0]
    np.testing.assert_allclose(np.concatenate([piece for piece, _ in read])[:, 0], whole, atol=1e-5)


@pytest.mark.parametrize(("channels", "rate"), [(6, RATE), (1, 192_000)])
def test_what_a_format_does_not_take_is_said(tmp_path: Path, channels: int, rate: int) -> None:
    place = tmp_path / "a.mp3"
    place.write_bytes(b"what was there")
    sound = np.zeros((RATE, channels), np.float32)
    for write in (write_in_pieces, write_audio):
        with pytest.raises(AudioError, match=f"{channels} channel.*{rate} Hz"):
            write(place, sound, rate)
    assert place.read_bytes() == b"what was there"
    assert list(tmp_path.iterdir()) == [place]


def test_what_is_no_sound_is_said(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no sound")
    write_audio(tmp_path / "empty.wav", np.zeros(0, np.float32), RATE)
    write_audio(tmp_path / "long.wav", SOUND, RATE)
    for name, why in (
        ("text", "not readable"),
        ("empty", "no samples"),
        ("long", "lasts more"),
        ("none", "no such file"),
    ):
        with pytest.raises(AudioError, match=why):
            list(audio_pieces(tmp_path / f"{name}.wav", 0.3, longest_s=1.0))
