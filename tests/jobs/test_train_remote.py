"""Training from and to places that are no folders: what is read, what is kept, and stores that fail now and then."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from flowtts_core.errors import ConfigError, TextError
from flowtts_core.training import files as files_module
from flowtts_core.training.ahead import Ahead
from flowtts_core.training.batches import AcousticBatches
from flowtts_core.training.checkpoints import CheckpointWriter, checkpoint_steps, load_newest
from flowtts_core.training.distributed import ALONE, Ranks
from flowtts_core.training.examples import Examples
from flowtts_core.training.files import LocalFiles
from flowtts_core.training.trainer import Trainer
from jobs.train import workers_of
from jobs.training import workers as train_workers
from tests.flowtts_core.test_trainer import FAST, Numbers, Quadratic
from tests.speech_like import write_examples


class Store:
    """A store with a folder's files that counts what is asked of it, and fails as often as it is told to."""

    def __init__(self, folder: Path) -> None:
        self._files, self.calls, self.bytes_read, self.failures = LocalFiles(folder), Counter[str](), 0, 0
        self.failing = ""  # the one kind of call that fails; empty: every kind

    def path(self, name: str = "") -> str:
        return f"store/{name}"

    def _called(self, what: str) -> None:
        self.calls[what] += 1
        if self.failures and self.failing in ("", what):
            self.failures -= 1
            raise RuntimeError("503 Slow Down")

    def list(self, folder: str = "") -> dict[str, int]:
        self._called("list")
        return self._files.list(folder)

    def read(self, name: str) -> bytes:
        self._called("read")
        return self._files.read(name)

    def read_range(self, name: str, start: int, size: int) -> bytes:
        self._called("read_range")
        data = self._files.read_range(name, start, size)
        self.bytes_read += len(data)
        return data

    def write(self, name: str, data: bytes) -> None:
        self._called("write")
        self._files.write(name, data)

    def delete(self, name: str) -> None:
        self._called("delete")
        self._files.delete(name)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "_FIRST_WAIT_S", 0.001)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_examples(tmp_path_factory.mktemp("data"), [40 + 7 * (i * 5 % 23) for i in range(24)])


def test_a_rank_reads_what_its_batches_need_and_no_more(data):
    whole = sum(path.stat().st_size for path in data.rglob("*.parquet"))
    store = Store(data)
    examples = Examples(store, ["tokens", "mel"])
    assert store.calls["read_range"] == 0  # the indices say it all
    batches = AcousticBatches(examples, 600, seed=0)
    batch = batches.at(0, Ranks(1, 2))
    clips = len(batch.mel)
    mels = int(batch.mel_lengths.sum()) * 80 * 2
    tokens = 2  # of all clips of a file at once
    footers = store.calls["read_range"] - clips - tokens  # one request for each clip's mel
    assert 0 < footers <= 2 * 4  # of the two files of each
    assert mels < store.bytes_read < mels + 4 * (64 << 10) + 10_000 < whole
    before = store.bytes_read
    batches.at(0, Ranks(1, 2))
    assert store.bytes_read == before  # still in memory


def test_what_is_read_is_the_same_wherever_it_lies_and_whatever_is_kept(data):
    columns = ["tokens", "mel", "audio"]
    first = Examples(data, columns)
    assert first.frames.tolist() == [40 + 7 * (i * 5 % 23) for i in range(24)]
    assert first.token_counts.tolist() == [len(first.tokens(i)) for i in range(24)]
    for other in (Examples(Store(data), columns), Examples(Store(data), columns, cache_bytes=1)):
        assert other.frames.tolist() == first.frames.tolist()
        other.fetch(range(24))
        for i in (0, 11, 12, 23):
            assert np.array_equal(other.mel(i), first.mel(i))
            assert np.array_equal(other.tokens(i), first.tokens(i))
            assert np.array_equal(other.audio(i, 100, 300), first.audio(i, 100, 300))
    assert len(Examples(data, [], limit=5)) == 5


def test_memory_of_examples_is_bounded(data):
    store = Store(data)
    clip = Examples(data, ["mel"]).mel(0).nbytes
    examples = Examples(store, ["mel"], cache_bytes=3 * clip)
    for index, reads in ((0, True), (0, False), (1, True), (0, False), *((i, True) for i in range(2, 12)), (0, True)):
        before = store.bytes_read
        examples.mel(index)
        assert (store.bytes_read > before) == reads, index


