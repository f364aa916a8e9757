"""MusicGen checkpoints, by the names of audiocraft and of transformers: sizes from the tensors, names to ours."""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor

from flowtts_core.errors import VoiceError
from flowtts_core.lm.musicgen.net import MusicGenConfig, MusicGenLM
from flowtts_core.lm.transformer import TransformerConfig
from flowtts_core.voice.checkpoint import check_fit, read_checkpoint

_HEAD = 64  # features of a head in all published sizes; tensors do not show the number of heads
_AUDIOCRAFT = (
    (r"emb\.(\d+)\.(.*)", r"embeddings.\1.\2"),
    (r"linears\.(\d+)\.(.*)", r"heads.\1.\2"),
    (r"out_norm\.(.*)", r"transformer.norm.\1"),
    (r"condition_provider\.conditioners\.description\.output_proj\.(.*)", r"text_projection.\1"),
    (r"transformer\.layers\.(\d+)\.self_attn\.out_proj\.(.*)", r"transformer.blocks.\1.attention.to_out.\2"),
    (r"transformer\.layers\.(\d+)\.cross_attention\.out_proj\.(.*)", r"transformer.blocks.\1.cross.to_out.\2"),
    (r"transformer\.layers\.(\d+)\.self_attn\.in_proj_(.*)", r"transformer.blocks.\1.attention.to_qkv.\2"),
    (r"transformer\.layers\.(\d+)\.cross_attention\.in_proj_(.*)", r"transformer.blocks.\1.cross.to_qkv.\2"),
    (r"transformer\.layers\.(\d+)\.linear1\.(.*)", r"transformer.blocks.\1.feed_forward.up.\2"),
    (r"transformer\.layers\.(\d+)\.linear2\.(.*)", r"transformer.blocks.\1.feed_forward.down.\2"),
    (r"transformer\.layers\.(\d+)\.norm1\.(.*)", r"transformer.blocks.\1.norm.\2"),
    (r"transformer\.layers\.(\d+)\.norm_cross\.(.*)", r"transformer.blocks.\1.cross_norm.\2"),
    (r"transformer\.layers\.(\d+)\.norm2\.(.*)", r"transformer.blocks.\1.feed_norm.\2"),
)
_LAYER = r"model\.decoder\.layers\.(\d+)\."
_TRANSFORMERS = (
    (r"model\.decoder\.embed_tokens\.(\d+)\.(.*)", r"embeddings.\1.\2"),
    (r"lm_heads\.(\d+)\.(.*)", r"heads.\1.\2"),
    (r"model\.decoder\.layer_norm\.(.*)", r"transformer.norm.\1"),
    (r"enc_to_dec_proj\.(.*)", r"text_projection.\1"),
    (_LAYER + r"self_attn\.([qkv])_proj\.(.*)", r"transformer.blocks.\1.attention.to_\2.\3"),
    (_LAYER + r"encoder_attn\.([qkv])_proj\.(.*)", r"transformer.blocks.\1.cross.to_\2.\3"),
    (_LAYER + r"self_attn\.out_proj\.(.*)", r"transformer.blocks.\1.attention.to_out.\2"),
    (_LAYER + r"encoder_attn\.out_proj\.(.*)", r"transformer.blocks.\1.cross.to_out.\2"),
    (_LAYER + r"fc1\.(.*)", r"transformer.blocks.\1.feed_forward.up.\2"),
    (_LAYER + r"fc2\.(.*)", r"transformer.blocks.\1.feed_forward.down.\2"),
    (_LAYER + r"self_attn_layer_norm\.(.*)", r"transformer.blocks.\1.norm.\2"),
    (_LAYER + r"encoder_attn_layer_norm\.(.*)", r"transformer.blocks.\1.cross_norm.\2"),
    (_LAYER + r"final_layer_norm\.(.*)", r"transformer.blocks.\1.feed_norm.\2"),
)
# of a whole model in transformers: the text's encoder and the codec are imported by their own names
_BESIDE = ("text_encoder.", "audio_encoder.", "model.decoder.embed_positions.")


def import_musicgen(checkpoint: Path, heads: int | None = None) -> MusicGenLM:
    """Read the language model of a MusicGen checkpoint, of audiocraft (`best_state`) or of transformers.

    Args:
        heads: of its attention; by default heads of 64 features, as all published sizes have.

    Raises:
        VoiceError: for a file that cannot be read safely, or holds something else.
    """
    return musicgen_of(read_checkpoint(checkpoint).tensors, str(checkpoint), heads)


def musicgen_of(tensors: dict[str, Tensor], who: str, heads: int | None = None) -> MusicGenLM:
    """Return the model of tensors by public names; `who` names them in errors."""
    tensors = {name.removeprefix("decoder."): t.float() for name, t in tensors.items() if not name.startswith(_BESIDE)}
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(_BESIDE)}
    renamed = _split(_renamed(tensors))
    try:
        config = _config_of(renamed, heads)
    except (KeyError, ValueError) as error:
        raise VoiceError(
            f"{who}: no MusicGen language model ({error.args[0]} is missing)",
            "give audiocraft's state_dict.bin, or transformers' model.safetensors",
        ) from error
    model = MusicGenLM(config)
    check_fit(model.state_dict(), renamed, who)
    model.load_state_dict(renamed)
    return model.eval()


def _renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    rules = _TRANSFORMERS if any(name.startswith("model.decoder.") for name in tensors) else _AUDIOCRAFT
    renamed = {}
    for name, tensor in tensors.items():
        rule = next(((pattern, to) for pattern, to in rules if re.fullmatch(pattern, name)), None)
        renamed[re.sub(*rule, name) if rule else name] = tensor
    return renamed


def _split(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take queries, keys and values, which audiocraft stacks, apart."""
    apart: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if ".to_qkv." in name:
            apart |= {name.replace("to_qkv", f"to_{k}"): t for k, t in zip("qkv", tensor.chunk(3), strict=True)}
        else:
            apart[name] = tensor
    return apart


def _config_of(tensors: dict[str, Tensor], heads: int | None) -> MusicGenConfig:
    width = tensors["embeddings.0.weight"].shape[1]
    layers = {name.split(".")[2] for name in tensors if name.startswith("transformer.blocks.")}
    heads = heads or max(1, width // _HEAD)
    return MusicGenConfig(
        codes=tensors["heads.0.weight"].shape[0],
        delays=tuple(range(sum(name.startswith("embeddings.") for name in tensors))),
        text_width=tensors["text_projection.weight"].shape[1],
        transformer=TransformerConfig(
            width=width,
            layers=len(layers),
            heads=heads,
            key_value_heads=heads,
            inner=tensors["transformer.blocks.0.feed_forward.up.weight"].shape[0],
            positions="sinusoidal",
            norm="layer",
            feed_forward="gelu",
            query_bias=any(".attention.to_q.bias" in name for name in tensors),
            cross=True,
        ),
    )
