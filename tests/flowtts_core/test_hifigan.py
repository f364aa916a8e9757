"""HiFi-GAN: parity with the published generators and denoiser, its sizes, its discriminators and their losses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from flowtts_core.audio.mel import LogMel, MelConfig
from flowtts_core.errors import ConfigError
from flowtts_core.nn.weight_norm import add_weight_norm, fold_weight_norm
from flowtts_core.training.tasks import VocoderTaskConfig
from flowtts_core.vocoder.discriminators import PUBLISHED, DiscriminatorConfig, Discriminators
from flowtts_core.vocoder.hifigan import HIFIGAN_V1, HIFIGAN_V2, HIFIGAN_V3, HiFiGAN, HiFiGANConfig
from flowtts_core.vocoder.losses import adversarial_loss, discriminator_loss

TINY = replace(HIFIGAN_V1, upsample_initial_channel=16)


def published(parity_dir: Path, denoise: float) -> tuple[HiFiGAN, dict[str, Tensor]]:
    model = HiFiGAN(replace(HIFIGAN_V1, upsample_initial_channel=32, denoise=denoise))
    model.generator.load_state_dict(fold_weight_norm(load_file(parity_dir / "hifigan/weights.safetensors")))
    return model.eval(), load_file(parity_dir / "hifigan/io.safetensors")


@pytest.mark.parametrize("strength", [0.0, 0.00025, 0.1])
def test_equals_the_published_generator_and_denoiser(parity_dir: Path, strength: float) -> None:
    model, io = published(parity_dir, strength)
    expected = io["audio_out"][:, 0] if strength == 0 else io[f"denoiser.out_strength{strength}"]
    with torch.no_grad():
        torch.testing.assert_close(model(io["mel"]), expected, atol=1e-4, rtol=0)


def test_equals_the_published_generator_of_one_convolution_a_residual(parity_dir: Path) -> None:
    """Its two stages make 32 samples of a frame, where the mel's hop is 256; the parity files have it so."""
    sizes = json.loads((parity_dir / "hifigan/config.json").read_text())["rb2"]
    names = ("resblock", "upsample_initial_channel")
    rows = ("upsample_rates", "upsample_kernel_sizes", "resblock_kernel_sizes")
    config = HiFiGANConfig(
        mel=MelConfig(hop_length=32),
        **{name: sizes[name] for name in names},
        **{name: tuple(sizes[name]) for name in rows},
        resblock_dilation_sizes=tuple(tuple(row) for row in sizes["resblock_dilation_sizes"]),
    )
    io, model = load_file(parity_dir / "hifigan/io.safetensors"), HiFiGAN(config)
    own = {k.removeprefix("rb2.weights."): v for k, v in io.items() if k.startswith("rb2.weights.")}
    model.generator.load_state_dict(fold_weight_norm(own))
    with torch.no_grad():
        torch.testing.assert_close(model(io["mel"]), io["rb2.audio_out"][:, 0], atol=1e-4, rtol=0)


def test_reads_the_published_mel(parity_dir: Path) -> None:
    io = load_file(parity_dir / "hifigan/io.safetensors")
    for f_max, name in ((8000.0, "mel"), (None, "mel_fmax_null_for_loss")):
        mel = LogMel(MelConfig(f_max=f_max))(io["audio"])
        torch.testing.assert_close(mel.exp(), io[name].exp(), atol=1e-6 * float(io[name].exp().max()), rtol=1e-4)


