"""`flowtts train --status`: what a run's folder tells of it."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.storage import Storage
from flowtts_core.errors import DependencyError, OutputError, TextError
from flowtts_core.training.files import LocalFiles
from jobs import cli
from jobs.train import train
from jobs.training import tracking
from jobs.training.outcome import Outcome, note_outcome, noted
from jobs.training.page import write_page
from jobs.training.run import TrainingRun, open_run, runs_of, train_rank
from jobs.training.starts import note_start
from jobs.training.status import SILENT_S, _state, statuses
from jobs.training.tracking import EXPERIMENT
from tests.jobs.test_train_job import quick
from tests.speech_like import write_examples


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_examples(tmp_path_factory.mktemp("data"), [40 + 3 * i for i in range(20)])


def begun(data: Path, output: Path) -> TrainingRun:
    """A run of 4 steps that was cut at step 2."""
    this = open_run(runs_of(output), data, quick())
    note_start(this.files, 0, 1)
    train_rank(replace(this, stop_at=2))
    this.files.delete("outcome.json")  # as a killed one leaves it
    return this


def status_told(output: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = cli.main(["train", "-o", str(output), "--status"])
    return code, capsys.readouterr().out


def test_the_status_of_a_run_from_its_cut_to_its_end(data, tmp_path, capsys):
    this = begun(data, tmp_path / "amy")
    code, told = status_told(tmp_path / "amy", capsys)
    assert code == 5
    assert "stopped (its process is gone" in told and "the same command goes on" in told
    assert "step 2 of 4 (50.0 %)" in told and "last checkpoint: step 2; starts: 1" in told
    with Storage(this.folder).lock():
        code, told = status_told(tmp_path / "amy", capsys)
    assert (code, ": running\n" in told) == (0, True)
    train_rank(this)
    code, told = status_told(tmp_path / "amy", capsys)
    assert (code, ": finished\n" in told) == (0, True)
    assert cli.main(["train", str(tmp_path / "amy"), "--status", "--json"]) == 0
    [run] = json.loads(capsys.readouterr().out)
    logged = json.loads((Path(this.folder) / "log.jsonl").read_text().splitlines()[-1])
    assert (run["step"], run["steps"], run["checkpoint"], run["workers"]) == (4, 4, 4, 1)
    assert run["loss"] == pytest.approx(logged["acoustic/loss"], abs=1e-5)
    assert run["validation"] == pytest.approx(logged["validation/loss"], abs=1e-5)
    assert run["best_step"] in (2, 4) and run["steps_per_second"] > 0


@pytest.mark.parametrize(("state", "expected"), [("diverged", 1), ("failed", 1), ("stopped", 5)])
def test_why_a_run_failed_is_told_with_what_to_do(state, expected, data, tmp_path, capsys):
    this = begun(data, tmp_path / "amy")
    note_outcome(this.files, Outcome(state, 2, "step 2: it broke", "mend it"))
    code, told = status_told(tmp_path / "amy", capsys)
    assert code == expected
    assert f": {state} (step 2: it broke)" in told and told.endswith("  mend it\n")


def test_the_reason_of_a_failure_is_noted_and_the_next_start_takes_it_away(data, tmp_path):
    this = begun(data, tmp_path / "amy")
    with pytest.raises(TextError), noted(this.files):
        raise TextError("no such clip", "look again")
    assert [(run.state, run.why) for run in statuses(str(tmp_path / "amy"))] == [("failed", "no such clip")]

    def interrupted() -> None:
        assert "outcome.json" not in this.files.list()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), noted(this.files):
        interrupted()
    [run] = statuses(str(tmp_path / "amy"))
    assert (run.state, run.why, run.remedy) == ("stopped", "interrupted", "the same command goes on from here")


def test_the_run_that_was_at_work_last_comes_first_and_stages_are_found(data, tmp_path):
    begun(data, tmp_path / "amy-training" / "vocoder")  # as a recipe of several stages lays them
    time.sleep(0.02)
    note_start(begun(data, tmp_path / "amy").files, 2, 3)
    runs = statuses(str(tmp_path / "amy"))
    assert [run.workers for run in runs] == [3, 1]
    with pytest.raises(OutputError, match="no training there"):
        statuses(str(tmp_path / "joe"))


@pytest.mark.parametrize(
    ("ago", "at_end", "state"),
    [
        (None, False, "silent"),
        (5.0, False, "running"),
        (SILENT_S + 1, False, "silent"),
        (SILENT_S + 1, True, "finished"),
    ],
)
def test_where_there_are_no_locks_time_tells(ago, at_end, state):
    assert _state(None, ago, at_end)[0] == state


def test_the_page_shows_the_curves_and_the_samples_of_each_step(data, tmp_path):
    this = open_run(runs_of(tmp_path / "amy"), data, quick(steps=4, log_every=1, sample_every=2))
    train_rank(replace(this, stop_at=2))
    page = Path(this.folder, "index.html")
    assert page.read_text().count("<audio") == 1
    train_rank(this)
    ended = page.read_text()
    assert "Step 4 of 4. It has ended." in ended and "http-equiv=refresh" not in ended
    played = re.findall(r'src="(samples/[^"]+)"', ended)
    assert len(played) == 2 and all(Path(this.folder, name).is_file() for name in played)
    paths = re.findall(r'<path class=(\w+) d="M([^"]+)"', ended)
    assert [(kind, path.count(",")) for kind, path in paths] == [("training", 4), ("validation", 2)]
    assert statuses(str(tmp_path / "amy"))[0].page == str(page)


def test_the_page_of_a_run_at_work_refreshes_and_cut_or_endless_values_are_left_out(tmp_path):
    lines = [{"step": 1, "a/loss": 3.0}, {"step": 2, "a/loss": None}, {"step": 3, "a/loss": 1.0}]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 4, "a/l')
    write_page(LocalFiles(tmp_path), "amy", 9, "", running=True)
    page = (tmp_path / "index.html").read_text()
    assert "http-equiv=refresh" in page and "Step 3 of 9." in page and "No samples yet" in page
    assert "training: from 3 to 1" in page


def test_settings_and_losses_are_logged_to_mlflow(data, tmp_path):
    pytest.importorskip("mlflow", reason="needs pip install 'flowtts[mlflow]'")
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    this = replace(open_run(runs_of(tmp_path / "amy"), data, quick(steps=4)), mlflow=uri)
    scalars = train_rank(this)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    [run] = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == (this.title, "FINISHED")
    assert run.data.params["trainer.steps"] == "4"
    logged = client.get_metric_history(run.info.run_id, "validation/loss")
    assert [metric.step for metric in logged] == [2, 4]
    assert logged[-1].value == pytest.approx(scalars["validation/loss"])
    assert run.data.metrics["acoustic/loss"] == pytest.approx(scalars["acoustic/loss"])


def test_mlflow_that_is_not_installed_is_missed_before_training(data, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"pip install 'flowtts\[mlflow\]'"):
        train(data, tmp_path / "amy", quick(), mlflow="sqlite:///nowhere.db")


class Away:
    """An MLflow whose server does not answer."""

    def log_metrics(self, *_: object, **__: object) -> None:
        raise ConnectionError("no route")


def test_a_server_that_does_not_answer_ends_no_training():
    told: list[str] = []
    gone = tracking.Tracking.__new__(tracking.Tracking)
    gone._uri, gone._tell, gone._mlflow = "http://host", told.append, Away()
    gone.log(3, {"loss": 1.0})
    assert told == ["step 3: MLflow at http://host took no metrics: no route"]
