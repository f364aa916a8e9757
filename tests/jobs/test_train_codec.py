"""`flowtts train --recipe codec`: a run ends in a codec that encodes and decodes, in one process or several."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from flowtts_core.audio.mel import MelConfig
from flowtts_core.codec import FactorisedCodec
from flowtts_core.codec.files import load_codec
from flowtts_core.errors import ConfigError, TextError
from flowtts_core.metrics.probes import read_class, read_number
from flowtts_core.training.examples import DatasetMeta, Examples
from flowtts_core.training.factors import FactorBatches, open_labels
from flowtts_core.training.files import LocalFiles
from jobs.cli import main
from jobs.training.recipes import recipe
from jobs.training.run import open_run, train_rank, write_result
from tests.speech_like import buzz, write_examples


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_examples(tmp_path_factory.mktemp("data"), [60 + 7 * (i * 5 % 11) for i in range(12)])


@pytest.mark.parametrize("name", ["codec", "codec_rvq", "encodec", "vqvae"])
def test_a_debug_run_ends_in_a_codec(name: str, data: Path, tmp_path: Path) -> None:
    this = open_run(str(tmp_path / "runs"), str(data), recipe(f"{name}_debug"))
    train_rank(this)
    write_result(this, str(tmp_path / "out"))
    loaded = load_codec(tmp_path / "out")
    assert loaded.codec.sample_rate == 22050 and loaded.card["steps"] == 8
    waveform = torch.from_numpy(buzz(9000, 120.0))[None]
    with torch.inference_mode():
        encoded = loaded.codec.encode(waveform)
        copy = loaded.codec.decode(encoded)
    assert copy.shape == (1, 9280 if loaded.codec.hop_length == 320 else copy.shape[1]) and copy.isfinite().all()
    assert encoded.codes.shape[1] == loaded.codec.books
    log = [json.loads(line) for line in (Path(this.folder) / "log.jsonl").read_text().splitlines()]
    assert max(line["codec/perplexity"] for line in log if "codec/perplexity" in line) > 1.05, "codes began at the data"
    assert (
        any("codec/adversarial" in line for line in log) and (Path(this.folder) / "samples/0000008-copy.wav").exists()
    )
    full = recipe(name)
    assert full.name == this.recipe.name and full.trainer.steps > 1000


def test_a_crop_of_too_few_frames_is_refused(data: Path) -> None:
    with pytest.raises(ConfigError, match="crop_frames = 4 are 1024 samples, and a frame of the codec has 320"):
        recipe("codec_debug", {"crop_frames": 4}).fit(LocalFiles(data))


def test_the_recipes_are_the_published_rates() -> None:
    rates = {name: recipe(name).module() for name in ("codec", "codec_rvq", "vqvae")}
    assert rates["codec"].bits_per_second() == 900 and rates["codec"].frame_rate == 75
    assert [rates["codec_rvq"].bits_per_second(books) for books in (1, 2, 8)] == [750, 1500, 6000]
    assert rates["vqvae"].sizes == (1024,) and rates["vqvae"].hop_length == 320
    two = recipe("vqvae", {"model.codebooks": 2, "model.bins": 64}).module()
    assert two.bits_per_second() == 900
    assert sum(p.numel() for name in ("codec", "codec_rvq") for p in rates[name].parameters()) * 2 < 15e6, "float16"


@pytest.fixture(scope="module")
def speakers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    mel = MelConfig(pitch=True)
    return write_examples(tmp_path_factory.mktemp("speakers"), [60 + i for i in range(20)], 1, mel, ("a", "b"))


def test_a_codec_whose_codes_are_apart_is_trained(speakers: Path, tmp_path: Path) -> None:
    this = open_run(str(tmp_path / "runs"), str(speakers), recipe("facodec_debug", {"trainer.steps": 4}))
    train_rank(this)
    write_result(this, str(tmp_path / "out"))
    codec = load_codec(tmp_path / "out").codec
    assert isinstance(codec, FactorisedCodec) and codec.sample_rate == 22050 and codec.counts == (1, 2, 3)
    log = [json.loads(line) for line in (Path(this.folder) / "log.jsonl").read_text().splitlines()]
    names = {"phones", "speaker", "f0", "prosody_phones", "prosody_speaker", "content_speaker", "content_f0", "energy"}
    assert names <= {name.removeprefix("codec/") for name in log[0]}


@pytest.mark.slow
def test_a_codec_whose_codes_are_apart_is_probed(
    speakers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fitted = recipe("facodec_debug").fit(LocalFiles(speakers))
    codec = fitted.module()
    assert isinstance(codec, FactorisedCodec)
    codec.train().trained(torch.from_numpy(buzz(32000, 120.0))[None])  # codebooks begin
    fitted.write(tmp_path / "out", codec, DatasetMeta.load(speakers), "out")
    line = ["benchmark", "codecs", "--codec", f"mine={tmp_path / 'out'}", "--probes", str(speakers)]
    assert main([*line, "--probe-share", "0.2", "--json", str(tmp_path / "probes.json")]) == 0
    assert "| prosody |" in capsys.readouterr().out
    told = json.loads((tmp_path / "probes.json").read_text())
    assert (told["speakers"], told["tried_on"]) == (2, 4)
    assert told["codecs"][0]["content"]["phones"]["tried"] > 0 and told["codecs"][0]["timbre"]["speaker"]["tried"] == 4


def test_probes_read_what_is_there_and_nothing_else() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors, wanted = torch.randn(400, 6, generator=generator), torch.randint(0, 4, (400,), generator=generator)
    told = vectors + 4 * torch.nn.functional.one_hot(wanted, 6)
    there = read_class(told[:300], wanted[:300], told[300:], wanted[300:])
    nothing = read_class(vectors[:300], wanted[:300], vectors[300:], wanted[300:])
    assert there.value > 0.9 and nothing.value < 0.45 and 0.1 < nothing.chance < 0.4 and there.tried == 100
    numbers = 2 * vectors[:, 0] - vectors[:, 3] + 5
    assert read_number(vectors[:300], numbers[:300], vectors[300:], numbers[300:]).value > 0.999
    assert read_number(vectors[:300, 1:3], numbers[:300], vectors[300:, 1:3], numbers[300:]).value < 0.1


def test_labels_are_of_the_frames_they_stand_at(speakers: Path) -> None:
    """F0 is around the speaker's level, at whatever time it is asked for; a crop has the labels of its place."""
    examples = Examples(speakers, ["mel", "audio", "text"])
    labels = open_labels(examples, None)
    rows = np.concatenate([examples.mel(clip)[-1] for clip in range(0, 16, 2)])
    assert labels.levels[0] == pytest.approx(float(np.median(rows.astype(float))))
    crops = FactorBatches(labels, 320, 4, 32, 0)
    batch, (clips, starts) = crops.at(3), crops._drawn(3)
    assert batch.phones is not None and batch.f0 is not None and batch.speakers is not None
    assert batch.phones.shape == batch.f0.shape == (4, 32 * 256 // 320)
    for row, (clip, start) in enumerate(zip(clips, starts, strict=True)):
        times = (start * 256 + 160 + 320 * np.arange(25)) / 22050
        assert np.array_equal(batch.phones[row].numpy(), labels.phones(int(clip), times))
        assert np.allclose(batch.f0[row].numpy(), labels.f0(int(clip), times), atol=1e-6)
        assert int(batch.speakers[row]) == int(clip) % 2


def test_speakers_and_pitch_are_asked_for(data: Path, speakers: Path) -> None:
    with pytest.raises(ConfigError, match="several"):
        recipe("facodec_debug", {"mel.pitch": False}).fit(LocalFiles(data))
    with pytest.raises(TextError, match="no mel"):
        recipe("facodec_debug", {"mel.n_mels": 40}).fit(LocalFiles(speakers))
    assert recipe("facodec_debug").fit(LocalFiles(speakers)).model.sample_rate == 22050
