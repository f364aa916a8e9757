"""EnCodec's published models: those of facebookresearch/encodec, and of transformers with their config.json."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from flowtts_core.codec.encodec import EnCodecConfig
from flowtts_core.codec.importers.base import (
    ImportedCodec,
    count_of,
    fitted,
    require_model_type,
    seanet_names,
    seanet_of,
    under,
)
from flowtts_core.nn.weight_norm import fold_weight_norm
from flowtts_core.vocoder.importers.base import beside, read_settings, reading
from flowtts_core.voice.checkpoint import read_checkpoint

SETTINGS = "config.json"


def import_encodec(checkpoint: Path, config: Path | None = None) -> ImportedCodec:
    """Read an EnCodec: `encodec_24khz-*.th`, `encodec_48khz-*.th`, or a `model.safetensors` of transformers.

    Args:
        config: the config.json of transformers; by default the one beside it. Without any, a model of one channel is taken to
            be the causal one of 24 kHz, one with group norms that of 48 kHz and segments of a second.

    Raises:
        VoiceError: for a file that cannot be read safely, is no EnCodec, or does not fit its settings.
    """
    with reading(checkpoint, "EnCodec", "facebookresearch/encodec, or facebook/encodec_24khz and its relatives"):
        tensors = published_names(fold_weight_norm(read_checkpoint(checkpoint).tensors))
        settings = beside(checkpoint, config, SETTINGS)
        if settings is not None:
            with reading(settings, "EnCodec's settings", "the model, whose config.json this is not"):
                stated = read_settings(settings)
                require_model_type(stated, "encodec", settings)
                return fitted("encodec", _stated(tensors, stated), tensors, str(checkpoint))
        sizes = _by_tensors(tensors)
        told = f"{sizes.sample_rate} Hz, {'causal' if sizes.seanet.causal else 'in segments of a second, normalised'}"
        return fitted(
            "encodec", sizes, tensors, str(checkpoint), f"no {SETTINGS}: taken to be the published model of {told}"
        )


def published_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors under the names of facebookresearch/encodec, whichever library named them."""
    return {
        re.sub(r"^quantizer\.layers\.(\d+)\.codebook\.", r"quantizer.vq.layers.\1._codebook.", name): tensor
        for name, tensor in seanet_names(tensors).items()
    }


def _books(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    return {
        "n_q": count_of(tensors, r"quantizer\.vq\.layers\.(\d+)\."),
        "bins": tensors["quantizer.vq.layers.0._codebook.embed"].shape[0],
    }


def _by_tensors(tensors: dict[str, Tensor]) -> EnCodecConfig:
    seanet = under(tensors, "encoder.")
    if any(".norm." in name for name in seanet):
        return EnCodecConfig(
            48000, seanet_of(seanet, causal=False), normalize=True, segment_s=1.0, overlap=0.01, **_books(tensors)
        )
    return EnCodecConfig(24000, seanet_of(seanet, causal=True), **_books(tensors))


def _stated(tensors: dict[str, Tensor], settings: dict[str, Any]) -> EnCodecConfig:
    seanet = seanet_of(
        under(tensors, "encoder."),
        causal=bool(settings["use_causal_conv"]),
        pad_mode=str(settings["pad_mode"]),
        dilation_base=int(settings["dilation_growth_rate"]),
    )
    segment = settings.get("chunk_length_s")
    return EnCodecConfig(
        int(settings["sampling_rate"]),
        seanet,
        normalize=bool(settings["normalize"]),
        segment_s=None if segment is None else float(segment),
        overlap=float(settings.get("overlap") or 0.0),
        **_books(tensors),
    )
