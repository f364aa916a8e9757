"""A small voice of random weights for tests, made in seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from flowtts_core.acoustic import MatchaConfig, MatchaTTS
from flowtts_core.audio.mel import MelConfig
from flowtts_core.config import spec_of
from flowtts_core.text.frontends import PhonemeConfig
from flowtts_core.vocoder import Vocos, VocosConfig
from flowtts_core.voice.parts import save_voice


def lengthen(model: MatchaTTS, log_frames: float = 1.0) -> None:
    """Let each token of a model last about `exp(log_frames)` frames."""
    with torch.no_grad():
        model.get_parameter("encoder.proj_w.proj.bias").fill_(log_frames)


def make_voice(folder: Path, *, mel: MelConfig | None = None, n_speakers: int = 1, seed: int = 0) -> Path:
    """Write a random voice whose tokens last a few frames each."""
    torch.manual_seed(seed)
    mel = mel or MelConfig()
    acoustic_config = replace(
        MatchaConfig.debug(), n_symbols=178, mel=mel, mel_mean=-5.5, mel_std=2.2, n_speakers=n_speakers
    )
    vocoder_config = VocosConfig(mel, dim=32, intermediate_dim=64, num_layers=2)
    acoustic, vocoder = MatchaTTS(acoustic_config).eval(), Vocos(vocoder_config).eval()
    lengthen(acoustic)
    save_voice(
        folder,
        name=folder.name,
        acoustic=acoustic,
        acoustic_spec=spec_of("matcha", acoustic_config),
        vocoder=vocoder,
        vocoder_spec=spec_of("vocos", vocoder_config),
        frontend=spec_of("phonemes", PhonemeConfig()),
        speakers=tuple(f"speaker-{i}" for i in range(n_speakers)) if n_speakers > 1 else (),
        licence="CC0-1.0",
    )
    return folder
