"""Jobs of texts of every kind: what is refused harms no other; texts in another language, rows and columns, times of cues."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from cluster.storage import Storage
from flowtts_core.errors import ConfigError, TextError
from flowtts_core.text import languages
from flowtts_core.text.languages import another_language
from jobs import cli
from jobs.synthesis import books as synthesis_books
from jobs.synthesis import job as synthesis_job
from jobs.synthesis import manifest
from jobs.synthesis.engine import Engine, Voices
from jobs.synthesis.input import ReadingOptions, read_plan
from jobs.synthesis.job import Options
from jobs.synthesis.languages import LanguageCheck
from jobs.synthesis.pipeline import Running
from jobs.synthesis.settings import Speaking
from jobs.synthesis.summary import Summary
from jobs.synthesize import synthesize
from tests.fake_engine import TONE, speak_inline
from tests.flowtts_core.test_epub import book, chapter, line
from tests.flowtts_core.test_formats import FB2, HTML, docx

FRENCH = (
    "Longtemps, je me suis couch\u00e9 de bonne heure. Parfois, \u00e0 peine ma bougie \u00e9teinte, mes yeux "
    "se fermaient si vite "
    "que je n\u2019avais pas le temps de me dire : je m\u2019endors. "
    "Et, une demi-heure apr\u00e8s, la pens\u00e9e m\u2019\u00e9veillait. "
)
ENGLISH = (
    "For a long time I used to go to bed early. Sometimes, when I had put out my candle, my eyes would close quickly. "
)
JAPANESE = "\u3053\u308c\u306f\u65e5\u672c\u8a9e\u306e\u672c\u3067\u3059\u3002" * 5


@pytest.fixture(autouse=True)
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speak in this process: the same job without Ray's seconds."""
    monkeypatch.setattr(synthesis_job, "speak_shards", speak_inline)
    monkeypatch.setattr(synthesis_books, "run_tasks", lambda make, tasks, **_: map(make(), tasks))


def run(output: Path, *inputs: Path, settings: dict | None = None) -> Summary:
    options = Options(chapter_format="none", running=Running(most=2))
    return synthesize(
        [str(path) for path in inputs], str(output), speaking=Speaking(settings or {}), options=options, engine=TONE
    )


def rows_of(output: Path) -> dict[str, dict]:
    return {row["id"]: row for row in manifest.read_manifest(Storage(str(output))).to_pylist()}


