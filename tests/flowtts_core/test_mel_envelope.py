"""Flows that begin at a whisper, or at a spectrum as flat as noise: their contract, and what they make before they learn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from flowtts_core.audio.mel import VOCOS_24K, LogMel, MelConfig
from flowtts_core.errors import ConfigError
from flowtts_core.vocoder import RFWave, RFWaveConfig, Vocoder, WaveFM, WaveFMConfig
from flowtts_core.vocoder.mel_envelope import MelEnvelope, MelNoise

WAVEFM = {"channels": (8, 8, 4), "upsample_rates": (16, 16), "kernel_sizes": (3,), "dilations": (1,), "shaped": True}
RFWAVE = {"dim": 16, "intermediate_dim": 32, "num_layers": 1, "frame_norm": True, "wave": False, "flat": True}


def small(name: str, padding: str) -> Vocoder:
    mel, settings = replace(VOCOS_24K, padding=padding), dict[str, Any](steps=2)
    torch.manual_seed(0)
    if name == "wavefm":
        model = WaveFM(WaveFMConfig(mel, **WAVEFM, **settings))
        torch.nn.init.normal_(model.net.out.weight, std=0.1)
        return model.eval()
    return RFWave(RFWaveConfig(mel, **RFWAVE, **settings)).eval()


@pytest.mark.parametrize("padding", ["center", "same"])
@pytest.mark.parametrize("name", ["wavefm", "rfwave"])
def test_padding_and_windows_change_nothing(name: str, padding: str) -> None:
    vocoder, mel = small(name, padding), torch.randn(2, 100, 120) - 4
    with torch.no_grad():
        batch, alone = vocoder(mel, torch.tensor([120, 67])), vocoder(mel[1:, :, :67])
        start = vocoder.start_at(mel[0], 40)
        assert start is not None and vocoder.context_frames is not None
        part = vocoder(mel[:1, :, 40:], start=start[None])
    torch.testing.assert_close(batch[1:, : alone.shape[1]], alone, atol=1e-5, rtol=0)
    assert alone.abs().max() > 1e-4 and not batch[1, alone.shape[1] :].any()
    first = vocoder.context_frames * 256
    torch.testing.assert_close(part[:, first:], batch[:1, 40 * 256 + first :], atol=1e-5, rtol=0)


def test_an_untaught_wavefm_whispers_what_the_mel_says() -> None:
    sound = torch.sin(torch.arange(24_000) * 0.2)[None] * torch.linspace(0.001, 0.5, 24_000)
    log_mel = LogMel(VOCOS_24K)
    mel = log_mel(sound + 1e-3 * torch.randn(1, 24_000, generator=torch.Generator().manual_seed(0)))
    model = WaveFM(WaveFMConfig(VOCOS_24K, **WAVEFM, steps=1))
    with torch.no_grad():
        shaped = (log_mel(model(mel)) - mel).abs().mean()
    assert shaped < 0.6  # of white noise as loud it is 2


def test_what_the_mel_does_not_show_goes_on_as_its_last_band() -> None:
    mel = MelConfig(f_max=8000.0)
    made = MelEnvelope(mel)(torch.randn(1, mel.n_mels, 3) - 4)
    above = made[0, 380:]  # bins above 8.2 kHz
    torch.testing.assert_close(above, above[:1].expand_as(above))
    assert made.max() < 50


def test_noise_is_as_loud_as_the_envelope() -> None:
    noise = torch.randn(1, 256 * 400, generator=torch.Generator().manual_seed(0))
    mel = LogMel(VOCOS_24K)(0.1 * noise)
    again = torch.randn(1, 256 * 401, generator=torch.Generator().manual_seed(1))
    assert MelNoise(VOCOS_24K)(again, mel).std() == pytest.approx(0.1, rel=0.2)


def test_flat_spectra_need_noise_of_spectra() -> None:
    with pytest.raises(ConfigError, match="flat"):
        RFWave(RFWaveConfig(flat=True))
