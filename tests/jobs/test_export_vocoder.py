"""`flowtts export` of vocoders: the file and the folder make what torch makes, with each kind of vocoder."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from flowtts_core.audio.mel import VOCOS_24K, MelConfig
from flowtts_core.config import build, spec_of
from flowtts_core.engines.vocoder_graphs import open_vocoder
from flowtts_core.errors import VoiceError
from flowtts_core.vocoder import (
    VOCODERS,
    BandSplit,
    BandSplitConfig,
    DiffusionConfig,
    HiFiGANConfig,
    RFWave,
    RFWaveConfig,
    SourceFilterConfig,
    Vocoder,
    VocosConfig,
    WaveFMConfig,
)
from flowtts_core.vocoder.files import save_vocoder
from jobs import cli
from tests.flowtts_core.test_runtime import saved

SMALL: dict[str, Any] = {"dim": 16, "intermediate_dim": 32, "num_layers": 2}
UNET: dict[str, Any] = {
    "channels": (8, 8, 4),
    "upsample_rates": (16, 16),
    "kernel_sizes": (3,),
    "dilations": (1,),
    "down_dilations": (1,),
    "time_channels": 8,
}
FLOW: dict[str, Any] = {**SMALL, "num_layers": 1}
HEAD: dict[str, Any] = {"head_dim": 16, "head_intermediate_dim": 32, "head_layers": 2}
SPECS = {
    "vocos": spec_of("vocos", VocosConfig(VOCOS_24K, mel_prior=True, **SMALL)),
    "source_filter": spec_of("source_filter", SourceFilterConfig(MelConfig(pitch=True), free_bins=64, **SMALL)),
    "hifigan": spec_of("hifigan", HiFiGANConfig(upsample_initial_channel=16, denoise=0.01)),
    "wavefm": spec_of("wavefm", WaveFMConfig(**UNET, steps=2)),
    "wavefm, shaped": spec_of("wavefm", WaveFMConfig(VOCOS_24K, **UNET, steps=2, shaped=True)),
    "diffusion": spec_of("diffusion", DiffusionConfig(MelConfig(padding="center"), **UNET, steps=3)),
    "rfwave": spec_of("rfwave", RFWaveConfig(**FLOW, bands=4, steps=2, guidance=1.5)),
    "rfwave, flat": spec_of(
        "rfwave", RFWaveConfig(MelConfig(), **FLOW, steps=1, frame_norm=True, wave=False, flat=True, solver="midpoint")
    ),
    "band_split": spec_of("band_split", BandSplitConfig(**FLOW, **HEAD, steps=(3, 2))),
}
LONG = {"rfwave", "band_split"}  # 5 seconds and more: their graphs are exported step by step


def made(folder: Path, name: str) -> Vocoder:
    torch.manual_seed(0)
    vocoder: Vocoder = build(VOCODERS, SPECS[name]).eval()
    if isinstance(vocoder, RFWave | BandSplit):
        vocoder.equaliser.variance.fill_(0.01)  # sound is not as loud as noise of variance 1
    save_vocoder(folder, vocoder, SPECS[name], licence="CC0-1.0")
    return vocoder


def mel_of(vocoder: Vocoder, frames: int = 91) -> torch.Tensor:
    """A mel of a length that the export did not see."""
    return torch.randn(1, vocoder.features.rows, frames, generator=torch.Generator().manual_seed(3)) - 4


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in SPECS])
def test_one_file_makes_what_torch_makes(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vocoder = made(tmp_path / "own", name)
    assert cli.main(["export", str(tmp_path / "own"), "-o", str(tmp_path / "x.onnx")]) == 0
    session = onnxruntime.InferenceSession(str(tmp_path / "x.onnx"), providers=["CPUExecutionProvider"])
    mel = mel_of(vocoder)
    [waveform] = session.run(None, {"mel": mel.numpy()})
    with torch.inference_mode():
        np.testing.assert_allclose(waveform, vocoder(mel).numpy(), atol=1e-4)
    stated = json.loads(session.get_modelmeta().custom_metadata_map["mel"])
    assert MelConfig(**stated) == vocoder.features

    page = (tmp_path / "x.md").read_text(encoding="utf-8")
    assert vocoder.features.said in page
    [example] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    assert (tmp_path / "out.wav").stat().st_size > 1000


@pytest.mark.parametrize(
    "name",
    ["vocos", "hifigan", *(pytest.param(n, marks=pytest.mark.slow) for n in ("source_filter", "rfwave", "band_split"))],
)
def test_a_folder_runs_by_onnx_runtime_and_makes_what_torch_makes(tmp_path: Path, name: str) -> None:
    vocoder = made(tmp_path / "own", name)
    line = ["export", str(tmp_path / "own"), "-o", str(tmp_path / "fast")]
    assert cli.main(line) == 0
    card = json.loads((tmp_path / "fast/vocoder.json").read_text(encoding="utf-8"))
    assert card["licence"] == "CC0-1.0"
    opened = open_vocoder(str(tmp_path / "fast"), MelConfig()).vocoder
    assert opened.runners.keys() == vocoder.graphs().keys() and not vocoder.runners
    mel = mel_of(vocoder)
    with torch.inference_mode():
        torch.testing.assert_close(opened(mel), vocoder(mel), atol=1e-4, rtol=0)
    assert cli.main(line) == 1, "a vocoder is not replaced"
    (tmp_path / "fast" / next(iter(card["graphs"].values()))["file"]).write_bytes(b"other")
    with pytest.raises(VoiceError, match="is not the file that"):
        open_vocoder(str(tmp_path / "fast"), MelConfig())


@pytest.mark.slow
def test_a_voice_with_hifigan_is_exported_too(tmp_path: Path) -> None:
    voice = saved(tmp_path / "amy", "hifigan", half=False)
    assert cli.main(["export", str(tmp_path / "amy"), "-o", str(tmp_path / "amy.onnx")]) == 0
    session = onnxruntime.InferenceSession(str(tmp_path / "amy.onnx"), providers=["CPUExecutionProvider"])
    tokens = np.array([voice.frontend.encode("Good day.").tokens])
    feeds = {"tokens": tokens, "speed": np.ones(1, np.float32), "temperature": np.zeros(1, np.float32)}
    waveform, durations = session.run(None, feeds)
    assert waveform.shape[1] == durations.sum() * voice.acoustic.features.hop_length


def test_a_vocoder_without_parts_for_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec: dict[str, Any] = {"name": "griffin_lim"}
    save_vocoder(tmp_path / "own", build(VOCODERS, spec), spec)
    assert cli.main(["export", str(tmp_path / "own"), "-o", str(tmp_path / "x.onnx")]) == 1
    assert "GriffinLim, cannot be exported as one file" in capsys.readouterr().err
    assert cli.main(["export", str(tmp_path / "own"), "-o", str(tmp_path / "fast")]) == 1
    assert "no graphs for ONNX Runtime" in capsys.readouterr().err
