"""WaveFM: parity with the published network and sampler, its import, and its noise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from flowtts_core.audio.mel import MelConfig
from flowtts_core.errors import ConfigError, VoiceError
from flowtts_core.vocoder.importers import import_wavefm
from flowtts_core.vocoder.wavefm import WAVEFM_24K, WaveFM, WaveFMConfig

SMALL = WaveFMConfig(channels=(16, 8, 4), upsample_rates=(16, 16), kernel_sizes=(3,), time_channels=8)


def saved(parity_dir: Path, folder: Path, **beside: Any) -> Path:
    """Write the reference's weights as the published training does."""
    weights = load_file(parity_dir / "wavefm/weights.safetensors")
    torch.save({"velocity": weights, "step": 1_000_000, **beside}, folder / "WaveFM_1000000")
    return folder / "WaveFM_1000000"


def test_equals_the_published_network(parity_dir: Path, tmp_path: Path) -> None:
    io, imported = load_file(parity_dir / "wavefm/io.safetensors"), import_wavefm(saved(parity_dir, tmp_path))
    model = imported.vocoder()
    assert isinstance(model, WaveFM) and model.features == replace(WAVEFM_24K, n_mels=20)
    with torch.no_grad():
        torch.testing.assert_close(model.loudness(io["mel"]).repeat_interleave(256, 2), io["sigma"], atol=1e-7, rtol=0)
        for t in (0.0, 0.45):
            clean = model.net((io["sigma"] * io["noise"])[:, 0], torch.tensor([t]), io["mel"])
            torch.testing.assert_close(clean, io[f"velocity.t{t}"][:, 0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("steps", [1, 3])
def test_equals_the_published_sampler(steps: int, parity_dir: Path, tmp_path: Path) -> None:
    """The times are given, since the embedding multiplies them by a million, so that their last bit is heard."""
    io = load_file(parity_dir / "wavefm/io.safetensors")
    model = import_wavefm(saved(parity_dir, tmp_path), steps).vocoder()
    times = torch.arange(steps + 1) / steps
    assert isinstance(model, WaveFM)
    with torch.no_grad():
        made = model.sample(io["mel"], io["noise"][:, 0], times=times)
        own = model.sample(io["mel"], io["noise"][:, 0])
    torch.testing.assert_close(made, io[f"sample.steps{steps}"][:, 0], atol=1e-4, rtol=0)
    torch.testing.assert_close(own, made, atol=1e-3, rtol=0)


def test_a_distilled_checkpoint_takes_one_step(parity_dir: Path, tmp_path: Path) -> None:
    assert import_wavefm(saved(parity_dir, tmp_path)).config.steps == 6
    distilled = import_wavefm(saved(parity_dir, tmp_path, distilled=True))
    assert distilled.config.steps == 1 and "takes 1 steps" in distilled.assumed
    assert import_wavefm(saved(parity_dir, tmp_path, distilled=True), 4).config.steps == 4


def test_a_published_model_is_of_the_published_size() -> None:
    model = WaveFM(WaveFMConfig())
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(19.5, abs=0.05)


def test_what_does_not_fit_is_refused(parity_dir: Path, tmp_path: Path) -> None:
    weights = load_file(parity_dir / "wavefm/weights.safetensors")
    torch.save({"velocity": {k: v for k, v in weights.items() if k != "convDownIn.bias"}}, tmp_path / "a")
    with pytest.raises(VoiceError, match="missing 1 .net.wave_in.bias."):
        import_wavefm(tmp_path / "a")
    torch.save({"velocity": {k: v for k, v in weights.items() if ".blocks.8." not in k}}, tmp_path / "b")
    with pytest.raises(VoiceError, match="8 residual blocks"):
        import_wavefm(tmp_path / "b")
    torch.save({"generator": {"a": torch.ones(2)}}, tmp_path / "c")
    with pytest.raises(VoiceError, match="no WaveFM"):
        import_wavefm(tmp_path / "c")
    with pytest.raises(ConfigError, match="the mel's hop is 300"):
        WaveFM(replace(SMALL, mel=MelConfig(hop_length=300)))
    with pytest.raises(ConfigError, match="2 channels for 2 rates"):
        WaveFM(replace(SMALL, channels=(8, 4)))
    for changed, message in (
        ({"solver": "heun"}, "'heun'"),
        ({"steps": 0}, "steps = 0"),
        ({"kernel_sizes": (2,)}, r"\[2\]"),
    ):
        with pytest.raises(ConfigError, match=message):
            replace(SMALL, **changed)


def test_a_second_order_step_lies_near_many_small_ones() -> None:
    torch.manual_seed(0)
    mel = torch.randn(1, 100, 4) - 4
    exact, midpoint, euler = (
        WaveFM(replace(SMALL, steps=steps, solver=solver)).eval()
        for steps, solver in ((64, "midpoint"), (4, "midpoint"), (4, "euler"))
    )
    with torch.no_grad():
        for model in (midpoint, euler):
            model.load_state_dict(exact.state_dict())
        true = exact(mel)
        assert (midpoint(mel) - true).norm() < (euler(mel) - true).norm()


def test_noise_follows_the_loudness_of_the_mel() -> None:
    """By energy: a mel of amplitudes gives what one of powers does."""
    powers = torch.randn(1, 100, 5) - 2
    loud = WaveFM(SMALL).loudness(powers)
    amplitudes = WaveFM(replace(SMALL, mel=replace(WAVEFM_24K, power=1.0))).loudness(powers / 2)
    torch.testing.assert_close(loud, amplitudes)
    assert (WaveFM(SMALL).loudness(powers - 40) == 0.001).all()
