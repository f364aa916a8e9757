"""WavTokenizer's published checkpoints, with the decoder of EnCodec that they never use left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from flowtts_core.codec.importers.base import ImportedCodec, count_of, fitted, seanet_of, under
from flowtts_core.codec.wavtokenizer import WavTokenizerConfig
from flowtts_core.errors import VoiceError
from flowtts_core.nn.weight_norm import fold_weight_norm
from flowtts_core.vocoder.importers.base import read_settings, reading
from flowtts_core.voice.checkpoint import read_checkpoint

_ENCODEC = "feature_extractor.encodec."
_UNUSED = (
    f"{_ENCODEC}decoder.",
    "multiperioddisc.",
    "multiresddisc.",
    "dac.",
    "dacdiscriminator.",
    "melspec_loss.",
    "disc_loss.",
    "gen_loss.",
    "feat_matching_loss.",
)


def import_wavtokenizer(checkpoint: Path, config: Path | None = None) -> ImportedCodec:
    """Read a WavTokenizer of jishengpeng/WavTokenizer (`wavtokenizer_*.ckpt`).

    Args:
        config: the YAML of its training, for the sample rate; without any it is taken to be 24 kHz, as published.

    Raises:
        VoiceError: for a file that cannot be read safely, or is no such model.
    """
    with reading(checkpoint, "WavTokenizer", "jishengpeng/WavTokenizer"):
        every = fold_weight_norm(read_checkpoint(checkpoint).tensors)
        tensors = {name: tensor for name, tensor in every.items() if not name.startswith(_UNUSED)}
        stated: dict[str, Any] = {}
        if config is not None:
            with reading(config, "WavTokenizer's settings", "the model, whose YAML this is not"):
                stated = read_settings(config)["model"]["init_args"]
        sizes = _config_of(tensors, int(stated.get("sample_rate", 24000)))
        window = tensors["head.istft.window"].shape[0]
        if window != 4 * sizes.seanet.hop_length:
            raise VoiceError(
                f"{checkpoint}: a window of {window} samples for frames of {sizes.seanet.hop_length}",
                "give a published WavTokenizer, whose windows have four frames",
            )
        assumed = "" if stated else "no settings: taken to be of 24000 Hz"
        return fitted("wavtokenizer", sizes, tensors, str(checkpoint), assumed)


def _config_of(tensors: dict[str, Tensor], sample_rate: int) -> WavTokenizerConfig:
    inner, dim = tensors["backbone.convnext.0.pwconv1.weight"].shape
    return WavTokenizerConfig(
        sample_rate,
        seanet_of(under(tensors, f"{_ENCODEC}encoder."), causal=False),
        bins=tensors[f"{_ENCODEC}quantizer.vq.layers.0._codebook.embed"].shape[0],
        dim=dim,
        intermediate_dim=inner,
        num_layers=count_of(tensors, r"backbone\.convnext\.(\d+)\."),
        bandwidths=tensors["backbone.norm.scale.weight"].shape[0],
    )
