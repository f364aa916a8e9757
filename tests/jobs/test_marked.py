"""What is spoken is marked as synthetic by default, wherever it is spoken; what leaves that out says so."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from fastapi.testclient import TestClient

from cluster.storage import Storage
from deploy.api import create_app
from deploy.front import Front
from deploy.replica import HostedVoice
from deploy.settings import Settings, served_voices
from deploy.speech import Refusal, SoundPiece, SpeechJob
from flowtts_core.audio.files import read_audio
from flowtts_core.engines.base import Speech, WordTime
from flowtts_core.errors import ConfigError, OutputError
from flowtts_core.streaming.ticket import Chunk
from flowtts_core.watermark.card import bundled_mark
from flowtts_core.watermark.finding import told
from flowtts_core.watermark.marker import Marker
from flowtts_core.watermark.marking import KEY_VARIABLE, MarkedChunks, Marking, read_key
from jobs import cli
from jobs.synthesis import job as synthesis_job
from jobs.synthesis.job import Options
from jobs.synthesis.manifest import read_manifest
from jobs.synthesis.settings import Speaking
from jobs.synthesize import go_on, synthesize
from jobs.verify import repair, verify
from jobs.verify import told as audit_told
from tests.fake_engine import TONE, speak_inline
from tests.speech_like import buzz

RATE = 24_000
KEY = b"0123456789abcdef"
TEXT = "The rain has stopped. Nobody was at home, and the door stood open, so we went in and waited for a long while."


def sound(seconds: float = 3.0) -> np.ndarray:
    return buzz(int(seconds * RATE), 140.0, RATE)


def number_in(path: Path, key: bytes = b"") -> int | None:
    """What the mark of a file says; None where there is none."""
    found = told(Marker.open(bundled_mark(), key), *read_audio(path))
    return found["number"] if found["marked"] else None


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(synthesis_job, "speak_shards", speak_inline)
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"id": f"r{i}", "text": f"Row number {i} of these."}) + "\n" for i in range(3)))
    return path


def digests(output: Path) -> list[str]:
    return [str(row["sha256"]) for row in read_manifest(Storage(str(output))).to_pylist()]


class TestMarking:
    def test_the_key_is_shown_nowhere_and_told_apart(self) -> None:
        one, other = Marking(3, KEY), Marking(3, KEY[::-1])
        assert KEY.decode() not in f"{one!r} {one.identity}"
        assert one.identity != other.identity != Marking(3).identity
        assert "key" not in Marking().identity

    def test_what_it_cannot_be_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "short").write_bytes(b"short")
        for wrong in (lambda: Marking(2048), lambda: Marking(0, b"short"), lambda: read_key(tmp_path / "short")):
            with pytest.raises(ConfigError):
                wrong()
        assert read_key(None) == b""
        monkeypatch.setenv(KEY_VARIABLE, KEY.decode())
        assert read_key(None) == KEY

    def test_speech_without_sound_stays_as_it_is(self) -> None:
        empty = Speech(np.zeros(0, np.float32), RATE)
        assert Marking().speech(empty) is empty

    @pytest.mark.parametrize("length", [1, 100, 239, 240, 241, 12_345])
    def test_chunks_give_what_the_whole_gives(self, length: int) -> None:
        """Chunks too short for any sound to be final hold back their words too."""
        whole = sound()
        marks, pieces = MarkedChunks(Marking(9), RATE), []
        for begin in range(0, len(whole), length) if length >= 100 else range(0, 500, length):
            end = min(len(whole), begin + length)
            word = WordTime("w", begin, end, begin / RATE, end / RATE)
            made = marks.add(Chunk(whole[begin:end], RATE, (word,), end == len(whole)))
            pieces += [] if made is None else [made]
        found = np.concatenate([piece.waveform for piece in pieces])
        assert all(len(piece.waveform) for piece in pieces)
        assert np.array_equal(found, Marking(9).marked(whole, RATE)[: len(found)])
        if length >= 100:
            assert len(found) == len(whole)
            assert sum(len(piece.words or ()) for piece in pieces) == -(-len(whole) // length)

    def test_a_stream_that_goes_on_elsewhere_has_the_same_samples(self) -> None:
        whole, sent, skipped = sound(), 40_000, 13_000
        marks = MarkedChunks(Marking(9), RATE, sent)
        assert skipped <= marks.skip < sent - RATE
        made = marks.add(Chunk(whole[skipped:], RATE, None, True, skipped))
        assert made is not None
        assert made.skipped + len(made.waveform) == len(whole)
        rest = made.waveform[sent - made.skipped :]
        assert np.array_equal(rest, Marking(9).marked(whole, RATE)[sent:])


def test_say_marks_unless_it_is_told_not_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "key").write_bytes(KEY)
    files = [tmp_path / name for name in ("marked.wav", "plain.wav", "keyed.wav")]
    keyed = ["--watermark-number", "12", "--watermark-key", str(tmp_path / "key")]
    for file, more in zip(files, ([], ["--no-watermark"], keyed), strict=True):
        assert cli.main(["say", TEXT, "-o", str(file), "--json", *more]) == 0
    told_of = [json.loads(line)["watermark"] for line in capsys.readouterr().out.splitlines()]
    assert [None if mark is None else mark["number"] for mark in told_of] == [0, None, 12]
    assert [number_in(file) for file in files] == [0, None, None]
    assert number_in(files[2], KEY) == 12
    assert cli.main(["say", TEXT, "-o", str(files[0]), "--no-watermark", *keyed]) == 2
    assert cli.main(["say", "Yes.", "-o", str(files[0]), *keyed]) == 0
    assert "watermark number 12" in capsys.readouterr().out


class TestJobs:
    def test_rows_are_marked_and_say_so(self, rows: Path, tmp_path: Path) -> None:
        synthesize([str(rows)], str(tmp_path / "out"), engine=TONE)
        synthesize([str(rows)], str(tmp_path / "plain"), speaking=Speaking(watermark=None), engine=TONE)
        for name, number in (("out", 0), ("plain", None)):
            table = read_manifest(Storage(str(tmp_path / name))).to_pylist()
            assert {row["watermark"] for row in table} == {number}
            card = (tmp_path / name / "README.md").read_text()
            assert ("| watermark | none" in card) == (number is None)
        for clip in (tmp_path / "out" / "audio").glob("*.flac"):
            plain, rate = read_audio(tmp_path / "plain" / "audio" / clip.name)
            np.testing.assert_allclose(read_audio(clip)[0], Marking().marked(plain, rate), atol=2**-14)

    def test_another_number_or_key_is_another_job(
        self, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "out"
        synthesize([str(rows)], str(out), speaking=Speaking(watermark=Marking(5, KEY)), engine=TONE)
        assert KEY.decode() not in "".join(p.read_text() for p in (out / "job.json", out / "README.md"))
        key, another = (Marking(5, secret).identity["key"] for secret in (KEY, KEY[::-1]))
        for other, what in (
            (Marking(5), f"watermark: key {key}, now none"),
            (Marking(6, KEY), "watermark: number 5, now 6"),
            (Marking(5, KEY[::-1]), f"watermark: key {key}, now {another}"),
            (None, f"watermark: number 5 by the key {key}, now none"),
        ):
            with pytest.raises(OutputError, match=f"differs in {what}[)]"):
                synthesize([str(rows)], str(out), speaking=Speaking(watermark=other), engine=TONE)
        rows.write_text(rows.read_text().replace("of these", "of those"))
        with pytest.raises(OutputError, match="differs in watermark: number 5, now 6, texts[)]"):
            synthesize([str(rows)], str(out), speaking=Speaking(watermark=Marking(6, KEY)), engine=TONE)
        with pytest.raises(OutputError, match=r"marked by the key [0-9a-f]+\n.*give it: --watermark-key FILE"):
            go_on(str(out), engine=TONE)
        assert "note" not in capsys.readouterr().err
        synthesize([str(rows)], str(out), options=Options(update=True), engine=TONE)
        assert f"note: it was marked by the key {key}, and what is made now is not" in capsys.readouterr().err

    def test_a_job_begun_without_goes_on_without(
        self, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "out"
        synthesize([str(rows)], str(out), speaking=Speaking(watermark=None), engine=TONE)
        before = digests(out)
        (out / "shards" / "00000.parquet").unlink()
        synthesize([str(rows)], str(out), engine=TONE)
        assert digests(out) == before and "goes on without" in capsys.readouterr().err
        with pytest.raises(OutputError, match="differs in watermark: none, now number 0[)]"):
            synthesize([str(rows)], str(out), speaking=Speaking(watermark_asked=True), engine=TONE)

    def test_a_repair_gives_the_same_sound(self, rows: Path, tmp_path: Path) -> None:
        out, key = tmp_path / "out", tmp_path / "key"
        key.write_bytes(KEY)
        synthesize([str(rows)], str(out), speaking=Speaking(watermark=Marking(5, KEY)), engine=TONE)
        before = digests(out)
        (out / "shards" / "00000.parquet").unlink()
        go_on(str(out), engine=TONE, watermark_key=str(key))
        assert digests(out) == before

    @pytest.mark.parametrize("refused", ["no key", "another key", "a changed voice", "a run at work", "not writable"])
    def test_a_repair_that_is_refused_deletes_nothing(
        self, refused: str, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out, key = tmp_path / "out", tmp_path / "key"
        key.write_bytes(KEY)
        synthesize([str(rows)], str(out), speaking=Speaking(watermark=Marking(5, KEY)), engine=TONE)
        sound = next((out / "audio").glob("*.flac"))
        sound.write_bytes(b"")
        (out / "audio" / "stray.flac").write_bytes(b"")
        found = verify(str(out))
        assert f"flowtts verify {out} --repair --watermark-key FILE" in audit_told(found, str(out))
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        engine, given = TONE, str(key)
        with monkeypatch.context() as patched, ExitStack() as held:
            if refused == "no key":
                given = ""
                message = "marked by the key [0-9a-f]+\n.*give it: --watermark-key FILE"
            elif refused == "another key":
                key.write_bytes(KEY[::-1])
                message = "was given"
            elif refused == "a changed voice":
                engine, message = replace(TONE, fingerprint="tone-2"), "not the one that spoke here"
            elif refused == "a run at work":
                held.enter_context(Storage(str(out)).lock())
                message = "another run is at work"
            else:
                error = OutputError("it takes no files")
                patched.setattr(Storage, "require_writable", mock.Mock(side_effect=error))
                message = "it takes no files"
            patched.setattr("jobs.synthesize.voice_engine", lambda *_: engine)
            with pytest.raises(OutputError, match=message):
                repair(str(out), found, watermark_key=given or None)
        assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
        key.write_bytes(KEY)
        monkeypatch.setattr("jobs.synthesize.voice_engine", lambda *_: TONE)
        repair(str(out), found, watermark_key=str(key))
        assert verify(str(out)).whole


class Hosted:
    """The way from the server's front to a voice in this process."""

    def __init__(self) -> None:
        self._voice = HostedVoice(served_voices([])[0].folder, 8, 600.0, "cpu", watermark=Marking(4))

    def speak(self, job: SpeechJob) -> AsyncIterator[SoundPiece | Refusal]:
        return self._voice.sounds(job)

    async def ready(self) -> bool:
        return True


