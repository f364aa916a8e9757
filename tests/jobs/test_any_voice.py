"""Voices of other kinds than Matcha through the jobs and the server: characters with a prompt, and an engine without models."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
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
from flowtts_core.audio.files import read_audio, to_int16
from flowtts_core.engines.base import Speech
from flowtts_core.errors import FlowTTSError
from flowtts_core.metrics.judges import Clip, Panel, Verdict
from flowtts_core.request import PromptClip, SynthesisRequest
from flowtts_core.voice import card, load_card, open_voice
from flowtts_core.watermark.marking import Marking
from jobs import cli
from jobs.synthesis import job as synthesis_job
from jobs.synthesis.input import ReadingOptions
from jobs.synthesis.manifest import read_manifest
from jobs.synthesis.settings import GateConfig, Speaking
from jobs.synthesize import synthesize
from jobs.verify import verify
from tests.fake_engine import speak_inline
from tests.onnx_graphs import make_kokoro_voice, make_piper_voice, write_piper
from tests.speech_like import babble_clip
from tests.standins import make_character_voice, make_fake_voice

TEXT = "One two three. Four five."


@pytest.fixture(autouse=True)
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speak in this process, where the stand-ins are known."""
    monkeypatch.setattr(synthesis_job, "speak_shards", speak_inline)


@pytest.fixture(scope="module")
def characters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_character_voice(tmp_path_factory.mktemp("voices") / "characters")


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_fake_voice(tmp_path_factory.mktemp("voices") / "fake")


def clip(hertz: float) -> bytes:
    return babble_clip(1.2, hertz, 22_050).audio


def samples_of(wav: bytes) -> np.ndarray:
    return np.frombuffer(wav[44:], "<i2").astype(int)


def rows_of(output: Path) -> dict[str, dict]:
    return {row["id"]: row for row in read_manifest(Storage(str(output))).to_pylist()}