def epub(language: str, prose: str) -> bytes:
    data = book({"a.xhtml": chapter("One", prose)}, line("a.xhtml", "One"))
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as read, zipfile.ZipFile(out, "w") as written:
        for name in read.namelist():
            written.writestr(name, read.read(name).replace(b">en-GB<", f">{language}<".encode()))
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("french.epub", epub("fr", FRENCH), "its text is in 'fr'"),
        ("wrong.epub", epub("en-GB", FRENCH), "its text is in 'fr'"),
        ("short.epub", epub("jpn", "So."), "its metadata says 'jpn'"),
        ("french.txt", FRENCH.encode(), "its text is in 'fr'"),
        ("japanese.txt", JAPANESE.encode(), "its text is in 'ja'"),
        ("french.csv", f'id,text\n1,"{FRENCH}"\n'.encode(), "its text is in 'fr'"),
    ],
)
def test_an_only_input_in_another_language_is_refused_before_any_sound(
    tmp_path: Path, name: str, data: bytes, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(data)
    assert cli.main(["synthesize", str(tmp_path / name), "-o", str(tmp_path / "out"), "--voice", "natural"]) == 2
    said = capsys.readouterr().err
    assert all(part in said for part in (name, why, "--language en-us insists"))
    assert not (tmp_path / "out").exists()


def test_language_insists(tmp_path: Path) -> None:
    (tmp_path / "french.txt").write_text(FRENCH)
    with pytest.raises(ConfigError, match="voice tone reads en-us"):
        run(tmp_path / "out", tmp_path / "french.txt")
    assert run(tmp_path / "out", tmp_path / "french.txt", settings={"language": "en-us"}).failed == 0


def test_without_the_detector_letters_and_metadata_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    assert another_language(ENGLISH * 9, "en-us", declared="fr") == ""  # metadata is often wrong
    monkeypatch.setattr(languages, "detector_is_there", lambda: False)
    assert another_language(ENGLISH * 9, "en-us", declared="fr") == "its metadata says 'fr'"
    assert "its letters are" in another_language(JAPANESE, "en-us")
    assert "its letters are Latin" in another_language(ENGLISH, "ja")
    for declared in ("", "und", "eng", "en-GB", "English"):
        assert another_language(ENGLISH, "en-us", declared=declared) == ""


def test_in_a_library_what_is_refused_loses_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "library"
    folder.mkdir()
    for name, data in {
        "a.fb2": FB2.encode("cp1252"),
        "b.html": HTML.encode(),
        "c.docx": docx(("", "A word.")),
        "d.xlsx": b"PK\x03\x04xl/workbook.xml",
        "e.epub": epub("fr", FRENCH),
        "f.txt": ENGLISH.encode(),
        "g.srt": b"1\n00:00:01,000 --> 00:00:02,500\nHello there.\n",
        "h.csv": f'id;sentence\n1;"{ENGLISH}"\n2;"{FRENCH}"\n3;"Caf\u00e9."\n'.encode("cp1252"),
        "README.md": b"About these files.",
    }.items():
        (folder / name).write_bytes(data)
    summary = run(tmp_path / "out", folder)
    rows = rows_of(tmp_path / "out")
    failed = {id: row["reason"] for id, row in rows.items() if row["status"] == "failed"}
    assert failed.keys() == {"d-unread", "e-unread", "h-2"}
    assert "a spreadsheet" in failed["d-unread"]
    assert "its text is in 'fr'" in failed["e-unread"]
    assert "another language: its text is in 'fr'" in failed["h-2"]
    assert (rows["h-2"]["text"], rows["h-3"]["text"]) == (FRENCH, "Caf\u00e9.")
    assert (rows["g-cue-000001"]["cue_start"], rows["g-cue-000001"]["cue_end"]) == (1.0, 2.5)
    assert rows["h-1"]["cue_start"] is None
    assert sorted(path.parent.name for path in (tmp_path / "out").rglob("*.m4b")) == ["a", "b", "c", "f"]
    assert (summary.books, summary.exit_code) == (4, 3)


def test_a_speakers_language_is_asked_once_for_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []

    def language(self: Engine, speaker: str | None, language: str | None) -> str:
        asked.append(speaker)
        return "fr" if speaker == "jeanne" else "en-us"

    monkeypatch.setattr(Engine, "language", language)
    check = LanguageCheck(Voices(TONE), Speaking({"speaker": "anna"}))
    assert [check.row_problem(ENGLISH, None, {}) for _ in range(3)] == [""] * 3
    assert "the voice reads fr" in check.row_problem(ENGLISH, None, {"speaker": "jeanne"})
    assert asked == ["anna", "jeanne"]


def test_columns_are_chosen_by_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "x.csv"
    table.write_bytes("key;saying\n7;Caf\u00e9, please\n".encode("cp1252"))
    reading = ReadingOptions(text_column="saying", id_column="key")
    [unit] = read_plan([str(table)], reading, Speaking()).units
    assert (unit.id, unit.text) == ("7", "Caf\u00e9, please")
    with pytest.raises(TextError, match="no column 'text'; it has: 'key', 'saying'"):
        read_plan([str(table)], ReadingOptions(), Speaking())
    (tmp_path / "list.csv").write_text("input;voice\ny.csv;bell\n")
    (tmp_path / "y.csv").write_text("id;sentence\n7;Hello.\n")
    [unit] = read_plan([str(tmp_path / "list.csv")], ReadingOptions(), Speaking()).units
    assert (unit.text, unit.voice) == ("Hello.", "bell")
    arguments = ["synthesize", str(table), "-o", str(tmp_path / "out"), "--text-column", "words"]
    assert cli.main(arguments) == 1
    assert "no column 'words'; it has: 'key', 'saying'" in capsys.readouterr().err
