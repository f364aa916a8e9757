"""Vocoders: one contract for all, parity with the published Vocos, and Griffin-Lim against true audio."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from flowtts_core.audio.mel import VOCOS_24K, LogMel, MelConfig, mel_filter_bank
from flowtts_core.config import build, spec_of
from flowtts_core.nn.conv import Upsampling, conv_laid, frames_together
from flowtts_core.nn.convnext import ConvNeXtBlock
from flowtts_core.nn.istft import InverseSTFT
from flowtts_core.nn.weight_norm import add_weight_norm
from flowtts_core.vocoder import VOCODERS, GriffinLim, GriffinLimConfig, Vocoder, Vocos, VocosConfig
from flowtts_core.vocoder.files import load_vocoder, save_vocoder
from flowtts_core.vocoder.source_filter import pulse_train
from flowtts_core.vocoder.vocos import MelPrior

SHORT_WINDOW = MelConfig(24000, n_fft=2048, hop_length=300, win_length=1200)
PITCHED = {"source_filter"}  # vocoders that read a row of pitch
UNET = {
    "channels": (16, 8, 4),
    "kernel_sizes": (3, 5),
    "dilations": (1, 2),
    "down_dilations": (1,),
    "time_channels": 16,
}
SMALL = {
    "band_split": {
        "steps": (3, 2),
        "dim": 16,
        "intermediate_dim": 32,
        "num_layers": 1,
        "head_dim": 16,
        "head_intermediate_dim": 32,
        "head_layers": 2,
    },
    "diffusion": {**UNET, "steps": 4},
    "griffin_lim": {"iterations": 4},
    "hifigan": {
        "upsample_initial_channel": 16,
        "resblock_kernel_sizes": (3, 5),
        "resblock_dilation_sizes": ((1, 2), (1, 3)),
        "denoise": 0.01,
    },
    "rfwave": {"bands": 4, "dim": 16, "intermediate_dim": 32, "num_layers": 2, "steps": 2, "guidance": 1.5},
    "source_filter": {"dim": 32, "intermediate_dim": 64, "num_layers": 3, "free_bins": 100},
    "wavefm": {**UNET, "steps": 2},
    "vocos": {"dim": 32, "intermediate_dim": 64, "num_layers": 3},
}


RATES = {256: (16, 16), 300: (10, 30)}  # of vocoders that raise frames to samples by convolutions


def small(name: str, mel: MelConfig) -> tuple[Vocoder, dict[str, Any]]:
    """A small vocoder of a kind for a mel, and its spec."""
    torch.manual_seed(0)
    sizes = dict(SMALL[name])
    if name in ("diffusion", "hifigan", "wavefm"):
        sizes["upsample_rates"] = RATES[mel.hop_length]
    if name == "hifigan":
        sizes["upsample_kernel_sizes"] = tuple(rate + 10 for rate in RATES[mel.hop_length])
    spec = spec_of(name, VOCODERS[name][0](mel=replace(mel, pitch=name in PITCHED), **sizes))
    return build(VOCODERS, spec).eval(), spec


def published(parity_dir: Path, padding: str) -> tuple[Vocos, dict[str, torch.Tensor]]:
    vocos = Vocos(VocosConfig(replace(VOCOS_24K, padding=padding), dim=64, intermediate_dim=128, num_layers=2))
    weights = load_file(parity_dir / "vocos/weights.safetensors")
    vocos.load_state_dict({k: v for k, v in weights.items() if not k.startswith("feature_extractor.")})
    return vocos.eval(), load_file(parity_dir / "vocos/io.safetensors")


@pytest.mark.parametrize("padding", ["center", "same"])
def test_equals_published_vocos(parity_dir: Path, padding: str) -> None:
    vocos, io = published(parity_dir, padding)
    mel = LogMel(vocos.features)(io["audio"])
    # Not the logarithms: those of the quietest bands are of rounding errors, which differ from one processor's FFT to another's
    loudest = float(io[f"mel.{padding}"].max().exp())
    torch.testing.assert_close(mel.exp(), io[f"mel.{padding}"].exp(), atol=1e-6 * loudest, rtol=1e-4)
    with torch.no_grad():
        audio = vocos(io["mel.center"] if padding == "center" else io["mel.same"])
        torch.testing.assert_close(
            vocos.head(vocos.head.out(io["loud.hidden"])), io[f"loud.audio.{padding}"], atol=1e-4, rtol=1e-5
        )
    torch.testing.assert_close(audio, io[f"audio_out.{padding}"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("mel_config", [MelConfig(), SHORT_WINDOW])
@pytest.mark.parametrize("padding", ["center", "same"])
@pytest.mark.parametrize("name", sorted(VOCODERS))
def test_contract(name: str, padding: str, mel_config: MelConfig) -> None:
    """A padded batch, an item alone, and the promised number of samples agree."""
    vocoder, _ = small(name, replace(mel_config, padding=padding))
    assert vocoder.features == replace(mel_config, padding=padding, pitch=name in PITCHED)
    mel, lengths = torch.randn(2, vocoder.features.rows, 30) - 4, torch.tensor([30, 17])
    with torch.no_grad():
        batch = vocoder(mel, lengths)
        alone = vocoder(mel[1:, :, :17])
    samples = vocoder.features.samples_of(17)
    assert batch.shape == (2, vocoder.features.samples_of(30)) and alone.shape == (1, samples)
    torch.testing.assert_close(batch[1:, :samples], alone, atol=1e-4, rtol=0)
    assert not batch[1, samples:].any()
    with torch.no_grad():
        for frames in (1, 2, 3):
            short = vocoder(mel[:1, :, :frames])
            assert short.shape == (1, vocoder.features.samples_of(frames)) and short.isfinite().all()


@pytest.mark.parametrize("name", sorted(VOCODERS))
def test_a_window_has_the_samples_of_the_whole(name: str) -> None:
    vocoder, _ = small(name, MelConfig(24000, n_fft=1200, hop_length=300, win_length=1200))
    mel_config = vocoder.features
    if vocoder.context_frames is None:
        pytest.skip("its samples depend on all frames")
    mel, hop, beside = torch.randn(1, mel_config.rows, 700) - 4, 300, vocoder.context_frames
    if mel_config.pitch:  # from 110 to 270 Hz, with sudden turns
        mel[:, -1] = torch.linspace(-5, 9, 700) + torch.randn(700)
    with torch.no_grad():
        whole = vocoder(mel)
        for low in (0, 333, 641):
            start = vocoder.start_at(mel[0], low)
            part = vocoder(mel[:, :, low:], start=None if start is None else start[None])
            first = beside if low else 0
            torch.testing.assert_close(part[:, first * hop :], whole[:, (low + first) * hop :], atol=1e-4, rtol=0)
    assert whole.isfinite().all() and whole.abs().max() > 1e-3


@pytest.mark.parametrize(("channels", "kernel", "rate"), [(8, 8, 4), (12, 16, 8), (16, 4, 2)])
def test_gradients_through_upsampling_are_right_in_bfloat16(channels: int, kernel: int, rate: int) -> None:
    torch.manual_seed(0)
    layer, x = Upsampling(24, channels, kernel, rate), torch.randn(2, 24, 64)
    towards, gradients = torch.randn(2, channels, 64 * rate), list[torch.Tensor]()
    for half in (False, True):
        own = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            made = layer(own)
        (made.float() * towards).sum().backward()
        gradients.append(own.grad)
    assert (gradients[1] - gradients[0]).norm() < 0.02 * gradients[0].norm()
    for name in VOCODERS:  # none has torch's own, whose gradients are not
        assert not any(type(part) is torch.nn.ConvTranspose1d for part in small(name, MelConfig())[0].modules())


def test_convolutions_are_the_same_where_frames_lie_together() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 24, 64)
    for layer in (nn.Conv1d(24, 8, 7, dilation=3, padding=9), nn.Conv1d(24, 1, 3, padding=1), Upsampling(24, 6, 9, 4)):
        run = layer if isinstance(layer, Upsampling) else partial(conv_laid, layer)
        with torch.no_grad():
            laid = frames_together(x)
            assert laid.transpose(1, 2).is_contiguous() and torch.equal(laid, x)
            made = run(laid)
            assert made.transpose(1, 2).is_contiguous(), "its output lies so too"
            torch.testing.assert_close(made, layer(x), atol=1e-5, rtol=0)
    assert frames_together(x.requires_grad_()) is x, "gradients are those of the plain convolutions"


@pytest.mark.parametrize("name", sorted(VOCODERS))
def test_a_saved_vocoder_is_the_same(name: str, tmp_path: Path) -> None:
    vocoder, spec = small(name, MelConfig())
    mel = torch.randn(1, vocoder.features.rows, 12) - 4
    with torch.no_grad():
        expected = vocoder(mel)
        if vocoder.weight_norm:
            add_weight_norm(vocoder)  # as training has it
        save_vocoder(tmp_path, vocoder, spec)
        loaded = load_vocoder(tmp_path)
        torch.testing.assert_close(loaded.vocoder(mel), expected, atol=1e-6, rtol=0)
    assert loaded.spec == spec and type(loaded.vocoder) is VOCODERS[name][1]


def test_pulses_have_the_pitch_and_flat_harmonics() -> None:
    """A steady pitch gives cosines of its multiples, each of amplitude 1, and nothing between them or near Nyquist."""
    mel = MelConfig(24000, n_fft=1200, hop_length=300, win_length=1200, pitch=True)
    pulses = pulse_train(torch.full((1, 80), 200.0), mel)[0]
    assert pulses.shape == (24000,)
    magnitude = torch.fft.rfft(pulses.double()).abs() / 12000  # one second: a bin is a hertz
    harmonics = torch.arange(200, 11_001, 200)
    torch.testing.assert_close(magnitude[harmonics], torch.ones(len(harmonics), dtype=torch.float64), atol=1e-2, rtol=0)
    magnitude[harmonics] = 0
    assert magnitude[:].max() < 1e-2
    gliding = pulse_train(torch.linspace(100, 300, 81)[None], mel)[0]  # 200 cycles a second on average
    assert gliding.isfinite().all() and (gliding > 20).float().diff().clamp(min=0).sum() == pytest.approx(202, abs=3)


@pytest.mark.parametrize("mel_config", [MelConfig(), SHORT_WINDOW])
@pytest.mark.parametrize("padding", ["center", "same"])
def test_inverse_stft_gives_the_waveform_back(padding: str, mel_config: MelConfig) -> None:
    c = replace(mel_config, padding=padding)
    istft = InverseSTFT(c.n_fft, c.hop_length, c.win_length, c.padding)
    audio = torch.randn(2, c.samples_of(40), generator=torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(audio, (istft.trim, istft.trim))
    spectrum = torch.stft(
        padded, c.n_fft, c.hop_length, c.win_length, torch.hann_window(c.win_length), center=False, return_complex=True
    )
    assert spectrum.shape[-1] == 40
    torch.testing.assert_close(istft(spectrum), audio, atol=1e-4, rtol=0)


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_prior_is_what_the_mel_shows(power: float) -> None:
    """A smooth spectrum comes back from its mel; above the last band the head stands alone."""
    config = MelConfig(f_max=8000.0, power=power)
    bins = torch.arange(513.0)
    log_magnitude = 1.0 - bins / 400  # falls by e in 8.6 kHz
    mel = (mel_filter_bank(config).T @ log_magnitude.exp().pow(power)).log()
    shown = MelPrior(config)(mel[None, :, None])[0, :, 0]
    torch.testing.assert_close(shown[3:365], log_magnitude[3:365], atol=0.03, rtol=0)
    assert not shown[373:].any()


def test_prior_stays_in_float32_under_autocast() -> None:
    prior, mel = MelPrior(MelConfig()), torch.randn(1, 80, 5) - 4
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(prior(mel), prior(mel.double())) and prior(mel).dtype == torch.float32
        rough = prior(mel)
    assert torch.equal(rough, prior(mel))


def test_a_vocoder_is_built_on_meta_to_count_its_parameters() -> None:
    with torch.device("meta"):
        counted = Vocos(VocosConfig(mel_prior=True, **SMALL["vocos"]))
    assert all(parameter.is_meta for parameter in counted.parameters())
    assert not counted.prior.weights.is_meta


@pytest.mark.parametrize("config", [MelConfig(), SHORT_WINDOW])
def test_griffin_lim_rebuilds_the_mel(config: MelConfig) -> None:
    time = torch.arange(config.sample_rate) / config.sample_rate
    audio = sum(0.1 * torch.sin(2 * torch.pi * 140 * k * time) for k in range(1, 30))[None] / 3
    mel = LogMel(config)(audio)
    vocoder = GriffinLim(GriffinLimConfig(config))
    rebuilt = LogMel(config)(vocoder(mel))
    loud = mel > mel.max() - 6
    assert (rebuilt - mel)[loud].abs().mean() < 0.35


def test_without_gradients_blocks_make_the_same_in_another_order():
    """Frames beside each other in memory, and the wide layer some frames after the other."""
    torch.manual_seed(0)
    block, x = ConvNeXtBlock(16, 32, 0.5), torch.randn(3, 16, 400)  # more frames than go together
    wanted = block(x).detach()
    with torch.no_grad():
        for own in (x, x.transpose(1, 2).contiguous().transpose(1, 2)):
            made = block(own)
            torch.testing.assert_close(made, wanted, atol=1e-6, rtol=1e-5)
            assert made.transpose(1, 2).is_contiguous(), "the next block copies nothing"