def test_batches_are_made_ahead_in_order_and_their_errors_raised_where_they_are_wanted():
    class Odd(Numbers):
        def at(self, step, ranks=ALONE):
            if step == 4:
                raise ValueError("no such batch")
            return super().at(step, ranks)

    with Ahead(Odd(), ALONE, 1, 9) as ahead:
        assert all((ahead.next() == Numbers().at(step)).all() for step in (1, 2, 3))
        with pytest.raises(ValueError, match="no such batch"):
            ahead.next()
    with Ahead(Numbers(), ALONE, 0, 10**6) as ahead:  # one that is left before its end
        ahead.next()
    assert not [thread for thread in threading.enumerate() if thread.name == "batches"]


def test_a_run_in_a_store_ends_as_one_in_a_folder_and_keeps_its_logs_there(tmp_path):
    local = Trainer(Quadratic(), Numbers(), FAST, tmp_path / "local")
    local.fit()
    store = Store(tmp_path / "store")
    Trainer(Quadratic(), Numbers(), FAST, store).fit(stop_at=4)
    resumed = Trainer(Quadratic(), Numbers(), FAST, store)
    resumed.fit()
    assert (resumed.ema["weight"] == local.ema["weight"]).all()
    steps = [json.loads(line)["step"] for line in store.read("log.jsonl").decode().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert len(store.list("tensorboard")) == 2  # of both starts
    assert checkpoint_steps(store) == [4, 6]


@pytest.mark.usefixtures("impatient")
def test_a_store_that_fails_now_and_then_is_asked_again_and_it_is_told(tmp_path):
    store, told = Store(tmp_path), list[str]()
    store.failing = "write"  # which happens on another thread: a listing beside it must not take its failures
    trainer = Trainer(Quadratic(), Numbers(), FAST, store, tell=told.append)
    trainer.on_step = lambda step, _: setattr(store, "failures", 2 if step in (2, 4) else store.failures)
    trainer.fit()
    assert checkpoint_steps(store) == [4, 6]
    assert any("try 1 of 6 failed: 503 Slow Down" in line for line in told)
    store.failures, store.failing = 2, ""
    assert load_newest(store)["step"] == 6


@pytest.mark.usefixtures("impatient")
def test_a_store_that_stays_away_ends_the_run_with_its_reason(tmp_path):
    store = Store(tmp_path)
    trainer = Trainer(Quadratic(), Numbers(), dataclasses.replace(FAST, steps=50), store, tell=lambda _: None)
    trainer.on_step = lambda step, _: setattr(store, "failures", 10**6) if step == 5 else None
    with pytest.raises(RuntimeError, match="503"):
        trainer.fit()


def test_a_checkpoint_is_written_beside_the_training_as_it_was_when_it_was_taken(tmp_path):
    import torch

    gate, store = threading.Event(), Store(tmp_path)
    write = store.write
    store.write = lambda name, data: (gate.wait(30), write(name, data))  # type: ignore[method-assign]
    writer = CheckpointWriter(store, keep=2)
    weights = torch.ones(3)
    writer.submit({"step": 1, "modules": {"a": weights}, "optimizers": [(weights, 2)]})
    weights.add_(1)  # training goes on while the checkpoint is under way
    assert checkpoint_steps(tmp_path) == []
    gate.set()
    writer.wait()
    state = load_newest(tmp_path)
    assert state["modules"]["a"].tolist() == [1, 1, 1]
    assert state["optimizers"][0][0].tolist() == [1, 1, 1]
    writer.close()


class Failing:
    """A Ray Train trainer whose every fit fails after so many steps of progress."""

    def __init__(self, run: SimpleNamespace, progress: list[int]) -> None:
        self.run, self.progress = run, progress

    def fit(self) -> None:
        self.run.last_step += self.progress.pop(0)
        self.run.ended = self.run.last_step >= self.run.steps
        if not self.run.ended:
            error = RuntimeError("2 workers failed")
            error.worker_failures = {
                0: RuntimeError("Connection closed by peer"),
                1: TextError("no such clip", "look again"),
            }
            raise error


def test_only_failures_without_progress_end_a_run(tmp_path, monkeypatch):
    def run(progress: list[int]) -> SimpleNamespace:
        this = SimpleNamespace(steps=100, last_step=0, ended=False, folder="nowhere", files=LocalFiles(tmp_path))
        monkeypatch.setattr(train_workers, "_trainer", lambda *_: Failing(this, progress))
        train_workers.fit(this, (1, 1), False, True)
        return this

    assert run([1] * 100).last_step == 100  # a hundred lost workers
    with pytest.raises(TextError, match="no such clip.*\n.*look again"):  # not what it caused in the other worker
        run([5, 5, 0])


def test_workers_are_a_number_or_the_fewest_and_the_most():
    assert (workers_of("2"), workers_of("1-4")) == ((2, 2), (1, 4))
    for wrong in ("0", "4-1", "-2", "two", "1-", "1-2-3"):
        with pytest.raises(ConfigError, match=r"as in 1-4"):
            workers_of(wrong)
