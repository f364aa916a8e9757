"""The command line: help, exit codes, errors without tracebacks, and the small commands on a small voice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from cluster import session
from flowtts_core import __version__
from flowtts_core.acoustic import ACOUSTIC_MODELS, MatchaConfig, MatchaTTS
from flowtts_core.config import build, spec_of
from flowtts_core.errors import ConfigError, TextError
from flowtts_core.text.frontends import PhonemeConfig
from flowtts_core.training.files import LocalFiles
from flowtts_core.vocoder import VOCODERS, HiFiGAN, Vocos, VocosConfig
from flowtts_core.vocoder.files import load_vocoder, save_vocoder
from flowtts_core.vocoder.hifigan import HIFIGAN_V3
from flowtts_core.voice.card import VoiceCard, load_card
from flowtts_core.voice.parts import save_voice
from jobs import cli, doctor, say, train, voices
from jobs.training import run as training_run
from tests.onnx_graphs import make_piper_voice

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained voice, small enough to load in a moment."""
    torch.manual_seed(0)
    config = MatchaConfig(encoder_channels=32, encoder_filter_channels=48, encoder_layers=1, duration_channels=24)
    specs = spec_of("matcha", config), {"name": "griffin_lim"}
    folder = tmp_path_factory.mktemp("voices") / "tiny"
    save_voice(
        folder,
        name="tiny",
        acoustic=build(ACOUSTIC_MODELS, specs[0]),
        acoustic_spec=specs[0],
        vocoder=build(VOCODERS, specs[1]),
        vocoder_spec=specs[1],
        frontend=spec_of("phonemes", PhonemeConfig()),
        licence="CC0-1.0",
    )
    return folder


def flowtts(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jobs.cli", *words], cwd=ROOT, capture_output=True, text=True, timeout=120, **options
    )


def test_help_names_every_command() -> None:
    done = flowtts("--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in cli.COMMANDS)


def test_version() -> None:
    assert flowtts("--version").stdout.strip() == f"flowtts {__version__}"


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_each_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    assert f"flowtts {command}" in capsys.readouterr().out
    file = cli.COMMANDS[command][0]
    assert callable(import_module(file if "." in file else f"jobs.{file}").run)


@pytest.mark.parametrize("words", [[], ["sing"], ["say"], ["say", "x", "--no-such-option"]])
def test_wrong_usage_is_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert "usage: flowtts" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "code", "shown"),
    [
        (TextError("row 3: empty", "leave it out"), 1, "error: row 3: empty\n  remedy: leave it out"),
        (ConfigError("no such thing [bold]"), 2, "error: no such thing [bold]"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (
            FileNotFoundError(2, "No such file", "x.txt"),
            1,
            "error: x.txt: No such file\n  remedy: check that it is there and may be used",
        ),
        (
            ZeroDivisionError("by 0"),
            1,
            "error: unexpected ZeroDivisionError: by 0\n"
            "  remedy: run it again as `flowtts --debug ...` and report what it prints",
        ),
    ],
)
def test_errors_have_a_line_and_an_exit_code(
    raised: BaseException, code: int, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(args: object) -> int:
        raise raised

    monkeypatch.setattr(say, "run", fail)
    assert cli.main(["say", "x"]) == code
    printed = capsys.readouterr()
    assert printed.err.strip() == shown
    assert printed.out == ""
    with pytest.raises(type(raised)):
        cli.main(["--debug", "say", "x"])


def test_sigterm_ends_a_command_as_ctrl_c_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    let_go = []

    def run(args: object) -> int:
        with session._same_sigterm():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as `ray.init` sets its own
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        finally:
            let_go.append(True)
        return 0

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(say, "run", run)
    assert cli.main(["say", "x"]) == 143
    assert capsys.readouterr().err.strip() == "terminated"
    assert let_go == [True]
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_error_of_a_ray_worker_is_shown_as_it_was_raised() -> None:
    ray_exceptions = pytest.importorskip("ray.exceptions")
    error = TextError("row 3: empty", "leave it out")
    wrapped = ray_exceptions.RayTaskError("work", "Traceback ...", error).as_instanceof_cause()
    assert isinstance(wrapped, TextError)
    assert cli._first_cause(wrapped) is error


def test_say_writes_the_same_sound_for_the_same_seed(voice: Path, tmp_path: Path) -> None:
    made = []
    for name, seed in (("a.wav", "1"), ("b.wav", "1"), ("c.wav", "2")):
        assert (
            cli.main(["say", "Hello. Again.", "--voice", str(voice), "-o", str(tmp_path / name), "--seed", seed]) == 0
        )
        made.append(soundfile.read(tmp_path / name)[0])
    np.testing.assert_array_equal(made[0], made[1])
    assert made[0].shape != made[2].shape or np.abs(made[0] - made[2]).max() > 0


def test_say_pauses_between_sentences(voice: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lengths = []
    for text in ("One.", "Two.", "One. Two."):
        assert cli.main(["say", text, "--voice", str(voice), "-o", str(tmp_path / "x.flac"), "--json"]) == 0
        lengths.append(json.loads(capsys.readouterr().out)["seconds"])
    assert lengths[2] - lengths[0] > 0.2


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (["", "-o", "x.wav"], 1, "nothing to say"),
        (["Hello.", "-o", "x.xyz"], 1, "cannot write .xyz"),
        (["Hello.", "-o", "x.wav", "--speed", "0"], 1, "speed"),
        (["Hello.", "-o", "x.wav", "--steps", "-1"], 1, "steps"),
        (["Hello.", "-o", "x.wav", "--speaker", "nobody"], 1, "nobody"),
        (["\u4f60\u597d", "-o", "x.wav"], 1, "\u4f60\u597d"),
    ],
)
def test_say_names_what_it_cannot_do(
    words: list[str],
    code: int,
    part: str,
    voice: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["say", *words, "--voice", str(voice)]) == code
    assert part in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_say_without_a_voice_lists_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["say", "Hello.", "--voice", "nobody", "-o", str(tmp_path / "x.wav")]) == 1
    assert "no voice 'nobody'" in capsys.readouterr().err


