"""DAC's published models: those of descript-audio-codec, and of transformers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from flowtts_core.codec.dac import DACConfig
from flowtts_core.codec.importers.base import ImportedCodec, count_of, fitted, require_model_type
from flowtts_core.nn.weight_norm import fold_weight_norm
from flowtts_core.vocoder.importers.base import beside, read_settings, reading
from flowtts_core.voice.checkpoint import read_checkpoint

SETTINGS = "config.json"
_UNIT = {"snake1": 0, "conv1": 1, "snake2": 2, "conv2": 3}  # places of a residual unit's layers
_RATES = {(512, 9): 44100, (320, 32): 24000, (320, 12): 16000}  # of the published models, by frame and codebooks


def import_dac(checkpoint: Path, config: Path | None = None) -> ImportedCodec:
    """Read a DAC: `weights_44khz_*.pth` and its relatives, or a `model.safetensors` of transformers.

    Args:
        config: the config.json of transformers, for the sample rate; by default the one beside it. Without any, the published
            models are known by their frames and codebooks.

    Raises:
        VoiceError: for a file that cannot be read safely, is no DAC, or does not fit its settings.
    """
    with reading(checkpoint, "DAC", "descriptinc/descript-audio-codec, or descript/dac_44khz and its relatives"):
        tensors = published_names(fold_weight_norm(read_checkpoint(checkpoint).tensors))
        settings = beside(checkpoint, config, SETTINGS)
        rate, assumed = None, ""
        if settings is not None:
            with reading(settings, "DAC's settings", "the model, whose config.json this is not"):
                stated = read_settings(settings)
                require_model_type(stated, "dac", settings)
                rate = int(stated["sampling_rate"])
        sizes = _config_of(tensors, rate)
        if rate is None:
            assumed = f"no {SETTINGS}: taken to be of {sizes.sample_rate} Hz"
        return fitted("dac", sizes, tensors, str(checkpoint), assumed)


def published_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors under the names of descript-audio-codec, whichever library named them."""
    if "encoder.conv1.weight" not in tensors:
        return dict(tensors)
    blocks = count_of(tensors, r"encoder\.block\.(\d+)\.")
    named = {}
    for name, tensor in tensors.items():
        found = re.fullmatch(
            r"(encoder|decoder)\.(?:block\.(\d+)\.)?(?:res_unit(\d)\.)?(snake\d|conv\d|conv_t1)\.(\w+)", name
        )
        if found:
            side, block, unit, layer, kind = found.groups()
            stack, encodes = ("block", True) if side == "encoder" else ("model", False)
            if block is None:
                place = {"conv1": 0, "snake1": blocks + 1, "conv2": blocks + 2}[layer]
                name = f"{side}.{stack}.{place}.{kind}"
            elif unit is None:
                place = {"snake1": 3, "conv1": 4}[layer] if encodes else {"snake1": 0, "conv_t1": 1}[layer]
                name = f"{side}.{stack}.{int(block) + 1}.block.{place}.{kind}"
            else:
                place = int(unit) - 1 if encodes else int(unit) + 1
                name = f"{side}.{stack}.{int(block) + 1}.block.{place}.block.{_UNIT[layer]}.{kind}"
        named[name] = tensor
    return named


def _config_of(tensors: Mapping[str, Tensor], sample_rate: int | None) -> DACConfig:
    strides, index = [], 1
    while (name := f"encoder.block.{index}.block.4.weight") in tensors:
        strides.append(tensors[name].shape[2] // 2)
        index += 1
    book = tensors["quantizer.quantizers.0.codebook.weight"]
    codebooks = count_of(tensors, r"quantizer\.quantizers\.(\d+)\.")
    hop = 1
    for stride in strides:
        hop *= stride
    return DACConfig(
        sample_rate or _RATES.get((hop, codebooks), 44100),
        width=tensors["encoder.block.0.weight"].shape[0],
        strides=tuple(strides),
        decoder_width=tensors["decoder.model.0.weight"].shape[0],
        codebooks=codebooks,
        bins=book.shape[0],
        codebook_dim=book.shape[1],
    )
