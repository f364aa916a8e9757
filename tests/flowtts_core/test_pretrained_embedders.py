"""Embedders from folders: the models' own arithmetic, at their own rate, of the sound and not of its padding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from flowtts_core.errors import AudioError
from flowtts_core.metrics import embedders, shape
from tests.pretrained_models import save_clap, save_encodec, save_raw, save_whisper, tone, transformers

STEREO = {
    "sampling_rate": 48_000,
    "audio_channels": 2,
    "normalize": True,
    "chunk_length_s": 1.0,
    "overlap": 0.01,
    "norm_type": "time_group_norm",
    "use_causal_conv": False,
}
RATES = {"wavlm": 16_000, "whisper": 16_000, "encodec": 24_000, "encodec-stereo": 48_000, "clap": 48_000}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {
        "wavlm": save_raw(root / "wavlm", "WavLMModel"),
        "whisper": save_whisper(root / "whisper"),
        "encodec": save_encodec(root / "encodec"),
        "encodec-stereo": save_encodec(root / "stereo", **STEREO),
        "clap": save_clap(root / "clap"),
        "clap-fusion": save_clap(root / "fusion", fusion=True),
    }


@pytest.fixture(scope="module")
def judges(folders: dict[str, Path]) -> dict[str, embedders.Embedder]:
    loaded = {name: embedders.load_embedder(f"{name.split('-')[0]}:{folder}") for name, folder in folders.items()}
    return loaded | {"mel": embedders.load_embedder()}


@pytest.mark.parametrize("name", ["mel", *RATES, "clap-fusion"])
def test_contract(name: str, judges: dict[str, embedders.Embedder]) -> None:
    judge, clip = judges[name], tone(2.5, 22_050)
    embedded = judge.embed(clip, 22_050)
    frames, per_second = judge.frames(clip, 22_050)
    assert judge.name == name.split("-")[0]
    assert embedded.ndim == 1 and embedded.dtype == frames.dtype == np.float32 and frames.ndim == 2
    window_s = 1.0 if judge.name == "clap" else 0.0
    assert len(frames) == pytest.approx((2.5 - window_s) * per_second, abs=1.1)
    np.testing.assert_array_equal(judge.embed(clip, 22_050), embedded)
    np.testing.assert_array_equal(judge.frames(clip, 22_050)[0], frames)
    if judge.name not in ("clap", "mel"):
        np.testing.assert_allclose(embedded, frames.mean(axis=0), atol=1e-5)
    assert (judge.embed_text("a dog barks") is None) == (judge.name != "clap")
    for useless in (np.zeros(0, np.float32), np.ones((2, 900), np.float32), np.full(9000, np.nan, np.float32)):
        with pytest.raises(AudioError):
            judge.embed(useless, 22_050)
    assert np.isfinite(judge.embed(np.zeros(22_050, np.float32), 22_050)).all()


@pytest.mark.parametrize("name", ["mel", *RATES])
def test_a_clip_is_heard_at_the_models_rate(name: str, judges: dict[str, embedders.Embedder]) -> None:
    judge = judges[name]
    rate = RATES.get(name, 16_000)
    right = judge.embed(tone(2, rate), rate)
    converted = judge.embed(tone(2, 32_000), 32_000)
    wrong = judge.embed(tone(2, rate), rate * 2)
    assert np.linalg.norm(converted - right) < 0.3 * np.linalg.norm(wrong - right)


def test_mel(judges: dict[str, embedders.Embedder]) -> None:
    clip = tone(1, 16_000)
    np.testing.assert_array_equal(judges["mel"].embed(clip, 16_000), shape.mel_statistics(clip, 16_000))
    frames, per_second = judges["mel"].frames(clip, 16_000)
    assert frames.shape[1] == 64 and per_second == 100
    np.testing.assert_allclose(judges["mel"].embed(clip, 16_000)[:64], frames.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(judges["mel"].embed(clip, 16_000)[64:], frames.std(axis=0), atol=1e-4)


def test_wavlm(folders: dict[str, Path], judges: dict[str, embedders.Embedder]) -> None:
    clip = tone(2, 16_000)
    model = transformers.WavLMModel.from_pretrained(folders["wavlm"]).eval()
    levelled = (clip - clip.mean()) / np.sqrt(clip.var() + 1e-7)
    with torch.no_grad():
        expected = model(torch.from_numpy(levelled)[None]).last_hidden_state[0].numpy()
    found, per_second = judges["wavlm"].frames(clip, 16_000)
    assert per_second == 50
    np.testing.assert_allclose(found, expected, atol=1e-5)
    long, _ = judges["wavlm"].frames(tone(40, 16_000), 16_000)
    assert len(long) == (40 * 16_000 - 404) // 320 + 1
    with pytest.raises(AudioError, match="needs"):
        judges["wavlm"].embed(clip[:300], 16_000)


def test_whisper_frames_are_of_the_sound_alone(folders: dict[str, Path], judges: dict[str, embedders.Embedder]) -> None:
    model = transformers.WhisperModel.from_pretrained(folders["whisper"]).eval()
    extract = transformers.WhisperFeatureExtractor.from_pretrained(folders["whisper"])

    def whole(clip: np.ndarray) -> np.ndarray:
        features = extract(clip, sampling_rate=16_000, return_tensors="pt").input_features
        with torch.no_grad():
            return model.encoder(features).last_hidden_state[0].numpy()

    clip = tone(2.01, 16_000)
    found, per_second = judges["whisper"].frames(clip, 16_000)
    assert per_second == 50 and len(found) == 101
    np.testing.assert_allclose(found, whole(clip)[:101], atol=1e-5)
    long = tone(47, 16_000)
    found, _ = judges["whisper"].frames(long, 16_000)
    assert len(found) == 47 * 50
    np.testing.assert_allclose(found[:1500], whole(long[:480_000]), atol=1e-5)
    np.testing.assert_allclose(found[1500:], whole(long[480_000:])[:850], atol=1e-5)


def test_encodec(folders: dict[str, Path], judges: dict[str, embedders.Embedder]) -> None:
    model = transformers.EncodecModel.from_pretrained(folders["encodec"]).eval()
    clip = tone(3, 24_000)
    with torch.no_grad():
        expected = model.encoder(torch.from_numpy(clip)[None, None])[0].T.numpy()
    found, per_second = judges["encodec"].frames(clip, 24_000)
    assert per_second == 75
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # quantised, these are the codes that the model writes
    with torch.no_grad():
        codes = model.encode(torch.from_numpy(clip)[None, None], bandwidth=1.5).audio_codes[0, 0]
        ours = model.quantizer.encode(torch.from_numpy(found.T[None].copy()), 1.5)[:, 0]
    assert torch.equal(ours, codes)
    long = tone(36, 24_000)
    with torch.no_grad():
        expected = model.encoder(torch.from_numpy(long)[None, None])[0].T.numpy()
    np.testing.assert_allclose(judges["encodec"].frames(long, 24_000)[0], expected, atol=1e-3)


def test_encodec_by_chunks(folders: dict[str, Path], judges: dict[str, embedders.Embedder]) -> None:
    model = transformers.EncodecModel.from_pretrained(folders["encodec-stereo"]).eval()
    clip = tone(2.5, 48_000)
    expected = []
    for begin in (0, 48_000, 96_000):
        part = torch.from_numpy(np.stack([clip[begin : begin + 48_000]] * 2))[None]
        with torch.no_grad():
            expected.append(model.encoder(part / (part.square().mean().sqrt() + 1e-8))[0].T.numpy())
    found, per_second = judges["encodec-stereo"].frames(clip, 48_000)
    assert per_second == 150 and len(found) == 375
    np.testing.assert_allclose(found, np.concatenate(expected), atol=1e-5)
    # at its own level a quiet clip is as a loud one
    np.testing.assert_allclose(judges["encodec-stereo"].embed(clip / 4, 48_000), found.mean(axis=0), atol=1e-4)


@pytest.mark.parametrize("name", ["clap", "clap-fusion"])
def test_clap(name: str, folders: dict[str, Path], judges: dict[str, embedders.Embedder]) -> None:
    judge = judges[name]
    model = transformers.ClapModel.from_pretrained(folders[name]).eval()
    extract = transformers.ClapFeatureExtractor.from_pretrained(folders[name])

    def direct(clip: np.ndarray) -> np.ndarray:
        inputs = extract(clip, sampling_rate=48_000, return_tensors="pt")
        with torch.no_grad():
            return model.get_audio_features(**inputs).pooler_output[0].numpy()

    short, long = tone(0.4, 48_000), np.concatenate([tone(1, 48_000), tone(1.7, 48_000, 4)])
    np.testing.assert_allclose(judge.embed(short, 48_000), direct(short), atol=1e-5)
    windows = [direct(long[begin : begin + 48_000]) for begin in (0, 48_000, 81_600)]
    mean = np.mean(windows, axis=0)
    np.testing.assert_allclose(judge.embed(long, 48_000), mean / np.linalg.norm(mean), atol=1e-5)
    assert np.linalg.norm(windows[0] - windows[1]) > 1e-3
    frames, per_second = judge.frames(long, 48_000)
    assert per_second == 1
    np.testing.assert_allclose(frames, windows[:2], atol=1e-5)
    np.testing.assert_allclose(judge.embed(long, 48_000), judge.embed(long, 48_000), atol=0)


def test_clap_score(folders: dict[str, Path], judges: dict[str, embedders.Embedder]) -> None:
    model = transformers.ClapModel.from_pretrained(folders["clap"]).eval()
    tokens = transformers.AutoTokenizer.from_pretrained(folders["clap"])("a dog barks", return_tensors="pt")
    with torch.no_grad():
        expected = model.get_text_features(**tokens).pooler_output[0].numpy()
    text = judges["clap"].embed_text("a dog barks")
    assert text is not None
    np.testing.assert_allclose(text, expected, atol=1e-5)
    assert np.linalg.norm(text - judges["clap"].embed_text("the rain falls")) > 1e-3
    sound = judges["clap"].embed(tone(1, 48_000), 48_000)
    assert embedders.clap_score(sound, text) == pytest.approx(float(sound @ text), abs=1e-6)
    assert embedders.clap_score(3 * text, text) == pytest.approx(1)
    many = judges["clap"].embed_text("a dog barks the rain falls " * 9)  # more words than it has positions
    assert many is not None and np.isfinite(many).all()
