"""`flowtts train --recipe vocoder`: a vocoder goes on from one that is there, on a voice's mels or on recordings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flowtts_core.audio.mel import VOCOS_24K
from flowtts_core.config import build, spec_of
from flowtts_core.errors import ConfigError, TextError
from flowtts_core.training.files import LocalFiles
from flowtts_core.vocoder import VOCODERS, Vocos, VocosConfig
from flowtts_core.vocoder.files import load_vocoder, save_vocoder
from flowtts_core.vocoder.hifigan import HIFIGAN_V3
from flowtts_core.voice.parts import load_parts
from jobs import cli
from jobs.training.recipes import recipe
from jobs.training.run import open_run, train_rank, write_result
from tests.speech_like import write_examples
from tests.voices import make_voice


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_examples(tmp_path_factory.mktemp("data"), [40 + 7 * (i * 5 % 11) for i in range(12)])


def trained(data: Path, out: Path, **settings: object) -> Path:
    this = open_run(out.with_name("runs"), data, recipe("vocoder_debug", {"trainer.steps": 2, **settings}))
    train_rank(this)
    write_result(this, out)
    return out


def narrow_hifigan(folder: Path) -> Path:
    config = replace(
        HIFIGAN_V3, upsample_initial_channel=16, resblock_kernel_sizes=(3,), resblock_dilation_sizes=((1, 2),)
    )
    spec = spec_of("hifigan", config)
    torch.manual_seed(1)
    save_vocoder(folder, build(VOCODERS, spec), spec)
    return folder


def test_a_voices_vocoder_goes_on_with_the_mels_of_the_voice(data: Path, tmp_path: Path) -> None:
    pair = make_voice(tmp_path / "pair", n_speakers=2)
    chosen = recipe("vocoder_debug", {"voice": str(pair), "speaker": "speaker-1"}).fit(LocalFiles(data))
    task, batches = chosen.task(data)
    voice = load_parts(pair)
    for name, weight in task.modules["vocoder"].state_dict().items():
        assert torch.equal(weight, voice.vocoder.state_dict()[name]), "it begins as the voice's"
    recordings = recipe("vocoder_debug", {"start": str(pair)}).fit(LocalFiles(data)).task(data)[1]
    assert torch.equal(batches.at(3).waveform, recordings.at(3).waveform)
    assert not torch.equal(batches.at(3).mel, recordings.at(3).mel), "the mels are those of the acoustic model"

    out = trained(data, tmp_path / "out", voice=str(pair), speaker="speaker-1")
    loaded = load_vocoder(out)
    assert loaded.spec == dict(voice.card.parts["vocoder"])
    assert any(
        not torch.equal(a, b) for a, b in zip(loaded.vocoder.parameters(), voice.vocoder.parameters(), strict=True)
    )
    assert f"on the mels of {pair}" in (out / "vocoder.json").read_text(encoding="utf-8")


def test_another_vocoder_learns_the_mels_of_a_voice(data: Path, tmp_path: Path) -> None:
    pair, begun = make_voice(tmp_path / "pair"), narrow_hifigan(tmp_path / "hifigan")
    out = trained(data, tmp_path / "out", voice=str(pair), start=str(begun))
    before, after = load_vocoder(begun), load_vocoder(out)
    assert after.spec == before.spec and after.vocoder.state_dict().keys() == before.vocoder.state_dict().keys()


def test_a_vocoder_goes_on_with_recordings(data: Path, tmp_path: Path) -> None:
    begun = narrow_hifigan(tmp_path / "hifigan")
    task, batches = recipe("vocoder_debug", {"start": str(begun)}).fit(LocalFiles(data)).task(data)
    mel = batches.at(0).mel
    with torch.inference_mode():
        torch.testing.assert_close(task.modules["vocoder"](mel), load_vocoder(begun).vocoder(mel), atol=1e-5, rtol=0)
    noisy = recipe("vocoder_debug", {"start": str(begun), "augmentation.noise_db": "[10, 40]"})
    assert noisy.fit(LocalFiles(data)).task(data)[1].augmentation is not None
    with pytest.raises(ConfigError, match="not of the recordings"):
        replace(noisy, voice="natural")


def test_what_does_not_go_together_is_told_before_anything_is_trained(data: Path, tmp_path: Path) -> None:
    files = LocalFiles(data)
    with pytest.raises(ConfigError, match="which vocoder is to go on"):
        recipe("vocoder_debug").fit(files)
    with pytest.raises(ConfigError, match="nothing to learn"):
        recipe("vocoder_debug", {"start": "griffin_lim"}).fit(files)
    with pytest.raises(ConfigError, match="natural is of 24000 Hz"):
        recipe("vocoder_debug", {"voice": "natural"}).fit(files)
    config = VocosConfig(replace(VOCOS_24K, sample_rate=22050), dim=8, intermediate_dim=8, num_layers=1)
    save_vocoder(tmp_path / "other", Vocos(config), spec_of("vocos", config))
    with pytest.raises(TextError, match="no mel of this configuration"):
        recipe("vocoder_debug", {"start": str(tmp_path / "other")}).fit(files)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--recipe", "vocoder"], "which vocoder is to go on"),
        (["--mels-of", "natural"], "--mels-of goes with --recipe vocoder"),
        (["--recipe", "tuning", "--mels-of", "natural"], "--mels-of goes with --recipe vocoder"),
        (["--recipe", "vocoder", "--from", "griffin_lim", "--speaker", "jo"], "--speaker goes with --from a voice"),
        (["--recipe", "vocos", "--vocoder", "natural"], "--recipe vocos makes one"),
        (["--recipe", "tiny", "--mels-of", "natural"], "--mels-of changes nothing here"),
    ],
)
def test_options_that_do_not_belong_together(
    data: Path, tmp_path: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = [] if "tiny" in words else [str(data)]
    assert cli.main(["train", *place, "-o", str(tmp_path / "out"), *words]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "off", "on"),
    [
        ("wavefm_debug", {"model.shaped": False}, {"model.shaped": True}),
        ("rfwave_debug", {"model.wave": False, "model.flat": False}, {"model.flat": True, "model.wave": False}),
    ],
)
def test_a_flow_of_other_noise_is_another_run(
    name: str, off: dict[str, bool], on: dict[str, bool], data: Path, tmp_path: Path
) -> None:
    def folder(settings: dict[str, bool]) -> str:
        return open_run(tmp_path, data, recipe(name, settings)).folder

    without = {key: value for key, value in off.items() if key == "model.wave"}
    assert folder(off) == folder(without), "runs from before the option go on"
    assert folder(on) != folder(off), "and those with another value are not mixed"
