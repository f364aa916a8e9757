"""WavTokenizer: parity with the published code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from flowtts_core.codec.encodec import SEANetConfig
from flowtts_core.codec.wavtokenizer import WavTokenizer, WavTokenizerConfig
from flowtts_core.nn.weight_norm import fold_weight_norm

SMALL = WavTokenizerConfig(
    seanet=SEANetConfig(dimension=16, n_filters=3, ratios=(6, 5, 5, 4), causal=False),
    bins=128,
    dim=32,
    intermediate_dim=64,
    num_layers=2,
)


@torch.no_grad()
def test_equals_the_published_codec(parity_dir: Path) -> None:
    io = load_file(parity_dir / "wavtokenizer/io.safetensors")
    weights = fold_weight_norm(load_file(parity_dir / "wavtokenizer/weights.safetensors"))
    for row, end in enumerate(("", "_bandwidth_id1")):
        codec = WavTokenizer(replace(SMALL, bandwidth_id=row)).eval()
        codec.load_state_dict({k: v for k, v in weights.items() if ".encodec.decoder." not in k})
        own = codec.feature_extractor.encodec
        torch.testing.assert_close(own.encoder(io["audio"][:, None]), io["enc.emb"], atol=1e-4, rtol=0)
        encoded = codec.encode(io["audio"])
        assert torch.equal(encoded.codes, io["codes"].transpose(0, 1))
        assert torch.equal(own.quantizer.vq.decode(encoded.codes), io["features"])
        if not row:
            embedded = codec.backbone.embed(io["features"])
            torch.testing.assert_close(codec.backbone.pos_net(embedded), io["backbone.pos_net"], atol=1e-4, rtol=0)
            torch.testing.assert_close(codec.backbone(io["features"]), io["backbone.out"], atol=1e-4, rtol=0)
        torch.testing.assert_close(codec.decode(encoded), io[f"audio_out{end}"], atol=1e-4, rtol=0)
    assert codec.frame_rate == 40 and codec.bits_per_second() == 40 * 7
