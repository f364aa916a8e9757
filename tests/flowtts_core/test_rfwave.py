"""RFWave: parity with the published network, bands, equalisers and sampler, and its import.

The reference's weights are random, and the network is shown sines of its input at up to 804 radians a unit, so rounding is
enlarged a thousandfold a step: where FFTs take part in the steps, audio is compared with what one rounding of the noise does.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save
from torch import Tensor

from flowtts_core.audio.mel import VOCOS_24K, MelConfig
from flowtts_core.config import build
from flowtts_core.engines.runtime import export_graph, open_runners
from flowtts_core.errors import ConfigError, VoiceError
from flowtts_core.flow import TIME_GRIDS
from flowtts_core.training.batches import share_of
from flowtts_core.training.distributed import Ranks
from flowtts_core.vocoder.band_velocity import average_velocity
from flowtts_core.vocoder.importers import import_rfwave
from flowtts_core.vocoder.rfwave import RFWave, RFWaveConfig
from tests.thread_ranks import together

TEN = math.log(10)  # published mels have decimal logarithms


def weights_of(parity_dir: Path, variant: str) -> dict[str, Tensor]:
    both = load_file(parity_dir / "rfwave/weights.safetensors")
    wave = {name.removeprefix("wave."): tensor for name, tensor in both.items() if name.startswith("wave.")}
    if variant == "wave":
        return wave
    own = {name.removeprefix("freq."): tensor for name, tensor in both.items() if name.startswith("freq.")}
    return {**own, **{name: tensor for name, tensor in wave.items() if name.startswith("backbone.")}}


def saved(parity_dir: Path, folder: Path, variant: str, **more: Tensor) -> Path:
    """Write the reference's weights as a checkpoint of the published training, whose backbone is compiled."""
    named = {
        f"reflow.{k.replace('backbone.', 'backbone._orig_mod.')}": t for k, t in weights_of(parity_dir, variant).items()
    }
    others = {"rvm.x": torch.ones(1), "feature_extractor.mel_spec.spectrogram.window": torch.ones(256)}
    torch.save({"state_dict": {**named, **others, **more}, "epoch": 3}, folder / "last.ckpt")
    return folder / "last.ckpt"


def published(parity_dir: Path, folder: Path, variant: str, **changed: Any) -> tuple[RFWave, dict[str, Tensor]]:
    """Return the reference as it is published: it reads mels of decimal logarithms."""
    model = import_rfwave(saved(parity_dir, folder, variant), steps=3).changed(**changed).vocoder()
    assert isinstance(model, RFWave)
    model.backbone.embed.weight.data.copy_(weights_of(parity_dir, variant)["backbone.embed.weight"])
    return model.requires_grad_(False), load_file(parity_dir / "rfwave/io.safetensors")


@pytest.mark.parametrize("variant", ["wave", "freq"])
def test_parts_equal_the_published_ones(variant: str, parity_dir: Path, tmp_path: Path) -> None:
    model, io = published(parity_dir, tmp_path, variant)
    bands = io[f"{variant}.bb.bandwidth_id"].long()
    made = model.backbone(io[f"{variant}.bb.z_t"], io[f"{variant}.bb.t"], io["mel"].repeat_interleave(4, 0), bands)
    torch.testing.assert_close(made, io[f"{variant}.bb.out"], atol=1e-4, rtol=0)
    equalised = model.equalised(io[f"{variant}.audio_in"], io["mel"])
    torch.testing.assert_close(equalised, io[f"{variant}.eq_norm_stft"], atol=1e-4, rtol=0)
    torch.testing.assert_close(model.sound(equalised, io["mel"]), io[f"{variant}.back"], atol=1e-4, rtol=0)
    if variant == "wave":
        joint = model.split(equalised).reshape(2, -1, 24)
        torch.testing.assert_close(joint, io["wave.joint_subband"], atol=1e-4, rtol=0)
    assert torch.equal(model.join(model.split(equalised)), equalised)


def test_equals_the_published_sampler_of_spectra(parity_dir: Path, tmp_path: Path) -> None:
    model, io = published(parity_dir, tmp_path, "freq")
    torch.testing.assert_close(model.sample(io["mel"], io["freq.noise"]), io["freq.audio"], atol=1e-4, rtol=0)
    guided, _ = published(parity_dir, tmp_path, "freq", guidance=1.5)
    made = guided.sample(io["mel"], io["freq_cfg.noise"])
    torch.testing.assert_close(made, io["freq_cfg.audio"], atol=1e-4, rtol=0)


