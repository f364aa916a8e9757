"""Published codecs: their checkpoints run as published, and what does not fit is refused with its reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import flowtts_core.audio.torchaudio_import  # noqa: F401  # before transformers, which imports torchaudio
from flowtts_core.codec.files import load_codec
from flowtts_core.codec.importers import (
    IMPORTERS,
    import_dac,
    import_encodec,
    import_facodec,
    import_mimi,
    import_wavtokenizer,
)
from flowtts_core.errors import VoiceError


def sound_of(samples: int, channels: int = 1) -> Tensor:
    return 0.3 * torch.randn(1, channels, samples, generator=torch.Generator().manual_seed(2))


def rescaled(model: Any) -> Any:
    """A tiny random model whose output depends on all its weights."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in [*model.named_parameters(), *model.named_buffers()]:
            if name.endswith(("embed", "embed_sum", "codebook.weight")):
                weight.copy_(torch.randn(weight.shape, generator=generator))
            elif name.endswith(("cluster_usage", "cluster_size")):
                weight.copy_(1 + torch.rand(weight.shape, generator=generator))
            elif "scale" in name or "alpha" in name:
                weight.copy_(0.5 + torch.rand(weight.shape, generator=generator))
            elif weight.dim() > 1:
                weight.mul_(2.0)
    return model.eval()


