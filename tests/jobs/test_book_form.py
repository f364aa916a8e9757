"""What the user makes of a book's sound: other names and files at once, kept for repairs, refused where they fit nothing."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from flowtts_core.errors import ConfigError
from flowtts_core.text.document import TextRow
from jobs import cli
from jobs.synthesis import job as synthesis_job
from jobs.synthesis.job import Options, run_job
from jobs.synthesis.pipeline import Running
from jobs.synthesis.plan import Plan, plan_book, plan_corpus
from jobs.synthesis.settings import Speaking
from jobs.synthesis.summary import Summary
from jobs.synthesize import go_on
from tests.audio_readers import read_tags
from tests.fake_engine import TONE, speak_inline
from tests.jobs.test_synthesize import book


@pytest.fixture(autouse=True)
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speak in this process: the same job without Ray's seconds."""
    monkeypatch.setattr(synthesis_job, "speak_shards", speak_inline)


def speak(plan: Plan, output: Path, **options: object) -> Summary:
    return run_job(plan, str(output), TONE, Speaking(), Options(running=Running(most=1), **options))


def cover() -> bytes:
    data = io.BytesIO()
    pytest.importorskip("PIL.Image").new("RGB", (30, 30), (200, 0, 0)).save(data, "PNG")
    return data.getvalue()


def test_a_title_and_a_cover_need_no_sentence_spoken_again_and_outlive_a_repair(tmp_path: Path) -> None:
    plan, given = plan_book(book(2, 3), Speaking()), {"title": "Mine", "cover": cover(), "read_along": True}
    speak(plan, tmp_path)
    summary = speak(plan, tmp_path, **given)
    assert summary.shards_resumed == summary.shards
    assert (summary.title, summary.files[0]) == ("Mine", "Mine.m4b")
    assert not (tmp_path / "A Trial.m4b").exists()
    assert speak(plan, tmp_path, **given).timings == summary.timings  # found finished
    made = {name: (tmp_path / name).read_bytes() for name in ("Mine.m4b", "Mine.epub", "chapters/01 - Chapter 1.mp3")}
    for name in made:
        (tmp_path / name).unlink()
    go_on(str(tmp_path), engine=TONE)
    assert {name: (tmp_path / name).read_bytes() for name in made} == made
    assert read_tags(tmp_path / "chapters/01 - Chapter 1.mp3").cover == given["cover"]
    assert speak(plan, tmp_path).files[0] == "A Trial.m4b"
    assert not (tmp_path / "Mine.epub").exists()


@pytest.mark.parametrize(("options", "told"), [
    ({"title": "Mine", "author": "Me"}, "--title and --author name one book, and this job has none"),
    ({"read_along": True}, "--read-along is of books, and this job has none"),
    ({"bitrate": 96}, "--bitrate is of books"),
])  # fmt: skip
def test_rows_have_no_use_for_what_is_of_books(tmp_path: Path, options: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        speak(plan_corpus([TextRow("a", "one")], Speaking(), "rows"), tmp_path / "out", **options)
    assert not list((tmp_path / "out").glob("*.json"))


def test_a_title_is_of_one_book_and_not_of_a_library(tmp_path: Path) -> None:
    two = [*plan_book(book(1, 2), Speaking()).items(), *plan_book(book(1, 2), Speaking()).items()]
    with pytest.raises(ConfigError, match="--title names one book, and this job has 2"):
        speak(Plan("library", "corpus", lambda: two), tmp_path, title="Mine")


@pytest.mark.parametrize(("option", "told"), [
    (["--cover", "nowhere.jpg"], "--cover nowhere.jpg: No such file"),
    (["--cover", __file__], "neither JPEG nor PNG"),
    (["--bitrate", "9"], "--bitrate 9: must be from 16 to 320 kbit/s"),
    (["--bitrate", "much"], "'much' is no number of kbit/s"),
    (["--chapter-format", "wma"], "use one of mp3, m4a, flac, opus, wav, none"),
])  # fmt: skip
def test_wrong_options_are_refused_before_anything_is_read(
    option: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = cli.main(["synthesize", "nowhere.epub", "-o", str(tmp_path / "out"), *option])
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    assert code == 2
    assert told in " ".join(capsys.readouterr().err.split())
