"""The training loop: exact resume, averages, budgets, ranks, and steps that must be left out."""

from __future__ import annotations

import dataclasses
import functools
import multiprocessing
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flowtts_core.acoustic import MatchaConfig, MatchaTTS
from flowtts_core.audio.mel import MelConfig
from flowtts_core.codec import FrameCodec, FrameCodecConfig
from flowtts_core.errors import ConfigError, FlowTTSError
from flowtts_core.sampling import Sampling
from flowtts_core.training.batches import AcousticBatches, AlignedVocoderBatches, VocoderBatches
from flowtts_core.training.checkpoints import checkpoint_steps
from flowtts_core.training.distributed import ALONE, Ranks, TorchRanks
from flowtts_core.training.examples import Examples
from flowtts_core.training.log import TrainingLog
from flowtts_core.training.tasks import AcousticTask, CodecTask, VocoderTask, VocoderTaskConfig
from flowtts_core.training.trainer import MustGo, TrainConfig, Trainer, learning_rate_factor, native_bf16
from flowtts_core.vocoder import GriffinLim, GriffinLimConfig, Vocos, VocosConfig
from flowtts_core.vocoder.discriminators import DiscriminatorConfig
from tests.speech_like import latest_checkpoint, statistics_of, write_examples
from tests.thread_ranks import together

FAST = TrainConfig(steps=6, warmup_steps=2, log_every=1, checkpoint_every=2, sample_every=1000, precision="fp32")
DISCRIMINATORS = DiscriminatorConfig(periods=(2,), period_channels=(4, 8), n_ffts=(256,), resolution_channels=4)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_examples(tmp_path_factory.mktemp("data"), [40 + 7 * (i * 5 % 23) for i in range(24)])


def acoustic_trainer(data: Path, folder: Path, config: TrainConfig = FAST, ranks: Ranks = ALONE) -> Trainer:
    torch.manual_seed(0)
    batches = AcousticBatches(Examples(data, ["tokens", "mel"]), 600, 0)
    model = MatchaTTS(dataclasses.replace(MatchaConfig.debug(), **statistics_of(data)))
    task = AcousticTask(model, batches.items([0]), GriffinLim(GriffinLimConfig(iterations=2)))
    return Trainer(task, batches, config, folder, ranks=ranks)


def vocoder_trainer(data: Path, folder: Path, config: TrainConfig = FAST, ranks: Ranks = ALONE) -> Trainer:
    torch.manual_seed(0)
    batches = VocoderBatches(Examples(data, ["mel", "audio"]), 2, 16, 0)
    vocoder = Vocos(VocosConfig(dim=16, intermediate_dim=32, num_layers=1))
    task = VocoderTask(vocoder, batches.at(0), VocoderTaskConfig(adversarial_from=3, discriminators=DISCRIMINATORS))
    return Trainer(task, batches, config, folder, ranks=ranks)


def codec_trainer(data: Path, folder: Path, config: TrainConfig = FAST, ranks: Ranks = ALONE) -> Trainer:
    """A codec whose codes start at the data, move, are dropped out and replaced."""
    torch.manual_seed(0)
    batches = VocoderBatches(Examples(data, ["mel", "audio"]), 3, 16, 0)
    encoder = {"encoder_dim": 16, "encoder_intermediate": 32, "encoder_layers": 1}
    decoder = {"decoder_dim": 16, "decoder_intermediate": 32, "decoder_layers": 1}
    codec = FrameCodec(FrameCodecConfig(**encoder, **decoder, codebooks=3, bins=16, replace_after=0.5, decay=0.8))
    losses = VocoderTaskConfig(adversarial_from=3, discriminators=DISCRIMINATORS)
    task = CodecTask(codec, batches.examples.meta.mel, batches.at(0), losses, {"commitment": 0.5})
    return Trainer(task, batches, config, folder, ranks=ranks)


