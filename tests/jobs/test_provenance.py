"""The provenance of a job states what its speech came from, is signed with its books where that is asked, and is proved."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.storage import Storage
from flowtts_core.audio.files import write_audio
from flowtts_core.credentials import MADE, OF_DATA, read_file
from flowtts_core.errors import ConfigError
from flowtts_core.signing import Signing, make_chain, open_signing
from flowtts_core.watermark.marking import Marking
from jobs import cli, synthesize
from jobs.synthesis import books, job
from jobs.synthesis.engine import Engine
from jobs.synthesis.folder import DIGEST, OUTPUTS, PROVENANCE, SIGNATURE
from jobs.synthesis.input import ReadingOptions, read_plan
from jobs.synthesis.job import Options, run_job
from jobs.synthesis.manifest import read_manifest, sha256
from jobs.synthesis.pipeline import Running
from jobs.synthesis.settings import Speaking
from jobs.synthesis.summary import Summary
from jobs.synthesize import go_on
from jobs.verify import verify
from tests.fake_engine import TONE, MakeTone, speak_inline
from tests.speech_like import buzz

KEY = b"0123456789abcdef"


@pytest.fixture(autouse=True)
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speak in this process: the same job without Ray's seconds."""
    monkeypatch.setattr(job, "speak_shards", speak_inline)


@pytest.fixture(scope="module")
def signing(tmp_path_factory: pytest.TempPathFactory) -> Signing:
    pytest.importorskip("c2pa")
    return open_signing(*make_chain(tmp_path_factory.mktemp("keys"), "Our press"))


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "one.txt"
    path.write_text("Chapter 1\n\nIt was a fine day. Nobody came.\n\nChapter 2\n\nThen it rained.")
    return path


def speak(source: Path, out: Path, speaking: Speaking | None = None, **options: Any) -> Summary:
    given = Options(**{"chapter_format": "opus", "running": Running(most=1), **options})
    return synthesize.synthesize([str(source)], str(out), None, None, speaking, given, engine=TONE)


def provenance(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / PROVENANCE).read_bytes()))


def changed(out: Path, change: Callable[[dict[str, Any]], Any]) -> list[str]:
    """What is found of a provenance that somebody changed, together with its checksum: a signature alone would tell."""
    told, noted = provenance(out), json.loads((out / OUTPUTS).read_text())
    change(told)
    data = json.dumps(told).encode()
    (out / PROVENANCE).write_bytes(data)
    (out / OUTPUTS).write_text(json.dumps({**noted, "sizes": {}, DIGEST: sha256(data)}))
    return [f"{finding.kind} {finding.name}: {finding.what}" for finding in verify(str(out)).findings]


