"""Log-mel against its own arithmetic: as many frames as `frames_of` says, for clips of any length."""

from __future__ import annotations

import pytest
import torch

from flowtts_core.audio.mel import LogMel, MelConfig
from flowtts_core.audio.pitch import pitch_hz


@pytest.mark.parametrize("padding", ["same", "center"])
@pytest.mark.parametrize("n_fft", [1024, 1023])
@pytest.mark.parametrize("samples", [0, 1, 100, 255, 256, 300, 383, 384, 385, 511, 512, 513, 1024, 2560, 2815])
def test_a_clip_of_any_length_has_the_frames_of_its_arithmetic(padding, n_fft, samples):
    config = MelConfig(padding=padding, n_fft=n_fft, win_length=1000)
    mel = LogMel(config)(torch.randn(2, samples, generator=torch.Generator().manual_seed(0)))
    assert mel.shape == (2, config.n_mels, config.frames_of(samples))
    assert torch.isfinite(mel).all()


def test_center_is_the_stft_of_torch_frame_for_frame():
    config = MelConfig(padding="center", magnitude_eps=0.0)
    log_mel = LogMel(config)
    audio = torch.randn(1, 3000, generator=torch.Generator().manual_seed(0))
    spectrum = torch.stft(
        audio, config.n_fft, config.hop_length, window=log_mel.window, center=True, return_complex=True
    ).abs()
    expected = (log_mel.bank.T @ spectrum).clamp(min=config.log_floor).log()
    torch.testing.assert_close(log_mel(audio), expected, atol=1e-4, rtol=1e-4)


def test_a_row_of_pitch_follows_the_bands():
    """A voice-like tone that glides from 120 to 240 Hz, with silence in the middle, which the row passes over evenly."""
    config = MelConfig(24000, hop_length=300, n_fft=1200, win_length=1200, n_mels=100, f_max=None, pitch=True)
    seconds = torch.arange(48_000) / 24_000
    hz = 120 + 60 * seconds
    phase = 2 * torch.pi * torch.cumsum(hz / 24_000, 0)
    tone = sum(torch.sin(k * phase) / k for k in range(1, 12)) * 0.1
    tone[20_000:28_000] = 0
    features = LogMel(config)(torch.stack([tone, torch.zeros_like(tone)]))
    assert features.shape == (2, config.rows, 160) and config.rows == 101
    plain = LogMel(MelConfig(24000, hop_length=300, n_fft=1200, win_length=1200, n_mels=100, f_max=None))
    torch.testing.assert_close(features[:1, :100], plain(tone[None]))
    true = hz[:: config.hop_length]
    cents = 1200 * torch.log2(pitch_hz(features[0, 100]) / true)
    assert cents[4:-4].abs().max() < 60
    assert not features[1, 100].any()  # nothing to hear: the middle of the range
