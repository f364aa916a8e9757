"""ZipVoice checkpoints of the community: sizes from the tensors themselves, weights by their published names, and tokens."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from flowtts_core.acoustic.zipvoice.config import ZipVoiceConfig
from flowtts_core.acoustic.zipvoice.model import ZipVoice
from flowtts_core.audio.mel import VOCOS_24K, MelConfig
from flowtts_core.config import spec_of
from flowtts_core.errors import ConfigError, VoiceError
from flowtts_core.voice.checkpoint import check_fit, read_checkpoint

_REMEDY = "give a checkpoint of k2-fsa/ZipVoice (zipvoice or zipvoice_distill), or of a fork with the same architecture"
_PAD = "_"
# Fields of the published model.json by ours; the tensors tell all of them but those of `_HEADS`.
_STATED = {
    "fm_decoder_downsampling_factor": "decoder_factors",
    "fm_decoder_num_layers": "decoder_layers",
    "fm_decoder_cnn_module_kernel": "decoder_kernels",
    "fm_decoder_feedforward_dim": "decoder_feed_forward",
    "fm_decoder_num_heads": "decoder_heads",
    "fm_decoder_dim": "decoder_dim",
    "text_encoder_num_layers": "encoder_layers",
    "text_encoder_feedforward_dim": "encoder_feed_forward",
    "text_encoder_cnn_module_kernel": "encoder_kernel",
    "text_encoder_num_heads": "encoder_heads",
    "text_encoder_dim": "encoder_dim",
    "query_head_dim": "query_dim",
    "value_head_dim": "value_dim",
    "pos_head_dim": "position_dim",
    "pos_dim": "positions_dim",
    "time_embed_dim": "time_dim",
    "text_embed_dim": "text_dim",
}
_HEADS = 4  # of the published models, where no model.json tells it


@dataclass(frozen=True)
class ImportedZipVoice:
    """A checkpoint, checked to fit `config` tensor by tensor, and its tokens, checked to fit the model."""

    config: ZipVoiceConfig
    state_dict: dict[str, Tensor]
    table: dict[str, int]

    @property
    def spec(self) -> dict[str, Any]:
        """As a voice's card holds it."""
        return spec_of("zipvoice", self.config)

    def model(self) -> ZipVoice:
        """Return the model with these weights, ready to generate."""
        model = ZipVoice(self.config)
        model.load_state_dict(self.state_dict)
        return model.eval()


def import_zipvoice(
    checkpoint: Path, tokens: Path, stated: Path | None = None, mel: MelConfig = VOCOS_24K
) -> ImportedZipVoice:
    """Read a `.safetensors` or `.pt` file of a ZipVoice or ZipVoice-Distill, its tokens.txt and, if given, its model.json.

    A distilled one is known by its tensors. What they do not tell, the numbers of heads, comes from model.json, else from the
    published defaults; what both tell must be the same.

    Raises:
        VoiceError: for files that cannot be read safely, are no ZipVoice model this package can run, or do not fit each other.
    """
    tensors = {name: tensor.float() for name, tensor in read_checkpoint(checkpoint).tensors.items()}
    values = {} if stated is None else _read_stated(stated, mel)
    table = read_tokens(tokens)
    try:
        config = _config_of(tensors, values, table, mel, str(checkpoint))
        _require_stated(config, values, str(stated))
        check_fit(ZipVoice(config).state_dict(), tensors, str(checkpoint))
    except VoiceError:
        raise
    except KeyError as error:
        raise VoiceError(
            f"{checkpoint}: has no tensor {error.args[0]!r}, so it is no ZipVoice model", _REMEDY
        ) from error
    except ConfigError as error:
        raise VoiceError(f"{checkpoint}: {error.message}", error.remedy) from error
    except Exception as error:  # weights without the dimensions that sizes are read from, ...
        raise VoiceError(
            f"{checkpoint}: damaged, or no ZipVoice model ({type(error).__name__}: {error})", _REMEDY
        ) from error
    highest = max(table, key=lambda symbol: table[symbol])
    if table[highest] >= config.n_symbols:
        raise VoiceError(
            f"{tokens}: {highest!r} is token {table[highest]}, and {checkpoint} knows {config.n_symbols}",
            "give the tokens.txt that comes with the checkpoint",
        )
    return ImportedZipVoice(config, tensors, table)


