"""`flowtts watermark detect -o`: each sound of a library has one row, and an interrupted job goes on to the same table."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flowtts_core.audio.files import encode, read_audio, write_audio
from flowtts_core.watermark.marking import Marking
from jobs.cli import main
from tests.jobs.test_codec import in_process  # noqa: F401  # fixture

pytestmark = pytest.mark.usefixtures("in_process")


@pytest.fixture
def library(shared_data: Path, tmp_path: Path) -> Path:
    """Seven sounds, two of them marked and two that are none: files, rows of Parquet, and a tar, two files of one name."""
    path = next(path for path in sorted((shared_data / "ljspeech").rglob("*")) if path.suffix in (".wav", ".flac"))
    sound, rate = read_audio(path)
    sound = sound[: 4 * rate]
    marked = Marking(7).marked(sound, rate)
    folder = tmp_path / "library"
    (folder / "deep").mkdir(parents=True)
    write_audio(folder / "a.wav", sound, rate)
    write_audio(folder / "a.flac", marked, rate)
    write_audio(folder / "deep/silent.wav", np.zeros(rate, np.float32), rate)
    (folder / "broken.wav").write_bytes(b"RIFF")
    rows = [{"id": "x", "audio": encode(marked, rate)}, {"id": "y", "audio": b""}]
    pq.write_table(pa.Table.from_pylist(rows), folder / "more.parquet")
    with tarfile.open(folder / "some.tar", "w") as tar:
        tar.add(folder / "a.wav", "key.wav")
    return folder


def table_of(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_each_sound_has_a_row_and_an_interrupted_job_goes_on(
    library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = library / "findings"  # within the library: what a job writes is none of its inputs
    line = ["watermark", "detect", str(library), str(library / "a.wav"), "-o", str(out), "--sounds-per-file", "2"]
    assert main(line) == 3
    assert "7 sounds, 0.00 h: 2 marked, 3 unmarked, 2 unreadable" in capsys.readouterr().out
    table = table_of(out)
    rows = {f"{row['file']}#{row['row']}".removeprefix(f"{library}/"): row for row in table}
    assert len(table) == len(rows) == 7
    found = rows["a.flac#None"]
    assert (found["id"], found["marked"], found["number"], found["seconds"]) == ("a", True, 7, 4.0)
    assert found["share"] > 0.6 and abs(found["spans"][0]["end_s"] - 4) < 0.1 and found["error"] is None
    assert rows["more.parquet#0"]["marked"] and rows["more.parquet#0"]["id"] == "x"
    for name in ("a.wav#None", "some.tar#key.wav#None", "deep/silent.wav#None"):
        assert rows[name]["marked"] is False and rows[name]["spans"] == [] and rows[name]["number"] is None
    assert rows["deep/silent.wav#None"]["score"] is None
    for name, why in (("broken.wav#None", "not readable"), ("more.parquet#1", "holds no bytes")):
        assert rows[name]["marked"] is None and why in rows[name]["error"]
    card = json.loads((out / "findings.json").read_text())
    assert (card["sounds"], card["marked"], card["unmarked"], card["unreadable"], card["key"]) == (7, 2, 3, 2, "")

    files = sorted(out.glob("*.parquet"))
    assert [path.name for path in files] == card["files"] and len(files) == 4
    for path in [*files[::2], out / "findings.json"]:
        path.unlink()
    assert main([*line, "--json"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert (told["kept"], told["sounds"], told["unreadable"]) == (2, 7, 2)
    assert table_of(out) == table and json.loads((out / "findings.json").read_text()) == card


def test_findings_of_another_key_are_not_mixed(
    library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, out = tmp_path / "key", tmp_path / "findings"
    key.write_bytes(b"0123456789abcdef")
    sound, rate = read_audio(library / "a.wav")
    write_audio(library / "own.wav", Marking(9, key.read_bytes()).marked(sound, rate), rate)
    line = ["watermark", "detect", *(str(library / name) for name in ("a.flac", "a.wav", "own.wav")), "-o", str(out)]
    assert main(line) == 0
    assert "1 marked, 2 unmarked" in capsys.readouterr().out
    before = (out / "findings-00000.parquet").read_bytes()
    assert main([*line, "--key", str(key)]) == 1
    assert "made with other settings" in capsys.readouterr().err
    assert (out / "findings-00000.parquet").read_bytes() == before
    assert main([*line, "--key", str(key), "--overwrite"]) == 0
    assert "1 marked by the key, 1 by the public pattern, 1 unmarked" in capsys.readouterr().out
    found = {Path(row["file"]).name: (row["marked"], row["own_key"], row["number"]) for row in table_of(out)}
    assert found == {"a.flac": (True, False, 7), "a.wav": (False, False, None), "own.wav": (True, True, 9)}
    card = (out / "findings.json").read_text()
    assert json.loads(card)["key"] and "0123456789abcdef" not in card


def test_wrong_usage_is_told(library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["-o", str(tmp_path / "findings")]
    for words, why in (
        ([str(library), "--workers", "2"], "are for a job"),
        ([str(library), *out, "--workers", "0"], "1 or more"),
        ([str(tmp_path / "nowhere"), *out], "no sounds there"),
        ([str(library), *out, "--mark", str(tmp_path)], "not a watermark"),
    ):
        assert main(["watermark", "detect", *words]) in (1, 2) and why in capsys.readouterr().err
    assert not (tmp_path / "findings").exists()
