"""EnCodec: parity with the published code, causal and in segments."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from flowtts_core.codec.base import Encoded
from flowtts_core.codec.encodec import EnCodec, EnCodecConfig, SEANetConfig
from flowtts_core.errors import AudioError
from flowtts_core.nn.weight_norm import fold_weight_norm


def published(folder: Path) -> tuple[EnCodec, dict[str, Tensor]]:
    settings = json.loads((folder / "config.json").read_text())
    own, model, quantizer = settings["encoder"], settings["model"], settings["quantizer"]
    same = (
        "channels",
        "dimension",
        "n_filters",
        "n_residual_layers",
        "kernel_size",
        "last_kernel_size",
        "lstm",
        "causal",
    )
    seanet = SEANetConfig(
        **{name: own[name] for name in same}, ratios=tuple(own["ratios"]), group_norm=own["norm"] == "time_group_norm"
    )
    config = EnCodecConfig(
        model["sample_rate"],
        seanet,
        n_q=quantizer["n_q"],
        bins=quantizer["bins"],
        normalize=model["normalize"],
        segment_s=model["segment"],
        overlap=model["overlap"],
    )
    codec = EnCodec(config)
    codec.load_state_dict(fold_weight_norm(load_file(folder / "weights.safetensors")))
    return codec.eval(), load_file(folder / "io.safetensors")


@torch.no_grad()
def test_causal_codec_equals_published_one(parity_dir: Path) -> None:
    codec, io = published(parity_dir / "encodec_causal")
    audio = io["audio"]
    torch.testing.assert_close(
        codec.encoder.model[0](audio)[..., :400], io["enc.conv0_first_segment"], atol=1e-5, rtol=0
    )
    torch.testing.assert_close(codec.encoder(audio), io["enc.emb_first_segment"], atol=1e-4, rtol=0)
    for bandwidth, books in (("0.9", 2), ("3.6", 8)):
        encoded = codec.encode(audio, books=books)
        assert torch.equal(encoded.codes, io[f"bw{bandwidth}.codes.0"]) and not encoded.side
        decoded = codec.decode(encoded)
        assert decoded.shape == (1, 9600) and codec.frames_of(9500) == 30
        torch.testing.assert_close(decoded[:, None, :9500], io[f"bw{bandwidth}.audio_out"], atol=1e-4, rtol=0)
    assert codec.bits_per_second() == 75 * 8 * 6 and codec.bits_per_second(2) == 900
    assert codec.frame_rate == 75


@torch.no_grad()
def test_codec_of_segments_equals_published_one(parity_dir: Path) -> None:
    codec, io = published(parity_dir / "encodec_noncausal")
    encoded = codec.encode(io["audio"])
    assert torch.equal(encoded.codes, torch.cat([io[f"bw1.8.codes.{i}"] for i in range(3)], -1))
    scales = torch.cat([io[f"bw1.8.scale.{i}"] for i in range(3)], 1)
    torch.testing.assert_close(encoded.side["scale"], scales, atol=1e-6, rtol=1e-5)
    decoded = codec.decode(encoded)
    torch.testing.assert_close(decoded[..., :10500], io["bw1.8.audio_out"], atol=1e-4, rtol=0)
    assert codec.frames_of(10500) == encoded.codes.shape[-1] and codec.samples_of(35) == decoded.shape[-1]
    with pytest.raises(AudioError, match="without their loudness"):
        codec.decode(Encoded(encoded.codes))
