"""`flowtts watermark`: what is embedded is found, in files of several formats, and what is wrong is said."""

from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from flowtts_core.audio.files import read_audio, write_audio
from flowtts_core.audio.pieces import audio_pieces
from flowtts_core.metrics.judges import Clip, Panel, PanelConfig
from flowtts_core.watermark import finding
from flowtts_core.watermark.attacks import ATTACKS
from flowtts_core.watermark.card import bundled_mark
from flowtts_core.watermark.marker import Detection, Marker
from flowtts_core.watermark.message import decoded, encoded
from jobs.cli import main


@pytest.fixture(scope="module")
def speech(shared_data: Path) -> tuple[np.ndarray, int]:
    """Eight seconds of a reader that the net has not heard."""
    files = sorted(path for path in (shared_data / "ljspeech").rglob("*") if path.suffix in (".wav", ".flac"))
    sounds = [read_audio(path) for path in files[:3]]
    joined = np.concatenate([sound for sound, _ in sounds])
    return joined[: 8 * sounds[0][1]], sounds[0][1]


@pytest.mark.parametrize("attack", ["none", "mp3_64", "aac_64", "resample_16", "loudness"])
def test_the_bundled_mark_and_its_number_survive(speech: tuple[np.ndarray, int], attack: str) -> None:
    sound, rate = speech
    marker = Marker.open(bundled_mark())
    marked = marker.marked(sound, rate, np.array(encoded(1234)))
    found = marker.detected(ATTACKS[attack](marked, rate, np.random.default_rng(0)), rate)
    assert found.score > marker.threshold
    assert decoded(tuple(int(bit > 0) for bit in found.bits)).number == 1234
    assert marker.detected(ATTACKS[attack](sound, rate, np.random.default_rng(0)), rate).score < marker.threshold


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3"])
def test_what_is_embedded_is_detected(
    speech: tuple[np.ndarray, int], tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    plain, marked = tmp_path / "plain.wav", tmp_path / f"marked{suffix}"
    write_audio(plain, *speech)
    assert main(["watermark", "embed", str(plain), "-o", str(marked), "--number", "7"]) == 0
    assert main(["watermark", "detect", str(marked)]) == 0
    assert "number 7" in capsys.readouterr().out
    assert main(["watermark", "detect", str(plain), str(marked), "--json"]) == 4
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["marked"] for row in rows] == [False, True]
    assert rows[1]["share"] > 0.9