def read_tokens(path: Path) -> dict[str, int]:
    """Read a tokens.txt: a symbol, a tab and its token a line; `_` is padding.

    Raises:
        VoiceError: naming the line that is none, or that repeats an earlier one.
    """
    remedy = "give the tokens.txt that comes with the checkpoint"
    table: dict[str, int] = {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise VoiceError(f"{path}: cannot be read ({error})", remedy) from error
    for count, line in enumerate(lines, 1):
        if not line.strip():
            continue
        symbol, tab, token = line.rstrip("\r").rpartition("\t")
        if not tab or not symbol or not token.strip().isascii() or not token.strip().isdigit():
            raise VoiceError(f"{path}, line {count}: {line[:40]!r} is no symbol, tab and number", remedy)
        if symbol in table or int(token) in table.values():
            raise VoiceError(f"{path}, line {count}: {line[:40]!r} repeats a symbol or a token", remedy)
        table[symbol] = int(token)
    if _PAD not in table:
        raise VoiceError(f"{path}: has no padding, '{_PAD}'", remedy)
    return table


def tokenizer_of(table: dict[str, int]) -> str:
    """Return which of the published tokenizers a table is of: "emilia", "espeak" or "simple".

    Initials of pinyin are Emilia's alone, and stress marks of IPA no text's.
    """
    if "zh0" in table:
        return "emilia"
    return "espeak" if {"ˈ", "ə"} <= {unicodedata.normalize("NFC", symbol) for symbol in table} else "simple"


def _config_of(
    tensors: dict[str, Tensor], stated: dict[str, Any], table: dict[str, int], mel: MelConfig, who: str
) -> ZipVoiceConfig:
    """Return the sizes that the tensors have."""
    bands, dim = tensors["fm_decoder.out_proj.weight"].shape
    if bands != mel.rows:
        raise VoiceError(
            f"{who}: made for {bands} mel bands, not {mel.rows}", "only the mel of 24 kHz Vocos is supported"
        )
    layers, factors, kernels, first = [], [], [], ""
    for stack in range(_count(tensors, "fm_decoder.encoders.")):
        outer = f"fm_decoder.encoders.{stack}."
        slow = f"{outer}downsample.bias" in tensors
        inner = f"{outer}encoder." if slow else outer
        first = first or f"{inner}layers.0."
        layers.append(_count(tensors, f"{inner}layers."))
        factors.append(len(tensors[f"{outer}downsample.bias"]) if slow else 1)
        kernels.append(tensors[f"{inner}layers.0.conv_module1.depthwise_conv.weight"].shape[2])
    text = "text_encoder.encoders.0.layers."
    heads = {name: int(stated.get(name, _HEADS)) for name in ("fm_decoder_num_heads", "text_encoder_num_heads")}
    widths = _head_widths(tensors, first, heads["fm_decoder_num_heads"], who)
    if widths != _head_widths(tensors, f"{text}0.", heads["text_encoder_num_heads"], who):
        raise VoiceError(
            f"{who}: the heads of its two nets have other widths, by {heads}",
            "give its model.json, which tells their number",
        )
    guidance = tensors.get("fm_decoder.guidance_scale_embed.weight")
    return ZipVoiceConfig(
        n_symbols=tensors["embed.weight"].shape[0],
        pad=table[_PAD],
        mel=mel,
        decoder_dim=dim,
        decoder_feed_forward=tensors[f"{first}feed_forward2.in_proj.weight"].shape[0],
        decoder_heads=heads["fm_decoder_num_heads"],
        decoder_layers=tuple(layers),
        decoder_factors=tuple(factors),
        decoder_kernels=tuple(kernels),
        encoder_layers=_count(tensors, text),
        encoder_dim=tensors["text_encoder.in_proj.weight"].shape[0],
        encoder_feed_forward=tensors[f"{text}0.feed_forward2.in_proj.weight"].shape[0],
        encoder_heads=heads["text_encoder_num_heads"],
        encoder_kernel=tensors[f"{text}0.conv_module1.depthwise_conv.weight"].shape[2],
        query_dim=widths[0],
        value_dim=widths[1],
        position_dim=widths[2],
        positions_dim=tensors[f"{first}self_attn_weights.linear_pos.weight"].shape[1],
        time_dim=tensors["fm_decoder.time_embed.0.weight"].shape[1],
        text_dim=tensors["embed.weight"].shape[1],
        embeds_guidance=guidance is not None,
        guidance_dim=ZipVoiceConfig.guidance_dim if guidance is None else guidance.shape[1],
    )


def _head_widths(tensors: dict[str, Tensor], layer: str, heads: int, who: str) -> tuple[int, int, int]:
    """Return the widths of each head's queries, values and queries of positions."""
    position = tensors[f"{layer}self_attn_weights.linear_pos.weight"].shape[0]
    query = tensors[f"{layer}self_attn_weights.in_proj.weight"].shape[0] - position
    value = tensors[f"{layer}self_attn1.in_proj.weight"].shape[0]
    if heads < 1 or position % heads or query % (2 * heads) or value % heads:
        raise VoiceError(f"{who}: its attention does not divide into {heads} heads", "give its own model.json")
    return query // (2 * heads), value // heads, position // heads


def _read_stated(path: Path, mel: MelConfig) -> dict[str, Any]:
    """Return what a model.json says of the model; raises VoiceError where its features are others."""
    remedy = "give the model.json that comes with the checkpoint"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        model, feature = dict(values["model"]), dict(values.get("feature", {}))
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        raise VoiceError(f"{path}: not the model.json of a ZipVoice ({error!r})", remedy) from error
    kind, rate = feature.get("type", "vocos"), feature.get("sampling_rate", mel.sample_rate)
    if (kind, rate) != ("vocos", mel.sample_rate):
        raise VoiceError(
            f"{path}: features of type {kind!r} at {rate} Hz", f"only type 'vocos' at {mel.sample_rate} Hz is supported"
        )
    wrong = [name for name in _STATED if name.endswith("_heads") and not isinstance(model.get(name, 1), int)]
    if wrong:
        raise VoiceError(f"{path}: {wrong[0]} = {model[wrong[0]]!r} is no number", remedy)
    return model


def _require_stated(config: ZipVoiceConfig, stated: dict[str, Any], who: str) -> None:
    """Raise VoiceError, naming them, for sizes of a model.json that are not those of the tensors."""
    wrong = []
    for name, own in _STATED.items():
        found = getattr(config, own)
        said = stated.get(name, found)
        same = set(found) == {said} if isinstance(found, tuple) and isinstance(said, int) else found == said
        if isinstance(found, tuple) and isinstance(said, list):
            same = list(found) == said
        if not same:
            wrong.append(f"{name} {said}, but the tensors have {list(found) if isinstance(found, tuple) else found}")
    if wrong:
        raise VoiceError(f"{who}: {'; '.join(wrong)}", "give the model.json that comes with the checkpoint")


def _count(tensors: dict[str, Tensor], prefix: str) -> int:
    """Return how many numbered parts there are below `prefix`."""
    return len({name[len(prefix) :].split(".", 1)[0] for name in tensors if name.startswith(prefix)})
