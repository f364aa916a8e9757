"""`flowtts vocode`: each mel file becomes the vocoder's own sound, whatever file it lies in, and what is no mel is named."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file

from flowtts_core.audio.files import to_int16, write_audio
from flowtts_core.audio.mel import LogMel, MelConfig
from flowtts_core.audio.mel_files import read_mel
from flowtts_core.config import spec_of
from flowtts_core.errors import AudioError
from flowtts_core.vocoder import Vocos, VocosConfig
from flowtts_core.vocoder.files import save_vocoder
from flowtts_core.vocoder.windows import FRAMES
from jobs import cli
from tests.speech_like import buzz, write_examples

MEL = replace(MelConfig(), n_fft=256, win_length=256, hop_length=64, n_mels=20)


@pytest.fixture
def vocoder(tmp_path: Path) -> Vocos:
    torch.manual_seed(0)
    config = VocosConfig(MEL, dim=16, intermediate_dim=32, num_layers=2, mel_prior=True)
    made = Vocos(config).eval()
    save_vocoder(tmp_path / "vocoder", made, spec_of("vocos", config))
    return made


def vocode(tmp_path: Path, *words: object) -> int:
    line = ["vocode", *map(str, words), "-o", str(tmp_path / "wavs"), "--vocoder", str(tmp_path / "vocoder")]
    return cli.main(line)


def samples(path: Path) -> np.ndarray:
    found, rate = soundfile.read(path, dtype="int16")
    assert rate == MEL.sample_rate
    return found


def mel_of(frames: int) -> np.ndarray:
    return np.random.default_rng(frames).normal(-4, 1, (20, frames)).astype(np.float32)


def test_every_kind_of_file_becomes_the_sound_of_its_mel(
    tmp_path: Path, vocoder: Vocos, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mels/deep").mkdir(parents=True)
    mel, long = mel_of(50), mel_of(FRAMES + 70)  # one of several windows
    np.save(tmp_path / "mels/plain.npy", mel)
    np.save(tmp_path / "mels/turned.npy", mel.T)
    np.save(tmp_path / "mels/batch.npy", mel[None].astype(">f4"))
    np.save(tmp_path / "mels/deep/long.npy", long.T)
    np.savez(tmp_path / "mels/archive.npz", mel=mel)
    torch.save(torch.from_numpy(mel), tmp_path / "mels/tensor.pt")
    torch.save({"mel": torch.from_numpy(mel), "rate": 22050}, tmp_path / "mels/named.pt")
    save_file({"mel": torch.from_numpy(mel)}, tmp_path / "mels/safe.safetensors")
    assert vocode(tmp_path, tmp_path / "mels") == 0
    assert f"reads: {MEL.said}" in capsys.readouterr().err
    with torch.inference_mode():
        wanted, longer = (to_int16(vocoder(torch.from_numpy(m)[None])[0].numpy()) for m in (mel, long))
    for name in ("plain", "turned", "batch", "archive", "tensor", "named", "safe"):
        np.testing.assert_allclose(samples(tmp_path / f"wavs/{name}.wav"), wanted, atol=1)
    np.testing.assert_allclose(samples(tmp_path / "wavs/deep/long.wav"), longer, atol=4)  # 1e-4


def test_what_is_no_mel_is_named_and_the_others_are_made(
    tmp_path: Path, vocoder: Vocos, capsys: pytest.CaptureFixture[str]
) -> None:
    mels = tmp_path / "mels"
    mels.mkdir()
    broken = mel_of(30)
    broken[3, 17] = np.nan
    wrong = {
        "square": mel_of(20), "empty": mel_of(0), "rows": mel_of(30)[:13], "nan": broken, "whole": np.zeros((20, 9), int),
        "flat": np.zeros(20),
    }  # fmt: skip
    for name, array in wrong.items():
        np.save(mels / f"{name}.npy", array)
    np.savez(mels / "two.npz", a=mel_of(9), b=mel_of(9))
    (mels / "cut.npy").write_bytes(b"\x93NUMPY")
    torch.save([1, 2], mels / "list.pt")
    assert vocode(tmp_path, mels, "--json") == 1, "nothing was made"
    assert len(json.loads(capsys.readouterr().out)["failed"]) == 9
    np.save(mels / "good.npy", mel_of(9))
    assert vocode(tmp_path, mels, "--json") == 3
    told = json.loads(capsys.readouterr().out)
    assert (told["made"], told["kept"], told["mel"]["n_mels"]) == (1, 0, 20)
    failed = {Path(name).stem: reason for name, reason in told["failed"].items()}
    for name, said in {
        "square": "leaves open which side", "empty": "holds no frames", "rows": r"has the shape [13, 30]",
        "nan": "first in frame 17", "whole": "not real numbers", "flat": "the vocoder reads 20 bands", "two": "2 arrays (a, b)",
        "cut": "is damaged or cut off", "list": "holds list",
    }.items():  # fmt: skip
        assert said in failed[name]
    assert [path.name for path in (tmp_path / "wavs").iterdir()] == ["good.wav"], "nothing half written stays"


def test_files_that_hold_no_mel_are_named_in_our_words(
    tmp_path: Path, vocoder: Vocos, capsys: pytest.CaptureFixture[str]
) -> None:
    """Garbage, Python objects, and mels of other front ends."""
    mels = tmp_path / "mels"
    mels.mkdir()
    noise = np.random.default_rng(0).bytes(5000)
    said = {}
    for suffix in (".npy", ".npz", ".pt", ".safetensors"):
        (mels / f"random-{suffix[1:]}{suffix}").write_bytes(b"x" + noise)
        (mels / f"empty-{suffix[1:]}{suffix}").write_bytes(b"")
        said[f"random-{suffix[1:]}{suffix}"], said[f"empty-{suffix[1:]}{suffix}"] = (
            f"is no {suffix} file, whatever its name says",
            "is empty",
        )
    whole = tmp_path / "whole"
    torch.save(torch.zeros(20, 30), whole)
    (mels / "half-pt.pt").write_bytes(whole.read_bytes()[:700])
    np.savez(whole.with_suffix(".npz"), mel=mel_of(30))
    (mels / "half-npz.npz").write_bytes(whole.with_suffix(".npz").read_bytes()[:700])
    np.save(mels / "objects.npy", np.array([{"mel": 1}, None]), allow_pickle=True)
    np.savez(mels / "objects-npz.npz", mel=np.array([Path("a")]))
    torch.save(Path("a"), mels / "object.pt")
    (mels / "pickled.npy").write_bytes(pickle.dumps(mel_of(30)))
    (mels / "pickled-pt.pt").write_bytes(pickle.dumps([Path("a")], protocol=2))
    np.save(mels / "text.npy", np.array(["mel"]))
    np.save(mels / "decibels.npy", 8.7 * mel_of(300))
    np.save(mels / "linear.npy", np.exp(mel_of(30)))
    for name in ("half-pt.pt", "half-npz.npz", "objects.npy", "objects-npz.npz", "object.pt"):
        said[name] = "is damaged or cut off, or holds Python objects"
    said |= {"pickled.npy": "pickled Python object", "pickled-pt.pt": "pickled Python object", "text.npy": "holds text"}
    said |= {"decibels.npy": "it may be in decibels", "linear.npy": "it may be without logarithm"}
    assert vocode(tmp_path, mels, "--json") == 1
    failed = {Path(name).name: reason for name, reason in json.loads(capsys.readouterr().out)["failed"].items()}
    assert failed.keys() == said.keys()
    for name, words in said.items():
        assert words in failed[name] and "Error" not in failed[name] and "allow_pickle" not in failed[name], failed[
            name
        ]
    np.save(mels / "fine.npy", mel_of(30) - 8.0)  # a model may predict less than the floor
    assert vocode(tmp_path, mels / "fine.npy") == 0
    with pytest.raises(AudioError, match="empty") as raised:
        read_mel(mels / "empty-npy.npy", MEL)
    assert "numpy.save(path, mel)" in raised.value.remedy


def test_a_run_that_was_cut_goes_on(tmp_path: Path, vocoder: Vocos, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "a.npy", mel_of(9))
    np.save(tmp_path / "b.npy", mel_of(9))
    assert vocode(tmp_path, tmp_path / "a.npy", "--format", "flac") == 0
    (tmp_path / "wavs/a.flac").write_bytes(b"kept")
    both = (tmp_path / "a.npy", tmp_path / "b.npy", "--format", "flac")
    assert vocode(tmp_path, *both) == 0 and "1 were there already" in capsys.readouterr().out
    assert (tmp_path / "wavs/a.flac").read_bytes() == b"kept"
    assert vocode(tmp_path, *both, "--overwrite") == 0
    assert len(samples(tmp_path / "wavs/a.flac")) == 9 * 64


def test_recordings_become_copies(tmp_path: Path, vocoder: Vocos, capsys: pytest.CaptureFixture[str]) -> None:
    recording = buzz(44100, 120.0, 44100)  # a second at another rate
    write_audio(tmp_path / "clips/a.wav", recording, 44100)
    assert vocode(tmp_path, tmp_path / "clips") == 0
    assert len(samples(tmp_path / "wavs/a.wav")) == 22050 // 64 * 64
    np.save(tmp_path / "clips/b.npy", mel_of(9))
    assert vocode(tmp_path, tmp_path / "clips") == 0
    assert "1 recordings beside 1 mels left out" in capsys.readouterr().err
    assert (tmp_path / "wavs/b.wav").is_file()
    same = [
        "vocode",
        "--copy",
        str(tmp_path / "clips"),
        "-o",
        str(tmp_path / "clips"),
        "--vocoder",
        str(tmp_path / "vocoder"),
    ]
    assert cli.main(same) == 2 and "would be written over" in capsys.readouterr().err


def test_a_prepared_folder_gives_its_own_mels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_examples(tmp_path / "data", [40, 50])
    line = ["vocode", str(data), "-o", str(tmp_path / "wavs"), "--vocoder", "griffin_lim"]
    assert cli.main(line) == 0
    made = {path.stem: LogMel(MelConfig())(torch.from_numpy(soundfile.read(path, dtype="float32")[0])[None])
            for path in (tmp_path / "wavs").iterdir()}  # fmt: skip
    assert {name: mel.shape[2] for name, mel in made.items()} == {"clip-000": 40, "clip-001": 50}
    config = VocosConfig(MEL, dim=16, intermediate_dim=32, num_layers=2)
    save_vocoder(tmp_path / "vocoder", Vocos(config), spec_of("vocos", config))
    assert vocode(tmp_path, data) == 1
    assert "no mel of this configuration" in capsys.readouterr().err


def test_two_inputs_of_one_name_are_refused(tmp_path: Path, vocoder: Vocos) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "a.npy", mel_of(9))
    assert vocode(tmp_path, tmp_path / "one/a.npy", tmp_path / "two/a.npy") == 2


def test_wrong_usage_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "a.npy", np.zeros((80, 9), np.float32))
    for output, vocoder, said in (("wavs", "nobody", "--vocoder nobody"), ("one.wav", "griffin_lim", "into a folder")):
        line = ["vocode", str(tmp_path / "a.npy"), "-o", str(tmp_path / output), "--vocoder", vocoder]
        assert cli.main(line) == 2
        assert said in capsys.readouterr().err and not (tmp_path / output).exists()
