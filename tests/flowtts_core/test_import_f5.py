"""F5-TTS checkpoints as they are published and as trainings write them: weights by name, and clear refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from flowtts_core.acoustic import F5TTS, F5Config
from flowtts_core.acoustic.f5.importer import import_f5
from flowtts_core.audio.mel import BIGVGAN_24K, F5_24K
from flowtts_core.errors import VoiceError
from flowtts_core.request import SynthesisRequest
from flowtts_core.voice import load_card, open_voice
from jobs.cli import main
from tests.speech_like import babble_clip

SYMBOLS = [" ", *map(chr, range(33, 127)), "é", "ni3", "hao3"]
SIZES: dict[str, Any] = {"dim": 32, "depth": 2, "heads": 2, "head_channels": 16, "text_dim": 16, "conv_layers": 2}


def published(**fields: Any) -> dict[str, Tensor]:
    """A state dict with the published names, of random weights."""
    torch.manual_seed(0)
    model = F5TTS(F5Config(**{"n_symbols": len(SYMBOLS) + 1, **SIZES, **fields}))
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    return dict(model.state_dict())


def averaged(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """As the running mean is kept, with what stands beside it and what old checkpoints have."""
    mean = {f"ema_model.{name}": tensor for name, tensor in weights.items()}
    counters = {"initted": torch.tensor(True), "step": torch.tensor(1250000)}
    return {**mean, **counters, "ema_model.mel_spec.mel_stft.spectrogram.window": torch.ones(4)}


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    path = tmp_path / "vocab.txt"
    path.write_text("".join(f"{symbol}\n" for symbol in SYMBOLS), encoding="utf-8")
    return path


def test_every_form_of_a_checkpoint_gives_the_same_weights(tmp_path: Path, vocabulary: Path) -> None:
    weights = published()
    bare = {name.removeprefix("transformer."): tensor for name, tensor in weights.items()}
    other = {name: tensor + 1 for name, tensor in weights.items()}
    save_file(averaged(weights), tmp_path / "ema.safetensors")
    save_file(weights, tmp_path / "plain.safetensors")
    save_file(bare, tmp_path / "bare.safetensors")
    training = {
        "model_state_dict": other,
        "ema_model_state_dict": averaged(weights),
        "optimizer_state_dict": {},
        "update": 3,
    }
    torch.save(training, tmp_path / "model_last.pt")
    without = {name: tensor for name, tensor in weights.items() if not name.endswith("inv_freq")}
    save_file({name: tensor.half() for name, tensor in without.items()}, tmp_path / "half.safetensors")
    for name in ("ema.safetensors", "plain.safetensors", "bare.safetensors", "model_last.pt"):
        imported = import_f5(tmp_path / name, vocabulary)
        assert imported.state_dict.keys() == weights.keys()
        assert all(torch.equal(imported.state_dict[key], tensor) for key, tensor in weights.items())
        assert all(getattr(imported.config, field) == value for field, value in SIZES.items())
        assert imported.config.between == (1,) and imported.config.mel == F5_24K
        assert imported.config.token_bytes is not None and imported.config.token_bytes[-1] == 2
    with pytest.raises(VoiceError, match="divide|of another shape"):  # 64 channels a head are assumed then
        import_f5(tmp_path / "half.safetensors", vocabulary)


@pytest.mark.parametrize(
    "fields",
    [{"qk_norm": True}, {"long_skip": True}, {"ff_mult": 4}, {"conv_layers": 0}, {"depth": 3, "heads": 4}],
)
def test_variants_are_found_in_the_tensors(tmp_path: Path, vocabulary: Path, fields: dict[str, Any]) -> None:
    save_file(published(**fields), tmp_path / "x.safetensors")
    config = import_f5(tmp_path / "x.safetensors", vocabulary).config
    assert all(getattr(config, name) == value for name, value in fields.items())


def test_frequencies_need_not_be_in_the_file(tmp_path: Path, vocabulary: Path) -> None:
    weights = published(dim=64, heads=1, head_channels=64)
    frequencies = weights.pop("transformer.rotary_embed.inv_freq")
    save_file({name: tensor.half() for name, tensor in weights.items()}, tmp_path / "x.safetensors")
    imported = import_f5(tmp_path / "x.safetensors", vocabulary)
    assert torch.equal(imported.state_dict["transformer.rotary_embed.inv_freq"], frequencies)
    assert all(tensor.dtype == torch.float32 for tensor in imported.model().state_dict().values())


def test_what_tensors_do_not_show_is_asked_for(tmp_path: Path, vocabulary: Path) -> None:
    save_file(published(), tmp_path / "x.safetensors")
    path = tmp_path / "x.safetensors"
    first = import_f5(path, vocabulary, generation="v0", mel=BIGVGAN_24K).config
    assert (first.text_mask_padding, first.rotated_heads, first.mel) == (False, 1, BIGVGAN_24K)
    assert import_f5(path, vocabulary, average_upsampling=True).config.average_upsampling
    with pytest.raises(VoiceError, match="v1, v0"):
        import_f5(path, vocabulary, generation="v2")


def test_a_model_of_bytes_needs_no_vocabulary(tmp_path: Path) -> None:
    save_file(published(n_symbols=257), tmp_path / "x.safetensors")
    imported = import_f5(tmp_path / "x.safetensors")
    assert imported.frontend["name"] == "bytes" and imported.config.between == (33,)
    save_file(published(), tmp_path / "y.safetensors")
    with pytest.raises(VoiceError, match="no vocabulary names them"):
        import_f5(tmp_path / "y.safetensors")


def test_what_does_not_fit_is_named(tmp_path: Path, vocabulary: Path) -> None:
    weights, path = published(), tmp_path / "x.safetensors"
    block = "transformer.transformer_blocks.1.attn.to_v.weight"

    def refused(tensors: dict[str, Tensor], message: str) -> None:
        save_file(tensors, path)
        with pytest.raises(VoiceError, match=message):
            import_f5(path, vocabulary)

    refused(
        {name: t for name, t in weights.items() if name != block},
        r"missing 1 \(transformer_blocks|missing 1 \(transformer",
    )
    refused({**weights, "transformer.extra.weight": torch.ones(2)}, r"unknown 1 \(transformer\.extra\.weight\)")
    refused({**weights, block: torch.ones(3, 32)}, r"to_v\.weight: \(3, 32\), not \(32, 32\)")
    refused({**weights, block: weights[block] * float("nan")}, "not finite")
    refused({"transformer.layers.0.weight": torch.ones(2)}, "has no tensor 'transformer.proj_out.weight'")
    refused({**weights, "transformer.proj_out.weight": torch.ones(3)}, "no F5-TTS model")
    refused({**weights, "transformer.proj_out.weight": torch.ones(80, 32)}, "80 mel bands, not 100")
    (tmp_path / "junk.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(VoiceError, match=r"junk\.pt"):
        import_f5(tmp_path / "junk.pt", vocabulary)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b" \na\n", "has 2 symbols, and the checkpoint reads 98"),
        (b"a\n \n", "begin with 'a', not the blank"),
        (b" \na\na\n", "'a' stands there twice"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_a_vocabulary_that_is_not_the_models_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    save_file(published(), tmp_path / "x.safetensors")
    (tmp_path / "vocab.txt").write_bytes(content)
    with pytest.raises(VoiceError, match=message):
        import_f5(tmp_path / "x.safetensors", tmp_path / "vocab.txt")


def test_an_imported_voice_speaks_after_a_prompt(
    tmp_path: Path, vocabulary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file(averaged(published()), tmp_path / "model.safetensors")
    voice, prompt = tmp_path / "voice", tmp_path / "ref.wav"
    prompt.write_bytes(babble_clip().audio)
    files = [str(tmp_path / "model.safetensors"), str(vocabulary)]
    assert main(["import", "f5", *files, "-o", str(voice), "--licence", "CC0-1.0", "--steps", "2"]) == 0
    told = capsys.readouterr().out
    assert "--clone ref.wav" in told and "--generation v0" in told and "letters as they are" in told
    card = load_card(voice)
    assert card.prompt == "required" and card.languages == ("en-us", "zh") and card.word_times == "none"
    assert card.parts["vocoder"]["name"] == "source_filter"  # the bundled one, which reads quieter mels too
    assert card.sampling.guidance == 2.0 and card.sampling.grid == {"name": "pruned", "s": -1.0}
    say = ["say", "I have 2 ☃ dogs.", "--voice", str(voice), "-o", str(tmp_path / "out.wav")]
    assert main([*say, "--prompt", str(prompt), "--prompt-text", "One two."]) == 0
    assert (tmp_path / "out.wav").stat().st_size > 1000
    assert main(say) != 0
    assert "give a prompt" in capsys.readouterr().err


def test_a_batch_of_an_imported_voice_has_the_sound_of_its_singles(tmp_path: Path, vocabulary: Path) -> None:
    save_file(published(), tmp_path / "model.safetensors")
    assert (
        main(
            ["import", "f5", str(tmp_path / "model.safetensors"), str(vocabulary), "-o", str(tmp_path / "v"), "--json"]
        )
        == 0
    )
    engine = open_voice(tmp_path / "v")
    texts = ["Good evening.", "A rather long sentence, which goes on and on, and then ends.", "Yes."]
    clip = babble_clip()
    requests = [
        SynthesisRequest(text=t, seed=i, steps=2, prompt=clip, prompt_text="One two.") for i, t in enumerate(texts)
    ]
    for request, together in zip(requests, engine.synthesize(requests), strict=True):
        [alone] = engine.synthesize([request])
        np.testing.assert_allclose(together.waveform, alone.waveform, atol=1e-4)  # type: ignore[union-attr]
        assert len(alone.waveform) > 1000  # type: ignore[union-attr]
    [told] = engine.synthesize([SynthesisRequest(text="Snow ∮ man.", steps=1, prompt=clip, prompt_text="One two.")])
    assert told.dropped == ("∮",)  # type: ignore[union-attr]
    assert json.loads((tmp_path / "v" / "voice.json").read_text())["prompt"] == "required"
