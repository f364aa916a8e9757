"""Augmentation: what is drawn is what was asked for, the mel is that of the changed sound, and draws depend on the item."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from flowtts_core.audio.mel import LogMel, MelConfig
from flowtts_core.errors import ConfigError
from flowtts_core.training.augmentation import Augmentation, augmented
from flowtts_core.training.batches import VocoderBatches
from flowtts_core.training.examples import Examples
from tests.speech_like import buzz, write_examples

RATE = 22050
SPEECH = 0.3 * buzz(RATE, 120, RATE)


def changed(seed: int = 0, **how: tuple[float, float]) -> np.ndarray:
    return augmented(SPEECH, RATE, Augmentation(share=1.0, **how), np.random.default_rng(seed)).astype(np.float64)


def power(x: np.ndarray) -> float:
    return float(np.square(x).mean())


@pytest.mark.parametrize("seed", range(4))
def test_noise_lies_as_far_below_the_speech_as_was_asked(seed: int) -> None:
    noise = changed(seed, noise_db=(20, 20)) - SPEECH
    assert 10 * np.log10(power(SPEECH) / power(noise)) == pytest.approx(20, abs=0.01)


def test_gain_is_within_its_range_and_full_scale_is_not_passed() -> None:
    gains = [10 * np.log10(power(changed(seed, gain_db=(-20, -10))) / power(SPEECH)) for seed in range(20)]
    assert min(gains) >= -20.001 and max(gains) <= -9.999 and np.ptp(gains) > 5
    assert np.abs(changed(gain_db=(60, 60))).max() == pytest.approx(1.0)


def test_nothing_is_left_above_a_band_and_all_below_it() -> None:
    hiss = 0.1 * np.random.default_rng(0).uniform(-1, 1, RATE)
    narrow = augmented(hiss, RATE, Augmentation(band_hz=(4000, 4000), share=1.0), np.random.default_rng(0))
    before, after = (np.abs(np.fft.rfft(x)) for x in (hiss, narrow.astype(np.float64)))
    hertz = np.fft.rfftfreq(len(hiss), 1 / RATE)
    assert after[hertz > 4000].max() < 1e-4 * before[hertz > 4000].max()
    np.testing.assert_allclose(after[hertz < 3500], before[hertz < 3500], atol=1e-4)


def test_the_share_is_that_of_the_items_and_nothing_is_the_default() -> None:
    how = Augmentation(gain_db=(-6, -6), share=0.3)
    quieter = [
        power(augmented(SPEECH, RATE, how, np.random.default_rng((0, i)))) < power(SPEECH) / 2 for i in range(200)
    ]
    assert 0.2 < np.mean(quieter) < 0.4
    assert not Augmentation().changes


@pytest.mark.parametrize(
    "wrong",
    [
        {"noise_db": (20.0,)},
        {"gain_db": (6.0, -6.0)},
        {"noise_db": (0.0, np.inf)},
        {"band_hz": (20.0, 90.0)},
        {"share": 0.0},
    ],
)
def test_ranges_that_are_none_are_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Augmentation(**wrong)


@pytest.mark.parametrize("mel", [MelConfig(), MelConfig(padding="center"), MelConfig(pitch=True)])
def test_crops_have_the_mel_of_the_changed_sound(mel: MelConfig, tmp_path: Path) -> None:
    examples = Examples(write_examples(tmp_path, [60, 70, 80, 30], mel=mel), ["mel", "audio"])
    plain = VocoderBatches(examples, 6, 24, 0)
    noisy = VocoderBatches(examples, 6, 24, 0, Augmentation(noise_db=(0, 10), share=1.0))
    for step in range(4):
        stored, other = plain.at(step), noisy.at(step)
        made = LogMel(MelConfig(padding=mel.padding))(other.waveform)[..., 4:-4]  # the edges lack their neighbours
        assert (made - other.mel[:, : mel.n_mels, 4:-4]).abs().mean() < 0.05
        assert (other.mel - stored.mel)[:, : mel.n_mels].abs().mean() > 0.3
        assert torch.equal(other.mel[:, mel.n_mels :], stored.mel[:, mel.n_mels :])  # pitch is the recording's
        assert torch.equal(other.waveform, noisy.at(step).waveform)
    changes = noisy.at(0).waveform - plain.at(0).waveform
    assert not torch.allclose(changes[0], changes[1])


@pytest.mark.parametrize("padding", ["same", "center"])
def test_the_edges_of_a_crop_have_their_neighbours(padding: str, tmp_path: Path) -> None:
    mel = MelConfig(padding=padding)
    examples = Examples(write_examples(tmp_path, [60], files=1, mel=mel), ["mel", "audio"])
    frames = int(examples.frames[0])
    whole = LogMel(mel)(torch.from_numpy(examples.audio(0, 0, mel.samples_of(frames)))[None])[0]
    crops = VocoderBatches(examples, 1, 24, 0, Augmentation(gain_db=(0, 0), share=1.0))  # changes nothing
    for step in range(8):
        batch = crops.at(step)
        offsets = [(batch.mel[0] - whole[:, start : start + 24]).abs().max() for start in range(frames - 23)]
        assert min(offsets) < 1e-3
