"""Cloning as its user meets it: `say`, rows of tables, saved voices; the same recording sounds the same in all of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.storage import Storage
from flowtts_core.audio.files import encode, read_audio, to_int16
from flowtts_core.engines.base import Speech
from flowtts_core.errors import FlowTTSError
from flowtts_core.metrics import similarity
from flowtts_core.request import PromptClip, SynthesisRequest
from flowtts_core.voice import cloning, open_voice
from flowtts_core.watermark.marking import Marking
from jobs import cli
from jobs.synthesis import job as synthesis_job
from jobs.synthesis.input import ReadingOptions
from jobs.synthesis.manifest import read_manifest
from jobs.synthesis.settings import Speaking
from jobs.synthesize import synthesize
from tests.fake_engine import speak_inline
from tests.speech_like import babble, babble_clip
from tests.standins import make_character_voice

TEXT, SAID, HEARD = "One two three. Four five.", "what is said in this clip", "what a recogniser heard"


@pytest.fixture(autouse=True)
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speak in this process, where the stand-ins are known, and hear by a stand-in."""

    class Recogniser:
        def transcribe(self, waveform: np.ndarray, sample_rate: int, language: str = "en") -> str:
            return HEARD

    monkeypatch.setattr(synthesis_job, "speak_shards", speak_inline)
    monkeypatch.setattr(cloning, "recogniser", lambda spec: Recogniser())
    monkeypatch.setattr(similarity, "parts_alike", lambda waveform, rate: None)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_character_voice(tmp_path_factory.mktemp("voices") / "characters", prompted="required")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "me.wav"
    path.write_bytes(encode(np.concatenate([np.zeros(16000), 0.2 * babble(3.5), np.zeros(8000)]), 16000, ".wav"))
    return path


def spoken(voice: Path | str, *, marked: bool = False, **settings: object) -> np.ndarray:
    """The library's sound, or what commands and jobs make of it."""
    [speech] = open_voice(voice).synthesize([SynthesisRequest(text=TEXT, seed=3, **settings)])  # type: ignore[arg-type]
    assert isinstance(speech, Speech), speech
    return to_int16((Marking().speech(speech) if marked else speech).waveform)


def samples(path: Path) -> np.ndarray:
    return to_int16(read_audio(path)[0])


