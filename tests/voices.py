"""Small voices of random weights for tests, made in seconds."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch

from flowtts_core.acoustic import F5TTS, CosyVoice, CosyVoiceConfig, F5Config, MatchaConfig, MatchaTTS
from flowtts_core.audio.mel import MelConfig
from flowtts_core.config import spec_of
from flowtts_core.sampling import Sampling
from flowtts_core.text.frontends import PhonemeConfig, VocabularyConfig
from flowtts_core.vocoder import Vocos, VocosConfig
from flowtts_core.voice.card import load_card, write_card
from flowtts_core.voice.parts import save_voice


def lengthen(model: MatchaTTS, log_frames: float = 1.0) -> None:
    """Let each token of a model last about `exp(log_frames)` frames."""
    with torch.no_grad():
        model.get_parameter("encoder.proj_w.proj.bias").fill_(log_frames)


def make_voice(folder: Path, *, mel: MelConfig | None = None, n_speakers: int = 1, seed: int = 0) -> Path:
    """Write a random voice whose tokens last a few frames each."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in _voice_files(mel or MelConfig(), n_speakers, seed).items():
        (folder / name).write_bytes(data)
    write_card(folder, replace(load_card(folder), name=folder.name))
    return folder


@cache
def _voice_files(mel: MelConfig, n_speakers: int, seed: int) -> dict[str, bytes]:
    """The files of such a voice: exporting its graphs takes seconds, and many tests want one."""
    torch.manual_seed(seed)
    acoustic_config = replace(
        MatchaConfig.debug(), n_symbols=178, mel=mel, mel_mean=-5.5, mel_std=2.2, n_speakers=n_speakers
    )
    vocoder_config = VocosConfig(mel, dim=32, intermediate_dim=64, num_layers=2)
    acoustic, vocoder = MatchaTTS(acoustic_config).eval(), Vocos(vocoder_config).eval()
    lengthen(acoustic)
    with tempfile.TemporaryDirectory() as place:
        save_voice(
            Path(place),
            name="voice",
            acoustic=acoustic,
            acoustic_spec=spec_of("matcha", acoustic_config),
            vocoder=vocoder,
            vocoder_spec=spec_of("vocos", vocoder_config),
            frontend=spec_of("phonemes", PhonemeConfig()),
            speakers=tuple(f"speaker-{i}" for i in range(n_speakers)) if n_speakers > 1 else (),
            licence="CC0-1.0",
        )
        return {file.name: file.read_bytes() for file in Path(place).iterdir()}


def make_f5_voice(folder: Path, *, seed: int = 0) -> Path:
    """Write a random voice that reads characters and speaks after a prompt."""
    torch.manual_seed(seed)
    symbols = (" ", *map(chr, range(33, 127)))
    config = replace(F5Config.debug(), n_symbols=len(symbols) + 1, mel_mean=-5.5, mel_std=2.2, between=(1,))
    vocoder_config = VocosConfig(config.mel, dim=32, intermediate_dim=64, num_layers=2)
    acoustic, vocoder = F5TTS(config).eval(), Vocos(vocoder_config).eval()
    for parameter in acoustic.parameters():  # nothing may hide behind a zero initialisation
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    save_voice(
        folder,
        name=folder.name,
        acoustic=acoustic,
        acoustic_spec=spec_of("f5", config),
        vocoder=vocoder,
        vocoder_spec=spec_of("vocos", vocoder_config),
        frontend=spec_of("vocabulary", VocabularyConfig(symbols)),
        sampling=Sampling(steps=2, temperature=1.0, guidance=2.0, grid={"name": "pruned", "s": -1.0}),
        languages=("en-us",),
        licence="CC0-1.0",
    )
    return folder


def make_token_voice(folder: Path, *, seed: int = 0) -> Path:
    """Write a random voice of speech tokens that speaks as a prompt does; an utterance has a dozen tokens or two."""
    torch.manual_seed(seed)
    config = replace(CosyVoiceConfig.debug(), mel_mean=-5.5, mel_std=2.2)
    vocoder_config = VocosConfig(config.mel, dim=32, intermediate_dim=64, num_layers=2)
    acoustic, vocoder = CosyVoice(config).eval(), Vocos(vocoder_config).eval()
    save_voice(
        folder,
        name=folder.name,
        kind="tokens",
        acoustic=acoustic,
        acoustic_spec=spec_of("cosyvoice", config),
        vocoder=vocoder,
        vocoder_spec=spec_of("vocos", vocoder_config),
        frontend=spec_of("phonemes", PhonemeConfig()),
        sampling=replace(acoustic.sampling, steps=2),
        licence="CC0-1.0",
    )
    return folder
