"""The vocoders for any speaker that come with the installation: found by the mel they read, small, and better than none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch

from flowtts_core.audio.files import resample
from flowtts_core.audio.mel import VOCOS_24K, LogMel, MelConfig
from flowtts_core.metrics.paired import time_for_time
from flowtts_core.vocoder.files import BUNDLED, CARD, bundled_vocoder
from flowtts_core.vocoder.losses import MultiMelLoss
from flowtts_core.voice.parts import find_vocoder

MELS = {"24 kHz, 100 bands": VOCOS_24K, "22.05 kHz, 80 bands": MelConfig()}


@pytest.mark.parametrize("mel", MELS.values(), ids=MELS)
def test_it_is_what_a_voice_gets(mel: MelConfig) -> None:
    found = find_vocoder("", mel)
    assert found.spec["name"] == "source_filter" and found.vocoder.features == mel
    assert find_vocoder("griffin_lim", mel).spec["name"] == "griffin_lim"
    name = f"general-{mel.sample_rate // 1000}khz-{mel.n_mels}"
    assert find_vocoder(name, MelConfig(n_mels=64)).vocoder.features == mel


def test_a_voice_that_makes_pitch_too_gets_sound() -> None:
    mel = MelConfig(pitch=True)
    vocoder, frames = find_vocoder("", mel).vocoder, torch.randn(1, mel.rows, 20) - 4
    assert vocoder.features == mel
    torch.testing.assert_close(vocoder(frames), find_vocoder("griffin_lim", MelConfig()).vocoder(frames[:, :-1]))


def test_of_another_mel_there_is_griffin_lim() -> None:
    other = MelConfig(n_mels=64)
    assert bundled_vocoder(other) is None
    assert find_vocoder("", other).spec["name"] == "griffin_lim"


def test_they_are_small_and_say_what_taught_them() -> None:
    assert sum(file.stat().st_size for file in BUNDLED.glob("*/*")) < 20e6
    for card in BUNDLED.glob(f"*/{CARD}"):
        told = json.loads(card.read_text(encoding="utf-8"))
        assert told["licence"] == "Apache-2.0" and "LibriSpeech" in told["source"] and told["steps"] > 0


@pytest.mark.parametrize("mel", MELS.values(), ids=MELS)
def test_a_speaker_it_never_heard_comes_back(shared_data: Path, mel: MelConfig) -> None:
    """A clip of LJSpeech keeps its spectrum and its pitch, and can be understood."""
    pytest.importorskip("pystoi", reason="needs pip install 'flowtts[eval]'")
    waveform, rate = soundfile.read(shared_data / "ljspeech/wavs/LJ001-0002.wav", dtype="float32")
    clip = torch.from_numpy(resample(waveform, rate, mel.sample_rate))[None]
    found = bundled_vocoder(mel)
    assert found is not None
    with torch.no_grad():
        spoken = found.vocoder(LogMel(mel)(clip))
        length = min(spoken.shape[1], clip.shape[1])
        distance = float(MultiMelLoss(mel)(spoken[:, :length], clip[:, :length]))
    same = time_for_time(spoken[0].numpy(), mel.sample_rate, clip[0].numpy(), mel.sample_rate)
    assert distance < 0.4 and same.stoi is not None and same.stoi > 0.9
    with_pitch = replace(mel, pitch=True)
    heard, wanted = (LogMel(with_pitch)(sound[:, :length])[0, -1] for sound in (spoken, clip))
    assert float((heard - wanted).abs().median()) < 0.5  # of 0.92 for a semitone
