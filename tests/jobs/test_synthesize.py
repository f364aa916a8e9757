"""The synthesis job: every unit ends once, in the manifest or the quarantine, whatever dies on the way."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.storage import PARTIAL, Storage
from flowtts_core.audio.files import read_audio
from flowtts_core.errors import ConfigError, FlowTTSError, OutputError, TextError, VoiceError
from flowtts_core.request import SynthesisRequest
from flowtts_core.text.document import Chapter, Document, Sentence, TextRow
from jobs import cli
from jobs.synthesis import job as synthesis_job
from jobs.synthesis import manifest
from jobs.synthesis import plan as synthesis_plan
from jobs.synthesis.engine import Engine
from jobs.synthesis.input import ReadingOptions, read_plan
from jobs.synthesis.job import Interrupted, Options, run_job
from jobs.synthesis.pipeline import Running
from jobs.synthesis.plan import Plan, parse_chapters, plan_book, plan_corpus, safe_name
from jobs.synthesis.settings import Speaking
from jobs.synthesis.summary import Summary
from jobs.synthesize import synthesize
from tests.cluster.test_storage import s3_root  # noqa: F401 - a fixture
from tests.fake_engine import TONE, MakeTone, ToneSynthesizer, speak_here, speak_inline, store_here


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speak in this process: the same job without Ray's seconds."""
    monkeypatch.setattr(synthesis_job, "speak_shards", speak_inline)


def sentence(chapter: int, number: int) -> str:
    return f"Sentence {number} of chapter {chapter} says <nothing> & more."


def book(chapters: int = 2, sentences: int = 70, extra: tuple[str, ...] = ()) -> Document:
    made = []
    for c in range(1, chapters + 1):
        texts = [f"Chapter {c}", *(sentence(c, n) for n in range(sentences)), *extra]
        roles = ["heading"] + ["sentence"] * (len(texts) - 1)
        pairs = zip(texts, roles, strict=True)
        made.append(Chapter(f"Chapter {c}", " ".join(texts), tuple(Sentence(t, 0, len(t), r, 0.1) for t, r in pairs)))
    return Document("A Trial", tuple(made), "A. Author")


def speak(
    plan: Plan, output: Path | str, engine: Engine = TONE, speaking: Speaking | None = None, **options: object
) -> Summary:
    running = Running(most=2, gpus=options.pop("gpus", 0.0))
    given = Options(**{"chapter_format": "none", "running": running, **options})
    return run_job(plan, str(output), engine, speaking or Speaking(), given)


def digests(output: Path, summary: Summary) -> dict[str, str]:
    names = [*summary.files, manifest.MANIFEST, manifest.QUARANTINE]
    return {name: hashlib.sha256((output / name).read_bytes()).hexdigest() for name in names}


# -- the plan -----------------------------------------------------------------------------------------------------------


def test_ids_and_seeds_depend_on_the_texts_alone() -> None:
    plan = plan_book(book(), Speaking({"seed": 3}))
    assert plan.units == plan_book(book(), Speaking({"seed": 3})).units
    assert plan.units[0].id == "0001-0001"
    assert plan.units[72].id == "0002-0002"
    assert len({unit.seed for unit in plan.units}) == len(plan.units)
    assert plan.units[5].seed != plan_book(book(), Speaking({"seed": 4})).units[5].seed
    assert (
        plan_book(book(), Speaking({"seed": 3}), "2").units == plan.units[71:]
    )  # a part is spoken as it is in the whole


def test_a_row_keeps_its_own_seed_and_a_doubled_id_is_set_aside() -> None:
    rows = [TextRow("a", "one", settings={"seed": 7}), TextRow("a", "two"), TextRow("A", "three")]
    plan = plan_corpus(rows, Speaking(), "rows")
    assert [unit.id for unit in plan.units] == [
        "a",
        "A",
        "a~2",
    ]  # the doubled ones last: by then all other ids are known
    assert plan.units[0].seed == 7
    assert "more than once" in plan.units[2].error
    assert len({unit.file.lower() for unit in plan.units}) == 3


