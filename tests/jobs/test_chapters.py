"""`flowtts chapters`: it lists what `synthesize` makes, and both tell what of a book is not read."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from cluster import plan as plans
from cluster.storage import Storage
from jobs import cli
from jobs.chapters import list_books
from jobs.synthesis import books as synthesis_books
from jobs.synthesis import job as synthesis_job
from jobs.synthesis.input import ReadingOptions, read_plan
from jobs.synthesis.job import Options, run_job
from jobs.synthesis.manifest import read_manifest
from jobs.synthesis.settings import Speaking
from jobs.synthesize import tell
from tests.fake_engine import TONE, speak_inline
from tests.flowtts_core.test_epub import PROSE, book, chapter, line, page

TOC = line("a.xhtml", "Part One", line("b.xhtml", "I") + line("c.xhtml", "II")) + line("i.xhtml", "Imprint")


@pytest.fixture
def epub(tmp_path: Path) -> Path:
    marked = page(f"<h2>II</h2><p>{PROSE}<sup>1</sup></p><p hidden='hidden'>Unseen</p>")
    pages = {"a.xhtml": page("<h1>Part One</h1>"), "b.xhtml": chapter("I"), "c.xhtml": marked}
    path = tmp_path / "book.epub"
    path.write_bytes(book(pages | {"i.xhtml": page("<p>Printed in London.</p>")}, TOC))
    return path


def test_the_list_is_what_synthesize_makes(epub, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(synthesis_job, "speak_shards", speak_inline)
    monkeypatch.setattr(synthesis_books, "run_tasks", lambda make, tasks, **_: map(make(), tasks))
    assert cli.main(["chapters", str(epub), "--json"]) == 0
    [listed] = json.loads(capsys.readouterr().out)
    output = str(tmp_path / "out")
    plan = read_plan([str(epub)], ReadingOptions(), Speaking())
    summary = run_job(plan, output, TONE, Speaking(), Options(chapter_format="none"))
    stored = plans.load(Storage(output))
    assert (
        [c["title"] for c in listed["chapters"]]
        == stored.notes["books"][0]["chapters"]
        == ["Part One: I", "Part One: II"]
    )
    made = Counter(read_manifest(Storage(output), ["chapter"]).column("chapter").to_pylist())
    assert {c["number"]: c["sentences"] for c in listed["chapters"]} == made
    assert [(each["reason"], each["text"]) for each in listed["left_out"]] == [
        ("note marks", "1"),
        ("hidden by its style", "Unseen"),
        ("front and back matter", "Printed in London."),
    ]
    capsys.readouterr()
    tell(summary, False)
    told = capsys.readouterr().out
    report = (tmp_path / "out" / "report.html").read_text()
    for note in (
        "left out: note marks, 1: 1",
        "left out: hidden by its style, 1: Unseen",
        "left out: front and back matter, 1: Printed in London.",
    ):
        assert note in summary.notes and note in told and note in report


def test_the_list_for_people(epub, capsys):
    assert cli.main(["chapters", str(epub)]) == 0
    told = capsys.readouterr().out
    assert "A Book by Ann Author, Bob Writer (en-GB): 2 chapters, 7 sentences, about 0 minutes" in told
    assert "Part One: II" in told and "left out: note marks, 1: 1" in told
    assert cli.main(["chapters", str(epub), "--left-out"]) == 0
    assert "left out: front and back matter (Imprint): Printed in London." in capsys.readouterr().out


def test_minutes_are_of_characters_and_pauses(tmp_path):
    path = tmp_path / "long.txt"
    path.write_text("Chapter 1\n\n" + f"{PROSE}\n\n" * 30 + "Chapter 2\n\nSo.\n")
    [listed] = list_books(read_plan([str(path)], ReadingOptions(), Speaking()))
    first, second = listed.chapters
    pauses_s = 1.2 + 30 * (0.35 + 0.7)
    assert first.minutes == pytest.approx((first.characters / 16.5 + pauses_s) / 60)
    assert (first.warnings, second.warnings) == ([], ["only 3 words"])


def test_what_a_voice_cannot_say_is_told_by_chapter(tmp_path, capsys):
    path = tmp_path / "x.txt"
    path.write_text(f"Chapter 1\n\nHe saw \U00010348 twice, \U00010348. {PROSE}\n\nChapter 2\n\n{PROSE}\n")
    plan = read_plan([str(path)], ReadingOptions(), Speaking())
    [listed] = list_books(plan, lambda unit: [letter for letter in unit.text if letter == "\U00010348"])
    assert [c.warnings for c in listed.chapters] == [["2 not said: '\U00010348' 2 times"], []]
    assert cli.main(["chapters", str(path), "--voice", "heart", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["chapters"][1]["warnings"] == []


@pytest.mark.parametrize("name", ["rows.jsonl", "absent.epub"])
def test_what_has_no_chapters_is_named(tmp_path, capsys, name):
    (tmp_path / "rows.jsonl").write_text('{"id": "a", "text": "One."}\n')
    assert cli.main(["chapters", str(tmp_path / name)]) == 1
    said = capsys.readouterr().err
    assert name in said and "remedy" in said
