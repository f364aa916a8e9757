"""Vocos's published models of mels: `pytorch_model.bin` with its config.yaml, or a checkpoint of its training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from flowtts_core.audio.mel import VOCOS_24K, MelConfig
from flowtts_core.errors import VoiceError
from flowtts_core.vocoder.importers.base import ImportedVocoder, beside, check_bank, fitted, read_settings, reading
from flowtts_core.vocoder.vocos import VocosConfig
from flowtts_core.voice.checkpoint import read_checkpoint

SETTINGS = "config.yaml"
_FEATURES = "feature_extractor."
_OF_TRAINING = ("multiperioddisc.", "multiresddisc.", "melspec_loss.", "disc_loss.", "gen_loss.", "feat_matching_loss.")


def import_vocos(checkpoint: Path, config: Path | None = None) -> ImportedVocoder:
    """Read a Vocos of gemelo-ai/vocos that makes waveforms of mels, as charactr/vocos-mel-24khz.

    Args:
        config: its config.yaml; by default the one beside it. Without any, what tensors do not tell is taken to be as in the
            published model of 24 kHz: the hop, and how frames are centred.

    Raises:
        VoiceError: for a file that cannot be read safely, or is no such model; those of EnCodec's codes are not.
    """
    with reading(checkpoint, "Vocos of mels", "gemelo-ai/vocos, as charactr/vocos-mel-24khz"):
        tensors = {k: t for k, t in read_checkpoint(checkpoint).tensors.items() if not k.startswith(_OF_TRAINING)}
        if any(name.startswith(f"{_FEATURES}encodec") for name in tensors) or "backbone.norm.scale.weight" in tensors:
            raise VoiceError(f"{checkpoint}: a Vocos of EnCodec's codes", "give one of mels, as vocos-mel-24khz")
        settings = beside(checkpoint, config, SETTINGS)
        stated: dict[str, Any] = {}
        if settings is not None:
            with reading(settings, "Vocos's settings", "the model, whose config.yaml this is not"):
                stated = _stated(read_settings(settings))
        own = {name: tensor for name, tensor in tensors.items() if not name.startswith(_FEATURES)}
        sizes = _config_of(own, stated)
        bank = tensors.get(f"{_FEATURES}mel_spec.mel_scale.fb")
        if bank is not None:
            check_bank(sizes.mel, bank.float(), str(checkpoint))
        assumed = "" if stated else f"no {SETTINGS}: taken to have the mel of vocos-mel-24khz"
        return fitted("vocos", sizes, own, str(checkpoint), assumed)


def _stated(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of the mel, from the settings of a model or of its training."""
    if "model" in settings:
        settings = settings["model"]["init_args"]
    extractor, head = settings["feature_extractor"], settings["head"]
    if not str(extractor["class_path"]).endswith("MelSpectrogramFeatures"):
        raise VoiceError(f"Vocos of {extractor['class_path']}", "give one of mels, as vocos-mel-24khz")
    if not str(head["class_path"]).endswith("ISTFTHead"):
        raise VoiceError(f"Vocos with {head['class_path']}", "give one with an ISTFTHead")
    mel, synthesis = extractor["init_args"], head["init_args"]
    for name in ("n_fft", "hop_length", "padding"):
        if name in synthesis and name in mel and synthesis[name] != mel[name]:
            raise VoiceError(f"its mel has {name} {mel[name]}, its head {synthesis[name]}", "give one where both agree")
    return dict(mel)


def _config_of(tensors: dict[str, Tensor], stated: dict[str, Any]) -> VocosConfig:
    dim, n_mels, _ = tensors["backbone.embed.weight"].shape
    n_fft = tensors["head.out.weight"].shape[0] - 2
    mel: MelConfig = replace(
        VOCOS_24K,
        sample_rate=int(stated.get("sample_rate", 24000)),
        n_fft=n_fft,
        win_length=tensors["head.istft.window"].shape[0],
        hop_length=int(stated.get("hop_length", 256)),
        n_mels=n_mels,
        padding=str(stated.get("padding", "center")),
    )
    if int(stated.get("n_fft", n_fft)) != n_fft or int(stated.get("n_mels", n_mels)) != n_mels:
        raise VoiceError(
            f"n_fft {n_fft} and {n_mels} bands by its tensors, but {stated.get('n_fft')} and {stated.get('n_mels')} by its"
            " settings",
            "give the settings that came with the checkpoint",
        )
    layers = len({name.split(".")[2] for name in tensors if name.startswith("backbone.convnext.")})
    inner = tensors["backbone.convnext.0.pwconv1.weight"].shape[0]
    return VocosConfig(mel=mel, dim=dim, intermediate_dim=inner, num_layers=layers)