def test_a_doubled_id_takes_no_other_rows_id() -> None:
    names = ["a", "a", "a~2", "\udce9", "?"]
    plan = plan_corpus([TextRow(name, "text") for name in names], Speaking(), "caf\udce9")
    assert [unit.id for unit in plan.units] == ["a", "a~2", "?", "a~3", "?~2"]
    assert [bool(unit.error) for unit in plan.units] == [False, False, False, True, True]
    assert plan.title == "caf?"


def test_another_version_of_the_program_is_another_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = store_here(plan_book(book(), Speaking()), Storage(str(tmp_path)))
    before = synthesis_plan.identity(stored, TONE, Speaking())
    monkeypatch.setattr(synthesis_plan, "__version__", "99")
    assert synthesis_plan.identity(stored, TONE, Speaking()) != before


@pytest.mark.parametrize(("text", "chosen"), [("", [1, 2, 3, 4]), ("2", [2]), ("1-2, 4", [1, 2, 4]), ("3-", [3, 4])])
def test_chapters_are_chosen_as_written(text: str, chosen: list[int]) -> None:
    assert parse_chapters(text, 4) == chosen


@pytest.mark.parametrize("text", ["0", "5", "3-2", "a", "1,,2", "-3"])
def test_chapters_that_are_not_there_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--chapters"):
        parse_chapters(text, 4)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "a/b\\c", "..", "", "nul", "\0x", "a" * 500, "é" * 200, ".hidden", "x\ny"]
)
def test_a_name_stays_in_its_folder(name: str) -> None:
    safe = safe_name(name)
    assert safe
    assert Path("folder", safe).resolve().parent == Path("folder").resolve()
    assert len(safe.encode()) <= 80
    assert not re.search(r'[/\\\0\n:*?"<>|]', safe)
    assert not safe.startswith(".")
    assert safe.lower() != "nul"


# -- a book -------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("inline")
def test_a_book_leaves_every_sentence_in_the_manifest(tmp_path: Path) -> None:
    plan = plan_book(book(), Speaking())
    summary = speak(plan, tmp_path, chapter_format="mp3")
    table = manifest.read_manifest(Storage(str(tmp_path)))
    texts = [s.text for c in book().chapters for s in c.sentences]
    assert table.column("text").to_pylist() == texts
    assert set(table.column("status").to_pylist()) == {"ok"}
    assert (summary.units, summary.ok, summary.failed, summary.exit_code) == (142, 142, 0, 0)
    place = table.column("audio")[100].as_py()
    shard, row = re.fullmatch(r"shards/(\d+)\.parquet#(\d+)", place).groups()
    stored = manifest.read_shard(Storage(str(tmp_path)), int(shard)).to_pylist()[int(row)]
    assert stored["id"] == table.column("id")[100].as_py()
    assert manifest.sha256(stored["flac"]) == table.column("sha256")[100].as_py()
    waveform, rate = read_audio(stored["flac"])
    assert (len(waveform), rate) == (stored["num_samples"], stored["sample_rate"])
    for name in summary.files:
        assert (tmp_path / name).stat().st_size > 0


@pytest.mark.usefixtures("inline")
def test_a_book_whose_name_is_not_utf_8_is_made(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.txt"
    Path(os.fsdecode(path)).write_text("It was a fine day. Nobody came.")
    summary = synthesize([os.fsdecode(path)], str(tmp_path / "out"), engine=TONE)
    assert summary.failed == 0
    assert summary.files[0].startswith("caf")
    assert all((tmp_path / "out" / name).exists() for name in summary.files)


@pytest.mark.usefixtures("inline")
def test_a_job_stopped_and_resumed_gives_the_same_bytes(tmp_path: Path) -> None:
    plan = plan_book(book(), Speaking())
    whole = speak(plan, tmp_path / "whole")
    for _ in range(2):
        with pytest.raises(Interrupted):
            speak(plan, tmp_path / "cut", stop_after=1)
    shard = tmp_path / "cut" / manifest.shard_name(0)
    shard.write_bytes(shard.read_bytes()[:-100])  # as a disk that lost power leaves it
    (tmp_path / "cut" / f"{PARTIAL}1-x").write_text("half")
    resumed = speak(plan, tmp_path / "cut")
    assert resumed.shards_resumed == 1
    assert digests(tmp_path / "cut", resumed) == digests(tmp_path / "whole", whole)
    assert not [name for name in os.listdir(tmp_path / "cut") if name.startswith(PARTIAL)]


@pytest.mark.usefixtures("inline")
def test_a_finished_job_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_book(book(), Speaking())
    first = speak(plan, tmp_path)
    monkeypatch.setattr(synthesis_job, "assemble_books", None)  # would fail if called
    for options in ({}, {"overwrite": True}):  # which deletes another job's work
        again = speak(plan, tmp_path, **options)
        assert (again.files, again.seconds, again.shards_resumed) == (first.files, first.seconds, first.shards)


@pytest.mark.usefixtures("inline")
def test_a_summary_that_another_version_wrote_is_written_again(tmp_path: Path) -> None:
    plan = plan_book(book(1, 5), Speaking())
    speak(plan, tmp_path)
    path = tmp_path / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "mood": "merry"}))
    speak(plan, tmp_path)
    assert "mood" not in json.loads(path.read_text())


