"""Recipes: functions that return the whole configuration of a training run; each has a debug sibling of seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flowtts_core.config import override
from flowtts_core.errors import ConfigError
from jobs.training.recipes.acoustic import (
    AcousticRecipe,
    acoustic_consistency,
    acoustic_consistency_debug,
    bundled_acoustic,
    distillation,
    distillation_debug,
    guided_distillation,
    guided_distillation_debug,
    matcha,
    matcha_debug,
    natural_acoustic,
    zipvoice,
    zipvoice_base,
    zipvoice_debug,
)
from jobs.training.recipes.base import Recipe
from jobs.training.recipes.codec import (
    CodecRecipe,
    codec,
    codec_debug,
    codec_rvq,
    codec_rvq_debug,
    encodec,
    encodec_debug,
    facodec,
    facodec_debug,
    vqvae,
    vqvae_debug,
)
from jobs.training.recipes.cosy import cosy, cosy_debug, cosy_tokens, cosy_tokens_debug
from jobs.training.recipes.f5 import f5, f5_base, f5_debug, zero_shot, zero_shot_debug
from jobs.training.recipes.fine_tuning import fine_tuning, fine_tuning_debug
from jobs.training.recipes.vocoder import (
    VocoderRecipe,
    band_split,
    band_split_debug,
    bundled_vocoder,
    consistency,
    consistency_debug,
    diffusion,
    diffusion_debug,
    general_vocoder,
    general_vocoder_debug,
    hifigan,
    hifigan_debug,
    natural_vocoder,
    rfwave,
    rfwave_debug,
    source_filter_debug,
    tuning,
    tuning_debug,
    vocoder,
    vocoder_debug,
    vocos,
    vocos_debug,
    wavefm,
    wavefm_debug,
)
from jobs.training.recipes.watermark import watermark, watermark_debug

RECIPES: dict[str, Callable[[], Recipe]] = {
    "acoustic_consistency": acoustic_consistency,
    "acoustic_consistency_debug": acoustic_consistency_debug,
    "band_split": band_split,
    "band_split_debug": band_split_debug,
    "bundled_acoustic": bundled_acoustic,
    "bundled_vocoder": bundled_vocoder,
    "codec": codec,
    "codec_debug": codec_debug,
    "codec_rvq": codec_rvq,
    "codec_rvq_debug": codec_rvq_debug,
    "consistency": consistency,
    "consistency_debug": consistency_debug,
    "cosy": cosy,
    "cosy_debug": cosy_debug,
    "cosy_tokens": cosy_tokens,
    "cosy_tokens_debug": cosy_tokens_debug,
    "diffusion": diffusion,
    "diffusion_debug": diffusion_debug,
    "distillation": distillation,
    "distillation_debug": distillation_debug,
    "f5": f5,
    "f5_base": f5_base,
    "f5_debug": f5_debug,
    "encodec": encodec,
    "encodec_debug": encodec_debug,
    "facodec": facodec,
    "facodec_debug": facodec_debug,
    "fine_tuning": fine_tuning,
    "fine_tuning_debug": fine_tuning_debug,
    "general_vocoder": general_vocoder,
    "general_vocoder_debug": general_vocoder_debug,
    "guided_distillation": guided_distillation,
    "guided_distillation_debug": guided_distillation_debug,
    "hifigan": hifigan,
    "hifigan_debug": hifigan_debug,
    "matcha": matcha,
    "matcha_debug": matcha_debug,
    "natural_acoustic": natural_acoustic,
    "natural_vocoder": natural_vocoder,
    "rfwave": rfwave,
    "rfwave_debug": rfwave_debug,
    "source_filter_debug": source_filter_debug,
    "tuning": tuning,
    "tuning_debug": tuning_debug,
    "vocoder": vocoder,
    "vocoder_debug": vocoder_debug,
    "vocos": vocos,
    "vocos_debug": vocos_debug,
    "watermark": watermark,
    "watermark_debug": watermark_debug,
    "vqvae": vqvae,
    "vqvae_debug": vqvae_debug,
    "wavefm": wavefm,
    "wavefm_debug": wavefm_debug,
    "zero_shot": zero_shot,
    "zero_shot_debug": zero_shot_debug,
    "zipvoice": zipvoice,
    "zipvoice_base": zipvoice_base,
    "zipvoice_debug": zipvoice_debug,
}


def recipe(name: str, settings: dict[str, Any] | None = None) -> Recipe:
    """Return a recipe by name, with `--set key=value` overrides (`trainer.learning_rate`, `model.encoder_layers`, ...).

    Raises:
        ConfigError: for an unknown recipe or setting, listing those that there are.
    """
    if name not in RECIPES:
        raise ConfigError(f"no recipe {name!r}", f"use one of: {', '.join(sorted(RECIPES))}")
    changed: Recipe = override(RECIPES[name](), settings or {})
    return changed


__all__ = [
    "RECIPES",
    "AcousticRecipe",
    "CodecRecipe",
    "Recipe",
    "VocoderRecipe",
    "matcha_debug",
    "recipe",
    "vocos_debug",
]
