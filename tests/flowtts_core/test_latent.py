"""Stable Audio: its autoencoder, its transformer, its samplers, against the published code and known integrals."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from flowtts_core.errors import ConfigError, VoiceError
from flowtts_core.flow.diffusion import (
    ddim_v,
    denoiser_of,
    dpm_solver_2m,
    dpm_solver_3m_sde,
    polyexponential,
    v_target,
)
from flowtts_core.latent import DiTConfig, LatentCondition, Oobleck, OobleckConfig, StableAudio, StableAudioConfig
from flowtts_core.latent.importer import import_stable_audio
from flowtts_core.latent.oobleck import kl_to_normal

SMALL = StableAudioConfig(
    dit=DiTConfig(latent=4, width=32, layers=1, heads=1, text=32, timing=64, multiple=1),
    autoencoder=OobleckConfig(audio_channels=1, channels=2, multiples=(1, 2), strides=(2, 3), latent=4),
)


@pytest.fixture(scope="module")
def published(parity_dir: Path) -> tuple[StableAudio, dict[str, Tensor]]:
    folder = parity_dir / "stable_audio"
    return import_stable_audio(folder / "weights.safetensors", heads=2), load_file(folder / "io.safetensors")


@pytest.fixture
def condition(published: tuple[StableAudio, dict[str, Tensor]]) -> LatentCondition:
    _, known = published
    return LatentCondition(known["cross_attn_cond"], known["global_cond"])


def close(made: Tensor, known: Tensor, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(made, known, atol=tolerance, rtol=0)


class TestParity:
    def test_timing(self, published: tuple[StableAudio, dict[str, Tensor]], condition: LatentCondition) -> None:
        """Ten minutes are beyond the 512 s that it knows, and count as these."""
        model, known = published
        made = model.condition_of(known["text.embedding"], known["seconds_start"], known["seconds_total"])
        close(made.text, condition.text)
        close(made.timing, condition.timing)

    @torch.no_grad()
    def test_prediction_and_guidance(
        self, published: tuple[StableAudio, dict[str, Tensor]], condition: LatentCondition
    ) -> None:
        model, known = published
        x, t = known["x"], known["t"]
        close(model.predict(x, t, condition), known["v"])
        close(model.guided(6.0)(x, t, condition), known["v_cfg6"])
        close(model.guided(6.0, 0.7)(x, t, condition), known["v_cfg6_phi0.7"])
        negative = replace(condition, negative=known["negative.cross_attn_cond"])
        close(model.guided(6.0)(x, t, negative), known["v_cfg6_negative"])
        denoised = denoiser_of(model.guided(1.0))
        close(denoised(x, torch.full((2,), 2.0), condition), known["vdenoiser_sigma2"])

    @torch.no_grad()
    def test_samplers(self, published: tuple[StableAudio, dict[str, Tensor]], condition: LatentCondition) -> None:
        model, known = published
        v, noise = model.guided(3.0), known["noise"]
        close(ddim_v(v, noise, 5, condition), known["ddim5_eta0_cfg3"])
        drawn = iter(known["ddim5_eta1_cfg3.noises"])
        close(ddim_v(v, noise, 5, condition, 1.0, lambda x: next(drawn)), known["ddim5_eta1_cfg3"])
        sigmas = polyexponential(5)
        close(sigmas, known["sigmas5"], 1e-3)  # of 500
        start = noise * 500
        close(dpm_solver_2m(denoiser_of(v), start, sigmas, condition), known["dpmpp2m5_cfg3"])
        drawn = iter(known["dpmpp3msde5_cfg3.noises"])
        made = dpm_solver_3m_sde(denoiser_of(v), start, sigmas, condition, noise=lambda x: next(drawn))
        close(made, known["dpmpp3msde5_cfg3"])
        close(model.autoencoder.decode(known["ddim5_eta0_cfg3"]), known["sampled_audio"])

    @torch.no_grad()
    def test_autoencoder(self, published: tuple[StableAudio, dict[str, Tensor]]) -> None:
        model, known = published
        encoder = model.autoencoder
        close(encoder.encoder(known["audio"]), known["vae.encoder_out"])
        latents = encoder.encode(known["audio"], known["vae.noise"])
        close(latents, known["vae.latent"])
        close(encoder.decode(latents), known["vae.audio_out"])
        close(encoder.decode(encoder.encode(known["audio"])), known["vae.audio_out_mean"])


class TestImport:
    def test_names_what_does_not_fit(self, parity_dir: Path, tmp_path: Path) -> None:
        weights = load_file(parity_dir / "stable_audio" / "weights.safetensors")
        bad = weights | {"model.model.more": torch.zeros(1)}
        del bad["model.model.postprocess_conv.weight"]
        save_file(bad, tmp_path / "bad.safetensors")
        with pytest.raises(VoiceError, match=r"missing 1 .*postprocess_conv.*unknown 1 .*more"):
            import_stable_audio(tmp_path / "bad.safetensors", heads=2)
        save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
        with pytest.raises(VoiceError, match="no Stable Audio model"):
            import_stable_audio(tmp_path / "other.safetensors")

    def test_published_size(self) -> None:
        """Stable Audio 2.0's transformer has 1.1 billion parameters, its autoencoder 156 million."""
        with torch.device("meta"):
            model = StableAudio(StableAudioConfig())
        counts = [sum(p.numel() for p in part.parameters()) / 1e6 for part in (model.model, model.autoencoder)]
        assert counts == pytest.approx([1057, 156], rel=0.03)


