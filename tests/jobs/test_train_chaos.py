"""Training by Ray Train where workers come and go: killed, told to go, fewer and more of them, in folders and on S3."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.session import session
from cluster.storage import Storage
from flowtts_core.errors import TextError
from flowtts_core.training.examples import Examples
from flowtts_core.training.log import LOG
from flowtts_core.training.prepare import ClipLimits, PrepareConfig
from jobs.benchmarks.training import compare
from jobs.prepare import prepare
from jobs.train import train
from jobs.training import workers as train_workers
from jobs.training.recipes import AcousticRecipe, matcha_debug
from jobs.training.run import (
    TrainingRun,
    open_run,
    read_progress,
    runs_of,
    train_rank,
    trained_module,
    write_result,
)
from jobs.training.starts import read_starts
from jobs.training.workers import fit
from tests.jobs.test_prepare import GOOD, corpus
from tests.moto_store import s3_bucket
from tests.speech_like import write_examples

SHORT = PrepareConfig(limits=ClipLimits(max_seconds=5))
pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_examples(tmp_path_factory.mktemp("data"), [40 + 7 * (i * 5 % 11) for i in range(12)])


def quick(**trainer: object) -> AcousticRecipe:
    base = matcha_debug()
    settings = {"steps": 4, "checkpoint_every": 2, "log_every": 1, "precision": "fp32", **trainer}
    return replace(base, frames_per_batch=500, trainer=replace(base.trainer, **settings))


def losses_of(run: TrainingRun) -> dict[int, float]:
    lines = [json.loads(line) for line in run.files.read(LOG).decode().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    return {line["step"]: line["acoustic/loss"] for line in lines}


@pytest.mark.slow
def test_a_run_on_s3_ends_in_a_voice_there(tmp_path):
    """Without Ray: what one worker does, on a local S3 server."""
    from jobs import prepare as job

    source = corpus(tmp_path / "corpus")
    with s3_bucket("training") as bucket, pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "_prepare_shards", in_this_process)
        prepare(source, f"{bucket}/data", SHORT, clips_per_file=4)
        assert len(Examples(Storage(f"{bucket}/data"), [])) == len(GOOD)
        recipe = replace(quick(), frames_per_batch=10_000)
        this = open_run(runs_of(f"{bucket}/voices/amy"), f"{bucket}/data", recipe)
        train_rank(replace(this, stop_at=2))
        train_rank(this)
        write_result(this, f"{bucket}/voices/amy")
        assert set(Storage(f"{bucket}/voices/amy").list()) >= {"voice.json", "acoustic.safetensors"}
        kept = Storage(this.folder).list()
        assert {"run.json", "log.jsonl", "tensorboard", "checkpoint-0000004.pt"} <= set(kept)
        local = open_run(tmp_path / "runs", prepared(tmp_path, source), recipe)
        train_rank(local)
        ours, theirs = trained_module(this).state_dict(), trained_module(local).state_dict()
        assert all((ours[name] == theirs[name]).all() for name in ours)


def in_this_process(tasks, config, storage, address, workers):
    from jobs.corpus.prepare_worker import ShardPreparer

    return map(ShardPreparer(config, storage), tasks)


def prepared(tmp_path: Path, source: Path) -> Path:
    prepare(source, tmp_path / "prepared", SHORT, clips_per_file=4)
    return tmp_path / "prepared"


@pytest.mark.slow
def test_killed_workers_change_nothing_but_the_time(data, tmp_path):
    figures = compare(str(data), quick(steps=600, checkpoint_every=20), 2, 20, tmp_path, print)
    assert figures["killed"]["kills"]
    assert figures["weights_apart_most"] == 0.0
    assert figures["loss_apart_most"] == 0.0
    for lost in figures["killed"]["lost"]:
        assert lost["resumed"] >= lost["checkpoint"]


@pytest.mark.slow
def test_a_run_on_s3_goes_on_with_other_numbers_of_workers(data, tmp_path):
    expected = open_run(tmp_path / "alone", data, quick(steps=12))
    train_rank(expected)
    with s3_bucket("elastic") as bucket:
        for path in (path for path in data.rglob("*") if path.is_file()):
            Storage(f"{bucket}/data").write(str(path.relative_to(data)), path.read_bytes())
        output = f"{bucket}/voices/amy"
        this = open_run(runs_of(output), f"{bucket}/data", quick(steps=12))
        with session(None, 2):
            fit(replace(this, stop_at=4), (2, 2), gpu=False, embedded=True)
        train_rank(replace(this, stop_at=8))  # one
        result = train(f"{bucket}/data", output, quick(steps=12), workers=(1, 2), device="cpu", quiet=True)
        assert [start.workers for start in read_starts(this.files)][-1] == 2
        assert (result.resumed_from, result.steps) == (8, 12)
        assert losses_of(this) == pytest.approx(losses_of(expected), rel=2e-3)
        assert "voice.json" in Storage(output).list()


@pytest.mark.slow
def test_a_worker_that_fails_for_ever_ends_the_run_with_its_reason(tmp_path):
    broken = write_examples(tmp_path / "data", [50, 60, 70])
    lost = open_run(runs_of(tmp_path / "ann"), broken, quick())
    for path in broken.glob("audio/*.parquet"):
        path.rename(path.with_suffix(".gone"))
    with session(None, 1), pytest.raises(TextError, match="no clips-00000.parquet"):
        fit(lost, (1, 1), gpu=False, embedded=True)


@pytest.mark.slow
def test_a_node_that_is_drained_leaves_a_checkpoint_first(data, tmp_path):
    from ray.cluster_utils import Cluster

    chosen = quick(steps=600, checkpoint_every=10_000)  # none but the last, and the one before it goes
    this = open_run(runs_of(tmp_path / "amy"), data, chosen)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    over, drained = threading.Event(), list[int]()

    def drain() -> None:
        while not over.wait(0.2):
            step = int(read_progress(this).get("step", 0))
            if step >= 20:
                drained.append(step)
                command = ["drain-node", "--address", cluster.address, "--node-id", nodes[1].node_id]
                command += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "test"]
                command += ["--deadline-remaining-seconds", "60"]
                subprocess.run([sys.executable, "-m", "ray.scripts.scripts", *command], check=True, capture_output=True)
                return

    thread = threading.Thread(target=drain)
    thread.start()
    try:
        train(data, tmp_path / "amy", chosen, workers=(1, 2), device="cpu", address=cluster.address, quiet=True)
    finally:
        over.set()
        thread.join()
        cluster.shutdown()
    starts = read_starts(this.files)
    assert drained
    assert [start.workers for start in starts][:2] == [2, 1]
    assert starts[1].step >= drained[0]


@pytest.mark.slow
def test_a_lost_node_is_done_without_and_a_new_one_made_use_of(data, tmp_path, monkeypatch):
    from ray.cluster_utils import Cluster

    monkeypatch.setattr(train_workers, "RESIZE_S", 5.0)
    chosen = quick(steps=700, checkpoint_every=10)
    this = open_run(runs_of(tmp_path / "amy"), data, chosen)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    over = threading.Event()

    def started(workers: int, step: int) -> bool:
        """Wait until the last start was of so many workers and training has come beyond a step."""
        while not over.wait(0.2):
            starts = read_starts(this.files)
            if starts and starts[-1].workers == workers and int(read_progress(this).get("step", 0)) > step:
                return True
        return False

    def work() -> None:
        try:
            train(data, tmp_path / "amy", chosen, workers=(1, 2), device="cpu", address=cluster.address, quiet=True)
        finally:
            over.set()

    thread = threading.Thread(target=work)  # nodes are added by the main thread alone
    thread.start()
    try:
        if started(2, 20):
            cluster.remove_node(nodes[1], allow_graceful=False)
        if started(1, 40):
            cluster.add_node(num_cpus=1)
        thread.join()
    finally:
        cluster.shutdown()
    counts = [start.workers for start in read_starts(this.files)]
    assert counts[0] == 2
    assert 1 in counts
    assert counts[-1] == 2
