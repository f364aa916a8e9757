"""Mimi: parity with the published code, whole and streamed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from flowtts_core.codec import DecodeStream, EncodeStream
from flowtts_core.codec.base import Encoded
from flowtts_core.codec.importers.mimi import config_of
from flowtts_core.codec.mimi import Mimi


def published(parity_dir: Path, context: int) -> tuple[Mimi, dict[str, Tensor]]:
    weights = load_file(parity_dir / "mimi/weights.safetensors")
    codec = Mimi(config_of(weights, 4, context, 24000))
    codec.load_state_dict(weights)
    return codec.eval(), load_file(parity_dir / "mimi/io.safetensors")


@torch.no_grad()
def test_equals_the_published_codec(parity_dir: Path) -> None:
    codec, io = published(parity_dir, 6)
    audio = torch.nn.functional.pad(io["audio"], (0, 700))
    latent = codec.encoder(audio)
    torch.testing.assert_close(latent, io["enc.seanet_out"], atol=1e-5, rtol=0)
    hidden = codec.encoder_transformer(latent)
    torch.testing.assert_close(hidden, io["enc.transformer_out"], atol=1e-5, rtol=0)
    torch.testing.assert_close(codec.downsample(hidden), io["enc.downsampled"], atol=1e-5, rtol=0)
    for books, end in ((1, "_n1"), (4, "_n4"), (8, "")):
        assert torch.equal(codec.encode(io["audio"], books=books).codes, io[f"codes{end}"])
    for books, wanted in ((8, "audio_out"), (4, "audio_out_first4")):
        decoded = codec.decode(Encoded(io["codes"][:, :books]))
        torch.testing.assert_close(decoded[:, None], io[wanted], atol=1e-4, rtol=0)
    assert codec.frame_rate == 12.5 and codec.bits_per_second() == 12.5 * 8 * 5
    assert codec.latency_s == pytest.approx(0.08)


@torch.no_grad()
def test_a_stream_equals_the_published_whole(parity_dir: Path) -> None:
    """Also beyond the window of the attention, where the published stream does not."""
    for context, wanted in ((250, "context250."), (6, "")):
        codec, io = published(parity_dir, context)
        stream = EncodeStream(codec)
        pieces = [stream.push(part) for part in io["audio"][:, 0].split(1920, -1)]
        codes = torch.cat([*pieces, stream.end()], -1)
        assert torch.equal(codes, io[f"{wanted}codes"])
        listener = DecodeStream(codec)
        made = torch.cat([*(listener.push(part) for part in codes.split(1, -1)), listener.end()], -1)
        torch.testing.assert_close(made[:, None], io[f"{wanted}audio_out"], atol=1e-4, rtol=0)
