"""Listeners from files: TorchScript and ONNX of one function rate alike, and as the function does."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flowtts_core.errors import AudioError, ConfigError
from flowtts_core.metrics import listeners, mos
from tests.pretrained_models import tone


class Rater(nn.Module):
    """3 and a half for a mean square of 0.05, by samples in [-1, 1]; `full_scale` is what its own samples end at."""

    def __init__(self, full_scale: float = 1.0, wide: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([10.0]))
        self.full_scale, self.wide = full_scale, wide

    def forward(self, samples: Tensor) -> Tensor:
        scaled = samples.float() / self.full_scale
        if self.wide:
            return scaled
        return 3 + self.weight * scaled.square().mean(dim=1)


def save_script(path: Path, rater: nn.Module) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(rater).save(str(path))
    return path


def expected(clip: np.ndarray) -> float:
    return 3 + 10 * float(np.mean(clip.astype(np.float64) ** 2))


def test_torchscript(tmp_path: Path) -> None:
    clip = tone(2, 16_000)
    floats = listeners.load_listener(f"utmos:{save_script(tmp_path / 'a.pt', Rater())}")
    whole = listeners.load_listener(f"utmos-int16:{save_script(tmp_path / 'b.jit', Rater(32767.0))}")
    assert [metric.name for metric in floats.metrics] == ["mos_utmos"] == list(floats.rate(clip, 16_000))
    assert floats.rate(clip, 16_000)["mos_utmos"] == pytest.approx(expected(clip), rel=1e-5)
    assert whole.rate(clip, 16_000)["mos_utmos"] == pytest.approx(expected(clip), rel=1e-4)
    assert floats.rate(clip, 16_000) == floats.rate(clip, 16_000)
    at_48 = tone(2, 48_000)
    assert floats.rate(at_48, 48_000)["mos_utmos"] == pytest.approx(expected(clip), rel=1e-3)


def save_onnx(path: Path, kind: str = "FLOAT") -> Path:
    onnx = pytest.importorskip("onnx", reason="needs onnx to make models")
    make = onnx.helper.make_node
    constants = {"one": np.array([1]), "ten": np.float32(10), "three": np.float32(3)}
    graph = onnx.helper.make_graph(
        [
            make("Mul", ["wave", "wave"], ["squares"]),
            make("ReduceMean", ["squares", "one"], ["mean"], keepdims=0),
            make("Mul", ["mean", "ten"], ["times"]),
            make("Add", ["times", "three"], ["score"]),
        ],
        "rater",
        [onnx.helper.make_tensor_value_info("wave", getattr(onnx.TensorProto, kind), [1, "S"])],
        [onnx.helper.make_tensor_value_info("score", getattr(onnx.TensorProto, kind), [1])],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def test_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    judge = listeners.load_listener(f"utmos:{save_onnx(tmp_path / 'a.onnx')}")
    clip = tone(2, 16_000)
    assert judge.rate(clip, 16_000)["mos_utmos"] == pytest.approx(expected(clip), rel=1e-5)
    with pytest.raises(ConfigError, match=r"a\.onnx rates nothing"):
        listeners.load_listener(f"utmos-int16:{tmp_path / 'a.onnx'}")


def test_any_length(tmp_path: Path) -> None:
    judge = listeners.load_listener(f"utmos:{save_script(tmp_path / 'a.ts', Rater())}")
    long = np.concatenate([tone(35, 16_000), 2 * tone(35, 16_000)])
    assert judge.rate(long, 16_000)["mos_utmos"] == pytest.approx(expected(long), rel=1e-3)
    assert judge.rate(np.zeros(16_000, np.float32), 16_000) == {"mos_utmos": 3.0}
    with pytest.raises(AudioError, match=r"0\.050 s"):
        judge.rate(tone(0.05, 16_000), 16_000)
    with pytest.raises(AudioError, match="NaN"):
        judge.rate(np.full(16_000, math.nan, np.float32), 16_000)


def test_files_that_rate_nothing(tmp_path: Path) -> None:
    torch.save(Rater().state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ConfigError, match="no TorchScript file"):
        listeners.load_listener(f"utmos:{tmp_path / 'weights.pt'}")
    with pytest.raises(ConfigError, match="not one finite score"):
        listeners.load_listener(f"utmos:{save_script(tmp_path / 'wide.pt', Rater(wide=True))}")
    with pytest.raises(ConfigError, match="not one finite score"):
        listeners.load_listener(f"utmos:{save_script(tmp_path / 'nan.pt', Rater(0.0))}")
    with pytest.raises(ConfigError, match="rates nothing"):
        listeners.load_listener(f"utmos:{save_script(tmp_path / 'narrow.pt', nn.Linear(4, 1))}")
    (tmp_path / "weights.bin").touch()
    with pytest.raises(ConfigError, match=r"\.pt, \.jit, \.ts or \.onnx"):
        listeners.load_listener(f"utmos:{tmp_path / 'weights.bin'}")


def test_dnsmos_is_the_default(shared_data: Path) -> None:
    pytest.importorskip("speechmos")
    import soundfile

    waveform, rate = soundfile.read(sorted((shared_data / "ljspeech").rglob("*.wav"))[1], dtype="float32")
    judge, direct = listeners.load_listener(), mos.dnsmos(waveform, rate)
    found = judge.rate(waveform, rate)
    assert list(found) == [metric.name for metric in judge.metrics]
    assert list(found.values()) == [direct.overall, direct.p808, direct.signal, direct.background]
