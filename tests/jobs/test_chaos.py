"""Chaos: several nodes, an S3 server that fails now and then, and actors, nodes and drivers killed at random."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.local import HEAD, LocalCluster
from cluster.plan import SHARD_UNITS
from cluster.storage import Storage
from flowtts_core.text.document import TextRow
from jobs.synthesis import job as synthesis_job
from jobs.synthesis import manifest
from jobs.synthesis.engine import Engine
from jobs.synthesis.folder import JOB, SUMMARY
from jobs.synthesis.job import Options, run_job
from jobs.synthesis.pipeline import Running
from jobs.synthesis.plan import plan_corpus
from jobs.synthesis.settings import Speaking
from jobs.verify import verify
from tests.fake_engine import MakeTone, speak_inline

ROOT = Path(__file__).resolve().parents[2]
ROWS = int(os.environ.get("FLOWTTS_CHAOS_ROWS", "400"))
KILLS = int(os.environ.get("FLOWTTS_CHAOS_KILLS", "6"))
SEEDS = range(int(os.environ.get("FLOWTTS_CHAOS_RUNS", "1")))
DELAY_S = 0.08  # of a row
POISON = {7: "this CRASHES the worker"}
linux = pytest.mark.skipif(sys.platform != "linux", reason="a trial cluster needs Linux")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000), linux]

DRIVER = "import sys; from tests.jobs.test_chaos import drive; drive(*sys.argv[1:])"


def drive(address: str, output: str, spoken: str) -> None:
    """What a driver's process runs."""
    running = Running(least=1, most=2, address=address, stall_s=300)
    engine = Engine("tone", "tone-1", MakeTone(delay_s=DELAY_S, log=spoken))
    run_job(chaos_plan(), output, engine, Speaking(), Options(rows="parquet", running=running))


def chaos_plan():
    texts = [POISON.get(i, f"Row number {i} {'and more ' * (i * 7 % 13)}of them all.") for i in range(ROWS)]
    return plan_corpus([TextRow(f"r{i:05d}", text) for i, text in enumerate(texts)], Speaking(), "chaos")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def faulty_bucket() -> Iterator[str]:
    """A bucket on a local S3 server behind a proxy that fails 5 % of the calls."""
    pytest.importorskip("moto.server", reason="needs moto[server], a local S3")
    upstream, port = free_port(), free_port()
    servers = [
        subprocess.Popen(
            [sys.executable, "-m", *command], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for command in (
            ["moto.server", "-H", "127.0.0.1", "-p", str(upstream)],
            ["tests.faulty_s3", str(port), str(upstream), "0.05"],
        )
    ]
    settings = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    settings |= {"AWS_DEFAULT_REGION": "us-east-1", "PYTHONPATH": str(ROOT)}
    with pytest.MonkeyPatch.context() as patch:
        for key, value in settings.items():
            patch.setenv(key, value)
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        for _ in range(50):
            with contextlib.suppress(Exception):
                s3fs.S3FileSystem(use_listings_cache=False).mkdir("chaos")
                break
            time.sleep(0.5)
        yield "s3://chaos"
        s3fs.S3FileSystem.clear_instance_cache()
    for server in servers:
        server.terminate()
        server.wait(10)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str | None]]:
    """Status and digest of each row, as one process makes them."""
    output = tmp_path_factory.mktemp("undisturbed")
    texts = chaos_plan().units
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthesis_job, "speak_shards", speak_inline)
        good = [TextRow(unit.id, unit.text) for i, unit in enumerate(texts) if i not in POISON]
        run_job(plan_corpus(good, Speaking(), "good"), str(output), Engine("tone", "tone-1", MakeTone()), Speaking(),
                Options(rows="parquet"))  # fmt: skip
    table = manifest.read_manifest(Storage(str(output))).to_pylist()
    return {row["id"]: (row["status"], row["sha256"]) for row in table}


def actors(cluster: LocalCluster) -> list:
    """The processes of Ray Data's actors and tasks."""
    found = []
    for processes in cluster.processes().values():
        for process in processes:
            with contextlib.suppress(Exception):
                if any(
                    name in " ".join(process.cmdline()) for name in ("ray::MapWorker", "ray::Map(", "ray::MapBatches")
                ):
                    found.append(process)
    return found


def start(address: str, output: str, log: Path) -> subprocess.Popen:
    with open(log, "ab") as file:
        command = [sys.executable, "-c", DRIVER, address, output, str(log.with_name("spoken.txt"))]
        return subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file, start_new_session=True)


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_is_killed_every_row_is_there_once(
    seed: int,
    faulty_bucket: str,
    undisturbed: dict[str, tuple[str, str | None]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dice, output, log = random.Random(seed), f"{faulty_bucket}/run-{seed}", tmp_path / "driver.log"
    killed: Counter[str] = Counter()
    with (
        tempfile.TemporaryDirectory(prefix="ft") as place,
        LocalCluster(Path(place) / "c", cpus=1, dashboard=False) as cluster,
    ):
        record = cluster.start(3)
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", record.token)
        driver = start(record.address, output, log)
        began = time.monotonic()
        while sum(killed.values()) < KILLS and time.monotonic() - began < 1200:
            time.sleep(dice.uniform(4, 16))
            if driver.poll() == 3 or (driver.poll() is not None and Storage(output).exists(SUMMARY)):
                break  # it was done before all kills
            if driver.poll() is not None:
                driver = start(record.address, output, log)
                continue
            what = dice.choices(["actor", "node", "driver"], [6, 2, 2])[0]
            if what == "actor":
                for _ in range(40):  # a driver that was begun just now has none yet
                    if found := actors(cluster):
                        break
                    time.sleep(1)
                with contextlib.suppress(Exception):
                    dice.choice(found).kill()
                    killed[what] += 1
            elif what == "node":
                others = [number for number in cluster.processes() if number != HEAD]
                if others:
                    cluster.kill_node(dice.choice(others))
                    killed[what] += 1
                    cluster.add_node()
            elif what == "driver":
                os.killpg(driver.pid, signal.SIGKILL)
                driver.wait()
                killed[what] += 1
                driver = start(record.address, output, log)
        for _ in range(5):
            driver.wait(900)
            if Storage(output).exists(SUMMARY):
                break
            driver = start(record.address, output, log)
    spoken = Counter((tmp_path / "spoken.txt").read_text().splitlines())
    again = sum(spoken.values()) - len(spoken)
    print(f"seed {seed}: {dict(killed)} killed, {time.monotonic() - began:.0f} s, {again} of {ROWS} rows spoken again")
    assert Storage(output).exists(JOB), log.read_text()[-3000:]
    found = verify(output)
    assert found.whole, (found.findings[:5], log.read_text()[-3000:])
    rows = {row["id"]: row for row in manifest.read_manifest(Storage(output)).to_pylist()}
    assert len(rows) == ROWS
    aside = {id: row["reason"] for id, row in rows.items() if row["status"] != "ok"}
    for id, row in rows.items():
        if id not in aside:
            assert (row["status"], row["sha256"]) == undisturbed[id]
    assert {f"r{i:05d}" for i in POISON} <= aside.keys(), json.dumps(aside)
    assert all("died over it" in reason for reason in aside.values()), aside
    # what an actor had under way; of a node or a driver, all that was under way and not committed
    shards = killed["actor"] + 6 * (killed["node"] + killed["driver"]) + 3 * len(POISON)
    assert again <= SHARD_UNITS * shards, spoken
    print(f"set aside: {aside}")
