"""Our Matcha-TTS against the published implementation's numbers, in both kinds of batch."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from flowtts_core.acoustic import Condition, MatchaConfig, MatchaTTS
from flowtts_core.acoustic.alignment import expand_by_path, path_durations
from flowtts_core.acoustic.matcha.decoder import published_frames
from flowtts_core.acoustic.matcha.model import Draws, Prior
from flowtts_core.audio.mel import MelConfig
from flowtts_core.errors import ConfigError, FlowTTSError
from flowtts_core.nn import conv
from flowtts_core.nn.conv import TimeConv, TimeConvTranspose
from flowtts_core.nn.time_embedding import sinusoidal_embedding
from flowtts_core.sampling import Sampling
from tests.voices import lengthen

TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}


@dataclasses.dataclass(frozen=True)
class Reference:
    model: MatchaTTS
    io: dict[str, Tensor]

    @property
    def condition(self) -> Condition:
        return Condition(self.io["x"], self.io["x_lengths"], self.io.get("spk_id"))


def config_of(folder: Path) -> MatchaConfig:
    values = json.loads((folder / "config.json").read_text())
    encoder, decoder = values["encoder"]["encoder_params"], values["decoder"]
    return dataclasses.replace(
        MatchaConfig.published(),
        n_symbols=values["n_vocab"],
        n_speakers=values["n_spks"],
        speaker_channels=values["spk_emb_dim"],
        mel=MelConfig(n_mels=values["n_feats"]),
        encoder_channels=encoder["n_channels"],
        encoder_filter_channels=encoder["filter_channels"],
        encoder_layers=encoder["n_layers"],
        encoder_heads=encoder["n_heads"],
        duration_channels=values["encoder"]["duration_predictor_params"]["filter_channels_dp"],
        decoder_channels=tuple(decoder["channels"]),
        decoder_mid_blocks=decoder["num_mid_blocks"],
        decoder_heads=decoder["num_heads"],
        decoder_head_channels=decoder["attention_head_dim"],
    )


@pytest.fixture(scope="module", params=["matcha_single", "matcha_multi"])
def reference(request, parity_dir) -> Reference:
    folder = parity_dir / request.param
    model = MatchaTTS(config_of(folder))
    model.load_state_dict(load_file(folder / "weights.safetensors"), strict=True)
    return Reference(model.eval(), load_file(folder / "io.safetensors"))


def bmt(x: Tensor) -> Tensor:
    return x.transpose(1, 2)


@torch.no_grad()
def test_encoder_matches(reference):
    model, io = reference.model, reference.io
    encoded = model.encoder(io["x"], io["x_lengths"], model.speaker_vector(reference.condition))
    prenet = model.encoder.embed(io["x"], io["enc.x_mask"].transpose(1, 2))
    torch.testing.assert_close(bmt(prenet), io["enc.prenet"], **TOLERANCE)
    torch.testing.assert_close(bmt(encoded.mean), io["enc.mu"], **TOLERANCE)
    torch.testing.assert_close(encoded.log_durations, io["enc.logw"].squeeze(1), **TOLERANCE)


@torch.no_grad()
def test_velocity_net_matches_inside_and_out(reference):
    model, io = reference.model, reference.io
    net = model.decoder.estimator
    lengths = io["dec.mask"].sum((1, 2)).long()
    frames = published_frames(lengths, torch.full_like(lengths, 24), 24)
    seen: dict[str, Tensor] = {}
    hooks = [
        net.down_blocks[0][0].register_forward_hook(lambda *a: seen.update(down0_resnet=bmt(a[2]))),
        net.down_blocks[0][1][0].register_forward_hook(lambda *a: seen.update(down0_transformer=a[2])),
        net.mid_blocks[0][0].register_forward_hook(lambda *a: seen.update(mid0_resnet=bmt(a[2]))),
    ]
    out = net(bmt(io["dec.x"]), io["dec.t"], bmt(io["dec.mu"]), model.speaker_vector(reference.condition), frames)
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(sinusoidal_embedding(io["dec.t"], net.time_width), io["dec.time_emb_sinus"], **TOLERANCE)
    torch.testing.assert_close(net.embed_time(io["dec.t"]), io["dec.time_mlp"], **TOLERANCE)
    for name in ("down0_resnet", "down0_transformer", "mid0_resnet"):
        torch.testing.assert_close(seen[name], io[f"dec.{name}"], **TOLERANCE)
    torch.testing.assert_close(bmt(out), io["dec.out"], **TOLERANCE)


@dataclasses.dataclass(frozen=True)
class Synthesised:
    mel: Tensor  # [B, M, T]
    normalised: Tensor  # [B, M, T]
    priors: list[Prior]

    @property
    def lengths(self) -> Tensor:
        return torch.tensor([prior.frames for prior in self.priors])


@torch.inference_mode()
def synthesise(
    reference: Reference, condition: Condition, noise: Tensor, speed: float, steps: int, batch_extents: bool
) -> Synthesised:
    """The published synthesis of a batch from given noise [B, M, T]; `batch_extents`: with the padding that it sees."""
    model, noise = reference.model, bmt(noise)
    priors = [model.durations.lay_out(condition.item(row), speed) for row in range(len(condition.tokens))]
    lengths = torch.tensor([prior.frames for prior in priors])
    mean = torch.zeros_like(noise)
    for row, prior in enumerate(priors):
        mean[row, : prior.frames] = prior.mean
    extents = torch.full_like(lengths, noise.shape[1]) if batch_extents else None
    x = model.solve(mean, lengths, noise, model.speaker_vector(condition), Sampling(steps=steps), extents)
    time = int(lengths.max())
    return Synthesised(bmt(x * model.mel_std + model.mel_mean)[:, :, :time], bmt(x)[:, :, :time], priors)


@pytest.mark.parametrize(("name", "steps", "speed"), [("syn4", 4, 1.0), ("syn2_ls0.85", 2, 1 / 0.85)])
def test_published_batch_matches_where_padding_is_shared(reference, name, steps, speed):
    io = reference.io
    made = synthesise(reference, reference.condition, io[f"{name}.z"], speed, steps, True)
    assert torch.equal(made.lengths, io[f"{name}.mel_lengths"])
    torch.testing.assert_close(made.mel, io[f"{name}.mel"], **TOLERANCE)
    for row, prior in enumerate(made.priors):
        attention = io[f"{name}.attn"][row, 0]  # [L, T], 1 where a frame belongs to a token
        assert torch.equal(attention.sum(1)[: len(prior.durations)].float(), prior.durations)
        assert attention[:, : prior.frames].argmax(0).diff().min() >= 0 and not attention[:, prior.frames :].any()
    if name == "syn4":
        torch.testing.assert_close(made.normalised, io["syn4.decoder_outputs"], **TOLERANCE)
        for row, prior in enumerate(made.priors):
            torch.testing.assert_close(prior.mean.T, io["syn4.encoder_outputs"][row, :, : prior.frames], **TOLERANCE)


def test_single_item_matches_alone_and_within_a_batch(reference):
    io = reference.io
    expected = io["syn4_single_item1.mel"]
    alone = synthesise(reference, reference.condition.item(1), io["syn4_single_item1.z"], 1.0, 4, False)
    torch.testing.assert_close(alone.mel, expected, **TOLERANCE)
    batched = synthesise(reference, reference.condition, io["syn4.z"], 1.0, 4, False)
    torch.testing.assert_close(batched.mel[1:, :, : expected.shape[2]], expected, **TOLERANCE)
    first = batched.priors[0].frames
    torch.testing.assert_close(batched.mel[0, :, :first], io["syn4.mel"][0, :, :first], **TOLERANCE)


@pytest.mark.parametrize("name", ["full", "cut16"])
def test_training_losses_and_gradient_match(reference, name):
    io = reference.io
    config = dataclasses.replace(reference.model.config, segment_frames=16 if name == "cut16" else None)
    model = MatchaTTS(config).eval()
    model.load_state_dict(reference.model.state_dict())
    offsets = io["train.cut16.offsets"] if name == "cut16" else None
    draws = Draws(io[f"train.{name}.t"].flatten(), bmt(io[f"train.{name}.z"]), offsets)
    losses = model.losses_of_normalised(reference.condition, bmt(io["train.y"]), io["train.y_lengths"], draws)
    losses["loss"].backward()
    gradient = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    for ours, theirs in (("duration", "dur_loss"), ("prior", "prior_loss"), ("flow", "diff_loss")):
        torch.testing.assert_close(losses[ours], io[f"train.{name}.{theirs}"], **TOLERANCE)
    torch.testing.assert_close(gradient, io[f"train.{name}.grad_norm"], **TOLERANCE)


def test_zero_steps_give_the_prior_mean(reference):
    model = reference.model
    generated = model.generate(reference.condition, [1, 2], Sampling(steps=0))
    with torch.no_grad():
        mean = model.encoder(
            reference.io["x"], reference.io["x_lengths"], model.speaker_vector(reference.condition)
        ).mean
    path = reference.io["syn4.attn"].squeeze(1)[:, :, : generated.features.shape[2]]
    expected = torch.bmm(path.float().transpose(1, 2), mean)
    got = bmt((generated.features - model.mel_mean) / model.mel_std)
    for row, length in enumerate(generated.lengths.tolist()):
        torch.testing.assert_close(got[row, :length], expected[row, :length], **TOLERANCE)


def test_path_helpers_agree_with_dense_products():
    path = torch.tensor([[0, 0, 1, 2, 2, -1]])
    values = torch.randn(1, 3, 5)
    dense = torch.nn.functional.one_hot(path.clamp(min=0), 3).float() * (path >= 0).unsqueeze(2)
    torch.testing.assert_close(expand_by_path(values, path), dense @ values)
    assert path_durations(path, 3).tolist() == [[2.0, 1.0, 2.0]]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("time", [1, 2, 7, 64])
def test_a_convolution_without_gradients_is_torchs(batch: int, time: int) -> None:
    """The way without gradients against `conv1d`; weights that change in place are seen."""
    layer = TimeConv(6, 5, 3)
    x = torch.randn(batch, time, 6)

    def expected() -> torch.Tensor:
        return torch.nn.functional.conv1d(x.transpose(1, 2), layer.weight, layer.bias, padding=1).transpose(1, 2)

    for _ in range(2):
        with torch.inference_mode():
            torch.testing.assert_close(layer(x), expected())
            torch.testing.assert_close(copy.deepcopy(layer)(x), expected())
        with torch.no_grad():
            layer.weight.mul_(-2)
    assert layer(x).requires_grad


@pytest.mark.parametrize(("batch", "time"), [(1, 2), (1, 13), (3, 90), (2, 300)])
def test_convolutions_as_one_product_are_torchs_and_each_items_own(batch: int, time: int) -> None:
    layers = [TimeConv(16, 32, kernel, stride) for kernel in (3, 5) for stride in (1, 2)] + [TimeConvTranspose(16)]
    x = torch.randn(batch, time, 16)
    for layer in layers:
        expected = layer(x).detach()  # with gradients, by torch
        with torch.inference_mode():
            found = layer(x)
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
            assert torch.equal(found, torch.cat([layer(item[None]) for item in x]))


@torch.inference_mode()
@pytest.mark.parametrize("time", [1, 2, 3, 12, 13])
@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_convolutions_as_a_gpu_does_them_are_torchs(kernel: int, time: int) -> None:
    """Products and shifted sums, here without a GPU; the whole of them on one: tests/flowtts_core/test_cuda.py."""
    x = torch.randn(3, time, 6)
    image = x.transpose(1, 2)
    for stride in (1, 2):
        layer = TimeConv(6, 5, kernel, stride)
        found = conv._products(x, layer.weight.permute(2, 1, 0), layer.bias, stride)
        expected = torch.nn.functional.conv1d(image, layer.weight, layer.bias, stride, kernel // 2)
        torch.testing.assert_close(found, expected.transpose(1, 2), atol=1e-5, rtol=0)
    for groups in (1, 6):
        plain = torch.nn.Conv1d(6, 6, kernel, padding=kernel // 2, groups=groups)
        torch.testing.assert_close(conv._shifted(plain, image), plain(image), atol=1e-5, rtol=0)
    doubling = TimeConvTranspose(6)
    torch.testing.assert_close(doubling._products(x), doubling(x), atol=1e-5, rtol=0)


def debug_model(**fields) -> MatchaTTS:
    torch.manual_seed(0)
    return MatchaTTS(dataclasses.replace(MatchaConfig.debug(), **fields)).eval()


@torch.inference_mode()
@pytest.mark.parametrize("log_duration", [float("nan"), float("inf"), 5.0])
@pytest.mark.parametrize("masking", ["true", "published"])
def test_durations_without_end_are_refused(masking: str, log_duration: float) -> None:
    model = debug_model(masking=masking)
    lengthen(model, log_duration)
    tokens = torch.ones(1, 9, dtype=torch.int64)
    with pytest.raises(FlowTTSError, match="frames"):
        model.durations.lay_out(Condition(tokens, torch.tensor([9])), 1.0)


@pytest.mark.parametrize("segment_frames", [None, 16])
def test_losses_do_not_depend_on_padding_of_frames(segment_frames: int | None) -> None:
    """But for the published training loss, which sees padding by definition."""
    model = debug_model(segment_frames=segment_frames)
    generator = torch.Generator().manual_seed(1)
    tokens, lengths = torch.randint(1, 24, (2, 5), generator=generator), torch.tensor([21, 17])
    condition = Condition(tokens, torch.tensor([5, 5]))
    frames = torch.randn(2, 21, 80, generator=generator) * (torch.arange(21) < lengths[:, None]).unsqueeze(2)
    noise = torch.randn(2, segment_frames or 21, 80, generator=generator)
    offsets = None if segment_frames is None else torch.tensor([5, 0])
    results = []
    for extra in (0, 8):
        wide = torch.nn.functional.pad(frames, (0, 0, 0, extra))
        own = noise if segment_frames else torch.nn.functional.pad(noise, (0, 0, 0, extra))
        draws = Draws(torch.tensor([0.3, 0.6]), own, offsets)
        results.append(model.losses_of_normalised(condition, wide, lengths, draws))
    for name in results[0]:
        torch.testing.assert_close(results[0][name], results[1][name], **TOLERANCE)


@pytest.mark.parametrize(
    ("fields", "windowed"),
    [({}, True), ({"segment_frames": 16}, True), ({"norm": "group"}, False), ({"masking": "published"}, False)],
)
def test_windows_are_made_only_where_no_frame_sees_all_others(fields: dict[str, object], windowed: bool) -> None:
    assert debug_model(**fields).windowed == windowed


def test_an_unknown_masking_is_refused() -> None:
    with pytest.raises(ConfigError, match="masking"):
        MatchaConfig(masking="none")
