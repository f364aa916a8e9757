"""A vocoder as one ONNX file, from mel to waveform, for programs without torch or FlowTTS."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowtts_core.audio.mel import MelConfig
from flowtts_core.audio.pitch import pitch_hz
from flowtts_core.config import to_dict
from flowtts_core.engines.flow_sounds import FLOWS
from flowtts_core.engines.real_spectra import RealSpectra
from flowtts_core.engines.runtime import OPSET, trace
from flowtts_core.errors import VoiceError
from flowtts_core.files import write_whole
from flowtts_core.nn.graph import Graph
from flowtts_core.vocoder import HiFiGAN, SourceFilter, Vocoder, Vocos
from flowtts_core.vocoder.denoiser import HOPS, hum_of
from flowtts_core.vocoder.files import LoadedVocoder
from flowtts_core.vocoder.source_filter import LARGEST, pulse_train


def sound_module(vocoder: Vocoder, who: str) -> nn.Module:
    """Return the module that makes the waveform [1, S] of a mel [1, M, T] by operations that ONNX has.

    Raises:
        VoiceError: for a vocoder that cannot be written so.
    """
    plain = copy.deepcopy(vocoder)
    plain.runners = {}  # what they give would be traced as a constant
    for kind, module in _MODULES.items():
        if isinstance(plain, kind):
            return module(plain)
    known = ", ".join(kind.__name__ for kind in _MODULES)
    raise VoiceError(
        f"{who}: its vocoder, {type(vocoder).__name__}, cannot be exported as one file",
        f"use one of {known}; or export a vocoder's folder to a folder, for FlowTTS alone",
    )


class _VocosSound(nn.Module):
    def __init__(self, vocoder: Vocos) -> None:
        super().__init__()
        self.vocoder, self.spectra = vocoder, RealSpectra(vocoder.features, vocoder.head.istft.trim)

    def forward(self, mel: Tensor) -> Tensor:
        vocoder = self.vocoder
        magnitude, phase = vocoder.head.out(vocoder.backbone(mel)).transpose(1, 2).chunk(2, 1)
        if vocoder.prior is not None:
            magnitude = magnitude + vocoder.prior(mel)
        magnitude = magnitude.exp().clamp(max=vocoder.head.max_magnitude)
        waveform: Tensor = self.spectra.waveform(magnitude * phase.cos(), magnitude * phase.sin())
        return waveform


class _SourceFilterSound(nn.Module):
    def __init__(self, vocoder: SourceFilter) -> None:
        super().__init__()
        self.vocoder, self.spectra = vocoder, RealSpectra(vocoder.features, vocoder.istft.trim)
        self.register_buffer("noise", torch.view_as_real(vocoder.noise).permute(2, 0, 1).contiguous())  # [2, F, N]
        self.noise: Tensor

    def forward(self, mel: Tensor) -> Tensor:
        vocoder, bins, free = self.vocoder, self.vocoder.filter.bins, self.vocoder.config.free_bins
        mel = vocoder.with_pitch(mel, None)
        shaped = vocoder.filter(mel).transpose(1, 2).clamp(max=LARGEST)
        harmonic, phase, noisy, level, angle = shaped.split([bins, bins, bins, free, free], 1)
        real, imaginary = self.spectra.spectrum(pulse_train(pitch_hz(mel[:, -1].double()), vocoder.features))
        size, cos, sin = harmonic.exp(), phase.cos(), phase.sin()
        frames = torch.arange(mel.shape[2]) % self.noise.shape[2]
        loud = noisy.exp()
        out_real = size * (real * cos - imaginary * sin) + loud * self.noise[0][:, frames]
        out_imaginary = size * (real * sin + imaginary * cos) + loud * self.noise[1][:, frames]
        rest, beside = level.exp(), (0, 0, 0, bins - free)
        waveform: Tensor = self.spectra.waveform(
            out_real + F.pad(rest * angle.cos(), beside), out_imaginary + F.pad(rest * angle.sin(), beside)
        )
        return waveform


class _HiFiGANSound(nn.Module):
    """The generator, and the denoiser where it is asked for, whose STFT has windows of four hops."""

    def __init__(self, vocoder: HiFiGAN) -> None:
        super().__init__()
        mel = vocoder.features
        self.generator, self.strength = vocoder.generator, vocoder.config.denoise
        self.behind = mel.hop_length if mel.padding == "center" else 0  # the last frame's samples lie behind the sound
        if self.strength:
            size = HOPS * mel.hop_length
            self.spectra = RealSpectra(
                MelConfig(mel.sample_rate, mel.hop_length, n_fft=size, win_length=size), size // 2
            )
            self.scale = float(torch.hann_window(size).sum()) / 2  # a cosine of amplitude 1 has the magnitude 1 here
            frames = vocoder.generator.context() + HOPS  # further ones do not reach what is measured
            with torch.no_grad():
                hum = hum_of(vocoder.generator(torch.zeros(1, mel.rows, frames)).float(), mel.hop_length)
            self.register_buffer("hum", hum[None, :, None] / self.scale)
            self.hum: Tensor

    def forward(self, mel: Tensor) -> Tensor:
        waveform: Tensor = self.generator(mel)
        waveform = waveform[:, : waveform.shape[1] - self.behind]
        if not self.strength:
            return waveform
        real, imaginary = self.spectra.centred(waveform)
        size = (real.square() + imaginary.square()).clamp(min=1e-24).sqrt()
        kept = self.scale * (size - self.strength * self.hum).clamp(min=0) / size
        return self.spectra.waveform(real * kept, imaginary * kept)


_MODULES: dict[type[Vocoder], Callable[[Any], nn.Module]] = {
    Vocos: _VocosSound,
    SourceFilter: _SourceFilterSound,
    HiFiGAN: _HiFiGANSound,
    **FLOWS,
}


def export_sound(loaded: LoadedVocoder, name: str) -> bytes:
    """Return the ONNX file of a vocoder: input `mel` float32 [1, M, T], output `waveform` float32 [1, S].

    Raises:
        VoiceError: for a vocoder that cannot be written so.
    """
    vocoder = loaded.vocoder
    graph = Graph(
        _Alone(sound_module(vocoder, name)),
        {"mel": torch.zeros(1, vocoder.features.rows, 64)},
        ("waveform",),
        {"mel": 2, "waveform": 1},
    )
    model = trace(graph, fold=True)
    for key, value in {
        "sample_rate": vocoder.features.sample_rate,
        "mel": json.dumps(to_dict(vocoder.features)),
    }.items():
        model.metadata_props.append(onnx.StringStringEntryProto(key=key, value=str(value)))
    data: bytes = model.SerializeToString()
    return data


class _Alone(nn.Module):
    def __init__(self, sound: nn.Module) -> None:
        super().__init__()
        self.sound = sound

    def forward(self, mel: Tensor) -> tuple[Tensor]:
        return (self.sound(mel),)


def write_sound(loaded: LoadedVocoder, path: Path) -> dict[str, Any]:
    """Write the ONNX file, and a page about it beside it (.md instead of .onnx); return what was written.

    Raises:
        VoiceError: for a vocoder that cannot be written so.
    """
    data, notes = export_sound(loaded, path.stem), path.with_suffix(".md")
    write_whole(path, data)
    write_whole(notes, _notes(loaded, path.name).encode())
    return {"file": str(path), "notes": str(notes), "megabytes": round(len(data) / 1e6, 1)}


def _notes(loaded: LoadedVocoder, name: str) -> str:
    mel = loaded.vocoder.features
    pitch = ", and a row of pitch" if mel.pitch else ""
    return f"""# {name}

A vocoder ({loaded.spec["name"]}) of FlowTTS as one ONNX file (opset {OPSET}), from log-mels to sound at {mel.sample_rate} Hz.

| | type | what |
|---|---|---|
| input `mel` | float32 [1, {mel.rows}, T] | {mel.n_mels} bands{pitch}; a frame every {mel.hop_length} samples |
| output `waveform` | float32 [1, S] | in about [-1, 1] |

The mel is: {mel.said}. All of its settings stand in the file's metadata, under `mel`.

```python
import numpy as np, onnxruntime, soundfile

session = onnxruntime.InferenceSession("{name}")
mel = np.full((1, {mel.rows}, 100), -5, np.float32)  # yours
[waveform] = session.run(None, {{"mel": mel}})
soundfile.write("out.wav", waveform[0], {mel.sample_rate})
```
"""
