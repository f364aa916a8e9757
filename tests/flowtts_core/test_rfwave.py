"""RFWave: parity with the published network, bands, equalisers and sampler, and its import.

The reference's weights are random, and the network is shown sines of its input at up to 804 radians a unit, so rounding is
enlarged a thousandfold a step: where FFTs take part in the steps, audio is compared with what one rounding of the noise does.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from flowtts_core.audio.mel import VOCOS_24K, MelConfig
from flowtts_core.errors import ConfigError, VoiceError
from flowtts_core.vocoder.importers import import_rfwave
from flowtts_core.vocoder.rfwave import RFWave, RFWaveConfig

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
    equalised = model.equalised(io[f"{variant}.audio_in"])
    torch.testing.assert_close(equalised, io[f"{variant}.eq_norm_stft"], atol=1e-4, rtol=0)
    torch.testing.assert_close(model.sound(equalised), io[f"{variant}.back"], atol=1e-4, rtol=0)
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
