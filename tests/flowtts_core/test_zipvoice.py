"""Our ZipVoice against the published implementation's numbers; its layout in time, its guidance and its sizes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from flowtts_core.acoustic import Condition, ZipVoice, ZipVoiceConfig, build
from flowtts_core.acoustic.base import Prompt
from flowtts_core.acoustic.infilling import infilling_mask
from flowtts_core.acoustic.zipvoice.net import Given, spread
from flowtts_core.audio.mel import VOCOS_24K
from flowtts_core.config import spec_of
from flowtts_core.errors import ConfigError, FlowTTSError
from flowtts_core.flow import LinearPath
from flowtts_core.nn.masks import length_mask
from flowtts_core.sampling import Sampling

TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}


@dataclasses.dataclass(frozen=True)
class Reference:
    model: ZipVoice
    io: dict[str, Tensor]
    tokens: list[list[int]]
    prompt_tokens: list[list[int]]

    def condition(self, row: int) -> Condition:
        """One item with its prompt, whose features are not scaled yet."""
        io, frames = self.io, int(self.io["prompt_features_lens"][row])
        own, heard = (torch.tensor([lists[row]]) for lists in (self.tokens, self.prompt_tokens))
        features = io["prompt_features"][row : row + 1, :frames] / self.model.config.scale
        prompt = Prompt(features, torch.tensor([frames]), heard, torch.tensor([heard.shape[1]]))
        return Condition(own, torch.tensor([own.shape[1]]), None, prompt)

    def given(self, lengths: Tensor, text: Tensor) -> Given:
        """Both items together, as the published sampler has them."""
        io, frames = self.io, text.shape[1]
        speech = torch.nn.functional.pad(io["prompt_features"], (0, 0, 0, frames - io["prompt_features"].shape[1]))
        heard = length_mask(io["prompt_features_lens"], frames).unsqueeze(2)
        return Given(text, speech * heard, lengths)


def config_of(values: dict, **changed) -> ZipVoiceConfig:
    return ZipVoiceConfig(
        n_symbols=values["vocab_size"],
        pad=values["pad_id"],
        mel=dataclasses.replace(VOCOS_24K, n_mels=values["feat_dim"]),
        decoder_dim=values["fm_decoder_dim"],
        decoder_feed_forward=values["fm_decoder_feedforward_dim"],
        decoder_heads=values["fm_decoder_num_heads"],
        decoder_layers=tuple(values["fm_decoder_num_layers"]),
        decoder_factors=tuple(values["fm_decoder_downsampling_factor"]),
        decoder_kernels=tuple(values["fm_decoder_cnn_module_kernel"]),
        encoder_layers=values["text_encoder_num_layers"],
        encoder_dim=values["text_encoder_dim"],
        encoder_feed_forward=values["text_encoder_feedforward_dim"],
        encoder_heads=values["text_encoder_num_heads"],
        encoder_kernel=values["text_encoder_cnn_module_kernel"],
        query_dim=values["query_head_dim"],
        value_dim=values["value_head_dim"],
        position_dim=values["pos_head_dim"],
        positions_dim=values["pos_dim"],
        time_dim=values["time_embed_dim"],
        text_dim=values["text_embed_dim"],
        **changed,
    )


def reference_of(parity_dir: Path, distilled: bool) -> Reference:
    values = json.loads((parity_dir / "zipvoice" / "config.json").read_text())
    weights, io = (load_file(parity_dir / "zipvoice" / f"{name}.safetensors") for name in ("weights", "io"))
    model = ZipVoice(config_of(values["model"], embeds_guidance=distilled))
    if distilled:
        own = {name: value for name, value in weights.items() if not name.startswith("fm_decoder.")}
        weights = {**own, **load_file(parity_dir / "zipvoice_distill" / "weights.safetensors")}
        io = {**io, **load_file(parity_dir / "zipvoice_distill" / "io.safetensors")}
    model.load_state_dict(weights, strict=True)
    return Reference(model.eval(), io, values["example"]["tokens"], values["example"]["prompt_tokens"])


@pytest.fixture(scope="module")
def reference(parity_dir: Path) -> Reference:
    return reference_of(parity_dir, distilled=False)


@pytest.fixture(scope="module")
def distilled(parity_dir: Path) -> Reference:
    return reference_of(parity_dir, distilled=True)


def padded_tokens(lists: list[list[int]]) -> tuple[Tensor, Tensor]:
    tensors = [torch.tensor(one) for one in lists]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True), torch.tensor([len(one) for one in lists])


def said(reference: Reference) -> tuple[Tensor, Tensor]:
    pairs = zip(reference.prompt_tokens, reference.tokens, strict=True)
    return padded_tokens([heard + own for heard, own in pairs])


@torch.no_grad()
def test_text_and_its_frames_match(reference: Reference) -> None:
    model, io = reference.model, reference.io
    tokens, counts = said(reference)
    encoded = model.encode(tokens, counts)
    torch.testing.assert_close(encoded, io["text.embed"], **TOLERANCE)
    for name, speed in (("", 1.0), ("_speed1.3", 1.3)):
        wanted, valid = io[f"text.condition{name}"], ~io[f"padding_mask{name}"]
        lengths = torch.tensor(
            [
                model.durations.lay_out(reference.condition(row), speed).frames + int(frames)
                for row, frames in enumerate(io["prompt_features_lens"])
            ]
        )
        assert lengths.tolist() == valid.sum(1).tolist()
        made = spread(encoded, counts, lengths, wanted.shape[1])
        torch.testing.assert_close(made * valid[..., None], wanted * valid[..., None], **TOLERANCE)


@torch.no_grad()
def test_velocities_match(reference: Reference) -> None:
    """The second item's 21 frames are no multiple of 2: upstream mixes its padding in, and alone it has the last frame twice."""
    model, io = reference.model, reference.io
    given = Given(io["text.condition"], io["dec.speech_condition"], torch.tensor([40, 21]))
    for name, t in (("t0.0", [0.0]), ("t0.3", [0.3]), ("t0.8", [0.8]), ("t_per_item", [0.2, 0.7])):
        made = model.velocity(io["dec.xt"], torch.tensor(t), given)
        torch.testing.assert_close(made[0], io[f"dec.{name}"][0], **TOLERANCE)
    alone = Given(given.text[1:, :21], given.speech[1:, :21], None)
    torch.testing.assert_close(
        made[1:, :21], model.velocity(io["dec.xt"][1:, :21], torch.tensor([0.7]), alone), **TOLERANCE
    )


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "lengths", "settings", "rows"),
    [
        ("s4_g1_shift0.5", (40, 21), Sampling(4, 1.0, guidance=1.0, grid={"name": "shift", "s": 0.5}), (0,)),
        ("s4_g0", (40, 21), Sampling(4, 1.0, guidance=0.0, grid={"name": "shift", "s": 1.0}), (0,)),
        ("s6_g0.5_speed1.3", (34, 18), Sampling(6, 1.0, guidance=0.5, grid={"name": "shift", "s": 0.7}), (0, 1)),
        ("s4_real_durations", (32, 25), Sampling(4, 1.0, guidance=1.0, grid={"name": "shift", "s": 0.5}), (0,)),
    ],
)
def test_sampler_matches(reference: Reference, name: str, lengths, settings: Sampling, rows) -> None:
    model, io = reference.model, reference.io
    tokens, counts = said(reference)
    frames = torch.tensor(lengths)
    x_0 = io[f"{name}.x0"]
    given = reference.given(frames, model.text_of(tokens, counts, frames, x_0.shape[1]))
    solved = model.solve(given, x_0, settings)
    for row in rows:
        heard, own = int(io["prompt_features_lens"][row]), int(io[f"{name}.out_lens"][row])
        torch.testing.assert_close(solved[row, heard : heard + own], io[f"{name}.out"][row, :own], **TOLERANCE)
        torch.testing.assert_close(solved[row, :heard], io[f"{name}.prompt_out"][row, :heard], **TOLERANCE)