def test_say_into_a_place_that_cannot_be_written(
    voice: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert cli.main(["say", "Hello.", "--voice", str(voice), "-o", str(tmp_path / "file" / "x.wav")]) == 1
    assert "choose another place" in capsys.readouterr().err


def test_voices_lists_folders_and_keeps_a_damaged_one(
    voice: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["voices", str(voice.parent), "--json"]) == 0
    [row] = [row for row in json.loads(capsys.readouterr().out) if row["voice"] == str(voice)]
    assert row["licence"] == "CC0-1.0"
    assert (row["parts"]["acoustic"], row["parts"]["vocoder"]) == ("matcha", "griffin_lim")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "voice.json").write_text("{")
    assert cli.main(["voices", str(tmp_path), "--json"]) == 1
    assert "not a voice card" in json.loads(capsys.readouterr().out)[-1]["error"]
    assert cli.main(["voices", str(voice)]) == 0
    assert "CC0-1.0" in capsys.readouterr().out


def test_doctor_finds_a_voice_that_speaks(voice: Path) -> None:
    found = {finding.name: finding for finding in doctor.examine(str(voice))}
    assert found["voice"].state == "ok", found["voice"]
    assert found["torchaudio"].state == found["audio files"].state == "ok"
    assert all(finding.remedy for finding in found.values() if finding.state != "ok")


def test_doctor_reports_a_failure_with_its_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--voice", str(tmp_path), "--json"]) == 1
    [failed] = [row for row in json.loads(capsys.readouterr().out) if row["state"] == "failed"]
    assert failed["name"] == "voice"
    assert failed["remedy"]


SMALL_PUBLISHED = replace(
    MatchaConfig.published(),
    encoder_channels=32,
    encoder_filter_channels=48,
    encoder_layers=1,
    duration_channels=24,
    decoder_channels=(32, 32),
    decoder_head_channels=16,
    n_speakers=2,
)