def test_it_states_what_the_speech_came_from(book: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    summary = speak(book, out, Speaking({"seed": 7}, watermark=Marking(5, KEY)))
    told = provenance(out)
    assert told["voices"]["tone"]["fingerprint"] == "tone-1"
    assert (told["settings"]["seed"], told["watermark"]["number"], told["digital_source_type"]) == (7, 5, MADE)
    assert told["rows"] == {"planned": 5, "spoken": 5, "set_aside": 0}
    assert told["job"] == read_manifest(Storage(str(out)), ["job"]).column("job")[0].as_py()
    for name in ("one.m4b", "manifest.parquet", "quarantine.jsonl", "words.json"):
        assert told["files"][name]["sha256"] == sha256((out / name).read_bytes())
    assert told["signed_by"] is None
    assert summary.marked.startswith("watermark: number 5, by the key ") and summary.marked.endswith("; not signed")
    assert summary.marked in (out / "report.html").read_text()
    found = verify(str(out))
    assert (found.whole, found.signature, found.provenance) == (True, "none", "provenance.json: not signed")
    speak(book, other, Speaking({"seed": 7}, watermark=Marking(5, KEY)))
    assert {**told, "made": ""} == {**provenance(other), "made": ""}  # the same job twice
    assert speak(book, tmp_path / "plain", Speaking(watermark=None)).marked == "no watermark; not signed"


def test_books_and_provenance_are_signed_and_stay_whole(signing: Signing, book: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = speak(book, out, book_format="m4b", signing=signing)
    assert summary.marked == "watermark: number 0; signed by Our press, FlowTTS trial signer"
    sounds = [out / "one.m4b", *sorted((out / "chapters").glob("*.opus"))]
    assert len(sounds) == 3
    for file in sounds:
        found = read_file(file, signing.chain)
        assert (found.status, (found.note or {})["voice"]) == ("valid", "tone")
    found = read_file(out / PROVENANCE, signing.chain)
    assert (found.status, found.actions[0]["digitalSourceType"]) == ("valid", OF_DATA)
    assert provenance(out)["signed_by"] == signing.facts
    assert set(summary.files) >= {"chapters/01 - Chapter 1.c2pa"}
    proved = verify(str(out), trusted=signing.chain)
    assert (proved.whole, proved.signature) == (True, "valid")
    untrusted = verify(str(out))
    assert (untrusted.whole, untrusted.signature) == (True, "untrusted")
    assert cli.main(["verify", str(out)]) == 0
    others = make_chain(tmp_path / "others", "Others")[1]
    assert cli.main(["verify", str(out), "--trust", str(others)]) == 4
    secret = signing.key.read_bytes()
    lines = [line for line in secret.splitlines() if not line.startswith(b"-----")]
    stored = [path.read_bytes() for path in out.rglob("*") if path.is_file()]
    assert not any(part in data for data in stored for part in (*lines, str(signing.key.parent).encode()))


def test_each_of_several_books_names_its_own_voice(
    signing: Signing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(books, "run_tasks", lambda make, tasks, **_: map(make(), tasks))
    for name in ("one", "two"):
        (tmp_path / f"{name}.txt").write_text("A short one. It ends here.")
    rows, out = [{"input": "one.txt"}, {"input": "two.txt", "voice": "voices/bell"}], tmp_path / "out"
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    plan = read_plan([str(tmp_path / "list.jsonl")], ReadingOptions(), Speaking())
    bell = Engine("voices/bell", "bell-1", MakeTone(), licence="CC0-1.0")
    run_job(plan, str(out), TONE, Speaking(), Options(chapter_format="none", signing=signing), lambda name: bell)
    notes = [read_file(out / "books" / name / f"{name}.m4b").note for name in ("one", "two")]
    assert notes == [{"voice": "tone"}, {"voice": "bell", "licence": "CC0-1.0"}]
    assert set(provenance(out)["voices"]) == {"tone", "voices/bell"}
    assert verify(str(out)).whole


def test_each_change_is_found(signing: Signing, book: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    speak(book, out, signing=signing)
    before = {name: (out / name).read_bytes() for name in (PROVENANCE, OUTPUTS, "one.m4b")}

    def findings() -> set[tuple[str, str]]:
        return {(finding.kind, finding.name) for finding in verify(str(out)).findings}

    (out / PROVENANCE).write_bytes(before[PROVENANCE].replace(b'"tone-1"', b'"tone-2"'))
    assert findings() == {("damaged", PROVENANCE), ("wrong", SIGNATURE)}
    (out / PROVENANCE).write_bytes(before[PROVENANCE].replace(b'"references"', b'"referencez"'))
    assert [finding.what for finding in verify(str(out)).findings] == [
        "changed since the job wrote it",
        "the signature does not fit provenance.json: it was changed after it was signed",
    ]
    damaged = bytearray(sidecar := (out / SIGNATURE).read_bytes())
    damaged[-50] ^= 1
    (out / PROVENANCE).write_bytes(before[PROVENANCE])
    (out / SIGNATURE).write_bytes(damaged)
    assert findings() == {("damaged", SIGNATURE)}
    (out / SIGNATURE).write_bytes(sidecar)
    (out / PROVENANCE).write_bytes(before[PROVENANCE])
    data = bytearray(before["one.m4b"])
    data[-100] ^= 1
    (out / "one.m4b").write_bytes(data)
    assert findings() == {("damaged", "one.m4b")}
    (out / "one.m4b").write_bytes(before["one.m4b"])
    assert findings() == set()
    (out / PROVENANCE).unlink()
    assert findings() == {("missing", PROVENANCE)}
    (out / PROVENANCE).write_bytes(before[PROVENANCE])
    (out / SIGNATURE).unlink()
    assert findings() == {("missing", SIGNATURE)}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda told: told["voices"].clear(), "rows are by voice tone (model tone-1), which it does not state"),
        (lambda told: told.update(watermark=None), "rows have the watermark 0, and it states None"),
        (lambda told: told["watermark"].update(number=9), "it states another watermark than the job's"),
        (lambda told: told.update(job="0"), "it is of another job"),
        (lambda told: told["files"].pop("one.m4b"), "it has no checksum of one.m4b"),
        (lambda told: told["files"]["words.json"].update(sha256="0"), "it has not the checksum"),
        (lambda told: told["files"].update({"../x": {}}), "outside the job's folder"),
        (lambda told: told.pop("references"), "it is no record of ours: something that it must state is missing"),
        (lambda told: told.update(format=99), "its format 99"),
    ],
)
def test_what_it_states_must_be_so(change: Any, told: str, book: Path, tmp_path: Path) -> None:
    speak(book, tmp_path / "out", chapter_format="none")
    assert any(told in found for found in changed(tmp_path / "out", change))


def test_what_of_the_inputs_was_read_is_stated_and_told(book: Path, tmp_path: Path) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    reading, options = ReadingOptions(chapters="1", limit=2), Options(chapter_format="none", running=Running(most=1))
    summary = synthesize.synthesize([str(book)], str(out), None, reading, None, options, engine=TONE)
    assert summary.notes[0] == "a part alone: chapters 1 of 2, the first 2 of 3 sentences"
    assert summary.notes[0] in (out / "report.html").read_text()
    assert provenance(out)["reading"] == {"chapters": "1", "limit": 2}
    all_of_it = speak(book, whole)
    assert not any("a part alone" in note for note in all_of_it.notes) and provenance(whole)["reading"] == {}


def test_recordings_that_were_imitated_are_stated_with_the_consent(tmp_path: Path) -> None:
    clip, rows, out = tmp_path / "me.wav", tmp_path / "rows.jsonl", tmp_path / "out"
    write_audio(clip, buzz(3 * 24_000, 140.0, 24_000), 24_000)
    row = {"id": "a", "text": "As I say it.", "clone": str(clip), "ref_text": "What is said in it."}
    rows.write_text(json.dumps(row) + "\n" + json.dumps({"id": "b", "text": "By itself."}) + "\n")
    speak(rows, out, Speaking(consent="I agreed, on 1 May"))
    (told,) = provenance(out)["references"]
    assert (told["source_sha256"], told["consent"]) == (sha256(clip.read_bytes()), "I agreed, on 1 May")
    assert told["source"] == str(clip)
    assert "metadata.csv" in provenance(out)["files"]
    assert "provenance.json" in (out / "README.md").read_text()
    assert verify(str(out)).whole
    assert any("imitate the recording" in found for found in changed(out, lambda told: told["references"].clear()))


def test_a_job_that_died_before_its_signature_ends_signed(
    signing: Signing, book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def dies(*_: Any) -> list[str]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(job, "sign_sounds", dies)
        with pytest.raises(KeyboardInterrupt):
            speak(book, out, signing=signing)
    assert read_file(out / "one.m4b").status == "none"
    assert [finding.name for finding in verify(str(out)).findings] == [PROVENANCE]  # not finished
    summary = speak(book, out, signing=signing)
    assert (summary.shards_resumed, read_file(out / "one.m4b").status) == (summary.shards, "untrusted")
    assert verify(str(out)).whole
    (out / "one.m4b").unlink()
    go_on(str(out), engine=TONE, signing=signing)
    assert read_file(out / "one.m4b").status == "untrusted"


def test_a_finished_job_is_signed_later_and_what_is_made_anew_without_the_key_says_so(
    signing: Signing, book: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    speak(book, out)
    assert speak(book, out, signing=signing).signed_by == signing.facts
    signed = (out / "one.m4b").read_bytes()
    assert speak(book, out).signed_by == signing.facts  # nothing is to do
    assert speak(book, out, signing=signing) and (out / "one.m4b").read_bytes() == signed
    summary = speak(book, out, chapter_format="mp3")
    assert summary.signed_by is None and "what is made now is not" in summary.notes[0]
    assert not (out / SIGNATURE).exists() and not list(out.rglob("*.c2pa"))
    assert verify(str(out)).whole
    speak(book, out, signing=signing)
    told: list[str] = []

    def spoken(*given: Any, **more: Any) -> Any:
        told.append(capsys.readouterr().err)
        return speak_inline(*given, **more)

    monkeypatch.setattr(job, "speak_shards", spoken)
    speak(book, out, Speaking({"seed": 3}), update=True)
    assert "note: it was signed by Our press" in told[0], "before the work"


def test_a_job_of_before_there_was_one_is_whole(book: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    speak(book, out)
    (out / PROVENANCE).unlink()
    noted = json.loads((out / OUTPUTS).read_text())
    sizes = {name: size for name, size in noted["sizes"].items() if name != PROVENANCE}
    (out / OUTPUTS).write_text(json.dumps({"files": noted["files"], "sizes": sizes}))
    assert cli.main(["verify", str(out)]) == 0
    assert "no provenance.json: the job was finished before there was one" in capsys.readouterr().out
    speak(book, out)
    assert (out / PROVENANCE).exists() and verify(str(out)).whole


def test_overwriting_leaves_nothing_of_it(signing: Signing, book: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    speak(book, out, signing=signing)
    speak(book, out, Speaking({"seed": 3}), overwrite=True, chapter_format="none")
    assert not (out / SIGNATURE).exists() and not list(out.rglob("*.c2pa"))
    assert provenance(out)["settings"]["seed"] == 3


@pytest.mark.parametrize("words", [["synthesize", "{book}", "-o", "{out}"], ["corpus", "{book}", "-o", "{out}"]])
def test_a_key_that_cannot_sign_is_refused_before_work(
    words: list[str], signing: Signing, book: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, other = tmp_path / "out", make_chain(tmp_path / "other", "Others")[0]
    line = [word.format(book=book, out=out) for word in words]
    assert cli.main([*line, "--sign-key", str(other), "--sign-chain", str(signing.chain)]) == 2
    assert "is not that of the first certificate" in capsys.readouterr().err
    assert cli.main([*line, "--sign-key", str(signing.key)]) == 2
    assert "belong together" in capsys.readouterr().err
    assert not out.exists()


def test_say_signs_what_it_writes(signing: Signing, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sign, file = ["--sign-key", str(signing.key), "--sign-chain", str(signing.chain)], tmp_path / "a.opus"
    assert cli.main(["say", "Yes.", "-o", str(file), *sign]) == 0
    found = read_file(file, signing.chain)
    assert (found.status, found.note) == ("valid", {"voice": "heart", "licence": "Apache-2.0"})
    assert "signed by Our press" in capsys.readouterr().out
    assert cli.main(["say", "Yes.", "--play", *sign]) == 2
    assert "give -o FILE too" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.c2pa", "a.opus"]
    assert cli.main(["say", "No.", "-o", str(file)]) == 0
    assert read_file(file).status == "none", "the old credentials would read as those of a changed sound"


def test_a_certificate_that_is_out_of_date_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("c2pa")
    from datetime import datetime, timedelta

    from flowtts_core import signing as module

    class Past(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) - timedelta(days=900)

    with monkeypatch.context() as patched:
        patched.setattr(module, "datetime", Past)
        key, chain = make_chain(tmp_path, "Our press", days=1)
    with pytest.raises(ConfigError, match="not valid at time of signing"):
        open_signing(key, chain)
