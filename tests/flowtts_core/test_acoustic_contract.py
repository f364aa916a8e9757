"""What every acoustic model of the table must hold, at debug size; it touches what `AcousticModel` offers and no more."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from flowtts_core.acoustic import (
    ACOUSTIC_MODELS,
    AcousticBatch,
    AcousticModel,
    Condition,
    F5Config,
    MatchaConfig,
    ZipVoiceConfig,
    build,
)
from flowtts_core.acoustic.base import Prompt
from flowtts_core.acoustic.distilling import Lesson, Method, distillation_loss
from flowtts_core.acoustic.windows import WindowedModel, plan_windows
from flowtts_core.config import fingerprint, from_dict, spec_of, to_dict
from flowtts_core.errors import ConfigError, FlowTTSError
from flowtts_core.flow import Consistency, Distillation, GuidedDistillation, follow
from flowtts_core.sampling import Sampling
from tests.standins import CHARACTER_MODEL, CharacterModelConfig
from tests.voices import lengthen


@dataclasses.dataclass(frozen=True)
class Variant:
    """A model of the table at debug size.

    Attributes:
        prepare: makes random weights fit for the tests.
        least_loss: that a perfect model has.
        silent: ends of the names of parameters that no gradient can reach.
        field: beginnings of the names of parameters that `velocity` computes with.
    """

    name: str
    config: Any
    prepare: Callable[[Any], None] = lambda model: None
    least_loss: float = 0.0
    silent: tuple[str, ...] = ()
    field: tuple[str, ...] = ("decoder.", "fm_decoder.")


def matcha(**fields: Any) -> Variant:
    # A constant added to all attention keys cancels in the softmax, so that bias can have no gradient but rounding.
    # The prior loss of a perfect mean is half of log 2 pi.
    config = dataclasses.replace(MatchaConfig.debug(), **fields)
    return Variant("matcha", config, lengthen, 0.5 * 1.8379, ("conv_k.bias",))


def f5(**fields: Any) -> Variant:
    nets = ("input_embed.", "time_embed.", "guidance_embed.", "transformer_blocks.", "norm_out.", "proj_out.")
    config = dataclasses.replace(F5Config.debug(), **fields)
    return Variant("f5", config, field=tuple(f"transformer.{net}" for net in nets))


VARIANTS = {
    "f5": f5(),
    "f5 first generation": f5(text_mask_padding=False, rotated_heads=1),
    "f5 learnt durations": f5(durations="learnt", average_upsampling=True, between=(1,)),
    # few tokens of a small batch are known beside others that are not: test_f5 has what they say of the pace
    "f5 aligned": dataclasses.replace(f5(durations="aligned", between=(1,)), silent=("aligner.doubt",)),
    "f5 distilled": f5(embeds_guidance=True),
    "f5 variants": f5(qk_norm=True, long_skip=True, mel_mean=-5.0, mel_std=2.0),
    "matcha": matcha(),
    "matcha true group norm": matcha(norm="group", activation="mish"),
    "matcha published": matcha(masking="published", norm="group", activation="mish", feed_forward="snakebeta"),
    "matcha speakers": matcha(n_speakers=3, speaker_channels=8),
    "matcha windows": matcha(segment_frames=16),
    "matcha data": matcha(predicts="data"),
    "zipvoice": Variant("zipvoice", ZipVoiceConfig.debug()),
    "zipvoice distilled": Variant("zipvoice", dataclasses.replace(ZipVoiceConfig.debug(), embeds_guidance=True)),
    "characters": Variant(CHARACTER_MODEL, CharacterModelConfig()),
    "characters with a prompt": Variant(CHARACTER_MODEL, CharacterModelConfig(prompted="required")),
}
LENGTHS = (50, 7, 4, 31)  # tokens; some items are longer than the first window


def test_every_model_has_a_debug_variant() -> None:
    assert {variant.name for variant in VARIANTS.values()} == set(ACOUSTIC_MODELS)


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> Variant:
    return VARIANTS[request.param]


@pytest.fixture
def model(variant: Variant) -> AcousticModel:
    torch.manual_seed(0)
    model = build(spec_of(variant.name, variant.config))
    for parameter in model.parameters():  # nothing may hide behind a zero initialisation
        if parameter.dim() < 2 or not parameter.any():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    variant.prepare(model)
    return model.eval()


def some_tokens(
    n_symbols: int, lengths: tuple[int, ...], generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    own = torch.tensor(lengths)
    tokens = torch.randint(1, n_symbols, (len(own), int(own.max())), generator=generator)
    return tokens * (torch.arange(tokens.shape[1]) < own[:, None]), own


def some_condition(model: AcousticModel, lengths: tuple[int, ...] = LENGTHS, seed: int = 3) -> Condition:
    generator = torch.Generator().manual_seed(seed)
    tokens, own = some_tokens(model.n_symbols, lengths, generator)
    speakers = torch.arange(len(own)) % model.n_speakers if model.n_speakers > 1 else None
    prompt = None
    if model.prompted != "none":
        said, said_lengths = some_tokens(model.n_symbols, tuple(1 + length % 5 for length in lengths), generator)
        frames = said_lengths * 4
        features = torch.randn(len(own), int(frames.max()), model.features.n_mels, generator=generator) - 5
        features *= (torch.arange(features.shape[1]) < frames[:, None]).unsqueeze(2)
        prompt = Prompt(features, frames, said, said_lengths)
    return Condition(tokens, own, speakers, prompt)


def some_batch(model: AcousticModel, lengths: tuple[int, ...] = (11, 7, 4, 9), seed: int = 3) -> AcousticBatch:
    condition = some_condition(model, lengths, seed)
    generator = torch.Generator().manual_seed(seed)
    frames = condition.token_lengths * 4 + 1
    mel = torch.randn(len(frames), model.features.n_mels, int(frames.max()), generator=generator) - 1
    return AcousticBatch(condition, mel * (torch.arange(mel.shape[2]) < frames[:, None, None]), frames)


def padded(condition: Condition, extra: int) -> Condition:
    wide = dataclasses.replace(condition, tokens=torch.nn.functional.pad(condition.tokens, (0, extra)))
    if (prompt := condition.prompt) is None:
        return wide
    features, tokens = (
        torch.nn.functional.pad(prompt.features, (0, 0, 0, extra)),
        torch.nn.functional.pad(prompt.tokens, (0, extra)),
    )
    return dataclasses.replace(wide, prompt=dataclasses.replace(prompt, features=features, tokens=tokens))


@pytest.mark.parametrize("speed", [1.0, 1.3])
def test_a_batch_equals_its_singles(model: AcousticModel, speed: float) -> None:
    condition, seeds = some_condition(model), [5, 6, 7, 8]
    settings = Sampling(steps=3, speed=speed, guidance=1.0)
    together = model.generate(condition, seeds, settings)
    for row, seed in enumerate(seeds):
        alone = model.generate(condition.item(row), [seed], settings)
        length = int(alone.lengths[0])
        assert int(together.lengths[row]) == length
        torch.testing.assert_close(together.features[row, :, :length], alone.features[0], atol=1e-4, rtol=0)
        assert (together.durations is None) == (alone.durations is None)
        if together.durations is not None and alone.durations is not None:
            assert torch.equal(together.durations[row, : int(condition.token_lengths[row])], alone.durations[0])


def test_no_layout_of_a_batch_moves_a_frame(model: AcousticModel) -> None:
    """Lengths are whole frames, so a difference of rounding anywhere would move all later frames of some item."""
    generator = torch.Generator().manual_seed(0)
    settings = Sampling(steps=0)
    for seed in range(20):
        count = int(torch.randint(2, 7, (1,), generator=generator))
        lengths = tuple(torch.randint(1, 60, (count,), generator=generator).tolist())
        condition = some_condition(model, lengths, seed)
        together = model.generate(padded(condition, seed % 5), [0] * count, settings)
        alone = [model.generate(condition.item(row), [0], settings) for row in range(count)]
        assert together.lengths.tolist() == [int(one.lengths[0]) for one in alone]
        if together.durations is not None:
            assert together.durations.sum(1).tolist() == together.lengths.tolist()
            for row, one in enumerate(alone):
                assert one.durations is not None
                assert torch.equal(together.durations[row, : lengths[row]], one.durations[0])
                assert not together.durations[row, lengths[row] :].any()


def test_padding_of_tokens_changes_nothing(model: AcousticModel) -> None:
    condition, settings = some_condition(model), Sampling(steps=2)
    plain = model.generate(condition, [1, 2, 3, 4], settings)
    wide = model.generate(padded(condition, 6), [1, 2, 3, 4], settings)
    assert torch.equal(plain.lengths, wide.lengths)
    for row, length in enumerate(plain.lengths.tolist()):
        torch.testing.assert_close(plain.features[row, :, :length], wide.features[row, :, :length], atol=1e-4, rtol=0)


def test_seed_and_settings_matter_and_repeat(model: AcousticModel) -> None:
    condition = some_condition(model).item(0)

    def made(seed: int, **settings: Any) -> torch.Tensor:
        return model.generate(condition, [seed], Sampling(**{"steps": 2, **settings})).features

    assert torch.equal(made(1), made(1))
    assert not torch.allclose(made(1), made(2))
    assert not torch.allclose(made(1), made(1, solver="heun"))
    assert not torch.allclose(made(1), made(1, grid={"name": "sway", "s": -1.0}))
    assert torch.equal(made(1, steps=0), made(2, steps=0))
    assert made(1, speed=2.0).shape[2] < made(1).shape[2]
    assert torch.equal(made(1), made(1, guidance=2.0)) != model.guided


def test_a_prompt_is_followed_and_asked_for_where_it_is_required(model: AcousticModel) -> None:
    condition, settings = some_condition(model).item(0), Sampling(steps=2)
    without = dataclasses.replace(condition, prompt=None)
    if model.prompted == "required":
        with pytest.raises(FlowTTSError, match="prompt"):
            model.generate(without, [1], settings)
    elif model.prompted == "optional":
        first, second = (model.generate(c, [1], settings).features for c in (condition, without))
        assert first.shape != second.shape or not torch.allclose(first, second)
    else:
        assert model.prompted == "none" and condition.prompt is None


def test_a_speaker_is_asked_for_and_listened_to_where_there_are_several(model: AcousticModel) -> None:
    if model.n_speakers == 1:
        assert some_condition(model).speakers is None
        return
    condition, settings = some_condition(model).item(0), Sampling(steps=0)
    with pytest.raises(ConfigError, match="speakers"):
        model.generate(dataclasses.replace(condition, speakers=None), [0], settings)
    other = dataclasses.replace(condition, speakers=torch.tensor([2]))
    first, second = (model.generate(c, [0], settings).features for c in (condition, other))
    assert first.shape != second.shape or not torch.allclose(first, second)


def test_windows_as_a_stream_makes_them_are_the_whole(model: AcousticModel) -> None:
    if not isinstance(model, WindowedModel) or not model.windowed:
        pytest.skip("this model makes its features at once")
    condition, settings = some_condition(model).item(0), Sampling(steps=2)
    whole = model.generate(condition, [4], settings).features[0]
    draft = model.draft(condition, 4, settings.speed)
    windows = plan_windows(draft.frames)
    assert len(windows) > 1
    pieces, done = [], 0
    for window in windows:
        [piece] = model.decode([draft], [(window.low, window.high)], settings)
        pieces.append(piece[:, done - window.low : window.end - window.low])
        done = window.end
    torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=1e-4, rtol=0)


def test_loss_does_not_depend_on_padding_of_tokens(model: AcousticModel) -> None:
    batch = some_batch(model)
    wide = dataclasses.replace(batch, condition=padded(batch.condition, 3))
    narrow, broad = (model.loss(each, torch.Generator().manual_seed(1)) for each in (batch, wide))
    for name in narrow:
        torch.testing.assert_close(narrow[name], broad[name], atol=1e-4, rtol=1e-4)


def test_gradients_reach_every_parameter(model: AcousticModel, variant: Variant) -> None:
    losses = model.loss(some_batch(model), torch.Generator().manual_seed(0))
    assert losses["loss"].item() == pytest.approx(sum(v.item() for k, v in losses.items() if k != "loss"), rel=1e-5)
    losses["loss"].backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert [name for name in silent if not name.endswith(variant.silent)] == []


def test_draws_come_from_the_generator_alone(model: AcousticModel) -> None:
    batch = some_batch(model)

    def loss(seed: int) -> float:
        return model.loss(batch, torch.Generator().manual_seed(seed))["loss"].item()

    assert loss(1) == loss(1)
    assert loss(1) != loss(2)


def test_bfloat16_autocast_keeps_losses_in_float32_and_close(model: AcousticModel) -> None:
    batch = some_batch(model)
    exact = model.loss(batch, torch.Generator().manual_seed(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model.loss(batch, torch.Generator().manual_seed(1))
    assert all(value.dtype == torch.float32 for value in rough.values())
    assert rough["loss"].item() == pytest.approx(exact["loss"].item(), rel=0.05)


def test_overfits_a_tiny_batch(model: AcousticModel, variant: Variant) -> None:
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
    first, last = (sum(part) / 5 - variant.least_loss for part in (history[:5], history[-5:]))
    assert last < 0.6 * first


def test_aligned_features_take_the_time_of_their_recording(model: AcousticModel) -> None:
    recording = some_batch(model, (23,))
    if not hasattr(model, "encoder"):
        with pytest.raises(FlowTTSError, match="does not align"):
            model.aligned_features(recording, 0, Sampling(steps=1))
        return
    first, again, other = (model.aligned_features(recording, seed, Sampling(steps=1)) for seed in (3, 3, 4))
    assert first.shape == (model.features.rows, int(recording.mel_lengths[0])) and first.isfinite().all()
    assert torch.equal(first, again) and not torch.allclose(first, other)


METHODS: dict[str, Method] = {
    "one step": Distillation(steps=1, substeps=2, temperature=1.0),
    "two steps": Distillation(steps=2, substeps=2, temperature=1.0),
    "guided": GuidedDistillation(),
    "consistency": Consistency(gap=0.1, deviation=1.0, latest=0.9, decay=0.5),
}


QUICK = [  # the others are alike, and slow
    ("f5 distilled", "consistency"),
    ("matcha", "one step"),
    ("matcha", "two steps"),
    ("zipvoice", "guided"),
    ("characters", "one step"),
]
LESSONS = [
    *QUICK,
    *(
        pytest.param(name, method, marks=pytest.mark.slow)
        for name, method in [
            *((name, method) for name in ("f5", "matcha", "zipvoice") for method in METHODS),
            ("f5 aligned", "guided"),
            ("f5 distilled", "guided"),
            ("matcha windows", "one step"),
            ("matcha data", "consistency"),
        ]
        if (name, method) not in QUICK
    ),
]


@pytest.mark.parametrize(("name", "method"), LESSONS)
def test_a_student_learns_from_its_teacher(name: str, method: str) -> None:
    """It comes nearer to what its teacher says; what is given to the flow is the teacher's own, and that is not touched."""
    torch.manual_seed(0)
    variant = VARIANTS[name]
    teacher = build(spec_of(variant.name, variant.config)).eval()
    variant.prepare(teacher)
    how, batch = METHODS[method], some_batch(teacher, (5, 4))
    if variant.name == CHARACTER_MODEL:
        with pytest.raises(FlowTTSError, match="cannot be distilled"):
            distillation_loss(teacher, batch, Lesson(teacher, how))
        return
    student = copy.deepcopy(teacher)
    teacher.requires_grad_(False)
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            if name.startswith(variant.field):  # it has something to learn
                parameter.add_(0.1 * torch.randn_like(parameter))
    target = copy.deepcopy(student).requires_grad_(False)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    optimizer = torch.optim.Adam(student.parameters(), 2e-3)
    generator = torch.Generator().manual_seed(0)
    lesson = Lesson(teacher, how, target, guidance=1.0)

    @torch.no_grad()
    def lost() -> float:  # of the same draws before and after: flow times differ far more than 24 updates can change
        drawn = [torch.Generator().manual_seed(seed) for seed in range(6)]
        return float(np.mean([distillation_loss(student, batch, lesson, one)["loss"].item() for one in drawn]))

    first = lost()
    for _ in range(24):
        loss = distillation_loss(student, batch, lesson, generator)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        follow(target.parameters(), student.parameters(), 0.5)
    assert lost() < 0.75 * first
    for name, value in student.state_dict().items():
        assert torch.equal(teacher.state_dict()[name], before[name])
        if not name.startswith(variant.field):
            assert torch.equal(value, before[name])


@pytest.mark.parametrize("name", VARIANTS)
def test_spec_round_trip_and_bad_settings(name: str) -> None:
    variant = VARIANTS[name]
    config = variant.config
    assert from_dict(type(config), to_dict(config)) == config
    assert fingerprint(build(spec_of(variant.name, config)).config) == fingerprint(config)
    with pytest.raises(ConfigError, match="valid fields"):
        build({"name": variant.name, "colour": 3})


def test_a_speed_out_of_range_is_refused(model: AcousticModel) -> None:
    with pytest.raises(ConfigError, match="speed"):
        model.generate(some_condition(model), [0] * 4, Sampling(speed=0.0))
