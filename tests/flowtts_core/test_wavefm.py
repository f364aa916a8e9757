"""WaveFM: parity with the published network, sampler and loss, its import, its noise, and what it learns from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from flowtts_core.audio.mel import BIGVGAN_24K, F5_24K, WAVEFM_24K, LogMel, MelConfig
from flowtts_core.errors import ConfigError, FlowTTSError, VoiceError
from flowtts_core.flow import Consistency
from flowtts_core.vocoder.diffusion import Diffusion, DiffusionConfig
from flowtts_core.vocoder.importers import import_wavefm
from flowtts_core.vocoder.losses import PhaseSTFTLoss
from flowtts_core.vocoder.wavefm import WaveFM, WaveFMConfig

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
    """By energy: mels of amplitudes and those of normalised bands give what WaveFM's own of powers does."""
    noise = torch.randn(1, 24_000, generator=torch.Generator().manual_seed(0))
    quieter = torch.tensor([1.0, 0.1]).repeat_interleave(12_000)
    loud = WaveFM(SMALL).loudness(LogMel(WAVEFM_24K)(0.1 * noise * quieter))[0, 0]
    assert loud[5:40].mean() / loud[-40:-5].mean() == pytest.approx(10, rel=0.05)
    for mel in (F5_24K, BIGVGAN_24K, replace(BIGVGAN_24K, power=2.0)):
        own = WaveFM(replace(SMALL, mel=mel)).loudness(LogMel(mel)(0.1 * noise * quieter))[0, 0]
        assert own[5:40].mean() / loud[5:40].mean() == pytest.approx(1, abs=0.1)
    assert (WaveFM(SMALL).loudness(torch.full((1, 100, 5), -40.0)) == 0.001).all()


def test_equals_the_published_distance_of_stfts(parity_dir: Path) -> None:
    io, loss = load_file(parity_dir / "wavefm/io.safetensors"), PhaseSTFTLoss()
    predicted, target = io["sample.steps3"][:, 0].requires_grad_(), io["stft_loss.answer"][:, 0]
    value = loss(predicted, target)
    torch.testing.assert_close(value, io["stft_loss.value"], atol=1e-4, rtol=0)
    value.backward()
    assert predicted.grad.isfinite().all()
    assert loss(target, target) < 1e-6 and loss(torch.zeros(1, 4096), torch.zeros(1, 4096)) == 0


def test_loss_of_a_net_that_knows_is_zero_and_of_one_that_errs_is_heavier_late(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, mel, waveform = WaveFM(SMALL), torch.randn(3, 100, 9) - 4, 0.1 * torch.randn(3, 2048)
    seen = []

    def net(error: float) -> Any:
        def clean(x: torch.Tensor, t: torch.Tensor, mel: torch.Tensor, mask: None = None) -> torch.Tensor:
            seen.append((x, t, mel))
            return waveform + error

        return clean

    monkeypatch.setattr(model.net, "forward", net(0.0))
    losses = model.loss(mel, waveform, torch.Generator().manual_seed(1))
    assert all(float(value) < 1e-6 for value in losses.values())
    monkeypatch.setattr(model.net, "forward", net(0.2))
    losses = model.loss(mel, waveform, torch.Generator().manual_seed(1))
    (x, t, frames), again = seen
    assert all(map(torch.equal, (x, t, frames), again))  # the draws are the generator's
    assert frames.shape[-1] == 8  # a "center" mel has a frame more than its samples fill
    weights = 1 / (1 - t).clamp(min=0.1)
    torch.testing.assert_close(losses["wave"], (0.04 * weights).mean())
    torch.testing.assert_close(losses["loss"], losses["wave"] + 0.02 * (losses["mel"] + losses["stft"]))
    noise = (x - t[:, None] * waveform) / (1 - t)[:, None]
    loud = model.loudness(frames)[:, 0].repeat_interleave(256, 1)
    assert (noise / loud).std() == pytest.approx(1, abs=0.05)


def test_a_student_learns_from_its_average_and_touches_no_other() -> None:
    torch.manual_seed(0)
    teacher, target, student = (WaveFM(SMALL) for _ in range(3))
    mel, waveform = torch.randn(2, 100, 9) - 4, 0.1 * torch.randn(2, 2048)
    losses = student.consistency_loss(mel, waveform, teacher, target, Consistency(), torch.Generator().manual_seed(0))
    losses["loss"].backward()
    assert all(weight.grad is None for other in (teacher, target) for weight in other.parameters())
    assert all(weight.grad is not None and weight.grad.any() for weight in student.net.out.parameters())
    # of a target that agrees with its student nothing is learnt but at the ends of paths
    how = Consistency(gap=1e-7, latest=1 - 1e-6)
    same = student.consistency_loss(mel, waveform, teacher, student, how, torch.Generator().manual_seed(0))
    assert same["wave"] < 1e-6 < losses["wave"]
    other = Diffusion(DiffusionConfig(channels=(16, 8, 4), upsample_rates=(16, 16)))
    with pytest.raises(FlowTTSError, match="Diffusion cannot be distilled"):
        other.consistency_loss(mel, waveform, other, other, how)