@pytest.mark.usefixtures("inline")
def test_another_format_takes_the_shards_that_are_there(tmp_path: Path) -> None:
    plan = plan_book(book(), Speaking())
    speak(plan, tmp_path)
    (tmp_path / "journal").mkdir(exist_ok=True)  # of a run that was killed when it had just finished the shard
    (tmp_path / "journal" / "00001-speak.json").write_text("{}")
    summary = speak(plan, tmp_path, book_format="opus")
    assert summary.shards_resumed == summary.shards
    assert summary.files[0] == "A Trial.opus"
    assert not (tmp_path / "A Trial.m4b").exists()
    assert not (tmp_path / "journal").exists()
    assert speak(plan, tmp_path, book_format="opus").wall_s < summary.wall_s  # found finished


@pytest.mark.usefixtures("inline")
def test_what_cannot_be_spoken_is_set_aside_and_harms_nothing_else(tmp_path: Path) -> None:
    bad = ("UNSPEAKABLE signs", "this one RAISES", "this is NOTANUMBER")
    summary = speak(plan_book(book(1, 20, bad), Speaking()), tmp_path / "bad")
    clean = speak(plan_book(book(1, 20), Speaking()), tmp_path / "clean")
    assert (summary.ok, summary.failed, summary.exit_code) == (clean.ok, 3, 3)
    lines = [json.loads(line) for line in (tmp_path / "bad" / manifest.QUARANTINE).read_text().splitlines()]
    assert [line["text"] for line in lines] == list(bad)
    assert "no sound for these characters" in lines[0]["reason"]
    assert "the engine tripped" in lines[1]["reason"]
    assert "not numbers" in lines[2]["reason"]
    sums = [
        manifest.read_manifest(Storage(str(tmp_path / name))).column("sha256").to_pylist() for name in ("bad", "clean")
    ]
    assert sums[0][:21] == sums[1]
    page = (tmp_path / "bad" / "report.html").read_text()
    assert "the engine tripped" in page


@pytest.mark.usefixtures("inline")
def test_a_folder_of_another_job_is_refused_and_named(tmp_path: Path) -> None:
    plan = plan_book(book(1, 5), Speaking())
    speak(plan, tmp_path)
    others = [
        ("texts", lambda: speak(plan_book(book(1, 6), Speaking()), tmp_path)),
        ("voice tone, which has changed", lambda: speak(plan, tmp_path, Engine("tone", "tone-2", MakeTone()))),
        ("differs in speed: 1.0, now 1.5[)]", lambda: speak(plan, tmp_path, speaking=Speaking({"speed": 1.5}))),
    ]
    before = (tmp_path / "A Trial.m4b").read_bytes()
    for what, run in others:
        with pytest.raises(OutputError, match=what) as caught:
            run()
        assert "--overwrite" in caught.value.remedy
    rows = plan_corpus([TextRow("a", "One row.")], Speaking(), "rows")
    with pytest.raises(ConfigError, match="--title names one book"):
        speak(rows, tmp_path, overwrite=True, title="No book")
    assert (tmp_path / "A Trial.m4b").read_bytes() == before, "refused before it deletes"