@torch.no_grad()
@pytest.mark.parametrize("causal", [True, False])
def test_encodec_of_transformers_runs_as_there(causal: bool, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 8,
        "num_filters": 4,
        "upsampling_ratios": [4, 2],
        "codebook_size": 16,
        "codebook_dim": 8,
        "target_bandwidths": [60.0],
        "num_lstm_layers": 1,
        "use_causal_conv": causal,
        "norm_type": "weight_norm" if causal else "time_group_norm",
        "num_residual_layers": 2,
    }
    reference = rescaled(transformers.EncodecModel(transformers.EncodecConfig(**sizes)))
    reference.save_pretrained(tmp_path)
    imported = import_encodec(tmp_path / "model.safetensors")
    assert not imported.assumed and imported.config.seanet.causal == causal
    codec, audio = imported.codec(), sound_of(400)
    encoded = codec.encode(audio)
    published = reference.encode(audio, bandwidth=60.0).audio_codes[0]
    assert torch.equal(encoded.codes, published) and len(encoded.codes.unique()) > 8
    heard = reference.decode(published[None], [None]).audio_values
    torch.testing.assert_close(codec.decode(encoded)[:, None], heard, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_mimi_of_transformers_runs_as_there(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 16,
        "num_filters": 4,
        "upsampling_ratios": [4, 2],
        "codebook_size": 16,
        "codebook_dim": 8,
        "vector_quantization_hidden_dimension": 8,
        "num_hidden_layers": 2,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "num_quantizers": 4,
        "upsample_groups": 16,
    }
    reference = rescaled(transformers.MimiModel(transformers.MimiConfig(**sizes)))
    reference.save_pretrained(tmp_path)
    imported = import_mimi(tmp_path / "model.safetensors")
    assert not imported.assumed and imported.config.heads == 2
    codec, audio = imported.codec(), sound_of(640)
    encoded = codec.encode(audio)
    assert torch.equal(encoded.codes, reference.encode(audio).audio_codes) and len(encoded.codes.unique()) > 8
    heard = reference.decode(encoded.codes).audio_values
    torch.testing.assert_close(codec.decode(encoded)[:, None], heard, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("strides", [[2, 4], [2, 5]])
def test_dac_of_transformers_runs_as_there(strides: list[int], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {
        "encoder_hidden_size": 4,
        "downsampling_ratios": strides,
        "decoder_hidden_size": 16,
        "n_codebooks": 3,
        "codebook_size": 16,
        "codebook_dim": 4,
        "sampling_rate": 16000,
    }
    reference = rescaled(transformers.DacModel(transformers.DacConfig(**sizes)))
    reference.save_pretrained(tmp_path)
    imported = import_dac(tmp_path / "model.safetensors")
    assert not imported.assumed and imported.config.strides == tuple(strides)
    codec, audio = imported.codec(), sound_of(400)
    encoded = codec.encode(audio)
    published = reference.encode(audio)
    assert torch.equal(encoded.codes, published.audio_codes) and len(encoded.codes.unique()) > 8
    heard = reference.decode(audio_codes=encoded.codes).audio_values
    made = codec.decode(encoded)
    assert made.shape[-1] - 8 < heard.shape[-1] <= made.shape[-1] == 400
    torch.testing.assert_close(made[:, : heard.shape[-1]], heard, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_facodec_is_made_of_its_two_files(parity_dir: Path, tmp_path: Path) -> None:
    weights, io = (load_file(parity_dir / "facodec" / f"{part}.safetensors") for part in ("weights", "io"))
    parts = {
        part: {name.removeprefix(f"{part}."): tensor for name, tensor in weights.items() if name.startswith(f"{part}.")}
        for part in ("encoder", "decoder")
    }
    parts["decoder"] |= {
        "timbre_encoder.position_emb.pe": torch.zeros(5000, 1, 24),
        "res_f0_predictor.1.x": torch.ones(1),
    }
    for part, tensors in parts.items():
        torch.save(tensors, tmp_path / f"{part}.bin")
    imported = import_facodec(tmp_path / "encoder.bin", tmp_path / "decoder.bin")
    encoded = imported.codec().encode(io["audio_a"])
    assert torch.equal(encoded.codes, io["a.codes"].transpose(0, 1)) and imported.config.version == 1
    with pytest.raises(VoiceError, match="no FACodec encoder"):
        import_facodec(tmp_path / "decoder.bin", tmp_path / "encoder.bin")
    with pytest.raises(VoiceError, match="no FACodec decoder"):
        import_facodec(tmp_path / "encoder.bin", tmp_path / "encoder.bin")


@torch.no_grad()
@pytest.mark.parametrize("kind", ["encodec_causal", "encodec_noncausal", "wavtokenizer"])
def test_published_checkpoints_run_as_published(kind: str, parity_dir: Path, tmp_path: Path) -> None:
    weights, io = (load_file(parity_dir / kind / f"{part}.safetensors") for part in ("weights", "io"))
    path = tmp_path / "model.th"
    torch.save({"state_dict": weights} if kind == "wavtokenizer" else weights, path)
    imported = IMPORTERS[kind.partition("_")[0]](path)
    assert imported.assumed
    imported.save(tmp_path / "codec", licence="MIT")
    loaded = load_codec(tmp_path / "codec")
    assert loaded.card["licence"] == "MIT" and loaded.card["codebooks"] == list(loaded.codec.sizes)
    codec = loaded.codec
    if kind == "encodec_noncausal":  # its segments are shorter than the published model's
        assert imported.config.segment_s == 1.0 and codec.sample_rate == 48000
        return
    encoded = codec.encode(io["audio"])
    assert torch.equal(encoded.codes, io["bw3.6.codes.0" if kind == "encodec_causal" else "codes"])
    wanted = io["bw3.6.audio_out" if kind == "encodec_causal" else "audio_out"].flatten()
    decoded = codec.decode(encoded)[0, : len(wanted)]
    torch.testing.assert_close(decoded, wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("drop decoder.model.3.convtr.convtr.bias", r"missing 1 \(decoder.model.3.convtr.convtr.bias\)"),
        ("add speaker.weight", r"unknown 1 \(speaker.weight\)"),
        ("reshape quantizer.vq.layers.2._codebook.embed", r"of another shape 1 .*layers.2._codebook.embed: \(3, 2\)"),
        ("nan encoder.model.0.conv.conv.bias", "not finite: encoder.model.0.conv.conv.bias"),
        ("drop encoder.model.0.conv.conv.bias", "missing 1"),
        ("only quantizer.vq.layers.0._codebook.embed", "is no EnCodec|no EnCodec"),
    ],
)
def test_what_does_not_fit_is_named(change: str, message: str, parity_dir: Path, tmp_path: Path) -> None:
    weights = load_file(parity_dir / "encodec_causal/weights.safetensors")
    how, name = change.split()
    if how == "drop":
        del weights[name]
    elif how == "only":
        weights = {name: weights[name]}
    else:
        weights[name] = torch.full_like(weights[name], torch.nan) if how == "nan" else torch.zeros(3, 2)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(VoiceError, match=message):
        import_encodec(tmp_path / "model.safetensors")


def test_settings_of_another_model_are_refused(parity_dir: Path, tmp_path: Path) -> None:
    save_file(load_file(parity_dir / "encodec_causal/weights.safetensors"), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mimi"}))
    with pytest.raises(VoiceError, match="settings of a 'mimi'"):
        import_encodec(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "encodec"}))
    with pytest.raises(VoiceError, match="has no 'use_causal_conv'"):
        import_encodec(tmp_path / "model.safetensors")
    with pytest.raises(VoiceError, match="is no WavTokenizer"):
        import_wavtokenizer(tmp_path / "model.safetensors")