def test_the_server_marks_whole_and_streamed_alike(tmp_path: Path) -> None:
    hosted, voices, found = Hosted(), served_voices([]), []
    for allow in (False, True):
        settings = Settings(voices, watermark=Marking(4).identity, allow_unmarked=allow)
        client = TestClient(create_app(Front(settings, hosted, mock.Mock())), base_url="http://127.0.0.1")
        for body in ({"stream": True}, {"stream": False}, {"watermark": False}):
            answer = client.post("/tts", json={"text": TEXT, "response_format": "pcm", **body})
            told_of = answer.headers.get("X-Watermark"), answer.status_code
            assert told_of == (
                "4" if "stream" in body else "none" if allow else None,
                200 if "stream" in body or allow else 403,
            )
            found.append(answer.content)
    assert found[0] == found[1] == found[3] == found[4] != found[5]
    rate = voices[0].sample_rate
    for content, number in ((found[0], 4), (found[5], None)):
        samples = np.frombuffer(content, "<i2").astype(np.float32) / 32768
        assert told(Marker.open(bundled_mark()), samples, rate)["number"] == number


def test_a_key_of_this_machines_environment_is_not_lost_on_a_cluster(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else the job would be marked, or marks looked for, without it, and nobody would know."""
    monkeypatch.setenv(KEY_VARIABLE, KEY.decode())
    for verb, option in ((["synthesize"], "--watermark-key"), (["watermark", "detect"], "--key")):
        sent = [*verb, "s3://bucket/book.txt", "-o", "s3://bucket/out", "--address", "http://127.0.0.1:1"]
        assert cli.main(sent) == 2
        told = capsys.readouterr().err
        assert "does not have that key" in told
        assert f"give {option} FILE" in told
    judged = ["evaluate", "s3://bucket/speech", "-o", "s3://bucket/out", "--address", "http://127.0.0.1:1"]
    with mock.patch("cluster.submission.submit", return_value=0) as submitted:
        assert cli.main([*judged, "--judges", "shape,mark_found"]) == 2
        assert not submitted.called
        assert cli.main([*judged, "--judges", "shape"]) == cli.main(judged) == 0, "nobody looks for marks"