@pytest.mark.usefixtures("inline")
def test_overwriting_deletes_our_own_work_only(tmp_path: Path) -> None:
    speak(plan_book(book(1, 5), Speaking()), tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    other = replace(book(1, 6), title="Another")
    speak(plan_book(other, Speaking()), tmp_path, overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not (tmp_path / "A Trial.m4b").exists()
    assert (tmp_path / "Another.m4b").exists()


@pytest.mark.usefixtures("inline")
def test_overwriting_believes_no_name_that_leads_out(tmp_path: Path) -> None:
    out, victim = tmp_path / "out", tmp_path / "victim.txt"
    speak(plan_book(book(1, 5), Speaking()), out)
    victim.write_text("precious")
    record = json.loads((out / "summary.json").read_text())
    names = ["../victim.txt", str(victim), "chapters/../../victim.txt", ".", "", 5, *record["files"]]
    (out / "summary.json").write_text(json.dumps({**record, "files": names}))
    speak(plan_book(replace(book(1, 6), title="Another"), Speaking()), out, overwrite=True)
    assert victim.read_text() == "precious"
    assert sorted(path.name for path in out.glob("*.m4b")) == ["Another.m4b"]


@pytest.mark.usefixtures("inline")
def test_overwriting_an_interrupted_job_leaves_none_of_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(storage: Storage, *_: object) -> None:
        storage.write("A Trial.m4b", b"whole")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(synthesis_job, "assemble_books", interrupted)
        with pytest.raises(KeyboardInterrupt):
            speak(plan_book(book(1, 5), Speaking()), tmp_path)
    speak(plan_book(replace(book(1, 6), title="Another"), Speaking()), tmp_path, overwrite=True)
    assert sorted(path.name for path in tmp_path.glob("*.m4b")) == ["Another.m4b"]


@pytest.mark.usefixtures("inline")
def test_a_run_that_ended_between_its_plan_and_its_record_is_begun_anew(tmp_path: Path) -> None:
    plan = plan_book(book(1, 5), Speaking())
    store_here(plan, Storage(str(tmp_path)))
    assert speak(plan, tmp_path).failed == 0


@pytest.mark.usefixtures("inline")
def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    plan = plan_book(book(1, 5), Speaking())
    with Storage(str(tmp_path)).lock(), pytest.raises(OutputError, match="another run"):
        speak(plan, tmp_path)
    speak(plan, tmp_path)
    assert ".lock" not in os.listdir(tmp_path)


class Killed(BaseException):
    """Stands for the death of a worker's process."""


@pytest.mark.parametrize(("deaths", "failed"), [(2, 0), (3, 1)])
def test_a_unit_that_kills_three_times_is_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaths: int, failed: int
) -> None:
    left, real = iter(range(deaths)), ToneSynthesizer._one

    def dies(self: ToneSynthesizer, request: SynthesisRequest) -> object:
        if "FATAL" in request.text and next(left, None) is not None:
            raise Killed
        return real(self, request)

    monkeypatch.setattr(ToneSynthesizer, "_one", dies)
    plan, storage = plan_book(book(1, 5, ("This is FATAL.",)), Speaking()), Storage(str(tmp_path))
    for _ in range(deaths):  # two before the worker is careful
        with pytest.raises(Killed):
            speak_here(plan, storage, MakeTone())
    speak_here(plan, storage, MakeTone())
    assert manifest.read_shard(storage, 0).column("status").to_pylist().count("failed") == failed


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize(
    ("error", "ends_the_job"),
    [
        (MemoryError("no room"), False),  # while others find room, it is the row that wants too much
        (OSError(errno.EMFILE, "Too many open files"), True),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA"), False),
        (OSError(errno.ENOENT, "no such word list"), False),
    ],
)
def test_what_the_machine_lacks_is_not_the_rows_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, ends_the_job: bool
) -> None:
    real = ToneSynthesizer._one

    def fails(self: ToneSynthesizer, request: SynthesisRequest) -> object:
        if "FATAL" in request.text:
            raise error
        return real(self, request)

    plan = plan_book(book(1, 5, ("This is FATAL.",)), Speaking())
    monkeypatch.setattr(ToneSynthesizer, "_one", fails)
    if isinstance(error, MemoryError):
        starved = plan_book(book(1, 5, ("FATAL one.", "FATAL two.", "FATAL three.")), Speaking())
        with pytest.raises(FlowTTSError, match="run out"):
            speak(starved, tmp_path / "starved")
    if ends_the_job:
        with pytest.raises(FlowTTSError, match="run out"):
            speak(plan, tmp_path)
    else:
        assert speak(plan, tmp_path / "job").failed == 1


