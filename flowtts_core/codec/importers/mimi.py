"""Mimi's published models: those of kyutai-labs/moshi, and of transformers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from flowtts_core.codec.importers.base import (
    ImportedCodec,
    count_of,
    fitted,
    require_model_type,
    seanet_names,
    seanet_of,
    under,
)
from flowtts_core.codec.mimi import MimiConfig
from flowtts_core.vocoder.importers.base import beside, read_settings, reading
from flowtts_core.voice.checkpoint import read_checkpoint

SETTINGS = "config.json"
_HEADS, _CONTEXT, _RATE = 8, 250, 24000  # of the published model, whose tensors do not tell them
_NAMES = (  # of transformers, and the published ones
    (r"^encoder\.encoder_seanet\.", "encoder."),
    (r"^decoder\.decoder_seanet\.", "decoder."),
    (r"^(?:en|de)coder\.((?:en|de)coder_transformer|downsample|upsample)\.", r"\1."),
    (r"^((?:en|de)coder_transformer)\.layers\.", r"\1.transformer.layers."),
    (r"\.self_attn\.o_proj\.", ".self_attn.out_projs.0."),
    (r"\.mlp\.fc([12])\.", r".linear\1."),
    (r"\.input_layernorm\.", ".norm1."),
    (r"\.post_attention_layernorm\.", ".norm2."),
    (r"\.self_attn_layer_scale\.", ".layer_scale_1."),
    (r"\.mlp_layer_scale\.", ".layer_scale_2."),
    (r"^downsample\.conv\.weight", "downsample.conv.conv.conv.weight"),
    (r"^upsample\.conv\.weight", "upsample.convtr.convtr.convtr.weight"),
    (r"^quantizer\.semantic_residual_vector_quantizer\.", "quantizer.rvq_first."),
    (r"^quantizer\.acoustic_residual_vector_quantizer\.", "quantizer.rvq_rest."),
    (r"^(quantizer\.rvq_\w+)\.layers\.(\d+)\.codebook\.", r"\1.vq.layers.\2._codebook."),
    (r"\._codebook\.embed_sum$", "._codebook.embedding_sum"),
    (r"\._codebook\.initialized$", "._codebook._initialized"),
)


def import_mimi(checkpoint: Path, config: Path | None = None) -> ImportedCodec:
    """Read a Mimi: `tokenizer-*.safetensors` of moshi, or a `model.safetensors` of transformers.

    Args:
        config: the config.json of transformers; by default the one beside it. Without any, heads, window and sample rate are
            taken to be those of the published model.

    Raises:
        VoiceError: for a file that cannot be read safely, is no Mimi, or does not fit its settings.
    """
    with reading(checkpoint, "Mimi", "kyutai-labs/moshi, or kyutai/mimi"):
        tensors = read_checkpoint(checkpoint).tensors
        settings = beside(checkpoint, config, SETTINGS)
        heads, context, rate, assumed = _HEADS, _CONTEXT, _RATE, ""
        if settings is not None:
            with reading(settings, "Mimi's settings", "the model, whose config.json this is not"):
                stated = read_settings(settings)
                require_model_type(stated, "mimi", settings)
                heads, context = int(stated["num_attention_heads"]), int(stated["sliding_window"])
                rate = int(stated["sampling_rate"])
        else:
            assumed = f"no {SETTINGS}: taken to have {heads} heads, a window of {context} frames, and {rate} Hz"
        named = published_names(tensors, heads)
        return fitted("mimi", config_of(named, heads, context, rate), named, str(checkpoint), assumed)


def published_names(tensors: Mapping[str, Tensor], heads: int) -> dict[str, Tensor]:
    """Return tensors under the names of moshi, whichever library named them."""
    named = {}
    for name, tensor in tensors.items():
        for pattern, new in _NAMES:
            name = re.sub(pattern, new, name)
        named[name] = tensor
    named = seanet_names(named)
    for name in [name for name in named if name.endswith(".self_attn.q_proj.weight")]:
        at = name.removesuffix("q_proj.weight")
        query, key = (_neighbours(named.pop(f"{at}{part}_proj.weight"), heads) for part in "qk")
        named[f"{at}in_projs.0.weight"] = torch.cat([query, key, named.pop(f"{at}v_proj.weight")])
    return named


def _neighbours(weight: Tensor, heads: int) -> Tensor:
    """Return rows whose rotary pairs are halves of a head apart so that they are neighbours."""
    return weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def config_of(tensors: Mapping[str, Tensor], heads: int, context: int, sample_rate: int) -> MimiConfig:
    """Return the sizes of a Mimi by its tensors, and what they do not tell."""
    book = tensors["quantizer.rvq_first.vq.layers.0._codebook.embedding_sum"]
    return MimiConfig(
        sample_rate,
        seanet_of(under(tensors, "encoder."), causal=True, pad_mode="constant"),
        heads=heads,
        layers=count_of(tensors, r"encoder_transformer\.transformer\.layers\.(\d+)\."),
        inner=tensors["encoder_transformer.transformer.layers.0.linear1.weight"].shape[0],
        context=context,
        halving=tensors["downsample.conv.conv.conv.weight"].shape[2] // 2,
        semantic=count_of(tensors, r"quantizer\.rvq_first\.vq\.layers\.(\d+)\."),
        acoustic=count_of(tensors, r"quantizer\.rvq_rest\.vq\.layers\.(\d+)\."),
        bins=book.shape[0],
        codebook_dim=book.shape[1],
    )
