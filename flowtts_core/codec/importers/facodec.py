"""FACodec's published models: the encoder and the decoder of Amphion's ns3_codec, in either version."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from flowtts_core.codec.facodec import FACodecConfig
from flowtts_core.codec.importers.base import ImportedCodec, count_of, fitted
from flowtts_core.nn.weight_norm import fold_weight_norm
from flowtts_core.vocoder.importers.base import reading
from flowtts_core.voice.checkpoint import read_checkpoint

_HEADS, _RATE = 4, 16000  # of the published models, whose tensors do not tell them
_ADVERSARIES = (  # heads behind a reversed gradient, which the training alone uses
    "content_f0_predictor.",
    "prosody_phone_predictor.",
    "res_f0_predictor.",
    "res_phone_predictor.",
    "x_timbre_predictor.",
)


def import_facodec(encoder: Path, decoder: Path) -> ImportedCodec:
    """Read a FACodec: `ns3_facodec_encoder.bin` with `ns3_facodec_decoder.bin`, or the pair of the second version.

    Raises:
        VoiceError: for files that cannot be read safely, or are no such models.
    """
    source = "Amphion's ns3_codec"
    with reading(encoder, "FACodec encoder", source):
        tensors = {f"encoder.{name}": tensor for name, tensor in _weights(encoder).items()}
        width, strides = tensors["encoder.block.0.weight"].shape[0], _strides(tensors)
    with reading(decoder, "FACodec decoder", source):
        tensors |= {f"decoder.{name}": tensor for name, tensor in _weights(decoder).items()}
        sizes = _config_of(tensors, width, strides)
        told = f"no settings: taken to have {_HEADS} heads, and {_RATE} Hz"
        return fitted("facodec", sizes, tensors, f"{encoder} with {decoder}", told)


def _weights(path: Path) -> dict[str, Tensor]:
    folded = fold_weight_norm(read_checkpoint(path).tensors)
    return {
        name: tensor
        for name, tensor in folded.items()
        if not name.endswith("position_emb.pe") and not name.startswith(("mel_transform.", *_ADVERSARIES))
    }


def _strides(tensors: Mapping[str, Tensor]) -> list[int]:
    strides, index = [], 1
    while (name := f"encoder.block.{index}.block.4.weight") in tensors:
        strides.append(tensors[name].shape[2] // 2)
        index += 1
    return strides


def _config_of(tensors: Mapping[str, Tensor], width: int, strides: list[int]) -> FACodecConfig:
    books = [tensors[f"decoder.quantizer.{i}.layers.0._codebook.weight"] for i in range(3)]
    inner, dimension, kernel = tensors["decoder.timbre_encoder.layers.0.ffn.ffn_1.weight"].shape
    counts = [count_of(tensors, rf"decoder\.quantizer\.{i}\.layers\.(\d+)\.") for i in range(3)]
    return FACodecConfig(
        version=2 if "decoder.melspec_linear.weight" in tensors else 1,
        sample_rate=_RATE,
        width=width,
        strides=tuple(strides),
        dimension=dimension,
        decoder_width=tensors["decoder.model.0.weight"].shape[0],
        prosody=counts[0],
        content=counts[1],
        residual=counts[2],
        prosody_bins=books[0].shape[0],
        content_bins=books[1].shape[0],
        residual_bins=books[2].shape[0],
        codebook_dim=books[0].shape[1],
        layers=count_of(tensors, r"decoder\.timbre_encoder\.layers\.(\d+)\."),
        heads=_HEADS,
        inner=inner,
        kernel=kernel,
        phones=tensors["decoder.phone_predictor.heads.0.weight"].shape[0],
    )
