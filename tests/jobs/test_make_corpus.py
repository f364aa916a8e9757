"""`flowtts corpus`: any voice reads texts in words; what it does not read is listed; the result is made ready for training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.storage import Storage
from flowtts_core.errors import OutputError
from flowtts_core.training.examples import DatasetMeta
from flowtts_core.training.prepare import PrepareConfig
from jobs import cli
from jobs.corpus.teach import TextLimits, teaching_plan, words_of
from jobs.prepare import prepare
from jobs.synthesis import job as synthesis_job
from jobs.synthesis.input import ReadingOptions, read_plan
from jobs.synthesis.manifest import read_manifest
from jobs.synthesis.settings import Speaking
from tests.fake_engine import speak_inline
from tests.onnx_graphs import make_kokoro_voice, make_piper_voice

BOOK = "CHAPTER I\n\nIn 1470 he paid $3. Nobody was at home.\n\nNo.\n\nDr. Smith went home at 9 o'clock.\n"


@pytest.fixture(autouse=True)
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthesis_job, "speak_shards", speak_inline)


def rows_of(output: Path) -> dict[str, dict]:
    return {row["text"]: row for row in read_manifest(Storage(str(output))).to_pylist()}


def test_a_book_becomes_clips_that_can_be_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "book.txt").write_text(BOOK, encoding="utf-8")
    command = ["corpus", str(tmp_path / "book.txt"), "-o", str(tmp_path / "corpus"), "--teacher", "heart"]
    assert cli.main(command) == 3
    texts = [line.split("|")[1] for line in (tmp_path / "corpus" / "metadata.csv").read_text().splitlines()]
    assert texts[-3:] == [
        "In fourteen seventy he paid three dollars.", "Nobody was at home.", "doctor Smith went home at nine o'clock.",
    ]  # fmt: skip
    [aside] = [json.loads(line) for line in (tmp_path / "corpus" / "quarantine.jsonl").read_text().splitlines()]
    assert (aside["text"], aside["reason"]) == ("No.", "shorter than 4 characters")
    assert "1 set aside in quarantine.jsonl" in capsys.readouterr().out
    sounds = {path: path.stat().st_mtime_ns for path in (tmp_path / "corpus" / "audio").iterdir()}
    assert cli.main(command) == 3 and all(path.stat().st_mtime_ns == when for path, when in sounds.items())
    made = prepare(tmp_path / "corpus", tmp_path / "data", PrepareConfig(resample=True), workers=1)
    assert made.clips == len(texts) and not made.set_aside
    assert DatasetMeta.load(Storage(str(tmp_path / "data"))).source == "corpus"


def test_a_teacher_of_several_speakers_and_rows_that_choose(tmp_path: Path) -> None:
    voice = make_piper_voice(tmp_path / "many", speakers=3)
    rows = [{"id": "a", "text": "one two"}, {"id": "b", "text": "one two", "speaker": "speaker-1"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["corpus", str(tmp_path / "rows.jsonl"), "-o", str(tmp_path / "corpus"), "--teacher"]
    assert cli.main([*command, f"{voice}@speaker-2"]) == 0
    rows = read_manifest(Storage(str(tmp_path / "corpus"))).to_pylist()
    assert {row["id"]: row["speaker"] for row in rows} == {"a": "speaker-2", "b": "speaker-1"}
    assert len({row["sha256"] for row in rows}) == 2


def test_other_limits_are_another_corpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "book.txt").write_text(BOOK, encoding="utf-8")
    command = ["corpus", str(tmp_path / "book.txt"), "-o", str(tmp_path / "corpus"), "--teacher", "heart"]
    assert cli.main(command) == 3
    assert cli.main([*command, "--min-chars", "2"]) == OutputError.exit_code
    assert "holds another job" in capsys.readouterr().err
    assert cli.main([*command, "--min-chars", "2", "--update"]) == 0
    assert cli.main([*command, "--min-chars", "9", "--max-chars", "8"]) != 0


def test_only_english_is_written_out(tmp_path: Path) -> None:
    voice = make_kokoro_voice(tmp_path / "kokoro")
    (tmp_path / "rows.jsonl").write_text(
        json.dumps({"id": "a", "text": "Page 12"})
        + "\n"
        + json.dumps({"id": "b", "text": "Page 12", "language": "fr-fr"})
    )
    plan = read_plan([str(tmp_path / "rows.jsonl")], ReadingOptions(sentences=True), Speaking())
    english, french = teaching_plan(plan, str(voice), Speaking(), TextLimits()).units
    assert (english.text, french.text) == ("Page twelve", "Page 12")
    [unread, _] = teaching_plan(plan, str(tmp_path / "none"), Speaking(), TextLimits()).units
    assert unread.text == "Page 12"  # the job refuses the voice; the text is as it was


@pytest.mark.parametrize("text", ["12 日本", "Say [[həˈloʊ]] 12."])
def test_what_english_cannot_write_out_stays(text: str) -> None:
    assert words_of(text) == text
