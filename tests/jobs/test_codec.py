"""`flowtts codec`: sounds to codes and back, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

from flowtts_core.audio.files import encode
from flowtts_core.audio.loudness import loudness_of
from flowtts_core.codec import CODECS, Codec, Encoded
from flowtts_core.codec.codebook import Codebook
from flowtts_core.codec.encodec import EnCodec
from flowtts_core.codec.files import save_codec
from flowtts_core.codec.long import decode_long, encode_long
from flowtts_core.codec.loss import LOST
from flowtts_core.codec.tokens import Tokens, read_tokens, write_tokens
from flowtts_core.config import build
from jobs.cli import main

FRAMES: dict[str, Any] = {
    "name": "frames",
    "encoder_dim": 16,
    "encoder_intermediate": 32,
    "encoder_layers": 2,
    "decoder_dim": 16,
    "decoder_intermediate": 32,
    "decoder_layers": 2,
    "codebooks": 4,
    "bins": 64,
}


def codec_of(spec: dict[str, Any], seed: int = 0) -> Codec:
    torch.manual_seed(seed)
    codec: Codec = build(CODECS, spec)
    for module in codec.modules():
        if isinstance(module, Codebook):
            module.inited.fill_(1)
            module.embed.normal_()
    return codec.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("codecs") / "frames"
    save_codec(path, codec_of(FRAMES), FRAMES, licence="CC0-1.0")
    return path


def tone(seconds: float, rate: int, level: float = 0.2) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return (level * np.sin(2 * np.pi * 220 * time) * (1 + 0.5 * np.sin(2 * np.pi * 3 * time))).astype(np.float32)


def told(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    assert main(["codec", *map(str, words), "--json"]) == 0
    made: dict[str, Any] = json.loads(capsys.readouterr().out)
    return made


@pytest.mark.parametrize(("rate", "channels"), [(24000, 1), (8000, 1), (44100, 2)])
def test_a_sound_becomes_codes_and_a_sound_of_its_length_and_loudness(
    rate: int, channels: int, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = tone(1.3, rate)
    soundfile.write(tmp_path / "a.wav", np.stack([sound] * channels, 1), rate)
    made = told(capsys, "encode", tmp_path / "a.wav", "-o", tmp_path / "a.npz", "--codec", folder)
    assert (made["frames"], made["codebooks"], made["frame_rate"], made["kbps"]) == (98, 4, 75, 1.8)
    with np.load(tmp_path / "a.npz") as file:  # by numpy alone
        assert file["codes"].shape == (4, 98) and file["codes"].dtype == np.uint16 and file["codes"].max() < 64
        note = json.loads(file["note"].tobytes())
    assert note["codec"] == made["codec"] and note["samples"] == 31200 and note["loudness_lufs"] < 0
    assert told(capsys, "info", tmp_path / "a.npz")["codec"] == made["codec"]
    told(capsys, "decode", tmp_path / "a.npz", "-o", tmp_path / "b.wav", "--codec", folder)
    copy, own = soundfile.read(tmp_path / "b.wav")
    assert own == 24000 and copy.shape == (31200,)


def test_loudness_is_restored(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same codes with another loudness beside them are decoded as loud as that, as far as it is near."""
    soundfile.write(tmp_path / "a.wav", tone(1, 24000), 24000)
    told(capsys, "encode", tmp_path / "a.wav", "-o", tmp_path / "a.npz", "--codec", folder)
    with np.load(tmp_path / "a.npz") as file:
        codes, note = file["codes"], json.loads(file["note"].tobytes())
    heard = {}
    for name, loudness in (("asis", None), ("louder", 6.0), ("quieter", -6.0)):
        wanted = None if loudness is None else heard["asis"] + loudness
        data = np.frombuffer(json.dumps({**note, "loudness_lufs": wanted}).encode(), np.uint8)
        np.savez(tmp_path / "b.npz", codes=codes, note=data)
        told(capsys, "decode", tmp_path / "b.npz", "-o", tmp_path / "b.wav", "--codec", folder)
        sound, rate = soundfile.read(tmp_path / "b.wav")
        heard[name] = loudness_of(sound, rate)
    assert heard["louder"] == pytest.approx(heard["asis"] + 6, abs=0.3)
    assert heard["quieter"] == pytest.approx(heard["asis"] - 6, abs=0.3)