@torch.no_grad()
def test_an_item_beside_a_longer_one_is_what_upstream_makes_of_it_alone(reference: Reference) -> None:
    model, io = reference.model, reference.io
    tokens, counts = said(reference)
    lengths, heard = torch.tensor([40, 21]), int(io["prompt_features_lens"][1])
    given = reference.given(lengths, model.text_of(tokens, counts, lengths, 40))
    settings = Sampling(4, 1.0, guidance=1.0, grid={"name": "shift", "s": 0.5})
    solved = model.solve(given, io["s4_g1_shift0.5.x0"], settings)
    torch.testing.assert_close(solved[1, heard:21], io["s4_g1_shift0.5.single_item1"][0], **TOLERANCE)


def test_training_loss_matches(reference: Reference) -> None:
    model, io = reference.model, reference.io
    tokens, counts = padded_tokens(
        [heard + own for heard, own in zip(reference.prompt_tokens, reference.tokens, strict=True)]
    )
    lengths, masked = io["train.features_lens"], io["train.speech_condition_mask"]
    x_1, t = io["train.features"], io["train.t"].flatten()
    given = Given(model.text_of(tokens, counts, lengths, x_1.shape[1]), x_1 * ~masked.unsqueeze(2), lengths)
    point = LinearPath().sample(io["train.noise"], x_1, t)
    error = (model.velocity(point.x_t, t, given) - point.velocity).square()
    counted = masked & length_mask(lengths, x_1.shape[1])
    torch.testing.assert_close(error[counted].mean(), io["train.loss"], **TOLERANCE)


