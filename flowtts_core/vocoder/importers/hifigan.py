"""HiFi-GAN's published generators: V1, V2, V3 and relatives, with the config.json of their training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from flowtts_core.audio.mel import MelConfig
from flowtts_core.errors import VoiceError
from flowtts_core.nn.weight_norm import fold_weight_norm
from flowtts_core.vocoder.hifigan import HIFIGAN_V1, HIFIGAN_V2, HIFIGAN_V3, HiFiGAN, HiFiGANConfig
from flowtts_core.vocoder.importers.base import ImportedVocoder, beside, fitted, read_settings, reading
from flowtts_core.voice.checkpoint import read_checkpoint

SETTINGS = "config.json"
PUBLISHED = {"V1": HIFIGAN_V1, "V2": HIFIGAN_V2, "V3": HIFIGAN_V3}


def import_hifigan(checkpoint: Path, config: Path | None = None) -> ImportedVocoder:
    """Read a generator of jik876/hifi-gan (`generator_v1`, `g_02500000`, ...), with weight norm or without.

    Args:
        config: its config.json; by default the one beside it. Without any, V1, V2 and V3 are known by their tensors, and
            taken for models of the published mel, of 22.05 kHz and 80 bands.

    Raises:
        VoiceError: for a file that cannot be read safely, is no generator, or does not fit its config.json.
    """
    with reading(checkpoint, "HiFi-GAN generator", "jik876/hifi-gan: its generator, not its discriminators"):
        folded = fold_weight_norm(read_checkpoint(checkpoint).tensors)
        tensors = {f"generator.{name}": tensor for name, tensor in folded.items()}
        settings = beside(checkpoint, config, SETTINGS)
        if settings is not None:
            with reading(settings, "HiFi-GAN's settings", "the model, whose config.json this is not"):
                sizes = _config_of(read_settings(settings))
            return fitted("hifigan", sizes, tensors, str(checkpoint))
        version = _version_of(tensors, str(checkpoint))
        return fitted(
            "hifigan",
            PUBLISHED[version],
            tensors,
            str(checkpoint),
            f"no {SETTINGS}: by its tensors it is {version}, taken to read the published mel of 22,050 Hz",
        )


def _config_of(settings: dict[str, Any]) -> HiFiGANConfig:
    mel = MelConfig(
        sample_rate=int(settings["sampling_rate"]),
        hop_length=int(settings["hop_size"]),
        n_fft=int(settings["n_fft"]),
        win_length=int(settings["win_size"]),
        n_mels=int(settings["num_mels"]),
        f_min=float(settings["fmin"]),
        f_max=None if settings["fmax"] is None else float(settings["fmax"]),
    )
    return HiFiGANConfig(
        mel=mel,
        resblock=str(settings["resblock"]),
        upsample_rates=tuple(map(int, settings["upsample_rates"])),
        upsample_kernel_sizes=tuple(map(int, settings["upsample_kernel_sizes"])),
        upsample_initial_channel=int(settings["upsample_initial_channel"]),
        resblock_kernel_sizes=tuple(map(int, settings["resblock_kernel_sizes"])),
        resblock_dilation_sizes=tuple(tuple(map(int, row)) for row in settings["resblock_dilation_sizes"]),
    )


def _version_of(tensors: dict[str, Tensor], who: str) -> str:
    """Return which of the published generators has these tensors; they do not tell the dilations of others."""
    first = tensors["generator.conv_pre.weight"]
    for version, config in PUBLISHED.items():
        if first.shape[0] == config.upsample_initial_channel:
            wanted = {name: tensor.shape for name, tensor in HiFiGAN(config).state_dict().items()}
            if wanted == {name: tensor.shape for name, tensor in tensors.items()}:
                return version
    raise VoiceError(
        f"{who}: is none of {', '.join(PUBLISHED)} by its tensors, which do not tell its rates and dilations",
        f"give its {SETTINGS} too, or put it beside the checkpoint",
    )
