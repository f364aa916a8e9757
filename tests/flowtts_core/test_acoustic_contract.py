"""What every acoustic model of the table must hold, at debug size."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from flowtts_core.acoustic import ACOUSTIC_MODELS, AcousticBatch, Condition, MatchaConfig, build
from flowtts_core.acoustic.matcha.model import Draws
from flowtts_core.config import fingerprint, from_dict, spec_of, to_dict
from flowtts_core.errors import ConfigError, FlowTTSError
from flowtts_core.sampling import Sampling

VARIANTS = {
    "matcha": ("matcha", MatchaConfig.debug()),
    "matcha true group norm": ("matcha", dataclasses.replace(MatchaConfig.debug(), norm="group", activation="mish")),
    "matcha published": (
        "matcha",
        dataclasses.replace(
            MatchaConfig.debug(), masking="published", norm="group", activation="mish", feed_forward="snakebeta"
        ),
    ),
    "matcha speakers": ("matcha", dataclasses.replace(MatchaConfig.debug(), n_speakers=3, speaker_channels=8)),
    "matcha windows": ("matcha", dataclasses.replace(MatchaConfig.debug(), segment_frames=16)),
}


def test_every_model_has_a_debug_variant():
    assert {name for name, _ in VARIANTS.values()} == set(ACOUSTIC_MODELS)


@pytest.fixture(params=VARIANTS)
def model(request):
    name, config = VARIANTS[request.param]
    torch.manual_seed(0)
    model = build(spec_of(name, config))
    for parameter in model.parameters():  # nothing may hide behind a zero initialisation
        if parameter.dim() < 2 or not parameter.any():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    model.encoder.proj_w.proj.bias.data.fill_(1.0)  # about 3 frames a token
    return model.eval()


def some_condition(model, lengths=(11, 7, 4, 9), seed=3) -> Condition:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor(lengths)
    tokens = torch.randint(1, model.n_symbols, (len(lengths), int(lengths.max())), generator=generator)
    tokens *= torch.arange(tokens.shape[1]) < lengths[:, None]
    speakers = torch.arange(len(lengths)) % model.n_speakers if model.n_speakers > 1 else None
    return Condition(tokens, lengths, speakers)


def some_batch(model, lengths=(11, 7, 4, 9), seed=3) -> AcousticBatch:
    condition = some_condition(model, lengths, seed)
    generator = torch.Generator().manual_seed(seed)
    lengths = condition.token_lengths * 4 + 1
    time = int(lengths.max())
    mel = torch.randn(len(lengths), model.features.n_mels, time, generator=generator) - 1
    return AcousticBatch(condition, mel * (torch.arange(time) < lengths[:, None, None]), lengths)


def row_of(condition: Condition, row: int) -> Condition:
    length = int(condition.token_lengths[row])
    speakers = None if condition.speakers is None else condition.speakers[row : row + 1]
    return Condition(condition.tokens[row : row + 1, :length], condition.token_lengths[row : row + 1], speakers)


def padded(condition: Condition, extra: int) -> Condition:
    return Condition(torch.nn.functional.pad(condition.tokens, (0, extra)), condition.token_lengths, condition.speakers)


@pytest.mark.parametrize("speed", [1.0, 1.3])
def test_a_batch_equals_its_singles(model, speed):
    condition, seeds = some_condition(model), [5, 6, 7, 8]
    settings = Sampling(steps=3, speed=speed)
    together = model.generate(condition, seeds, settings)
    for row, seed in enumerate(seeds):
        alone = model.generate(row_of(condition, row), [seed], settings)
        length = int(alone.mel_lengths[0])
        assert int(together.mel_lengths[row]) == length
        torch.testing.assert_close(together.mel[row, :, :length], alone.mel[0], atol=1e-4, rtol=0)
        tokens = int(condition.token_lengths[row])
        torch.testing.assert_close(together.durations[row, :tokens], alone.durations[0], atol=0, rtol=0)


@torch.no_grad()
def test_no_layout_of_a_batch_moves_a_duration_by_a_bit(model):
    """Durations are rounded, so a difference of rounding anywhere would move all later frames of some utterance."""
    generator = torch.Generator().manual_seed(0)
    for seed in range(60):
        model.encoder.proj_w.proj.bias.fill_(1.0 + float(torch.rand(1, generator=generator)))
        lengths = torch.randint(1, 60, (int(torch.randint(2, 7, (1,), generator=generator)),), generator=generator)
        condition = some_condition(model, lengths.tolist(), seed)
        together = model._encode_apart(padded(condition, seed % 5), model._speaker(condition))
        for row, length in enumerate(lengths.tolist()):
            item = row_of(condition, row)
            alone = model.encoder(item.tokens, item.token_lengths, model._speaker(item))
            assert torch.equal(together.log_durations[row, :length], alone.log_durations[0])
            assert together.mask[row].sum() == length


@torch.no_grad()
@pytest.mark.parametrize("log_duration", [float("nan"), float("inf"), 5.0])
def test_durations_without_end_are_refused(model, log_duration):
    model.encoder.proj_w.proj.bias.fill_(log_duration)
    with pytest.raises(FlowTTSError, match="frames"):
        model.generate(some_condition(model), [1, 2, 3, 4], Sampling(steps=1))


def test_padding_of_tokens_changes_nothing(model):
    condition, settings = some_condition(model), Sampling(steps=2)
    plain = model.generate(condition, [1, 2, 3, 4], settings)
    wide = model.generate(padded(condition, 6), [1, 2, 3, 4], settings)
    assert torch.equal(plain.mel_lengths, wide.mel_lengths)
    for row, length in enumerate(plain.mel_lengths.tolist()):
        torch.testing.assert_close(plain.mel[row, :, :length], wide.mel[row, :, :length], atol=1e-4, rtol=0)
    assert not wide.durations[:, -6:].any()


def test_shapes_lengths_and_durations_agree(model):
    condition = some_condition(model)
    generated = model.generate(condition, [1, 2, 3, 4], Sampling(steps=2, speed=0.9))
    assert generated.mel.shape == (4, model.features.n_mels, int(generated.mel_lengths.max()))
    assert generated.durations.shape == condition.tokens.shape
    torch.testing.assert_close(generated.durations.sum(1).long(), generated.mel_lengths)
    assert not generated.durations[torch.arange(11) >= condition.token_lengths[:, None]].any()
    assert torch.isfinite(generated.mel).all()


def test_seed_and_settings_matter_and_repeat(model):
    condition = row_of(some_condition(model), 0)

    def mel(seed, **settings):
        return model.generate(condition, [seed], Sampling(**{"steps": 2, **settings})).mel

    assert torch.equal(mel(1), mel(1))
    assert not torch.allclose(mel(1), mel(2))
    assert not torch.allclose(mel(1), mel(1, solver="heun"))
    assert not torch.allclose(mel(1), mel(1, grid={"name": "sway", "s": -1.0}))
    assert torch.equal(mel(1, steps=0), mel(2, steps=0))
    assert mel(1, speed=2.0).shape[2] < mel(1).shape[2]


def test_loss_does_not_depend_on_padding(model):
    if model.config.masking == "published":
        pytest.skip("the published training loss sees padding by definition")
    batch = some_batch(model)
    wide = AcousticBatch(padded(batch.condition, 3), torch.nn.functional.pad(batch.mel, (0, 8)), batch.mel_lengths)
    size = model.config.segment_frames or batch.mel.shape[2]
    noise = torch.randn(4, size, model.features.n_mels, generator=torch.Generator().manual_seed(1))
    offsets = None if model.config.segment_frames is None else torch.tensor([5, 0, 1, 2])
    results = []
    for each in (batch, wide):
        time = size if offsets is not None else each.mel.shape[2]
        t = torch.rand(4, generator=torch.Generator().manual_seed(2))
        draws = Draws(t, torch.nn.functional.pad(noise, (0, 0, 0, time - size)), offsets)
        results.append(model.losses_of_normalised(each.condition, each.mel.transpose(1, 2), each.mel_lengths, draws))
    for name in results[0]:
        torch.testing.assert_close(results[0][name], results[1][name], atol=1e-4, rtol=1e-4)


def test_gradients_reach_every_parameter(model):
    losses = model.loss(some_batch(model), torch.Generator().manual_seed(0))
    assert losses["loss"].item() == pytest.approx(sum(v.item() for k, v in losses.items() if k != "loss"), rel=1e-5)
    losses["loss"].backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # A constant added to all attention keys cancels in the softmax, so this bias can have no gradient but rounding.
    assert [name for name in silent if not name.endswith("conv_k.bias")] == []


def test_draws_come_from_the_generator_alone(model):
    batch = some_batch(model)

    def loss(seed):
        return model.loss(batch, torch.Generator().manual_seed(seed))["loss"].item()

    assert loss(1) == loss(1)
    assert loss(1) != loss(2)


def test_bfloat16_autocast_keeps_losses_in_float32_and_close(model):
    batch = some_batch(model)
    exact = model.loss(batch, torch.Generator().manual_seed(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model.loss(batch, torch.Generator().manual_seed(1))
    assert all(value.dtype == torch.float32 for value in rough.values())
    assert rough["loss"].item() == pytest.approx(exact["loss"].item(), rel=0.05)


def test_overfits_a_tiny_batch(model):
    torch.manual_seed(0)
    model.train()
    batch = some_batch(model, (5, 4))
    mel = batch.mel[:, :, :1].expand_as(batch.mel) * (batch.mel != 0)  # every frame of an item the same: learnable
    batch = AcousticBatch(batch.condition, mel, batch.mel_lengths)
    optimizer = torch.optim.Adam(model.parameters(), 4e-3)
    generator = torch.Generator().manual_seed(0)
    history = []
    for _ in range(40):
        losses = model.loss(batch, generator)
        optimizer.zero_grad()
        losses["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        history.append(losses["loss"].item())
    floor = 0.5 * 1.8379  # the prior loss of a perfect mean
    assert sum(history[-5:]) / 5 - floor < 0.6 * (sum(history[:5]) / 5 - floor)


def test_spec_round_trip_and_bad_settings():
    for name, config in VARIANTS.values():
        assert from_dict(type(config), to_dict(config)) == config
        assert fingerprint(build(spec_of(name, config)).config) == fingerprint(config)
    with pytest.raises(ConfigError, match="valid fields"):
        build({"name": "matcha", "encoder_chanels": 3})
    with pytest.raises(ConfigError, match="masking"):
        build({"name": "matcha", "masking": "none"})
    model = build(spec_of("matcha", MatchaConfig.debug()))
    with pytest.raises(ConfigError, match="speed"):
        model.generate(some_condition(model), [0] * 4, Sampling(speed=0.0))


def test_a_model_with_speakers_asks_for_one_and_listens_to_it():
    model = build(spec_of(*VARIANTS["matcha speakers"])).eval()
    condition = row_of(some_condition(model), 0)
    with pytest.raises(ConfigError, match="speakers"):
        model.generate(Condition(condition.tokens, condition.token_lengths), [0], Sampling())
    settings = Sampling(steps=0)
    torch.manual_seed(0)
    first = model.generate(condition, [0], settings)
    other = Condition(condition.tokens, condition.token_lengths, torch.tensor([2]))
    second = model.generate(other, [0], settings)
    assert first.mel.shape != second.mel.shape or not torch.allclose(first.mel, second.mel)
