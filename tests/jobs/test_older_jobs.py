"""Jobs that an earlier version began: their state and their proof can be read, and what is to be done is said plainly."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest

from flowtts_core.errors import OutputError
from jobs import cli
from jobs.evaluation.input import find_items
from jobs.status import status
from jobs.synthesis import job as synthesis_job
from jobs.synthesis.job import Options
from jobs.synthesize import go_on, synthesize
from jobs.verify import verify
from tests.fake_engine import speak_inline

ARCHIVE = Path(__file__).with_name(
    "job-0.1.0.tar.gz"
)  # a finished job ("done") and a cut one ("half"), by version 0.1.0


@pytest.fixture
def older(tmp_path: Path) -> Path:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def test_status_and_verify_read_them(older: Path) -> None:
    assert (status(str(older / "done")).state, status(str(older / "half")).state) == ("finished", "stopped")
    assert verify(str(older / "done")).whole
    cut = verify(str(older / "half"))
    assert [(finding.kind, finding.name) for finding in cut.findings] == [("missing", "shards/00000.parquet")]
    (older / "done" / "audio" / "a.flac").write_bytes(b"fLaC")
    assert not verify(str(older / "done")).whole


def test_evaluation_reads_them(older: Path) -> None:
    assert [item.id for item in find_items(str(older / "done"))] == ["a", "b", "c"]


@pytest.mark.parametrize("name", ["done", "half"])
def test_going_on_is_refused_with_the_remedy(older: Path, name: str) -> None:
    for again in (lambda: synthesize([str(older / "rows.jsonl")], str(older / name)), lambda: go_on(str(older / name))):
        with pytest.raises(OutputError, match=r"a job of FlowTTS 0\.1\.0") as refused:
            again()
        assert "--update or --overwrite" in refused.value.remedy


def test_update_speaks_them_anew(older: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthesis_job, "speak_shards", speak_inline)
    shutil.copytree(older / "half", older / "mine")
    summary = synthesize([str(older / "rows.jsonl")], str(older / "mine"), options=Options(update=True))
    assert (summary.ok, summary.failed) == (2, 1)
    assert verify(str(older / "mine")).whole


def test_what_is_advised_is_what_works(older: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half = older / "half"
    before = {path: path.read_bytes() for path in half.rglob("*") if path.is_file()}
    assert cli.main(["status", str(half)]) == 5
    assert cli.main(["verify", str(half)]) == 5
    told = capsys.readouterr().out
    assert told.count("end it with FlowTTS 0.1.0") == 2 and "--repair" not in told and "goes on from here" not in told
    assert cli.main(["verify", str(half), "--repair"]) == 1
    assert {path: path.read_bytes() for path in half.rglob("*") if path.is_file()} == before
