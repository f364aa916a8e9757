"""WaveFM's published checkpoints (luotianze666/WaveFM), original and distilled."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from flowtts_core.audio.mel import WAVEFM_24K
from flowtts_core.errors import VoiceError
from flowtts_core.nn.weight_norm import fold_weight_norm
from flowtts_core.vocoder.importers.base import ImportedVocoder, fitted, reading
from flowtts_core.vocoder.wavefm import WaveFMConfig
from flowtts_core.voice.checkpoint import read_checkpoint

_OURS = {
    "timePre0": "time_in.0",
    "timePre1": "time_in.2",
    "convUpIn": "mel_in",
    "convDownIn": "wave_in",
    "timeDowns": "times",
    "resLayerUps": "up_blocks",
    "resLayerDowns": "down_blocks",
    "actUpOut": "act_out",
    "convUpOut": "out",
}


def import_wavefm(checkpoint: Path, steps: int | None = None) -> ImportedVocoder:
    """Read a WaveFM; its sizes are those of its tensors, its mel and its dilations those of the published 24 kHz model.

    Args:
        steps: of the solver; by default 1 for a model that says it is distilled, else the published 6.

    Raises:
        VoiceError: for a file that cannot be read safely, or is no such model.
    """
    with reading(checkpoint, "WaveFM", "luotianze666/WaveFM"):
        loaded = read_checkpoint(checkpoint)
        tensors = {f"net.{_renamed(name)}": own for name, own in fold_weight_norm(loaded.tensors).items()}
        config = _config_of(tensors, str(checkpoint))
        chosen = steps or (1 if loaded.notes.get("distilled") is True else config.steps)
        assumed = (
            f"taken to read the published mel: 24 kHz, powers, bands to 12 kHz, a hop of 256; takes {chosen} steps"
        )
        return fitted("wavefm", replace(config, steps=chosen), tensors, str(checkpoint), assumed)


def _renamed(name: str) -> str:
    first, dot, rest = name.partition(".")
    return _OURS.get(first, first) + dot + rest


def _config_of(tensors: dict[str, Tensor], who: str) -> WaveFMConfig:
    stages = _count(tensors, r"net\.ups\.(\d+)\.weight")
    widths = [tensors[f"net.ups.{stage}.weight"].shape[0] for stage in range(stages)]
    widths.append(tensors["net.out.weight"].shape[1])
    rates = tuple(tensors[f"net.ups.{stage}.weight"].shape[2] // 2 for stage in range(stages))
    blocks = _count(tensors, r"net\.up_blocks\.0\.blocks\.(\d+)\.conv1\.weight")
    sizes = [tensors[f"net.up_blocks.0.blocks.{block}.conv1.weight"].shape[2] for block in range(blocks)]
    kernels = tuple(dict.fromkeys(sizes))
    default = WaveFMConfig()
    if sizes != [kernel for kernel in kernels for _ in default.dilations]:
        raise VoiceError(
            f"{who}: {len(sizes)} residual blocks of kernels {list(kernels)} a stage, whose dilations nothing tells",
            f"give a model with those published, {len(default.dilations)} of each kernel",
        )
    return WaveFMConfig(
        mel=replace(WAVEFM_24K, n_mels=tensors["net.mel_in.weight"].shape[1]),
        channels=tuple(widths),
        upsample_rates=rates,
        kernel_sizes=kernels,
        down_kernel_size=tensors["net.down_blocks.0.blocks.0.conv1.weight"].shape[2],
        down_dilations=(1,) * _count(tensors, r"net\.down_blocks\.0\.blocks\.(\d+)\.conv1\.weight"),
        time_channels=tensors["net.time_in.0.weight"].shape[0],
    )


def _count(tensors: dict[str, Tensor], pattern: str) -> int:
    return sum(bool(re.fullmatch(pattern, name)) for name in tensors)
