"""Factorised codes: what training presses into them and out of them, and what conversion makes of them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from flowtts_core.audio.reference import clean_reference
from flowtts_core.codec import Encoded, FactorisedCodec, FactorisedCodecConfig
from flowtts_core.codec.codebook import Codebook
from flowtts_core.codec.convert import (
    Converter,
    Manner,
    content_distances,
    manner_of,
    moved_prosody,
    syllables_per_second,
)
from flowtts_core.codec.factorised import F0_SCALE, SPEAKER, without_detail
from flowtts_core.codec.warp import warp
from flowtts_core.errors import AudioError, ConfigError
from flowtts_core.nn.reversal import reversed_gradient
from flowtts_core.training.factors import UNKNOWN, FactorBatch, FactorConfig, FactorHeads
from tests.speech_like import babble, babble_clip

RATE = 24000


@pytest.fixture(scope="module")
def codec() -> FactorisedCodec:
    """A small codec, whose codebooks began at what it hears of babble."""
    torch.manual_seed(0)
    sizes = {"encoder_dim": 24, "encoder_intermediate": 32, "encoder_layers": 1, "prosody_dim": 8, "prosody_layers": 1}
    sizes |= {"decoder_dim": 16, "decoder_intermediate": 32, "decoder_layers": 1, "bins": 64, "speaker_dim": 8}
    made = FactorisedCodec(FactorisedCodecConfig(**sizes)).train()
    sounds = np.stack([babble(1.2, pitch, RATE, seed)[: 320 * 90] for seed, pitch in enumerate((90.0, 220.0))])
    with torch.no_grad():
        made.trained(torch.from_numpy(sounds))
    for module in made.modules():
        if isinstance(module, Codebook):
            assert bool(module.inited)
    made.contour_out.weight.data.mul_(20)  # as wide as a trained codec's
    return made.eval()


def coded(codec: FactorisedCodec, seed: int = 0, seconds: float = 1.2, pitch: float = 120.0) -> Encoded:
    with torch.inference_mode():
        return codec.encode(torch.from_numpy(babble(seconds, pitch, RATE, seed))[None])


def test_a_gradient_is_reversed() -> None:
    x = torch.tensor([2.0, 3.0], requires_grad=True)
    y = reversed_gradient(x, 0.5)
    assert torch.equal(y, x)
    (y * torch.tensor([1.0, 4.0])).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [-0.5, -2.0]


def test_reversal_grows_from_a_tenth_to_one() -> None:
    how = FactorConfig()
    assert [how.reversal(step, 100) for step in (0, 25, 50, 99)] == pytest.approx([0.1, 0.55, 1.0, 1.0])
    with pytest.raises(ConfigError, match="do not fall"):
        FactorConfig(first_reversal=1.0, last_reversal=0.1)


def test_content_learns_phones_and_prosody_unlearns_them(codec: FactorisedCodec) -> None:
    """A step along the codec's gradient makes phones easier to read from content, and harder from prosody."""
    torch.manual_seed(1)
    heads = FactorHeads(codec.config.encoder_dim, codec.config.speaker_dim, 3)
    waveform = torch.from_numpy(babble(1.2, 120.0, RATE)[: 320 * 40])[None]
    made = codec.factored(waveform)
    phones = torch.randint(1, 20, (1, 40), generator=torch.Generator().manual_seed(0))
    batch = FactorBatch(waveform, waveform, None, phones, torch.tensor([1]), torch.zeros(1, 40))
    values = {name: own.detach().requires_grad_() for name, own in made.values.items()}
    losses, told = heads.losses(replace(made, values=values), batch, FactorConfig(), 0.5)
    for loss, name, sign in (
        ("phones", "content", 1),
        ("prosody_phones", "prosody", -1),
        ("content_f0", "content", -1),
    ):
        [gradient] = torch.autograd.grad(losses[loss], values[name], retain_graph=True)
        moved = {**values, name: values[name] - 1e-2 * gradient / gradient.norm()}
        after, _ = heads.losses(replace(made, values=moved), batch, FactorConfig(), 0.5)
        assert sign * float((losses[loss] - after[loss]).detach()) > 0, loss
    assert 0 <= float(told["phones_right"]) <= 1
    unknown = replace(batch, phones=torch.full((1, 40), UNKNOWN))
    assert float(heads.losses(made, unknown, FactorConfig(), 0.5)[0]["phones"]) == 0, (
        "what is not known counts for nothing"
    )


def test_another_timbre_changes_the_sound_and_no_code(codec: FactorisedCodec) -> None:
    here, there = coded(codec, 0, pitch=90.0), coded(codec, 1, pitch=240.0)
    own = without_detail(codec, here)
    assert own.codes.shape[1] == 3 and here.codes.shape[1] == 6
    swapped = replace(own, side=there.side)
    with torch.inference_mode():
        sounds = codec.decode(own), codec.decode(swapped)
    assert not torch.allclose(*sounds, atol=1e-4) and torch.equal(own.codes, swapped.codes)
    with pytest.raises(AudioError, match="timbre"):
        codec.decode(replace(own, side={}))


