"""The lecture's tiny task: trained here in seconds, its tones fall on their exact pitch, for any noise."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from flowtts_core.config import override
from flowtts_core.engines.base import Speech, SynthesisFailure
from flowtts_core.engines.tiny import load_tiny, save_tiny
from flowtts_core.errors import ConfigError, VoiceError
from flowtts_core.flow import LinearPath
from flowtts_core.request import SynthesisRequest
from flowtts_core.tiny.model import TinyConfig, TinyModel
from flowtts_core.tiny.spectrum import spectral_peak
from flowtts_core.tiny.task import TinyBatches, ToneConfig
from jobs.training.tiny import evaluate_tiny, tiny_recipe, train_tiny

PITCHES = {"a": 220.0, "i": 440.0}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The recipe at half its steps."""
    folder = tmp_path_factory.mktemp("tiny")
    summary = train_tiny(folder, override(tiny_recipe(), {"ablation": False, "trainer.steps": 600}))
    return folder, summary


def test_peaks_are_exact_and_pure_for_any_noise(trained):
    voice = load_tiny(trained[0])
    for name, pitch in PITCHES.items():
        for seed in range(20):
            peak = spectral_peak(voice.tone(voice.phoneme_id(name), seed), voice.sample_rate)
            assert peak.frequency_hz == pitch
            assert peak.margin_db >= 20
            assert 0.2 < peak.amplitude < 0.8


def test_summary_tells_what_the_files_hold(trained):
    folder, summary = trained
    assert json.loads((folder / "summary.json").read_text()) == summary
    for name, pitch in PITCHES.items():
        measured = summary["files"][f"{name}.wav"]
        assert measured["peak_hz"] == pitch
        assert measured["margin_db"] >= 20
        assert (folder / f"{name}.wav").stat().st_size == 44 + 2 * 8000
        assert summary["tones"][name]["peaks_on_pitch"] == summary["seeds"] == 20
        assert summary["tones"][name]["margin_db_worst"] >= 20


def test_the_phase_comes_from_the_noise(trained):
    """The data has every phase, so other seeds give other phases, spread over the circle: not one memorised waveform."""
    voice = load_tiny(trained[0])
    phases = [np.angle(np.fft.rfft(voice.tone(0, seed))[220]) for seed in range(20)]
    assert abs(np.exp(1j * np.array(phases)).mean()) < 0.6


def test_untrained_network_knows_no_pitch():
    torch.manual_seed(0)
    tones = evaluate_tiny(TinyModel(TinyConfig()), ToneConfig())
    assert all(tone["peaks_on_pitch"] <= 1 and tone["margin_db_worst"] < 3 for tone in tones.values())


def test_batch_equals_singles(trained):
    model = load_tiny(trained[0]).model
    batch = model.generate([0, 1, 0], [3, 4, 5])
    singles = torch.cat([model.generate([p], [s]) for p, s in zip([0, 1, 0], [3, 4, 5], strict=True)])
    assert torch.allclose(batch, singles, atol=1e-4)


def test_velocity_is_that_of_the_path_to_the_guess():
    """Along the path of noise to the model's guess, the model's velocity is the path's own."""
    torch.manual_seed(0)
    model = TinyModel(TinyConfig(samples=64))
    x, t, ids = torch.randn(4, 64), torch.rand(4), torch.tensor([0, 1, 0, 1])
    guess = model.guess(x, t, ids)
    keep = 1 - model.config.sigma_min
    noise = (x - t[:, None] * guess) / (1 - keep * t)[:, None]
    point = LinearPath(model.config.sigma_min).sample(noise, guess, t)
    assert torch.allclose(point.x_t, x, atol=1e-5)
    assert torch.allclose(model(x, t, ids), point.velocity, atol=1e-4)


def test_data_is_a_sine_of_the_phonemes_pitch():
    batches = TinyBatches(TinyConfig(), ToneConfig(per_phoneme=3), seed=1)
    batch = batches.at(5)
    assert batch.phonemes.tolist() == [0, 0, 0, 1, 1, 1]
    for phoneme, waveform in zip(batch.phonemes.tolist(), batch.waveform.numpy(), strict=True):
        peak = spectral_peak(waveform, 8000)
        assert peak.frequency_hz == (220.0, 440.0)[phoneme]
        assert 0.4 <= peak.amplitude <= 0.6
        assert peak.margin_db > 90
    assert torch.equal(batches.at(5).waveform, batch.waveform)
    assert not torch.equal(batches.at(6).waveform, batch.waveform)


def test_spectral_peak_of_two_sines():
    time = np.arange(8000) / 8000
    waveform = 0.5 * np.sin(2 * math.pi * 300 * time + 1) + 0.05 * np.sin(2 * math.pi * 301 * time)
    peak = spectral_peak(waveform, 8000)
    assert peak.frequency_hz == 300
    assert peak.margin_db == pytest.approx(20)
    assert peak.amplitude == pytest.approx(0.5)


def test_as_a_synthesizer(trained):
    voice = load_tiny(trained[0])
    good, unknown, empty, fast, *wrong = voice.synthesize(
        [
            SynthesisRequest(text="a i", seed=7),
            SynthesisRequest(text="a x"),
            SynthesisRequest(text=" "),
            SynthesisRequest(text="a", speed=2.0),
            SynthesisRequest(text="a", seed=2**64),
            SynthesisRequest(text="a", steps=2.5),
            SynthesisRequest(text="a", temperature="hot"),
            SynthesisRequest(text=None),
        ]
    )
    assert isinstance(good, Speech)
    assert good.seconds == 2
    assert np.array_equal(good.waveform[:8000], voice.tone(0, 7))
    assert np.array_equal(good.waveform[8000:], voice.tone(1, 8))
    assert all(isinstance(result, SynthesisFailure) for result in (unknown, empty, fast, *wrong))
    assert "'x'" in unknown.reason
    with pytest.raises(ConfigError, match="no phoneme id 2"):
        voice.tone(2)
    with pytest.raises(ConfigError, match="steps"):
        voice.tone(0, steps=0)


@pytest.mark.parametrize("damage", ["truncated", "missing", "card", "other", "rank", "sigma"])
def test_a_damaged_voice_is_refused(tmp_path, damage):
    save_tiny(tmp_path, TinyModel(TinyConfig(samples=64)))
    assert load_tiny(tmp_path).sample_rate == 8000
    weights, card = tmp_path / "tiny.safetensors", tmp_path / "voice.json"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-10])
    elif damage == "missing":
        weights.unlink()
    elif damage == "card":
        card.write_text("{")
    elif damage == "other":
        card.write_text(json.dumps({**json.loads(card.read_text()), "kind": "flow"}))
    else:
        values = json.loads(card.read_text())
        values["parts"]["model"] |= {"rank": -1} if damage == "rank" else {"sigma_min": 2.0}
        card.write_text(json.dumps(values))
    with pytest.raises(VoiceError, match="tiny|not a voice card"):
        load_tiny(tmp_path)


def test_recipe_takes_settings():
    changed = override(tiny_recipe(), {"trainer.steps": "7", "model.rank": "4"})
    assert (changed.trainer.steps, changed.model.rank) == (7, 4)
    assert dataclasses.replace(changed, trainer=tiny_recipe().trainer, model=TinyConfig()) == tiny_recipe()
