"""Published vocoders: their checkpoints run as published, and what does not fit is refused with its reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

from flowtts_core.audio.mel import VOCOS_24K, MelConfig
from flowtts_core.errors import VoiceError
from flowtts_core.vocoder.files import load_vocoder
from flowtts_core.vocoder.hifigan import HIFIGAN_V2, HIFIGAN_V3, HiFiGAN
from flowtts_core.vocoder.importers import import_hifigan, import_vocos


def hifigan_of(parity_dir: Path, folder: Path, **changed: Any) -> tuple[dict[str, Tensor], Path]:
    """Return the reference's weights, and a folder's config.json of them with some settings changed or (None) left out."""
    settings = json.loads((parity_dir / "hifigan/config.json").read_text())["v1_tiny"]
    kept = {k: v for k, v in {**settings, **changed}.items() if k not in changed or v is not None}
    (folder / "config.json").write_text(json.dumps(kept))
    return load_file(parity_dir / "hifigan/weights.safetensors"), folder / "generator_v1"


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors", "parametrized"])
def test_hifigan_runs_as_published(form: str, parity_dir: Path, tmp_path: Path) -> None:
    weights, path = hifigan_of(parity_dir, tmp_path)
    if form == "safetensors":
        path = path.with_suffix(".safetensors")
        save_file(weights, path)
    elif form == "parametrized":
        names = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
        head = {k: k.rpartition(".") for k in weights}
        torch.save({f"{a}.{names.get(b, b)}": weights[k] for k, (a, _, b) in head.items()}, path)
    else:
        torch.save({"generator": weights}, path, _use_new_zipfile_serialization=form == "zip")
    imported = import_hifigan(path)
    assert imported.config.mel == MelConfig() and not imported.assumed
    imported.changed(denoise=0.1).save(tmp_path / "vocoder", licence="MIT")
    loaded, io = load_vocoder(tmp_path / "vocoder").vocoder, load_file(parity_dir / "hifigan/io.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(imported.vocoder()(io["mel"]), io["audio_out"][:, 0], atol=1e-4, rtol=0)
        torch.testing.assert_close(loaded(io["mel"]), io["denoiser.out_strength0.1"], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_mels": 100}, r"of another shape 1 \(generator.conv_pre.weight: \(32, 80, 7\), not \(32, 100, 7\)\)"),
        ({"hop_size": 300}, "make 256 samples of a frame, but the mel's hop is 300"),
        ({"resblock_kernel_sizes": [3, 7]}, "3 rows of resblock_dilation_sizes"),
        ({"resblock": "2"}, "missing .*unknown"),
        ({"sampling_rate": None}, "config.json: has no 'sampling_rate'"),
        ({"fmax": "high"}, "config.json: damaged"),
        ({"fmax": 20000}, ""),
    ],
)
def test_a_hifigan_that_does_not_fit_its_settings_is_refused(
    changed: dict[str, Any], message: str, parity_dir: Path, tmp_path: Path
) -> None:
    weights, path = hifigan_of(parity_dir, tmp_path, **changed)
    torch.save({"generator": weights}, path)
    if not message:  # what no tensor shows is believed
        assert import_hifigan(path).config.mel.f_max == 20000
        return
    with pytest.raises(VoiceError, match=message):
        import_hifigan(path)


def test_published_generators_are_known_without_settings(parity_dir: Path, tmp_path: Path) -> None:
    for config, version in ((HIFIGAN_V2, "V2"), (HIFIGAN_V3, "V3")):
        torch.save({"generator": HiFiGAN(config).generator.state_dict()}, tmp_path / version)
        imported = import_hifigan(tmp_path / version)
        assert imported.config == config and f"by its tensors it is {version}" in imported.assumed
    torch.save({"generator": load_file(parity_dir / "hifigan/weights.safetensors")}, tmp_path / "g")
    with pytest.raises(VoiceError, match=r"none of V1, V2, V3 .*"):
        import_hifigan(tmp_path / "g")
    torch.save({"mpd": {"a": torch.ones(1)}, "steps": 3}, tmp_path / "do_0001")
    with pytest.raises(VoiceError, match="holds no tensors"):
        import_hifigan(tmp_path / "do_0001")
    torch.save({"generator": {"a": torch.ones(1)}}, tmp_path / "other")
    with pytest.raises(VoiceError, match="no HiFi-GAN generator") as caught:
        import_hifigan(tmp_path / "other")
    assert "not its discriminators" in caught.value.remedy
    with pytest.raises(VoiceError, match="No such file"):
        import_hifigan(tmp_path / "V2", tmp_path / "absent.json")
    (tmp_path / "wrong.json").write_text("{")
    with pytest.raises(VoiceError, match="neither JSON nor YAML"):
        import_hifigan(tmp_path / "V2", tmp_path / "wrong.json")


def vocos_settings(padding: str = "center", **mel: Any) -> dict[str, Any]:
    sizes = {"n_fft": 1024, "hop_length": 256, "padding": padding}
    return {
        "feature_extractor": {
            "class_path": "vocos.feature_extractors.MelSpectrogramFeatures",
            "init_args": {"sample_rate": 24000, "n_mels": 100, **sizes, **mel},
        },
        "backbone": {"class_path": "vocos.models.VocosBackbone", "init_args": {"dim": 64}},
        "head": {"class_path": "vocos.heads.ISTFTHead", "init_args": {"dim": 64, **sizes}},
    }


@pytest.mark.parametrize("padding", ["center", "same", "unstated", "training"])
def test_vocos_runs_as_published(padding: str, parity_dir: Path, tmp_path: Path) -> None:
    weights, io = (load_file(parity_dir / f"vocos/{name}.safetensors") for name in ("weights", "io"))
    if padding == "training":
        weights["multiperioddisc.discriminators.0.conv_post.bias"] = torch.ones(1)
        torch.save({"state_dict": weights}, tmp_path / "pytorch_model.bin")
    else:
        torch.save(weights, tmp_path / "pytorch_model.bin")
    if padding != "unstated":
        settings = vocos_settings("same" if padding == "same" else "center")
        settings = {"model": {"init_args": settings}} if padding == "training" else settings
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    imported = import_vocos(tmp_path / "pytorch_model.bin")
    kind = "same" if padding == "same" else "center"
    assert imported.config.mel.padding == kind and bool(imported.assumed) == (padding == "unstated")
    if kind == "center":
        assert imported.config.mel == VOCOS_24K
    with torch.no_grad():
        made = imported.vocoder()(io[f"mel.{kind}"])
    torch.testing.assert_close(made, io[f"audio_out.{kind}"], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("mel", "message"),
    [
        ({"sample_rate": 22050}, "mel filters are not those of 100 bands at 22050 Hz"),
        ({"n_mels": 80}, "100 bands by its tensors, but 1024 and 80 by its settings"),
        ({"hop_length": 320}, "its mel has hop_length 320, its head 256"),
        ({"padding": "valid"}, "use 'same' or 'center'"),
    ],
)
def test_a_vocos_that_does_not_fit_its_settings_is_refused(
    mel: dict[str, Any], message: str, parity_dir: Path, tmp_path: Path
) -> None:
    save_file(load_file(parity_dir / "vocos/weights.safetensors"), tmp_path / "model.safetensors")
    settings = vocos_settings(**mel)
    if "padding" in mel:
        settings["head"]["init_args"]["padding"] = mel["padding"]
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(VoiceError) as caught:
        import_vocos(tmp_path / "model.safetensors", tmp_path / "own.yaml")
    assert message in f"{caught.value.message}; {caught.value.remedy}"


def test_a_vocos_of_codes_is_refused(parity_dir: Path, tmp_path: Path) -> None:
    weights = load_file(parity_dir / "vocos/weights.safetensors")
    save_file({**weights, "feature_extractor.encodec.x": torch.ones(1)}, tmp_path / "codes.safetensors")
    with pytest.raises(VoiceError, match="a Vocos of EnCodec's codes"):
        import_vocos(tmp_path / "codes.safetensors")
    settings = vocos_settings()
    settings["feature_extractor"]["class_path"] = "vocos.feature_extractors.EncodecFeatures"
    save_file(weights, tmp_path / "mels.safetensors")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(VoiceError, match="EncodecFeatures"):
        import_vocos(tmp_path / "mels.safetensors")
    save_file({**weights, "backbone.pos_net.0.weight": torch.ones(1)}, tmp_path / "other.safetensors")
    (tmp_path / "config.yaml").unlink()
    with pytest.raises(VoiceError, match=r"unknown 1 \(backbone.pos_net.0.weight\)"):
        import_vocos(tmp_path / "other.safetensors")