def test_a_warp_finds_frames_that_were_repeated() -> None:
    rng = np.random.default_rng(0)
    sound, taken = rng.standard_normal((30, 8)), np.sort(rng.integers(0, 30, 50))
    taken[[0, -1]] = 0, 29
    other = sound[taken] + 0.01 * rng.standard_normal((50, 8))
    way, mean = warp(np.linalg.norm(other[:, None] - sound[None], axis=2))
    assert np.array_equal(np.flatnonzero(way != taken), []) or np.abs(way - taken).max() <= 1
    assert (way == taken).mean() > 0.9 and mean < 1.0
    assert np.array_equal(warp(1 - np.eye(5))[0], np.arange(5)) and warp(1 - np.eye(5))[1] == 0


def test_a_warp_is_the_cheapest_way() -> None:
    """Against the recurrence, pair by pair."""
    distances = np.random.default_rng(1).random((6, 9))
    cost = np.full((7, 10), np.inf)
    cost[0, 0] = 0
    for i in range(6):
        for j in range(9):
            cost[i + 1, j + 1] = distances[i, j] + min(cost[i, j], cost[i, j + 1], cost[i + 1, j])
    way, mean = warp(distances)
    assert (np.diff(way) >= 0).all()
    lengths = [n for n in range(9, 15) if math.isclose(mean * n, cost[6, 9], rel_tol=1e-9)]
    assert lengths, "the mean is that of the cheapest way"


def test_prosody_moves_up_and_keeps_its_energy(codec: FactorisedCodec) -> None:
    with torch.inference_mode():
        codes = coded(codec).codes
        before = codec.contour(codes)[0]
        same = moved_prosody(codec, codes, Manner(5.0, 0.2, 4.0), Manner(0.0, 0.2, 4.0))
        spread = float(codec.contour(torch.arange(64).expand(1, 1, 64))[..., 0].std())
        up = moved_prosody(codec, codes, Manner(5.0, 0.2, 4.0), Manner(spread / F0_SCALE, 0.2, 4.0))
        after = codec.contour(up)[0]
    assert torch.equal(same, codes) and torch.equal(up[:, 1:], codes[:, 1:])
    assert float(after[:, 0].mean()) > float(before[:, 0].mean())


def test_how_somebody_speaks_is_measured() -> None:
    low, high = (manner_of(babble(2.0, pitch, RATE), RATE) for pitch in (100.0, 200.0))
    assert high.level - low.level == pytest.approx(math.log(2), abs=0.15)
    assert syllables_per_second(babble(2.0, 120.0, RATE), RATE) == pytest.approx(4.5, abs=1.5)  # as it is made


def test_a_recording_has_the_content_of_itself(codec: FactorisedCodec) -> None:
    distances = content_distances(codec, coded(codec).codes, coded(codec).codes)
    assert np.allclose(np.diag(distances), 0, atol=1e-5) and warp(distances)[1] == pytest.approx(0, abs=1e-5)


def test_sounds_are_converted(codec: FactorisedCodec) -> None:
    sound, other = babble(1.5, 120.0, 16000), clean_reference(babble_clip(2.0, 220.0, seed=5))
    same = clean_reference(babble_clip(1.5, 120.0))
    voiced = Converter(codec, other).convert(sound, 16000)
    assert voiced.sample_rate == RATE and len(voiced.waveform) == RATE * 3 // 2 and voiced.prosody == ""
    assert np.isfinite(voiced.waveform).all() and np.abs(voiced.waveform).max() <= 1
    alike = Converter(codec, prosody=same).convert(sound, 16000)
    assert alike.prosody == "words" and len(alike.waveform) == RATE * 3 // 2, "the same recording says the same"
    assert Converter(codec, prosody=same, same_words=False).convert(sound, 16000).prosody == "manner"
    assert Converter(codec, prosody=other).convert(sound, 16000).prosody == "manner", "other syllables are not the same"
    long = babble(7.0, 120.0, 16000)
    assert Converter(codec, prosody=same).convert(long, 16000).prosody == "manner", "four times as long is not the same"


def test_what_cannot_be_converted_is_refused(codec: FactorisedCodec) -> None:
    with pytest.raises(ConfigError, match="nothing"):
        Converter(codec)
    other = clean_reference(babble_clip(2.0, 220.0, seed=5))
    converter = Converter(codec, other)
    with pytest.raises(AudioError, match="silent"):
        converter.convert(np.zeros(16000, np.float32), 16000)
    with pytest.raises(AudioError, match=r"0\.10 s"):
        converter.convert(babble(0.1), 16000)
    with pytest.raises(AudioError, match="61 s are too long"):
        Converter(codec, prosody=other, same_words=True).convert(np.tile(babble(1.0, 120.0, 8000), 61), 8000)
    assert SPEAKER in coded(codec).side