def test_equals_the_published_sampler_of_waveforms_within_its_own_rounding(parity_dir: Path, tmp_path: Path) -> None:
    model, io = published(parity_dir, tmp_path, "wave")
    noise = io["wave.noise"]
    made = model.sample(io["mel"], noise)
    rounded = model.sample(io["mel"], noise * (1 + 1.2e-7))  # the last bit of each
    away, alone = (made - io["wave.audio"]).norm(), (made - rounded).norm()
    assert away < 2 * alone
    assert alone < 0.1 * made.norm()


def test_an_imported_model_reads_natural_logarithms(parity_dir: Path, tmp_path: Path) -> None:
    imported, io = import_rfwave(saved(parity_dir, tmp_path, "wave")), load_file(parity_dir / "rfwave/io.safetensors")
    assert imported.config == RFWaveConfig(
        replace(VOCOS_24K, n_fft=256, win_length=256, hop_length=64, n_mels=20), 4, 8, 32, 64, 2
    )
    model = imported.vocoder()
    mel, bands = io["mel"].repeat_interleave(4, 0) * TEN, io["wave.bb.bandwidth_id"].long()
    with torch.no_grad():
        made = model.backbone(io["wave.bb.z_t"], io["wave.bb.t"], mel, bands)
    torch.testing.assert_close(made, io["wave.bb.out"], atol=1e-4, rtol=0)


def settings(**changed: Any) -> dict[str, Any]:
    mel = {"sample_rate": 22050, "n_fft": 256, "hop_length": 64, "n_mels": 20, "padding": "center"}
    backbone = {"dim": 32, "num_bands": 4, "pe_scale": 1000.0}
    kinds = {"extractor": "MelSpectrogramFeatures", "backbone": "VocosRFBackbone"} | changed.pop("kinds", {})
    return {
        "model": {
            "init_args": {
                "guidance_scale": changed.pop("guidance", 1.0),
                "feature_extractor": {
                    "class_path": f"rfwave.feature_extractors.{kinds['extractor']}",
                    "init_args": {**mel, **changed.pop("mel", {})},
                },
                "backbone": {"class_path": f"rfwave.models.{kinds['backbone']}", "init_args": {**backbone, **changed}},
            }
        }
    }


def test_settings_are_read_and_held_against_the_tensors(parity_dir: Path, tmp_path: Path) -> None:
    path = saved(parity_dir, tmp_path, "freq")

    def read(**changed: Any) -> RFWaveConfig:
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings(**changed)))
        config: RFWaveConfig = import_rfwave(path).config
        return config

    assert (read().mel.sample_rate, read(guidance=1.5).guidance, read().wave) == (22050, 1.5, False)
    for changed, message in (
        ({"mel": {"n_mels": 80}}, "n_mels 20 by its tensors, but 80"),
        ({"kinds": {"extractor": "EncodecFeatures"}}, "EncodecFeatures"),
        ({"kinds": {"backbone": "DiTRFBackbone"}}, "DiTRFBackbone"),
        ({"dilation": [1, 2]}, "dilation"),
        ({"pe_scale": 1.0}, "pe_scale"),
    ):
        with pytest.raises(VoiceError, match=message):
            read(**changed)
    (tmp_path / "config.yaml").unlink()
    bank = torch.ones(129, 20)
    with pytest.raises(VoiceError, match="its mel filters are not"):
        import_rfwave(saved(parity_dir, tmp_path, "freq", **{"feature_extractor.mel_spec.mel_scale.fb": bank}))
    with pytest.raises(VoiceError, match=r"unknown 1 \(backbone.convnext_adaptor.0.x\)"):
        import_rfwave(saved(parity_dir, tmp_path, "freq", **{"reflow.backbone.convnext_adaptor.0.x": bank}))
    filters = {"reflow.eq_processor.pqmf.analysis_filter": torch.ones(8, 1, 125)}
    with pytest.raises(VoiceError, match="other filters"):
        import_rfwave(saved(parity_dir, tmp_path, "wave", **filters))
    torch.save({"generator": {"a": torch.ones(2)}}, tmp_path / "c")
    with pytest.raises(VoiceError, match="no RFWave of mels"):
        import_rfwave(tmp_path / "c")


def test_sizes_that_do_not_go_together_are_refused() -> None:
    small = RFWaveConfig(mel=MelConfig())
    for changed, message in (
        ({"bands": 7}, "bands = 7"),
        ({"overlap": 65}, "overlap of 65"),
        ({"dim": 3}, "even dim"),
        ({"steps": 0}, "1 to 1000 steps"),
        ({"solver": "rk4"}, "unknown name 'rk4'"),
    ):
        with pytest.raises(ConfigError) as caught:
            replace(small, **changed)
        assert message in f"{caught.value.message}; {caught.value.remedy}"


