"""What is held out of a training, what its loss decides, and trainings that diverge."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from flowtts_core.errors import DivergedError
from flowtts_core.training.batches import AcousticBatches, VocoderBatches
from flowtts_core.training.checkpoints import checkpoint_steps, load_best, load_newest
from flowtts_core.training.distributed import Ranks
from flowtts_core.training.examples import Examples
from flowtts_core.training.trainer import MustGo, Trainer
from flowtts_core.training.validation import FEWEST, MOST, held_out_places, validated
from tests.flowtts_core.test_trainer import FAST, Numbers, Quadratic
from tests.speech_like import write_examples
from tests.thread_ranks import together


def ids(count: int) -> list[str]:
    return [f"clip-{number}" for number in range(count)]


def test_the_same_clips_are_held_out_whatever_comes_beside_them():
    few, more = (set(held_out_places(ids(count), 0.02)) for count in (1000, 3000))
    assert few == {place for place in more if place < 1000}
    assert len(few) == pytest.approx(20, abs=10)
    shuffled = ids(1000)[::-1]
    assert {shuffled[place] for place in held_out_places(shuffled, 0.02)} == {ids(1000)[place] for place in few}


@pytest.mark.parametrize(
    ("clips", "share", "held_out"),
    [(19, 0.02, 0), (20, 0.02, 4), (100, 0.02, FEWEST), (50_000, 0.02, MOST), (1000, 0.0, 0)],
)
def test_few_clips_give_few_and_many_give_no_more_than_are_needed(clips: int, share: float, held_out: int):
    assert len(held_out_places(ids(clips), share)) == held_out


def test_what_is_held_out_is_not_trained_on(tmp_path: Path):
    data = write_examples(tmp_path, [40 + i for i in range(24)])
    kept = Examples(data, ["tokens", "mel", "audio"], validation=0.02)
    assert kept.held_out is not None
    assert set(kept.frames) | set(kept.held_out.frames) == set(range(40, 64))  # each clip has a length of its own
    assert len(kept) + len(kept.held_out) == 24
    acoustic, vocoder = AcousticBatches(kept, 300, 0), VocoderBatches(kept, 2, 40, 0)
    trained = {int(n) for step in range(3 * acoustic.per_epoch) for n in acoustic.at(step).mel_lengths}
    assert trained == set(kept.frames)
    validation = acoustic.validation()
    assert sorted(int(n) for batch in validation for n in batch.mel_lengths) == sorted(kept.held_out.frames)
    middles = torch.cat([batch.mel for batch in vocoder.validation()])
    assert middles.shape == (len(kept.held_out), 80, 40)
    first = int(np.argmin(kept.held_out.frames))
    start = (int(kept.held_out.frames[first]) - 40) // 2
    expected = torch.from_numpy(kept.held_out.mel(first)[:, start : start + 40].astype(np.float32))
    assert any(torch.equal(middle, expected) for middle in middles)


def test_a_loss_that_is_no_number_is_never_the_best():
    first = validated(None, 2, float("nan"))
    second = validated(first, 4, 3.0)
    assert (second.best_step, second.best, second.since) == (4, 3.0, 0)
    third = validated(second, 6, float("nan"))
    assert (third.step, third.best_step, third.best, third.since) == (6, 4, 3.0, 1)


def log_of(folder: Path) -> list[dict]:
    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_the_averaged_weights_are_validated_with_each_checkpoint(tmp_path: Path):
    trainer = Trainer(Quadratic(), Numbers(held_out=2), FAST, tmp_path)
    shown = trainer.fit()
    losses = {line["step"]: line["validation/loss"] for line in log_of(tmp_path) if "validation/loss" in line}
    assert list(losses) == [2, 4, 6]
    held_out = torch.cat(Numbers(held_out=2).validation())
    expected = ((trainer.ema["weight"].item() - 3) * held_out).square().mean().item()
    assert losses[6] == pytest.approx(expected, rel=1e-4) == pytest.approx(shown["validation/loss"], rel=1e-4)
    assert losses[2] > losses[4] > losses[6]
    assert load_best(tmp_path)["step"] == 6


class Worsening(Quadratic):
    """Its validation loss is the lowest at a given step."""

    def __init__(self, lowest: int, ranks: Ranks | None = None) -> None:
        super().__init__(ranks=ranks or Ranks())
        self.lowest, self.asked = lowest, 0

    def validation(self, module: nn.Module, batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        self.asked += 1
        return torch.tensor(float(abs(2 * self.asked - self.lowest)))


@pytest.mark.parametrize("ranks", [1, 2])
def test_patience_ends_a_training_and_its_best_weights_are_kept(ranks: int, tmp_path: Path):
    config = dataclasses.replace(FAST, steps=50, patience=3)
    seen: dict[int, float] = {}

    def work(rank: Ranks) -> int:
        task = Worsening(6, rank)
        trainer = Trainer(task, Numbers(held_out=1), config, tmp_path, ranks=rank)
        if rank.rank == 0:
            trainer.on_step = lambda step, _: seen.update({step: trainer.ema["weight"].item()})
        trainer.fit()
        assert trainer.stopped_early
        return trainer.step

    assert together(ranks, work) == [12] * ranks
    best = load_best(tmp_path)
    assert (best["step"], best["loss"]) == (6, 0.0)
    assert best["ema"]["weight"].item() == seen[6] != seen[12]
    again = Trainer(Worsening(6), Numbers(held_out=1), config, tmp_path)
    again.fit()
    assert again.step == 12  # and does not go on when it is asked again


def test_a_step_that_is_left_out_is_told(tmp_path: Path):
    told: list[str] = []
    Trainer(Quadratic(), Numbers(frozenset({2, 3})), FAST, tmp_path, tell=told.append).fit()
    assert told == [
        "step 2: gradients of model are not finite: left out (1 in a row)",
        "step 3: gradients of model are not finite: left out (2 in a row)",
    ]
    assert [line["model/loss"] is None for line in log_of(tmp_path)] == [False, False, True, True, False, False]


def test_a_diverged_training_keeps_the_last_good_checkpoint_and_says_what_to_try(tmp_path: Path):
    config = dataclasses.replace(FAST, steps=50)
    with pytest.raises(DivergedError) as raised:
        Trainer(Quadratic(), Numbers(frozenset(range(5, 50))), config, tmp_path).fit()
    assert "step 25" in raised.value.message
    assert "the checkpoint of step 4 is kept" in raised.value.message
    assert "trainer.learning_rate=5e-05; it is 0.0005" in raised.value.remedy
    assert checkpoint_steps(tmp_path) == [2, 4]


@pytest.mark.parametrize("first", [1, 3])
def test_a_short_training_that_ends_without_finite_gradients_has_diverged(first: int, tmp_path: Path):
    with pytest.raises(
        DivergedError, match=rf"step 6: gradients of model were not finite in the last {6 - first} steps"
    ):
        Trainer(Quadratic(), Numbers(frozenset(range(first, 6))), FAST, tmp_path).fit()
    assert 6 not in checkpoint_steps(tmp_path)


@pytest.mark.parametrize("held_out", [0, 1])
def test_a_training_whose_weights_have_no_finite_loss_at_the_end_has_diverged(held_out: int, tmp_path: Path):
    trainer = Trainer(Quadratic(), Numbers(held_out=held_out), FAST, tmp_path)
    trainer.on_step = lambda step, _: (
        trainer.ema["weight"].fill_(1e30) if step == 5 else None
    )  # finite; its square is not
    with pytest.raises(DivergedError, match="step 6: the loss of the averaged weights is not finite"):
        trainer.fit()


def test_a_training_whose_weights_are_not_finite_at_the_end_has_diverged(tmp_path: Path):
    trainer = Trainer(Quadratic(), Numbers(), FAST, tmp_path)
    trainer.on_step = lambda step, _: trainer.ema["weight"].fill_(float("nan")) if step == 5 else None
    with pytest.raises(DivergedError, match="step 6: weights are not finite"):
        trainer.fit()


def test_bad_steps_are_counted_across_a_restart(tmp_path: Path):
    config, poisoned = dataclasses.replace(FAST, steps=80), frozenset(range(5, 80))
    first = Trainer(Quadratic(), Numbers(poisoned), config, tmp_path, ranks=Ranks())
    first.on_step = lambda step, _: first.ranks.notice.set() if step == 15 else None
    with pytest.raises(MustGo, match="step 16"):
        first.fit()
    state = load_newest(tmp_path)
    assert state is not None
    assert (state["step"], state["skipped"]) == (16, {"model": 11})
    with pytest.raises(DivergedError, match="step 25"):
        Trainer(Quadratic(), Numbers(poisoned), config, tmp_path).fit()