@torch.no_grad()
def test_the_distilled_net_matches_and_is_asked_once_a_step(distilled: Reference) -> None:
    model, io = distilled.model, distilled.io
    given = Given(io["text_condition"], io["speech_condition"], torch.tensor([40, 21]))
    calls = []
    hook = model.fm_decoder.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    for weight in (0.0, 1.0, 3.0):
        made = model.velocity(io["xt"], torch.tensor([0.3]), given, torch.tensor([weight]))
        torch.testing.assert_close(made[0], io[f"v.t0.3.g{weight}"][0], **TOLERANCE)
    calls.clear()
    settings = Sampling(4, 1.0, guidance=3.0, grid={"name": "shift", "s": 0.5})
    solved = model.solve(given, io["s4_g3_shift0.5.x0"], settings)
    hook.remove()
    assert calls == [2, 2, 2, 2]
    heard, own = int(io["prompt_features_lens"][0]), int(io["s4_g3_shift0.5.out_lens"][0])
    torch.testing.assert_close(solved[0, heard : heard + own], io["s4_g3_shift0.5.out"][0, :own], **TOLERANCE)


@pytest.mark.parametrize("embeds_guidance", [False, True])
def test_the_published_sizes(embeds_guidance: bool) -> None:
    config = dataclasses.replace(ZipVoiceConfig.published(), embeds_guidance=embeds_guidance)
    with torch.device("meta"):
        model = build(spec_of("zipvoice", config))
    assert round(sum(weight.numel() for weight in model.parameters()) / 1e6) == 123


def test_masks_are_of_one_piece_and_of_the_asked_share() -> None:
    lengths, generator = torch.tensor([100, 40, 7, 1]), torch.Generator().manual_seed(0)
    shares = []
    for _ in range(200):
        mask = infilling_mask(lengths, 100, 0.7, generator)
        assert not (mask & ~length_mask(lengths, 100)).any()
        assert ((mask[:, 1:] & ~mask[:, :-1]).sum(1) + mask[:, 0] <= 1).all()
        shares.append(float(mask[0].sum()) / 100)
    assert 0.69 <= min(shares) < 0.72 and 0.98 < max(shares) <= 1.0


def debug_model() -> ZipVoice:
    torch.manual_seed(0)
    return ZipVoice(ZipVoiceConfig.debug()).eval()


def condition(prompt_frames: int, prompt_tokens: int, tokens: int) -> Condition:
    prompt = Prompt(
        torch.randn(1, prompt_frames, 100),
        torch.tensor([prompt_frames]),
        torch.ones(1, prompt_tokens, dtype=torch.int64),
        torch.tensor([prompt_tokens]),
    )
    return Condition(torch.ones(1, tokens, dtype=torch.int64), torch.tensor([tokens]), None, prompt)


def test_durations_go_by_the_prompts_pace() -> None:
    lay_out = debug_model().durations.lay_out
    assert lay_out(condition(100, 10, 7), 1.0).frames == 70
    assert lay_out(condition(100, 30, 7), 1.0).frames == 24  # 23.3
    assert lay_out(condition(100, 10, 7), 2.0).frames == 35


@pytest.mark.parametrize(
    ("sizes", "message"), [((0, 3, 5), "empty"), ((40, 0, 5), "empty"), ((3000, 2, 50), "75000 frames of 50 tokens")]
)
def test_prompts_that_cannot_be_followed_are_refused(sizes, message: str) -> None:
    with pytest.raises(FlowTTSError, match=message):
        debug_model().generate(condition(*sizes), [0], Sampling(2))


@pytest.mark.parametrize(
    "fields",
    [
        {"decoder_layers": (1, 1)},
        {"decoder_factors": (1, 0, 1)},
        {"decoder_kernels": (7, 4, 7)},
        {"encoder_kernel": 2},
        {"time_dim": 3},
        {"pad": 24},
        {"scale": 0.0},
        {"decoder_heads": 0},
    ],
)
def test_impossible_sizes_are_refused(fields) -> None:
    with pytest.raises(ConfigError, match="ZipVoiceConfig"):
        dataclasses.replace(ZipVoiceConfig.debug(), **fields)