class _Gaussian:
    """Data of mean m and deviation d: what a net that has learnt it perfectly predicts."""

    mean, deviation = 2.0, 0.5

    def denoised(self, x: Tensor, sigma: Tensor, condition: Any = None) -> Tensor:
        share = self.deviation**2 / (self.deviation**2 + sigma[:, None].square())
        return self.mean + share * (x - self.mean)

    def v(self, x: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        alpha, sigma = ((t[:, None] * math.pi / 2).cos(), (t[:, None] * math.pi / 2).sin())
        data = self.mean + alpha * self.deviation**2 * (x - alpha * self.mean) / (
            alpha**2 * self.deviation**2 + sigma**2
        )
        return (alpha * x - data) / sigma.clamp(min=1e-6)


class TestSamplersOnKnownData:
    @pytest.mark.parametrize("sampler", ["2m", "3m_sde", "ddim"])
    def test_mean_and_deviation_are_those_of_the_data(self, sampler: str) -> None:
        known, draws = _Gaussian(), torch.Generator().manual_seed(0)
        noise = torch.randn(4000, 1, generator=draws)
        sigmas = polyexponential(60, 80.0, 0.01)
        if sampler == "2m":
            made = dpm_solver_2m(known.denoised, noise * 80, sigmas)
        elif sampler == "3m_sde":

            def fresh(x: Tensor) -> Tensor:
                return torch.randn(x.shape, generator=draws)

            made = dpm_solver_3m_sde(known.denoised, noise * 80, sigmas, noise=fresh)
        else:
            made = ddim_v(known.v, noise, 60)
        assert float(made.mean()) == pytest.approx(known.mean, abs=4 * known.deviation / math.sqrt(4000) + 0.01)
        assert float(made.std()) == pytest.approx(known.deviation, rel=0.08)

    def test_v_of_a_point_gives_back_data_and_noise(self) -> None:
        data, noise, t = torch.tensor([[3.0]]), torch.tensor([[-1.0]]), torch.tensor([0.3])
        x, v = v_target(data, noise, t)
        alpha, sigma = math.cos(0.3 * math.pi / 2), math.sin(0.3 * math.pi / 2)
        assert float(alpha * x - sigma * v) == pytest.approx(3.0)
        assert float(sigma * x + alpha * v) == pytest.approx(-1.0)
        scaled = denoiser_of(lambda *_: v)(x / alpha, torch.tensor([sigma / alpha]))
        assert float(scaled) == pytest.approx(3.0)


class TestAutoencoder:
    def test_lengths_are_exact_for_odd_strides_too(self) -> None:
        model = Oobleck(SMALL.autoencoder)
        latents = model.encode(torch.randn(2, 1, 36))
        assert latents.shape == (2, 4, 6)
        assert model.decode(latents).shape == (2, 1, 36)

    def test_a_length_between_frames_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="multiple of 6"):
            Oobleck(SMALL.autoencoder).encode(torch.randn(1, 1, 35))

    def test_divergence_of_unit_noise_is_nothing(self) -> None:
        one = torch.ones(2, 4, 3)
        assert float(kl_to_normal(0 * one, one)) == 0
        assert float(kl_to_normal(one, one)) == pytest.approx(2.0)  # four features, a half each


class TestGenerate:
    @pytest.mark.parametrize("sampler", ["ddim", "dpm_2m", "dpm_3m_sde"])
    def test_an_items_latents_are_its_seeds_alone(self, sampler: str) -> None:
        torch.manual_seed(0)
        model = StableAudio(SMALL).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        text = torch.randn(1, 3, 32)
        both = model.condition_of(text.expand(2, -1, -1), [0.0, 0.0], [9.0, 9.0])
        one = model.condition_of(text, [0.0], [9.0])
        settings = {"steps": 3, "guidance": 2.0, "sampler": sampler}
        together = model.generate(both, 5, [4, 5], **settings)  # type: ignore[arg-type]
        close(model.generate(one, 5, [5], **settings), together[1:])  # type: ignore[arg-type]
        assert not torch.allclose(together[0], together[1], atol=1e-2)

    def test_an_unknown_sampler_is_refused(self) -> None:
        model = StableAudio(SMALL)
        with pytest.raises(ConfigError, match="ddim, dpm_2m"):
            model.generate(model.condition_of(torch.zeros(1, 1, 32), [0], [1]), 2, [0], sampler="magic")