def test_the_equaliser_gives_the_waveform_back() -> None:
    model = RFWave(RFWaveConfig(mel=MelConfig(), dim=8, intermediate_dim=8, num_layers=1))
    model.equaliser.variance.fill_(4.0)
    waveform = torch.randn(1, 8192, generator=torch.Generator().manual_seed(0))
    again = model.equaliser.undo(model.equaliser(waveform))
    inside = slice(500, -500)
    assert (again - waveform)[:, inside].norm() < 0.03 * waveform[:, inside].norm()


def test_a_published_model_is_of_the_published_size() -> None:
    model = RFWave(RFWaveConfig())
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(18.1, abs=0.2)


@pytest.mark.parametrize("variant", ["wave", "freq"])
def test_losses_equal_the_published_ones(variant: str, parity_dir: Path, tmp_path: Path) -> None:
    model, io = published(parity_dir, tmp_path, variant)
    t = io[f"{variant}.train.t"].view(2, 4)
    assert torch.equal(t, t[:, :1].expand(2, 4))  # one time for all bands of an item
    losses = model.losses_at(io["mel"], io[f"{variant}.audio_in"], t[:, 0], io[f"{variant}.train.noise"])
    for own, theirs in (("flow", "rf"), ("overlap", "overlap"), ("stft", "stft")):
        torch.testing.assert_close(losses[own], io[f"{variant}.train.{theirs}_loss"], atol=1e-4, rtol=1e-4)
    assert losses["loss"] == pytest.approx(losses["flow"] + 0.01 * (losses["overlap"] + losses["stft"]))


SMALL = RFWaveConfig(
    mel=MelConfig(24000, n_fft=256, win_length=256, hop_length=64, n_mels=20),
    bands=4,
    overlap=4,
    dim=16,
    intermediate_dim=32,
    num_layers=1,
    steps=3,
)


def fresh(**changed: Any) -> RFWave:
    torch.manual_seed(0)
    model = RFWave(replace(SMALL, **changed))
    for name, weight in model.named_parameters():
        if "grn" in name:
            weight.data.normal_(0, 0.5)  # which begin at zero, as if there were no normalisation
    return model.eval()


