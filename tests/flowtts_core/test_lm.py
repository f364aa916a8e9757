"""Language models of codes: patterns, samplers, the transformer with its cache, and MusicGen's language model."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from flowtts_core.errors import ConfigError, VoiceError
from flowtts_core.lm import (
    Transformer,
    TransformerConfig,
    build_pattern,
    build_sampler,
    generate,
    group,
    stream,
    ungroup,
)
from flowtts_core.lm.musicgen.importer import import_musicgen
from flowtts_core.lm.musicgen.net import MusicGenConfig, MusicGenLM
from flowtts_core.lm.patterns import DelayPattern, FlattenedPattern, ParallelPattern
from flowtts_core.lm.sampling import TopSampler, candidates

GREEDY = TopSampler(temperature=0)
PUBLISHED_PATTERNS = {
    "delay_nq4_T6": DelayPattern(),
    "delay_nq4_T6_delays_0_2_2_5": DelayPattern((0, 2, 2, 5)),
    "delay_nq4_T6_empty_initial1": DelayPattern(empty=1),
    "parallel_nq4_T6": ParallelPattern(4),
    "delay_nq4_T2": DelayPattern(),
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def transformers() -> Any:
    import flowtts_core.audio.torchaudio_import  # noqa: F401  # transformers imports torchaudio, which needs this first

    return pytest.importorskip("transformers")


class TestPatterns:
    @pytest.mark.parametrize("name", PUBLISHED_PATTERNS)
    def test_equal_the_published(self, parity_dir: Path, name: str) -> None:
        known = json.loads((parity_dir / "codebook_patterns" / "patterns.json").read_text())[name]
        pattern, codes = PUBLISHED_PATTERNS[name], torch.tensor(known["codes"])[None]
        sequence = pattern.arrange(codes, 0)
        assert sequence[0].tolist() == known["sequence_special0"]
        assert pattern.holds_code(known["timesteps"]).int().tolist() == known["mask"]
        assert sequence[0, :, : known["valid_steps"]].tolist() == known["sequence_valid_only"]
        assert pattern.restore(sequence, known["timesteps"])[0].tolist() == known["reverted"]

    @pytest.mark.parametrize("pattern", [DelayPattern((0, 1, 3)), FlattenedPattern(3), ParallelPattern(3)])
    def test_give_back_what_they_took(self, pattern: Any) -> None:
        codes = torch.randint(9, (2, 3, 5), generator=generator())
        sequence = pattern.arrange(codes, 9)
        assert torch.equal(pattern.restore(sequence, 5), codes)
        assert (sequence[:, :, 0] == 9).all(), "the model starts where there is no code"
        assert int((sequence != 9).sum()) == codes.numel()

    def test_flattened_has_one_code_a_step_frame_by_frame(self) -> None:
        sequence = FlattenedPattern(2).arrange(torch.tensor([[[1, 2], [3, 4]]]), 0)
        assert sequence[0].tolist() == [[0, 1, 0, 2, 0], [0, 0, 3, 0, 4]]

    def test_groups_are_of_neighbours_and_the_last_is_filled_up(self) -> None:
        codes = torch.tensor([[1, 2, 3, 4, 5]])
        grouped = group(codes, 2, 9)
        assert grouped.tolist() == [[[1, 3, 5], [2, 4, 9]]]
        assert torch.equal(ungroup(grouped, 5), codes)

    def test_what_no_pattern_can_be_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="delays"):
            build_pattern({"name": "delay", "delays": [1, 0]})
        with pytest.raises(ConfigError, match="unknown name"):
            build_pattern({"name": "spiral"})


class TestSamplers:
    def test_cosyvoice_equals_the_published(self, parity_dir: Path) -> None:
        folder = parity_dir / "ras_sampling"
        logits = load_file(folder / "io.safetensors")
        cases = json.loads((folder / "config.json").read_text())["cases"]
        assert len(cases) == 24
        for case in cases:
            scores = logits[f"logits.{case['index']}"]
            sampler = build_sampler(
                {
                    "name": "cosyvoice",
                    "top_p": case["top_p"],
                    "top_k": case["top_k"],
                    "window": case["win_size"],
                    "threshold": case["tau_r"],
                }
            )
            codes, _ = candidates(scores.softmax(0), case["top_k"], case["top_p"])
            assert codes.tolist() == case["nucleus_candidates"]
            assert sampler.draw(scores, case["history"], generator(case["seed"])) == case["choice"]

    def test_top_p_takes_the_one_that_passes_it_and_never_none(self) -> None:
        probabilities = torch.tensor([0.5, 0.3, 0.2])
        assert candidates(probabilities, 0, 0.5)[0].tolist() == [0]
        assert candidates(probabilities, 0, 0.6)[0].tolist() == [0, 1]
        assert candidates(probabilities, 0, 0.01)[0].tolist() == [0]
        assert candidates(probabilities, 1, 1.0)[0].tolist() == [0]

    def test_draws_follow_the_probabilities(self) -> None:
        logits, draws = torch.tensor([0.5, 0.3, 0.2]).log(), generator(1)
        counts = Counter(TopSampler().draw(logits, [], draws) for _ in range(4000))
        for code, share in enumerate((0.5, 0.3, 0.2)):
            assert counts[code] / 4000 == pytest.approx(share, abs=4 * math.sqrt(share / 4000))

    def test_repetition_awareness_draws_anew_only_what_repeats(self) -> None:
        """Among all codes: one that the nucleus leaves out can come."""
        logits = torch.tensor([0.9, 0.05, 0.05]).log()
        sampler = build_sampler({"name": "repetition_aware", "top_p": 0.5, "window": 10, "threshold": 0.1})
        once, often = [1] * 9 + [0], [1] * 8 + [0, 0]
        assert {sampler.draw(logits, once, generator(seed)) for seed in range(200)} == {0}
        assert {sampler.draw(logits, often, generator(seed)) for seed in range(200)} == {0, 1, 2}

    @pytest.mark.parametrize(("strength", "expected"), [(0.0, 0), (0.5, 0), (1.0, 1), (2.0, 1), (math.inf, 2)])
    def test_the_penalty_grows_with_the_count(self, strength: float, expected: int) -> None:
        """Code 0 came three times, 1 once: 2.4 - 3 s against 0.5 - s against -9."""
        sampler = build_sampler({"name": "penalty", "strength": strength, "temperature": 0})
        assert sampler.draw(torch.tensor([2.4, 0.5, -9.0]), [0, 0, 1, 0], generator()) == expected

    def test_where_every_code_is_forbidden_the_scores_decide(self) -> None:
        sampler = build_sampler({"name": "penalty", "strength": math.inf, "temperature": 0})
        assert sampler.draw(torch.tensor([0.0, 1.0]), [0, 1], generator()) == 1
        cosy = build_sampler({"name": "cosyvoice"})
        assert cosy.draw(torch.tensor([0.0, -math.inf]), [0] * 10, generator()) == 0

    def test_values_out_of_range_are_refused(self) -> None:
        for wrong in ({"top_p": 0.0}, {"temperature": -1.0}, {"top_k": -1}, {"temperature": math.nan}):
            with pytest.raises(ConfigError, match="TopSampler"):
                build_sampler({"name": "top", **wrong})


SMALL = TransformerConfig(width=16, layers=2, heads=4, key_value_heads=2, inner=24)
FORMS = {
    "rotary": SMALL,
    "sinusoidal": TransformerConfig(
        width=16,
        layers=2,
        heads=4,
        key_value_heads=4,
        inner=24,
        positions="sinusoidal",
        norm="layer",
        feed_forward="gelu",
        cross=True,
    ),
}


def seeded(config: TransformerConfig) -> Transformer:
    torch.manual_seed(3)
    model = Transformer(config).eval()
    for parameter in model.parameters():  # larger than at the start, so that attention is not uniform
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize("form", FORMS)
class TestTransformer:
    def features(self, form: str, time: int = 9, batch: int = 1) -> tuple[Transformer, Tensor, Any]:
        model = seeded(FORMS[form])
        x = torch.randn(batch, time, 16, generator=generator(batch))
        condition = None
        if FORMS[form].cross:
            condition = model.attended(torch.randn(batch, 5, 16, generator=generator(7)))
        return model, x, condition

    def test_sees_nothing_later(self, form: str) -> None:
        model, x, condition = self.features(form)
        changed = x.clone()
        changed[:, 6:] = torch.randn(1, 3, 16, generator=generator(8))
        before, after = model(x, condition=condition), model(changed, condition=condition)
        assert torch.allclose(before[:, :6], after[:, :6], atol=1e-6)
        assert not torch.allclose(before[:, 6:], after[:, 6:], atol=1e-2)

    @pytest.mark.parametrize("pieces", [[1] * 9, [4, 5], [3, 1, 1, 4]])
    def test_in_pieces_equals_whole(self, form: str, pieces: list[int]) -> None:
        model, x, condition = self.features(form)
        cache = model.new_cache(1)
        parts = [model(piece, condition=condition, cache=cache) for piece in x.split(pieces, 1)]
        assert torch.allclose(torch.cat(parts, 1), model(x, condition=condition), atol=1e-5)

    def test_a_batch_of_unequal_lengths_equals_singles(self, form: str) -> None:
        """Prefixes of 3, 6 and 9 positions, padded, then two more steps of each."""
        model, x, _ = self.features(form, 9, 3)
        more, lengths = torch.randn(3, 2, 16, generator=generator(5)), torch.tensor([3, 6, 9])
        text = torch.randn(3, 5, 16, generator=generator(6))
        heard = torch.tensor([2, 5, 4])
        cross = FORMS[form].cross
        cache = model.new_cache(3)
        condition = model.attended(text, heard) if cross else None
        model(x, lengths, condition, cache)
        together = torch.cat([model(step, None, condition, cache) for step in more.split(1, 1)], 1)
        for row, length in enumerate(lengths.tolist()):
            own = model.attended(text[row : row + 1, : heard[row]]) if cross else None
            alone = model(torch.cat((x[row, :length], more[row]))[None], condition=own)[0, -2:]
            assert torch.allclose(together[row], alone, atol=1e-5)


def test_equals_llama_of_transformers() -> None:
    """Rotary positions, RMS norm, SwiGLU, shared keys and values."""
    library = transformers()
    config = library.LlamaConfig(
        vocab_size=11,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        rms_norm_eps=1e-5,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    theirs = library.LlamaModel(config).eval()
    names = {
        "self_attn.q_proj": "attention.to_q",
        "self_attn.k_proj": "attention.to_k",
        "self_attn.v_proj": "attention.to_v",
        "self_attn.o_proj": "attention.to_out",
        "mlp.gate_proj": "feed_forward.gate",
        "mlp.up_proj": "feed_forward.up",
        "mlp.down_proj": "feed_forward.down",
        "input_layernorm": "norm",
        "post_attention_layernorm": "feed_norm",
    }
    weights = {}
    for name, tensor in theirs.state_dict().items():
        if name.startswith("layers."):
            _, layer, rest = name.split(".", 2)
            part = rest.removesuffix(".weight")
            weights[f"blocks.{layer}.{names[part]}.weight"] = tensor
    ours = Transformer(SMALL).eval()
    ours.load_state_dict(weights | {"norm.weight": theirs.state_dict()["norm.weight"]})
    x = torch.randn(2, 7, 16, generator=generator(4))
    assert torch.allclose(ours(x), theirs(inputs_embeds=x).last_hidden_state, atol=1e-5)


def test_sizes_that_do_not_go_together_are_refused() -> None:
    for wrong in ({"heads": 3}, {"key_value_heads": 3}, {"positions": "none"}, {"width": 12, "heads": 4}):
        with pytest.raises(ConfigError):
            TransformerConfig(**{"width": 16, "heads": 4, "key_value_heads": 4, **wrong})


@pytest.fixture(scope="module")
def published(parity_dir: Path) -> tuple[MusicGenLM, dict[str, Tensor]]:
    folder = parity_dir / "musicgen_lm"
    return import_musicgen(folder / "weights.safetensors", heads=4), load_file(folder / "io.safetensors")


class TestMusicGen:
    def test_logits_equal_the_published(self, published: tuple[MusicGenLM, dict[str, Tensor]]) -> None:
        model, known = published
        condition = model.condition_of(known["text.hidden"], known["text.mask"].sum(1))
        assert torch.allclose(model.logits(known["sequence"], condition), known["logits"], atol=1e-4)
        null = model.unconditional(2, 7)
        assert torch.allclose(model.logits(known["sequence"], null), known["logits_null"], atol=1e-4)
        cache = model.new_cache(2)
        steps = [model.logits(step, condition, cache) for step in known["sequence"].split(1, 2)]
        assert torch.allclose(torch.cat(steps, 2), known["logits_streamed"], atol=1e-4)

    def test_what_it_predicts_of_given_codes_equals_the_published(
        self, published: tuple[MusicGenLM, dict[str, Tensor]]
    ) -> None:
        model, known = published
        pattern, codes = model.config.pattern, known["codes"]
        sequence = pattern.arrange(codes, 32)[:, :, : codes.shape[2] + 1]
        assert torch.equal(sequence, known["pred.sequence"])
        condition = model.condition_of(known["text.hidden"], known["text.mask"].sum(1))
        scores = model.logits(sequence, condition)
        # a step's scores are of the step after it; those beyond the sequence are not predicted
        later = torch.nn.functional.pad(scores, (0, 0, 1, pattern.length(9) - 10))
        predicted = pattern.restore(later, 9)
        inside = pattern.steps_of(9) <= 9
        assert torch.equal(inside.expand(2, -1, -1), known["pred.mask"])
        assert torch.allclose(predicted[:, inside], known["pred.logits"][:, inside], atol=1e-4)

    @pytest.mark.parametrize(("name", "guidance"), [("gen_cfg1", 1.0), ("gen_cfg3", 3.0), ("gen_prompt", 3.0)])
    def test_greedy_codes_equal_the_published(
        self, published: tuple[MusicGenLM, dict[str, Tensor]], name: str, guidance: float
    ) -> None:
        model, known = published
        made = generate(
            model,
            model.config.pattern,
            8,
            [0, 1],
            GREEDY,
            condition=model.condition_of(known["text.hidden"], known["text.mask"].sum(1)),
            unconditional=model.unconditional(2, 7),
            guidance=guidance,
            prompt=known["codes"][:, :, :3] if name == "gen_prompt" else None,
        )
        assert torch.equal(made, known[f"{name}.codes"])

    def test_frames_are_streamed_as_they_are_finished(self, published: tuple[MusicGenLM, dict[str, Tensor]]) -> None:
        model, known = published
        condition = model.condition_of(known["text.hidden"], known["text.mask"].sum(1))
        sampler = TopSampler(top_k=5)
        given = {"condition": condition, "prompt": None}
        parts = list(stream(model, model.config.pattern, 6, [4, 5], sampler, **given))
        assert [part.shape[2] for part in parts] == [1, 2, 3, 4, 5, 6]
        for earlier, later in zip(parts, parts[1:], strict=False):
            assert torch.equal(later[:, :, : earlier.shape[2]], earlier)

    def test_an_items_codes_are_its_seeds_alone(self, published: tuple[MusicGenLM, dict[str, Tensor]]) -> None:
        model, known = published
        sampler, pattern = TopSampler(top_k=8), model.config.pattern
        text = known["text.hidden"][:1].expand(3, -1, -1)
        together = generate(
            model, pattern, 6, [7, 8, 7], sampler, condition=model.condition_of(text, torch.tensor([7, 7, 7]))
        )
        alone = generate(model, pattern, 6, [8], sampler, condition=model.condition_of(text[:1], torch.tensor([7])))
        assert torch.equal(together[1:2], alone)
        assert torch.equal(together[0], together[2])
        assert not torch.equal(together[0], together[1])

    def test_the_names_of_transformers_load_too(self, tmp_path: Path) -> None:
        library = transformers()
        config = library.MusicgenDecoderConfig(
            vocab_size=12, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, ffn_dim=32, num_codebooks=2
        )
        torch.manual_seed(0)
        theirs = library.MusicgenForCausalLM(config).eval()
        for parameter in theirs.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        weights = {name: tensor.contiguous() for name, tensor in theirs.state_dict().items()}
        weights |= {"enc_to_dec_proj.weight": torch.randn(16, 5), "enc_to_dec_proj.bias": torch.randn(16)}
        save_file(weights, tmp_path / "model.safetensors")
        ours = import_musicgen(tmp_path / "model.safetensors", heads=4)
        codes, text = torch.randint(12, (1, 2, 6)), torch.randn(1, 3, 5)
        seen = theirs(
            input_ids=codes.reshape(2, 6), encoder_hidden_states=ours.text_projection(text), use_cache=False
        ).logits
        made = ours.logits(codes, ours.condition_of(text, torch.tensor([3])))
        assert torch.allclose(made[0], seen.reshape(2, 6, 12), atol=1e-4)

    def test_a_file_without_its_tensors_is_refused(self, parity_dir: Path, tmp_path: Path) -> None:
        weights = load_file(parity_dir / "musicgen_lm" / "weights.safetensors")
        bad = dict(weights)
        del bad["out_norm.weight"]
        save_file(bad, tmp_path / "bad.safetensors")
        with pytest.raises(VoiceError, match="missing 1"):
            import_musicgen(tmp_path / "bad.safetensors", heads=4)
        save_file({"other": torch.zeros(2)}, tmp_path / "other.safetensors")
        with pytest.raises(VoiceError, match="no MusicGen"):
            import_musicgen(tmp_path / "other.safetensors")

    @pytest.mark.parametrize(("size", "millions"), [("small", 420), ("large", 3257)])
    def test_published_sizes(self, size: str, millions: int) -> None:
        """The card of "large" says 3.3 billion; transformers' file of the small one's language model has 420 million."""
        with torch.device("meta"):
            model = MusicGenLM(MusicGenConfig.published(size))
        assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)

    def test_what_cannot_be_generated_is_refused(self) -> None:
        model = MusicGenLM(MusicGenConfig.debug())
        for frames, prompt in ((0, None), (2, torch.zeros(1, 2, 2, dtype=torch.int64))):
            with pytest.raises(ConfigError, match="frames"):
                generate(model, model.config.pattern, frames, [0], GREEDY, prompt=prompt)
        with pytest.raises(ConfigError, match="codebooks"):
            generate(model, ParallelPattern(3), 4, [0], GREEDY)