def test_vocoders_are_tuned_on_mels_of_the_model_with_the_pitch_of_the_recordings(tmp_path: Path):
    data = write_examples(tmp_path, [60, 80, 100], mel=MelConfig(pitch=True))
    examples = Examples(data, ["tokens", "mel", "audio"])
    model = MatchaTTS(dataclasses.replace(MatchaConfig.debug(), mel=examples.meta.mel, **statistics_of(data))).eval()
    plain = VocoderBatches(examples, 2, 16, 0)
    tuned = AlignedVocoderBatches(examples, 2, 16, 0, model, Sampling(steps=1))
    for step in (0, 1):
        true, made = plain.at(step), tuned.at(step)
        assert torch.equal(made.waveform, true.waveform) and made.mel.shape == true.mel.shape
        assert torch.equal(made.mel[:, -1], true.mel[:, -1])
        assert (made.mel[:, :-1] - true.mel[:, :-1]).abs().mean() > 0.1
        assert torch.equal(made.mel, tuned.at(step).mel)


def test_a_vocoder_can_be_trained_without_discriminators(data: Path, tmp_path: Path):
    vocoder, batches = (
        Vocos(VocosConfig(dim=16, intermediate_dim=32, num_layers=1)),
        VocoderBatches(Examples(data, ["mel", "audio"]), 2, 16, 0),
    )
    task = VocoderTask(vocoder, batches.at(0), VocoderTaskConfig(adversarial_from=None))
    assert set(task.modules) == {"vocoder"}
    scalars = Trainer(task, batches, FAST, tmp_path).fit()
    assert np.isfinite(scalars["vocoder/loss"]) and not any(name.startswith("discriminators") for name in scalars)