def same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether both are the same sound; a batch may round a sample otherwise."""
    return one.shape == other.shape and bool(np.abs(one.astype(int) - other).max() <= 1)


def test_say_clones_a_recording_and_tells_what_it_did(
    tmp_path: Path, base: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["say", TEXT, "--seed", "3", "--voice", str(base), "-o", str(tmp_path / "a.wav"), "--json"]
    consent = ["--consent", "Ann, 2026-05-01"]
    assert cli.main([*words, "--clone", str(clip), "--ref-text", SAID, *consent]) == 0
    told = capsys.readouterr()
    reference = json.loads(told.out)["reference"]
    assert reference["consent"] == "Ann, 2026-05-01" and reference["source"] == str(clip)
    assert reference["source_sha256"] == PromptClip(clip.read_bytes()).digest and reference["text"] == SAID
    assert told.err.count("silence at its ends left out") == 1
    own = spoken(base, marked=True, prompt=PromptClip(clip.read_bytes()), prompt_text=SAID)
    assert same(samples(tmp_path / "a.wav"), own)
    assert cli.main([*words, "--prompt", str(clip), "--prompt-text", SAID]) == 0, "as older commands call it"
    assert same(samples(tmp_path / "a.wav"), own)
    capsys.readouterr()
    assert cli.main([*words, "--clone", str(clip)]) == 0
    told = capsys.readouterr()
    assert f"heard in {clip} by pocketsphinx: {HEARD!r}" in told.err
    assert json.loads(told.out)["reference"]["transcribed"] == "pocketsphinx"
    assert same(
        samples(tmp_path / "a.wav"), spoken(base, marked=True, prompt=PromptClip(clip.read_bytes()), prompt_text=HEARD)
    )


def test_say_refuses_what_cannot_be_cloned(
    tmp_path: Path, base: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "short.wav").write_bytes(babble_clip(0.3).audio)
    words = ["say", TEXT, "-o", str(tmp_path / "a.wav"), "--voice"]
    for given, reason in (
        ([str(base), "--clone", str(tmp_path / "short.wav")], "at least 1 s"),
        ([str(base), "--clone", str(clip), "--ref-text", SAID * 20], "too long"),
        ([str(base), "--clone", str(tmp_path / "gone.wav")], "gone.wav"),
        ([str(base)], "--clone FILE"),
        (["natural", "--clone", str(clip)], "has no such setting"),
    ):
        assert cli.main([*words, *given]) == 1
        assert reason in capsys.readouterr().err
        assert not (tmp_path / "a.wav").exists()


def test_rows_clone_by_path_and_by_bytes_and_fail_alone(tmp_path: Path, base: Path, clip: Path) -> None:
    said = {"text": TEXT, "seed": 3, "ref_text": SAID}
    silent, long = tmp_path / "silent.wav", tmp_path / "long.flac"
    silent.write_bytes(encode(np.zeros(32000, np.float32), 16000, ".wav"))
    long.write_bytes(babble_clip(30.0).audio)
    rows = [
        {"id": "path", **said, "clone": clip.name},
        {"id": "again", **said, "prompt": clip.name},
        {"id": "silent", **said, "clone": silent.name},
        {"id": "mute", "text": TEXT, "seed": 3, "clone": clip.name},
        {"id": "long", **said, "clone": long.name, "ref_text": "words " * 25},
        {"id": "two", **said, "clone": clip.name, "prompt": silent.name},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = synthesize([str(tmp_path / "rows.jsonl")], str(tmp_path / "out"), str(base))
    found = {row["id"]: row for row in read_manifest(Storage(str(tmp_path / "out"))).to_pylist()}
    assert (summary.ok, summary.failed) == (3, 3)
    assert "silent" in found["silent"]["reason"] and "ref_text" in found["mute"]["reason"]
    assert "say two things" in found["two"]["reason"]
    assert 5 < len(found["long"]["prompt_text"].split()) < 15, "the text is cut with the recording"
    assert found["path"]["notes"] == ["1.3 s of silence at its ends left out"] and found["long"]["notes"]
    assert found["path"]["sha256"] == found["again"]["sha256"] and found["path"]["prompt_text"] == SAID
    own = spoken(base, marked=True, prompt=PromptClip(clip.read_bytes()), prompt_text=SAID)
    assert same(samples(tmp_path / "out/audio/path.flac"), own)
    assert (summary.prompts, summary.prompts_made) == (6, 3), "two sentences of three rows; the silent clip was tried"
    [first] = [told for told in summary.references if told["source"].endswith("me.wav") and told["text"]]
    assert first["prompt"] == first["source_sha256"] == PromptClip(clip.read_bytes()).digest
    pq.write_table(
        pa.table(
            {
                "id": ["bytes", "audio"],
                "text": [TEXT] * 2,
                "seed": [3] * 2,
                "ref_text": [SAID] * 2,
                "clone": [{"bytes": clip.read_bytes(), "path": None}, {"bytes": None, "path": clip.name}],
            }
        ),
        tmp_path / "rows.parquet",
    )
    summary = synthesize([str(tmp_path / "rows.parquet")], str(tmp_path / "parquet"), str(base))
    assert summary.ok == 2
    for name in ("bytes", "audio"):
        assert same(samples(tmp_path / f"parquet/audio/{name}.flac"), own)


def test_rows_without_a_text_are_heard_where_asked_for(tmp_path: Path, base: Path, clip: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"id": "a", "text": TEXT, "seed": 3, "clone": clip.name}))
    speaking = Speaking(asr="whisper:any", consent="Ann")
    summary = synthesize([str(tmp_path / "rows.jsonl")], str(tmp_path / "out"), str(base), speaking=speaking)
    [told] = summary.references
    assert (told["transcribed"], told["text"], told["consent"]) == ("whisper:any", HEARD, "Ann")
    own = spoken(base, marked=True, prompt=PromptClip(clip.read_bytes()), prompt_text=HEARD)
    assert same(samples(tmp_path / "out/audio/a.flac"), own)


def test_a_jobs_own_recording_is_prepared_once_and_a_bad_one_ends_it(
    tmp_path: Path, base: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.txt").write_text("One.\nTwo.\n")
    words = ["synthesize", str(tmp_path / "rows.txt"), "--lines", "--voice", str(base), "-o"]
    assert cli.main([*words, str(tmp_path / "out"), "--clone", str(clip), "--consent", "Ann"]) == 0
    assert capsys.readouterr().err.count(f"heard: {HEARD!r}") == 1
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [(told["text"], told["consent"]) for told in summary["references"]] == [(HEARD, "Ann")]
    (tmp_path / "bad.wav").write_bytes(babble_clip(0.3).audio)
    assert cli.main([*words, str(tmp_path / "bad"), "--clone", str(tmp_path / "bad.wav")]) == 1
    assert "at least 1 s" in capsys.readouterr().err
    with pytest.raises(FlowTTSError, match="at least 1 s"):
        synthesize(
            [str(tmp_path / "rows.txt")],
            str(tmp_path / "bad2"),
            str(base),
            ReadingOptions(lines=True),
            Speaking({"prompt": str(tmp_path / "bad.wav"), "prompt_text": SAID}),
        )


@pytest.fixture
def saved(tmp_path: Path, base: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a saved clone with two styles."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    (tmp_path / "lively.wav").write_bytes(encode(babble(3.0, 240.0, seed=1), 16000, ".wav"))
    words = ["voices", "add", "ann", "--voice", str(base), "--clone", str(clip), "--ref-text", SAID]
    words += ["--style", f"lively={tmp_path / 'lively.wav'}", "--consent", "Ann, 2026-05-01"]
    assert cli.main(words) == 0
    return "ann"


def test_a_saved_clone_sounds_as_its_recording_everywhere(
    tmp_path: Path, base: Path, clip: Path, saved: str, capsys: pytest.CaptureFixture[str]
) -> None:
    own = spoken(base, prompt=PromptClip(clip.read_bytes()), prompt_text=SAID)
    assert same(spoken(saved), own) and same(spoken(tmp_path / "data/flowtts/voices/ann"), own)
    lively = spoken(base, prompt=PromptClip((tmp_path / "lively.wav").read_bytes()), prompt_text=HEARD)
    assert same(spoken(saved, style="lively"), lively) and not same(own, lively)
    assert cli.main(["say", TEXT, "--seed", "3", "--voice", saved, "-o", str(tmp_path / "a.wav")]) == 0
    assert same(samples(tmp_path / "a.wav"), spoken(saved, marked=True))
    rows = [{"id": "plain", "text": TEXT, "seed": 3}, {"id": "lively", "text": TEXT, "seed": 3, "style": "lively"}]
    rows += [
        {"id": "odd", "text": TEXT, "style": "sad"},
        {"id": "other", "text": TEXT, "clone": clip.name, "ref_text": SAID},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = synthesize([str(tmp_path / "rows.jsonl")], str(tmp_path / "out"), saved)
    found = {row["id"]: row for row in read_manifest(Storage(str(tmp_path / "out"))).to_pylist()}
    assert (summary.ok, summary.failed) == (2, 2)
    assert "has no style 'sad' (it has: lively)" in found["odd"]["reason"]
    assert "has no such setting" in found["other"]["reason"]
    for name, file, text in (("plain", clip, SAID), ("lively", tmp_path / "lively.wav", HEARD)):
        expected = spoken(base, marked=True, prompt=PromptClip(file.read_bytes()), prompt_text=text)
        assert same(samples(tmp_path / f"out/audio/{name}.flac"), expected)
    dialogue = f"[voice:{saved}]{TEXT}[/voice]"
    assert cli.main(["say", dialogue, "--seed", "3", "--voice", saved, "-o", str(tmp_path / "b.wav")]) == 0
    assert same(samples(tmp_path / "b.wav"), spoken(saved, marked=True))
    capsys.readouterr()
    assert cli.main(["voices"]) == 0 and "ann" in capsys.readouterr().out


def test_a_saved_clone_notes_where_it_comes_from(tmp_path: Path, clip: Path, saved: str) -> None:
    folder = tmp_path / "data/flowtts/voices/ann"
    told = json.loads((folder / "provenance.json").read_text())
    assert told["reference"]["consent"] == told["lively"]["consent"] == "Ann, 2026-05-01"
    assert told["reference"]["source_sha256"] == PromptClip(clip.read_bytes()).digest
    assert told["lively"]["transcribed"] == "pocketsphinx"
    assert sorted(path.name for path in folder.iterdir()) == [
        *("lively.flac", "provenance.json", "reference.flac", "voice.json"),
    ]


def test_a_clone_is_not_published(tmp_path: Path, saved: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("huggingface_hub", reason="needs pip install 'flowtts[hub]'")
    assert cli.main(["push", saved, "hf://me/ann"]) == 1
    assert "a person's recordings" in capsys.readouterr().err


def test_a_clone_says_what_is_wrong_with_it(
    tmp_path: Path, base: Path, clip: Path, saved: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data/flowtts/voices/ann"
    card = json.loads((folder / "voice.json").read_text())
    kept = (folder / "reference.flac").read_bytes()
    (folder / "reference.flac").write_bytes(babble_clip(3.0).audio)
    with pytest.raises(FlowTTSError, match="not the recording that the card names"):
        open_voice(saved)
    (folder / "reference.flac").unlink()
    with pytest.raises(FlowTTSError, match="a recording is missing"):
        open_voice(saved)
    (folder / "reference.flac").write_bytes(kept)
    for changed, reason in (({"fingerprint": "0" * 16}, "is not the one"), ({"voice": "/gone"}, "is not there")):
        bad = {**card, "parts": {**card["parts"], "base": {**card["parts"]["base"], **changed}}}
        (folder / "voice.json").write_text(json.dumps(bad))
        with pytest.raises(FlowTTSError, match=reason):
            open_voice(saved)
    words = ["voices", "add"]
    one = ["--clone", str(clip), "--ref-text", SAID, "--voice", str(base)]
    for given, reason, code in (
        ([*words, "ann", *one], "holds something already", 1),
        ([*words, "heart", *one], "cannot be a name", 2),
        ([*words, "a/b", *one], "cannot be a name", 2),
        ([*words, *one], "one name is wanted", 2),
        ([*words, "bob", "--clone", str(clip)], "a voice that imitates", 2),
        ([*words, "bob", "--clone", str(clip), "--ref-text", SAID, "--voice", "natural"], "imitates nobody", 2),
        ([*words, "bob", *one, "--style", "calm"], "not as --style", 2),
        ([*words, "bob", *one, "--style-text", "calm=Yes."], "no such style", 2),
        (["voices", "--clone", str(clip)], "save a clone", 2),
    ):
        assert cli.main(given) == code, given
        assert reason in capsys.readouterr().err
    assert cli.main([*words, "ann", *one, "--overwrite"]) == 0 and open_voice("ann").name == "ann"


def test_edit_says_other_words_in_a_recording(tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording, new = tmp_path / "talk.wav", tmp_path / "new.wav"
    recording.write_bytes(encode(babble(4.0), 16000, ".wav"))
    words = ["edit", str(recording), "--voice", str(base), "-o", str(new), "--text", "We meet again on Monday at nine."]
    assert cli.main([*words, "--replace", "Monday=Friday", "--replace", "again=", "--consent", "Ann", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["text"] == "We meet on Friday at nine." and told["reference"]["consent"] == "Ann"
    first = round((told["edits"][1]["at_s"] - 0.05) * 16000)
    untouched = to_int16(Marking().marked(*read_audio(recording)))  # all of it is marked: it is not what was recorded
    assert same(samples(new)[: first - 320], untouched[: first - 320])
    for given, reason, code in (
        ([*words, "--replace", "Sunday=Friday"], "0 times", 2),
        ([*words, "--voice", "natural", "--replace", "Monday=Friday"], "has no such setting", 1),
    ):
        assert cli.main(given) == code
        assert reason in capsys.readouterr().err