def test_a_key_hides_the_mark_from_others(
    speech: tuple[np.ndarray, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, marked, key = tmp_path / "plain.wav", tmp_path / "marked.wav", tmp_path / "key"
    write_audio(plain, *speech)
    key.write_bytes(b"0123456789abcdef")
    assert main(["watermark", "embed", str(plain), "-o", str(marked), "--key", str(key), "--number", "5"]) == 0
    assert main(["watermark", "detect", str(marked), "--key", str(key)]) == 0
    assert "marked by the key" in capsys.readouterr().out
    assert main(["watermark", "detect", str(marked)]) == 4
    assert "no mark" in capsys.readouterr().out


def test_each_piece_tells_by_whom_it_is_marked(
    speech: tuple[np.ndarray, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing, the key's mark, the public one, four seconds each: who has the key sees both."""
    (sound, rate), place, key = speech, tmp_path / "three.wav", tmp_path / "key"
    key.write_bytes(b"0123456789abcdef")
    part = sound[: 4 * rate]
    own, public = (
        Marker.open(bundled_mark(), of).marked(part, rate, np.array(encoded(3))) for of in (key.read_bytes(), b"")
    )
    write_audio(place, np.concatenate([part, own, public]), rate)
    line = ["watermark", "detect", str(place), "--key", str(key), "--every", "4"]
    assert main([*line, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert [(one["begin_s"], one["end_s"]) for one in row["pieces"]] == [(0, 4), (4, 8), (8, 12)]
    assert [one["marked"] for one in row["pieces"]] == [False, True, True]
    assert [one["own_key"] for one in row["pieces"]] == [False, True, False]
    assert [one["number"] for one in row["pieces"]] == [None, 3, 3]
    assert main(line) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 4 and "no mark, neither" in said[1]
    assert "marked by the key" in said[2] and "marked by the public pattern" in said[3]
    for wrong in (["--every", "0.5"], ["--every", "301"], ["--every", "60", "-o", str(tmp_path / "findings")]):
        assert main(["watermark", "detect", str(place), *wrong]) == 2


def test_pieces_are_cut_where_they_should_be_however_they_come() -> None:
    samples = np.arange(23, dtype=np.float32)[:, None]
    cut = list(finding._exactly(((piece, 2) for piece in np.split(samples, [1, 9, 10, 22])), 3.0))
    assert [len(piece) for piece, _ in cut] == [6, 6, 6, 5]
    assert np.array_equal(np.concatenate([piece for piece, _ in cut]), samples)


def test_all_channels_are_marked_however_long(
    speech: tuple[np.ndarray, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is looked at piece by piece: a mark that begins in the second piece is placed, and read, in the whole."""
    sound, rate = speech
    plain, marked, both = tmp_path / "plain.wav", tmp_path / "marked.wav", tmp_path / "both.wav"
    write_audio(plain, np.stack([sound, sound[::-1]], axis=1), rate)
    monkeypatch.setattr(finding, "PIECE_S", 3.0)
    assert main(["watermark", "embed", str(plain), "-o", str(marked), "--number", "9", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["found_again"], row["marked_before"]) == (True, False)
    pieces = [piece for piece, _ in audio_pieces(marked, 60.0)]
    samples = np.concatenate(pieces)
    assert samples.shape == (len(sound), 2)
    marker = Marker.open(bundled_mark())
    for channel in samples.T:
        assert finding.told(marker, channel, rate)["number"] == 9
    write_audio(both, np.concatenate([sound, samples.mean(1)]), rate)
    told = finding.told_of(marker, both)
    assert told["number"] == 9
    assert 0.3 < told["share"] < 0.6
    assert abs(told["spans_s"][0][0] - len(sound) / rate) < 0.5
    assert told["seconds"] == round(2 * len(sound) / rate, 3)


def test_places_in_a_sound_are_told_in_its_own_time() -> None:
    """At 22,050 Hz a frame is 220 samples, not quite 10 ms: after an hour that is eight seconds."""
    found = Detection(np.repeat([False, True], [360_000, 1000]), np.ones(16), 9.0, 10, 10)
    with mock.patch.object(Marker, "detected", return_value=found):
        told = finding.told(Marker.open(bundled_mark()), np.zeros(1, np.float32), 22_050)
    assert told["spans_s"] == [(round(360_000 * 220 / 22_050, 2), round(361_000 * 220 / 22_050, 2))]


def test_wrong_input_is_told(
    speech: tuple[np.ndarray, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, silent, broken, key = (tmp_path / name for name in ("plain.wav", "silent.wav", "broken.wav", "key"))
    write_audio(plain, speech[0][:4000], speech[1])
    write_audio(silent, np.zeros(24_000, np.float32), 24_000)
    broken.write_bytes(b"RIFF....")
    key.write_bytes(b"short")
    assert main(["watermark", "embed", str(plain), "-o", str(tmp_path / "out.wav")]) == 0
    assert "not found again" in capsys.readouterr().out
    assert main(["watermark", "detect", str(silent)]) == 4
    assert "silence" in capsys.readouterr().out
    assert main(["watermark", "detect", str(broken), str(plain)]) == 3
    assert main(["watermark", "detect", str(tmp_path / "none.wav")]) == 1
    for content, why in ((b"", "holds no bytes"), (b"only words " * 9, "give a recording")):
        broken.write_bytes(content)
        assert main(["watermark", "detect", str(broken)]) == 1
        assert why in capsys.readouterr().err
    assert main(["watermark", "embed", str(plain), "-o", str(tmp_path / "out.m4b")]) == 2
    assert "leave it out" not in capsys.readouterr().err
    (tmp_path / "full.wav").symlink_to("/dev/full")
    assert main(["watermark", "embed", str(plain), "-o", str(tmp_path / "full.wav")]) == 1
    assert "full.wav: No space left" in capsys.readouterr().err
    (tmp_path / "empty").touch()
    for wrong in (
        ["embed", str(plain), "-o", str(plain)],
        ["embed", str(plain), "-o", str(tmp_path / "out.wav"), "--number", "2048"],
        ["embed", str(plain), str(silent), "-o", str(tmp_path / "one.wav")],
        ["detect", str(plain), "--key", str(key)],
        ["detect", str(plain), "--key", str(tmp_path / "empty")],
    ):
        assert main(["watermark", *wrong]) == 2


def test_a_judge_tells_marked_clips_from_others(speech: tuple[np.ndarray, int]) -> None:
    sound, rate = speech
    panel = Panel(PanelConfig(judges=("watermark",)))
    marked = panel.judge(Clip(Marker.open(bundled_mark()).marked(sound, rate, np.array(encoded(7))), rate)).values
    assert marked["mark_found"] == marked["mark_read"] == (1.0, 1.0)
    assert marked["mark_time"][0] / marked["mark_time"][1] > 0.6
    assert "mark_own" not in marked, "nobody gave a key"
    keyed = Panel(PanelConfig(judges=("watermark",)), b"0123456789abcdef")
    for key, own in ((b"0123456789abcdef", 1.0), (b"", 0.0)):
        clip = Clip(Marker.open(bundled_mark(), key).marked(sound, rate, np.array(encoded(7))), rate)
        found = keyed.judge(clip).values
        assert (found["mark_found"], found["mark_own"]) == ((1.0, 1.0), (own, 1.0))
    for other in (sound, np.zeros(rate, np.float32)):
        assert panel.judge(Clip(other, rate)).values["mark_found"] == (0.0, 1.0)
