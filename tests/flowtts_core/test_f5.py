"""Our F5-TTS against the published implementation's numbers, in batches as it computes them and item by item."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from flowtts_core.acoustic import F5TTS, Condition, F5Config
from flowtts_core.acoustic.base import AcousticBatch, Prompt
from flowtts_core.acoustic.f5.aligned import with_edges
from flowtts_core.acoustic.f5.durations import ByteRatio
from flowtts_core.acoustic.f5.model import Draws, without_fillers
from flowtts_core.acoustic.f5.net import Frames, published_frames, true_frames
from flowtts_core.acoustic.infilling import piece_of
from flowtts_core.audio.mel import F5_24K, MelConfig
from flowtts_core.errors import ConfigError, FlowTTSError
from flowtts_core.nn.dit import RotaryPositions
from flowtts_core.nn.time_embedding import sinusoidal_embedding
from flowtts_core.sampling import Sampling
from jobs.training.recipes.acoustic import begin_as

CLOSE = {"atol": 1e-4, "rtol": 1e-4}
SWAY = {"name": "pruned", "s": -1.0}
PUBLISHED = Sampling(steps=4, temperature=1.0, guidance=2.0, grid=SWAY)


def config_of(backbone: dict[str, Any], **changed: Any) -> F5Config:
    return F5Config(
        n_symbols=backbone["text_num_embeds"] + 1,
        mel=MelConfig(24000, n_mels=backbone["mel_dim"]),
        dim=backbone["dim"],
        depth=backbone["depth"],
        heads=backbone["heads"],
        head_channels=backbone["dim_head"],
        ff_mult=backbone["ff_mult"],
        text_dim=backbone["text_dim"],
        conv_layers=backbone["conv_layers"],
        **changed,
    )


VARIANTS: dict[str, dict[str, Any]] = {
    "v1": {},
    "v1_attnmask": {},
    "v0": {"text_mask_padding": False, "rotated_heads": 1},
    "v1_avgup": {"average_upsampling": True},
    "v1_qknorm_longskip": {"qk_norm": True, "long_skip": True},
}


@dataclasses.dataclass(frozen=True)
class Reference:
    model: F5TTS
    io: dict[str, Tensor]


def dit(parity_dir: Path, variant: str = "v1") -> Reference:
    folder = parity_dir / "f5_dit"
    io = load_file(folder / "io.safetensors")
    weights = load_file(folder / "weights.safetensors")
    if variant == "v1_qknorm_longskip":
        weights |= {name.removeprefix("extra_weights."): w for name, w in io.items() if name.startswith("extra_")}
    model = F5TTS(config_of(json.loads((folder / "config.json").read_text()), **VARIANTS[variant]))
    model.transformer.load_state_dict(weights, strict=True)
    return Reference(model.eval(), io)


@pytest.fixture(scope="module")
def sample(parity_dir: Path) -> Reference:
    folder = parity_dir / "f5_sample"
    model = F5TTS(config_of(json.loads((folder / "config.json").read_text())["backbone"]))
    model.load_state_dict(load_file(folder / "weights.safetensors"), strict=True)
    return Reference(model.eval(), load_file(folder / "io.safetensors"))


def laid_out(text: Tensor, time: int) -> Tensor:
    """The published ids [B, L], -1 after the last, as our tokens [B, T]."""
    return torch.nn.functional.pad(text + 1, (0, max(0, time - text.shape[1])))[:, :time]


def calls() -> list[tuple[str, str]]:
    found = []
    for variant in ("v1", "v1_attnmask", "v0"):
        drops = [f"audio{a}_text{t}" for a in (0, 1) for t in (0, 1)]
        found += [(variant, f"nomask.{call}") for call in (*drops, "scalar_time", "cfg_infer")]
        found += [(variant, f"mask.{call}") for call in (*drops, "text_longer_than_mel", "cfg_infer")]
    return [*found, ("v1_avgup", "mask.audio0_text0"), ("v1_qknorm_longskip", "mask.audio0_text0")]


@pytest.mark.parametrize(("variant", "call"), calls())
@torch.no_grad()
def test_the_backbone_matches(parity_dir: Path, variant: str, call: str) -> None:
    reference = dit(parity_dir, variant)
    net, io = reference.model.transformer, reference.io
    wanted = io[f"{variant}.{call}"]
    masked, kind = call.split(".")
    frames = published_frames(io["lens"], 48, variant == "v1_attnmask") if masked == "mask" else Frames()
    tokens = laid_out(io["text_long" if kind == "text_longer_than_mel" else "text"], 48)
    t = torch.full((2,), 0.5) if kind == "scalar_time" else io["time"]

    def velocity(hide_prompt: bool, hide_text: bool) -> Tensor:
        text = net.text_embed(tokens, frames, torch.full((2,), hide_text))
        return net(io["x"], t, io["cond"] * (not hide_prompt), text, frames)

    if kind == "cfg_infer":
        made = torch.cat((velocity(False, False), velocity(True, True)))
    else:
        made = velocity("audio1" in kind, "text1" in kind)
    torch.testing.assert_close(made, wanted, **CLOSE)


@torch.no_grad()
def test_the_insides_match(parity_dir: Path) -> None:
    reference = dit(parity_dir)
    net, io = reference.model.transformer, reference.io
    tokens, frames = laid_out(io["text"], 48), published_frames(io["lens"], 48)
    torch.testing.assert_close(sinusoidal_embedding(io["time"], 256), io["mid.time_sinus"], **CLOSE)
    torch.testing.assert_close(net.time_embed(io["time"]), io["mid.time_embed"], **CLOSE)
    cos, sin = RotaryPositions(32)(48)
    torch.testing.assert_close(cos, io["mid.rope_freqs"][0].cos(), **CLOSE)
    torch.testing.assert_close(sin, io["mid.rope_freqs"][0].sin(), **CLOSE)
    text = net.text_embed(tokens, frames)
    torch.testing.assert_close(text, io["mid.text_embed.mask"], **CLOSE)
    hidden = net.text_embed(tokens, frames, torch.ones(2, dtype=torch.bool))
    torch.testing.assert_close(hidden, io["mid.text_embed.mask.drop"], **CLOSE)
    torch.testing.assert_close(net.text_embed(tokens, Frames()), io["mid.text_embed.nomask"], **CLOSE)
    first = dit(parity_dir, "v0").model.transformer
    torch.testing.assert_close(first.text_embed(tokens, Frames()), io["mid.text_embed.nomask.v0"], **CLOSE)
    entered = net.input_embed(io["x"], io["cond"], text, frames.valid)
    torch.testing.assert_close(entered, io["mid.input_embed.mask"], **CLOSE)
    block = net.transformer_blocks[0](entered, net.time_embed(io["time"]), net.rotary_embed(48), frames.valid)
    torch.testing.assert_close(block, io["mid.block0.mask"], **CLOSE)


@torch.no_grad()
def test_a_batch_of_ours_holds_what_the_published_code_makes_of_a_single_item(parity_dir: Path) -> None:
    reference = dit(parity_dir)
    net, io = reference.model.transformer, reference.io
    frames = true_frames(io["lens"], 48)
    text = net.text_embed(laid_out(io["text"], 48), frames)
    made = net(io["x"], io["time"], io["cond"], text, frames)
    torch.testing.assert_close(made[1:, :37], io["single.row1.nomask"], **CLOSE)
    torch.testing.assert_close(made[:1], io["v1.nomask.audio0_text0"][:1], **CLOSE)


@pytest.mark.parametrize("variant", ["v0", "v1_avgup", "v1_qknorm_longskip"])
@torch.no_grad()
def test_every_variant_computes_a_padded_item_as_it_would_alone(parity_dir: Path, variant: str) -> None:
    reference = dit(parity_dir, variant)
    net, io = reference.model.transformer, reference.io
    tokens = laid_out(io["text"], 48)

    def velocity(rows: slice, time: int, frames: Frames) -> Tensor:
        text = net.text_embed(tokens[rows, :time], frames)
        return net(io["x"][rows, :time], io["time"][rows], io["cond"][rows, :time], text, frames)

    together = velocity(slice(0, 2), 48, true_frames(io["lens"], 48))
    for row, length in enumerate(io["lens"].tolist()):
        alone = velocity(slice(row, row + 1), length, Frames())
        torch.testing.assert_close(together[row : row + 1, :length], alone, **CLOSE)


# --- sampling ---------------------------------------------------------------------------------------------------------


RUNS: dict[str, dict[str, Any]] = {
    "a_steps4_sway": {},
    "b_steps7_epss_sway": {"steps": 7},
    "c_steps4_uniform_cfg0": {"guidance": 0.0, "grid": None},
    "d_no_ref_audio": {},
    "e_edit_mask": {},
    "f_midpoint": {"solver": "midpoint"},
    "g_attnmask": {},
    "h_min_duration": {},
    "i_seed42": {},
}


@pytest.mark.parametrize("run", RUNS)
@torch.no_grad()
def test_the_sampler_matches(sample: Reference, run: str) -> None:
    io, settings = sample.io, dataclasses.replace(PUBLISHED, **RUNS[run])
    wanted = io[f"{run}.out"]
    duration = torch.tensor([21, 37]) if run == "h_min_duration" else io["duration"]
    time = wanted.shape[1]
    noise = io[f"{run}.trajectory"][0] if f"{run}.trajectory" in io else io[f"{run}.y0"]
    known = torch.nn.functional.pad(io["cond"], (0, 0, 0, time - 20)) * (run != "d_no_ref_audio")
    given = torch.arange(time)[None] < io["lens"][:, None]
    if run == "e_edit_mask":
        given &= torch.nn.functional.pad(io["edit_mask"], (0, time - 20))
    frames = published_frames(duration, time, run == "g_attnmask")
    made = sample.model.fill_in(laid_out(io["text"], time), known, given, noise, frames, settings)
    torch.testing.assert_close(made, wanted, **CLOSE)


def test_time_grids_are_those_of_its_runs(sample: Reference) -> None:
    from flowtts_core.config import build
    from flowtts_core.flow import TIME_GRIDS

    grid = build(TIME_GRIDS, SWAY)
    for steps, name in ((4, "t_steps4_sway"), (7, "t_steps7_epss_sway")):
        torch.testing.assert_close(grid.times(steps), sample.io[name], atol=1e-6, rtol=0)


def conditions(io: dict[str, Tensor], mel: MelConfig) -> Condition:
    """The batch of the sampler's runs: 5 tokens of a prompt, then the others."""
    text, heard = io["text"] + 1, 5
    lengths = (text > 0).sum(1)
    prompt = Prompt(
        io["cond"] * (torch.arange(20) < io["lens"][:, None]).unsqueeze(2),
        io["lens"],
        text[:, :heard],
        torch.tensor([heard] * 2),
    )
    return Condition(text[:, heard:], lengths - heard, None, prompt)