def test_the_rate_is_chosen_at_encode(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(tmp_path / "a.wav", tone(0.5, 24000), 24000)
    line = ["encode", tmp_path / "a.wav", "-o", tmp_path / "a.npz", "--codec", folder]
    assert told(capsys, *line, "--codebooks", 2)["kbps"] == pytest.approx(0.9)
    made = told(capsys, *line, "--kbps", 1.5)
    assert (made["codebooks"], made["kbps"]) == (3, pytest.approx(1.35))
    for choice in (["--codebooks", "5"], ["--codebooks", "0"], ["--kbps", "0.1"]):
        assert main(["codec", *map(str, line), *choice]) == 2
        assert "codebooks" in (error := capsys.readouterr().err) or "kbit/s" in error
    assert main(["codec", "info", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "75 frames a second" in said and "0.45 to 1.8 kbit/s" in said and "whole sounds" in said


@pytest.mark.parametrize("kind", ["silence", "clipped", "short"])
def test_hard_sounds_come_back(kind: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound = {"silence": np.zeros(24000), "clipped": np.sign(tone(1, 24000)), "short": np.full(1, 0.5)}[kind]
    soundfile.write(tmp_path / "a.wav", sound, 24000)
    made = told(capsys, "encode", tmp_path / "a.wav", "-o", tmp_path / "a.npz", "--codec", folder)
    assert (made["loudness_lufs"] is None) == (kind == "silence")
    told(capsys, "decode", tmp_path / "a.npz", "-o", tmp_path / "b.wav", "--codec", folder)
    copy, _ = soundfile.read(tmp_path / "b.wav")
    assert len(copy) == len(sound) and np.isfinite(copy).all() and np.abs(copy).max() <= 1


def test_what_cannot_be_coded_or_decoded_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    save_codec(other, codec_of(FRAMES, seed=1), FRAMES)
    soundfile.write(tmp_path / "a.wav", tone(0.5, 24000), 24000)
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 24000)
    soundfile.write(tmp_path / "long.flac", np.zeros(3 * 3600 * 1000, np.int16), 1000)  # three hours
    good, out = tmp_path / "a.npz", tmp_path / "b.wav"
    told(capsys, "encode", tmp_path / "a.wav", "-o", good, "--codec", folder)
    with np.load(good) as file:
        arrays = dict(file)
    np.savez(tmp_path / "beyond.npz", **{**arrays, "codes": arrays["codes"] + 64})
    np.savez(tmp_path / "many.npz", **{**arrays, "codes": np.concatenate([arrays["codes"]] * 2)})
    np.savez(tmp_path / "floats.npz", **{**arrays, "codes": arrays["codes"].astype(float)})
    np.savez(tmp_path / "objects.npz", codes=np.array([[object()]]))
    (tmp_path / "cut.npz").write_bytes(good.read_bytes()[:100])
    refused = {
        ("encode", tmp_path / "none.wav", "-o", good): "holds no samples",
        ("encode", tmp_path / "long.flac", "-o", good): "lasts more than 60 minutes",
        ("encode", tmp_path / "absent.wav", "-o", good): "no such file",
        ("encode", tmp_path / "a.wav", tmp_path / "none.wav", "-o", tmp_path / "x.npz"): "the codes of one sound",
        ("decode", tmp_path / "beyond.npz", "-o", out): "the codebooks have 64",
        ("decode", tmp_path / "many.npz", "-o", out): "8 codebooks",
        ("decode", tmp_path / "floats.npz", "-o", out): "codes of shape",
        ("decode", tmp_path / "objects.npz", "-o", out): "no codes",
        ("decode", tmp_path / "cut.npz", "-o", out): "no codes",
        ("decode", tmp_path / "absent.npz", "-o", out): "no such file",
        ("decode", good, "-o", tmp_path / "b.xyz"): "cannot write .xyz",
    }
    for words, reason in refused.items():
        assert main(["codec", *map(str, words), "--codec", str(folder)]) != 0, words
        assert reason in capsys.readouterr().err
    assert main(["codec", "decode", str(good), "-o", str(out), "--codec", str(other)]) == 1
    assert "give the codec that made them" in capsys.readouterr().err
    assert main(["codec", "info", str(tmp_path)]) == 1 and "no codec" in capsys.readouterr().err
    assert not out.exists()


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do the tasks of a job here: what a worker does is the same."""

    def run(make: Any, tasks: list[dict[str, Any]], *, address: str | None, workers: int) -> Any:
        work = make()
        return (work(json.loads(json.dumps(task))) for task in tasks)

    monkeypatch.setattr("cluster.pool.run_tasks", run)


def corpus_of(folder: Path) -> list[str]:
    """Six sounds, one of which is none: three files, three rows of Parquet."""
    (folder / "speech/deep").mkdir(parents=True)
    for name, seconds in (("a", 0.3), ("deep/b", 0.5)):
        soundfile.write(folder / f"speech/{name}.wav", tone(seconds, 24000), 24000)
    (folder / "speech/broken.wav").write_bytes(b"RIFF")
    rows = [{"id": f"row-{i}", "audio": encode(tone(0.2 + i / 10, 16000), 16000)} for i in range(3)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "more.parquet")
    return [str(folder / "speech"), str(folder / "more.parquet")]


@pytest.mark.usefixtures("in_process")
def test_a_corpus_becomes_parquet_of_codes_once_and_goes_on_after_an_interruption(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs, out = corpus_of(tmp_path), tmp_path / "tokens"
    line = ["codec", "encode", *inputs, "-o", str(out), "--codec", str(folder), "--codebooks", "2", "--json"]
    line += ["--sounds-per-file", "2", "--workers", "1"]
    assert main(line) == 3
    made = json.loads(capsys.readouterr().out)
    assert (made["sounds"], made["failed"], made["files"], made["kept"], made["kbps"]) == (5, 1, 3, 0, 0.9)
    aside = [json.loads(row) for row in (out / "quarantine.jsonl").read_text().splitlines()]
    assert [entry["id"] for entry in aside] == ["broken"] and "not readable" in aside[0]["reason"]
    tables = [pq.read_table(out / f"tokens-{i:05d}.parquet") for i in range(3)]
    ids = [name for table in tables for name in table["id"].to_pylist()]
    assert sorted(ids) == ["a", "deep/b", "row-0", "row-1", "row-2"]
    row = next(row for table in tables for row in table.to_pylist() if row["id"] == "deep/b")
    assert row["samples"] == 12000 and len(row["codes"]) == 38 and {len(frame) for frame in row["codes"]} == {2}
    assert tables[0].schema.field("codes").type.value_type == pa.list_(pa.uint16(), 2)
    told(
        capsys, "encode", tmp_path / "speech/deep/b.wav", "-o", tmp_path / "b.npz", "--codec", folder, "--codebooks", 2
    )
    with np.load(tmp_path / "b.npz") as file:
        assert file["codes"].T.tolist() == row["codes"], "a job codes a sound as the command does alone"

    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    (out / "tokens-00001.parquet").write_bytes(b"cut")
    (out / "tokens.json").unlink()
    assert main(line) == 3 and json.loads(capsys.readouterr().out)["kept"] == 2
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    assert [name for name in sorted(before) if before[name] != after[name]] == ["tokens-00001.parquet"]
    assert pq.read_table(out / "tokens-00001.parquet").equals(tables[1])
    assert main([*line, "--codebooks", "3"]) == 1 and "made with other settings" in capsys.readouterr().err

    assert (
        main(["codec", "decode", str(out), "-o", str(tmp_path / "copies"), "--codec", str(folder), "--workers", "1"])
        == 0
    )
    made_sounds = {p.relative_to(tmp_path / "copies").as_posix() for p in (tmp_path / "copies").rglob("*.flac")}
    assert made_sounds == {f"{name}.flac" for name in ids}
    capsys.readouterr()
    told(capsys, "decode", tmp_path / "b.npz", "-o", tmp_path / "b.flac", "--codec", folder)
    assert (tmp_path / "b.flac").read_bytes() == (tmp_path / "copies/deep/b.flac").read_bytes()


@pytest.mark.slow
def test_ray_workers_code_as_one_process_does(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    line = ["codec", "encode", *corpus_of(tmp_path), "--codec", str(folder), "--sounds-per-file", "2", "--workers", "2"]
    assert main([*line, "-o", str(tmp_path / "ray")]) == 3
    request.getfixturevalue("in_process")
    assert main([*line, "-o", str(tmp_path / "alone")]) == 3
    capsys.readouterr()
    for name in (
        "tokens-00000.parquet",
        "tokens-00001.parquet",
        "tokens-00002.parquet",
        "quarantine.jsonl",
        "tokens.json",
    ):
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name


def test_a_corpus_that_cannot_be_coded_is_refused_before_any_work(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus_of(tmp_path)
    pq.write_table(pa.table({"id": ["x"]}), tmp_path / "deaf.parquet")
    speech, out = str(tmp_path / "speech"), str(tmp_path / "tokens")
    for inputs, reason in (
        ([speech, f"{speech}/a.wav"], "two sounds are named 'a'"),
        ([str(tmp_path / "nowhere")], "no sounds there"),
        ([str(tmp_path / "deaf.parquet")], "no column of audio"),
    ):
        assert main(["codec", "encode", *inputs, "-o", out, "--codec", str(folder)]) in (1, 2)
        assert reason in capsys.readouterr().err
    assert main(["codec", "decode", out, "-o", str(tmp_path / "c"), "--codec", str(folder)]) == 1
    assert "not finished" in capsys.readouterr().err


@pytest.mark.parametrize("causal", [True, False])
@torch.no_grad()
def test_a_long_sound_is_coded_as_the_whole(causal: bool) -> None:
    codec = codec_of({**FRAMES, "causal": causal})
    sound = 0.3 * torch.randn(1, 24000 * 9 + 100, generator=torch.Generator().manual_seed(0))
    whole, pieces = codec.encode(sound), encode_long(codec, sound, piece_s=2)
    assert torch.equal(pieces.codes, whole.codes)
    made = decode_long(codec, Encoded(pieces.codes), piece_s=2)
    torch.testing.assert_close(made, codec.decode(whole), atol=1e-5, rtol=0)


@pytest.mark.usefixtures("in_process")
def test_a_stereo_codec_of_segments_keeps_both_channels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = {
        "name": "encodec",
        "seanet": {
            "n_filters": 4,
            "dimension": 8,
            "ratios": [8, 4],
            "lstm": 1,
            "causal": False,
            "group_norm": True,
            "channels": 2,
        },
        "n_q": 2,
        "bins": 16,
        "normalize": True,
        "segment_s": 0.2,
    }
    codec = codec_of(spec)
    assert isinstance(codec, EnCodec)
    save_codec(tmp_path / "codec", codec, spec)
    soundfile.write(tmp_path / "a.wav", np.stack([tone(0.7, 24000), tone(0.7, 24000, 0.05)], 1), 24000)
    made = told(capsys, "encode", tmp_path / "a.wav", "-o", tmp_path / "a.npz", "--codec", tmp_path / "codec")
    assert made["frame_rate"] == 750
    told(capsys, "decode", tmp_path / "a.npz", "-o", tmp_path / "b.wav", "--codec", tmp_path / "codec")
    copy, _ = soundfile.read(tmp_path / "b.wav")
    assert copy.shape == (16800, 2) and not np.array_equal(copy[:, 0], copy[:, 1])
    place = ["--codec", str(tmp_path / "codec"), "--json"]
    assert main(["codec", "encode", str(tmp_path / "a.wav"), "-o", str(tmp_path / "tokens"), *place]) == 0
    assert main(["codec", "decode", str(tmp_path / "tokens"), "-o", str(tmp_path), "--format", "wav", *place]) == 0
    kept, _ = soundfile.read(tmp_path / "a.wav")
    assert (
        main(["codec", "decode", str(tmp_path / "tokens"), "-o", str(tmp_path / "c"), "--format", "wav", *place]) == 0
    )
    again, _ = soundfile.read(tmp_path / "c/a.wav")
    assert np.abs(kept[:, 0]).max() > 0.1, "a sound that is there is kept"
    np.testing.assert_allclose(again, copy, atol=1e-4)


@pytest.mark.usefixtures("in_process")
def test_a_sound_with_a_name_that_leads_elsewhere_is_not_written(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(("../out", "/tmp/out")):
        source = tmp_path / f"{number}.parquet"
        pq.write_table(pa.Table.from_pylist([{"id": name, "audio": encode(tone(0.2, 24000), 24000)}]), source)
        tokens = str(tmp_path / f"tokens-{number}")
        assert main(["codec", "encode", str(source), "-o", tokens, "--codec", str(folder)]) == 0
        assert main(["codec", "decode", tokens, "-o", str(tmp_path / "copies/deep"), "--codec", str(folder)]) == 1
        assert "would not lie in the output" in capsys.readouterr().err
    assert not list((tmp_path / "copies").rglob("*.flac"))


def test_an_imported_codec_codes(parity_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["import", "encodec", str(parity_dir / "encodec_causal/weights.safetensors"), str(tmp_path / "config.json")]
    (tmp_path / "config.json").write_text(
        json.dumps(
            {
                "model_type": "encodec",
                "use_causal_conv": True,
                "pad_mode": "reflect",
                "dilation_growth_rate": 2,
                "sampling_rate": 24000,
                "normalize": False,
            }
        )
    )
    assert main([*line, "-o", str(tmp_path / "codec"), "--licence", "MIT", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["name"], made["codebooks"], made["frame_rate"], made["assumed"]) == ("encodec", [64] * 8, 75, "")
    assert main([*line, "-o", str(tmp_path / "codec")]) == 1 and "is a codec already" in capsys.readouterr().err
    soundfile.write(tmp_path / "a.wav", tone(0.3, 24000), 24000)
    told(capsys, "encode", tmp_path / "a.wav", "-o", tmp_path / "a.npz", "--codec", tmp_path / "codec", "--kbps", 0.9)
    told(capsys, "decode", tmp_path / "a.npz", "-o", tmp_path / "b.flac", "--codec", tmp_path / "codec")
    assert soundfile.info(tmp_path / "b.flac").frames == 7200


def test_lost_frames_are_concealed_by_causal_codecs(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = {**FRAMES, "causal": True}
    save_codec(tmp_path / "causal", codec_of(spec), spec)
    soundfile.write(tmp_path / "a.wav", tone(2.0, 24000), 24000)
    tokens = tmp_path / "a.npz"
    told(capsys, "encode", tmp_path / "a.wav", "-o", tokens, "--codec", tmp_path / "causal")
    sounds = {}
    for lost in ("0", "10", "10", "99.9"):
        made = told(capsys, "decode", tokens, "-o", tmp_path / "b.wav", "--codec", tmp_path / "causal", "--lost", lost)
        sound = soundfile.read(tmp_path / "b.wav")[0]
        assert made["seconds"] == 2.0 and np.array_equal(sounds.setdefault(lost, sound), sound), "the same frames"
    assert not np.array_equal(sounds["0"], sounds["10"]) and not sounds["99.9"][24000:].any()
    kept = read_tokens(tokens)
    codes = kept.encoded.codes.clone()
    codes[..., 100:] = LOST
    write_tokens(tokens, Tokens(Encoded(codes), kept.note))
    assert torch.equal(read_tokens(tokens).encoded.codes, codes), "a file may have losses"
    told(capsys, "decode", tokens, "-o", tmp_path / "c.wav", "--codec", tmp_path / "causal")
    assert not soundfile.read(tmp_path / "c.wav")[0][-12000:].any()
    line = [
        "codec",
        "decode",
        str(tokens),
        "-o",
        str(tmp_path / "d.wav"),
        "--codec",
        str(tmp_path / "causal"),
        "--lost",
    ]
    assert main([*line, "100"]) == 2 and "percentage" in capsys.readouterr().err
    told(capsys, "encode", tmp_path / "a.wav", "-o", tokens, "--codec", folder)
    line[line.index(str(tmp_path / "causal"))] = str(folder)
    assert main([*line, "5"]) == 2 and "whole sounds only" in capsys.readouterr().err
