"""A pool that grows while a job runs: machines join the cluster, and actors start on them."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from cluster.local import LocalCluster, Record
from flowtts_core.text.document import TextRow
from jobs.synthesis.engine import Engine
from jobs.synthesis.job import Options, run_job
from jobs.synthesis.pipeline import Running
from jobs.synthesis.plan import plan_corpus
from jobs.synthesis.settings import Speaking
from jobs.verify import verify
from tests.fake_engine import MakeTone

ROOT = Path(__file__).resolve().parents[2]
ROWS, DELAY_S = 1200, 0.15
DRIVER = "import sys; from tests.cluster.test_pool_grows import drive; drive(*sys.argv[1:])"
linux = pytest.mark.skipif(sys.platform != "linux", reason="a trial cluster needs Linux")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), linux]


def drive(address: str, output: str) -> None:
    """What the driver's process runs: `--min 1 --max 3`."""
    plan = plan_corpus([TextRow(f"r{i:05d}", f"Row number {i} of many.") for i in range(ROWS)], Speaking(), "growing")
    running = Running(least=1, most=3, address=address)
    engine = Engine("tone", "tone-1", MakeTone(delay_s=DELAY_S))
    run_job(plan, output, engine, Speaking(), Options(rows="parquet", running=running))


def speakers(record: Record) -> int:
    """How many actors speak: they alone take CPUs."""
    command = [sys.executable, "-m", "jobs.cli", "cluster", "status", "--json", "--address", record.address]
    status = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)
    return round(sum(node["total"]["CPU"] for node in status["nodes"]) - status["free"].get("CPU", 0))


def until(what: int, record: Record, driver: subprocess.Popen) -> None:
    for _ in range(40):
        assert driver.poll() is None, "the job ended before the pool grew"
        if speakers(record) >= what:
            return
        time.sleep(1)
    raise AssertionError(f"{speakers(record)} speakers, not {what}")


def test_actors_start_on_machines_that_join_up_to_max(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "out"
    with (
        tempfile.TemporaryDirectory(prefix="ft") as place,
        LocalCluster(Path(place) / "c", cpus=1, dashboard=False) as cluster,
    ):
        record = cluster.start(1)
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", record.token)
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        with open(tmp_path / "driver.log", "wb") as log:
            command = [sys.executable, "-c", DRIVER, record.address, str(output)]
            driver = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        try:
            until(1, record, driver)
            for count in (2, 3):
                cluster.add_node()
                until(count, record, driver)
            cluster.add_node()  # a fourth machine, for which there is no worker
            time.sleep(10)
            assert speakers(record) == 3
            assert driver.wait(600) == 0, (tmp_path / "driver.log").read_text()[-3000:]
        finally:
            driver.kill()
    assert verify(str(output)).whole
