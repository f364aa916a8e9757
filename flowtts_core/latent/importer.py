"""Stable Audio checkpoints by the names of stable-audio-tools: sizes from the tensors."""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor

from flowtts_core.errors import ConfigError, VoiceError
from flowtts_core.latent.dit import DiTConfig
from flowtts_core.latent.oobleck import OobleckConfig
from flowtts_core.latent.stable_audio import StableAudio, StableAudioConfig
from flowtts_core.nn.weight_norm import fold_weight_norm
from flowtts_core.voice.checkpoint import check_fit, read_checkpoint

_NUMBERS = r"conditioner\.conditioners\.(seconds_start|seconds_total)\.embedder\.embedding\."
_RULES = (
    (r"model\.model\.(.*)", r"model.\1"),
    (r"pretransform\.model\.(.*)", r"autoencoder.\1"),
    (_NUMBERS + r"0\.weights", r"\1.weights"),
    (_NUMBERS + r"1\.(weight|bias)", r"\1.linear.\2"),
)
_BESIDE = re.compile(
    r"conditioner\.conditioners\.prompt\.|.*\.rotary_pos_emb\.inv_freq$"
)  # the text's encoder; a constant


def import_stable_audio(
    checkpoint: Path, *, heads: int | None = None, sample_rate: int = 44_100, tanh: bool = False
) -> StableAudio:
    """Read a checkpoint of stable-audio-tools (`.safetensors` or `.ckpt`), without its text encoder.

    Args:
        heads: of the transformer; by default heads of 64 features, as published.
        tanh: the decoder ends in one (`final_tanh` of its configuration).

    Raises:
        VoiceError: for a file that cannot be read safely, or holds something else.
    """
    who = str(checkpoint)
    tensors = fold_weight_norm({name: t.float() for name, t in read_checkpoint(checkpoint).tensors.items()})
    renamed = {_renamed(name): tensor for name, tensor in tensors.items() if not _BESIDE.match(name)}
    try:
        config = _config_of(renamed, heads, sample_rate, tanh)
    except (KeyError, IndexError) as error:
        raise VoiceError(
            f"{who}: no Stable Audio model ({error.args[0]} is missing)",
            "give model.safetensors of stable-audio-tools, with its transformer and autoencoder",
        ) from error
    except ConfigError as error:
        raise VoiceError(f"{who}: {error.message}", error.remedy) from error
    model = StableAudio(config)
    check_fit(model.state_dict(), renamed, who)
    model.load_state_dict(renamed)
    return model.eval()


def _renamed(name: str) -> str:
    rule = next(((pattern, to) for pattern, to in _RULES if re.fullmatch(pattern, name)), None)
    return re.sub(*rule, name) if rule else name


def _config_of(tensors: dict[str, Tensor], heads: int | None, sample_rate: int, tanh: bool) -> StableAudioConfig:
    width, latent = tensors["model.transformer.project_in.weight"].shape
    text = tensors["model.to_cond_embed.0.weight"].shape[0]
    dit = DiTConfig(
        latent=latent,
        width=width,
        layers=_count(tensors, "model.transformer.layers."),
        heads=heads or max(1, width // 64),
        text=text,
        timing=tensors["model.to_global_embed.0.weight"].shape[1],
        multiple=tensors["model.transformer.layers.0.ff.ff.0.proj.weight"].shape[0] // (2 * width),
    )
    first = tensors["autoencoder.encoder.layers.0.weight"]
    stages = _count(tensors, "autoencoder.encoder.layers.") - 3  # between the first layer and the last two
    down = [tensors[f"autoencoder.encoder.layers.{stage}.layers.4.weight"] for stage in range(1, stages + 1)]
    autoencoder = OobleckConfig(
        audio_channels=first.shape[1],
        channels=first.shape[0],
        multiples=tuple(weight.shape[0] // first.shape[0] for weight in down),
        strides=tuple(weight.shape[2] // 2 for weight in down),
        latent=tensors["autoencoder.decoder.layers.0.weight"].shape[1],
        tanh=tanh,
    )
    return StableAudioConfig(sample_rate=sample_rate, dit=dit, autoencoder=autoencoder)


def _count(tensors: dict[str, Tensor], prefix: str) -> int:
    return len({name[len(prefix) :].split(".", 1)[0] for name in tensors if name.startswith(prefix)})