@pytest.mark.parametrize("padding", ["same", "center"])
@pytest.mark.parametrize("wave", [True, False])
@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_norms_of_frames_let_it_stream(solver: str, wave: bool, padding: str) -> None:
    mel_config = replace(SMALL.mel, padding=padding)
    model = fresh(mel=mel_config, frame_norm=True, wave=wave, solver=solver, steps=2, embed_kernel=3)
    assert fresh(wave=wave).context_frames is None and fresh(frame_norm=True, guidance=2.0).context_frames is None
    beside, hop, low = model.context_frames, 64, 500
    assert beside is not None
    mel = torch.randn(1, 20, 640, generator=torch.Generator().manual_seed(1)) - 4
    with torch.no_grad():
        whole = model(mel)
        part = model(mel[:, :, low:600], start=model.start_at(mel[0], low)[None])
        inside = slice(beside * hop, (100 - beside) * hop)
        torch.testing.assert_close(part[:, inside], whole[:, low * hop : 600 * hop][:, inside], atol=1e-4, rtol=0)
        # frames nearer to the end depend on what is missing: the context is not much more than it must be
        assert (part - whole[:, low * hop :][:, : part.shape[1]])[:, -hop * (beside // 2) :].abs().max() > 1e-4


def batch(count: int, frames: int = 24) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    waveform = 0.1 * torch.randn(count, frames * 64, generator=generator)
    return torch.randn(count, 20, frames, generator=generator), waveform


@pytest.mark.parametrize("wave", [True, False])
def test_losses_gradients_and_statistics_do_not_depend_on_the_number_of_workers(wave: bool) -> None:
    def work(ranks: Ranks) -> dict[str, Tensor]:
        model = fresh(wave=wave, guidance=1.5, unconditional=0.5, fourier=False).train()  # sines enlarge rounding
        mel, waveform = batch(5)
        share = share_of(np.full(5, 24), ranks)
        rows = slice(None) if share is None else share.rows
        losses = model.loss(mel[rows], waveform[rows], torch.Generator().manual_seed(7), share)
        losses["loss"].backward()
        weights = [weight for weight in model.parameters() if weight.grad is not None]
        ranks.sum_gradients(weights)
        statistics = torch.stack([model.equaliser.mean, model.equaliser.variance])
        gradient = torch.cat([weight.grad.flatten() for weight in weights])
        return {name: loss.detach() for name, loss in losses.items()} | {"gradient": gradient, "statistics": statistics}

    [alone] = together(1, work)
    for size in (2, 3, 8):
        for found in together(size, work):
            apart = {name: float((v - alone[name]).norm() / alone[name].norm()) for name, v in found.items()}
            assert max(apart.values()) < 1e-4, apart


def test_the_equaliser_learns_the_levels_of_what_it_hears_in_training_alone() -> None:
    model, (mel, waveform) = fresh(wave=False), batch(4)
    spectrum = model.stft(waveform)
    model.loss(mel, waveform, torch.Generator().manual_seed(0))
    assert torch.equal(model.equaliser.variance, torch.ones(258))
    model.train()
    model.loss(mel, waveform, torch.Generator().manual_seed(0))
    rows = spectrum.transpose(0, 1).flatten(1)
    torch.testing.assert_close(model.equaliser.variance, rows.var(1))  # the first batch's own
    model.equaliser.gather(3 * spectrum)
    torch.testing.assert_close(model.equaliser.variance, (0.99 + 0.01 * 9) * rows.var(1))
    model.equaliser.gather(spectrum)
    flat = model.equalised(waveform, mel)
    assert flat.mean((0, 2)).abs().max() < 0.02
    torch.testing.assert_close(flat[:, 1:128].var((0, 2)), torch.ones(127), atol=0.1, rtol=0)


def test_mels_are_dropped_where_guidance_is_meant_to_be_used() -> None:
    mel, waveform = batch(3)
    mean = mel.mean(2, keepdim=True).expand_as(mel)

    def loss(model: RFWave, mel: Tensor) -> Tensor:
        return model.loss(mel, waveform, torch.Generator().manual_seed(0))["loss"]

    dropping = fresh(guidance=1.5, unconditional=0.999)
    assert torch.equal(loss(dropping, mel), loss(dropping, mean))
    for keeping in (fresh(guidance=1.0, unconditional=0.999), fresh(guidance=1.5, unconditional=0.0)):
        assert not torch.equal(loss(keeping, mel), loss(keeping, mean))


@pytest.mark.parametrize("guidance", [1.0, 1.5])
def test_its_graph_gives_what_torch_gives(guidance: float, tmp_path: Path) -> None:
    model = fresh(guidance=guidance)
    weights = save({name: tensor.contiguous() for name, tensor in model.state_dict().items()})
    (tmp_path / "w").write_bytes(weights)
    for name, graph in model.graphs().items():
        (tmp_path / name).write_bytes(export_graph(graph, "w", weights))
    mel, lengths = torch.randn(2, 20, 41) - 4, torch.tensor([41, 30])
    with torch.no_grad():
        torchs = model(mel, lengths)
        model.runners = open_runners(tmp_path, {"velocity": "velocity"})
        torch.testing.assert_close(model(mel, lengths), torchs, atol=1e-4, rtol=0)


def test_it_measures_a_grid_that_its_config_can_hold() -> None:
    model = fresh()
    mel = torch.randn(2, 20, 30) - 4
    grid = model.straightness(mel, parts=12)
    assert len(grid.density) == 12 and min(grid.density) > 0
    spec = {"name": "straightness", "density": list(grid.density)}
    held = fresh(grid=spec)
    uneven = held.sample(mel, held.noise(mel))
    assert torch.equal(uneven, model.sample(mel, model.noise(mel), build(TIME_GRIDS, spec).times(3)))
    assert not torch.equal(uneven, model.sample(mel, model.noise(mel)))


def test_the_average_velocity_is_the_best_linear_guess() -> None:
    x_0, x_1 = torch.randn(2, 5, 40_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.tensor([0.0, 0.2, 0.5, 0.8, 1.0], dtype=torch.float64)
    z, velocity = t[:, None] * x_1 + (1 - t)[:, None] * x_0, x_1 - x_0
    slope = (z * velocity).mean(1) / z.square().mean(1)
    torch.testing.assert_close(average_velocity(z, t), slope[:, None] * z, atol=0.08, rtol=0)
    plain, added = fresh(skip=False), fresh(skip=True)
    given = (torch.randn(4, 80, 9), torch.rand(4), torch.randn(4, 20, 9), torch.arange(4))
    difference = added.backbone(*given) - plain.backbone(*given)
    torch.testing.assert_close(difference, average_velocity(*given[:2]), atol=1e-5, rtol=0)
