"""`flowtts train --recipe codec`: a run ends in a codec that encodes and decodes, in one process or several."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from flowtts_core.codec.files import load_codec
from flowtts_core.errors import ConfigError
from flowtts_core.training.files import LocalFiles
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
