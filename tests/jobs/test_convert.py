"""`flowtts convert`: a recording in another's voice, the mark in it, folders of them, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

from flowtts_core.audio.files import encode, read_audio
from flowtts_core.codec import FactorisedCodec, FactorisedCodecConfig
from flowtts_core.codec.files import save_codec
from flowtts_core.config import spec_of
from flowtts_core.watermark.card import bundled_mark
from flowtts_core.watermark.finding import told_of
from flowtts_core.watermark.marker import Marker
from jobs.cli import main
from tests.jobs.test_codec import FRAMES, codec_of, in_process  # noqa: F401  # a fixture
from tests.speech_like import babble, babble_clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    sizes = {"encoder_dim": 24, "encoder_intermediate": 32, "encoder_layers": 1, "prosody_dim": 8, "prosody_layers": 1}
    sizes |= {"decoder_dim": 16, "decoder_intermediate": 32, "decoder_layers": 1, "bins": 64, "speaker_dim": 8}
    config = FactorisedCodecConfig(**sizes)
    codec = FactorisedCodec(config).train()
    with torch.no_grad():
        codec.trained(torch.from_numpy(babble(1.2, 120.0, 24000)[: 320 * 90])[None])
    place = tmp_path_factory.mktemp("codecs") / "facodec"
    save_codec(place, codec.eval(), spec_of("factorised", config), licence="CC0-1.0")
    return place


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sounds")
    (place / "a.wav").write_bytes(encode(babble(4.0, 120.0, 16000), 16000, ".wav"))
    (place / "b.flac").write_bytes(babble_clip(3.5, 220.0, seed=5).audio)
    (place / "short.flac").write_bytes(babble_clip(0.4, 220.0).audio)
    (place / "silent.wav").write_bytes(encode(np.zeros(32000, np.float32), 16000, ".wav"))
    return place


@pytest.fixture(autouse=True)
def two_speakers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What tells speakers apart takes seconds to load; here it hears two in every reference."""
    monkeypatch.setattr("flowtts_core.metrics.similarity.parts_alike", lambda waveform, sample_rate: 0.5)


def told(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    assert main(["convert", *map(str, words), "--json"]) == 0
    said = capsys.readouterr()
    assert "two people seem to speak" in said.err
    made: dict[str, Any] = json.loads(said.out)
    return made


def test_a_recording_is_converted_and_marked(
    folder: Path, sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [sounds / "a.wav", "--voice-of", sounds / "b.flac", "--codec", folder]
    made = told(capsys, *line, "-o", tmp_path / "c.wav", "--watermark-number", 7, "--consent", "B, today")
    assert made["seconds"] == 4.0 and made["consent"] == "B, today" and len(made["voice_of"]["source_sha256"]) == 64
    marker = Marker.open(bundled_mark(), b"")
    found = told_of(marker, tmp_path / "c.wav", longest_s=60.0)
    assert found["marked"] and found["number"] == 7
    bare = told(capsys, *line, "-o", tmp_path / "d.wav", "--no-watermark")
    assert bare["watermark"] is None and not told_of(marker, tmp_path / "d.wav", longest_s=60.0)["marked"]
    sound, rate = read_audio(tmp_path / "d.wav")
    assert rate == 24000 and len(sound) == 96000 and np.abs(sound).max() > 0.01
    prosody = told(
        capsys, sounds / "a.wav", "--prosody-of", sounds / "a.wav", "--codec", folder, "-o", tmp_path / "e.wav"
    )
    assert prosody["prosody"] == "words"


def test_a_folder_is_converted_once(
    folder: Path,
    sounds: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    in_process: None,  # noqa: F811  # the fixture
) -> None:
    line = ["convert", str(sounds), "--voice-of", str(sounds / "b.flac"), "--codec", str(folder)]
    out = tmp_path / "out"
    assert main([*line, "-o", str(out), "--workers", "1", "--json"]) == 3
    made = json.loads(capsys.readouterr().out)
    assert (made["sounds"], made["set_aside"], made["kept"]) == (3, 1, 0)
    rows = pq.read_table(out / "converted-00000.parquet").to_pylist()
    assert [row["file"] for row in rows] == ["a.flac", "b.flac", "short.flac"]
    assert json.loads((out / "quarantine.jsonl").read_text())["reason"] == "silent"
    card = json.loads((out / "converted.json").read_text())
    assert card["watermark"]["number"] == 0 and card["voice_of"]["source"].endswith("b.flac")
    assert soundfile.info(out / "a.flac").samplerate == 24000
    alone = tmp_path / "alone.flac"
    assert main(["convert", str(sounds / "a.wav"), *line[2:], "-o", str(alone)]) == 0
    assert np.array_equal(soundfile.read(alone)[0], soundfile.read(out / "a.flac")[0]), "as one by one"
    capsys.readouterr()
    assert main([*line, "-o", str(out), "--workers", "1", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["kept"] == 1
    assert main([*line, "-o", str(out), "--no-watermark"]) == 1, "another job's folder is not written over"
    assert main([*line, "-o", str(sounds / "inside")]) == 2


def test_what_cannot_be_converted_is_refused(
    folder: Path, sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    save_codec(other, codec_of(FRAMES), FRAMES)
    a, b, out = str(sounds / "a.wav"), str(sounds / "b.flac"), ["-o", str(tmp_path / "x.wav")]
    voice, codec = ["--voice-of", b], ["--codec", str(folder)]
    cases: list[tuple[list[str], str]] = [
        ([a, *out, *codec], "--voice-of FILE, --prosody-of FILE, or both"),
        ([a, *voice, *out], "flowtts train data/ --recipe facodec"),
        ([a, *voice, *out, "--codec", str(other)], "FrameCodec cannot convert"),
        ([a, *voice, *out, *codec, "--words", "same"], "--prosody-of"),
        ([a, b, *voice, *out, *codec], "give a folder for several"),
        ([str(sounds / "silent.wav"), *voice, *out, *codec], "silent"),
        ([a, "--voice-of", str(sounds / "silent.wav"), *out, *codec], "the reference is silent"),
        ([a, "--voice-of", str(sounds / "short.flac"), *out, *codec], "at least 1 s are needed"),
        ([a, *voice, *out, *codec, "--no-watermark", "--watermark-number", "3"], "--no-watermark"),
        ([a, *voice, *out, *codec, "--workers", "2"], "for many recordings"),
        ([a, *voice, "-o", str(tmp_path / "y"), *codec, "--sign-key", "k", "--sign-chain", "c"], "credentials sign"),
    ]
    for words, said in cases:
        assert main(["convert", *words]) in (1, 2), words
        assert said in capsys.readouterr().err
    assert not (tmp_path / "x.wav").exists() and not (tmp_path / "y").exists()
