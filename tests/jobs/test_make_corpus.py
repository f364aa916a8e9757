"""`flowtts corpus`: any voice reads texts in words; what it does not read is listed; the result is made ready for training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.storage import Storage
from flowtts_core.errors import OutputError
from flowtts_core.text.frontends import build
from flowtts_core.training.examples import DatasetMeta
from flowtts_core.training.prepare import PrepareConfig
from flowtts_core.voice import load_card
from flowtts_core.voice.card import FLOW_VOICE
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
    english, french = teaching_plan(plan, str(voice), None, Speaking(), TextLimits()).units
    assert (english.text, french.text) == ("Page twelve", "Page 12")
    [unread, _] = teaching_plan(plan, str(tmp_path / "none"), None, Speaking(), TextLimits()).units
    assert unread.text == "Page 12"  # the job refuses the voice; the text is as it was


def test_texts_that_say_how_they_are_spoken_are_set_aside(tmp_path: Path) -> None:
    rows = [{"id": "a", "text": "Hello [pause:2s] there."}, {"id": "b", "text": "<p>So.</p>", "input_type": "ssml"}]
    rows += [{"id": "c", "text": "I [12] read [sic] it."}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    plan = read_plan([str(tmp_path / "rows.jsonl")], ReadingOptions(sentences=True), Speaking())
    units = list(teaching_plan(plan, None, None, Speaking(), TextLimits()).units)
    assert ["marks or SSML" in unit.error for unit in units] == [True, True, False]


SPOKEN = [
    'He said, "Yes." It cost $3.50 in the U.S.A., etc.',
    "Vitamin A and the A-team, A. B. Smith and W. E. B. Du Bois.",
    """"Now," he cried, "in 1984 the FBI's 3rd self-serving x-ray -- No. 5 -- ended.\"""",
    "The café had 5 rooms, with naïve Москва people, on the 22nd.",
    "Say [[həˈloʊ]] 12 times.",
    "Dr. Jones (1850-1900) lent 10% of £1,234.56 to Henry VIII.",
]


@pytest.mark.parametrize("text", SPOKEN)
@pytest.mark.parametrize("voice", ["heart", FLOW_VOICE])
def test_a_text_in_words_sounds_as_the_text_itself(voice: str, text: str) -> None:
    frontend = build(load_card(voice).parts["frontend"])
    said = words_of(text)
    assert frontend.encode(said).phonemes == frontend.encode(text).phonemes
    assert not any(character.isdigit() for character in said) and said.count('"') == text.count('"')


def test_what_cannot_be_spoken_in_full_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("It was ∮ in spring.\nIt was late.\n", encoding="utf-8")
    inputs, output = [str(tmp_path / "texts.txt"), "--lines"], str(tmp_path / "corpus")
    assert cli.main(["corpus", *inputs, "-o", output]) == 3
    assert {text: row["reason"] for text, row in rows_of(tmp_path / "corpus").items()} == {
        "It was ∮ in spring.": "not spoken: ∮",
        "It was late.": None,
    }


def test_a_job_tells_what_it_did_not_speak(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "texts.txt").write_text("It was ∮ in spring.\nIt was late.\n", encoding="utf-8")
    assert cli.main(["synthesize", str(tmp_path / "texts.txt"), "--lines", "-o", str(tmp_path / "out")]) == 0
    assert "1 text not spoken in full: column `dropped` of manifest.parquet\n    ∮\n" in capsys.readouterr().out
    assert [row["dropped"] for row in rows_of(tmp_path / "out").values()] == [["∮"], None]
    assert "not spoken in full: ∮" in (tmp_path / "out" / "report.html").read_text()


def test_a_teachers_speaker_is_not_that_of_other_voices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    voice = make_piper_voice(tmp_path / "user@host", speakers=3)
    rows = [{"id": "a", "text": "one two"}, {"id": "b", "text": "one two", "voice": "heart"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["corpus", str(tmp_path / "rows.jsonl"), "-o", str(tmp_path / "corpus"), "--teacher"]
    assert cli.main([*command, f"{voice}@speaker-2", "--speaker", "speaker-1"]) == 2
    assert "name two speakers" in capsys.readouterr().err
    assert cli.main([*command, f"{voice}@speaker-2"]) == 0
    rows = read_manifest(Storage(str(tmp_path / "corpus"))).to_pylist()
    assert {row["id"]: row["speaker"] for row in rows} == {"a": "speaker-2", "b": None}


@pytest.mark.parametrize("teacher", ["heart@nobody", "none", "jf"])
def test_a_corpus_that_is_refused_leaves_no_trace(tmp_path: Path, teacher: str) -> None:
    if teacher == "jf":
        teacher = f"{make_kokoro_voice(tmp_path / 'kokoro')}@nobody"
    (tmp_path / "texts.txt").write_text("It was late.\n")
    command = ["corpus", str(tmp_path / "texts.txt"), "--lines", "-o", str(tmp_path / "corpus")]
    assert cli.main([*command, "--teacher", teacher]) == 1
    assert cli.main(command) == 0
