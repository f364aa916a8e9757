"""Evaluation: every way clips can lie, bad clips set aside, exit codes, resume, and a page that holds its sound."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flowtts_core.audio.files import encode, write_audio
from flowtts_core.errors import AudioError, ConfigError, OutputError, TextError
from flowtts_core.metrics.judges import PanelConfig
from jobs import cli
from jobs.evaluation import Options, compare, evaluate, load, requirement_of
from jobs.evaluation_input import find_items, read_clip
from tests.speech_like import buzz

RATE = 16000


def sound(seed: int, seconds: float = 0.5) -> np.ndarray:
    return buzz(round(seconds * RATE), 90 + 7 * seed, RATE)


def write_clips(folder: Path, n: int, gain: float = 0.5, first: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(first, first + n):
        write_audio(folder / f"c{i:02d}.wav", gain * sound(i), RATE)
        (folder / f"c{i:02d}.txt").write_text(f"Clip number {i}.\n", encoding="utf-8")
    return folder


def test_clips_of_a_folder_and_of_ljspeech(tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "loose", 2)
    items = find_items(str(folder))
    assert [(item.id, item.text, item.place) for item in items] == [
        ("c00", "Clip number 0.", "c00.wav"),
        ("c01", "Clip number 1.", "c01.wav"),
    ]
    (folder / "metadata.csv").write_text("c00|Raw 0|Read 0\nc07|Raw 7|Read 7\n", encoding="utf-8")
    there, lost = find_items(str(folder))
    assert (there.text, there.error) == ("Read 0", "")
    assert "c07" in lost.error


def test_clips_of_librispeech_and_equal_names(tmp_path: Path) -> None:
    for speaker in ("12", "13"):
        write_clips(tmp_path / speaker, 1)
        (tmp_path / speaker / "c00.txt").unlink()
    (tmp_path / "12" / "12.trans.txt").write_text("c00 WHAT WAS SAID\n", encoding="utf-8")
    assert [item.id for item in find_items(str(tmp_path))] == ["12/c00", "13/c00"]
    assert find_items(str(tmp_path / "12"))[0].text == "WHAT WAS SAID"


@pytest.mark.parametrize("wrapped", [False, True], ids=["bytes", "datasets"])
def test_clips_of_parquet(wrapped: bool, tmp_path: Path) -> None:
    data = encode(0.5 * sound(1), RATE, ".flac")
    audio = {"bytes": data, "path": "x.flac"} if wrapped else data
    pq.write_table(pa.Table.from_pylist([{"audio": audio, "text": "One.", "id": "one"}]), tmp_path / "a.parquet")
    for root in (tmp_path / "a.parquet", tmp_path):
        (item,) = find_items(str(root))
        assert (item.id, item.text) == ("one", "One.")
        waveform, rate = read_clip(str(root), item.place)
        assert (rate, len(waveform)) == (RATE, RATE // 2)
    pq.write_table(pa.Table.from_pylist([{"text": "no sound"}]), tmp_path / "a.parquet")
    with pytest.raises(TextError, match="no column of audio"):
        find_items(str(tmp_path / "a.parquet"))


def test_nothing_to_judge(tmp_path: Path) -> None:
    with pytest.raises(TextError, match="holds no clips"):
        find_items(str(tmp_path))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(TextError, match=r"broken\.parquet|cannot be read"):
        find_items(str(tmp_path))
    with pytest.raises(AudioError, match="no such file"):
        read_clip(str(tmp_path), "gone.wav")


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of ten good and three bad clips, judged against ten others by the command."""
    base = tmp_path_factory.mktemp("evaluation")
    folder = write_clips(base / "made", 10)
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("this is no sound", encoding="utf-8")
    (folder / "cut.flac").write_bytes(encode(sound(1), RATE, ".flac")[:50])
    write_clips(base / "real", 10, first=20)
    command = ["evaluate", str(folder), "--reference", str(base / "real"), "--judges", "shape", "--no-progress"]
    code = cli.main([*command, "-o", str(base / "out"), "--require", "clipped<0.5", "--workers", "2"])
    assert code == 3  # judged, but not all of it
    return base


def test_bad_clips_are_counted_and_cost_no_other(judged: Path) -> None:
    summary = json.loads((judged / "out/scores.json").read_text(encoding="utf-8"))
    assert (summary["clips"], summary["failed"]) == (13, 3)
    assert summary["scores"]["seconds"]["value"] == pytest.approx(0.5)
    assert (summary["scores"]["seconds"]["n"], summary["scores"]["seconds"]["failed"]) == (10, 3)
    assert any("text.wav" in reason for reason in summary["reasons"])
    assert summary["requirements"] == [{"required": "clipped < 0.5", "found": 0.0, "met": True}]
    assert summary["distances"]["kad.mel"]["n_reference"] == 10
    clips = pq.read_table(judged / "out/clips.parquet").to_pylist()
    assert sum(row["status"] == "failed" for row in clips) == 3
    assert (judged / "out/clips.csv").read_text(encoding="utf-8").count("\n") == 14


def test_the_page_holds_its_sound(judged: Path) -> None:
    page = (judged / "out/report.html").read_text(encoding="utf-8")
    assert "3 of 13 clips could not be judged" in page
    assert page.count("data:audio/mpeg;base64,") == 10
    assert "http" not in page.replace("http-equiv", "")


def test_a_finished_evaluation_is_not_done_again(judged: Path) -> None:
    parts = {path: path.stat().st_mtime_ns for path in (judged / "out").rglob("parts/*.parquet")}
    seen: list[tuple[int, int]] = []
    found = evaluate(
        str(judged / "made"),
        str(judged / "real"),
        str(judged / "out"),
        Options(PanelConfig(("shape",))),
        lambda a, b: seen.append((a, b)),
    )
    assert seen == [(23, 23)]
    assert found.parts_resumed == 1
    assert {path: path.stat().st_mtime_ns for path in parts} == parts
    assert load(str(judged / "out")).scores == found.scores
    assert all(difference["value"] == 0 for difference in compare(found, load(str(judged / "out"))).values())
    with pytest.raises(OutputError, match="another evaluation"):
        evaluate(str(judged / "made"), None, str(judged / "out"), Options(PanelConfig(("shape",))), lambda a, b: None)


def test_an_unmet_requirement_sets_the_exit_code(judged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["evaluate", str(judged / "made"), "--reference", str(judged / "real"), "--judges", "shape", "--json"]
    code = cli.main([*command, "-o", str(judged / "out"), "--require", "seconds>2", "--against", str(judged / "out")])
    assert code == 4
    printed = json.loads(capsys.readouterr().out)
    assert printed["requirements"][0]["met"] is False
    assert printed["differences"][str(judged / "out")]["seconds"]["value"] == 0


@pytest.mark.parametrize("text", ["wer", "wer=0.3", "wer<=0.3", "taste<1", "wer<", "0.3>wer"])
def test_requirements_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="wer|taste"):
        requirement_of(text, PanelConfig())


def test_requirements() -> None:
    assert requirement_of(" wer < 0.3", PanelConfig()).met(0.2)
    assert not requirement_of("wer<0.3", PanelConfig()).met(0.3)
    assert not requirement_of("kad.mel<1", PanelConfig()).met(None)  # what was not measured is not met
    with pytest.raises(ConfigError, match="no judge 'taste'"):
        PanelConfig(("taste",))


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "made", 1)
    shutil.copy(folder / "c00.txt", tmp_path / "made-notes.txt")
    with pytest.raises(OutputError, match="not empty"):
        evaluate(str(folder), None, str(tmp_path), Options(PanelConfig(("shape",))), lambda a, b: None)
