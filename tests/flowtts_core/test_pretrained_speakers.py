"""Speaker encoders from files: embeddings of length 1 that equal the model's own arithmetic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from flowtts_core.errors import AudioError, ConfigError
from flowtts_core.metrics import similarity, speakers
from tests.pretrained_models import save_raw, tone, transformers

onnx = pytest.importorskip("onnx", reason="needs onnx to make models")
pytest.importorskip("onnxruntime")


def save_onnx(path: Path, axis: int = 80) -> Path:
    """Bands [1, T, axis] -> [1, 12]: a projection, and the mean over time of its squares."""
    weight = np.random.default_rng(0).normal(size=(axis, 12)).astype(np.float32) / 9
    nodes = [
        onnx.helper.make_node("MatMul", ["feats", "weight"], ["projected"]),
        onnx.helper.make_node("Mul", ["projected", "projected"], ["squares"]),
        onnx.helper.make_node("ReduceMean", ["squares", "time"], ["embs"], keepdims=0),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "speaker",
        [onnx.helper.make_tensor_value_info("feats", onnx.TensorProto.FLOAT, ["B", "T", axis])],
        [onnx.helper.make_tensor_value_info("embs", onnx.TensorProto.FLOAT, ["B", 12])],
        [onnx.numpy_helper.from_array(weight, "weight"), onnx.numpy_helper.from_array(np.array([1]), "time")],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def kaldi_bands(waveform: np.ndarray) -> np.ndarray:
    """Kaldi's filter banks written out from its documentation (feature-window.cc, mel-computations.cc), [T, 80]."""
    samples = waveform.astype(np.float64) * 32768
    frames = np.lib.stride_tricks.sliding_window_view(samples, 400)[::160]
    frames = frames - frames.mean(axis=1, keepdims=True)
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    frames = (frames - 0.97 * before) * (0.54 - 0.46 * np.cos(2 * np.pi * np.arange(400) / 399))
    power = np.abs(np.fft.rfft(frames, 512)) ** 2

    def mel(hertz: np.ndarray) -> np.ndarray:
        return 1127 * np.log1p(hertz / 700)

    edges = np.linspace(mel(np.array(20.0)), mel(np.array(8000.0)), 82)
    bins = mel(np.arange(256) * 16_000 / 512)  # Kaldi leaves out the highest
    rise = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    filters = np.clip(np.minimum(rise, fall), 0, None)
    bands = np.log(np.maximum(power[:, :256] @ filters.T, np.finfo(np.float32).eps))
    return bands - bands.mean(axis=0)


def noisy(seconds: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 0.02, round(seconds * 16_000)).astype(np.float32)
    return tone(seconds, 16_000, seed) + noise


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> speakers.SpeakerEncoder:
    return speakers.load_speaker_encoder(f"onnx:{save_onnx(tmp_path_factory.mktemp('onnx') / 'speaker.onnx')}")


@pytest.fixture(scope="module")
def xvector_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_raw(tmp_path_factory.mktemp("xvector"), "WavLMForXVector")


@pytest.fixture(scope="module")
def xvector(xvector_folder: Path) -> speakers.SpeakerEncoder:
    return speakers.load_speaker_encoder(f"xvector:{xvector_folder}")


def test_filter_banks_are_kaldis() -> None:
    clip = noisy(1.5)
    np.testing.assert_allclose(speakers.filter_banks(clip), kaldi_bands(clip), atol=2e-3)


def test_an_onnx_encoder_gets_these_bands(encoder: speakers.SpeakerEncoder) -> None:
    clip = noisy(2)
    weight = np.random.default_rng(0).normal(size=(80, 12)).astype(np.float32) / 9
    expected = ((kaldi_bands(clip) @ weight) ** 2).mean(axis=0)
    expected /= np.linalg.norm(expected)
    found = encoder.embed(clip, 16_000)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    # the mean over time takes the level away
    np.testing.assert_allclose(encoder.embed(clip / 8, 16_000), found, atol=1e-4)
    assert similarity.cosine(encoder.embed(clip, 8_000), found) < 0.999 < similarity.cosine(found, found)


def test_an_x_vector_is_the_models_own(xvector: speakers.SpeakerEncoder, xvector_folder: Path) -> None:
    clip = noisy(3)
    model = transformers.WavLMForXVector.from_pretrained(xvector_folder).eval()
    levelled = (clip - clip.mean()) / np.sqrt(clip.var() + 1e-7)
    with torch.no_grad():
        expected = model(torch.from_numpy(levelled)[None]).embeddings[0].numpy()
    np.testing.assert_allclose(xvector.embed(clip, 16_000), expected / np.linalg.norm(expected), atol=1e-5)
    assert similarity.cosine(xvector.embed(noisy(3, 3), 16_000), xvector.embed(clip, 16_000)) < 0.9999


@pytest.mark.parametrize("kind", ["encoder", "xvector"])
def test_any_length(kind: str, request: pytest.FixtureRequest) -> None:
    judge = request.getfixturevalue(kind)
    clip = noisy(20)
    for waveform in (clip[:16_000], clip, np.concatenate([clip, clip])):  # the last is heard in two parts
        embedded = judge.embed(waveform, 16_000)
        assert embedded.dtype == np.float32 and np.linalg.norm(embedded) == pytest.approx(1, abs=1e-6)
        np.testing.assert_array_equal(judge.embed(waveform, 16_000), embedded)
    np.testing.assert_allclose(embedded, judge.embed(clip, 16_000), atol=1e-5)


@pytest.mark.parametrize("kind", ["encoder", "xvector"])
def test_silent_short_and_useless_clips(kind: str, request: pytest.FixtureRequest) -> None:
    judge = request.getfixturevalue(kind)
    with pytest.raises(AudioError, match="silent"):
        judge.embed(np.zeros(16_000, np.float32), 16_000)
    with pytest.raises(AudioError, match=r"0\.010 s"):
        judge.embed(noisy(0.01), 16_000)
    for useless in (np.zeros(0, np.float32), np.ones((2, 9), np.float32), np.full(16_000, np.nan, np.float32)):
        with pytest.raises(AudioError, match=r"shape|NaN"):
            judge.embed(useless, 16_000)


def test_the_shortest_x_vector_is_finite(xvector: speakers.SpeakerEncoder) -> None:
    least = xvector.hearing.field + (xvector.frames - 1) * xvector.hearing.hop
    assert np.isfinite(xvector.embed(noisy(1)[:least], 16_000)).all()
    with pytest.raises(AudioError, match="needs"):
        xvector.embed(noisy(1)[: least - 1], 16_000)


def test_one_frame_of_bands_has_no_direction(encoder: speakers.SpeakerEncoder) -> None:
    with pytest.raises(AudioError, match="no finite embedding"):  # one frame less its mean is zero
        encoder.embed(noisy(0.03), 16_000)


def test_files_that_are_no_encoder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="1, T, 80"):
        speakers.load_speaker_encoder(f"onnx:{save_onnx(tmp_path / 'wide.onnx', axis=24)}")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(ConfigError, match="does not load as an ONNX model"):
        speakers.load_speaker_encoder(f"onnx:{tmp_path / 'text.onnx'}")


def test_resemblyzer_is_the_default(shared_data: Path) -> None:
    pytest.importorskip("resemblyzer")
    import soundfile

    waveform, rate = soundfile.read(sorted((shared_data / "ljspeech").rglob("*.wav"))[1], dtype="float32")
    judge = speakers.load_speaker_encoder()
    np.testing.assert_array_equal(judge.embed(waveform, rate), similarity.embed(waveform, rate))