def test_the_published_sizes_have_the_published_numbers_of_parameters() -> None:
    millions = [sum(p.numel() for p in HiFiGAN(c).parameters()) / 1e6 for c in (HIFIGAN_V1, HIFIGAN_V2, HIFIGAN_V3)]
    judges = Discriminators(PUBLISHED)
    assert millions == pytest.approx([13.92, 0.92, 1.46], abs=0.02)  # table 1 of the paper
    assert sum(p.numel() for p in judges.parameters()) / 1e6 == pytest.approx(70.7, abs=0.3)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"upsample_rates": (8, 8, 2)}, "make 128 samples of a frame, but the mel's hop is 256"),
        ({"upsample_kernel_sizes": (16, 16, 4, 3)}, "the rate plus an even number"),
        ({"upsample_kernel_sizes": (16, 16, 8)}, "use one for each rate"),
        ({"resblock_kernel_sizes": (3, 5)}, "3 rows of resblock_dilation_sizes for 2"),
        ({"upsample_initial_channel": 8}, "use at least 16"),
        ({"resblock": "3"}, "use '1' or '2'"),
        ({"denoise": 2.0}, "0.00025 is usual"),
        ({"resblock_kernel_sizes": (3, 7, 8)}, "use odd sizes"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(changed: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        HiFiGAN(replace(HIFIGAN_V1, **changed))
    assert message in f"{caught.value.message}; {caught.value.remedy}"


def test_weight_norm_changes_nothing_and_folds_away() -> None:
    torch.manual_seed(0)
    model, mel = HiFiGAN(TINY).eval(), torch.randn(1, 80, 6)
    with torch.no_grad():
        plain = model(mel)
        add_weight_norm(model)
        torch.testing.assert_close(model(mel), plain, atol=1e-6, rtol=0)
    again = HiFiGAN(TINY)
    again.load_state_dict(fold_weight_norm(model.state_dict()))
    with torch.no_grad():
        torch.testing.assert_close(again(mel), plain, atol=1e-6, rtol=0)


def test_the_denoiser_measures_the_weights_it_has() -> None:
    """What it measured is forgotten with the weights, and training hears the generator alone."""
    torch.manual_seed(0)
    model, other = (HiFiGAN(replace(TINY, denoise=0.5)).eval() for _ in range(2))
    mel = torch.randn(1, 80, 6)
    with torch.no_grad():
        assert not torch.equal(model(mel), other(mel))
        model.load_state_dict(other.state_dict())
        assert torch.equal(model(mel), other(mel))
        bare = HiFiGAN(TINY)
        bare.load_state_dict(other.state_dict())
        assert torch.equal(model.train()(mel), bare(mel))


def test_discriminators_of_scales_halve_the_rate_and_learn() -> None:
    torch.manual_seed(0)
    config = DiscriminatorConfig((2,), (4, 4, 4, 4, 8), (), scales=3, scale_channels=(4, 4, 8, 8, 8, 8, 8))
    judges, real, fake = Discriminators(config), torch.randn(2, 1024), torch.zeros(2, 1024)
    lengths = [scores.shape[-1] for scores, _ in judges(real)[1:]]
    assert lengths == [16, 9, 5]  # by strides 64; each pooling has a sample more than the half
    assert judges(real)[0][1][-1].shape == judges(real)[0][1][-2].shape[:1] + (8, *judges(real)[0][1][-2].shape[2:])
    optimizer = torch.optim.Adam(judges.parameters(), 2e-3)
    losses = []
    for _ in range(10):
        loss = discriminator_loss(judges(real), judges(fake), form="least_squares")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.1


def test_forms_of_the_adversarial_losses() -> None:
    real = [(torch.tensor([0.5, 3.0]), list[Tensor]())]
    fake = [(torch.tensor([-2.0, 1.0]), list[Tensor]())]
    assert float(discriminator_loss(real, fake)) == pytest.approx(0.25 + 1.0)
    assert float(discriminator_loss(real, fake, form="least_squares")) == pytest.approx((0.25 + 4) / 2 + (4 + 1) / 2)
    assert float(adversarial_loss(fake)) == pytest.approx(1.5)
    assert float(adversarial_loss(fake, form="least_squares")) == pytest.approx(4.5)
    with pytest.raises(ConfigError, match="hinge, least_squares"):
        VocoderTaskConfig(adversarial="wasserstein")


def test_weights_without_a_partner_stay() -> None:
    """A name that only looks like half of a pair is a weight of its own."""
    alone = {"a.weight_g": torch.ones(2), "b.weight": torch.ones(3)}
    assert fold_weight_norm(alone).keys() == alone.keys()