@dataclasses.dataclass(frozen=True)
class Fixed(ByteRatio):
    """Durations that are given."""

    frames: dict[int, int]  # by the frames of the prompt

    def lay_out(self, item: Condition, speed: float) -> Any:
        from flowtts_core.acoustic.base import Layout

        assert item.prompt is not None
        return Layout(self.frames[int(item.prompt.lengths[0])], None)


@torch.no_grad()
def test_a_request_is_what_the_published_sampler_makes(sample: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the public interface: noise from the seed, prompt and text joined, the prompt cut off again."""
    model, io = sample.model, sample.io
    monkeypatch.setattr(model, "durations", Fixed(frames={20: 28, 14: 23}))
    condition = conditions(io, model.features)
    draft = model.draft(condition.item(0), 42, 1.0)
    assert torch.equal(draft.noise, io["i_seed42.y0"][0])
    # the published code makes an item alone as j_single_row1, from its own noise
    draft = dataclasses.replace(model.draft(condition.item(1), 0, 1.0), noise=io["y0"][1, :37])
    [alone] = model.decode([draft], PUBLISHED)
    torch.testing.assert_close(alone, io["j_single_row1.out"][0], **CLOSE)
    first = dataclasses.replace(model.draft(condition.item(0), 0, 1.0), noise=io["y0"][0])
    torch.testing.assert_close(model.decode([draft, first], PUBLISHED, together=True)[0], alone, **CLOSE)
    made = model.generate(condition, [1, 2], PUBLISHED)
    assert made.lengths.tolist() == [28, 23]


def test_a_batch_that_is_padded_holds_its_singles(sample: Reference) -> None:
    """As a GPU computes it."""
    model, condition = sample.model, conditions(sample.io, sample.model.features)
    drafts = [model.draft(condition.item(row), seed, 1.0) for seed in (1, 2) for row in (0, 1)]
    assert len({draft.frames for draft in drafts}) > 1
    together = model.decode(drafts, PUBLISHED, together=True)
    for draft, mel in zip(drafts, together, strict=True):
        torch.testing.assert_close(mel, model.decode([draft], PUBLISHED)[0], **CLOSE)


def test_bfloat16_products_stay_close(sample: Reference) -> None:
    model, condition = sample.model, conditions(sample.io, sample.model.features)
    rough = F5TTS(dataclasses.replace(model.config, precision="bf16")).eval()
    rough.load_state_dict(model.state_dict())
    exact, close = (own.generate(condition, [1, 2], PUBLISHED).features for own in (model, rough))
    assert close.dtype == torch.float32 and not torch.equal(exact, close)
    assert float((close - exact).abs().mean()) < 0.02 * float(exact.std())
    assert torch.equal(close, rough.generate(condition, [1, 2], PUBLISHED).features)


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["none", "audio", "both"])
def test_loss_and_gradients_match(sample: Reference, case: str) -> None:
    model, io = sample.model, sample.io
    hide_prompt, hide_text = (flag.repeat(2) for flag in io[f"train.{case}.drop_audio_text"].reshape(2, 1))
    mel, lengths = io["train.mel"], io["train.lens"]
    draws = Draws(
        io["train.time"], io["train.x0"], io["train.frac_lengths"], io["train.rand_start"], hide_prompt, hide_text
    )
    assert torch.equal(piece_of(lengths, 48, draws.share, draws.place), io["train.span_mask"])
    tokens = laid_out(io["train.text"], 48)
    errors, count = model.flow_errors(tokens, mel, lengths, draws, published_frames(lengths, 48))
    loss = errors / count
    torch.testing.assert_close(loss, io[f"train.{case}.loss"], **CLOSE)
    model.zero_grad()
    loss.backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    torch.testing.assert_close(norm, io[f"train.{case}.grad_norm"], **CLOSE)


@torch.no_grad()
def test_each_item_of_a_batch_has_its_own_guidance_and_a_student_begins_as_its_teacher() -> None:
    torch.manual_seed(0)
    model = F5TTS(F5Config.debug()).eval()
    for parameter in model.parameters():  # nothing may hide behind a zero initialisation
        parameter.add_(0.1 * torch.randn_like(parameter))
    student = F5TTS(dataclasses.replace(model.config, embeds_guidance=True)).eval()
    begin_as(student, model)
    lengths, bands = torch.tensor([24, 17]), model.features.rows
    batch = AcousticBatch(
        Condition(torch.randint(1, 24, (2, 6)), torch.tensor([6, 4])), torch.randn(2, bands, 24), lengths
    )
    flow, t = model.flow_batch(batch, torch.Generator().manual_seed(1)), torch.tensor([0.2, 0.7])
    plain = model.velocity(flow.x_0, t, flow.condition)
    guided = model.velocity(flow.x_0, t, flow.condition, torch.tensor([2.0, 0.0]))
    more = model.velocity(flow.x_0, t, flow.condition, torch.tensor([4.0, 0.0]))
    torch.testing.assert_close(guided[1], plain[1], **CLOSE)
    torch.testing.assert_close(more[0] - plain[0], 2 * (guided[0] - plain[0]), **CLOSE)
    assert not torch.allclose(guided[0], plain[0])
    told = student.velocity(flow.x_0, t, flow.condition, torch.tensor([2.0, 0.0]))
    torch.testing.assert_close(told, plain, **CLOSE)


# --- sizes and durations ----------------------------------------------------------------------------------------------


def parameters(config: F5Config) -> float:
    with torch.device("meta"):
        model = F5TTS(config)
    return sum(p.numel() for p in model.parameters()) / 1e6


def test_published_sizes() -> None:
    assert round(parameters(F5Config.published())) == 337
    assert round(parameters(F5Config.published_small())) == 159
    assert F5Config.published().first_generation().rotated_heads == 1


def spoken(config: F5Config, prompt: int, text: int, speed: float = 1.0, frames: int = 101) -> int:
    mel = torch.zeros(1, frames, config.mel.rows)
    said, wanted = (torch.ones(1, count, dtype=torch.int64) for count in (prompt, text))
    condition = Condition(
        wanted, torch.tensor([text]), None, Prompt(mel, torch.tensor([frames]), said, torch.tensor([prompt]))
    )
    return ByteRatio(config).lay_out(condition, speed).frames


def test_durations_by_bytes_are_the_published_ones() -> None:
    config = dataclasses.replace(F5Config.debug(), mel=F5_24K)
    assert spoken(config, 17, 40) == int(100 / 17 * 40)  # 101 centred frames are 100 hops
    assert spoken(config, 17, 40, speed=1.3) == int(100 / 17 * 40 / 1.3)
    assert spoken(config, 17, 9) == int(100 / 17 * 9 / 0.3) and spoken(config, 17, 10) == int(100 / 17 * 10)
    two = dataclasses.replace(config, token_bytes=(2,) * 24)
    assert spoken(two, 17, 6) == int(100 / 34 * 12)
    assert spoken(dataclasses.replace(config, mel=MelConfig()), 17, 40) == int(101 / 17 * 40)


def test_a_prompt_that_does_not_fit_its_text_is_refused() -> None:
    model = F5TTS(F5Config.debug()).eval()
    mel = torch.zeros(1, 2000, model.features.rows)
    short = Prompt(mel, torch.tensor([2000]), torch.ones(1, 1, dtype=torch.int64), torch.tensor([1]))
    condition = Condition(torch.ones(1, 30, dtype=torch.int64), torch.tensor([30]), None, short)
    with pytest.raises(FlowTTSError, match="8192 are the most"):
        model.generate(condition, [0], PUBLISHED)


def test_texts_are_joined_by_what_stands_between_texts() -> None:
    config = dataclasses.replace(F5Config.debug(), between=(1,))
    model = F5TTS(config).eval()

    def tokens(said: list[int], text: list[int]) -> list[int]:
        features = torch.zeros(1, 20, config.mel.rows)
        prompt = Prompt(features, torch.tensor([20]), torch.tensor([said]), torch.tensor([len(said)]))
        item = Condition(torch.tensor([text]), torch.tensor([len(text)]), None, prompt)
        return [token for token in model.draft(item, 0, 1.0).tokens.tolist() if token]

    assert tokens([5, 6], [7]) == [5, 6, 1, 7]
    assert tokens([5, 6, 1], [7]) == [5, 6, 1, 7]
    assert tokens([5, 6], [1, 7]) == [5, 6, 1, 7]


def test_blanks_of_a_front_end_are_left_out_since_0_is_where_no_text_is() -> None:
    condition = Condition(torch.tensor([[0, 5, 0, 6, 0], [0, 7, 0, 9, 9]]), torch.tensor([5, 3]))
    kept = without_fillers(condition)
    assert kept.tokens.tolist() == [[5, 6], [7, 0]] and kept.token_lengths.tolist() == [2, 1]


def test_learnt_durations_follow_texts_and_the_pace_of_a_prompt() -> None:
    """Tokens of 3 and of 9 frames are learnt apart, from whole utterances; and a slow prompt gives a slow text."""
    torch.manual_seed(0)
    config = dataclasses.replace(F5Config.debug(), durations="learnt")
    model = F5TTS(config)
    optimizer = torch.optim.Adam(model.lengths.parameters(), 5e-3)
    generator = torch.Generator().manual_seed(0)
    each = torch.where(torch.arange(config.n_symbols) < 12, 3.0, 9.0)
    for _ in range(300):
        tokens = torch.randint(1, config.n_symbols, (16, 20), generator=generator)
        lengths = torch.randint(5, 21, (16,), generator=generator)
        frames = (each[tokens] * (torch.arange(20) < lengths[:, None])).sum(1)
        loss = (model.lengths(tokens, lengths).log() - frames.log()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def frames_of(token: int, prompt: int | None = None) -> int:
        given = None
        if prompt is not None:
            said = torch.full((1, 10), 3)
            given = Prompt(torch.zeros(1, prompt, config.mel.rows), torch.tensor([prompt]), said, torch.tensor([10]))
        item = Condition(torch.full((1, 10), token), torch.tensor([10]), None, given)
        return model.durations.lay_out(item, 1.0).frames

    assert frames_of(3) == pytest.approx(30, rel=0.15) and frames_of(20) == pytest.approx(90, rel=0.15)
    assert frames_of(20, 60) == pytest.approx(60 / frames_of(3) * frames_of(20), rel=0.02)
    assert frames_of(20, 6000) == pytest.approx(3 * frames_of(20), rel=0.02)  # which no speaker is as slow as


def synthetic(generator: torch.Generator, count: int = 8) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tokens [B, 12], their durations, mels [B, T, M] and lengths: a token has a spectrum and lasts 4 or 8 frames, or twice."""
    spectra = 2 * torch.randn(24, 80, generator=torch.Generator().manual_seed(9))
    tokens = torch.randint(2, 24, (count, 12), generator=generator)
    tokens[:, 1:] += (tokens[:, 1:] == tokens[:, :-1]).long() * (1 - 2 * (tokens[:, 1:] == 23).long())
    pace = torch.tensor([1, 2])[torch.randint(0, 2, (count, 1), generator=generator)]
    durations = torch.where(tokens < 12, 4, 8) * pace
    mels = [spectra[row.repeat_interleave(each)] for row, each in zip(tokens, durations, strict=True)]
    mel = torch.nn.utils.rnn.pad_sequence(mels, batch_first=True)
    return tokens, durations, mel + 0.3 * torch.randn(mel.shape, generator=generator), durations.sum(1)


def test_tokens_are_found_in_recordings_and_last_longer_after_a_slow_prompt() -> None:
    torch.manual_seed(0)
    model = F5TTS(dataclasses.replace(F5Config.debug(), durations="aligned"))
    aligner, generator, counts = model.aligner, torch.Generator().manual_seed(0), torch.full((8,), 12)
    optimizer = torch.optim.Adam(aligner.parameters(), 1e-2)
    doubt = aligner.doubt.item()
    for _ in range(120):
        tokens, _, mel, lengths = synthetic(generator)
        found = aligner.align(mel * (torch.arange(mel.shape[1]) < lengths[:, None])[..., None], lengths, tokens, counts)
        errors, told = aligner.duration_errors(found, torch.arange(mel.shape[1]) >= lengths[:, None] // 3)
        loss = errors / told + found.prior[0] / found.prior[1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert aligner.doubt.item() != doubt
    tokens, durations, mel, lengths = synthetic(generator, 16)
    found = aligner.align(mel, lengths, tokens, torch.full((16,), 12))
    assert (found.durations == durations).float().mean() > 0.9
    model.eval()
    fast = torch.where(tokens < 12, 4, 8)
    slower = []
    for row, text in enumerate(tokens[:, 6:]):
        said, sizes = tokens[row, :6], fast[row, :6]
        spectra = mel[row, (durations[row].cumsum(0) - durations[row])[:6]]  # of the first frame of each token
        item = Condition(text[None], torch.tensor([6]))
        made = []
        for times in (1, 2):
            features = spectra.repeat_interleave(sizes * times, 0)[None]
            prompt = Prompt(features, torch.tensor([features.shape[1]]), said[None], torch.tensor([6]))
            layout = model.durations.lay_out(dataclasses.replace(item, prompt=prompt), 1.0)
            assert layout.durations is not None and layout.durations.sum() == layout.frames
            made.append(layout.frames)
        slower.append(made[1] / made[0])
    assert 1.4 < sum(slower) / len(slower) < 2.6


def test_silence_at_the_ends_belongs_to_what_stands_between_texts() -> None:
    tokens, lengths = with_edges(torch.tensor([[5, 6, 7], [8, 0, 0]]), torch.tensor([3, 1]), (1,))
    assert tokens.tolist() == [[1, 5, 6, 7, 1], [1, 8, 1, 0, 0]] and lengths.tolist() == [5, 3]
    model = F5TTS(dataclasses.replace(F5Config.debug(), durations="aligned", between=(1,))).eval()
    item = Condition(torch.tensor([[0, 5, 0, 6, 0]]), torch.tensor([5]))
    layout = model.durations.lay_out(item, 1.0)
    assert layout.durations is not None and layout.durations[2] == 0
    assert (layout.durations[[0, 1, 3, 4]] > 0).all() and layout.durations.sum() == layout.frames
    with torch.no_grad():
        model.aligner.lasting.out.bias.fill_(9.0)
    with pytest.raises(FlowTTSError, match="8192 are the most"):
        model.generate(item, [0], PUBLISHED)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dim": 40}, "multiple of 16"),
        ({"heads": 0}, "F5Config.heads"),
        ({"durations": "guess"}, "bytes, learnt, aligned"),
        ({"durations": "aligned", "average_upsampling": True}, "spread once"),
        ({"precision": "int3"}, "fp32, bf16"),
        ({"average_upsampling": True, "text_mask_padding": False}, "average_upsampling"),
        ({"token_bytes": (1,)}, "1 numbers for 24"),
        ({"between": (24,)}, "below 24"),
        ({"mask": (0.9, 0.7)}, "least and a greatest"),
        ({"rotated_heads": 9}, "rotated_heads"),
    ],
)
def test_impossible_settings_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(F5Config.debug(), **fields)
