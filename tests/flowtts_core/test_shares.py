"""Global batches dealt out to ranks: balanced, complete, and with the losses and gradients of one process."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from flowtts_core.acoustic import (
    F5TTS,
    CosyVoice,
    CosyVoiceConfig,
    F5Config,
    MatchaConfig,
    MatchaTTS,
    ZipVoice,
    ZipVoiceConfig,
)
from flowtts_core.acoustic.cosyvoice.model import SpokenBatch
from flowtts_core.audio.mel import MelConfig
from flowtts_core.flow import Consistency, GuidedDistillation
from flowtts_core.nn.dropout import Dropout
from flowtts_core.nn.share import Share, computing
from flowtts_core.training.augmentation import Augmentation
from flowtts_core.training.batches import AcousticBatches, VocoderBatches, split
from flowtts_core.training.distributed import Ranks
from flowtts_core.training.examples import Examples
from flowtts_core.training.tasks import (
    AcousticTask,
    ConsistencyTask,
    DistillationTask,
    FlowVocoderTask,
    VocoderTask,
    VocoderTaskConfig,
)
from flowtts_core.vocoder import VOCODERS, GriffinLim, GriffinLimConfig, Vocos, VocosConfig
from flowtts_core.vocoder.discriminators import DiscriminatorConfig
from tests.speech_like import statistics_of, write_examples
from tests.thread_ranks import together

DISCRIMINATORS = DiscriminatorConfig(periods=(2,), period_channels=(4, 8), n_ffts=(256,), resolution_channels=4)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_examples(tmp_path_factory.mktemp("data"), [40 + 7 * (i * 5 % 23) for i in range(24)])


@pytest.mark.parametrize("parts", [1, 2, 3, 5, 8])
def test_parts_are_complete_and_differ_by_less_than_an_item(parts):
    rng = np.random.default_rng(parts)
    for count in (1, 2, 7, 40):
        frames = rng.integers(50, 900, count)
        shares = split(frames, parts)
        assert sorted(np.concatenate(shares).tolist()) == list(range(count))
        loads = [int(frames[share].sum()) for share in shares]
        assert max(loads) - min(loads) <= frames.max()
        assert all(a.tolist() == b.tolist() for a, b in zip(shares, split(frames, parts), strict=True))


def test_shares_of_real_batches_are_balanced_within_a_few_percent(tmp_path):
    rng = np.random.default_rng(1)
    examples = Examples(write_examples(tmp_path, rng.integers(10, 80, 150).tolist()), ["tokens", "mel"])
    batches = AcousticBatches(examples, 800, seed=0)
    worst = []
    for step in range(batches.per_epoch):
        frames = [int(batches.at(step, Ranks(rank, 2)).mel_lengths.sum()) for rank in (0, 1)]
        worst.append(max(frames) / (sum(frames) / 2) - 1)
    assert np.mean(worst) < 0.06


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_share_the_batch_that_one_process_has(size, data):
    examples = Examples(data, ["tokens", "mel", "audio"])
    noisy = Augmentation(noise_db=(0, 20), share=1.0)
    batches, crops = AcousticBatches(examples, 600, seed=0), VocoderBatches(examples, 4, 16, 0, noisy)
    for step in range(2 * batches.per_epoch):
        whole = batches.at(step)
        for rank in range(size):
            part = batches.at(step, Ranks(rank, size))
            assert part.mel.shape[2] == whole.mel.shape[2]  # padded as the whole is
            assert torch.equal(part.mel, whole.mel[part.share.rows])
            assert torch.equal(part.condition.tokens, whole.condition.tokens[part.share.rows])
    waveforms = crops.at(5).waveform
    parts = [crops.at(5, Ranks(rank, size)) for rank in range(size)]
    assert all(torch.equal(part.waveform, waveforms[part.share.rows]) for part in parts)


def acoustic_task(data: Path, masking: str) -> tuple[AcousticTask, AcousticBatches]:
    batches = AcousticBatches(Examples(data, ["tokens", "mel"]), 600, 0)
    torch.manual_seed(0)
    # published attention dropout is torch's own, which no rank can draw for another
    config = dataclasses.replace(
        MatchaConfig.debug(), **statistics_of(data), masking=masking, encoder_attention_dropout=0.0
    )
    assert config.encoder_dropout > 0
    return AcousticTask(MatchaTTS(config), batches.items([0]), GriffinLim(GriffinLimConfig(iterations=2))), batches


def f5_task(data: Path, durations: str) -> tuple[AcousticTask, AcousticBatches]:
    batches = AcousticBatches(Examples(data, ["tokens", "mel"]), 600, 0)
    torch.manual_seed(0)
    model = F5TTS(dataclasses.replace(F5Config.debug(), **statistics_of(data), durations=durations))
    for parameter in model.parameters():  # nothing may hide behind a zero initialisation
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    return AcousticTask(model, batches.items([0]), GriffinLim(GriffinLimConfig(iterations=2))), batches


def zipvoice_task(data: Path, how: str) -> tuple[AcousticTask, AcousticBatches]:
    batches = AcousticBatches(Examples(data, ["tokens", "mel"]), 600, 0)
    torch.manual_seed(0)
    config = dataclasses.replace(ZipVoiceConfig.debug(), mel=MelConfig(), dropout=0.2, embeds_guidance=how != "")
    model, vocoder = ZipVoice(config), GriffinLim(GriffinLimConfig(iterations=2))
    if not how:
        return AcousticTask(model, batches.items([0]), vocoder), batches
    method = GuidedDistillation(later=0.5) if how == "guided" else Consistency(gap=0.1, latest=0.9)
    teacher, probe = copy.deepcopy(model), batches.items([0])
    with torch.no_grad():
        for parameter in model.fm_decoder.parameters():  # it has something to learn
            parameter.add_(0.05 * torch.randn_like(parameter))
    return DistillationTask(model, teacher, method, probe, vocoder, model.sampling, 10), batches


class Spoken(AcousticBatches):
    """Batches with speech tokens that the clip's place decides."""

    def _collate(self, indices, share):
        batch = super()._collate(indices, share)
        mine = indices if share is None else indices[share.rows.numpy()]
        codes = torch.from_numpy((mine[:, None] * 5 + np.arange(8)) % 12)
        lengths = torch.from_numpy(4 + mine % 5)
        codes = codes * (torch.arange(8) < lengths[:, None])
        return SpokenBatch(batch.condition, batch.mel, batch.mel_lengths, share, codes, lengths)


