"""Many inputs in one job: each row once, each book in its folder, what changed done again, and the proof."""

from __future__ import annotations

import json
import shutil
import socket
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from cluster import plan as plans
from cluster.storage import Storage, find_inputs
from flowtts_core.errors import ConfigError, OutputError, TextError, VoiceError
from flowtts_core.text.document import TextRow
from jobs import cli, synthesize
from jobs.status import status, told
from jobs.synthesis import books as synthesis_books
from jobs.synthesis import job as synthesis_job
from jobs.synthesis import manifest
from jobs.synthesis.engine import Engine, Voices
from jobs.synthesis.input import ReadingOptions, read_plan
from jobs.synthesis.job import Interrupted, Options, run_job
from jobs.synthesis.pipeline import Running
from jobs.synthesis.plan import plan_corpus
from jobs.synthesis.progress import Progress
from jobs.synthesis.settings import Speaking
from jobs.synthesis.summary import Summary
from jobs.verify import repair, verify
from tests.fake_engine import TONE, MakeTone, speak_inline, store_here

BELL = Engine("bell", "bell-1", MakeTone(), licence="CC0-1.0")


@pytest.fixture(autouse=True)
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speak in this process: the same job without Ray's seconds."""
    monkeypatch.setattr(synthesis_job, "speak_shards", speak_inline)
    monkeypatch.setattr(synthesis_books, "run_tasks", lambda make, tasks, **_: map(make(), tasks))


def voice_of(name: str) -> Engine:
    if name != "bell":
        raise VoiceError(f"no voice {name!r}")
    return BELL


def run(inputs: list[Path], output: Path, **options: object) -> Summary:
    speaking = options.pop("speaking", Speaking())
    given = Options(**{"chapter_format": "none", "running": Running(most=2), **options})
    plan = read_plan([str(path) for path in inputs], ReadingOptions(), speaking)
    return run_job(plan, str(output), TONE, speaking, given, voice_of)


def rows_of(output: Path) -> dict[str, dict]:
    return {row["id"]: row for row in manifest.read_manifest(Storage(str(output))).to_pylist()}


@pytest.fixture
def library(tmp_path: Path) -> Path:
    folder = tmp_path / "library"
    (folder / "more").mkdir(parents=True)
    (folder / "one.txt").write_text("Chapter 1\n\nIt was a fine day. Nobody came.\n\nChapter 2\n\nThen it rained.")
    (folder / "more" / "two.txt").write_text("A short one. It ends here.")
    rows = [
        {"id": "a", "text": "Row a."},
        {"id": "b", "text": "Row b is longer.", "voice": "bell", "speed": 2.0, "seed": 5},
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "broken.epub").write_bytes(b"PK no zip")
    return folder


