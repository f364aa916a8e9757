"""A voice folder: what is saved is what is loaded, and each kind of damage is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from flowtts_core.acoustic import MatchaConfig, MatchaTTS
from flowtts_core.audio.mel import VOCOS_24K, MelConfig
from flowtts_core.config import spec_of
from flowtts_core.errors import VoiceError
from flowtts_core.text.frontend import FrontendConfig
from flowtts_core.vocoder import GriffinLim, GriffinLimConfig, Vocos, VocosConfig
from flowtts_core.voice import load_voice, save_voice
from flowtts_core.voice_card import load_card
from tests.voices import make_voice


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_voice(tmp_path / "amy")


def test_round_trip(folder: Path, tmp_path: Path) -> None:
    voice = load_voice(folder)
    again = make_voice(tmp_path / "amy2")
    for key, value in load_voice(again).acoustic.state_dict().items():
        assert torch.equal(voice.acoustic.state_dict()[key], value)
    assert load_card(again).fingerprint == voice.card.fingerprint  # the name is no part of it
    assert load_card(make_voice(tmp_path / "bob", seed=1)).fingerprint != voice.card.fingerprint


def test_vocoder_without_weights(tmp_path: Path) -> None:
    acoustic, vocoder = MatchaTTS(MatchaConfig.debug()), GriffinLim(GriffinLimConfig())
    save_voice(
        tmp_path / "v",
        name="v",
        acoustic=acoustic,
        acoustic_spec=spec_of("matcha", MatchaConfig.debug()),
        vocoder=vocoder,
        vocoder_spec=spec_of("griffin_lim", GriffinLimConfig()),
        frontend=FrontendConfig(),
        half=True,
    )
    assert isinstance(load_voice(tmp_path / "v").vocoder, GriffinLim)
    assert next(load_voice(tmp_path / "v").acoustic.parameters()).dtype == torch.float32


def damage_truncate(folder: Path) -> None:
    path = folder / "vocoder.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def damage_alter(folder: Path) -> None:
    path = folder / "acoustic.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def damage_remove(folder: Path) -> None:
    (folder / "acoustic.safetensors").unlink()


def damage_card(folder: Path) -> None:
    (folder / "voice.json").write_text("{")


def damage_spec(folder: Path) -> None:
    card = json.loads((folder / "voice.json").read_text())
    card["acoustic"]["encoder_channels"] = 64
    (folder / "voice.json").write_text(json.dumps(card))


def damage_field(folder: Path) -> None:
    card = json.loads((folder / "voice.json").read_text())
    card["vocoder"]["colour"] = "red"
    (folder / "voice.json").write_text(json.dumps(card))


def damage_mel(folder: Path) -> None:
    card = json.loads((folder / "voice.json").read_text())
    card["vocoder"]["mel"]["log_floor"] = 1e-7
    (folder / "voice.json").write_text(json.dumps(card))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_truncate, r"vocoder\.safetensors: cannot be read, perhaps truncated"),
        (damage_alter, r"acoustic\.safetensors: is not the file that the card names"),
        (damage_remove, r"acoustic\.safetensors: missing"),
        (damage_card, r"voice\.json: not a voice card"),
        (damage_spec, r"acoustic\.safetensors: does not fit the card's spec"),
        (damage_field, r"vocoder: VocosConfig has no field colour"),
        (damage_mel, r"the mels differ \(log_floor 1e-05 against 1e-07\)"),
    ],
)
def test_damage_is_named(folder: Path, damage: object, message: str) -> None:
    assert callable(damage)
    damage(folder)
    with pytest.raises(VoiceError, match=message):
        load_voice(folder)


def test_unknown_voice_lists_the_known() -> None:
    with pytest.raises(VoiceError, match="bundled voices: "):
        load_voice("nobody")


def test_parts_of_different_mels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VoiceError, match="sample_rate 22050 against 24000"):
        save_voice(
            tmp_path / "v",
            name="v",
            acoustic=MatchaTTS(MatchaConfig.debug()),
            acoustic_spec=spec_of("matcha", MatchaConfig.debug()),
            vocoder=Vocos(VocosConfig(VOCOS_24K, 16, 32, 1)),
            vocoder_spec=spec_of("vocos", VocosConfig(VOCOS_24K, 16, 32, 1)),
            frontend=FrontendConfig(),
        )


def test_mel_arithmetic() -> None:
    same, center = MelConfig(), VOCOS_24K
    assert same.frames_of(256 * 10 + 255) == 10 and same.samples_of(10) == 2560
    assert center.frames_of(2560) == 11 and center.samples_of(11) == 2560
    assert same.fingerprint != center.fingerprint and same.fingerprint == MelConfig().fingerprint
    assert same.frames_in(1.0) == 86
