"""Specs of pretrained judges: what is named is loaded, and what cannot be is said plainly, without running anything of it."""

from __future__ import annotations

import json
import shutil
import sys
import time
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
import torch

from flowtts_core.errors import ConfigError, DependencyError
from flowtts_core.metrics import asr, embedders, listeners, pretrained, speakers
from tests.pretrained_models import save_encodec, save_letters, save_raw, tone

LOADERS = [asr.load_recogniser, speakers.load_speaker_encoder, listeners.load_listener, embedders.load_embedder]
TABLES = [asr.RECOGNISERS, speakers.SPEAKER_ENCODERS, listeners.LISTENERS, embedders.EMBEDDERS]


@pytest.fixture(scope="module")
def wavlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_raw(tmp_path_factory.mktemp("wavlm"), "WavLMModel")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.parametrize(("load", "table"), zip(LOADERS, TABLES, strict=True))
def test_an_unknown_kind_lists_all_known_ones(load, table) -> None:
    with pytest.raises(ConfigError) as caught:
        load("horoscope")
    assert all(kind in caught.value.remedy for kind in table)


@pytest.mark.parametrize(("load", "table"), zip(LOADERS, TABLES, strict=True))
def test_every_kind_with_a_place_names_the_place_that_is_not_there(load, table, tmp_path: Path) -> None:
    absent = str(tmp_path / "absent")
    placed = [kind for kind, entry in table.items() if entry.place]
    assert placed
    for kind in placed:
        with pytest.raises(ConfigError, match="absent") as caught:
            load(f"{kind}:{absent}")
        assert caught.value.remedy


def test_a_place_too_many_or_too_few() -> None:
    with pytest.raises(ConfigError, match="pocketsphinx:x"):
        asr.load_recogniser("pocketsphinx:x")
    with pytest.raises(ConfigError, match="whisper:FOLDER_OR_NAME"):
        asr.load_recogniser("whisper")


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="'tpu'"):
        embedders.load_embedder("mel", "tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="no GPU"):
        embedders.load_embedder("mel", "cuda:0")


@pytest.mark.parametrize(
    ("load", "spec"),
    [
        (asr.load_recogniser, "whisper:somebody/some-whisper"),
        (asr.load_recogniser, "faster-whisper:somebody/some-whisper"),
        (asr.load_recogniser, "faster-whisper:tiny.en"),
        (asr.load_recogniser, "ctc:somebody/some-hubert"),
        (speakers.load_speaker_encoder, "xvector:somebody/some-wavlm"),
        (embedders.load_embedder, "clap:somebody/some-clap"),
    ],
)
def test_a_name_offline_is_refused_at_once(load, spec: str, offline: None) -> None:
    if spec.startswith("faster"):
        pytest.importorskip("faster_whisper")
    load_began = time.monotonic()
    with pytest.raises(ConfigError, match=spec.partition(":")[2]) as caught:
        load(spec)
    assert time.monotonic() - load_began < 20  # most of it the import of the library
    assert "HF_HUB_OFFLINE" in str(caught.value)
    assert "--local-dir" in caught.value.remedy


@pytest.mark.parametrize(
    "published", [{"model.safetensors"}, {"pytorch_model.bin"}, {"model.safetensors", "pytorch_model.bin"}]
)
def test_a_name_on_the_hub_is_fetched_with_one_form_of_its_weights(
    published: set[str], wavlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    weights = {"model.safetensors", "pytorch_model.bin"}
    hub, cache = tmp_path / "hub", tmp_path / "cache"
    shutil.copytree(wavlm, hub)
    torch.save(load_file(wavlm / "model.safetensors"), hub / "pytorch_model.bin")
    (hub / "flax_model.msgpack").touch()
    cache.mkdir()

    def snapshot(name: str, allow_patterns: list[str]) -> str:
        assert name == "somebody/some-wavlm"
        for path in hub.iterdir():
            there = path.name in published or path.name not in weights
            if there and any(fnmatch(path.name, pattern) for pattern in allow_patterns):
                shutil.copy(path, cache)
        return str(cache)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    judge = embedders.load_embedder("wavlm:somebody/some-wavlm")
    expected = embedders.load_embedder(f"wavlm:{wavlm}").embed(tone(1, 16_000), 16_000)
    np.testing.assert_array_equal(judge.embed(tone(1, 16_000), 16_000), expected)
    assert {path.name for path in cache.iterdir()} & weights == set(sorted(published)[:1])
    assert not (cache / "flax_model.msgpack").exists()


@pytest.mark.parametrize("package", ["transformers", "faster_whisper"])
def test_a_missing_package_names_the_line_that_installs_it(package: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DependencyError, match=r"flowtts\[hub\]"):
        asr.load_recogniser(f"{'whisper' if package == 'transformers' else 'faster-whisper'}:{tmp_path}")


def test_other_architectures_are_refused(wavlm: Path, tmp_path: Path) -> None:
    for load, kind in [
        (asr.load_recogniser, "whisper"),
        (embedders.load_embedder, "clap"),
        (embedders.load_embedder, "encodec"),
    ]:
        with pytest.raises(ConfigError, match="type 'wavlm'"):
            load(f"{kind}:{wavlm}")
    codec = save_encodec(tmp_path)
    with pytest.raises(ConfigError, match="raw audio"):
        embedders.load_embedder(f"wavlm:{codec}")
    with pytest.raises(ConfigError, match="does not load"):
        asr.load_recogniser(f"ctc:{codec}")


def test_a_head_that_is_not_in_the_file_is_not_made_up(wavlm: Path) -> None:
    with pytest.raises(ConfigError, match=r"no weights for .*lm_head"):
        asr.load_recogniser(f"ctc:{wavlm}")
    with pytest.raises(ConfigError, match="no weights for"):
        speakers.load_speaker_encoder(f"xvector:{wavlm}")


def test_damaged_folders(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ConfigError, match="empty does not load"):
        embedders.load_embedder(f"wavlm:{empty}")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="is a file"):
        embedders.load_embedder(f"wavlm:{tmp_path / 'file'}")
    folder = save_raw(tmp_path / "raw", "WavLMModel")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ConfigError, match="raw does not load"):
        embedders.load_embedder(f"wavlm:{folder}")
    weights.unlink()
    with pytest.raises(ConfigError, match="no weights"):
        embedders.load_embedder(f"wavlm:{folder}")