def test_a_folder_of_books_and_tables_is_one_job(library: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = run([library], out)
    rows = rows_of(out)
    assert (summary.kind, summary.books, summary.failed, summary.exit_code) == ("corpus", 2, 1, 3)
    assert {"rows-a", "rows-b", "one-0001-0001", "two-0001-0001", "broken-unread"} <= rows.keys()
    assert "broken.epub" in rows["broken-unread"]["reason"]
    names = ("voice", "model", "licence", "speed", "seed")
    assert [rows["rows-b"][name] for name in names] == ["bell", "bell-1", "CC0-1.0", 2, 5]
    assert rows["rows-a"]["num_samples"] > 0
    names = sorted(str(path.relative_to(out)) for path in out.rglob("*.m4b"))
    assert names == ["books/one/one.m4b", "books/two/two.m4b"]
    assert [line.split("|")[0] for line in (out / "metadata.csv").read_text().splitlines()] == ["rows-a", "rows-b"]
    assert "one.m4b" in (out / "report.html").read_text()
    assert verify(str(out)).whole
    assert run([library], out).shards_resumed == summary.shards


def test_a_list_of_inputs_gives_each_its_voice_and_seed(library: Path, tmp_path: Path) -> None:
    lines = [
        {"input": "one.txt", "voice": "bell", "seed": 9},
        {"input": "more/*.txt", "speed": 0.5},
        {"input": "rows.jsonl"},
    ]
    (library / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run([library / "list.jsonl"], tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert {row["voice"] for id, row in rows.items() if id.startswith("one-")} == {"bell"}
    assert rows["two-0001-0001"]["speed"] == 0.5
    assert rows["rows-b"]["voice"] == "bell"  # its own line says so
    plain = tmp_path / "plain"
    run([library / "one.txt", library / "rows.jsonl"], plain)
    assert rows_of(plain)["one-0001-0001"]["seed"] != rows["one-0001-0001"]["seed"]


def test_patterns_folders_and_lists_name_what_is_there(library: Path, tmp_path: Path) -> None:
    def names(pattern: str) -> list[str]:
        return [Path(file.path).name for file in find_inputs(pattern, (".txt",))]

    assert names(f"{library}/**/*.txt") == ["two.txt", "one.txt"]
    assert names(str(library)) == ["two.txt", "one.txt"]
    for absent in (f"{library}/*.pdf", str(tmp_path / "nowhere"), "list"):
        (tmp_path / "list.csv").write_text(f"input,voice\n{absent},x\n")
        with pytest.raises(TextError, match="no such file"):
            read_plan([absent if absent != "list" else str(tmp_path / "list.csv")], ReadingOptions(), Speaking())


def test_the_plan_sorts_rows_by_length_and_the_manifest_keeps_their_order(tmp_path: Path) -> None:
    rows = [TextRow(f"r{i}", f"word {'again ' * (i * 7919 % 60)}end") for i in range(300)]
    storage = Storage(str(tmp_path / "a"))
    stored = store_here(plan_corpus(rows, Speaking(), "rows"), storage)
    assert sum(shard.rows for shard in stored.shards) == 300
    for shard in stored.shards:
        table = plans.read_group(storage, stored.folder, shard.part, shard.group)
        lengths = [len(text) for text in table.column("text").to_pylist()]
        assert lengths == sorted(lengths, reverse=True)
        assert len(lengths) <= plans.SHARD_UNITS
        assert sum(lengths) <= plans.SHARD_CHARACTERS
    assert store_here(plan_corpus(rows, Speaking(), "rows"), storage).shards == stored.shards  # the same each time
    run_job(plan_corpus(rows, Speaking(), "rows"), str(tmp_path / "b"), TONE, Speaking(), Options(rows="parquet"))
    assert list(rows_of(tmp_path / "b")) == [row.id for row in rows]


def write_rows(path: Path, texts: dict[str, str]) -> Path:
    path.write_text("".join(json.dumps({"id": id, "text": text}) + "\n" for id, text in texts.items()))
    return path


@pytest.mark.parametrize("kind", ["parquet", "files", "webdataset"])
def test_changed_rows_are_done_again_and_only_they(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    texts = {f"r{i}": f"This is row number {i}." for i in range(120)}
    source, out = write_rows(tmp_path / "rows.jsonl", texts), tmp_path / "out"
    run([source], out, rows=kind)
    before = rows_of(out)
    changed = {**texts, "r7": "Another text.", "new": "A new row."}
    del changed["r50"]
    write_rows(source, changed)
    with pytest.raises(OutputError, match="another job") as caught:
        run([source], out, rows=kind)
    assert "--update" in caught.value.remedy
    spoken: list[str] = []
    real = speak_inline

    def watching(tasks: list[dict], **arguments: object) -> object:
        for task in tasks:
            table = plans.read_group(arguments["output"], task["plan"], task["part"], task["group"])
            spoken.extend(table.column("id").to_pylist())
        return real(tasks, **arguments)

    monkeypatch.setattr(synthesis_job, "speak_shards", watching)
    run([source], out, rows=kind, update=True)
    after = rows_of(out)
    assert sorted(spoken) == ["new", "r7"]
    assert list(after) == list(changed)
    assert all(after[id]["sha256"] == before[id]["sha256"] for id in changed if id not in ("r7", "new"))
    assert verify(str(out)).whole
    assert not (out / "audio" / "r50.flac").exists()
    assert run([source], out, rows=kind).ok == 120  # and the same command finds it done
    write_rows(source, texts)
    spoken.clear()
    run([source], out, rows=kind, update=True)
    assert sorted(spoken) == ["r50", "r7"]
    assert {id: row["sha256"] for id, row in rows_of(out).items()} == {id: row["sha256"] for id, row in before.items()}
    assert verify(str(out)).whole
    with pytest.raises(ConfigError, match="--update"):
        run([source], out, update=True, overwrite=True)


def test_what_failed_is_tried_again_when_asked(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "rows.jsonl", {"a": "Row a.", "b": "This RAISES.", "c": "Row c."})
    run([source], tmp_path / "out", rows="parquet")
    assert rows_of(tmp_path / "out")["b"]["status"] == "failed"
    before = (tmp_path / "out" / "shards" / "00000.parquet").read_bytes()
    summary = run([source], tmp_path / "out", rows="parquet", retry_failed=True)
    assert (summary.shards, summary.failed) == (2, 1)
    assert (tmp_path / "out" / "shards" / "00000.parquet").read_bytes() == before
    assert verify(str(tmp_path / "out")).whole


@pytest.fixture
def finished(library: Path, tmp_path: Path) -> Path:
    run([library], tmp_path / "out")
    return tmp_path / "out"


def damage_shard(out: Path) -> None:
    shard = out / "shards" / "00000.parquet"
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 1
    shard.write_bytes(data)


DAMAGES = {
    "a sound changed": (lambda out: (out / "audio" / "rows-a.flac").write_bytes(b"fLaC"), "damaged"),
    "a sound gone": (lambda out: (out / "audio" / "rows-b.flac").unlink(), "missing"),
    "a shard rotten": (damage_shard, "damaged"),
    "a shard gone": (lambda out: (out / "shards" / "00000.parquet").unlink(), "missing"),
    "a stray shard": (lambda out: (out / "shards" / "00099.parquet").write_bytes(b"x"), "orphan"),
    "a stray sound": (lambda out: (out / "audio" / "who.flac").write_bytes(b"x"), "orphan"),
    "no manifest": (lambda out: (out / "manifest.parquet").unlink(), "missing"),
    "a cut manifest": (lambda out: (out / "manifest.parquet").write_bytes(b"PAR1"), "damaged"),
    "a book gone": (lambda out: (out / "books" / "one" / "one.m4b").unlink(), "missing"),
    "a book cut": (lambda out: (out / "books" / "one" / "one.srt").write_text("1"), "damaged"),
    "no list": (lambda out: (out / "metadata.csv").unlink(), "missing"),
    "no list for a library": (lambda out: (out / "audio" / "metadata.jsonl").unlink(), "missing"),
    "no card": (lambda out: (out / "README.md").unlink(), "missing"),
    "no report": (lambda out: (out / "report.html").unlink(), "missing"),
    "a row off the quarantine": (lambda out: (out / "quarantine.jsonl").write_text(""), "wrong"),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_damage_is_found_and_mended(finished: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = rows_of(finished)
    do, kind = DAMAGES[what]
    do(finished)
    found = verify(str(finished))
    assert kind in found.counts, found.findings
    monkeypatch.setattr(
        synthesize, "voice_engine", lambda name, device, lexicon: TONE if name is None else voice_of(name)
    )
    repair(str(finished), found)
    assert verify(str(finished)).findings == []
    assert rows_of(finished) == before


def test_a_repair_without_a_rows_voice_deletes_nothing(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (finished / "audio" / "rows-a.flac").unlink()
    found, shards = verify(str(finished)), sorted((finished / "shards").iterdir())
    assert any(name != "tone" for name in json.loads((finished / "job.json").read_text())["voices"])

    def changed(name: str | None, device: str, lexicon: dict[str, str]) -> Engine:
        return TONE if name is None else replace(voice_of(name), fingerprint="another")

    monkeypatch.setattr(synthesize, "voice_engine", changed)
    with pytest.raises(OutputError, match="is not the one that spoke here"):
        repair(str(finished), found)
    assert sorted((finished / "shards").iterdir()) == shards and (finished / "manifest.parquet").exists()


def test_the_commands_say_whether_a_job_is_whole(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["verify", str(finished)]) == 3  # whole, with a row set aside
    assert "whole" in capsys.readouterr().out
    (finished / "audio" / "rows-a.flac").unlink()
    assert cli.main(["verify", str(finished)]) == 5
    assert "--repair" in capsys.readouterr().out
    assert cli.main(["verify", str(tmp_path)]) == 1
    assert cli.main(["status", str(tmp_path)]) == 1


def test_status_tells_a_running_a_stopped_a_silent_and_a_finished_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    source = write_rows(tmp_path / "rows.jsonl", {f"r{i}": f"This is row number {i}." for i in range(120)})
    with pytest.raises(Interrupted):
        run([source], out, stop_after=1)
    stopped = status(str(out))
    assert (stopped.state, stopped.rows, stopped.rows_done) == ("stopped", 120, 48)
    assert stopped.eta_s > 0
    assert cli.main(["status", str(out)]) == 5
    record = json.loads((out / "progress.json").read_text())
    (out / "progress.json").write_text(json.dumps({**record, "state": "running"}))
    with monkeypatch.context() as elsewhere:
        for there, soon, late in (
            (True, "running", "running"),
            (False, "stopped", "stopped"),
            (None, "running", "silent"),
        ):
            elsewhere.setattr(Storage, "locked", lambda self, there=there: there)
            assert status(str(out), now=record["updated"] + 5).state == soon
            assert status(str(out), now=record["updated"] + 500).state == late
        elsewhere.setattr(Storage, "locked", lambda self: False)
        elsewhere.setattr(socket, "gethostname", lambda: "another")
        assert status(str(out), now=record["updated"] + 5).state == "running"
    with suppress(KeyboardInterrupt), Progress(Storage(str(out)), False, 1) as progress:
        progress.begin(120, 3000, 48, 1200)
        raise KeyboardInterrupt
    assert (status(str(out)).state, status(str(out)).why) == ("stopped", "interrupted")
    run([source], out)
    done = status(str(out), price=3.6)
    assert (done.state, done.rows_done, done.eta_s, done.failed) == ("finished", 120, 0.0, 0)
    assert done.cost == pytest.approx(3.6 * done.worker_hours, abs=1e-3)
    assert cli.main(["status", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["state"] == "finished"
    (out / "shards" / "00001.parquet").unlink()
    gone = status(str(out))
    assert (gone.state, "--repair" in gone.why) == ("stopped", True)
    (out / "plan.json").unlink()
    with pytest.raises(OutputError, match=r"plan\.json is gone"):
        status(str(out))


def test_a_resumed_job_tells_what_is_of_this_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    source = write_rows(tmp_path / "rows.jsonl", {f"r{i}": f"This is row number {i}." for i in range(120)})
    for shards in (1, 1):
        with pytest.raises(Interrupted):
            run([source], out, stop_after=shards)
    assert " of audio by voice tone, 0 set aside in this run" in told(status(str(out)))
    run([source], out)
    assert "in this run" not in told(status(str(out))).replace("worker hours in this run", "")


def test_a_mixed_job_that_goes_on_keeps_its_lists(library: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run([library], out)
    before = (out / "metadata.csv").read_text()
    shutil.rmtree(out / "books" / "one")
    run([library], out)
    assert (out / "metadata.csv").read_text() == before
    assert (out / "books" / "one" / "one.m4b").exists()
    assert verify(str(out)).whole


def test_the_card_of_a_mixed_job_is_of_its_rows(library: Path, tmp_path: Path) -> None:
    run([library], tmp_path / "files")
    run([library], tmp_path / "parquet", rows="parquet")
    assert "2 utterances" in (tmp_path / "files" / "README.md").read_text()
    assert (
        "2 utterances" not in (tmp_path / "parquet" / "README.md").read_text()
    )  # whose shards have the books' sentences too
    rows = manifest.read_manifest(Storage(str(tmp_path / "files"))).to_pylist()
    of_books = {row["audio"].partition("#")[0] for row in rows if row["chapter"] and row["status"] == "ok"}
    assert of_books
    assert all(name.startswith("shards/") for name in of_books)


def test_a_voice_is_looked_for_once_and_its_absence_told() -> None:
    asked: list[str] = []

    def find(name: str) -> Engine:
        asked.append(name)
        return voice_of(name)

    voices = Voices(TONE, find)
    assert [voices.problem(name) for name in ("tone", "bell", "bell")] == ["", "", ""]
    assert "no voice 'amy'" in voices.problem("amy") == voices.problem("amy")
    assert asked == ["bell", "amy"]
    assert voices.find(None) is TONE
    assert replace(BELL, name="x").facts()["licence"] == "CC0-1.0"