class Quadratic:
    """Fits one weight to the batches' numbers; the simplest task there is."""

    ema_module = "model"

    def __init__(self, start: float = 1.0, ranks: Ranks = ALONE) -> None:
        self.ranks = ranks
        self.model = nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.model.weight, start)
        self.modules: dict[str, nn.Module] = {"model": self.model}
        self.sampled: list[int] = []

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"model": list(self.model.parameters())}

    def updates(self, batch: Tensor, step: int, generator: torch.Generator) -> Iterator[tuple[str, dict[str, Tensor]]]:
        squares = (self.model(batch) - 3 * batch).square()
        yield "model", {"loss": self.ranks.total(squares.sum()) / 4}

    def validation(self, module: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        return (module(batch) - 3 * batch).square().mean()

    def sample(self, module: nn.Module, step: int, log: TrainingLog) -> None:
        self.sampled.append(step)


class Numbers:
    """A batch of four numbers for each step, dealt out to the ranks; of `poisoned` steps the first is not a number.

    Of `held_out` there are as many batches.
    """

    def __init__(self, poisoned: frozenset[int] = frozenset(), held_out: int = 0) -> None:
        self.poisoned, self.held_out = poisoned, held_out

    def validation(self) -> list[Tensor]:
        return [Numbers().at(1000 + number) for number in range(self.held_out)]

    def at(self, step: int, ranks: Ranks = ALONE) -> Tensor:
        values = torch.from_numpy(np.random.default_rng(step).normal(size=(4, 1)).astype(np.float32))
        if step in self.poisoned:
            values[0] = float("nan")
        return values[ranks.rank :: ranks.size]


def state_of(trainer: Trainer) -> dict[str, Tensor]:
    tensors = {f"ema.{k}": v for k, v in trainer.ema.items()}
    for name, module in trainer.task.modules.items():
        tensors |= {f"{name}.{k}": v for k, v in module.state_dict().items()}
    for name, optimizer in trainer.optimizers.items():
        for i, values in optimizer.state_dict()["state"].items():
            tensors |= {f"{name}.adam.{i}.{k}": v for k, v in values.items()}
    return tensors


@pytest.mark.parametrize(
    ("make", "cut"),
    [(acoustic_trainer, 2), (acoustic_trainer, 4), (vocoder_trainer, 2), (vocoder_trainer, 4), (codec_trainer, 4)],
)
def test_a_cut_and_resumed_run_ends_as_the_uncut_one_bit_for_bit(make, cut, data, tmp_path):
    whole = make(data, tmp_path / "whole")
    whole.fit()
    make(data, tmp_path / "cut").fit(stop_at=cut)
    torch.manual_seed(99)  # nothing may depend on the state of the global generator
    resumed = make(data, tmp_path / "cut")
    with torch.no_grad():
        for module in resumed.task.modules.values():
            for parameter in module.parameters():
                parameter.add_(1.0)  # nor on the weights that the resumed run began with
    resumed.fit()
    expected, got = state_of(whole), state_of(resumed)
    assert expected.keys() == got.keys()
    assert [k for k in expected if not torch.equal(expected[k], got[k])] == []
    fresh = make(data, tmp_path / "fresh")
    assert any(not torch.equal(value, fresh.ema[key]) for key, value in whole.ema.items())  # it did learn something


def test_a_killed_step_leaves_the_last_checkpoint(data, tmp_path):
    trainer = acoustic_trainer(data, tmp_path)
    trainer.fit(stop_at=4)
    (tmp_path / "checkpoint-0000006.part").write_bytes(b"half written")
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found.name == "checkpoint-0000004.pt"
    assert len(list(tmp_path.glob("checkpoint-*.pt"))) == FAST.keep


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def damage_replace(path: Path) -> None:
    path.write_text("not a checkpoint")


@pytest.mark.parametrize("damage", [damage_empty, damage_truncate, damage_replace])
def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(damage, tmp_path):
    whole = Trainer(Quadratic(), Numbers(), FAST, tmp_path / "whole")
    whole.fit()
    Trainer(Quadratic(), Numbers(), FAST, tmp_path / "cut").fit(stop_at=4)
    damage(tmp_path / "cut" / "checkpoint-0000004.pt")
    resumed = Trainer(Quadratic(), Numbers(), FAST, tmp_path / "cut")
    began: list[int] = []
    resumed.on_step = lambda step, _: began.append(step)
    resumed.fit()
    assert began[0] == 3  # after the checkpoint of step 2
    expected = state_of(whole)
    assert all(torch.equal(expected[key], value) for key, value in state_of(resumed).items())
    assert (tmp_path / "cut" / "checkpoint-0000004.damaged").exists()


def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_anew(tmp_path):
    Trainer(Quadratic(), Numbers(), FAST, tmp_path).fit(stop_at=4)
    for path in tmp_path.glob("checkpoint-*.pt"):
        damage_truncate(path)
    for _ in range(2):  # nor when it is tried again, as Ray does
        with pytest.raises(FlowTTSError, match="none of the checkpoints"):
            Trainer(Quadratic(), Numbers(), FAST, tmp_path).fit()


class Second(Ranks):
    """Rank 1 of two, whose rank 0 begins at a given step."""

    def __init__(self, first_is_at: int) -> None:
        super().__init__(1, 2)
        object.__setattr__(self, "first_is_at", first_is_at)

    def first(self, number: int, device: object = "cpu") -> int:
        return self.first_is_at


def test_all_ranks_begin_where_rank_0_does(tmp_path):
    Trainer(Quadratic(), Numbers(), FAST, tmp_path).fit(stop_at=4)
    steps: list[int] = []

    def second(folder: Path, first_is_at: int) -> Trainer:
        trainer = Trainer(Quadratic(), Numbers(), FAST, folder, ranks=Second(first_is_at))
        trainer.on_step = lambda step, _: steps.append(step)
        return trainer

    second(tmp_path, 2).fit(stop_at=3)  # rank 0 could not read the checkpoint of step 4
    assert steps == [3]
    second(tmp_path, 0).fit(stop_at=1)
    assert steps == [3, 1]
    with pytest.raises(FlowTTSError, match="rank 1 does not see the checkpoint of step 4.*\n.*shared by all workers"):
        second(tmp_path / "another disk", 4).fit()


def test_the_log_of_a_resumed_run_holds_each_step_once(data, tmp_path):
    config = dataclasses.replace(FAST, checkpoint_every=4)
    acoustic_trainer(data, tmp_path, config).fit(stop_at=4)
    with (tmp_path / "log.jsonl").open("a") as file:  # steps that were logged and then lost with their process
        file.write('{"step": 5, "lr": 1.0}\n\0\0{"step": 6, "l')  # the last line was cut
    acoustic_trainer(data, tmp_path, config).fit()
    steps = [int(line.split('"step": ')[1].split(",")[0]) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("lr")
    assert [event.step for event in shown] == [1, 2, 3, 4, 5, 6]


def test_ema_is_the_warmed_up_average_of_the_weights(tmp_path):
    task = Quadratic()
    seen: list[float] = []
    config = dataclasses.replace(FAST, steps=5, ema_decay=0.3)
    trainer = Trainer(
        task, Numbers(), config, tmp_path, on_step=lambda step, scalars: seen.append(task.model.weight.item())
    )
    trainer.fit()
    average = 1.0
    for step, weight in enumerate(seen):
        decay = min(0.3, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weight
    assert trainer.ema["weight"].item() == pytest.approx(average, rel=1e-5)
    assert trainer.averaged_module().weight.item() == trainer.ema["weight"].item()
    assert task.sampled == [5]


def test_steps_without_finite_gradients_are_left_out(tmp_path):
    task = Quadratic()
    weights: list[float] = []
    trainer = Trainer(
        task,
        Numbers(frozenset({2, 3})),
        FAST,
        tmp_path,
        on_step=lambda step, _: weights.append(task.model.weight.item()),
    )
    trainer.fit()
    assert weights[1] == weights[2] == weights[3]
    assert len({*weights}) == len(weights) - 2
    assert np.isfinite(weights).all()


def test_a_run_whose_gradients_never_recover_stops_with_a_remedy(tmp_path):
    config = dataclasses.replace(FAST, steps=50)
    trainer = Trainer(Quadratic(), Numbers(frozenset(range(5, 50))), config, tmp_path)
    with pytest.raises(FlowTTSError, match="finite.*\n.*learning_rate"):
        trainer.fit()


class Two(Quadratic):
    """A second group, whose gradients stay finite whatever the batch holds."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(1, 1, bias=False)
        self.modules["other"] = self.other

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {**super().parameter_groups(), "other": list(self.other.parameters())}

    def updates(self, batch: Tensor, step: int, generator: torch.Generator) -> Iterator[tuple[str, dict[str, Tensor]]]:
        yield from super().updates(batch, step, generator)
        yield "other", {"loss": self.other.weight.square().sum()}


def test_one_groups_good_gradients_do_not_excuse_anothers(tmp_path):
    config = dataclasses.replace(FAST, steps=50)
    trainer = Trainer(Two(), Numbers(frozenset(range(5, 50))), config, tmp_path)
    with pytest.raises(FlowTTSError, match="step 25: gradients of model"):
        trainer.fit()


def test_samples_that_fail_do_not_end_the_training(tmp_path, caplog):
    task = Quadratic()

    def sample(*_: object) -> None:
        raise FlowTTSError("the model cannot speak yet")

    task.sample = sample  # type: ignore[method-assign]  # the fault under test
    trainer = Trainer(task, Numbers(), dataclasses.replace(FAST, sample_every=2), tmp_path)
    trainer.fit()
    assert trainer.step == FAST.steps
    assert "cannot speak yet" in caplog.text


class Exact(Quadratic):
    """A loss whose matrix product is kept in float32; notes the gradient that the optimiser is given."""

    def __init__(self) -> None:
        super().__init__()
        self.gradients: list[Tensor] = []
        self.model.weight.register_post_accumulate_grad_hook(lambda p: self.gradients.append(p.grad.clone()))

    def updates(self, batch: Tensor, step: int, generator: torch.Generator) -> Iterator[tuple[str, dict[str, Tensor]]]:
        with torch.autocast("cpu", enabled=False):
            loss = (torch.mm(batch, self.model.weight) - 3 * batch).square().mean()
        yield "model", {"loss": loss}


def test_bf16_does_not_reach_the_gradients_of_float32_losses(tmp_path):
    exact, rough = Exact(), Exact()
    for task, precision in ((exact, "fp32"), (rough, "bf16")):
        config = dataclasses.replace(FAST, precision=precision)
        Trainer(task, Numbers(), config, tmp_path / precision).fit()
    assert len(exact.gradients) == FAST.steps
    assert all(torch.equal(a, b) for a, b in zip(exact.gradients, rough.gradients, strict=True))


@pytest.mark.parametrize("make", [acoustic_trainer, vocoder_trainer])
def test_bf16_trains_as_float32_does(make, data, tmp_path):
    ends = [
        make(data, tmp_path / precision, dataclasses.replace(FAST, steps=4, precision=precision)).fit()
        for precision in ("fp32", "bf16")
    ]
    exact, rough = ({name: value for name, value in end.items() if "grad_norm" not in name} for end in ends)
    assert rough == pytest.approx(exact, rel=0.1, abs=0.01)


def test_emulated_bf16_is_not_native(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert not native_bf16(torch.device("cuda"))


def test_dropout_does_not_repeat_the_bits_of_the_noise(tmp_path):
    task, seen = Quadratic(), []

    def updates(batch: Tensor, step: int, generator: torch.Generator) -> Iterator[tuple[str, dict[str, Tensor]]]:
        seen.append((torch.rand(4), torch.rand(4, generator=generator)))
        return Quadratic.updates(task, batch, step, generator)

    task.updates = updates  # type: ignore[method-assign]  # the fault under test
    Trainer(task, Numbers(), FAST, tmp_path).fit(stop_at=2)
    assert len({tuple(draw.tolist()) for pair in seen for draw in pair}) == 4


def test_learning_rate_warms_up_and_falls_to_its_last_share(tmp_path):
    config = TrainConfig(steps=110, warmup_steps=10, final_lr=0.1, learning_rate=1.0)
    factors = [learning_rate_factor(config, step) for step in range(111)]
    assert factors[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert factors[10] == 1.0
    assert all(a >= b for a, b in zip(factors[10:], factors[11:], strict=False))
    assert factors[60] == pytest.approx(0.55)  # half way down
    assert factors[110] == pytest.approx(0.1)


def test_a_rate_that_falls_late_stands_still_before():
    short, long = (
        [
            learning_rate_factor(TrainConfig(steps=steps, warmup_steps=10, decay=0.5, final_lr=0.1), step)
            for step in range(111)
        ]
        for steps in (110, 410)
    )
    assert short[10:60] == [1.0] * 50 and short[110] == pytest.approx(0.1) and short[85] == pytest.approx(0.55)
    assert long[:60] == short[:60] and set(long[10:]) == {1.0}


def test_every_utterance_once_per_epoch_and_no_batch_beyond_its_budget(tmp_path):
    rng = np.random.default_rng(1)
    examples = Examples(write_examples(tmp_path, rng.integers(5, 60, 150).tolist()), ["tokens", "mel"])
    batches = AcousticBatches(examples, 300, seed=3)
    orders = []
    for epoch in range(12):
        counts: Counter[bytes] = Counter()
        for index in range(batches.per_epoch):
            batch = batches.at(epoch * batches.per_epoch + index)
            assert batch.mel.shape[0] * batch.mel.shape[2] <= 300
            for row, tokens in enumerate(batch.condition.tokens):
                length, frames = int(batch.condition.token_lengths[row]), int(batch.mel_lengths[row])
                counts[tokens[:length].numpy().tobytes() + batch.mel[row, :, :frames].numpy().tobytes()] += 1
                assert not batch.mel[row, :, frames:].any()
        assert sorted(counts.values()) == [1] * 150
        orders.append(tuple(counts))
    assert len(set(orders)) == 12


def test_padding_of_batches_is_small(tmp_path):
    rng = np.random.default_rng(1)
    examples = Examples(write_examples(tmp_path, rng.integers(10, 80, 150).tolist()), ["tokens", "mel"])
    batches = AcousticBatches(examples, 500, seed=0)
    plan = [batches.at(i) for i in range(batches.per_epoch)]
    padded = sum(b.mel.shape[0] * b.mel.shape[2] for b in plan)
    assert sum(int(b.mel_lengths.sum()) for b in plan) / padded > 0.88


@pytest.mark.parametrize("padding", ["same", "center"])
def test_crops_of_mel_and_waveform_belong_together(padding, tmp_path):
    from flowtts_core.audio.mel import LogMel, MelConfig

    mel_config = MelConfig(padding=padding)
    examples = Examples(write_examples(tmp_path, [60, 70, 80, 9], mel=mel_config), ["mel", "audio"])
    batch = VocoderBatches(examples, 4, 24, 0).at(7)
    assert batch.waveform.shape == (4, mel_config.samples_of(24))
    again = LogMel(mel_config)(batch.waveform)[..., 4:-4]  # the edges lack their neighbours
    assert (again - batch.mel[..., 4:-4]).abs().mean() < 0.05
    with pytest.raises(ConfigError, match="crop_frames"):
        VocoderBatches(examples, 4, 500, 0)


@pytest.mark.parametrize("make", [acoustic_trainer, vocoder_trainer, codec_trainer])
def test_a_run_goes_on_with_another_number_of_ranks(make, data, tmp_path):
    def losses_of(folder: Path, *parts: tuple[int, int]) -> dict[int, float]:
        """Loss of each step of a run whose parts (ranks, stop) follow each other."""
        seen: dict[int, float] = {}

        def work(ranks: Ranks, stop: int) -> None:
            trainer = make(data, folder, ranks=ranks)
            if ranks.rank == 0:
                trainer.on_step = lambda step, scalars: seen.update({step: scalars[f"{trainer.task.ema_module}/loss"]})
            trainer.fit(stop)

        for size, stop in parts:
            together(size, functools.partial(work, stop=stop))
        return seen

    alone = losses_of(tmp_path / "one", (1, 6))
    assert losses_of(tmp_path / "many", (2, 2), (1, 4), (3, 6)) == pytest.approx(alone, rel=2e-3)  # dropout and all


def test_a_rank_that_is_told_to_go_leaves_a_checkpoint_of_its_last_step(tmp_path):
    config = dataclasses.replace(FAST, checkpoint_every=100)

    def work(ranks: Ranks) -> int:
        trainer = Trainer(Quadratic(ranks=ranks), Numbers(), config, tmp_path, ranks=ranks)
        trainer.on_step = lambda step, _: ranks.notice.set() if (step, ranks.rank) == (2, 1) else None
        with pytest.raises(MustGo, match="step 3"):
            trainer.fit()
        return trainer.step

    assert together(2, work) == [3, 3]
    assert checkpoint_steps(tmp_path) == [3]
    whole = Trainer(Quadratic(), Numbers(), FAST, tmp_path / "whole")
    whole.fit()
    resumed = Trainer(Quadratic(), Numbers(), FAST, tmp_path)
    resumed.fit()
    assert torch.allclose(whole.ema["weight"], resumed.ema["weight"], rtol=1e-6)


def _distributed_rank(rank: int, port: int, folder: str, data: str, out: multiprocessing.Queue) -> None:
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    ranks = TorchRanks(rank, 2)
    task = Quadratic(ranks=ranks)
    idle = nn.Parameter(torch.ones(3))  # no rank has a gradient for it
    task.parameter_groups = lambda: {"model": [*task.model.parameters(), idle]}  # type: ignore[method-assign]
    for stop_at in (4, None):  # cut and resumed
        Trainer(task, Numbers(frozenset({3})), FAST, Path(folder), ranks=ranks).fit(stop_at)
    speech = acoustic_trainer(Path(data), Path(folder, "speech"), ranks=ranks).fit(3)
    out.put((rank, task.model.weight.item(), idle.tolist(), speech["acoustic/loss"]))
    dist.destroy_process_group()


def test_two_processes_learn_what_one_learns(data, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    ranks = [
        context.Process(target=_distributed_rank, args=(rank, port, str(tmp_path / "two"), str(data), out))
        for rank in (0, 1)
    ]
    for process in ranks:
        process.start()
    results = sorted(out.get(timeout=250) for _ in ranks)
    for process in ranks:
        process.join(timeout=30)
    alone = Trainer(Quadratic(), Numbers(frozenset({3})), FAST, tmp_path / "one")
    alone.fit()
    (_, first, idle, loss), (_, second, _, other) = results
    assert first == second  # step 3 is left out by both, though only rank 0's gradient is not finite
    assert first == pytest.approx(alone.task.modules["model"].weight.item(), rel=1e-6)
    assert idle == [1.0, 1.0, 1.0]
    assert len(list((tmp_path / "two").glob("checkpoint-*.pt"))) == FAST.keep
    assert loss == other
    assert loss == pytest.approx(acoustic_trainer(data, tmp_path / "speech").fit(3)["acoustic/loss"], rel=1e-3)


def test_training_lowers_the_loss_of_a_small_acoustic_model(data, tmp_path):
    losses: list[float] = []
    config = dataclasses.replace(FAST, steps=30, learning_rate=2e-3, checkpoint_every=100)
    trainer = acoustic_trainer(data, tmp_path, config)
    trainer.on_step = lambda step, scalars: losses.append(scalars["acoustic/loss"])
    trainer.fit()
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5]), losses
