"""RFWave's published checkpoints (bfs18/rfwave) of mels."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowtts_core.audio.mel import VOCOS_24K, MelConfig
from flowtts_core.errors import VoiceError
from flowtts_core.vocoder.equaliser import filters
from flowtts_core.vocoder.importers.base import ImportedVocoder, beside, check_bank, fitted, read_settings, reading
from flowtts_core.vocoder.rfwave import RFWaveConfig
from flowtts_core.voice.checkpoint import read_checkpoint

SETTINGS = "config.yaml"
_OVERLAP = 8  # on either side; the published code has no other
_OF_TRAINING = ("melspec_loss.", "rvm.")
_BANK = "feature_extractor.mel_spec.mel_scale.fb"


def import_rfwave(checkpoint: Path, config: Path | None = None, steps: int | None = None) -> ImportedVocoder:
    """Read an RFWave that makes waveforms of mels.

    Its mel has decimal logarithms; ours natural ones, so the first layer's weights are scaled by the quotient.

    Args:
        config: its config.yaml; by default the one beside it. Without any, what tensors do not tell is taken to be as in the
            published model of 24 kHz.
        steps: of the solver; 10 by default.

    Raises:
        VoiceError: for a file that cannot be read safely, or is no such model.
    """
    with reading(checkpoint, "RFWave of mels", "bfs18/rfwave, trained on mels"):
        tensors = _ours(read_checkpoint(checkpoint).tensors, str(checkpoint))
        settings = beside(checkpoint, config, SETTINGS)
        stated: dict[str, Any] = {}
        if settings is not None:
            with reading(settings, "RFWave's settings", "the model, whose config.yaml this is not"):
                stated = _stated(read_settings(settings))
        bank = tensors.pop(_BANK, None)
        sizes = _config_of(tensors, stated, str(checkpoint))
        if bank is not None:
            check_bank(sizes.mel, bank.float(), str(checkpoint))
        channels, bands = tensors["backbone.out.bias"].shape[0], sizes.mel.n_mels
        weight = tensors["backbone.embed.weight"].float().clone()
        weight[:, channels : channels + bands] /= math.log(10)
        tensors["backbone.embed.weight"] = weight
        assumed = "" if stated else f"no {SETTINGS}: taken to have the published mel of 24 kHz, without guidance"
        chosen = replace(sizes, steps=steps or sizes.steps)
        return fitted("rfwave", chosen, tensors, str(checkpoint), assumed)


def _ours(published: dict[str, Tensor], who: str) -> dict[str, Tensor]:
    """Return the tensors by our names, without those of training and those that are computed."""
    found = {}
    for name, tensor in published.items():
        name = name.removeprefix("reflow.").replace("_orig_mod.", "")
        first, _, last = name.rpartition(".")
        if name.startswith(_OF_TRAINING) or name in (
            "head.stft.window",
            "feature_extractor.mel_spec.spectrogram.window",
        ):
            continue
        if first.endswith("_processor"):
            if last == "batch":  # how many batches the statistics have seen
                continue
            name = f"equaliser.{ {'mean_ema': 'mean', 'var_ema': 'variance'}.get(last, last) }"
        elif first.endswith("eq_processor.pqmf"):
            own = filters()[last == "synthesis_filter"]
            if tensor.shape != own.shape or not torch.allclose(tensor.float(), own, atol=1e-5):
                raise VoiceError(f"{who}: its equaliser has other filters", "give a model of the published code")
            continue
        found[name.replace("head.istft.", "istft.")] = tensor
    return found


def _stated(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of the mel, with those of the flow, from the settings of a training."""
    model = settings["model"]["init_args"]
    extractor = model["feature_extractor"]
    if not str(extractor["class_path"]).endswith(".MelSpectrogramFeatures"):
        raise VoiceError(f"RFWave of {extractor['class_path']}", "give one of mels")
    if not str(model["backbone"]["class_path"]).endswith(".VocosRFBackbone"):
        raise VoiceError(f"RFWave with {model['backbone']['class_path']}", "give one with a VocosRFBackbone")
    dilation = model["backbone"]["init_args"].get("dilation", 1)
    if dilation not in (1, None):
        raise VoiceError(f"RFWave with dilation {dilation}", "give one without")
    if float(model["backbone"]["init_args"].get("pe_scale", 1000.0)) != 1000.0:
        raise VoiceError("RFWave with another pe_scale than 1000", "give one with the published scale")
    return {**extractor["init_args"], "guidance": float(model.get("guidance_scale", 1.0))}


def _config_of(tensors: dict[str, Tensor], stated: dict[str, Any], who: str) -> RFWaveConfig:
    bands, dim = tensors["backbone.norm.scale.weight"].shape
    channels = tensors["backbone.out.weight"].shape[0]
    n_fft = (channels // 2 - 2 * _OVERLAP) * bands * 2
    seen = tensors["backbone.embed.weight"].shape[1]
    n_mels = seen - 5 * channels  # the rest are bands, and sines and cosines of them at two frequencies
    if n_mels < 1:
        raise VoiceError(f"{who}: sees {seen} channels for bands of {channels}", "give a model with Fourier features")
    for name, own in (("n_fft", n_fft), ("n_mels", n_mels)):
        if int(stated.get(name, own)) != own:
            raise VoiceError(
                f"{who}: {name} {own} by its tensors, but {stated[name]} by its settings",
                "give the settings that came with the checkpoint",
            )
    mel: MelConfig = replace(
        VOCOS_24K,
        sample_rate=int(stated.get("sample_rate", 24000)),
        n_fft=n_fft,
        win_length=n_fft,
        hop_length=int(stated.get("hop_length", n_fft // 4)),
        n_mels=n_mels,
        padding=str(stated.get("padding", "center")),
    )
    return RFWaveConfig(
        mel=mel,
        bands=bands,
        overlap=_OVERLAP,
        dim=dim,
        intermediate_dim=tensors["backbone.convnext.0.pwconv1.weight"].shape[0],
        num_layers=len({name.split(".")[2] for name in tensors if name.startswith("backbone.convnext.")}),
        wave=tensors["equaliser.mean"].shape[0] != n_fft + 2,
        guidance=float(stated.get("guidance", 1.0)),
    )