@pytest.mark.usefixtures("inline")
def test_a_folder_with_other_peoples_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"thesis\.doc"):
            speak(plan_book(book(1, 5), Speaking()), tmp_path, overwrite=overwrite)
    assert os.listdir(tmp_path) == ["thesis.doc"]


@pytest.mark.usefixtures("inline")
def test_a_place_without_permission_is_refused_before_any_work() -> None:
    with pytest.raises(OutputError, match="cannot write /proc"):
        speak(plan_book(book(1, 5), Speaking()), "/proc/nowhere")


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("fill_at", range(1, 12))
def test_a_full_disk_at_any_write_leaves_a_folder_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fill_at: int
) -> None:
    plan = plan_book(book(1, 60), Speaking())
    whole = speak(plan, tmp_path / "whole")
    real, writes = Path.write_bytes, iter(range(1000))

    def fill(path: Path, data: bytes) -> None:
        if next(writes) >= fill_at:
            real(path, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, data)

    monkeypatch.setattr(Path, "write_bytes", fill)
    with pytest.raises(OutputError, match="No space left"):
        speak(plan, tmp_path / "full")
    monkeypatch.setattr(Path, "write_bytes", real)
    again = speak(plan, tmp_path / "full")
    assert digests(tmp_path / "full", again) == digests(tmp_path / "whole", whole)


@pytest.mark.usefixtures("inline")
def test_the_report_is_one_page_that_needs_nothing_else(tmp_path: Path) -> None:
    document = replace(book(2, 10), title='<script>alert("x")</script>')
    summary = speak(plan_book(document, Speaking()), tmp_path, chapter_format="mp3")
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert not re.search(r'(src|href)="(https?:|/)', page)
    links = re.findall(r'(?:src|href)="([^"]+)"', page)
    from urllib.parse import unquote

    assert {unquote(link) for link in links} >= {name for name in summary.files if name.endswith(("mp3", "m4b"))}
    assert "prefers-color-scheme:dark" in page
    assert "width=device-width" in page


# -- a corpus -----------------------------------------------------------------------------------------------------------


def rows_file(folder: Path) -> Path:
    rows = [{"id": f"u{n}", "text": f"Row number {n}.", "seed": n} for n in range(60)]
    odd = [{"id": "../../up", "text": "A way out?"}, {"id": "u3", "text": "Doubled."}, {"id": "void", "text": " "}]
    foreign = [{"id": "other", "text": "Another voice.", "voice": "amy"}, {"id": "pipe", "text": "One | two\nthree"}]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *odd, *foreign]) + "no json\n")
    return path