def test_an_imported_checkpoint_speaks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file(MatchaTTS(SMALL_PUBLISHED).state_dict(), tmp_path / "published.safetensors")
    folder = tmp_path / "imported"
    line = ["import", "matcha", str(tmp_path / "published.safetensors"), "-o", str(folder), "--phonemizer", "gruut"]
    assert cli.main([*line, "--licence", "MIT", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["speakers"] == 2
    assert cli.main(["say", "Hi.", "--voice", str(folder), "--speaker", "1", "-o", str(tmp_path / "hi.wav")]) == 0
    assert soundfile.info(tmp_path / "hi.wav").frames > 0
    assert cli.main(line) == 1
    assert "is a voice already" in capsys.readouterr().err


def test_an_imported_checkpoint_takes_the_vocoder_of_a_vocoder_folder_or_of_a_voice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = VocosConfig(dim=32, intermediate_dim=64, num_layers=2)
    spec = spec_of("vocos", config)
    save_vocoder(tmp_path / "vocoder", Vocos(config), spec)
    save_file(MatchaTTS(replace(SMALL_PUBLISHED, n_speakers=1)).state_dict(), tmp_path / "published.safetensors")
    line = ["import", "matcha", str(tmp_path / "published.safetensors"), "--phonemizer", "gruut", "--vocoder"]
    assert cli.main([*line, str(tmp_path / "vocoder"), "-o", str(tmp_path / "one")]) == 0
    assert cli.main([*line, str(tmp_path / "one"), "-o", str(tmp_path / "two")]) == 0
    for name in ("one", "two"):
        assert load_card(tmp_path / name).parts["vocoder"] == spec
    capsys.readouterr()
    assert cli.main([*line, str(tmp_path), "-o", str(tmp_path / "three")]) == 1
    assert "neither vocoder.json nor voice.json" in capsys.readouterr().err
    assert cli.main([*line, "heart", "-o", str(tmp_path / "three")]) == 1
    assert "voice heart is of kind hibari: it has no vocoder" in capsys.readouterr().err


def test_an_imported_voice_speaks_by_an_imported_hifigan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = replace(HIFIGAN_V3, upsample_initial_channel=16)
    settings = {
        **{name: getattr(small, name) for name in vars(small) if name not in ("mel", "denoise")},
        **{"num_mels": 80, "n_fft": 1024, "hop_size": 256, "win_size": 1024, "sampling_rate": 22050},
        **{"fmin": 0, "fmax": 8000, "batch_size": 16},
    }
    (tmp_path / "config.json").write_text(json.dumps(settings))
    torch.save({"generator": HiFiGAN(small).generator.state_dict()}, tmp_path / "generator_v1")
    line = ["import", "hifigan", str(tmp_path / "generator_v1"), "-o", str(tmp_path / "vocoder"), "--json"]
    assert cli.main([*line, "--denoise", "0.00025", "--licence", "MIT"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["name"], told["sample_rate"], told["bands"], told["assumed"]) == ("hifigan", 22050, 80, "")
    assert json.loads((tmp_path / "vocoder/vocoder.json").read_text())["vocoder"]["denoise"] == 0.00025
    save_file(MatchaTTS(replace(SMALL_PUBLISHED, n_speakers=1)).state_dict(), tmp_path / "matcha.safetensors")
    voice = ["import", "matcha", str(tmp_path / "matcha.safetensors"), "--phonemizer", "gruut"]
    assert cli.main([*voice, "--vocoder", str(tmp_path / "vocoder"), "-o", str(tmp_path / "voice")]) == 0
    assert (tmp_path / "voice/vocoder-waveform.onnx").is_file()
    assert cli.main(["say", "Hi.", "--voice", str(tmp_path / "voice"), "-o", str(tmp_path / "hi.wav")]) == 0
    assert soundfile.info(tmp_path / "hi.wav").frames > 0
    capsys.readouterr()
    assert cli.main(line) == 1 and "is a vocoder already" in capsys.readouterr().err
    settings["hop_size"] = 300
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert cli.main([*line[:-2], str(tmp_path / "other")]) == 1
    assert "but the mel's hop is 300" in capsys.readouterr().err and not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("kind", "options", "told"),
    [
        ("vocos", (), "reads 100 bands and makes 24000 Hz"),
        ("wavefm", ("--steps", "2"), "takes 2 steps"),
        ("rfwave", ("--steps", "4"), "no config.yaml: taken to have the published mel"),
    ],
)
def test_published_vocoders_become_vocoder_folders(
    kind: str, options: tuple[str, ...], told: str, parity_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = load_file(parity_dir / kind / "weights.safetensors")
    if kind == "rfwave":  # the file has two models
        weights = {name.removeprefix("wave."): own for name, own in weights.items() if name.startswith("wave.")}
    save_file(weights, tmp_path / "model.safetensors")
    line = ["import", kind, str(tmp_path / "model.safetensors"), *options, "-o", str(tmp_path / "vocoder")]
    assert cli.main(line) == 0
    assert told in capsys.readouterr().out
    loaded = load_vocoder(tmp_path / "vocoder")
    assert loaded.spec["name"] == kind and loaded.spec.get("steps") == (int(options[1]) if options else None)


def test_what_is_no_checkpoint_makes_no_voice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.ckpt").write_bytes(b"nothing")
    assert cli.main(["import", "matcha", str(tmp_path / "x.ckpt"), "-o", str(tmp_path / "voice")]) == 1
    assert "x.ckpt" in capsys.readouterr().err
    assert not (tmp_path / "voice").exists()


def test_more_training_workers_than_gpus_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def one_gpu(*_: object, **__: object) -> Iterator[session.SessionInfo]:
        yield session.SessionInfo(8, 1, True)

    run = SimpleNamespace(last_step=0, ended=False, folder=str(tmp_path), files=LocalFiles(tmp_path))
    monkeypatch.setattr(session, "session", one_gpu)
    monkeypatch.setattr(training_run, "open_run", lambda *_: run)
    monkeypatch.setattr(train, "_tell_of_validation", lambda *_: None)
    with pytest.raises(ConfigError, match="Ray sees 1 GPUs"):
        train.train(tmp_path / "data", tmp_path / "out", None, workers=2)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--recipe", "bundled", "--texts", "t.txt", "--steps", "5", "--set", "a=b"], "--steps, --set"),
        (["--recipe", "bundled", "--texts", "t.txt", "--device", "gpu", "data"], "DATA, --device"),
        (["--recipe", "tiny", "--texts", "t.txt", "--workers", "2"], "--texts, --workers"),
        (["--recipe", "matcha_debug", "data", "--texts", "t.txt"], "--texts"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    words: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", *words, "-o", str(tmp_path / "voice")]) == 2
    assert f"{named} change" in capsys.readouterr().err.replace("changes", "change")
    assert list(tmp_path.iterdir()) == []


def test_scores_are_told_in_a_line_each() -> None:
    def figure(value: float) -> dict[str, float]:
        return {"value": value, "low": value, "high": value, "n": 200}

    own = {"wer": figure(0.1769), "overall": figure(3.0777), "p808": figure(3.5309), "similarity": figure(0.854)}
    teacher = {"system": "teacher", **{name: figure(9) for name in own}}
    scores = {"command": "...", "systems": [teacher, {"system": "voice", **own}], "machine": {"cores": 2}}
    rest = ["overall 3.08", "P.808 3.53", "similarity 0.854"]
    told = [
        (scores, ["WER 0.177", *rest]),
        (
            {**scores, "voices": {"naturalness": figure(4.5), "wer": figure(0.01)}},
            ["naturalness 4.50", "WER 0.010", *rest],
        ),
        ({"systems": [{"system": "voice", **own, "similarity": None}]}, ["WER 0.177", *rest[:2]]),
        ({}, []),
        ({"systems": "odd"}, []),
    ]
    for given, lines in told:
        assert voices.scores_of(VoiceCard("a", scores=given).figures) == lines


def test_bytes_that_are_no_text_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["say", "caf\udce9", "-o", str(tmp_path / "x.wav")]) == 1
    assert "no UTF-8 at character 4" in capsys.readouterr().err


def test_a_page_to_listen_to_has_every_voice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_piper_voice(tmp_path / "voices" / "joe")
    (tmp_path / "voices" / "bad").mkdir()
    (tmp_path / "voices" / "bad" / "voice.json").write_text("{")
    page = tmp_path / "voices.html"
    assert cli.main(["voices", str(tmp_path / "voices"), "--samples", "-o", str(page), "--text", "Good evening."]) == 1
    told, html = capsys.readouterr().out, page.read_text()
    assert html.count("<audio") == 3 and "Good evening." in html and "not a voice card" in html  # heart, rms, joe
    assert f"{tmp_path / 'voices' / 'joe'}: naturalness" in told and "bad: " in told


def test_a_mistyped_option_is_answered_with_the_commands_own_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for words, usage, meant in (
        (["say", "x", "--watermark-numbr", "3"], "usage: flowtts say", "--watermark-number"),
        (["watermark", "detect", "a.wav", "--evry=60"], "usage: flowtts watermark detect", "--every"),
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
        said = capsys.readouterr().err
        assert ended.value.code == 2 and said.startswith(usage) and f"did you mean {meant}?" in said
