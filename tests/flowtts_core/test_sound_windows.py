"""Sound made window by window is the sound of the whole, in memory that does not grow with its length."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from flowtts_core.audio.mel import VOCOS_24K, MelConfig
from flowtts_core.vocoder import (
    BandSplit,
    BandSplitConfig,
    Diffusion,
    DiffusionConfig,
    HiFiGAN,
    HiFiGANConfig,
    RFWave,
    RFWaveConfig,
    SourceFilter,
    SourceFilterConfig,
    Vocoder,
    Vocos,
    VocosConfig,
    WaveFM,
    WaveFMConfig,
)
from flowtts_core.vocoder.windows import FRAMES, sound_in_windows, window_frames

SMALL: dict[str, Any] = {"dim": 16, "intermediate_dim": 32, "num_layers": 2}
FLOW: dict[str, Any] = {**SMALL, "num_layers": 1}
UNET: dict[str, Any] = {
    "channels": (8, 8, 4),
    "upsample_rates": (16, 16),
    "kernel_sizes": (3,),
    "dilations": (1,),
    "down_dilations": (1,),
    "time_channels": 8,
}
MADE: dict[str, tuple[Any, Any]] = {
    "vocos": (Vocos, VocosConfig(**SMALL)),
    "vocos, centred": (Vocos, VocosConfig(VOCOS_24K, mel_prior=True, **SMALL)),
    "source filter": (SourceFilter, SourceFilterConfig(MelConfig(pitch=True), free_bins=64, **SMALL)),
    "hifigan, denoised": (HiFiGAN, HiFiGANConfig(upsample_initial_channel=16, denoise=0.01)),
    "wavefm": (
        WaveFM,
        WaveFMConfig(channels=(8, 8, 4, 4, 4), kernel_sizes=(3,), dilations=(1,), time_channels=8, steps=1),
    ),
    "wavefm, shaped": (WaveFM, WaveFMConfig(VOCOS_24K, **UNET, steps=2, shaped=True)),
    "diffusion": (Diffusion, DiffusionConfig(**UNET, steps=3)),
    "rfwave": (RFWave, RFWaveConfig(**FLOW, bands=4, steps=2, frame_norm=True)),
    "rfwave, flat": (RFWave, RFWaveConfig(**FLOW, bands=4, steps=2, frame_norm=True, wave=False, flat=True)),
    "band_split": (
        BandSplit,
        BandSplitConfig(**FLOW, head_dim=16, head_intermediate_dim=32, head_layers=2, steps=(3, 2)),
    ),
}


def made(name: str) -> Vocoder:
    torch.manual_seed(0)
    kind, config = MADE[name]
    vocoder: Vocoder = kind(config).eval()
    return vocoder


@pytest.mark.parametrize("name", MADE)
def test_windows_make_what_the_whole_makes(name: str) -> None:
    vocoder = made(name)
    context = vocoder.context_frames
    assert context is not None and window_frames(vocoder) == max(FRAMES, 2 * context)
    mel = torch.randn(vocoder.features.rows, 2 * context + 131, generator=torch.Generator().manual_seed(1)) - 3
    with torch.inference_mode():
        whole = vocoder(mel[None])[0].clamp(-1, 1)
    pieces = list(sound_in_windows(vocoder, mel, 32))
    assert len(pieces) > 4 and all(len(piece) <= 32 * vocoder.features.hop_length for piece in pieces)
    torch.testing.assert_close(torch.cat(pieces), whole, atol=1e-4, rtol=0)


def test_a_window_sees_as_many_frames_however_long_the_mel_is(monkeypatch: pytest.MonkeyPatch) -> None:
    vocoder, seen = made("vocos"), list[int]()
    forward = vocoder.forward

    def counted(mel: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        seen.append(mel.shape[-1])
        return forward(mel, *args, **kwargs)

    monkeypatch.setattr(vocoder, "forward", counted)
    mel = torch.zeros(80, 5 * FRAMES, dtype=torch.float16)
    assert sum(map(len, sound_in_windows(vocoder, mel))) == vocoder.features.samples_of(5 * FRAMES)
    assert vocoder.context_frames is not None and max(seen) <= FRAMES + 2 * vocoder.context_frames


def test_a_vocoder_that_sees_all_frames_makes_a_mel_at_once() -> None:
    mel = replace(VOCOS_24K, n_fft=256, win_length=256, hop_length=64, n_mels=20)
    vocoder = RFWave(RFWaveConfig(mel=mel, bands=2, overlap=4, dim=8, intermediate_dim=8, num_layers=1, steps=1)).eval()
    assert window_frames(vocoder) is None
    [whole] = sound_in_windows(vocoder, torch.zeros(20, 700), 32)
    assert len(whole) == mel.samples_of(700)