def test_without_its_feature_extractor_or_tokenizer(tmp_path: Path) -> None:
    folder = save_raw(tmp_path, "HubertForCTC")
    with pytest.raises(ConfigError, match="no Tokenizer that loads"):
        asr.load_recogniser(f"ctc:{folder}")
    save_letters(folder)
    asr.load_recogniser(f"ctc:{folder}")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ConfigError, match="no FeatureExtractor that loads"):
        asr.load_recogniser(f"ctc:{folder}")


def test_tensors_in_a_bin_are_read_and_half_ones_in_full(wavlm: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    expected = embedders.load_embedder(f"wavlm:{wavlm}").embed(tone(1, 16_000), 16_000)
    for path in wavlm.iterdir():
        if path.suffix == ".json":
            (tmp_path / path.name).write_text(path.read_text())
    state = load_file(wavlm / "model.safetensors")
    torch.save(state, tmp_path / "pytorch_model.bin")
    np.testing.assert_array_equal(embedders.load_embedder(f"wavlm:{tmp_path}").embed(tone(1, 16_000), 16_000), expected)
    (tmp_path / "pytorch_model.bin").unlink()
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"dtype": "float16"}))
    save_file({k: v.half() for k, v in state.items()}, tmp_path / "model.safetensors", {"format": "pt"})
    found = embedders.load_embedder(f"wavlm:{tmp_path}").embed(tone(1, 16_000), 16_000)
    np.testing.assert_allclose(found, expected, atol=0.02)
    assert not np.array_equal(found, found.astype(np.float16))


class _Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_nothing_of_a_folder_is_run(wavlm: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    for path in wavlm.iterdir():
        if path.suffix == ".json":
            (tmp_path / path.name).write_text(path.read_text())
    torch.save({"weight": _Bomb(mark)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="does not load"):
        embedders.load_embedder(f"wavlm:{tmp_path}")
    code = tmp_path / "evil.py"
    code.write_text(f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n")
    own = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.EvilConfig", "AutoModel": "evil.Evil"}}
    (tmp_path / "config.json").write_text(json.dumps(own))
    with pytest.raises(ConfigError, match="does not load"):
        embedders.load_embedder(f"wavlm:{tmp_path}")
    assert not mark.exists()


def test_windows_give_the_frames_of_the_whole() -> None:
    """Frames of 25 samples each 10: a function that sees no farther than the context gives the very same frames."""

    def run(samples: torch.Tensor) -> torch.Tensor:
        assert samples.shape[-1] <= 300
        return samples[0].unfold(0, 25, 10) if samples.shape[-1] >= 25 else samples.new_zeros(0, 25)

    for length in (*range(280, 420), 1000, 1007):
        samples = torch.arange(length, dtype=torch.float32)[None]
        found = pretrained.in_windows(samples, 300, 50, 10, run)
        assert torch.equal(found, samples[0].unfold(0, 25, 10)), length


def test_even_parts() -> None:
    parts = pretrained.even_parts(np.arange(101), 25)
    assert [len(part) for part in parts] == [21, 20, 20, 20, 20]
    assert np.array_equal(np.concatenate(parts), np.arange(101))