def cosy_task(data: Path, _: str) -> tuple[AcousticTask, AcousticBatches]:
    batches = Spoken(Examples(data, ["tokens", "mel"]), 600, 0)
    torch.manual_seed(0)
    model = CosyVoice(dataclasses.replace(CosyVoiceConfig.debug(), **statistics_of(data)))
    return AcousticTask(model, batches.items([0]), GriffinLim(GriffinLimConfig(iterations=2))), batches


def vocoder_task(data: Path, _: str) -> tuple[VocoderTask, VocoderBatches]:
    batches = VocoderBatches(Examples(data, ["mel", "audio"]), 5, 16, 0)
    torch.manual_seed(0)
    vocoder = Vocos(VocosConfig(dim=16, intermediate_dim=32, num_layers=1))
    return VocoderTask(
        vocoder, batches.at(0), VocoderTaskConfig(adversarial_from=0, discriminators=DISCRIMINATORS)
    ), batches


def flow_vocoder_task(data: Path, name: str) -> tuple[FlowVocoderTask, VocoderBatches]:
    batches = VocoderBatches(Examples(data, ["mel", "audio"]), 5, 16, 0)
    torch.manual_seed(0)
    sizes = {"channels": (8, 4, 4), "upsample_rates": (16, 16), "kernel_sizes": (3,)}
    sizes |= {"dilations": (1,), "down_dilations": (1,), "time_channels": 8}
    config_type, vocoder_type = VOCODERS[name.removesuffix(", distilled")]
    vocoder = vocoder_type(config_type(mel=MelConfig(), **sizes))
    if name.endswith("distilled"):
        return ConsistencyTask(vocoder, copy.deepcopy(vocoder), Consistency(), batches.at(0)), batches
    return FlowVocoderTask(vocoder, batches.at(0)), batches


@pytest.mark.parametrize(
    ("make", "masking", "step"),
    [
        (acoustic_task, "true", 0),
        (acoustic_task, "published", 0),
        (acoustic_task, "true", 1),
        (f5_task, "learnt", 0),
        (f5_task, "aligned", 0),
        (zipvoice_task, "", 0),
        (zipvoice_task, "guided", 0),
        (zipvoice_task, "consistency", 0),
        (cosy_task, "", 0),
        (vocoder_task, "", 0),
        (flow_vocoder_task, "diffusion", 0),
        (flow_vocoder_task, "wavefm", 0),
        (flow_vocoder_task, "wavefm, distilled", 0),
    ],
)
def test_losses_and_gradients_are_those_of_one_process(make, masking, step, data):
    def work(ranks: Ranks) -> dict[str, torch.Tensor]:
        task, batches = make(data, masking)
        batch, found = batches.at(step, ranks), {}
        torch.manual_seed(7)  # dropout's
        with computing(batch.share):
            for group, losses in task.updates(batch, 0, torch.Generator().manual_seed(3)):
                parameters: list[nn.Parameter] = task.parameter_groups()[group]
                for parameter in parameters:
                    parameter.grad = None
                losses["loss"].backward()
                ranks.sum_gradients(parameters)
                found |= {f"{group}/{name}": loss.detach() for name, loss in losses.items()}
                gradients = [p.grad.flatten() for p in parameters if p.grad is not None]
                found[f"{group} gradient"] = torch.cat(gradients)
        return found

    [alone] = together(1, work)
    for size in (2, 3, 8):  # 8: some ranks are left without an item
        for found in together(size, work):
            assert found.keys() == alone.keys()
            apart = {k: float((v - alone[k]).norm() / alone[k].norm()) for k, v in found.items()}
            assert max(apart.values()) < 1e-4, apart


def test_dropout_of_a_share_is_that_of_its_rows(data):
    layer, x = Dropout(0.3), torch.randn(5, 7, 11)
    torch.manual_seed(1)
    whole = layer(x)
    rows = torch.tensor([3, 0])
    torch.manual_seed(1)
    with computing(Share(rows, 5, True, lambda values: values)):
        assert torch.equal(layer(x[rows]), whole[rows])
