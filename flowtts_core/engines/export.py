"""A flow voice as one ONNX file, from tokens to the waveform, for programs without torch or FlowTTS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from flowtts_core.acoustic.matcha.model import MatchaTTS
from flowtts_core.acoustic.windows import STRIDE
from flowtts_core.engines.export_vocoder import sound_module
from flowtts_core.engines.runtime import OPSET, trace
from flowtts_core.errors import VoiceError
from flowtts_core.nn.graph import Graph
from flowtts_core.voice.parts import FlowVoice

_NOISE_FRAMES = 1024  # after which the flow's noise repeats


def export_voice(voice: FlowVoice) -> bytes:
    """Return the ONNX file of a voice.

    Inputs: `tokens` int64 [1, L]; `speed` float32 [1]; `temperature` float32 [1]; `speaker` int64 [1], of a voice with several.
    Outputs: `waveform` float32 [1, S] and `durations` float32 [1, L], frames of each token. The noise of the flow is part of
    the file, so that a text always sounds alike.

    Raises:
        VoiceError: for a voice whose parts cannot be written so.
    """
    acoustic, vocoder = voice.acoustic, voice.vocoder
    if not isinstance(acoustic, MatchaTTS) or acoustic.config.masking != "true" or acoustic.config.norm != "layer":
        raise VoiceError(f"voice {voice.card.name}: its acoustic model cannot be exported", "export a voice of our own")
    module = _Voice(voice, sound_module(vocoder, f"voice {voice.card.name}"))
    inputs: dict[str, Tensor] = {
        "tokens": torch.ones(1, 40, dtype=torch.int64),
        "speed": torch.ones(1),
        "temperature": torch.full((1,), voice.card.sampling.temperature),
    }
    if acoustic.n_speakers > 1:
        inputs["speaker"] = torch.zeros(1, dtype=torch.int64)
    growing = {"tokens": 1, "waveform": 1, "durations": 1}
    model = trace(Graph(module, inputs, ("waveform", "durations"), growing), fold=True)
    for key, value in {"sample_rate": voice.card.sample_rate, "licence": voice.card.licence}.items():
        model.metadata_props.append(onnx.StringStringEntryProto(key=key, value=str(value)))
    data: bytes = model.SerializeToString()
    return data


class _Voice(nn.Module):
    """Tokens to waveform, by operations that ONNX has alone."""

    def __init__(self, voice: FlowVoice, sound: nn.Module) -> None:
        super().__init__()
        assert isinstance(voice.acoustic, MatchaTTS)
        self.acoustic, self.sampling = voice.acoustic, voice.card.sampling
        self.decoder = voice.acoustic.graphs()["decoder"].module
        self.sound = sound
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(_NOISE_FRAMES, voice.acoustic.config.mel.rows, generator=generator)
        self.register_buffer("noise", noise)
        self.noise: Tensor

    def forward(
        self, tokens: Tensor, speed: Tensor, temperature: Tensor, speaker: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        model = self.acoustic
        vector = None if speaker is None else model.spk_emb(speaker)
        mean, log_durations = model.encoder.encode(tokens, vector, torch.ones_like(tokens).unsqueeze(2).float(), None)
        frames = (log_durations.exp() * 64).round() / 64  # as `MatchaDurations` lays an item out
        ends = frames.double().cumsum(1)[0] / (speed * self.sampling.speed)  # [L]
        count = ends[-1].clamp(min=1).long()
        padded: Any = (count + STRIDE - 1) // STRIDE * STRIDE  # a tensor, which is traced
        place = torch.arange(padded)  # of each frame
        valid = (place < count).float()[:, None]  # [T, 1]
        token = (place[:, None] >= ends[None]).sum(1).clamp(max=tokens.shape[1] - 1)
        durations = ((token[None] == torch.arange(tokens.shape[1])[:, None]) * valid[None, :, 0]).sum(1)[None]
        expanded, x = mean[:, token] * valid, self.noise[place % _NOISE_FRAMES][None] * temperature
        own = () if vector is None else (vector,)
        for step in range(self.sampling.steps):
            t = x.new_full((1,), step / self.sampling.steps)
            predicted = self.decoder(x, t, expanded, valid[None], *own)[0]
            velocity = predicted if model.config.predicts == "velocity" else (predicted - x) / (1 - t)
            x = x + velocity / self.sampling.steps
        mel = (x * model.mel_std + model.mel_mean)[:, :count].transpose(1, 2)
        return self.sound(mel), durations


def readme(voice: FlowVoice, name: str) -> str:
    """Return what a reader of the file must know: inputs, outputs, and an example that speaks a sentence."""
    card = voice.card
    text = "The rain has stopped."
    tokens = voice.frontend.encode(text).tokens
    temperature = f"np.full(1, {card.sampling.temperature}, np.float32)"
    several = '"speaker": np.array([0]), ' if card.speakers else ""
    speakers = (
        f"| `speaker` | int64 [1] | {', '.join(f'{i} {s}' for i, s in enumerate(card.speakers))} |\n"
        if card.speakers
        else ""
    )
    return f"""# {name}

The voice {card.name} of FlowTTS as one ONNX file (opset {OPSET}), from tokens to sound at {card.sample_rate} Hz.
Licence: {card.licence or "not stated"}. Source: {card.source or "not stated"}.

| input | type | what |
|---|---|---|
| `tokens` | int64 [1, L] | of the front end, `{card.parts["frontend"]["name"]}` in voice.json |
| `speed` | float32 [1] | 1 is the voice's own pace, 2 twice as fast |
| `temperature` | float32 [1] | of the flow's noise; {card.sampling.temperature} is the voice's own |
{speakers}
| output | type | what |
|---|---|---|
| `waveform` | float32 [1, S] | in about [-1, 1] |
| `durations` | float32 [1, L] | frames of each token, of {voice.acoustic.features.hop_length} samples |

Tokens of other texts come from Python: `flowtts_core.voice.open_voice(VOICE).frontend.encode(text).tokens`. Give one sentence
at a time.

```python
import numpy as np, onnxruntime, soundfile

session = onnxruntime.InferenceSession("{name}")
tokens = {list(tokens)}  # {text}
feeds = {{"tokens": np.array([tokens]), {several}"speed": np.ones(1, np.float32), "temperature": {temperature}}}
waveform, durations = session.run(None, feeds)
soundfile.write("out.wav", waveform[0], {card.sample_rate})
```
"""


def write_export(voice: FlowVoice, path: Path) -> dict[str, Any]:
    """Write the file, and `README.md` beside it under its name; returns what was written."""
    from flowtts_core.files import write_whole

    data = export_voice(voice)
    write_whole(path, data)
    notes = path.with_suffix(".md")
    write_whole(notes, readme(voice, path.name).encode())
    return {"file": str(path), "notes": str(notes), "megabytes": round(len(data) / 1e6, 1)}
