"""The recording that is imitated: what is mended, cut and refused, on human speech and on sounds that are none."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from flowtts_core.audio.files import encode, read_audio
from flowtts_core.audio.reference import (
    LEVEL_RMS,
    LONGEST_S,
    Reference,
    clean_reference,
    require_own_text,
    text_note,
)
from flowtts_core.errors import AudioError, FlowTTSError, TextError
from flowtts_core.request import PromptClip
from tests.speech_like import babble, babble_clip, buzz

RATE = 16000


def clip_of(waveform: np.ndarray, rate: int = RATE, suffix: str = ".flac") -> PromptClip:
    return PromptClip(encode(np.asarray(waveform, np.float32), rate, suffix))


def rms(waveform: np.ndarray) -> float:
    return float(np.sqrt(np.square(waveform, dtype=np.float64).mean()))


def notes(clip: PromptClip) -> str:
    return "; ".join(clean_reference(clip).notes)


@pytest.fixture(scope="module")
def read(shared_data: Path) -> np.ndarray:
    """Four seconds of a reader, at 22050 Hz."""
    waveform, rate = read_audio(next(iter(sorted((shared_data / "ljspeech").rglob("*.wav")))))
    return waveform[: 4 * rate]


def human(shared_data: Path) -> list[Path]:
    train = sorted((shared_data / "librispeech/train-clean-100").glob("*.flac"))[::25]
    other = sorted((shared_data / "librispeech/test-other").rglob("*.flac"))[::20]
    readers = [sorted((shared_data / name).rglob("*.flac"))[5::400] for name in ("kathleen", "kerstin")]
    return [*train, *other, *(clip for clips in readers for clip in clips)]


def test_human_speech_is_taken_as_it_is_and_cleaned_once(shared_data: Path) -> None:
    """What is clean is left alone, sample by sample: a saved clip sounds as the file that it came from."""
    for path in human(shared_data):
        found = clean_reference(PromptClip(path.read_bytes()))
        again = clean_reference(found.clip)
        assert np.array_equal(found.waveform, again.waveform), path
        assert found.seconds <= LONGEST_S + 0.5 and found.cut <= (found.given_s > LONGEST_S), path
        assert rms(found.waveform) == pytest.approx(LEVEL_RMS, rel=0.02) or np.abs(found.waveform).max() > 0.98
        assert not again.cut and not any("silence" in note or "clipped peaks" in note for note in again.notes)


@pytest.mark.parametrize(
    ("waveform", "reason"),
    [
        (np.zeros(3 * RATE), "silent"),
        (np.full(3 * RATE, 0.4), "silent"),
        (babble(0.2), "0.2 s of sound, and at least 1 s"),
        (np.concatenate([np.zeros(4 * RATE), babble(0.6), np.zeros(RATE)]), "of sound, and at least 1 s"),
        (np.tile(babble(3.0), 101), "more than 5 minutes"),
        (np.clip(30 * babble(3.0), -1, 1), "clipped"),
        (0.3 * np.sin(2 * np.pi * 220 * np.arange(3 * RATE) / RATE), "no speech"),
        (buzz(3 * RATE, 120, RATE), "no speech"),
        (0.1 * np.random.default_rng(0).standard_normal(3 * RATE), "no speech"),
    ],
)
def test_what_cannot_serve_is_refused_with_the_reason(waveform: np.ndarray, reason: str) -> None:
    with pytest.raises(AudioError, match=reason) as refused:
        clean_reference(clip_of(waveform))
    assert refused.value.remedy


def test_music_is_refused() -> None:
    def note(hertz: float, seconds: float = 0.3) -> np.ndarray:
        time = np.arange(round(seconds * RATE)) / RATE
        return sum(np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, 7)) * np.exp(-3 * time)

    melody = np.concatenate([note(220 * 2 ** (step / 12)) for step in (0, 2, 4, 5, 7, 4, 0, 7, 12, 7) * 2])
    chords = sum(
        np.concatenate([note(220 * 2 ** ((step + shift) / 12), 0.5) for step in (0, 5, 7, 0) * 3])
        for shift in (0, 4, 7)
    )
    for waveform in (melody, chords):
        with pytest.raises(AudioError, match="as in music"):
            clean_reference(clip_of(0.1 * waveform))


def test_no_audio_is_refused() -> None:
    with pytest.raises(AudioError, match="the reference: not readable"):
        clean_reference(PromptClip(b"no sound"))


def test_silence_at_the_ends_goes_and_pauses_stay(read: np.ndarray) -> None:
    padded = np.concatenate([np.zeros(44_100), read[:40_000], np.zeros(11_025), read[40_000:], np.zeros(30_000)])
    alone = clean_reference(clip_of(read, 22050))
    found = clean_reference(clip_of(padded, 22050))
    assert found.seconds == pytest.approx(alone.seconds + 0.5, abs=0.3)
    assert "silence at its ends left out" in found.notes[0]


def test_level_offset_and_channels_do_not_matter(read: np.ndarray) -> None:
    plain = clean_reference(clip_of(read, 22050)).waveform
    buffer = io.BytesIO()
    soundfile.write(buffer, np.stack([read, read / 2], axis=1), 22050, format="WAV", subtype="FLOAT")
    quiet, shifted = clip_of(read / 20, 22050), clip_of(read / 2 + 0.2, 22050)
    for other in (PromptClip(buffer.getvalue()), quiet, shifted):
        waveform = clean_reference(other).waveform
        assert len(waveform) == len(plain) and np.abs(waveform - plain).max() < 0.01
    assert "offset" in notes(shifted) and not notes(quiet)


def test_clipped_peaks_are_rounded_towards_what_they_were(read: np.ndarray) -> None:
    full = read / np.abs(read).max()
    clipped = np.clip(full, -0.5, 0.5)
    found = clean_reference(clip_of(clipped, 22050))
    assert "clipped peaks rounded" in "; ".join(found.notes)
    original = clean_reference(clip_of(full, 22050)).waveform

    def error(waveform: np.ndarray) -> float:  # at the flat parts, at the level that fits best
        flat = np.abs(clipped) >= 0.5
        scale = float(np.dot(waveform, original) / np.dot(waveform, waveform))
        return rms((scale * waveform - original)[flat[: len(waveform)]])

    assert len(found.waveform) == len(original) == len(read)
    assert error(found.waveform) < 0.8 * error(clipped)


def test_a_lossy_file_of_clipped_speech_is_told(read: np.ndarray) -> None:
    assert "sounds clipped" in notes(clip_of(np.clip(6 * read / np.abs(read).max(), -1, 1), 22050, ".mp3"))


def test_a_long_recording_is_cut_at_a_pause(read: np.ndarray) -> None:
    rest = np.zeros(round(0.4 * 22050))
    found = clean_reference(clip_of(np.concatenate([read, rest] * 5), 22050))
    assert found.cut and 8 < found.seconds <= LONGEST_S
    assert found.notes == (f"the first {found.seconds:.1f} s of 22.0 s are used",)
    assert rms(found.waveform[-1100:]) < 0.1 * LEVEL_RMS
    with pytest.raises(TextError, match="its text is of all"):
        require_own_text(found, "Some words.")


def test_what_may_be_wrong_is_told() -> None:
    assert "3 s or more" in notes(babble_clip(1.5))
    assert "8000 Hz" in notes(babble_clip(3.5, rate=8000))
    assert "no pause" in notes(babble_clip(20.0))
    noise = 0.02 * np.random.default_rng(0).standard_normal(4 * RATE)
    assert "noisy" in notes(clip_of(babble(4.0) + noise))


@pytest.mark.parametrize(
    "said", ["Printing, in the only sense with which we are at present concerned.", "In 1984, so they say."]
)
def test_a_text_of_the_right_length_is_believed(said: str) -> None:
    assert not text_note(said, len(said) / 14)


def test_a_text_of_another_length_is_doubted_or_refused() -> None:
    said = "Printing, in the only sense with which we are at present concerned."
    assert "is it exactly" in text_note(said, 2.0)
    for seconds in (0.9, 60.0):
        with pytest.raises(TextError, match=r"too (long|short)"):
            text_note(said, seconds)
    with pytest.raises(FlowTTSError):
        require_own_text(Reference(np.zeros(RATE, np.float32), RATE), "")
