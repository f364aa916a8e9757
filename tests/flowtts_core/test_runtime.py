"""Graphs of a voice's networks: what ONNX Runtime makes of them is what torch makes, and they hold no weights of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from flowtts_core.acoustic import ACOUSTIC_MODELS, Condition, MatchaConfig
from flowtts_core.audio.mel import MelConfig
from flowtts_core.config import build, spec_of
from flowtts_core.engines.int8 import quantize
from flowtts_core.engines.runtime import export_graph, open_runners
from flowtts_core.errors import VoiceError
from flowtts_core.sampling import Sampling
from flowtts_core.text.frontends import PhonemeConfig
from flowtts_core.vocoder import VOCODERS, HiFiGANConfig, RFWaveConfig, SourceFilterConfig, VocosConfig
from flowtts_core.voice.parts import FlowVoice, load_parts, save_voice
from tests.voices import lengthen, make_voice

PITCHED = MelConfig(24000, hop_length=300, n_fft=1200, win_length=1200, pitch=True)
SIZES = {"dim": 32, "intermediate_dim": 64, "num_layers": 2}
VOICES: dict[str, tuple[MatchaConfig, str, Any]] = {
    "vocos": (MatchaConfig.debug(), "vocos", VocosConfig(**SIZES)),
    "source filter, speakers": (
        replace(MatchaConfig.debug(), mel=PITCHED, n_speakers=3, speaker_channels=8, predicts="data"),
        "source_filter",
        SourceFilterConfig(PITCHED, free_bins=100, **SIZES),
    ),
    "published": (
        replace(MatchaConfig.debug(), masking="published", norm="group", activation="mish", feed_forward="snakebeta"),
        "vocos",
        VocosConfig(mel_prior=True, **SIZES),
    ),
    "hifigan": (MatchaConfig.debug(), "hifigan", HiFiGANConfig(upsample_initial_channel=16, denoise=0.01)),
    "rfwave": (
        MatchaConfig.debug(),
        "rfwave",
        RFWaveConfig(MelConfig(), bands=4, steps=2, fourier=False, frame_norm=True, **SIZES),
    ),
    "group norms": (replace(MatchaConfig.debug(), norm="group"), "vocos", VocosConfig(**SIZES)),
}


def saved(folder: Path, name: str, half: bool) -> FlowVoice:
    torch.manual_seed(0)
    config, vocoder_name, vocoder_config = VOICES[name]
    config = replace(config, n_symbols=178)
    acoustic = build(ACOUSTIC_MODELS, spec_of("matcha", config)).eval()
    lengthen(acoustic)
    vocoder_spec = spec_of(vocoder_name, vocoder_config)
    save_voice(
        folder,
        name="amy",
        acoustic=acoustic,
        acoustic_spec=spec_of("matcha", config),
        vocoder=build(VOCODERS, vocoder_spec).eval(),
        vocoder_spec=vocoder_spec,
        frontend=spec_of("phonemes", PhonemeConfig()),
        speakers=("a", "b", "c")[: config.n_speakers] if config.n_speakers > 1 else (),
        half=half,
    )
    return load_parts(folder)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", VOICES)
def test_graphs_give_what_torch_gives(tmp_path: Path, name: str, half: bool) -> None:
    voice = saved(tmp_path, name, half)
    acoustic, vocoder = voice.acoustic, voice.vocoder
    assert set(acoustic.runners) == ({"encoder"} if name == "group norms" else {"encoder", "decoder"})
    assert len(vocoder.runners) == 1
    for count in (5, 42):  # lengths that the export did not see; the longer one needs several windows
        tokens = torch.randint(1, 178, (1, count), generator=torch.Generator().manual_seed(count))
        speakers = torch.tensor([2]) if acoustic.n_speakers > 1 else None
        condition = Condition(tokens, torch.tensor([count]), speakers)
        features = acoustic.generate(condition, [7], Sampling(steps=3)).features
        with torch.inference_mode():
            sound = vocoder(features)
            twin = load_parts(tmp_path)
            twin.acoustic.runners = twin.vocoder.runners = {}
            torchs = twin.acoustic.generate(condition, [7], Sampling(steps=3)).features
            torch.testing.assert_close(features, torchs, atol=1e-4, rtol=1e-4)
            # of the same features: phases add up differences of the pitch
            torch.testing.assert_close(sound, twin.vocoder(features), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["diffusion", "wavefm"])
def test_graphs_of_vocoders_that_are_asked_several_times(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config_type, vocoder_type = VOCODERS[name]
    sizes = {"channels": (16, 8, 4), "upsample_rates": (16, 16), "kernel_sizes": (3,), "dilations": (1,)}
    vocoder = vocoder_type(config_type(steps=3, **sizes)).eval()
    data = save(vocoder.state_dict())
    (tmp_path / "vocoder.safetensors").write_bytes(data)
    [(graph_name, graph)] = vocoder.graphs().items()
    (tmp_path / "graph.onnx").write_bytes(export_graph(graph, "vocoder.safetensors", data))
    assert b"vocoder.safetensors" in (tmp_path / "graph.onnx").read_bytes()
    runners = open_runners(tmp_path, {graph_name: "graph.onnx"})
    for frames in (3, 21):  # lengths that the export did not see
        mel = torch.randn(2, 100, frames) - 4
        with torch.inference_mode():
            vocoder.runners = {}
            expected, padded = vocoder(mel), vocoder(mel, torch.tensor([frames, frames - 1]))
            vocoder.runners = runners
            torch.testing.assert_close(vocoder(mel), expected, atol=1e-4, rtol=0)
            assert torch.equal(vocoder(mel, torch.tensor([frames, frames - 1])), padded)  # which torch computes


def test_a_loaded_voice_can_be_saved_again(tmp_path: Path) -> None:
    voice = load_parts(make_voice(tmp_path / "amy"))
    card = save_voice(
        tmp_path / "twin",
        name="twin",
        acoustic=voice.acoustic,
        acoustic_spec=voice.card.parts["acoustic"],
        vocoder=voice.vocoder,
        vocoder_spec=voice.card.parts["vocoder"],
        frontend=voice.card.parts["frontend"],
    )
    assert card.name == "twin" and card.sha256 == voice.card.sha256


def test_a_graph_points_at_the_weights_beside_it(tmp_path: Path) -> None:
    make_voice(tmp_path)
    weights = (tmp_path / "acoustic.safetensors").stat().st_size
    assert (tmp_path / "acoustic-decoder.onnx").stat().st_size < weights
    assert b"acoustic.safetensors" in (tmp_path / "acoustic-decoder.onnx").read_bytes()


@pytest.mark.parametrize("harm", ["changed", "lost"])
def test_a_damaged_graph_is_refused(tmp_path: Path, harm: str) -> None:
    graph = make_voice(tmp_path) / "acoustic-encoder.onnx"
    if harm == "lost":
        graph.unlink()
    else:
        graph.write_bytes(graph.read_bytes() + b"\0")
    with pytest.raises(VoiceError, match=r"acoustic-encoder\.onnx: (missing|is not the file)"):
        load_parts(tmp_path)


def test_int8_graphs_sound_alike(tmp_path: Path) -> None:
    voice = saved(tmp_path, "source filter, speakers", half=False)
    frames = torch.randn(1, 64, PITCHED.rows)
    fed = (frames, torch.zeros(1), frames.flip(1), torch.ones(1, 64, 1), torch.randn(1, 8))
    whole = voice.acoustic.runners["decoder"](*fed)[0]
    card = quantize(tmp_path, ["The rain has stopped.", "She put the kettle on, and waited."])
    assert card.fingerprint != voice.card.fingerprint and card.sha256.keys() == voice.card.sha256.keys()
    ours = load_parts(tmp_path)
    error = (ours.acoustic.runners["decoder"](*fed)[0] - whole).abs().mean() / whole.abs().mean()
    assert 1e-6 < error < 0.1
    with torch.inference_mode():  # a window of the vocoder's is what the whole is: scales are fixed
        features, beside = torch.randn(1, PITCHED.rows, 200), ours.vocoder.context_frames
        sound = ours.vocoder(features)
        part = ours.vocoder(features[:, :, 60:], start=ours.vocoder.start_at(features[0], 60)[None])
    hop = PITCHED.hop_length
    torch.testing.assert_close(part[:, beside * hop :], sound[:, (60 + beside) * hop :], atol=1e-4, rtol=0)
