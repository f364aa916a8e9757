"""FACodec: parity with the published code in both versions, and conversion."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from flowtts_core.codec.base import Encoded
from flowtts_core.codec.facodec import FACodec, FACodecConfig, Redecoder
from flowtts_core.nn.dacnet import kaiser_sinc
from flowtts_core.nn.weight_norm import fold_weight_norm

SMALL = FACodecConfig(
    width=4,
    dimension=24,
    decoder_width=32,
    prosody_bins=32,
    content_bins=32,
    residual_bins=32,
    layers=2,
    inner=48,
    phones=11,
)


def published(parity_dir: Path, version: int) -> tuple[FACodec, dict[str, Tensor], dict[str, Tensor]]:
    weights = fold_weight_norm(load_file(parity_dir / "facodec/weights.safetensors"))
    codec = FACodec(FACodecConfig(**{**vars(SMALL), "version": version}))
    own = {name: tensor for name, tensor in weights.items() if name.startswith(("encoder.", "decoder."))}
    if version == 2:
        extra = "v2_decoder_extra."
        own |= {f"decoder.{k.removeprefix(extra)}": tensor for k, tensor in weights.items() if k.startswith(extra)}
    codec.load_state_dict(own)
    return codec.eval(), weights, load_file(parity_dir / "facodec/io.safetensors")


@torch.no_grad()
def test_equals_the_published_codec(parity_dir: Path) -> None:
    codec, weights, io = published(parity_dir, 1)
    torch.testing.assert_close(
        kaiser_sinc(0.25, 0.3, 12), weights["encoder.block.5.upsample.filter"].flatten(), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(
        codec.encoder.block[0](io["audio_a"])[..., :400], io["a.enc_conv0_first400"], atol=1e-5, rtol=0
    )
    for name in "ab":
        latents = codec.encoder(io[f"audio_{name}"])
        torch.testing.assert_close(latents, io[f"{name}.enc_out"], atol=1e-4, rtol=0)
        encoded = codec.encode(io[f"audio_{name}"])
        assert torch.equal(encoded.codes, io[f"{name}.codes"].transpose(0, 1))
        torch.testing.assert_close(encoded.side["speaker"], io[f"{name}.spk_emb"], atol=1e-5, rtol=1e-5)
        for attribute, values in codec.attributes(encoded.codes).items():
            torch.testing.assert_close(values, io[f"{name}.quantized_{attribute}"], atol=1e-5, rtol=0)
        torch.testing.assert_close(codec.frames(encoded.codes), io[f"{name}.vq_post_emb"], atol=1e-5, rtol=0)
        torch.testing.assert_close(codec.decode(encoded)[:, None], io[f"{name}.audio_out"], atol=1e-4, rtol=0)
    codes = io["a.codes"].transpose(0, 1)
    torch.testing.assert_close(codec.frames(codes[:, :3]), io["a.vq2emb_no_residual"], atol=1e-5, rtol=0)
    first = codec.decoder.timbre_encoder
    places = torch.tensor([0.0, 1.0] * 12)
    hidden = first.layers[0](io["a.enc_out"].transpose(1, 2) + places, None)
    torch.testing.assert_close(hidden, io["timbre.layer0_a"], atol=1e-5, rtol=0)


@torch.no_grad()
def test_heads_read_what_the_published_ones_read(parity_dir: Path) -> None:
    codec, _, io = published(parity_dir, 1)
    f0, voiced = codec.decoder.f0_predictor(io["a.quantized_prosody"])
    torch.testing.assert_close(f0[..., 0], io["heads.f0"], atol=1e-5, rtol=0)
    torch.testing.assert_close(voiced[..., 0], io["heads.uv"], atol=1e-5, rtol=0)
    (phones,) = codec.decoder.phone_predictor(io["a.quantized_content"])
    torch.testing.assert_close(phones, io["heads.phone"], atol=1e-5, rtol=0)


@torch.no_grad()
def test_prosody_of_mels_equals_the_published_second_version(parity_dir: Path) -> None:
    codec, _, io = published(parity_dir, 2)
    assert codec.mel is not None
    for name in "ab":
        audio = io[f"audio_{name}"]
        low = codec.mel(audio[:, 0])[:, :20]
        torch.testing.assert_close(low, io[f"v2.{name}.prosody_feature"], atol=1e-3, rtol=0)
        encoded = codec.encode(audio)
        assert torch.equal(encoded.codes, io[f"v2.{name}.codes"].transpose(0, 1))
        torch.testing.assert_close(codec.frames(encoded.codes), io[f"v2.{name}.vq_post_emb"], atol=1e-4, rtol=0)
        torch.testing.assert_close(codec.decode(encoded)[:, None], io[f"v2.{name}.audio_out"], atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("version", [1, 2])
def test_the_timbre_of_another_converts_as_published(version: int, parity_dir: Path) -> None:
    codec, _, io = published(parity_dir, version)
    first, second = codec.encode(io["audio_a"]), codec.encode(io["audio_b"])
    made = codec.decode(Encoded(first.codes[:, :3], None, second.side))  # the published example leaves the rest out
    torch.testing.assert_close(made[:, None], io[f"conv.v{version}_audio"], atol=1e-4, rtol=0)


@torch.no_grad()
def test_redecoder_converts_as_published(parity_dir: Path) -> None:
    codec, weights, io = published(parity_dir, 1)
    redecoder = Redecoder(codec.config).eval()
    own = "redecoder."
    redecoder.load_state_dict({k.removeprefix(own): t for k, t in weights.items() if k.startswith(own)})
    codes, speaker = io["a.codes"].transpose(0, 1), io["b.spk_emb"]
    for some, end in ((codes, "all"), (codes[:, :3], "no_residual")):
        frames = redecoder.frames(some, speaker)
        torch.testing.assert_close(frames, io[f"conv.redecoder_emb_{end}"], atol=1e-5, rtol=1e-5)
        sound = redecoder(some, speaker)
        torch.testing.assert_close(sound, io[f"conv.redecoder_audio_{end}"], atol=1e-4, rtol=0)


@torch.no_grad()
def test_each_item_of_a_batch_is_coded_as_alone(parity_dir: Path) -> None:
    """Where the published code adds another position to each item."""
    codec, _, io = published(parity_dir, 1)
    both = codec.encode(io["audio_a"].expand(2, -1, -1))
    torch.testing.assert_close(both.side["speaker"][1], io["a.spk_emb"][0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(codec.decode(both)[1], io["a.audio_out"][0, 0], atol=1e-4, rtol=0)