def test_rows_bring_their_prompts(tmp_path: Path, characters: Path) -> None:
    (tmp_path / "clips").mkdir()
    for name, hertz in (("low", 150.0), ("high", 250.0)):
        (tmp_path / "clips" / f"{name}.flac").write_bytes(clip(hertz))
    said = {"text": TEXT, "seed": 3, "prompt_text": "a clip"}
    rows = [
        {"id": "low", **said, "prompt": "clips/low.flac"},
        {"id": "again", **said, "prompt": "clips/low.flac"},
        {"id": "high", **said, "prompt": "clips/high.flac", "guidance": 2},
        {"id": "gone", **said, "prompt": "clips/gone.flac"},
        {"id": "alone", "text": TEXT, "seed": 3, "prompt": "clips/low.flac"},
        {"id": "none", "text": TEXT, "seed": 3},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = synthesize([str(tmp_path / "rows.jsonl")], str(tmp_path / "out"), str(characters))
    found = rows_of(tmp_path / "out")
    assert (summary.ok, summary.failed) == (4, 2)
    assert "gone.flac" in found["gone"]["reason"] and "prompt_text" in found["alone"]["reason"]
    assert found["low"]["prompt"] == PromptClip(clip(150.0)).digest and found["high"]["guidance"] == 2.0
    assert found["low"]["sha256"] == found["again"]["sha256"] != found["high"]["sha256"] != found["none"]["sha256"]
    assert all(row["words"] is None for row in found.values())
    request = SynthesisRequest(text=TEXT, seed=3, prompt=PromptClip(clip(150.0)), prompt_text="a clip")
    [speech] = open_voice(characters).synthesize([request])
    assert isinstance(speech, Speech)
    heard = to_int16(read_audio(tmp_path / "out" / "audio" / "low.flac")[0]).astype(int)
    assert np.abs(heard - to_int16(Marking().speech(speech).waveform)).max() <= 1
    assert verify(str(tmp_path / "out")).whole


def test_a_jobs_prompt_is_every_rows(tmp_path: Path, characters: Path) -> None:
    (tmp_path / "a.flac").write_bytes(clip(150.0))
    (tmp_path / "rows.txt").write_text("One.\nTwo.\n")
    options = ["--lines", "--voice", str(characters), "--prompt", str(tmp_path / "a.flac"), "--prompt-text", "a clip"]
    assert cli.main(["synthesize", str(tmp_path / "rows.txt"), "-o", str(tmp_path / "out"), *options]) == 0
    assert {row["prompt"] for row in rows_of(tmp_path / "out").values()} == {PromptClip(clip(150.0)).digest}


def test_a_voice_without_word_times_makes_a_book(tmp_path: Path, fake: Path) -> None:
    (tmp_path / "book.txt").write_text("A first sentence. A second one.\n\nAnother paragraph, with some words.")
    summary = synthesize([str(tmp_path / "book.txt")], str(tmp_path / "out"), str(fake))
    assert summary.ok == 3 and not summary.failed
    assert verify(str(tmp_path / "out")).whole
    words = json.loads((tmp_path / "out" / "words.json").read_text())
    sentences = [s for chapter in words["chapters"] for s in chapter["sentences"]]
    assert len(sentences) == 3 and all(s["words"] is None for s in sentences)
    assert any(name.endswith(".srt") for name in summary.files)


def test_what_a_voice_cannot_follow_is_refused(tmp_path: Path, fake: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(
        json.dumps({"id": "a", "text": "One.", "steps": 4}) + '\n{"id":"b","text":"Two."}\n'
    )
    summary = synthesize([str(tmp_path / "rows.jsonl")], str(tmp_path / "out"), str(fake))
    assert (summary.ok, summary.failed) == (1, 1)
    assert "has no such setting" in rows_of(tmp_path / "out")["a"]["reason"]


@pytest.mark.parametrize("settings", [{"steps": 4}, {"speaker": "nobody"}, {"language": "xx"}])
def test_a_jobs_setting_that_its_voice_lacks_ends_it_at_once(
    tmp_path: Path, fake: Path, characters: Path, settings: dict[str, object]
) -> None:
    rows = [{"id": "a", "text": "One.", "voice": str(fake)}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = {"speaker": "low", "language": "en-us", "steps": 2}
    inputs, speaking = [str(tmp_path / "rows.jsonl")], Speaking(settings)
    assert synthesize(inputs, str(tmp_path / "others"), str(characters), speaking=speaking).failed == 1  # its row's own
    (tmp_path / "rows.jsonl").write_text(json.dumps({"id": "b", "text": "Two."}))
    with pytest.raises(FlowTTSError, match=next(iter(settings))):
        synthesize(inputs, str(tmp_path / "out"), str(fake), speaking=speaking)
    (tmp_path / "rows.jsonl").write_text(json.dumps({"id": "c", "text": "Three.", **{k: own[k] for k in settings}}))
    made = synthesize(inputs, str(tmp_path / "rows"), str(fake), speaking=speaking)
    assert made.ok == ("speaker" in settings)  # a row that asks for something else is judged by itself


def test_a_job_begun_with_another_default_voice_goes_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.txt").write_text("One sentence.\nAnother sentence.\n")
    reading, inputs, output = ReadingOptions(lines=True), [str(tmp_path / "rows.txt")], str(tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(card, "DEFAULT_VOICE", card.FLOW_VOICE)
        synthesize(inputs, output, reading=reading)
    whole = rows_of(tmp_path / "out")
    next((tmp_path / "out" / "audio").iterdir()).unlink()
    assert synthesize(inputs, output, reading=reading).failed == 0
    assert rows_of(tmp_path / "out") == whole
    assert (
        {row["model"] for row in whole.values()}
        == {load_card(card.FLOW_VOICE).fingerprint}
        != {load_card().fingerprint}
    )
    synthesize(inputs, str(tmp_path / "new"), reading=reading)
    assert {row["model"] for row in rows_of(tmp_path / "new").values()} == {load_card().fingerprint}


@pytest.mark.slow
def test_its_output_is_evaluated(tmp_path: Path, fake: Path) -> None:
    (tmp_path / "rows.txt").write_text("One sentence of words.\nAnother sentence of words.\n")
    synthesize([str(tmp_path / "rows.txt")], str(tmp_path / "out"), str(fake), reading=ReadingOptions(lines=True))
    assert cli.main(["evaluate", str(tmp_path / "out"), "--judges", "shape", "--workers", "1", "--json"]) == 0


class Hosted:
    """The way from the server's front to a voice in this process."""

    def __init__(self, folder: Path) -> None:
        self._voice = HostedVoice(str(folder), 8, 600.0, "cpu")

    def speak(self, job: SpeechJob) -> AsyncIterator[SoundPiece | Refusal]:
        return self._voice.sounds(job)

    async def ready(self) -> bool:
        return True


def served(folder: Path) -> TestClient:
    front = Front(Settings(served_voices([str(folder)]), cache_bytes=0, cloning=True), Hosted(folder), mock.Mock())
    return TestClient(create_app(front), base_url="http://127.0.0.1")


def test_the_server_speaks_with_it(fake: Path) -> None:
    client = served(fake)
    whole = client.post("/tts", json={"text": TEXT, "seed": 5, "response_format": "wav"})
    streamed = client.post("/tts", json={"text": TEXT, "seed": 5, "response_format": "wav", "stream": True})
    [speech] = open_voice(fake).synthesize([SynthesisRequest(text=TEXT, seed=5)])
    assert isinstance(speech, Speech)
    for answer in (whole, streamed):
        heard = samples_of(answer.content)
        assert np.abs(heard - to_int16(speech.waveform)).max() <= 1
    timed = client.post("/tts", json={"text": TEXT, "seed": 5, "timestamps": True}).json()
    assert timed["words"] is None and timed["seconds"] == pytest.approx(speech.seconds, abs=1e-3)
    refused = client.post("/tts", json={"text": TEXT, "steps": 4})
    assert refused.status_code == 400 and "no such setting" in refused.json()["error"]["message"]


def test_a_client_brings_its_prompt(characters: Path) -> None:
    client, body = served(characters), {"text": TEXT, "seed": 3, "response_format": "wav"}
    prompts = [{"prompt": base64.b64encode(clip(hertz)).decode(), "prompt_text": "a clip"} for hertz in (150.0, 250.0)]
    low, high = (client.post("/tts", json={**body, **prompt}).content for prompt in prompts)
    assert low[:4] == high[:4] == b"RIFF" and low != high
    streamed = client.post("/tts", json={**body, **prompts[0], "stream": True}).content
    first, second = (samples_of(data) for data in (low, streamed))
    assert first.shape == second.shape and np.abs(first - second).max() <= 4
    for bad in ({"prompt": "no base64!"}, {"prompt": base64.b64encode(b"no clip").decode()}):
        answer = client.post("/tts", json={**body, "prompt_text": "a clip", **bad})
        assert answer.status_code == 400, answer.text


def test_a_voice_without_noise_has_one_take(tmp_path: Path) -> None:
    voice = make_kokoro_voice(tmp_path / "kokoro")
    (tmp_path / "rows.txt").write_text("Good evening.\n")
    gate = GateConfig(("seconds>1000",))
    summary = synthesize(
        [str(tmp_path / "rows.txt")],
        str(tmp_path / "out"),
        str(voice),
        ReadingOptions(lines=True),
        Speaking({"speaker": "bm_george"}, gate=gate),
    )
    [row] = rows_of(tmp_path / "out").values()
    assert summary.failed == 1 and (row["takes"], row["steps"], row["phonemes"]) == (1, None, "ɡˈʊd ˈiːvnɪŋ.")
    assert row["reason"].startswith("not verified in 1 take: seconds is ")


def test_takes_are_judged_in_the_language_in_which_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyopenjtalk", reason="needs pip install 'flowtts[japanese]'")
    judged: dict[str | None, str | None] = {}

    def judge(self: Panel, clip: Clip, without: tuple[str, ...] = ()) -> Verdict:
        judged[clip.text] = clip.language
        return Verdict(values={"cer": (0.0, 1.0)})

    monkeypatch.setattr(Panel, "judge", judge)
    voice = make_kokoro_voice(tmp_path / "kokoro", speakers=("af_heart", "jf_alpha", "bm_george"))
    rows = [
        {"id": "a", "text": "Good evening."},
        {"id": "b", "text": "Good morning.", "speaker": "bm_george"},
        {"id": "c", "text": "古い家。", "speaker": "jf_alpha"},
        {"id": "d", "text": "古い町。", "language": "ja"},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    speaking = Speaking(gate=GateConfig(("cer<0.5",)))
    assert synthesize([str(tmp_path / "rows.jsonl")], str(tmp_path / "out"), str(voice), speaking=speaking).ok == 4
    assert judged == {"Good evening.": "en", "Good morning.": "en", "古い家。": "ja", "古い町。": "ja"}


@pytest.mark.parametrize("speaker", [None, "speaker-2"])
def test_rows_of_an_onnx_voice_are_the_librarys_sound(tmp_path: Path, speaker: str | None) -> None:
    voice = make_piper_voice(tmp_path / "many", speakers=3)
    (tmp_path / "rows.jsonl").write_text(json.dumps({"id": "a", "text": TEXT, "seed": 3, "speaker": speaker}) + "\n")
    synthesize([str(tmp_path / "rows.jsonl")], str(tmp_path / "out"), str(voice))
    [speech] = open_voice(voice).synthesize([SynthesisRequest(text=TEXT, seed=3, speaker=speaker)])
    assert isinstance(speech, Speech) and speech.words
    found = to_int16(read_audio(tmp_path / "out" / "audio" / "a.flac")[0])
    assert np.array_equal(found, to_int16(Marking().speech(speech).waveform))
    assert [word["word"] for word in rows_of(tmp_path / "out")["a"]["words"]] == [word.word for word in speech.words]


def test_all_that_list_voices_tell_where_word_times_come_from(
    tmp_path: Path, fake: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    timed, untimed = tmp_path / "timed", make_piper_voice(tmp_path / "untimed", timed=False)
    graph, _ = write_piper(tmp_path / "files")
    assert cli.main(["import", "piper", str(graph), "-o", str(timed), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["word_times"] == "model"
    assert cli.main(["voices", str(timed), str(untimed), str(fake), "--json"]) == 0
    rows = {Path(row["folder"]): row["word_times"] for row in json.loads(capsys.readouterr().out)}
    assert (rows[timed], rows[untimed], rows[fake]) == ("model", "aligned", "none")
    assert cli.main(["voices", str(untimed)]) == 0
    assert "aligned" in capsys.readouterr().out
    [row] = served(untimed).get("/v1/voices").json()["data"]
    assert row["word_times"] == "aligned"
    answer = served(untimed).post("/tts", json={"text": TEXT, "seed": 5, "timestamps": True}).json()
    [speech] = open_voice(untimed).synthesize([SynthesisRequest(text=TEXT, seed=5)])
    assert isinstance(speech, Speech) and speech.words
    assert [word["word"] for word in answer["words"]] == [word.word for word in speech.words]
