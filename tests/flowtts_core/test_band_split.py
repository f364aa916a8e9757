"""The vocoder in three bands: where they meet, what each costs, and what of it is trained by what."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from flowtts_core.audio.mel import VOCOS_24K, MelConfig
from flowtts_core.engines.runtime import export_graph, open_runners
from flowtts_core.errors import ConfigError
from flowtts_core.training.batches import VocoderBatch, share_of
from flowtts_core.training.distributed import Ranks
from flowtts_core.training.tasks import VocoderTask, VocoderTaskConfig, vocoder_task
from flowtts_core.vocoder import BandSplit, BandSplitConfig
from tests.thread_ranks import together

MEL = MelConfig(24000, n_fft=256, win_length=256, hop_length=64, n_mels=20)
SMALL = BandSplitConfig(
    mel=MEL, overlap=4, dim=8, intermediate_dim=16, num_layers=1, head_dim=8, head_intermediate_dim=16, head_layers=1
)
SPECTRA = VocoderTaskConfig(adversarial_from=None)


def fresh(**changed: Any) -> BandSplit:
    torch.manual_seed(0)
    return BandSplit(replace(SMALL, **changed)).eval()


def batch(count: int, frames: int = 40) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    waveform = 0.1 * torch.randn(count, frames * 64, generator=generator)
    return torch.randn(count, 20, frames, generator=generator), waveform


def test_bands_are_the_lectures_and_may_be_others() -> None:
    assert BandSplitConfig(VOCOS_24K).bins() == [0, 171, 341, 513]  # 4 and 8 of 12 kHz
    assert BandSplitConfig(MelConfig()).bins() == [0, 186, 372, 513]  # at 22.05 kHz
    assert BandSplitConfig(VOCOS_24K, edges=(3000.0,), steps=(5,)).bins() == [0, 128, 513]
    for changed in (
        {"edges": (8000.0, 4000.0)},
        {"edges": (4000.0, 12000.0)},
        {"edges": (4000.0,)},
        {"edges": (4000.0, 4100.0)},
    ):
        with pytest.raises(ConfigError, match="edges"):
            fresh(**changed)
    with pytest.raises(ConfigError, match="steps"):
        fresh(steps=(0, 1))


def test_each_band_takes_its_own_steps_and_stands_where_it_belongs() -> None:
    model = fresh()
    calls, (mel, _) = [], batch(1)
    for band, flow in enumerate(model.flows):
        flow.register_forward_hook(lambda module, given, made, band=band: calls.append(band))
    with torch.no_grad():
        model(mel)
    assert (calls.count(0), calls.count(1)) == (20, 10)
    # without velocities each bin keeps its noise, and above the flows' bins there is nothing
    for flow in model.flows:
        torch.nn.init.zeros_(flow.out.weight)
        flow.skip = False
    noise = torch.randn(2, model.drawn.shape[1], 40)
    with torch.no_grad():
        made = model.sample(mel.expand(2, -1, -1), noise)
    for part, drawn in zip(made.chunk(2, 1), noise.chunk(2, 1), strict=True):
        assert torch.equal(part[:, : model.first], drawn[:, : model.first]) and not part[:, model.first :].any()


def test_training_compares_the_recording_with_its_highest_band_made_anew() -> None:
    model, (mel, waveform) = fresh(), batch(2)
    sound, losses = model.trained(mel, waveform, torch.Generator().manual_seed(0))
    assert sound.shape == waveform.shape and set(losses) == {"flow", "overlap"}
    inside = slice(256, -256)
    difference = model.istft.stft((sound - waveform)[:, inside]).abs()[:, :, 4:-4]
    assert difference[:, : model.first - 30].max() < 1e-3 * difference[:, model.first :].max()
    with torch.no_grad():  # a pass that makes the recording's own bins makes the recording
        above = model.istft.stft(waveform)[:, model.first :]
        log_magnitude = above.abs().log() - model.prior(mel)[:, model.first :]
        model.head = _Given(torch.cat([log_magnitude, above.angle()], 1))
        torch.testing.assert_close(model.trained(mel, waveform)[0], waveform, atol=1e-4, rtol=0)


class _Given(torch.nn.Module):
    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, mel: Tensor) -> Tensor:
        return self.value


def test_flows_learn_by_their_own_losses_and_the_pass_by_distances() -> None:
    model, (mel, waveform) = fresh().train(), batch(2)
    task = vocoder_task(model, VocoderBatch(mel, waveform), SPECTRA)
    assert isinstance(task, VocoderTask)
    [(_, losses)] = task.updates(VocoderBatch(mel, waveform), 0, torch.Generator().manual_seed(0))
    own = losses["flow"] + losses["overlap"]
    spectral = SPECTRA.mel_weight * losses["mel"] + SPECTRA.stft_weight * losses["stft"]
    assert losses["loss"].item() == pytest.approx((own + spectral).item(), rel=1e-6)
    flows, head = list(model.flows.parameters()), list(model.head.parameters())
    of_flows = torch.autograd.grad(own, [*flows, *head], retain_graph=True, allow_unused=True)
    of_head = torch.autograd.grad(spectral, [*flows, *head], allow_unused=True)
    assert all(g is None for g in of_flows[len(flows) :]) and all(g is None for g in of_head[: len(flows)])
    assert all(g is not None for g in of_head[len(flows) :])


def test_losses_gradients_and_statistics_do_not_depend_on_the_number_of_workers() -> None:
    def work(ranks: Ranks) -> dict[str, Tensor]:
        model, (mel, waveform) = fresh().train(), batch(5)
        share = share_of(np.full(5, 40), ranks)
        rows = slice(None) if share is None else share.rows
        crops = VocoderBatch(mel[rows], waveform[rows], share)
        task = vocoder_task(model, crops, SPECTRA)
        [(_, losses)] = task.updates(crops, 0, torch.Generator().manual_seed(7))
        losses["loss"].backward()
        weights = [weight for weight in model.parameters() if weight.grad is not None]
        ranks.sum_gradients(weights)
        gradient = torch.cat([weight.grad.flatten() for weight in weights])
        found = {name: loss.detach() for name, loss in losses.items()}
        return found | {"gradient": gradient, "variance": model.equaliser.variance}

    [alone] = together(1, work)
    for size in (2, 8):
        for found in together(size, work):
            apart = {name: float((v - alone[name]).norm() / alone[name].norm()) for name, v in found.items()}
            assert max(apart.values()) < 1e-4, apart


def test_its_graphs_give_what_torch_gives(tmp_path: Path) -> None:
    model, (mel, _) = fresh(steps=(3, 2)), batch(2)
    weights = save({name: tensor.contiguous() for name, tensor in model.state_dict().items()})
    (tmp_path / "w").write_bytes(weights)
    graphs = model.graphs()
    assert set(graphs) == {"head", "velocity0", "velocity1"}
    for name, graph in graphs.items():
        (tmp_path / name).write_bytes(export_graph(graph, "w", weights))
    with torch.no_grad():
        torchs = model(mel)
        model.runners = open_runners(tmp_path, {name: name for name in graphs})
        torch.testing.assert_close(model(mel), torchs, atol=1e-4, rtol=0)
