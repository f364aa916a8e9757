"""Voices on a model hub: what was pushed speaks as before, what is damaged or not a voice is refused, folders are safe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from flowtts_core.engines.base import Speech
from flowtts_core.request import SynthesisRequest
from flowtts_core.voice import hub as voice_hub
from flowtts_core.voice import load_card, open_voice
from flowtts_core.voice.card import write_card
from flowtts_core.voice.model_card import model_card
from jobs.cli import main
from tests.fake_hub import TOKEN, FakeHub, serving
from tests.voices import make_voice

# imported before HF_ENDPOINT is set: it makes addresses of what it finds there at that time
pytest.importorskip("huggingface_hub", reason="needs pip install 'flowtts[hub]'")
pytest.importorskip("huggingface_hub.hf_api")
PLACE, REPO = "hf://me/ours", "me/ours"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch) -> Iterator[FakeHub]:
    """A hub of our own, with a token that may write."""
    with serving() as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        voice_hub.fetched.cache_clear()
        yield served
    voice_hub.fetched.cache_clear()


@pytest.fixture
def voice(tmp_path: Path) -> Path:
    folder = make_voice(tmp_path / "ours", n_speakers=2)
    (folder / "NOTICE.md").write_text("Thanks.\n")
    (folder / "notes.txt").write_text("Not for others.\n")
    return folder


def sound(place: str) -> bytes:
    [speech] = open_voice(place, threads=1).synthesize([SynthesisRequest(text="Hello there.", seed=3)])
    assert isinstance(speech, Speech)
    return speech.waveform.tobytes()


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_what_is_pushed_is_pulled_and_speaks(hub: FakeHub, voice: Path, tmp_path: Path, capsys) -> None:
    assert main(["push", str(voice), PLACE, "--private"]) == 0
    assert f"{hub.url}/me/ours" in capsys.readouterr().out and hub.private[REPO]
    there = hub.repos[REPO]["main"]
    assert there.keys() == {".gitattributes", *files_of(voice), "README.md"} - {"notes.txt"}
    assert hub.messages == [f"Voice ours, {load_card(voice).fingerprint}"]
    assert main(["pull", PLACE, "-o", str(tmp_path / "theirs")]) == 0
    pulled = files_of(tmp_path / "theirs")
    assert pulled.keys() == there.keys() - {".gitattributes"} and pulled["voice.json"] == files_of(voice)["voice.json"]
    assert sound(PLACE) == sound(str(voice)) == sound(str(tmp_path / "theirs"))
    assert main(["pull", PLACE, "-o", str(tmp_path / "theirs")]) == 0  # the same once more


def test_a_push_replaces_what_was_there(hub: FakeHub, voice: Path, tmp_path: Path) -> None:
    hub.put(REPO, {"voice.json": b"{}", "old.safetensors": b"", "picture.png": b"", ".gitattributes": b""})
    assert main(["push", str(voice), PLACE]) == 0
    assert "old.safetensors" not in hub.repos[REPO]["main"] and "picture.png" in hub.repos[REPO]["main"]


def test_a_branch_is_named_by_its_sign_or_option(hub: FakeHub, voice: Path, tmp_path: Path, capsys) -> None:
    assert main(["push", str(voice), PLACE, "--revision", "v2"]) == 0
    assert "'hf://me/ours#v2'" in capsys.readouterr().out
    assert "voice.json" in hub.repos[REPO]["v2"] and "voice.json" not in hub.repos[REPO]["main"]
    assert load_card(f"{PLACE}#v2") == load_card(voice)
    assert main(["pull", PLACE, "--revision", "v2", "-o", str(tmp_path / "theirs")]) == 0
    assert main(["pull", f"{PLACE}#v2", "--revision", "v2"]) == 2
    assert main(["pull", f"{PLACE}#v3"]) == 1
    assert "no such revision" in capsys.readouterr().err


def test_an_owners_page_stays(hub: FakeHub, voice: Path) -> None:
    (voice / "README.md").write_text("# By hand\n")
    assert main(["push", str(voice), PLACE]) == 0
    assert hub.repos[REPO]["main"]["README.md"] == b"# By hand\n"


def test_the_model_card_says_what_the_voice_is(voice: Path) -> None:
    scores = {"voices": {"command": "flowtts benchmark voices", "texts": 24, "asr": "faster-whisper:some/where/base"}}
    scores["voices"]["wer"] = {"value": 0.0456, "low": 0.02, "high": 0.07}
    card = replace(load_card(voice), scores=scores, source="texts | of ours", licence="CC0-1.0")
    page = model_card(card, PLACE)
    _, head, body = page.split("---\n", 2)
    told = yaml.safe_load(head)
    assert told["license"] == "cc0-1.0" and told["language"] == ["en"] and told["pipeline_tag"] == "text-to-speech"
    assert "| word error rate | 0.046 | 0.020 to 0.070 |" in body and "recogniser: base" in body
    assert (
        "speaker-0, speaker-1" in body and f"--voice {PLACE} --speaker speaker-0" in body and "texts | of ours" in body
    )
    own = yaml.safe_load(model_card(replace(card, licence="Own terms"), PLACE).split("---\n")[1])
    assert (own["license"], own["license_name"]) == ("other", "Own terms")


# --- what is refused -----------------------------------------------------------------------------------------------------


def damaged(voice: Path, name: str) -> dict[str, bytes]:
    """The files of a voice that must not be opened."""
    card = load_card(voice)
    files = files_of(voice)
    if name == "altered":
        files["acoustic.safetensors"] = files["acoustic.safetensors"][:-1] + b"!"
    elif name == "missing":
        del files["vocoder.safetensors"]
    elif name == "no card":
        del files["voice.json"]
    elif name == "broken card":
        files["voice.json"] = b"{"
    else:
        write_card(voice, replace(card, sha256={**card.sha256, name: "0" * 64}))
        files["voice.json"] = (voice / "voice.json").read_bytes()
    return files


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("altered", "acoustic.safetensors is not the file that its card names"),
        ("missing", "vocoder.safetensors is missing"),
        ("no card", "holds no voice"),
        ("broken card", "not a voice card"),
        ("weights.pkl", "names the file 'weights.pkl'"),
        ("../outside.json", "names the file '../outside.json'"),
        ("*.json", "names the file '*.json'"),
    ],
)
def test_what_cannot_be_trusted_is_not_put_in_place(
    what: str, said: str, hub: FakeHub, voice: Path, tmp_path: Path, capsys
) -> None:
    hub.put(REPO, damaged(voice, what))
    assert main(["pull", PLACE, "-o", str(tmp_path / "theirs")]) == 1
    assert said in capsys.readouterr().err and not (tmp_path / "theirs").exists()


def test_a_folder_that_is_no_voice_is_left_alone(hub: FakeHub, voice: Path, tmp_path: Path, capsys) -> None:
    hub.put(REPO, files_of(voice))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("All of it.")
    assert main(["pull", PLACE, "-o", str(tmp_path / "mine"), "--overwrite"]) == 1
    assert "is no voice" in capsys.readouterr().err
    assert files_of(tmp_path / "mine") == {"thesis.txt": b"All of it."}


def test_another_voice_is_replaced_only_when_asked(hub: FakeHub, voice: Path, tmp_path: Path, capsys) -> None:
    hub.put(REPO, files_of(voice))
    other = make_voice(tmp_path / "other", seed=1)
    (other / "mine.txt").write_text("Stays.")
    assert main(["pull", PLACE, "-o", str(other)]) == 1
    assert "holds the voice other already" in capsys.readouterr().err
    assert main(["pull", PLACE, "-o", str(other), "--overwrite"]) == 0
    assert load_card(other) == load_card(voice) and (other / "mine.txt").exists()


def test_a_repository_that_holds_something_else_is_left_alone(hub: FakeHub, voice: Path, capsys) -> None:
    hub.put(REPO, {"model.bin": b"1", "README.md": b""})
    assert main(["push", str(voice), PLACE]) == 1
    assert "holds something else (model.bin)" in capsys.readouterr().err
    assert hub.repos[REPO]["main"].keys() == {"model.bin", "README.md"}


def test_a_damaged_voice_is_not_pushed(hub: FakeHub, voice: Path, capsys) -> None:
    (voice / "vocoder.safetensors").write_bytes(b"cut")
    assert main(["push", str(voice), PLACE]) == 1
    assert "vocoder.safetensors is not the file" in capsys.readouterr().err and hub.repos == {}


@pytest.mark.parametrize(
    ("token", "words", "code", "said"),
    [
        ("hf_reader", ["push", "{voice}", PLACE], 1, "take a token with write access"),
        ("", ["push", "{voice}", PLACE], 1, "set HF_TOKEN"),
        ("", ["pull", "hf://me/none"], 1, "no such repository, or a private one"),
        (TOKEN, ["pull", "hf://me/none"], 1, "no such repository, or a private one"),
        (TOKEN, ["say", "Hello.", "--voice", "hf://me/none"], 1, "no such repository"),
        (TOKEN, ["pull", "hf://none"], 2, "write it as hf://owner/name"),
        (TOKEN, ["push", "{voice}", "s3://bucket/voice"], 2, "write it as hf://owner/name"),
        (TOKEN, ["push", "nobody", PLACE], 1, "no voice 'nobody'"),
    ],
)
def test_what_fails_names_its_remedy(
    token: str, words: list[str], code: int, said: str, hub: FakeHub, voice: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    assert main([word.format(voice=voice) for word in words]) == code
    assert said in capsys.readouterr().err


def test_without_network_a_voice_that_was_fetched_still_speaks(
    hub: FakeHub, voice: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    hub.put(REPO, files_of(voice))
    before = sound(PLACE)
    voice_hub.fetched.cache_clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert sound(PLACE) == before
    assert main(["pull", "hf://me/another", "-o", str(tmp_path / "another")]) == 1
    assert "cannot be reached" in capsys.readouterr().err
