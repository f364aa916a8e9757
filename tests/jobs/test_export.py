"""`flowtts export`: one ONNX file says what the voice says, and the page beside it has an example that runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from flowtts_core.engines.flow import FlowSynthesizer
from flowtts_core.request import SynthesisRequest
from jobs import cli
from tests.flowtts_core.test_runtime import saved

TEXT = "Good day."  # one window of frames


@pytest.mark.parametrize("name", ["vocos", "source filter, speakers"])
def test_the_file_says_what_the_voice_says(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    voice = saved(tmp_path / "amy", name, half=True)
    assert cli.main(["export", str(tmp_path / "amy"), "-o", str(tmp_path / "amy.onnx")]) == 0
    session = onnxruntime.InferenceSession(str(tmp_path / "amy.onnx"), providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_outputs()] == ["waveform", "durations"]
    encoded = voice.frontend.encode(TEXT)
    feeds: dict[str, Any] = {
        "tokens": np.array([encoded.tokens]),
        "speed": np.full(1, 1.25, np.float32),
        "temperature": np.zeros(1, np.float32),  # the noise is the file's own
    }
    speaker = None
    if voice.card.speakers:
        feeds["speaker"], speaker = np.array([1]), voice.card.speakers[1]
    waveform, durations = session.run(None, feeds)
    request = SynthesisRequest(text=TEXT, temperature=0.0, speed=1.25, speaker=speaker)
    [speech] = FlowSynthesizer(voice).synthesize([request])
    assert waveform.shape == (1, len(speech.waveform)) and durations.shape == (1, len(encoded.tokens))
    assert durations.sum() * voice.acoustic.features.hop_length == len(speech.waveform)
    np.testing.assert_allclose(waveform[0].clip(-1, 1), speech.waveform, atol=2e-3)

    page = (tmp_path / "amy.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    assert (tmp_path / "out.wav").stat().st_size > 1000


def test_what_cannot_be_exported_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", "heart", "-o", str(tmp_path / "heart.onnx")]) != 0
    assert "only flow voices" in capsys.readouterr().err
    assert cli.main(["export", "heart", "-o", str(tmp_path / "heart.bin")]) != 0
    assert "must end in .onnx" in capsys.readouterr().err
    saved(tmp_path / "published", "published", half=False)
    assert cli.main(["export", str(tmp_path / "published"), "-o", str(tmp_path / "x.onnx")]) != 0
    assert "acoustic model cannot be exported" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.onnx"))