@pytest.mark.usefixtures("inline")
def test_rows_become_a_corpus(tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = synthesize([str(rows_file(tmp_path))], str(out), engine=TONE)
    assert (summary.kind, summary.units, summary.ok, summary.failed, summary.exit_code) == ("corpus", 66, 62, 4, 3)
    assert sorted(os.listdir(tmp_path)) == ["out", "rows.jsonl"]
    lines = [line.split("|") for line in (out / "metadata.csv").read_text().splitlines()]
    assert all(len(line) == 3 for line in lines)
    assert sorted(os.listdir(out / "audio")) == sorted(["metadata.jsonl", *(f"{name}.flac" for name, _, _ in lines)])
    assert ["pipe", "One two three", "One two three"] in lines
    table = manifest.read_manifest(Storage(str(out))).to_pylist()
    by_id = {row["id"]: row for row in table}
    assert by_id["u5"]["seed"] == 5
    assert manifest.sha256((out / by_id["../../up"]["audio"]).read_bytes()) == by_id["../../up"]["sha256"]
    reasons = [json.loads(line)["reason"] for line in (out / manifest.QUARANTINE).read_text().splitlines()]
    assert ["empty" in reasons[0], "amy" in reasons[1], "JSON" in reasons[2], "more than once" in reasons[3]] == [
        True
    ] * 4


@pytest.mark.usefixtures("inline")
def test_a_lost_audio_file_is_made_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    synthesize([str(rows_file(tmp_path))], str(out), engine=TONE)
    before = (out / "audio" / "u7.flac").read_bytes()
    (out / "audio" / "u7.flac").unlink()
    synthesize([str(rows_file(tmp_path))], str(out), engine=TONE)
    assert (out / "audio" / "u7.flac").read_bytes() == before


@pytest.mark.usefixtures("inline")
def test_rows_can_stay_in_parquet(tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = synthesize([str(rows_file(tmp_path))], str(out), engine=TONE, options=Options(rows="parquet"))
    assert summary.ok == 62
    assert not (out / "audio").exists()
    assert manifest.read_shard(Storage(str(out)), 0).column("flac")[0].as_py()[:4] == b"fLaC"


@pytest.mark.usefixtures("inline")
def test_a_corpus_changes_between_files_and_shards(tmp_path: Path) -> None:
    inputs, out = [str(rows_file(tmp_path))], tmp_path / "out"

    def audio_of(row: dict) -> bytes:
        if "#" not in row["audio"]:
            return (out / row["audio"]).read_bytes()
        shard, place = re.fullmatch(r"shards/(\d+)\.parquet#(\d+)", row["audio"]).groups()
        return manifest.read_shard(Storage(str(out)), int(shard), ("flac",)).column("flac")[int(place)].as_py()

    for rows in ("files", "parquet", "files"):
        synthesize(inputs, str(out), engine=TONE, options=Options(rows=rows))
        spoken = [row for row in manifest.read_manifest(Storage(str(out))).to_pylist() if row["status"] == "ok"]
        assert len(spoken) == 62
        assert all(manifest.sha256(audio_of(row)) == row["sha256"] for row in spoken)
        assert (out / "metadata.csv").exists() == (out / "audio").exists() == (rows == "files")


@pytest.mark.usefixtures("inline")
def test_a_book_and_a_corpus_on_s3(tmp_path: Path, s3_root: str) -> None:  # noqa: F811
    plan = plan_book(book(1, 60), Speaking())
    local, remote = speak(plan, tmp_path / "book"), speak(plan, f"{s3_root}/book")
    assert remote.files == local.files
    for name, digest in digests(tmp_path / "book", local).items():
        assert hashlib.sha256(Storage(f"{s3_root}/book").read(name)).hexdigest() == digest
    Storage(s3_root).write("in/rows.jsonl", rows_file(tmp_path).read_bytes())
    summary = synthesize([f"{s3_root}/in/rows.jsonl"], f"{s3_root}/corpus", engine=TONE)
    assert summary.ok == 62
    assert "u7.flac" in Storage(f"{s3_root}/corpus").list("audio")


def test_inputs_that_do_not_go_together_are_named(tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text("Some words. And more.")
    rows = rows_file(tmp_path)
    for inputs, reading, error in (
        ([text, text], ReadingOptions(chapters="1"), ConfigError),
        ([rows], ReadingOptions(chapters="1"), ConfigError),
        ([tmp_path / "absent.txt"], ReadingOptions(), TextError),
    ):
        with pytest.raises(error):
            read_plan([str(path) for path in inputs], reading, Speaking())
    both = read_plan([str(text), str(text)], ReadingOptions(lines=True), Speaking())
    assert [unit.text for unit in both.units] == ["Some words. And more."] * 2
    assert [(unit.id, unit.error) for unit in both.units] == [("a-line-00000001", ""), ("a~2-line-00000001", "")]


# -- with Ray -----------------------------------------------------------------------------------------------------------


def test_ray_makes_what_one_process_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_book(book(1, 100), Speaking())
    parallel = speak(plan, tmp_path / "parallel")
    monkeypatch.setattr(synthesis_job, "speak_shards", speak_inline)
    single = speak(plan, tmp_path / "single")
    assert digests(tmp_path / "parallel", parallel) == digests(tmp_path / "single", single)


@pytest.mark.slow
def test_more_workers_than_gpus_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", '{"GPU": 1}')  # a GPU in Ray's books; the engine needs none
    summary = speak(plan_book(book(2, 60), Speaking()), tmp_path, gpus=1.0)
    assert summary.ok == summary.units


def test_a_gpu_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", '{"GPU": 0}')
    with pytest.raises(ConfigError, match="Ray sees no GPU"):
        speak(plan_book(book(1, 5), Speaking()), tmp_path, gpus=1.0)
    with pytest.raises(SystemExit):
        cli.main(["synthesize", "book.txt", "-o", str(tmp_path), "--device", "cuda:1"])


@pytest.mark.slow
def test_workers_that_die_cost_only_the_row_that_kills(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    document = book(1, 60, ("this ONCE", "this CRASHES"))
    make = MakeTone(crash_once=str(tmp_path / "once"))
    summary = speak(plan_book(document, Speaking()), tmp_path / "out", Engine("tone", "tone-1", make))
    failed = [json.loads(line) for line in (tmp_path / "out" / manifest.QUARANTINE).read_text().splitlines()]
    assert [line["text"] for line in failed] == ["this CRASHES"]
    assert "died" in failed[0]["reason"]
    assert summary.ok == summary.units - 1
    assert not (tmp_path / "out" / "journal").exists()
    assert not capfd.readouterr().out  # Ray prints each death on standard output, where --json has its say


@pytest.mark.slow
def test_rows_that_hang_or_devour_memory_are_set_aside(tmp_path: Path) -> None:
    document = book(1, 60, ("this HANGS", "this DEVOURS memory"))
    running = Running(least=2, most=2, item_s=3.0, memory_gib=1.0)
    options = Options(chapter_format="none", running=running)
    summary = run_job(plan_book(document, Speaking()), str(tmp_path), TONE, Speaking(), options)
    failed = {
        line["text"]: line["reason"]
        for line in map(json.loads, (tmp_path / manifest.QUARANTINE).read_text().splitlines())
    }
    assert failed.keys() == {"this HANGS", "this DEVOURS memory"}
    assert "longer than 3 s" in failed["this HANGS"]
    assert "GiB of memory" in failed["this DEVOURS memory"] or "longer than" in failed["this DEVOURS memory"]
    assert summary.ok == summary.units - 2


def test_a_voice_that_does_not_load_ends_the_job_with_its_own_error(tmp_path: Path) -> None:
    with pytest.raises(VoiceError, match="cut off") as caught:
        speak(plan_book(book(), Speaking()), tmp_path, Engine("tone", "tone-1", MakeTone(broken=True)))
    assert type(caught.value) is VoiceError
    assert "Traceback" not in str(caught.value)


DRIVER = """
import sys
from tests.jobs.test_synthesize import *
if __name__ == "__main__":
    engine = Engine("tone", "tone-1", MakeTone(delay_s=0.01))
    speak(plan_book(book(3, 200), Speaking()), sys.argv[1], engine, chapter_format="mp3")
    print("torch" in sys.modules, file=sys.stderr)
"""


@pytest.mark.slow
def test_a_driver_killed_three_times_gives_the_same_files(tmp_path: Path) -> None:
    plan = plan_book(book(3, 200), Speaking())
    whole = speak(plan, tmp_path / "whole", chapter_format="mp3")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", DRIVER, str(tmp_path / "killed")]
    counts = []
    for wanted in (1, 5, 9):
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
        for _ in _ticks(120):
            counts.append(len(list((tmp_path / "killed" / "shards").glob("[0-9]*.parquet"))))
            if counts[-1] >= wanted:
                break
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert counts[-1] < whole.shards
    done = speak(plan, tmp_path / "killed", Engine("tone", "tone-1", MakeTone()), chapter_format="mp3")
    assert 0 < done.shards_resumed < whole.shards
    assert digests(tmp_path / "killed", done) == digests(tmp_path / "whole", whole)


def _ticks(seconds: float) -> Iterator[None]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.05)
        yield
